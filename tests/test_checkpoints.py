"""Weights in files: from several sources, into backbones of other shapes, and never trusted."""

import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from lightning import Trainer
from reference.tiny import tiny_batch, tiny_vit

from lit_splitmask.checkpoints import (
    FORMAT,
    config_of,
    load_into,
    load_weights,
    read_safetensors,
    save_backbone,
    write_safetensors,
)
from lit_splitmask.errors import UserError
from lit_splitmask.models import ViT, ViTConfig
from lit_splitmask.modules import Classify, Pretrain, Segment
from lit_splitmask.modules.base import TrainModule
from lit_splitmask.objectives import DINO, SplitMask

TINY = ViTConfig(image_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4)
DEEP = ViTConfig(image_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=4)


def saved(tmp_path: Path, vit: ViT, **info: Any) -> Path:
    save_backbone(tmp_path / "vit.safetensors", vit, **info)
    return tmp_path / "vit.safetensors"


def in_one_paragraph(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def body(vit: ViT) -> dict[str, torch.Tensor]:
    return {k: v for k, v in vit.state_dict().items() if k.startswith(("blocks.", "patch_embed."))}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_tensors_and_metadata_are_read_as_written(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).t(), "b": torch.arange(5)}
    write_safetensors(tmp_path / "x.safetensors", tensors, {"note": "hello"})
    read, metadata = read_safetensors(tmp_path / "x.safetensors")
    assert same(read, tensors)
    assert metadata["note"] == "hello"


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_missing_file_is_named(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(UserError, match=f"file .*nothing{suffix} does not exist"):
        load_weights(tmp_path / f"nothing{suffix}")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    vit = tiny_vit()
    whole = saved(tmp_path, vit)
    if suffix == ".pth":
        torch.save(vit.state_dict(), whole)
    data = whole.read_bytes()
    damaged = tmp_path / f"damaged{suffix}"
    damaged.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="damaged") as error:
        load_weights(damaged)
    assert str(damaged) in in_one_paragraph(error)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_picture_is_not_taken_for_weights(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"image{suffix}").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    with pytest.raises(UserError):
        load_weights(tmp_path / f"image{suffix}")


class Malicious:
    """Unpickling it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("by_torch", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, by_torch: bool) -> None:
    path, trap = tmp_path / "weights.pth", tmp_path / "trap"
    if by_torch:
        torch.save({"state_dict": Malicious(trap)}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(trap)))
    with pytest.raises(UserError, match="more than weights"):
        load_weights(path)
    assert not trap.exists()


@pytest.mark.parametrize("state", [{}, {"a": torch.zeros(1)}, [1, 2], {"state_dict": 3}])
def test_a_file_without_a_transformer_is_refused(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(UserError, match="no Vision Transformer"):
        load_weights(tmp_path / "other.pth")


def test_a_resnet_is_refused_in_one_paragraph(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(UserError, match="no Vision Transformer") as error:
        load_weights(tmp_path / "resnet.pth")
    assert "conv1" in in_one_paragraph(error)


def test_a_saved_backbone_is_read_with_its_metadata(tmp_path: Path) -> None:
    vit = tiny_vit(positions="sincos")
    weights = load_weights(saved(tmp_path, vit, class_names=["Maß", "b"], pixel_mean=[0.1, 0.2, 0.3]))
    assert same(weights.state, dict(vit.state_dict()))
    assert weights.info["class_names"] == ["Maß", "b"]
    assert weights.info["pixel_mean"] == [0.1, 0.2, 0.3]
    assert weights.info["positions"] == "sincos"
    assert weights.info["timm"] == vit.config.timm_args()


def test_loaded_weights_give_the_same_features_as_the_saved_ones(tmp_path: Path) -> None:
    vit, images = tiny_vit(seed=1).eval(), tiny_batch()["images"]
    other = tiny_vit(seed=2).eval()
    load_into(other, load_weights(saved(tmp_path, vit)))
    assert torch.equal(vit.features(images), other.features(images))


def test_a_classifier_takes_the_body_and_keeps_its_new_head(tmp_path: Path) -> None:
    vit, classifier = tiny_vit(seed=1), tiny_vit(seed=2, num_classes=5)
    new = {k: v.clone() for k, v in classifier.state_dict().items() if k.startswith(("head.", "fc_norm."))}
    load_into(classifier, load_weights(saved(tmp_path, vit)))
    assert same(body(vit), body(classifier))
    assert same(new, {k: v for k, v in classifier.state_dict().items() if k in new})


def test_the_head_of_the_weights_is_left_out(tmp_path: Path) -> None:
    source, target = tiny_vit(seed=1, num_classes=7), tiny_vit(seed=2, num_classes=5)
    load_into(target, load_weights(saved(tmp_path, source)))
    assert same(body(source), body(target))
    assert target.head.weight.shape == (5, 32)


@pytest.mark.parametrize("image_size", [16, 64, 96])
@pytest.mark.parametrize(("theirs", "ours"), [(False, False), (True, False), (False, True), (True, True)])
def test_positions_are_resized_and_cls_tokens_dropped_or_kept(
    tmp_path: Path, image_size: int, theirs: bool, ours: bool
) -> None:
    source, target = tiny_vit(seed=1, class_token=theirs), tiny_vit(seed=2, class_token=ours, image_size=image_size)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    load_into(target, load_weights(saved(tmp_path, source)))
    assert same(body(source), body(target))
    resized = tiny_vit(seed=1, class_token=theirs)
    resized.resize(image_size)
    patches = target.pos_embed[:, target.num_prefix_tokens :]
    torch.testing.assert_close(patches, resized.pos_embed[:, resized.num_prefix_tokens :])
    if ours:
        expected = source.state_dict() if theirs else before
        assert torch.equal(target.cls_token, expected["cls_token"])
        assert torch.equal(target.pos_embed[:, :1], expected["pos_embed"][:, :1])


def test_fixed_positions_stay_those_of_the_backbones_own_size(tmp_path: Path) -> None:
    target = tiny_vit(seed=2, positions="sincos", image_size=64)
    before = target.pos_embed.clone()
    load_into(target, load_weights(saved(tmp_path, tiny_vit(seed=1, positions="sincos"))))
    assert torch.equal(target.pos_embed, before)
    assert not target.pos_embed.requires_grad


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"embed_dim": 64}, "width 32, depth 2, patch size 8, 3 channels"),
        ({"depth": 3}, "blocks.2.* is not part of it"),
        ({"depth": 1}, "blocks.1.* is missing"),
        ({"patch_size": 4}, "patch_embed.proj.weight has shape .32, 3, 4, 4. instead of .32, 3, 8, 8."),
        ({"in_chans": 1}, "patch_embed.proj.weight has shape .32, 1, 8, 8. instead of .32, 3, 8, 8."),
    ],
)
def test_weights_of_another_shape_are_refused_with_both_shapes(tmp_path: Path, change: Any, text: str) -> None:
    weights = load_weights(saved(tmp_path, tiny_vit(**change)))
    with pytest.raises(UserError, match=text) as error:
        load_into(tiny_vit(), weights)
    assert "vit.safetensors" in in_one_paragraph(error)


@pytest.mark.parametrize("name", ["blocks.0.ls1.gamma", "norm_pre.weight", "reg_token", "dist_token"])
def test_a_relative_with_more_parts_is_refused(tmp_path: Path, name: str) -> None:
    torch.save({**tiny_vit().state_dict(), name: torch.ones(32)}, tmp_path / "relative.pth")
    with pytest.raises(UserError, match=f"{name} is not part of it"):
        load_into(tiny_vit(), load_weights(tmp_path / "relative.pth"))


def test_positions_that_do_not_form_a_square_are_refused(tmp_path: Path) -> None:
    torch.save({**tiny_vit().state_dict(), "pos_embed": torch.zeros(1, 18, 32)}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"pos_embed has shape .1, 18, 32. instead of .1, 16, 32."):
        load_into(tiny_vit(), load_weights(tmp_path / "odd.pth"))


@pytest.mark.parametrize("module", [
    Pretrain(SplitMask, backbone=TINY),
    Pretrain(partial(DINO, num_prototypes=8, hidden_dim=8), backbone=TINY),
    Classify(backbone=TINY, num_classes=3),
    Segment(backbone=DEEP, num_classes=3, channels=8),
], ids=["SplitMask", "DINO", "Classify", "Segment"])  # fmt: skip
def test_a_lightning_checkpoint_gives_the_backbone_that_an_export_would(module: TrainModule, tmp_path: Path) -> None:
    for number, parameter in enumerate(module.parameters()):  # a teacher differs from its student
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    module.set_statistics((0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    weights = load_weights(tmp_path / "last.ckpt")
    loaded = ViT(config_of(weights))
    load_into(loaded, weights)
    assert loaded.config.num_heads == module.vit.config.num_heads == 4  # no tensor shows it
    assert weights.info["pixel_mean"] == pytest.approx([0.4, 0.5, 0.6])
    assert same(body(loaded), body(module.vit))


def test_a_checkpoint_that_does_not_describe_its_backbone_is_loaded_by_its_names(tmp_path: Path) -> None:
    objective = SplitMask(tiny_vit(seed=1))
    torch.save({"state_dict": {f"objective.{k}": v for k, v in objective.state_dict().items()}}, tmp_path / "old.ckpt")
    target = tiny_vit(seed=2)
    load_into(target, load_weights(tmp_path / "old.ckpt"))
    assert same(body(target), body(objective.backbone))


@pytest.mark.parametrize(
    "metadata", ["{", "[1]", "3", '{"timm": {}}', '{"timm": []}', '{"timm": {"model_name": "vit", "patch_size": 8}}']
)
def test_a_file_with_invalid_metadata_is_refused(tmp_path: Path, metadata: str) -> None:
    write_safetensors(tmp_path / "odd.safetensors", tiny_vit().state_dict(), {FORMAT: metadata})
    with pytest.raises(UserError, match=r"odd\.safetensors.*give an unmodified file"):
        load_weights(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("positions", ["learned", "sincos"])
@pytest.mark.parametrize("class_token", [True, False])
def test_fixed_positions_are_recognised_by_their_values(positions: Any, class_token: bool, tmp_path: Path) -> None:
    torch.save(tiny_vit(positions=positions, class_token=class_token).state_dict(), tmp_path / "bare.pth")
    assert config_of(load_weights(tmp_path / "bare.pth")).positions == positions


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("class_token", [True, False])
def test_plain_timm_weights_are_loaded(tmp_path: Path, class_token: bool, wrapped: bool) -> None:
    source = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, embed_dim=32, depth=2, num_heads=2, patch_size=8, class_token=True
    )
    torch.save({"model": source.state_dict()} if wrapped else source.state_dict(), tmp_path / "timm.pth")
    target = tiny_vit(seed=2, image_size=64, class_token=class_token)
    load_into(target, load_weights(tmp_path / "timm.pth"))
    images = tiny_batch(image_size=64)["images"]
    if class_token:
        expected = source.eval().forward_features(images)[:, 1:]
        torch.testing.assert_close(target.eval().features(images), expected, rtol=1e-5, atol=1e-6)
    assert same(body(target), {k: v for k, v in source.state_dict().items() if k in body(target)})
