"""Threads decode no more pixels at the same time than fit, and wait for each other without end."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_splitmask.images import decode as decoding
from lit_splitmask.images import in_flight
from lit_splitmask.images.decode import decode
from lit_splitmask.images.in_flight import bounded, hold


def test_threads_hold_no_more_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "PIXELS_PER_CORE", 100)
    monkeypatch.setattr(in_flight, "num_cores", lambda: 1)
    held: dict[int, int] = {}
    most = []
    lock = threading.Lock()

    def work(pixels: int) -> int:
        hold(pixels // 2)
        hold(pixels)  # decoded again, larger
        with lock:
            held[threading.get_ident()] = min(pixels, 100)
            most.append(sum(held.values()))
        time.sleep(0.002)
        with lock:
            del held[threading.get_ident()]
        return pixels

    sizes = [10, 60, 90, 500, 40, 30] * 10
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(bounded(work), sizes)) == sizes
    assert max(most) <= 100
    assert max(most) > 60


def test_an_error_gives_the_pixels_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "num_cores", lambda: 1)

    def fails(pixels: int) -> None:
        hold(pixels)
        raise ValueError

    work = bounded(fails)
    for _ in range(5):
        with pytest.raises(ValueError):  # noqa: PT011
            work(in_flight.PIXELS_PER_CORE)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "I;16", "F", "1", "CMYK"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_strips_give_the_pixels_of_the_whole(
    mode: str, turn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(turn).integers(0, 256, (23, 17, 4), dtype=np.uint8)
    if mode in ("I;16", "F"):
        image = Image.fromarray(noise[..., 0].astype(np.uint16 if mode == "I;16" else np.float32) * 7)
    else:
        image = Image.fromarray(noise).convert(mode)
    path = tmp_path / ("a.tif" if mode in ("F", "CMYK") else "a.png")
    exif = Image.Exif()
    exif[0x0112] = turn
    image.save(path, exif=exif)
    whole = decode(path)
    monkeypatch.setattr(decoding, "_STRIP_PIXELS", 40)
    assert np.array_equal(decode(path), whole)
    assert whole.shape[:2] == ((17, 23) if turn > 4 else (23, 17))
