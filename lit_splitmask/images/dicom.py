"""DICOM as one of Pillow's formats: a single image with its true values. pydicom reads the files (extra ``medical``)."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from typing import Any, cast

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

FORMAT = "DICOM"
EXTENSIONS = (".dcm", ".dicom")

_MARK_AT, _MARK = 128, b"DICM"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_SYNTAX_TAG = 0x00020010
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_VALUE_TAGS = ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence")
_PALETTE_TAGS = tuple(
    f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")
)
_SHAPE_TAGS = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation")
_BIT_TAGS = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration")
_HEADER_TAGS = (*_SHAPE_TAGS, *_BIT_TAGS, *_VALUE_TAGS)
_PIXEL_TAGS = (
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
_MOST_BESIDE = 2**26
"""Bytes that a file may have beside its pixels."""


_INSTALL = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or save it uncompressed"


class DicomError(ValueError):
    """Why a DICOM file cannot be read; the text says what to do."""


@cache
def has_pydicom() -> bool:
    """Whether pydicom is installed."""
    return find_spec("pydicom") is not None


@cache
def _silence_pydicom() -> None:
    """Silences its messages about files that are read anyway, and its stack traces for others, whose errors say why."""
    import pydicom.config  # noqa: F401  # sets the level of its log

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")


def is_dicom(head: bytes) -> bool:
    """Whether a file with these first bytes is DICOM."""
    return head[_MARK_AT : _MARK_AT + len(_MARK)] == _MARK


class DicomImageFile(ImageFile.ImageFile):
    """A DICOM file, opened by Pillow.

    Greyscale of exactly 8 bits is of mode L and colour of mode RGB. Everything else is of mode F: the values after rescale slope
    and intercept or the modality's table, and inverted if MONOCHROME1 says that low values are bright. Windows for display (VOI)
    are not applied, since they differ from file to file.
    """

    format = FORMAT
    format_description = "DICOM"

    def _open(self) -> None:
        assert self.fp is not None
        if not is_dicom(self.fp.read(_MARK_AT + len(_MARK))):
            raise SyntaxError("not a DICOM file")
        if not has_pydicom():
            raise DicomError("it is DICOM, which is read with pydicom: pip install 'lit-splitmask[medical]'")
        _silence_pydicom()
        self._is_decoded = False
        with _damage_named():
            self._mode, self._size = _describe(self.fp)

    def load(self) -> Any:
        """Decodes the pixels, the first time."""
        if not self._is_decoded:
            assert self.fp is not None
            with _damage_named():
                pixels = _read(self.fp, self.size, self.mode)
            self.im, self._is_decoded = Image.fromarray(pixels).im, True
        return Image.Image.load(self)


Image.register_open(FORMAT, DicomImageFile)
Image.register_extensions(FORMAT, list(EXTENSIONS))


@contextmanager
def _damage_named() -> Iterator[None]:
    """Names damage, at which pydicom raises nearly anything."""
    try:
        yield
    except (DicomError, MemoryError, Image.DecompressionBombError):
        raise
    except Exception as error:
        why = " ".join(str(error).split())
        raise DicomError(f"it is damaged or truncated DICOM ({type(error).__name__}: {why})") from error


def _describe(file: Any) -> tuple[str, tuple[int, int]]:
    """The mode, and the width and height, of the header of a DICOM file; its pixels are not read.

    Raises:
        DicomError: It holds no single image of a known kind.
    """
    header = _read_header(file)
    if not all(isinstance(header.get(name), int) for name in ("Rows", "Columns", "BitsAllocated")):
        raise DicomError("it is DICOM without an image")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames != 1:
        raise DicomError(f"it is DICOM of {frames:,} frames: save the frames to use as separate files")
    size = (header.Columns, header.Rows)
    if file.seek(0, 2) > 16 * size[0] * size[1] + _MOST_BESIDE:
        raise DicomError("it is DICOM that is far larger than its image")
    kind = header.get("PhotometricInterpretation")
    if kind in _MONOCHROME:
        plain = header.BitsAllocated == header.get("BitsStored") == 8 and not header.get("PixelRepresentation")
        unscaled = header.get("RescaleSlope", 1) == 1 and header.get("RescaleIntercept", 0) == 0
        return "L" if plain and unscaled and not header.get("ModalityLUTSequence") else "F", size
    if kind == "PALETTE COLOR" or (kind in _COLOUR and header.BitsAllocated == 8):
        return "RGB", size
    raise DicomError(f"it is DICOM of a kind that is not supported ({kind}, {header.BitsAllocated} bits)")


def _read_header(file: Any) -> Any:
    """The elements that describe the image.

    Raises:
        DicomError: They are compressed: a few kilobytes could unpack to any size.
    """
    from pydicom import dcmread
    from pydicom.filereader import data_element_generator

    file.seek(_MARK_AT + len(_MARK))
    meta = data_element_generator(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    syntax = next((bytes(cast(Any, element).value) for element in meta if element.tag == _SYNTAX_TAG), b"")
    if syntax.rstrip(b"\0 ") == _DEFLATED.encode():
        raise DicomError("it is deflated DICOM, which is not supported: save it uncompressed")
    file.seek(0)
    return dcmread(file, stop_before_pixels=True, specific_tags=list(_HEADER_TAGS))


def _read(file: Any, size: tuple[int, int], mode: str) -> np.ndarray:
    """The pixels: (H, W) uint8 or float32, or (H, W, 3) uint8.

    Raises:
        DicomError: No decoder for them is installed, or they do not fit the header.
    """
    from pydicom import dcmread
    from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder, pixel_array

    file.seek(0)
    dataset = dcmread(file, specific_tags=[*_HEADER_TAGS, *_PALETTE_TAGS, *_PIXEL_TAGS])
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decodable = get_decoder(syntax).is_available
    except NotImplementedError:
        decodable = False
    if not decodable:
        raise DicomError(f"its pixels are compressed ({syntax.name}), and no decoder for that is installed: {_INSTALL}")
    if syntax.is_encapsulated:
        _check_compressed(dataset.PixelData, size)
    try:
        pixels = pixel_array(dataset)
    except RuntimeError as error:  # every decoder that is installed gave up; the last line says why
        why = str(error).splitlines()[-1].strip()
        raise DicomError(
            f"its pixels are compressed ({syntax.name}), and no installed decoder reads them ({why}): {_INSTALL}"
        ) from error
    if pixels.shape[:2] != size[::-1]:
        raise DicomError(f"its pixels are of shape {pixels.shape}, and its header says {size[1]} x {size[0]}")
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)[..., :3]
        return np.ascontiguousarray(pixels >> 8 * (pixels.itemsize - 1), dtype=np.uint8)
    if mode == "RGB":
        return np.ascontiguousarray(pixels)
    values = apply_modality_lut(pixels, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = np.subtract(apply_modality_lut(_ends(dataset), dataset).sum(dtype=np.float64), values)
    return np.ascontiguousarray(values, dtype=np.uint8 if mode == "L" else np.float32)


def _ends(dataset: Any) -> np.ndarray:
    """The smallest and the largest value that can be stored."""
    span, is_signed = 2 ** int(dataset.BitsStored), bool(dataset.get("PixelRepresentation"))
    return np.array([-span // 2, span // 2 - 1] if is_signed else [0, span - 1])


def _check_compressed(data: bytes, size: tuple[int, int]) -> None:
    """Checks that JPEG or JPEG 2000 in a DICOM file unpacks to the size that the header says, which is bounded.

    Raises:
        DicomError: It does not.
    """
    from pydicom.encaps import get_frame

    try:
        with Image.open(BytesIO(get_frame(data, 0, number_of_frames=1)), formats=("JPEG", "JPEG2000")) as inner:
            found = inner.size
    except UnidentifiedImageError:  # RLE, JPEG-LS
        return
    if found != size:
        raise DicomError(
            f"its compressed pixels have {found[0]} x {found[1]} px, and its header says {size[0]} x {size[1]}"
        )
