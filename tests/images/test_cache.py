import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_splitmask.datamodules import ImageFolder
from lit_splitmask.files import open_partial
from lit_splitmask.images import cache, cache_writer, scan
from lit_splitmask.images.build_index import load_or_make
from lit_splitmask.images.cache import Reader, cache_of, choose_store_size, read_shrunk, stored_shape
from lit_splitmask.images.cache_writer import PartialCache, build
from lit_splitmask.images.decode import decode
from lit_splitmask.images.index import FolderIndex, SplitOptions

MakeFolder = Callable[..., Path]


@pytest.fixture
def index(flat_folder: MakeFolder, tmp_path: Path) -> FolderIndex:
    return load_or_make(flat_folder(9), tmp_path / "runs", SplitOptions())


@pytest.mark.parametrize("shape", [(100, 50), (51, 700), (50, 50), (10, 2000), (3, 1)])
def test_the_short_side_is_limited_and_nothing_is_enlarged(shape: tuple[int, int]) -> None:
    stored = stored_shape(shape, 50)
    assert min(stored) == min(*shape, 50)
    assert all(new <= old for new, old in zip(stored, shape, strict=True))
    assert stored[0] / stored[1] == pytest.approx(shape[0] / shape[1], rel=0.02)


def test_the_largest_store_size_that_fits_is_chosen() -> None:
    shapes = [(1000, 1000)] * 10
    sizes = [choose_store_size(shapes, 100, budget) for budget in (10e6, 5e6, 1.3e6, 0.7e6, 0.4e6, 0.3e6)]
    assert sizes == [400, 400, 200, 150, 115, None]
    assert choose_store_size(shapes, 100, 0) is None
    assert choose_store_size([(20, 20)], 100, 1200) == 400


def test_small_images_are_stored_unchanged(index: FolderIndex) -> None:
    build(index, 200)
    reader = Reader(index, 50, 200)
    assert reader.cache is not None
    for file in index.files:
        np.testing.assert_array_equal(reader(file), decode(index.root / file))


def test_pixels_are_the_same_with_and_without_the_cache(index: FolderIndex) -> None:
    without = {file: Reader(index, 16, 24)(file) for file in index.files}
    build(index, 24)
    reader = Reader(index, 16, 24)
    assert reader.cache is not None
    for file, pixels in without.items():
        assert min(pixels.shape[:2]) == 24
        np.testing.assert_array_equal(reader(file), pixels)


def test_stored_images_are_antialiased(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(noise).save(tmp_path / "images" / "noise.png")
    index = load_or_make(tmp_path / "images", tmp_path / "runs", SplitOptions())
    assert Reader(index, 50, 100)("noise.png").std() < noise.std() / 3


def test_the_cache_is_built_once(index: FolderIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    build(index, 24)
    monkeypatch.setattr(cache_writer, "PartialCache", None)
    build(index, 24)
    assert [path.suffix for path in sorted(index.path.parent.glob("pixels-24-*"))] == [".bin", ".json"]


def test_a_truncated_file_is_rebuilt(index: FolderIndex) -> None:
    build(index, 24)
    stored = cache_of(index, 24)
    whole = stored.path.read_bytes()
    stored.path.write_bytes(whole[:-7])
    assert not stored.is_whole
    assert Reader(index, 16, 24).cache is None
    build(index, 24)
    assert stored.path.read_bytes() == whole


def test_a_changed_file_is_rebuilt(index: FolderIndex) -> None:
    build(index, 24)
    stored = cache_of(index, 24)
    whole = stored.path.read_bytes()
    with stored.path.open("r+b") as stream:
        stream.write(b"damage")
    assert not stored.is_whole
    build(index, 24)
    assert stored.is_whole
    assert stored.path.read_bytes() == whole


def test_a_cache_of_another_version_is_replaced(index: FolderIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "VERSION", 1)
    build(index, 24)
    build(index, 32)
    old, other_size = cache_of(index, 24), cache_of(index, 32)
    monkeypatch.setattr(cache, "VERSION", 2)
    assert Reader(index, 16, 24).cache is None
    build(index, 24)
    assert Reader(index, 16, 24).cache is not None
    assert not old.path.exists()
    assert not old.path.with_suffix(".json").exists()
    assert other_size.path.exists()


def test_two_runs_can_build_the_cache_at_the_same_time(index: FolderIndex) -> None:
    stored = cache_of(index, 24)
    pixels = [read_shrunk(index.root / file, record.shape, 24) for file, record in index.files.items()]
    partials = [PartialCache(stored.path.parent, 24, stored.num_bytes) for _ in range(3)]
    for image in pixels:
        for partial in partials[:2]:
            partial.write(image)
    for partial in partials[:2]:
        partial.keep(index)
    for partial in partials:  # the third was interrupted
        partial.close()
    assert len(list(stored.path.parent.glob("pixels-*"))) == 2  # the pixels and their JSON file
    reader = Reader(index, 16, 24)
    assert reader.cache is not None
    for file, image in zip(index.files, pixels, strict=True):
        np.testing.assert_array_equal(reader(file), image)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the decoded files, in order."""
    names: list[str] = []

    def count(path: Path, *args: object, **settings: object) -> np.ndarray:
        names.append(Path(path).name)
        return decode(path, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(scan, "read_pixels", count)
    monkeypatch.setattr(cache, "decode", count)
    return names


@pytest.mark.parametrize("image_size", [4, 8, 32], ids=["shrunk by more than half", "shrunk", "unchanged"])
def test_the_scan_stores_the_same_pixels_as_a_later_build(
    flat_folder: MakeFolder, tmp_path: Path, image_size: int, decoded: list[str]
) -> None:
    root = flat_folder(9)
    (root / "broken.png").write_bytes(b"no image")
    data = ImageFolder(str(root), image_size, index_dir=str(tmp_path / "a"), splits=SplitOptions(max_bad_share=0.2))
    data.prepare_data()
    if image_size > 4:
        assert sorted(decoded) == sorted({*decoded})
    data.setup()
    index = data.index
    store_size = data.store_size(index)
    assert store_size is not None
    stored = cache_of(index, store_size)
    assert stored.is_whole
    scanned = stored.path.read_bytes()
    stored.path.unlink()
    build(index, store_size)
    assert stored.path.read_bytes() == scanned


def test_the_cache_is_right_after_a_wrong_estimate_of_the_store_size(
    flat_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = flat_folder(9)
    Image.new("RGB", (4000, 3000)).save(root / "000a.png")
    monkeypatch.setattr(cache_writer, "_MAX_SAMPLED", 1)  # only 000.png, which is small
    data = ImageFolder(str(root), 100, cache_gb=0.0005, index_dir=str(tmp_path / "a"))
    data.prepare_data()
    data.setup()
    store_size = data.store_size(data.index)
    assert store_size is not None
    assert store_size < 400
    assert isinstance(data.source.read, Reader)
    assert data.source.read.cache is not None
    assert len(list(data.index.path.parent.glob("pixels-*"))) == 2


def test_a_worker_gets_no_copy_of_the_pixels(index: FolderIndex) -> None:
    build(index, 24)
    reader = Reader(index, 16, 24)
    file = next(iter(index.files))
    pixels = reader(file)
    assert len(pickle.dumps(reader)) < 5_000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader))(file), pixels)


def test_on_a_full_disk_nothing_is_stored_and_a_warning_is_logged(
    index: FolderIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = shutil.disk_usage(index.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    build(index, 24)
    assert "lower cache_gb" in caplog.text
    assert not list(index.path.parent.glob("pixels-*"))
    assert Reader(index, 16, 24).cache is None


def test_a_disk_that_fills_up_leaves_nothing_behind(
    index: FolderIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    build(index, 24)
    assert "No space left" in caplog.text
    assert not list(index.path.parent.glob("pixels-*"))


def test_what_a_killed_run_left_is_removed_and_what_a_live_one_writes_is_not(index: FolderIndex) -> None:
    folder = index.path.parent
    abandoned = folder / "pixels-32.0123456789ab.tmp"
    abandoned.write_bytes(b"half")
    live, stream = open_partial(folder / "pixels-24")
    build(index, 24)
    assert not abandoned.exists()
    assert live.exists()
    stream.close()
    build(index, 24)  # also if the cache is there already
    assert not live.exists()
    assert cache_of(index, 24).is_whole
