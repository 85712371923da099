"""DICOM is read with its true values; what cannot be read is named, whatever the file claims."""

from pathlib import Path

import numpy as np
import pytest
from deep_images import dicom_dataset, write_dicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from lit_splitmask.errors import UserError
from lit_splitmask.images import dicom
from lit_splitmask.images.decode import DecodeError, decode, open_image, read_pixels, read_shape
from lit_splitmask.images.scan import scan

VALUES = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", ImplicitVRLittleEndian])
def test_the_values_are_those_of_the_file(tmp_path: Path, syntax: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", VALUES, syntax=syntax)
    assert read_pixels(path).tolist() == VALUES.tolist()
    assert read_shape(path) == (3, 4)
    assert decode(path, window=(0, 1100))[..., 0].tolist() == (VALUES / 1100 * 255).round().tolist()
    assert decode("bucket/a.dcm", data=path.read_bytes(), window=(0, 1100)).shape == (3, 4, 3)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    signed = VALUES.astype(np.int16) - 500
    path = write_dicom(tmp_path / "ct.dcm", signed, RescaleSlope="2", RescaleIntercept="-1024.5")
    assert read_pixels(path).tolist() == (2 * signed.astype(float) - 1024.5).tolist()


def test_low_values_that_mean_bright_are_inverted(tmp_path: Path) -> None:
    inverted = {"PhotometricInterpretation": "MONOCHROME1"}
    path = write_dicom(tmp_path / "a.dcm", VALUES, BitsStored=12, HighBit=11, **inverted)
    assert read_pixels(path).tolist() == (4095 - VALUES.astype(int)).tolist()
    signed = VALUES.astype(np.int16) - 500
    path = write_dicom(tmp_path / "b.dcm", signed, RescaleSlope="2", RescaleIntercept="10", **inverted)
    assert read_pixels(path).tolist() == (2 * (-1 - signed.astype(float)) + 10).tolist()
    path = write_dicom(tmp_path / "c.dcm", np.array([[0, 5], [250, 255]], dtype=np.uint8), **inverted)
    assert read_pixels(path)[..., 0].tolist() == [[255, 250], [5, 0]]


def test_8_bits_and_colour_are_read_as_those_of_other_formats(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_pixels(write_dicom(tmp_path / "rgb.dcm", pixels)), pixels)
    grey = read_pixels(write_dicom(tmp_path / "grey.dcm", pixels[..., 0].copy()))
    np.testing.assert_array_equal(grey, np.repeat(pixels[..., :1], 3, axis=2))
    scaled = write_dicom(tmp_path / "scaled.dcm", pixels[..., 0].copy(), RescaleSlope="3", RescaleIntercept="0")
    assert read_pixels(scaled).tolist() == (3.0 * pixels[..., 0]).tolist()


def test_a_palette_is_applied(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    numbers = np.random.default_rng(1).integers(0, 256, (5, 6), dtype=np.uint8)
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, values in zip(("Red", "Green", "Blue"), colours, strict=True):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]  # type: ignore[assignment]
        elements[f"{name}PaletteColorLookupTableData"] = (values * 257).tobytes()  # type: ignore[assignment]
    path = write_dicom(tmp_path / "a.dcm", numbers, **elements)
    np.testing.assert_array_equal(read_pixels(path), np.moveaxis(colours[:, numbers], 0, 2))


def compressed(path: Path, image: Image.Image, kind: str, syntax: str, **elements: object) -> Path:
    """A DICOM file with an encoded image in it."""
    image.save(path.with_suffix(".part"), kind, **({"irreversible": False} if kind == "JPEG2000" else {}))
    pixels = np.asarray(image)
    data = encapsulate([path.with_suffix(".part").read_bytes()])
    return write_dicom(path, pixels, syntax=syntax, PixelData=data, **elements)


def test_compressed_pixels_are_read_where_pydicom_can(tmp_path: Path) -> None:
    deep = Image.fromarray(np.tile(VALUES, (8, 8)))
    np.testing.assert_array_equal(
        read_pixels(compressed(tmp_path / "a.dcm", deep, "JPEG2000", JPEG2000Lossless)), np.asarray(deep)
    )
    plain = Image.fromarray(np.full((16, 16), 90, dtype=np.uint8))
    assert read_pixels(compressed(tmp_path / "b.dcm", plain, "JPEG", JPEGBaseline8Bit)).mean() == 90
    dataset = dicom_dataset(VALUES)
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "c.dcm", enforce_file_format=True)
    assert read_pixels(tmp_path / "c.dcm").tolist() == VALUES.tolist()


def test_a_missing_decoder_is_named_and_the_image_counts_as_unreadable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_dicom(tmp_path / "a.dcm", VALUES)
    write_dicom(tmp_path / "b.dcm", VALUES, syntax=JPEGLSLossless, PixelData=encapsulate([b"\xff\xd8\xff\xf7"]))
    records = scan(tmp_path, ["a.dcm", "b.dcm"], 0.5)
    assert records["a.dcm"].hash
    assert not records["b.dcm"].hash
    assert "b.dcm cannot be decoded: its pixels are compressed (JPEG-LS Lossless" in caplog.text
    assert "pip install pylibjpeg" in caplog.text
    with pytest.raises(UserError, match=r"None of the 1 images .* no decoder for that is installed"):
        scan(tmp_path, ["b.dcm"], 0.5)


def test_a_decoder_that_gives_up_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = compressed(tmp_path / "a.dcm", Image.new("L", (16, 16)), "JPEG", JPEGBaseline8Bit)
    content = path.read_bytes()
    start_of_frame = content.index(b"\xff\xc0\0\x0b\x08")
    path.write_bytes(content[: start_of_frame + 4] + b"\x0c" + content[start_of_frame + 5 :])  # 12 bits
    with pytest.raises(
        DecodeError, match=r"no installed decoder reads them \(pillow: .*\): pip install pylibjpeg"
    ) as error:
        decode(path)
    assert "\n" not in str(error.value)
    assert not caplog.text  # pydicom logs a stack trace


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a.dcm", VALUES)
    monkeypatch.setattr(dicom, "has_pydicom", lambda: False)
    for read in (decode, read_shape):
        with pytest.raises(DecodeError, match=r"a\.dcm cannot be .*pip install 'lit-splitmask\[medical\]'"):
            read(path)


@pytest.mark.parametrize(
    ("elements", "why"),
    [
        ({"NumberOfFrames": 20}, "DICOM of 20 frames"),
        ({"Rows": 60_000, "Columns": 60_000}, "3,600 megapixels"),
        ({"Rows": 9_000, "Columns": 9_000}, "is read up to 67 megapixels"),
        ({"Rows": 7}, "cannot be decoded"),
        ({"Rows": 0}, "cannot be decoded"),
        ({"PhotometricInterpretation": "CMYK"}, r"of a kind that is not supported \(CMYK, 16 bits\)"),
        (
            {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3},
            r"of a kind that is not supported \(RGB, 16 bits\)",
        ),
        ({"BitsAllocated": 999}, "cannot be decoded"),
        ({"BitsStored": 999}, "cannot be decoded"),
    ],
)
def test_what_cannot_be_read_is_a_users_error(tmp_path: Path, elements: dict[str, object], why: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", VALUES, **elements)
    with pytest.raises(DecodeError, match=why):
        decode(path)


def test_dicom_without_an_image_is_named(tmp_path: Path) -> None:
    dataset = dicom_dataset(VALUES)
    for name in ("Rows", "Columns", "PixelData"):
        delattr(dataset, name)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(DecodeError, match="it is DICOM without an image"):
        read_shape(tmp_path / "a.dcm")


def test_deflated_dicom_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.zeros((900, 900), dtype=np.uint16), syntax=DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 10_000

    def unpack(*_: object) -> bytes:
        raise AssertionError("it was unpacked")

    monkeypatch.setattr("pydicom.filereader.zlib.decompress", unpack)
    with pytest.raises(DecodeError, match="it is deflated DICOM, which is not supported"):
        read_shape(path)


def test_compressed_pixels_of_another_size_than_the_header_says_are_not_decoded(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((64, 64), dtype=np.uint8))
    path = compressed(tmp_path / "a.dcm", image, "JPEG2000", JPEG2000Lossless, Rows=8, Columns=8)
    with pytest.raises(DecodeError, match="compressed pixels have 64 x 64 px, and its header says 8 x 8"):
        decode(path)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_cut_file_is_a_users_error(tmp_path: Path, share: float) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.tile(VALUES, (10, 10)))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DecodeError, match=r"a\.dcm cannot be decoded"):
        decode(path)


def test_a_dicom_image_is_known_by_its_content(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "IM0001.png", VALUES)
    with open_image(path) as image:
        assert (image.format, image.mode, image.size) == ("DICOM", "F", (4, 3))
    assert read_pixels(path).tolist() == VALUES.tolist()
