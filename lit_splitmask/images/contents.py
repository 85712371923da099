"""The bytes of a file, and what it is if it is not an image."""

from io import BytesIO
from pathlib import Path

from lit_splitmask.files import check_regular

_SMALL = 2**22
_HEADER = 2**12


def read_small(path: str | Path) -> bytes | None:
    """All bytes of a file of up to 4 MiB, read at once; None of a larger one, which need not be in memory as a whole.

    Each call that waits for a file also waits for the other threads' Python, so one call is faster than a decoder's several.

    Raises:
        OSError: The file cannot be read, or is a pipe, a socket or a device.
    """
    size = check_regular(path).st_size
    if size > _SMALL:
        return None
    with open(path, "rb", buffering=0) as stream:
        data = stream.read(size)
        return data if len(data) == size else data + stream.readall()


def read_header(path: str | Path) -> bytes:
    """The first 4 KiB of a file.

    Raises:
        OSError: As :func:`read_small`.
    """
    check_regular(path)
    with open(path, "rb", buffering=0) as stream:
        return stream.read(_HEADER)


def describe_content(path: str | Path, data: bytes | None) -> str:
    """What a file that is not an image is, by its first bytes."""
    try:
        with open(path, "rb") if data is None else BytesIO(data) as file:
            head = file.read(512)
    except OSError as error:
        return str(error.strerror)
    if not head:
        return "the file is empty"
    if is_heic(head):
        return "its content is HEIC, which is not supported: convert it to JPEG"
    start = head.lstrip().lower()
    found = next((what for magic, what in _CONTENTS if start.startswith(magic)), None)
    return f"its content is {found}" if found else "its content is not an image of a known format"


_RARE_TIFF = (
    "TIFF of a kind that is not supported, such as 64-bit floats or several bands: save it as 32-bit floats or as RGB"
)

_CONTENTS = (
    (b"version https://git-lfs", "a pointer of Git LFS: run `git lfs pull`"),
    (b"<!doctype html", "a web page, as after a failed download"),
    (b"<html", "a web page, as after a failed download"),
    (b"<?xml", "XML"),
    (b"<svg", "SVG"),
    (b"%pdf", "PDF"),
    (b"%!ps", "PostScript, which is not supported"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"ii*\0", _RARE_TIFF),
    (b"mm\0*", _RARE_TIFF),
    (b"\x00\x05\x16\x07", "macOS's data about another file"),
)


def is_heic(head: bytes) -> bool:
    """Whether the first bytes of a file are those of HEIC."""
    brands = head[8:64]
    return head[4:8] == b"ftyp" and b"avi" not in brands and any(brand in brands for brand in (b"hei", b"hev", b"mif1"))
