"""Label maps: values of PNG files, and the classes that they stand for."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_splitmask.annotations.label_maps import Coding, coded_classes, open_map, read_map, to_classes, to_values
from lit_splitmask.errors import UserError
from lit_splitmask.images.decode import DecodeError
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


@pytest.mark.parametrize("bits", ["L", "RGB", "RGBA", "LA", "1", "F", "I;16"])
def test_grey_values_are_read_from_any_kind_of_file(bits: str, tmp_path: Path) -> None:
    values = np.array([[0, 1, 1], [1, 0, 0]], dtype=np.uint8)
    if bits == "1":
        picture = Image.fromarray(values.astype(bool))
    elif bits == "I;16":
        picture = Image.fromarray(values.astype(np.uint16))
    else:
        picture = Image.fromarray(values).convert(bits)
    path = tmp_path / ("map.tif" if bits == "F" else "map.png")
    picture.save(path)
    assert open_map(path).kind == "grey"
    assert read_map(path).tolist() == values.tolist()


def test_a_jpeg_is_refused_whatever_its_name(tmp_path: Path) -> None:
    for name in ("map.jpg", "map.png"):
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / name, "JPEG")
        with pytest.raises(UserError, match=r"is a JPEG, whose compression changes values.*-threshold 50%"):
            read_map(tmp_path / name)


def test_colours_without_a_table_are_listed(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[0] = (48, 112, 32)
    Image.fromarray(pixels).save(tmp_path / "map.png")
    with pytest.raises(UserError, match=r"is a colour picture.*--data\.colours FILE.* here are 0,0,0; 48,112,32\."):
        read_map(tmp_path / "map.png")


def test_transparent_turned_fractional_and_large_maps_are_refused(tmp_path: Path) -> None:
    rgba = np.full((4, 4, 4), 255, dtype=np.uint8)
    rgba[0, 0, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    with pytest.raises(UserError, match="transparent pixels"):
        read_map(tmp_path / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgba[..., 0]).save(tmp_path / "turned.png", exif=exif)
    with pytest.raises(UserError, match="rotated by its EXIF data"):
        read_map(tmp_path / "turned.png")
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "half.tif")
    with pytest.raises(UserError, match=r"has the value 0\.5, but values must be whole numbers"):
        read_map(tmp_path / "half.tif")
    Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16)).save(tmp_path / "large.png")
    with pytest.raises(UserError, match="has the value 65,535"):
        read_map(tmp_path / "large.png")


def test_a_damaged_map_is_told_from_a_wrong_one(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 3, (64, 64)).astype(np.uint8)).save(tmp_path / "map.png")
    data = (tmp_path / "map.png").read_bytes()
    (tmp_path / "map.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DecodeError, match="cannot be decoded"):
        read_map(tmp_path / "map.png")


def test_coded_values_become_classes() -> None:
    values = np.array([[0, 255, 7], [255, 0, 3]])
    assert coded_classes(values, [0, 255], 7).tolist() == [[0, 1, -1], [1, 0, -2]]


def test_a_value_of_no_class_is_refused_when_it_is_read(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255, 9]], dtype=np.uint8)).save(tmp_path / "map.png")
    coding = Coding(256, (0, 255))
    with pytest.raises(UserError, match=r"has the value 9, but the values of the classes are 0, 255"):
        coding.read_classes(tmp_path / "map.png")
