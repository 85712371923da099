"""Classification: new heads, soft targets, rates by layer, scores, exported classifiers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from reference.tiny import tiny_vit
from tiny_runs import BACKBONE, classifier, image_data, pretrain_module, tiny_trainer

from lit_splitmask.callbacks import ExportWeights
from lit_splitmask.checkpoints import load_weights, save_backbone
from lit_splitmask.errors import UserError
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Classify
from lit_splitmask.optim import OptimConfig

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


@pytest.fixture
def root(class_folder: MakeFolder) -> Path:
    return class_folder(per_class=8)


@pytest.fixture
def backbone_file(tmp_path: Path) -> Path:
    vit = pretrain_module(seed=3).vit
    path = tmp_path / "backbone.safetensors"
    save_backbone(path, vit, pixel_mean=[0.1, 0.2, 0.3], pixel_std=[0.4, 0.5, 0.6])
    return path


def images(count: int = 6) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_weights_are_loaded_into_the_body_and_the_head_is_new(backbone_file: Path) -> None:
    stored = load_weights(backbone_file).state
    own = classifier(weights=str(backbone_file), num_classes=3).vit.state_dict()
    body = [name for name in own if name.startswith(("blocks.", "patch_embed.", "pos_embed"))]
    assert len(body) > 20
    assert all(torch.equal(own[name], stored[name]) for name in body)
    assert own["head.weight"].shape == (3, 32)
    assert own["head.weight"].abs().max() < 1e-3  # nearly uniform predictions at the start
    assert own["head.weight"].abs().max() > 0
    assert torch.equal(own["fc_norm.weight"], torch.ones(32))


def test_the_shape_is_read_from_the_weights(backbone_file: Path) -> None:
    config = Classify(weights=str(backbone_file), num_classes=2).vit.config
    assert (config.embed_dim, config.depth, config.num_heads, config.patch_size) == (32, 2, 2, 8)
    assert config.image_size == 32


@pytest.mark.parametrize(("theirs", "requested", "used"), [
    ("learned", "sincos", "learned"), ("learned", "learned", "learned"), ("sincos", "sincos", "sincos"),
])  # fmt: skip
def test_positions_that_weights_have_learned_are_never_dropped(
    theirs: Any, requested: Any, used: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "b.safetensors"
    pretrained = tiny_vit(positions=theirs)
    save_backbone(path, pretrained)
    module = Classify(str(path), backbone=replace(pretrained.config, positions=requested), num_classes=3)
    assert module.vit.config.positions == used
    assert torch.equal(module.vit.pos_embed, pretrained.pos_embed)
    assert ("so the backbone gets them too" in caplog.text) == (used != requested)


def test_the_statistics_of_the_weights_take_precedence_over_those_of_the_data(backbone_file: Path, root: Path) -> None:
    module = classifier(weights=str(backbone_file))
    tiny_trainer(root.parent).fit(module, datamodule=image_data(root, steps=1))
    assert module.pixel_mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert module.pixel_std.tolist() == pytest.approx([0.4, 0.5, 0.6])


def test_the_statistics_of_the_data_are_used_from_scratch(root: Path) -> None:
    module = classifier()
    tiny_trainer(root.parent).fit(module, datamodule=image_data(root, steps=1, statistics="half"))
    assert module.pixel_mean.tolist() == [0.5, 0.5, 0.5]


def test_weights_of_another_width_are_refused_with_both_widths(backbone_file: Path) -> None:
    wider = ViTConfig(image_size=32, **{**BACKBONE, "embed_dim": 64})
    with pytest.raises(UserError, match=r"32.*64"):
        classifier(weights=str(backbone_file), backbone=wider, num_classes=2)


def test_fewer_than_two_classes_are_refused(flat_folder: MakeFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least two classes"):
        tiny_trainer(tmp_path).fit(classifier(), datamodule=image_data(flat_folder()))


def test_a_number_of_classes_that_differs_from_the_images_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"4 classes.*have 3"):
        tiny_trainer(root.parent).fit(classifier(num_classes=4), datamodule=image_data(root))


def test_an_image_size_that_differs_from_the_network_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"48 px.*32 px"):
        tiny_trainer(root.parent).fit(classifier(num_classes=3), datamodule=image_data(root, image_size=48))


def test_layers_closer_to_the_input_have_lower_learning_rates(root: Path) -> None:
    module = classifier(optim=OptimConfig(lr=1e-3, reference_batch=0, warmup=0.0, layer_decay=0.5))
    rates: dict[str, float] = {}

    class Watch(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            names = {parameter: name for name, parameter in pl_module.named_parameters()}
            for group in trainer.optimizers[0].param_groups:
                rates.update({names[parameter]: group["initial_lr"] for parameter in group["params"]})

    tiny_trainer(root.parent, callbacks=[Watch()]).fit(module, datamodule=image_data(root, steps=1))
    assert rates.keys() == {name for name, value in module.named_parameters() if value.requires_grad}
    assert rates["network.head.weight"] == pytest.approx(1e-3)
    assert rates["network.fc_norm.weight"] == pytest.approx(1e-3)
    assert rates["network.blocks.1.attn.qkv.weight"] == pytest.approx(1e-3 / 2)
    assert rates["network.blocks.0.mlp.fc1.bias"] == pytest.approx(1e-3 / 4)
    assert rates["network.patch_embed.proj.weight"] == pytest.approx(1e-3 / 8)
    assert rates["network.pos_embed"] == pytest.approx(1e-3 / 8)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.0, 0.0), (0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_targets_are_distributions(mixup: float, cutmix: float, smoothing: float) -> None:
    module = classifier(num_classes=4, mixup=mixup, cutmix=cutmix, label_smoothing=smoothing)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    for seed in range(5):
        torch.manual_seed(seed)
        mixed, targets = module.mix(torch.rand(6, 3, 32, 32), labels)
        assert mixed.shape == (6, 3, 32, 32)
        assert torch.allclose(targets.sum(dim=1), torch.ones(6), atol=1e-5)
        assert targets.min() >= smoothing / 4 - 1e-6


def test_smoothing_without_mixing_gives_the_label_most() -> None:
    module = classifier(num_classes=4, mixup=0.0, cutmix=0.0, label_smoothing=0.2)
    inputs = torch.rand(2, 3, 32, 32)
    mixed, targets = module.mix(inputs, torch.tensor([2, 0]))
    assert torch.equal(mixed, inputs)
    assert torch.allclose(targets, torch.tensor([[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]]))


def test_targets_are_mixed_in_the_same_proportion_as_images() -> None:
    module = classifier(num_classes=2, mixup=0.8, cutmix=0.0, label_smoothing=0.0)
    black_and_white = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    torch.manual_seed(0)
    mixed, targets = module.mix(black_and_white, torch.tensor([0, 1]))
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), targets[:, 1], atol=1e-5)


def test_the_training_loss_is_the_cross_entropy_of_soft_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    module = classifier(num_classes=3, mixup=0.0, cutmix=0.0, label_smoothing=0.1, drop_path=0.0)
    with torch.no_grad():
        module.vit.get_parameter("head.weight").normal_()
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    loss = module.training_step({"image": images(), "label": labels}, 0)
    log_probabilities = module(images()).log_softmax(dim=1)
    by_hand = torch.stack(
        [-(0.9 * row[label] + 0.1 * row.mean()) for row, label in zip(log_probabilities, labels, strict=True)]
    ).mean()
    assert float(loss) == pytest.approx(float(by_hand), rel=1e-5)
    assert not torch.allclose(loss, F.cross_entropy(module(images()), labels))


def test_a_loss_of_nan_stops_the_run(root: Path) -> None:
    module = classifier(num_classes=3)
    with torch.no_grad():
        module.vit.get_parameter("head.bias").fill_(float("nan"))
    with pytest.raises(UserError, match=r"optim\.lr is 0.001"):
        tiny_trainer(root.parent).fit(module, datamodule=image_data(root))


def test_the_same_seed_gives_the_same_initial_weights_in_any_random_state() -> None:
    torch.manual_seed(1)
    first = classifier(num_classes=3, seed=5)
    torch.rand(7)
    again, other = classifier(num_classes=3, seed=5), classifier(num_classes=3, seed=6)
    name = "blocks.0.attn.qkv.weight"
    assert torch.equal(first.vit.state_dict()[name], again.vit.state_dict()[name])
    assert not torch.equal(first.vit.state_dict()[name], other.vit.state_dict()[name])


def test_top5_is_reported_of_more_than_five_classes() -> None:
    assert "accuracy_top5" not in classifier(num_classes=5).val_scores
    assert "accuracy_top5" in classifier(num_classes=6).val_scores


def test_the_confusion_matrix_counts_every_test_image_and_explains_the_scores(root: Path) -> None:
    module, data = classifier(), image_data(root)
    trainer = tiny_trainer(root.parent)
    trainer.fit(module, datamodule=data)
    scores = trainer.test(module, datamodule=data, verbose=False)[0]
    labels = torch.tensor(data.source.splits["test"].labels)
    confusion = module.confusion
    assert torch.equal(confusion.sum(dim=1), torch.bincount(labels, minlength=3))
    assert int(confusion.sum()) == len(labels)
    assert scores["test/accuracy"] == pytest.approx(float(confusion.diag().sum() / len(labels)))
    for name, row in zip(data.class_names, range(3), strict=True):
        expected = float(confusion[row, row] / confusion[row].sum())
        assert scores[f"test/accuracy/{name}"] == pytest.approx(expected)
    again = trainer.test(module, datamodule=data, verbose=False)[0]
    assert again == scores
    assert int(module.confusion.sum()) == len(labels)  # counted again, not accumulated


def test_predictions_are_probabilities(root: Path) -> None:
    module, data = classifier(), image_data(root, steps=1)
    trainer = tiny_trainer(root.parent)
    trainer.fit(module, datamodule=data)
    batches = trainer.predict(module, datamodule=data)
    assert batches is not None
    probabilities = torch.cat([batch["probabilities"] for batch in batches])  # type: ignore[index, call-overload]
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(len(probabilities)), atol=1e-5)
    assert len(probabilities) == len(data.predict_paths)


def exported(tmp_path: Path) -> tuple[Classify, Path]:
    module = classifier(num_classes=3, seed=2)
    with torch.no_grad():
        module.vit.get_parameter("head.weight").normal_()
    module.class_names = ["cat", "dog", "emu"]
    module.set_statistics([0.4, 0.4, 0.5], [0.2, 0.3, 0.2])
    path = tmp_path / "classifier.safetensors"
    ExportWeights(str(path)).export(module.eval(), 7)
    return module, path


def test_timm_loads_an_exported_classifier_strictly_with_the_same_logits(tmp_path: Path) -> None:
    module, path = exported(tmp_path)
    weights = load_weights(path)
    assert weights.info["class_names"] == ["cat", "dog", "emu"]
    assert weights.info["step"] == 7
    model = timm.create_model(**weights.info["timm"]).eval()
    model.load_state_dict(weights.state, strict=True)
    mean, std = (torch.tensor(weights.info[key])[:, None, None] for key in ("pixel_mean", "pixel_std"))
    with torch.no_grad():
        theirs = model((images().float() / 255 - mean) / std)
        assert torch.allclose(theirs, module(images()), atol=1e-5)
        assert theirs.std() > 0.1


def test_an_exported_classifier_is_restored_with_its_head_and_names(tmp_path: Path) -> None:
    module, path = exported(tmp_path)
    back = Classify(weights=str(path), keep_head=True).eval()
    assert back.class_names == ["cat", "dog", "emu"]
    with torch.no_grad():
        assert torch.allclose(back(images()), module(images()), atol=1e-6)


def test_keeping_the_head_of_a_bare_backbone_is_refused(backbone_file: Path) -> None:
    with pytest.raises(UserError, match=r"classifier\.safetensors"):
        Classify(weights=str(backbone_file), keep_head=True)
    with pytest.raises(UserError, match="trained classifier"):
        Classify(keep_head=True)


def test_a_classifier_is_not_tested_on_images_of_other_classes(tmp_path: Path, root: Path) -> None:
    _, path = exported(tmp_path)
    with pytest.raises(UserError, match=r"cat, dog, emu.*disc, square, stripes"):
        tiny_trainer(tmp_path).test(Classify(weights=str(path), keep_head=True), datamodule=image_data(root))


def test_a_resumed_fine_tuning_ends_with_the_same_weights(root: Path) -> None:
    folder = root.parent / "ckpt"
    every = ModelCheckpoint(str(folder), every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole, resumed = classifier(), classifier()
    tiny_trainer(root.parent, callbacks=[every], enable_checkpointing=True).fit(whole, datamodule=image_data(root))
    tiny_trainer(root.parent).fit(resumed, datamodule=image_data(root), ckpt_path=folder / "step=4.ckpt")
    ours, theirs = whole.vit.state_dict(), resumed.vit.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_grey_images_are_classified_by_a_network_of_one_channel() -> None:
    config = ViTConfig(image_size=32, in_chans=1, **BACKBONE)
    logits = Classify(backbone=config, num_classes=2)(images()[:, :1])
    assert logits.shape == (6, 2)


def test_a_class_without_test_images_has_no_accuracy(split_folder: MakeFolder, tmp_path: Path) -> None:
    root = split_folder(train=4, val=1, test=1)
    for file in (root / "test" / "disc").iterdir():
        file.unlink()
    module, data = classifier(), image_data(root, steps=1)
    trainer = tiny_trainer(tmp_path)
    trainer.fit(module, datamodule=data)
    scores = trainer.test(module, datamodule=data, verbose=False)[0]
    assert "test/accuracy/disc" not in scores
    assert np.isfinite(list(scores.values())).all()


def test_testing_keeps_which_images_were_right(root: Path, tmp_path: Path) -> None:
    module, data = classifier(), image_data(root)
    trainer = tiny_trainer(tmp_path)
    module.test_hits[999] = True  # of an earlier test of more images
    (scores,) = trainer.test(module, datamodule=data, verbose=False)
    labels = data.source.splits["test"].labels
    images = torch.cat([batch["image"] for batch in data.test_dataloader()])
    with torch.no_grad():
        right = module.eval()(images).argmax(dim=1).numpy() == labels
    assert module.test_hits == dict(enumerate(right.tolist()))
    assert np.mean(list(module.test_hits.values())) == pytest.approx(scores["test/accuracy"])
