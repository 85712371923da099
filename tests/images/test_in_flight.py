"""Threads decode no more at the same time than fits, however many they are, and never wait for each other without end."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_splitmask.images import decode as decoding
from lit_splitmask.images import in_flight
from lit_splitmask.images import scan as scanning
from lit_splitmask.images.decode import decode, memory_for, open_image
from lit_splitmask.images.in_flight import bounded, hold
from lit_splitmask.images.scan import in_threads


def test_threads_hold_no_more_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "MOST_BYTES", 100)
    held: dict[int, int] = {}
    most = []
    lock = threading.Lock()

    def work(size: int) -> int:
        hold(size // 2)
        hold(size)  # decoded again, larger
        with lock:
            held[threading.get_ident()] = min(size, 100)
            most.append(sum(held.values()))
        time.sleep(0.002)
        with lock:
            del held[threading.get_ident()]
        return size

    sizes = [10, 60, 90, 500, 40, 30] * 10
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(bounded(work), sizes)) == sizes
    assert max(most) <= 100
    assert max(most) > 60


def test_an_error_gives_the_memory_back() -> None:
    def fails(size: int) -> None:
        hold(size)
        raise ValueError

    work = bounded(fails)
    for _ in range(5):
        with pytest.raises(ValueError):  # noqa: PT011
            work(in_flight.MOST_BYTES)


@pytest.mark.parametrize("num_items", [0, 1, 7, 500, 1003])
def test_results_come_in_order_however_many_a_thread_takes_at_a_time(
    num_items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "num_cores", lambda: 3)
    assert list(in_threads(lambda item: -item, range(num_items), "Counting")) == [-item for item in range(num_items)]


def test_every_thread_has_work_if_there_are_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "num_cores", lambda: 4)
    together = threading.Barrier(4)  # breaks unless four threads wait at the same time
    assert len(list(in_threads(lambda _: together.wait(timeout=20), range(4), "Waiting"))) == 4


def test_results_wait_in_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "num_cores", lambda: 2)
    begun: list[int] = []
    results = in_threads(begun.append, range(1000), "Counting")
    next(results)
    time.sleep(0.05)
    assert len(begun) <= 72


@pytest.mark.parametrize("num_threads", [2, 8, 24])
def test_the_bound_does_not_grow_with_the_threads(
    num_threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are decoded while what they need at most, over all threads, fits."""
    path = tmp_path / "a.png"
    Image.new("I;16", (40, 40)).save(path)
    with open_image(path) as image:
        need = memory_for(image)
    monkeypatch.setattr(in_flight, "MOST_BYTES", 3 * need + 1)
    monkeypatch.setattr(scanning, "num_cores", lambda: num_threads)
    now, most, lock, upright = [0], [0], threading.Lock(), decoding._upright_values

    def slow(image: Image.Image, turn: int) -> np.ndarray:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return upright(image, turn)

    monkeypatch.setattr(decoding, "_upright_values", slow)
    assert len(list(in_threads(decode, [path] * 48, "Reading"))) == 48
    assert most[0] == min(3, num_threads)


PEAK = """
import re, sys
from pathlib import Path
from lit_splitmask.images import scan
scan.num_cores = lambda: 12
list(scan.in_threads(scan.examine, [Path(sys.argv[1])] * 24, "Reading"))
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
def test_twelve_threads_stay_below_2_gb(mode: str, tmp_path: Path) -> None:
    small = np.random.default_rng(0).integers(0, 256, (50, 50, 4), dtype=np.uint8)
    pixels = np.kron(small, np.ones((80, 80, 1), dtype=np.uint8))  # 16 megapixels
    path = tmp_path / "a.png"
    one = (
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 7)
        if mode == "I;16"
        else Image.fromarray(pixels).convert(mode)
    )
    one.save(path, compress_level=1)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True, timeout=300
    )
    assert int(done.stdout) < 2e9 / 1024


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
