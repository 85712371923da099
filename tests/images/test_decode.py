from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_splitmask.errors import UserError
from lit_splitmask.images.decode import DecodeError, decode

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
    assert decode(save(tmp_path / "deep.tif", Image.fromarray(values)))[..., 0].tolist() == [[0, 255], [0, 0]]


@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_honoured_and_an_invalid_one_survives(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(save(tmp_path / "turned.png", Image.fromarray(RAMP), exif=exif))[..., 0]
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


@pytest.mark.parametrize("content", [b"", b"this is no image"])
def test_a_file_that_is_no_image_is_a_users_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fake.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"fake\.jpg cannot be decoded"):
        decode(path)


def test_a_missing_file_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.jpg does not exist"):
        decode(tmp_path / "gone.jpg")
