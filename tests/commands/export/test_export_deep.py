"""What is exported says how images of more than 8 bits are read, or refuses them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from deep_images import deep_values
from exported import CONFIG, MEAN, NAMES, STD, run, run_card, save_classifier
from PIL import Image

from lit_splitmask.augment.evaluate import EvalTransform
from lit_splitmask.commands.export.formats import plain_config
from lit_splitmask.commands.export.snippets import snippet
from lit_splitmask.commands.export.trained import Trained, read_trained
from lit_splitmask.images.decode import decode
from lit_splitmask.views import network_view

WINDOW = (100.0, 2000.5)


def exported_timm(folder: Path, **info: object) -> Trained:
    save_classifier(folder / "c.safetensors", crop_ratio=0.9, **info)
    assert run(folder / "c.safetensors", "timm", folder / "out") == 0
    return read_trained(str(folder / "c.safetensors"))


def xray(path: Path, dtype: type) -> Path:
    """An X-ray whose values lie on both sides of the window too."""
    values = deep_values(20).astype(dtype)
    values[5, 5] = 60_000
    if dtype is np.float32:
        values[6, :3] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(path, "PNG" if dtype is np.uint16 else "TIFF")
    return path


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_code_in_a_card_reads_an_xray_through_the_window_of_training(dtype: type, tmp_path: Path) -> None:
    trained = exported_timm(tmp_path, pixel_window=list(WINDOW))
    pixels = EvalTransform(32, 0.9)(decode(xray(tmp_path / "photo.jpg", dtype), window=WINDOW))
    assert len(np.unique(pixels)) > 60
    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = trained.network(network_view(images, torch.tensor(MEAN), torch.tensor(STD)))
    np.testing.assert_allclose(run_card(tmp_path / "out", tmp_path)["logits"], expected.numpy(), atol=1e-4)


def test_card_and_configuration_give_the_window(tmp_path: Path) -> None:
    trained = exported_timm(tmp_path, pixel_window=list(WINDOW))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "images of more than 8 bits: their values from 100 to 2000.5 become 0–255" in card
    assert "timm and transformers do not do that" in card
    assert json.loads((tmp_path / "out" / "config.json").read_text())["pixel_window"] == list(WINDOW)
    assert plain_config(trained)["pixel_window"] == WINDOW
    for format_name in ("onnx", "torch-export"):
        assert "low, high = 100.0, 2000.5\n" in snippet(trained, format_name, tmp_path)


def test_a_network_without_a_window_refuses_an_xray(tmp_path: Path) -> None:
    trained = exported_timm(tmp_path)
    assert "the network has no window for deeper ones" in (tmp_path / "out" / "README.md").read_text()
    assert plain_config(trained)["pixel_window"] is None
    xray(tmp_path / "photo.jpg", np.uint16)
    with pytest.raises(ValueError, match="has no window for images of more than 8 bits"):
        run_card(tmp_path / "out", tmp_path)
    Image.new("L", (50, 40), 90).save(tmp_path / "photo.jpg")
    assert run_card(tmp_path / "out", tmp_path)["names"] == NAMES


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_the_code_for_every_kind_of_network_scales_before_it_converts(kind: str, tmp_path: Path) -> None:
    trained = exported_timm(tmp_path, pixel_window=list(WINDOW))
    code = snippet(Trained(kind, trained.network, CONFIG, trained.weights, 0.9), "torch-export", tmp_path)  # type: ignore[arg-type]
    assert code.index("low, high") < code.index('convert("RGB")') < code.index("pixels")
