"""What ``export`` writes gives the outputs of the original, in another library, for any number of images."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from exported import CONFIG, MEAN, NAMES, STD, photo, run, run_card, save_classifier, save_segmenter
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf

from lit_splitmask.augment.evaluate import EvalTransform
from lit_splitmask.checkpoints import save_backbone
from lit_splitmask.commands.export import formats
from lit_splitmask.loading.pairs import WholeImages
from lit_splitmask.loading.samples import Samples
from lit_splitmask.models.vit import ViT
from lit_splitmask.modules import Segment
from lit_splitmask.views import network_view

MEAN_TENSOR, STD_TENSOR = torch.tensor(MEAN), torch.tensor(STD)


def crop_of(pixels: np.ndarray, ratio: float = 0.875) -> torch.Tensor:
    """The crop of evaluation, (1, C, 32, 32) uint8."""
    return torch.from_numpy(EvalTransform(32, ratio)(pixels).copy()).permute(2, 0, 1)[None]


def noise(images: int) -> torch.Tensor:
    return torch.randint(256, (images, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_timm_and_its_hub_get_the_true_preprocessing_and_the_class_names(tmp_path: Path) -> None:
    vit = save_classifier(tmp_path / "c.safetensors", crop_ratio=1.0)
    assert run(tmp_path / "c.safetensors", "timm", tmp_path / "out") == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    save_for_hf(model, tmp_path / "hub", safe_serialization=True)  # what push_to_hf_hub uploads
    for folder in ("out", "hub"):
        model = timm.create_model(f"local-dir:{tmp_path / folder}", pretrained=True).eval()
        data = resolve_data_config({}, model=model)
        assert (list(data["mean"]), list(data["std"]), tuple(data["input_size"])) == (MEAN, STD, (3, 32, 32))
        assert (data["crop_pct"], data["interpolation"], data["crop_mode"]) == (1.0, "bicubic", "center")
        assert model.pretrained_cfg["label_names"] == NAMES
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(model(images), vit(images))


def test_timms_transform_gives_nearly_the_crop_of_evaluation(tmp_path: Path) -> None:
    save_classifier(tmp_path / "c.safetensors", crop_ratio=0.875)
    assert run(tmp_path / "c.safetensors", "timm", tmp_path / "out") == 0
    pixels = photo(tmp_path / "photo.png")
    data = resolve_data_config({}, model=timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True))
    theirs = create_transform(**data)(Image.open(tmp_path / "photo.png"))[None]
    ours = network_view(crop_of(pixels), MEAN_TENSOR, STD_TENSOR)
    levels = ((theirs - ours) * STD_TENSOR.view(3, 1, 1) * 255).abs()
    assert levels.mean() < 3


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8, 0.875, 0.9, 0.95, 1.0])
def test_timms_crop_is_centred_and_within_a_pixel_of_the_ratio(ratio: float) -> None:
    for size in range(16, 600, 8):
        resized = math.floor(size / formats.timm_crop(size, ratio))
        assert (resized - size) % 2 == 0
        assert abs(resized - size / ratio) <= 1
    assert formats.timm_crop(224, 0.875) == 0.875
    assert math.floor(32 / formats.timm_crop(32, 0.9)) == 36  # timm would take 35


def test_a_backbone_is_exported_without_classes(tmp_path: Path) -> None:
    vit = ViT(CONFIG).eval()
    save_backbone(tmp_path / "b.safetensors", vit, pixel_mean=MEAN, pixel_std=STD)
    assert run(tmp_path / "b.safetensors", "timm", tmp_path / "out") == 0
    images = torch.randn(2, 3, 32, 32)
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    torch.testing.assert_close(model(images), vit.features(images).mean(dim=1))
    assert "label_names" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_the_card_of_a_one_channel_classifier_takes_the_luminance(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit = ViT(replace(CONFIG, in_chans=1), num_classes=3).eval()
    torch.nn.init.normal_(vit.get_parameter("head.weight"))
    save_backbone(tmp_path / "c.safetensors", vit, pixel_mean=[0.4], pixel_std=[0.2], crop_ratio=0.9)
    assert run(tmp_path / "c.safetensors", "timm", tmp_path / "out") == 0
    pixels = EvalTransform(32, 0.9)(photo(tmp_path / "photo.jpg"))
    grey = torch.from_numpy(np.array(Image.fromarray(pixels).convert("L")))[None, None]
    with torch.inference_mode():
        expected = vit(network_view(grey, torch.tensor([0.4]), torch.tensor([0.2])))
    np.testing.assert_allclose(run_card(tmp_path / "out", tmp_path)["logits"], expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("format_name", ["torch-export", "onnx"])
def test_a_classifier_takes_pixels_of_any_number_of_images(format_name: str, tmp_path: Path) -> None:
    vit = save_classifier(tmp_path / "c.safetensors", crop_ratio=0.9)
    assert run(tmp_path / "c.safetensors", format_name, tmp_path / "out") == 0
    if format_name == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra export")
        session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
        assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == NAMES
        (output,) = session.run(None, {"images": noise(5).numpy()})
        logits = torch.from_numpy(output)
    else:
        logits = torch.export.load(tmp_path / "out" / "model.pt2").module()(noise(5))
    torch.testing.assert_close(logits, vit(network_view(noise(5), MEAN_TENSOR, STD_TENSOR)), atol=1e-4, rtol=1e-4)
    pixels = photo(tmp_path / "photo.jpg")
    with torch.inference_mode():
        expected = vit(network_view(crop_of(pixels, 0.9), MEAN_TENSOR, STD_TENSOR))
    found = run_card(tmp_path / "out", tmp_path)
    np.testing.assert_allclose(found["logits"], expected.numpy(), atol=1e-4)
    assert found["names"] == NAMES


@pytest.mark.slow
@pytest.mark.parametrize(("short_side", "same"), [(36, 0.999), (24, 0.8)])  # predict shortens the window for 24 px
def test_the_card_of_a_segmenter_scales_images_and_pads_small_ones(
    short_side: int, same: float, tmp_path: Path
) -> None:
    module = save_segmenter(tmp_path / "s.safetensors", short_side=short_side)
    assert run(tmp_path / "s.safetensors", "torch-export", tmp_path / "out") == 0
    expected = whole_logits(module, photo(tmp_path / "photo.jpg", 40, 56))[0].numpy()
    found = run_card(tmp_path / "out", tmp_path)
    assert (found["classes"] == expected.argmax(axis=0)).mean() > same


def whole_logits(module: Segment, pixels: np.ndarray) -> torch.Tensor:
    images = WholeImages(
        Samples(["a"], [0]), lambda _: pixels, read_classes=None, short_side=module.short_side, channels=3
    )
    with torch.inference_mode():
        return module.logits_at(images.__getitems__([0]))


@pytest.mark.parametrize("format_name", [pytest.param("torch-export", marks=pytest.mark.slow), "onnx"])
def test_a_segmenter_takes_windows_and_its_card_predicts_the_map(format_name: str, tmp_path: Path) -> None:
    if format_name == "onnx":
        pytest.importorskip("onnxruntime", reason="needs the extra export")
    module = save_segmenter(tmp_path / "s.safetensors")
    assert run(tmp_path / "s.safetensors", format_name, tmp_path / "out") == 0
    pixels = photo(tmp_path / "photo.jpg", 40, 56)
    expected = whole_logits(module, pixels)[0].numpy()
    found = run_card(tmp_path / "out", tmp_path)
    np.testing.assert_allclose(found["logits"], expected, atol=1e-4)
    assert found["classes"].shape == (40, 56)
