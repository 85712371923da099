"""Label maps: values of PNG files, and the classes that they stand for."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_splitmask.annotations.label_maps import read_map, to_classes, to_values
from lit_splitmask.losses import IGNORED


@pytest.mark.parametrize(("bits", "highest"), [(1, 1), (2, 3), (4, 15), (8, 255)])
def test_grey_maps_of_few_bits_keep_their_values(tmp_path: Path, bits: int, highest: int) -> None:
    values = np.random.default_rng(0).integers(0, highest + 1, (6, 16))
    digits = (values[..., None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(digits.reshape(6, -1).astype(np.uint8), axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 16, 6, bits, 0, 0, 0, 0)
    lines = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    path = tmp_path / "map.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b""))
    assert np.array_equal(read_map(path), values)


@pytest.mark.parametrize("mode", ["L", "P", "1", "16"])
def test_maps_of_every_kind_are_read(mode: str, tmp_path: Path) -> None:
    values = np.arange(6).reshape(2, 3) * (1 if mode != "16" else 1000)
    picture = Image.fromarray(values.astype(np.uint16 if mode == "16" else np.uint8))
    if mode == "P":
        picture.putpalette([255 - n % 256 for n in range(768)])
    if mode == "1":
        values = values % 2
        picture = Image.fromarray(values.astype(bool))
    picture.save(tmp_path / "map.png")
    assert read_map(tmp_path / "map.png").tolist() == values.tolist()


@pytest.mark.parametrize("void", [0, 3, 255])
def test_values_are_recovered_from_classes(void: int) -> None:
    values = np.array([value for value in range(20) if value != void])
    assert to_values(to_classes(values, void), void).tolist() == values.tolist()
    assert to_classes(np.array([void]), void).tolist() == [IGNORED]
