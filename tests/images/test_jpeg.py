"""Plain JPEGs are read as Pillow reads them, without Pillow; all others are left to it."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from lit_splitmask.errors import UserError
from lit_splitmask.images import decode as decoding
from lit_splitmask.images import scan as scanning
from lit_splitmask.images.decode import decode
from lit_splitmask.images.jpeg import plain_shape

COLOURS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((90, 61))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def jpeg(image: Image.Image = COLOURS, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


PLAIN = {
    "as Pillow saves it": jpeg(),
    "all colours": jpeg(subsampling=0, quality=100),
    "restarts": jpeg(restart_marker_blocks=2),
    "profile": jpeg(icc_profile=PROFILE),
    "comment": jpeg(comment=b"\xff\xda\xff\xc0" * 20),
}

PILLOWS = {
    "turned": jpeg(exif=turned()),
    "channels of RGB": jpeg(keep_rgb=True),
    "progressive": jpeg(progressive=True),
    "grey": jpeg(COLOURS.convert("L")),
    "CMYK": jpeg(COLOURS.convert("CMYK")),
    "no JPEG": b"\x89PNG\r\n\x1a\n" + bytes(40),
    "nothing": b"",
    "start only": b"\xff\xd8",
    "two frames": jpeg()[:2]
    + jpeg()[2:].replace(b"\xff\xc0", b"\xff\xc0\0\x11\x08\0\x10\0\x10\x03" + bytes(9) + b"\xff\xc0"),
    "no pixels": jpeg().replace(b"\xff\xc0\0\x11\x08\0\x3d", b"\xff\xc0\0\x11\x08\0\0"),
    "huge": jpeg().replace(b"\xff\xc0\0\x11\x08\0\x3d\0\x5a", b"\xff\xc0\0\x11\x08\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_jpeg_is_read_without_pillow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = by_pillow(PLAIN[name])
    monkeypatch.setattr(decoding, "open_image", None)
    assert plain_shape(PLAIN[name]) == (61, 90)
    assert np.array_equal(decode("a.jpg", data=PLAIN[name]), expected)
    assert np.array_equal(decode("a.jpg", draft_size=31, data=PLAIN[name]), expected)


@pytest.mark.parametrize("name", PILLOWS)
def test_any_other_file_is_left_to_pillow(name: str) -> None:
    assert plain_shape(PILLOWS[name]) is None


def test_a_turned_jpeg_stands_upright() -> None:
    assert decode("a.jpg", data=PILLOWS["turned"]).shape == (90, 61, 3)


@pytest.mark.parametrize("name", PLAIN)
def test_a_header_that_ends_early_says_nothing(name: str) -> None:
    data = PLAIN[name]
    whole = next(end for end in range(len(data)) if plain_shape(data[:end]) is not None)
    assert all(plain_shape(data[:end]) is None for end in range(whole))
    assert plain_shape(data[:whole]) == (61, 90)


def test_a_file_of_many_scans_is_refused_as_ever() -> None:
    data = jpeg(progressive=True)
    with pytest.raises(UserError, match="more than 200 scans"):
        decode("a.jpg", data=data[:-2] + b"\xff\xda\0\x02" * 200 + data[-2:])


def test_damage_is_read_or_refused_as_pillow_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed, left out and doubled bytes, most of them in the header."""
    rng = np.random.default_rng(0)
    num_plain = 0
    for _ in range(400):
        data = bytearray(list(PLAIN.values())[rng.integers(len(PLAIN))])
        at = int(rng.integers(len(data) if rng.random() < 0.2 else 700))
        kind = rng.integers(3)
        if kind == 0:
            data[at % len(data)] = rng.integers(256)
        elif kind == 1:
            del data[at : at + int(rng.integers(1, 9))]
        else:
            data[at:at] = data[at : at + int(rng.integers(1, 9))]
        num_plain += plain_shape(bytes(data)) is not None
        ours = outcome(bytes(data))
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "plain_shape", lambda _: None)
            theirs = outcome(bytes(data))
        assert (ours is None) == (theirs is None)
        assert ours is None or theirs is None or np.array_equal(ours, theirs)
    assert 100 < num_plain < 300


def outcome(data: bytes) -> np.ndarray | None:
    """The pixels, or None if it is refused."""
    try:
        return decode("a.jpg", data=data)
    except UserError:
        return None


def test_the_hash_of_pixels_stays_what_it_was() -> None:
    """Records of earlier versions hold these hashes, and splits were cut by them."""
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    large = np.arange(120 * 90 * 3, dtype=np.uint32).astype(np.uint8).reshape(120, 90, 3)
    assert scanning.hash_pixels(image) == "2838a006e79fcb2107b19558cc2eb6f3"
    assert scanning.hash_pixels(large) == "4b890a0080de410e4cf776e3f7319a62"
