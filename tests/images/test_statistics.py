from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_splitmask.errors import UserError
from lit_splitmask.images import statistics
from lit_splitmask.images.statistics import dataset_statistics


@pytest.fixture
def images(tmp_path: Path) -> dict[str, np.ndarray]:
    """Ten images of different sizes in ``tmp_path / "images"``, by file name."""
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    images = {}
    for number in range(10):
        shape = (20 + number, 30, 3)
        images[f"{number}.png"] = generator.integers(5 * number, 100 + 15 * number, shape, dtype=np.uint8)
        Image.fromarray(images[f"{number}.png"]).save(tmp_path / "images" / f"{number}.png")
    return images


def test_every_image_has_equal_weight(images: dict[str, np.ndarray], tmp_path: Path) -> None:
    mean, std = dataset_statistics(tmp_path / "images", list(images), str, tmp_path / "saved")
    pixels = [image.reshape(-1, 3) / 255 for image in images.values()]
    expected = np.mean([image.mean(0) for image in pixels], axis=0)
    assert mean == pytest.approx(expected, abs=1e-4)
    variance = np.mean([((image - expected) ** 2).mean(0) for image in pixels], axis=0)
    assert std == pytest.approx(np.sqrt(variance), abs=1e-4)


def test_the_result_is_measured_once_for_the_same_pixels(
    images: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = {file: f"pixels of {file}" for file in images}
    first = dataset_statistics(tmp_path / "images", list(images), hashes.__getitem__, tmp_path / "saved")
    assert len(list((tmp_path / "saved").glob("statistics-*.json"))) == 1
    monkeypatch.setattr(statistics, "decode", None)
    assert dataset_statistics(tmp_path / "images", list(images), hashes.__getitem__, tmp_path / "saved") == first
    with pytest.raises(TypeError):  # other pixels are decoded
        dataset_statistics(
            tmp_path / "images", list(images), (hashes | {"3.png": "other pixels"}).__getitem__, tmp_path / "saved"
        )


def test_a_sample_of_many_images_is_measured(
    images: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_MAX_IMAGES", 4)
    hashes = {file: file for file in images}
    sampled = dataset_statistics(tmp_path / "images", list(images), hashes.__getitem__, tmp_path / "saved")
    monkeypatch.undo()
    few = [list(images)[index] for index in (0, 3, 6, 9)]
    assert dataset_statistics(tmp_path / "images", few, hashes.__getitem__, tmp_path / "other") == sampled


def test_measuring_without_training_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are none"):
        dataset_statistics(tmp_path, [], str, tmp_path)
