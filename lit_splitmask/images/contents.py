"""What a file is that is no image."""

from io import BytesIO
from pathlib import Path


def describe_content(path: str | Path, data: bytes | None) -> str:
    """What a file is that is no image, by its first bytes."""
    try:
        with open(path, "rb") if data is None else BytesIO(data) as file:
            head = file.read(512)
    except OSError as error:
        return str(error.strerror)
    if not head:
        return "the file is empty"
    if is_heic(head):
        return "its content is HEIC, which is not read: convert it to JPEG"
    start = head.lstrip().lower()
    found = next((what for magic, what in _CONTENTS if start.startswith(magic)), None)
    return f"its content is {found}" if found else "its content is no image of a known format"


_RARE_TIFF = "TIFF of a kind that is not read, such as floats of 64 bits or several bands: save it as floats of 32 bits or as RGB"

_CONTENTS = (
    (b"version https://git-lfs", "a pointer of Git LFS: run `git lfs pull`"),
    (b"<!doctype html", "a web page, as after a failed download"),
    (b"<html", "a web page, as after a failed download"),
    (b"<?xml", "XML"),
    (b"<svg", "SVG"),
    (b"%pdf", "PDF"),
    (b"%!ps", "PostScript, which is not read"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"ii*\0", _RARE_TIFF),
    (b"mm\0*", _RARE_TIFF),
    (b"\x00\x05\x16\x07", "macOS's data about another file"),
)


def is_heic(head: bytes) -> bool:
    """Whether the first bytes of a file are those of HEIC."""
    brands = head[8:64]
    return head[4:8] == b"ftyp" and b"avi" not in brands and any(brand in brands for brand in (b"hei", b"hev", b"mif1"))
