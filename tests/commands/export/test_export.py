"""``lit-splitmask export``: what it writes gives the outputs of the original."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from lit_splitmask.augment.evaluate import EvalTransform
from lit_splitmask.checkpoints import save_backbone
from lit_splitmask.cli import main
from lit_splitmask.models.vit import ViT, ViTConfig

MEAN, STD = [0.3, 0.4, 0.6], [0.2, 0.1, 0.3]
CONFIG = ViTConfig(image_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, ViT]:
    torch.manual_seed(0)
    vit = ViT(CONFIG, num_classes=3).eval()
    torch.nn.init.normal_(vit.head.weight)
    path = tmp_path / "classifier.safetensors"
    save_backbone(path, vit, pixel_mean=MEAN, pixel_std=STD, class_names=["a", "b", "c"])
    return path, vit


def run(path: Path, kind: str, out: Path) -> int:
    return main(["export", "--weights", str(path), "--format", kind, "--out", str(out)])


def test_timm_predicts_from_an_image_file_what_the_original_does(saved: tuple[Path, ViT], tmp_path: Path) -> None:
    path, vit = saved
    out = tmp_path / "out"
    assert run(path, "timm", out) == 0
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    data = resolve_data_config({}, model=model)
    assert (list(data["mean"]), list(data["std"]), data["input_size"]) == (MEAN, STD, (3, 32, 32))
    assert (data["crop_pct"], data["interpolation"], data["crop_mode"]) == (0.875, "bicubic", "center")
    assert model.pretrained_cfg["label_names"] == ["a", "b", "c"]
    ramp = np.add.outer(np.arange(80), np.arange(101))
    image = np.stack([ramp, 180 - ramp, ramp // 2], -1).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.png")
    theirs = create_transform(**data)(Image.open(tmp_path / "photo.png"))[None]
    pixels = torch.from_numpy(EvalTransform(32)(image).copy()).permute(2, 0, 1)[None] / 255
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    ours = (pixels - mean) / std
    with torch.inference_mode():
        torch.testing.assert_close(model(ours), vit(ours))
        logits = (model(theirs) - vit(ours)).abs().max()
    levels = ((theirs - ours) * std * 255).abs().max()
    print(f"pixels: {levels:.3f} of 255, logits: {logits:.4f}")
    assert levels < 4
    assert model(theirs).argmax() == vit(ours).argmax()


def test_a_torch_export_program_takes_any_number_of_images(saved: tuple[Path, ViT], tmp_path: Path) -> None:
    path, vit = saved
    assert run(path, "torch-export", tmp_path / "out") == 0
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    images = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(program(images), vit(images))


def test_a_backbone_is_exported_without_classes(tmp_path: Path) -> None:
    vit = ViT(CONFIG).eval()
    save_backbone(tmp_path / "b.safetensors", vit, pixel_mean=MEAN, pixel_std=STD)
    assert run(tmp_path / "b.safetensors", "timm", tmp_path / "out") == 0
    images = torch.randn(2, 3, 32, 32)
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    torch.testing.assert_close(model(images), vit(images))
    assert "label_names" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_an_existing_folder_is_not_overwritten(
    saved: tuple[Path, ViT], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    assert run(saved[0], "timm", tmp_path / "out") == 1
    assert "already exists" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_weights_that_do_not_say_their_mean_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_backbone(tmp_path / "b.safetensors", ViT(CONFIG))
    assert run(tmp_path / "b.safetensors", "timm", tmp_path / "out") == 1
    assert "pixel mean" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.safetensors"]


def test_onnxruntime_takes_any_number_of_images(saved: tuple[Path, ViT], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path, vit = saved
    assert run(path, "onnx", tmp_path / "out") == 0
    images = torch.randn(5, 3, 32, 32)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    (output,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), vit(images).detach(), atol=1e-4, rtol=1e-4)


def test_the_crop_is_the_files_or_the_default_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, info, ratio in (("old", {}, 0.875), ("new", {"crop_ratio": 1.0}, 1.0)):
        path = tmp_path / f"{name}.safetensors"
        save_backbone(path, ViT(CONFIG, num_classes=3), pixel_mean=MEAN, pixel_std=STD, **info)
        assert run(path, "timm", tmp_path / name) == 0
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["pretrained_cfg"]["crop_pct"] == ratio
        assert ("does not record its crop ratio" in capsys.readouterr().out) == (name == "old")
