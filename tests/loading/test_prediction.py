"""The images to predict: each exactly once, as large as training has them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_splitmask.errors import UserError
from lit_splitmask.images.build_index import load_or_make
from lit_splitmask.images.cache import Reader, choose_store_size
from lit_splitmask.images.decode import decode
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.images.tree import list_images
from lit_splitmask.loading.prediction import ShrinkingReader, WholeReader, examine_files

SHAPES = ((30, 40), (90, 64), (200, 150), (33, 400))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Photos of several sizes and formats, larger and smaller than they are stored."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for number, shape in enumerate(SHAPES):
        image = Image.fromarray(np.random.default_rng(number).integers(0, 256, (*shape, 3), dtype=np.uint8))
        image.save(folder / f"{number}.jpg")
        image.save(folder / "deep" / f"{number}.png")
    return folder


def test_every_image_is_decoded_once_and_the_unreadable_ones_are_named(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "cut.jpg").write_bytes((root / "2.jpg").read_bytes()[:900])
    (root / "empty.png").touch()
    (root / "gone.jpg").symlink_to("nowhere.jpg")
    files = list_images(root)
    found = examine_files(root, files, {"IMG_1.HEIC": "HEIC (convert it)"})
    assert sorted([*found.readable, *found.problems]) == sorted([*files, "IMG_1.HEIC"])
    assert len(found) == len(files) + 1 == 12
    assert found.shapes[found.readable.index("2.jpg")] == (200, 150)
    assert found.problems["empty.png"] == "the file is empty"
    assert found.problems["gone.jpg"] == "a link to nowhere.jpg, which does not exist"
    assert "truncated" in found.problems["cut.jpg"]
    assert found.problems["IMG_1.HEIC"] == "not read: HEIC (convert it)"
    for name in ("cut.jpg", "empty.png", "gone.jpg"):
        assert caplog.text.count(f"{root / name} ") == 1
    assert caplog.text.count("It is not predicted.") == 3


def test_images_that_can_all_not_be_read_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"None of the 1 images in .* can be read: a\.jpg \(its content is a web page"):
        examine_files(tmp_path, ["a.jpg"])
    with pytest.raises(UserError, match="None of the 0 images"):
        examine_files(tmp_path, [])


def test_whole_images_are_read_at_their_own_size(root: Path) -> None:
    np.testing.assert_array_equal(WholeReader(root, window=None)("2.jpg"), decode(root / "2.jpg"))


@pytest.mark.parametrize("image_size", [8, 16, 64])
def test_images_are_read_as_large_as_training_has_them_by_default(root: Path, tmp_path: Path, image_size: int) -> None:
    index = load_or_make(root, tmp_path / "runs", SplitOptions(layout="flat"))
    store_size = choose_store_size([record.shape for record in index.files.values()], image_size, 8 * 2**30)
    assert store_size == 4 * image_size
    training = Reader(index, image_size, store_size)
    predicting = ShrinkingReader(examine_files(root, list(reversed(list_images(root)))), image_size)  # in any order
    for file in index.files:
        pixels = predicting(file)
        assert min(pixels.shape[:2]) <= store_size
        np.testing.assert_array_equal(pixels, training(file))
