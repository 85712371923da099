import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, PngImagePlugin

from lit_splitmask.errors import UserError
from lit_splitmask.images.decode import DecodeError, decode, read_shape

RAMP = np.tile(np.linspace(0, 255, 12, dtype=np.uint8), (8, 1))  # 8 rows, 12 columns


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "extension"),
    [("L", "png"), ("LA", "png"), ("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("1", "png"), ("CMYK", "jpg")],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, extension: str) -> None:
    path = save(tmp_path / f"image.{extension}", Image.fromarray(RAMP).convert("RGB").convert(mode))
    pixels = decode(path)
    assert pixels.shape == (8, 12, 3)
    assert pixels.dtype == np.uint8
    assert pixels[:, 0].mean() < 40
    assert pixels[:, -1].mean() > 215


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode(save(tmp_path / "clear.png", clear)) == 255).all()
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert decode(save(tmp_path / "half.png", half))[0, 0] == pytest.approx([127] * 3, abs=1)


def test_a_transparent_palette_colour_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 1)
    pixels = decode(save(tmp_path / "image.png", image, transparency=0))
    assert tuple(pixels[0, 0]) == (200, 100, 50)
    assert tuple(pixels[1, 1]) == (255, 255, 255)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_images_are_scaled_by_their_own_range(tmp_path: Path, dtype: type) -> None:
    values = (RAMP.astype(dtype) * 7 + 1000).astype(dtype)
    pixels = decode(save(tmp_path / "deep.tif", Image.fromarray(values)))
    assert np.abs(pixels[..., 0].astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_constant_deep_image_survives(tmp_path: Path, dtype: type) -> None:
    pixels = decode(save(tmp_path / "deep.tif", Image.fromarray(np.full((4, 5), 3000, dtype=dtype))))
    assert pixels.shape == (4, 5, 3)
    assert np.ptp(pixels) == 0


def test_what_is_not_a_number_survives(tmp_path: Path) -> None:
    values = np.array([[0, 1], [np.nan, np.inf]], dtype=np.float32)
    assert decode(save(tmp_path / "deep.tif", Image.fromarray(values)))[..., 0].tolist() == [[0, 255], [0, 255]]


def turned(image: Image.Image, path: Path, orientation: int, **options: object) -> Path:
    """Saves an image with an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(path, image, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_honoured_and_an_invalid_one_survives(tmp_path: Path, orientation: int) -> None:
    pixels = decode(turned(Image.fromarray(RAMP), tmp_path / "turned.png", orientation))[..., 0]
    expected = {
        2: RAMP[:, ::-1],
        3: RAMP[::-1, ::-1],
        4: RAMP[::-1],
        5: RAMP.T,
        6: RAMP.T[:, ::-1],
        7: RAMP.T[::-1, ::-1],
        8: RAMP.T[::-1],
    }
    np.testing.assert_array_equal(pixels, expected.get(orientation, RAMP))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_is_turned_once(tmp_path: Path, orientation: int, mode: str, compression: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(RAMP.astype(np.uint16) * 200)
    else:
        noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
        image = Image.fromarray(noise).convert("RGB").convert(mode)
    png = turned(image, tmp_path / "a.png", orientation)
    tiff = turned(image, tmp_path / "a.tif", orientation, compression=compression)
    np.testing.assert_array_equal(decode(tiff), decode(png))
    assert read_shape(tiff) == read_shape(png) == decode(png).shape[:2] == ((12, 8) if orientation > 4 else (8, 12))


@pytest.mark.parametrize("extension", ["png", "tif", "jpg", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_shape_from_the_header_is_that_of_the_pixels(tmp_path: Path, extension: str, orientation: int) -> None:
    path = turned(Image.fromarray(RAMP).convert("RGB"), tmp_path / f"a.{extension}", orientation)
    assert read_shape(path) == decode(path).shape[:2]


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    pixels = decode(save(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:]))
    assert tuple(pixels[0, 0]) == (255, 0, 0)


def test_the_content_counts_and_not_the_extension(tmp_path: Path) -> None:
    path = save(tmp_path / "image.webp", Image.fromarray(RAMP), lossless=True)
    assert decode(path.rename(tmp_path / "image.png")).shape == (8, 12, 3)


def test_a_large_jpeg_is_decoded_smaller_on_request(tmp_path: Path) -> None:
    path = save(tmp_path / "large.jpg", Image.new("L", (800, 640), 90))
    assert decode(path).shape == (640, 800, 3)
    height, width, _ = decode(path, draft_size=100).shape
    assert 100 <= height < 320  # libjpeg's scales are eighths; how few depends on its version
    assert width == pytest.approx(height * 800 / 640, abs=1)


@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_a_truncated_file_is_named(tmp_path: Path, extension: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"half.{extension}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DecodeError, match=f"half.{extension}"):
        decode(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"this is no image", "not an image of a known format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"<!DOCTYPE html><html>", "a web page, as after a failed download"),
        (b"\n<HTML><body>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9", "PostScript"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "macOS's data about another file"),
        (b"PK\x03\x04", "ZIP"),
    ],
)
def test_a_file_that_is_no_image_is_a_users_error_that_says_what_it_is(
    tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "fake.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"fake\.jpg cannot be decoded: .*\. Replace it") as caught:
        decode(path)
    assert why in str(caught.value)
    assert isinstance(caught.value, DecodeError)
    assert why in caught.value.why
    assert str(path) not in caught.value.why
    with pytest.raises(DecodeError, match=r"fake\.jpg cannot be opened: "):
        read_shape(path)


@pytest.mark.parametrize("function", [decode, read_shape])
def test_a_missing_file_is_called_missing(tmp_path: Path, function: object) -> None:
    (tmp_path / "link.jpg").symlink_to("nowhere.jpg")
    for name, says in (("gone.jpg", "does not exist"), ("link.jpg", "is a link to nowhere.jpg, which does not exist")):
        with pytest.raises(UserError, match=f"{name} {says}"):
            function(tmp_path / name)  # type: ignore[operator]


def test_postscript_with_the_extension_of_an_image_starts_no_other_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*_: object, **__: object) -> None:
        raise AssertionError("another program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", forbid)
    monkeypatch.setattr(subprocess, "Popen", forbid)
    Image.new("RGB", (9, 9)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.jpg")
    for function in (decode, read_shape):
        with pytest.raises(DecodeError, match="PostScript, which is not supported"):
            function(tmp_path / "x.jpg")


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(path: Path, width: int = 19_000, height: int = 10_000) -> Path:
    """A PNG whose header gives it 190 megapixels."""
    save(path, Image.new("1", (8, 8)))
    content = path.read_bytes()
    header = struct.pack(">II", width, height) + content[24:29]
    path.write_bytes(content[:8] + chunk(b"IHDR", header) + content[33:])
    return path


@pytest.mark.parametrize("function", [decode, read_shape])
def test_an_image_larger_than_pillow_opens_is_named(tmp_path: Path, function: object) -> None:
    says = r"pano\.png cannot be .*it has 190 megapixels, and Pillow opens at most 179 megapixels: make it smaller, or cut it"
    with pytest.raises(DecodeError, match=says):
        function(huge_png(tmp_path / "pano.png"))  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["zTXt", "iTXt"])
def test_a_png_with_a_huge_text_is_named(tmp_path: Path, kind: str) -> None:
    text = PngImagePlugin.PngInfo()
    add = text.add_itxt if kind == "iTXt" else text.add_text
    add("workflow", "x" * 3_000_000, zip=True)
    path = save(tmp_path / "comfy.png", Image.fromarray(RAMP), pnginfo=text)
    for function in (decode, read_shape):
        with pytest.raises(
            DecodeError, match=r"comfy\.png cannot be .*: a text chunk in it, .* is larger than Pillow reads"
        ):
            function(path)


def test_a_huge_text_behind_the_pixels_does_not_matter(tmp_path: Path) -> None:
    path = save(tmp_path / "comfy.png", Image.fromarray(RAMP))
    content = path.read_bytes()
    path.write_bytes(content[:-12] + chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 3_000_000)) + content[-12:])
    assert read_shape(path) == decode(path).shape[:2] == (8, 12)


_IN_THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from lit_splitmask.images.decode import open_image
files = sys.argv[1:]
start = Barrier(len(files))
def read(file):
    start.wait()
    with open_image(file) as image:
        return image.size
with ThreadPoolExecutor(len(files)) as pool:
    print(set(pool.map(read, files)))
"""


def test_many_threads_may_open_the_first_images_at_the_same_time(tmp_path: Path) -> None:
    formats = ("jpg", "png", "webp", "tif", "bmp", "gif", "ppm", "jp2", "tga")
    files = [save(tmp_path / f"a.{name}", Image.fromarray(RAMP).convert("RGB")) for name in formats]
    command = [sys.executable, "-c", _IN_THREADS, *map(str, files * 3)]
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONSAFEPATH": ""}
    )
    assert found.stdout.strip() == "{(12, 8)}"


def test_an_image_in_memory_is_decoded_as_its_file_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    for name, options in {"a.png": {}, "b.jpg": {"quality": 90}, "c.jpg": {"exif": exif}, "d.tif": {}}.items():
        path = save(tmp_path / name, Image.fromarray(RAMP).convert("RGB").resize((96, 64)), **options)
        for draft in (None, 16):
            assert np.array_equal(decode("elsewhere.jpg", draft, path.read_bytes()), decode(path, draft)), name
    for data, why in ((b"<html>", "a web page"), (b"", "empty"), (path.read_bytes()[:40], "cannot be decoded")):
        with pytest.raises(DecodeError, match=rf"elsewhere\.jpg.*{why}"):
            decode("elsewhere.jpg", data=data)


def test_a_jpeg_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(RAMP).convert("RGB").resize((96, 64)))
    opened = []
    real = open
    monkeypatch.setattr("builtins.open", lambda file, *rest, **more: opened.append(file) or real(file, *rest, **more))
    monkeypatch.setattr("io.open", lambda file, *rest, **more: opened.append(file) or real(file, *rest, **more))
    decode(path)
    assert len(opened) == 1  # on a network disk, opening takes longer than reading
