"""Files of ``torch.save``, judged before torch reads them: an archive may hold a program, or be far larger once unpacked."""

import os
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

_ZIP = b"PK"
_PLAIN = re.compile(
    r"data\.pkl|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id|data/\d+"
)
"""What ``torch.save`` writes. Programs (TorchScript, torch.package) have ``constants.pkl``, ``code/`` and more."""


class NotPlainError(Exception):
    """An archive that holds anything other than pickled tensors."""


def check_archive(file: BinaryIO) -> None:
    """Checks that an archive holds only pickled tensors, as torch's own reader sees it. Other files pass.

    Python's ``zipfile`` and torch's reader may disagree about what a file is, and torch decides what it runs. So torch is asked.
    Reads from the start, and rewinds.

    Args:
        file: The file, opened in binary mode.

    Raises:
        NotPlainError: It holds something else, such as a TorchScript program, is compressed, or is damaged.
    """
    file.seek(0)
    is_archive = file.read(len(_ZIP)) == _ZIP
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not is_archive:
        return
    try:
        records = torch._C.PyTorchFileReader(file).get_all_records()
    except RuntimeError as error:
        raise NotPlainError(f"a damaged archive: {_first_line(error)}") from None
    finally:
        file.seek(0)
    if "constants.pkl" in records or any(name.startswith("code/") for name in records):
        raise NotPlainError("a TorchScript program")
    strange = [name for name in records if not _PLAIN.fullmatch(name)]
    if strange or "data.pkl" not in records:
        what = f"holds {', '.join(strange[:3])}" if strange else "has no data.pkl"
        raise NotPlainError(f"an archive that torch.save did not write: it {what}")
    _check_sizes(file, len(records), size)
    file.seek(0)


def _check_sizes(file: BinaryIO, num_records: int, size: int) -> None:
    """Checks that nothing in an archive is compressed or said to be larger than the file, as torch would unpack it."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise NotPlainError(f"a damaged archive: {_first_line(error)}") from None
    is_stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not is_stored or len(entries) != num_records or sum(entry.file_size for entry in entries) > size:
        raise NotPlainError("a compressed archive, which torch.save does not write")


def load_tensors(path: str | Path, *, mmap: bool = False) -> Any:
    """Loads what ``torch.save`` has written, without running code in it.

    Args:
        path: The file.
        mmap: Whether to read tensors only when their values are used.

    Returns:
        Tensors and plain values, nested.

    Raises:
        NotPlainError: It is an archive that holds other things.
        Exception: torch raises nearly anything for damaged and foreign files.
    """
    with open(path, "rb") as file:
        check_archive(file)
        return torch.load(path if mmap else file, map_location="cpu", weights_only=True, mmap=mmap)


def oversized(tensors: Iterable[Tensor]) -> bool:
    """Whether a tensor has more elements than are stored: a few bytes can stand for a tensor that fills the memory."""
    return any(not _is_stored(tensor) for tensor in tensors)


def _is_stored(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def reason(error: BaseException) -> str:
    """Why a file cannot be loaded, in one line and without torch's advice to load it unsafely."""
    if isinstance(error, NotPlainError):
        return f"it is {error}"
    text = str(error)
    if "weights_only" in text or "WeightsUnpickler" in text:
        named = re.search(r"GLOBAL (\S{1,200})", text)
        return f"it asks for code to be run{f' ({named[1]})' if named else ''}, which weights do not need"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{lines[0][:200]}" if lines else type(error).__name__
