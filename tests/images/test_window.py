"""Images of more than 8 bits: one window for a set keeps their absolute values."""

from pathlib import Path

import numpy as np
import pytest
from deep_images import deep_values, write_deep
from PIL import Image

from lit_splitmask.errors import UserError
from lit_splitmask.images import statistics
from lit_splitmask.images.build_index import load_or_make
from lit_splitmask.images.cache import Reader, cache_of, read_shrunk
from lit_splitmask.images.cache_writer import build
from lit_splitmask.images.decode import decode, read_pixels
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.images.scan import _say_gaps, examine, hash_pixels
from lit_splitmask.images.statistics import measure_window
from lit_splitmask.images.window import DEEP, parse_window, show, to_rgb


def files(folder: Path, images: list[np.ndarray], suffix: str = ".tif") -> list[tuple[Path, str]]:
    """Images as files, with the hashes of their pixels."""
    paths = [write_deep(folder / f"{number}{suffix}", values) for number, values in enumerate(images)]
    return [(path, examine(path)[0].hash) for path in paths]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_values_become_black_at_the_lower_end_and_white_at_the_upper(tmp_path: Path, dtype: type) -> None:
    values = np.array([[0, 1000, 2000], [3000, 4000, 60_000]], dtype=dtype)
    pixels = decode(write_deep(tmp_path / "a.tif", values), window=(1000, 4000))
    assert pixels.dtype == np.uint8
    assert pixels[..., 1].tolist() == [[0, 0, 85], [170, 255, 255]]
    assert (pixels == pixels[..., :1]).all()


def test_an_image_of_many_rows_is_mapped_as_its_parts_are(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (50, 7)).astype(np.uint16)
    for window in ((100.0, 3000.0), None):
        monkeypatch.setattr("lit_splitmask.images.window.CHUNK", 2**20)
        whole = to_rgb(values, window)
        monkeypatch.setattr("lit_splitmask.images.window.CHUNK", 20)
        np.testing.assert_array_equal(to_rgb(values, window), whole)


def test_two_images_of_which_one_is_twice_as_bright_stay_different(tmp_path: Path) -> None:
    values = deep_values(0)
    dim, bright = files(tmp_path, [values, 2 * values], ".png")
    window = measure_window([dim, bright], tmp_path / "saved")
    means = [
        decode(path, window=window).mean() / 255 * (window[1] - window[0]) + window[0] for path, _ in (dim, bright)
    ]
    assert means[1] == pytest.approx(2 * means[0], rel=0.01)
    assert dim[1] != bright[1]  # they were one image to the search for duplicates
    assert decode(dim[0]).tolist() == decode(bright[0]).tolist()  # without a window


def test_a_hot_pixel_leaves_all_grey_levels(tmp_path: Path) -> None:
    values = deep_values(0, 64)
    values[5, 5] = 65_535
    window = measure_window(files(tmp_path, [values, deep_values(1, 64)], ".png"), tmp_path / "saved")
    path = tmp_path / "0.png"
    assert len(np.unique(decode(path))) < 20  # stretched from its own minimum to its own maximum
    assert len(np.unique(decode(path, window=window))) > 180


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_images_of_8_bits_do_not_know_the_window(tmp_path: Path, extension: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    for name, image in {"grey": values[..., 0], "colour": values}.items():
        Image.fromarray(image).save(tmp_path / f"{name}.{extension}")
        plain = decode(tmp_path / f"{name}.{extension}")
        np.testing.assert_array_equal(decode(tmp_path / f"{name}.{extension}", window=(1000, 4000)), plain)
        assert not examine(tmp_path / f"{name}.{extension}")[0].hash.startswith(DEEP)


def test_the_window_is_the_percentiles_of_the_pixels_whatever_the_order_of_the_threads(tmp_path: Path) -> None:
    images = [deep_values(number, 32) for number in range(12)]
    found = files(tmp_path, images, ".png")
    window = measure_window(found, tmp_path / "saved")
    low, high = np.percentile(np.stack(images), (0.5, 99.5))
    assert window == (np.floor(low), np.ceil(high))
    for path, _ in found:
        path.unlink()
    assert measure_window(found, tmp_path / "saved") == window  # measured once


def test_the_window_is_measured_on_a_bounded_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = files(tmp_path, [np.full((6, 6), 100 * number, dtype=np.uint16) for number in range(9)], ".png")
    monkeypatch.setattr(statistics, "MOST_WINDOW_IMAGES", 3)
    monkeypatch.setattr(statistics, "_WINDOW_PIXELS", 4)
    read: list[str] = []
    monkeypatch.setattr(statistics, "read_pixels", lambda path: read.append(path.stem) or read_pixels(path))
    low, high = measure_window(found, tmp_path / "saved")
    assert sorted(read) == ["0", "4", "8"]
    assert 0 <= low < 100
    assert 700 < high <= 800
    assert len(statistics._some_values(found[0][0])) == 4


@pytest.mark.parametrize(
    ("values", "window"),
    [
        (np.full((9, 9), 700, dtype=np.uint16), (699.5, 700.5)),
        (
            np.where(np.arange(10_000).reshape(100, 100) == 7, 900, 3).astype(np.uint16),
            (3, 900),
        ),  # a speck on background
        (np.linspace(-0.25, 0.5, 10_001, dtype=np.float32)[:, None], (-0.24625, 0.49625)),
    ],
    ids=["constant", "background", "floats"],
)
def test_odd_images_have_a_window_too(tmp_path: Path, values: np.ndarray, window: tuple[float, float]) -> None:
    assert measure_window(files(tmp_path, [values]), tmp_path / "saved") == pytest.approx(window, rel=1e-4)


def test_what_is_no_number_is_black_or_white_and_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _say_gaps.cache_clear()
    values = np.array([[0, 50, 100], [np.nan, np.inf, -np.inf]], dtype=np.float32)
    found = files(tmp_path, [values, values + 1])
    assert caplog.text.count("NaN and minus infinity become black, infinity white") == 1
    assert decode(found[0][0], window=(0, 100))[..., 0].tolist() == [[0, 128, 255], [0, 255, 0]]
    assert measure_window(found, tmp_path / "saved") == (0, 101)
    with pytest.raises(UserError, match=r"No pixel of .*0\.tif and 0 more images is a finite number"):
        measure_window(files(tmp_path / "none", [np.full((3, 3), np.nan, dtype=np.float32)]), tmp_path / "saved")


def test_equal_values_have_one_hash_whatever_the_file(tmp_path: Path) -> None:
    values = deep_values(3)
    paths = [write_deep(tmp_path / "a.png", values)]
    paths += [write_deep(tmp_path / f"{dtype.__name__}.tif", values.astype(dtype)) for dtype in (np.int32, np.float32)]
    assert len({hash_pixels(read_pixels(path)) for path in paths}) == 1
    assert examine(paths[0])[0].hash.startswith(DEEP)


@pytest.mark.parametrize("given", ["0,4095", "[0, 4095]", " (0,4095.0) ", (0, 4095), [0.0, 4095.0]])
def test_a_window_is_two_numbers(given: object) -> None:
    assert parse_window(given) == (0.0, 4095.0)  # type: ignore[arg-type]
    assert show((0.0, 4095.0)) == "0,4095"
    assert parse_window(show((-0.1, 1 / 3))) == (-0.1, 1 / 3)


@pytest.mark.parametrize("given", ["", "5", "1,2,3", "a,b", "5,5", "9,1", "nan,1", "0,inf", (1,)])
def test_anything_else_is_no_window(given: object) -> None:
    with pytest.raises(UserError, match=r"must be two numbers, the lower first.*--data\.window=0,4095"):
        parse_window(given)  # type: ignore[arg-type]


def test_a_cache_of_another_window_is_not_used_and_stays(tmp_path: Path) -> None:
    for number in range(4):
        write_deep(tmp_path / "set" / f"{number}.png", deep_values(number))
    index = load_or_make(tmp_path / "set", tmp_path / "runs", SplitOptions(layout="flat"))
    windows = [(0.0, 4095.0), (200.0, 1200.0), None]
    for window in windows:
        assert Reader(index, 16, 24, window).cache is None
        build(index, 24, window)
    for window in windows:  # none has removed another, which a run may be reading
        reader = Reader(index, 16, 24, window)
        assert reader.cache is not None
        np.testing.assert_array_equal(reader("1.png"), read_shrunk(index.root / "1.png", (48, 48), 24, window))
    assert len({cache_of(index, 24, window).path for window in windows}) == 3
    assert not np.array_equal(*(Reader(index, 16, 24, window)("1.png") for window in windows[:2]))
