"""Columns of a table in one file that processes map and share: an uncompressed ``.npz``, which NumPy reads as well.

The file may come from anyone. Nothing in it is unpickled or decompressed, and nothing takes more memory than the file is long.
"""

import ast
import mmap
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lit_splitmask.files import cannot_write, check_regular, whole_file

_LOCAL_HEADER = 30  # bytes of a member's own header in a ZIP file, before its name and extra field
_NPY_START = b"\x93NUMPY\x01\x00"  # of version 1.0
_MAX_NPY_HEADER = 4096
_CHUNK = 2**20


def write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, whole or not at all. Makes missing folders.

    Raises:
        UserError: The disk is full or fails, or the folder cannot be written to.
    """
    try:
        with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, column in columns.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.ascontiguousarray(column), version=(1, 0), allow_pickle=False)
    except OSError as error:
        raise cannot_write(path, error) from error


def map_columns(path: Path) -> dict[str, np.ndarray]:
    """Maps the arrays of a file, read-only, after a check of their checksums.

    Raises:
        ValueError: The file is damaged, or is not one of these.
        OSError: It cannot be read.
    """
    check_regular(path)
    columns = {}
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, OverflowError) as error:
            raise ValueError(str(error)) from error
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        for entry in entries:
            columns[entry.filename.removesuffix(".npy")] = _column(file, mapped, entry, size)
    return columns


def _column(file: BinaryIO, mapped: memoryview, entry: zipfile.ZipInfo, size: int) -> np.ndarray:
    """Maps one array.

    Raises:
        ValueError: It is damaged, compressed or encrypted, reaches beyond the file, or is not of plain numbers or bytes.
    """
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER)
    start = entry.header_offset + _LOCAL_HEADER + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    end = start + entry.file_size
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or not 0 <= start <= end <= size:
        raise ValueError(f"{entry.filename} is not stored as it is")
    file.seek(start)
    checksum, left = 0, entry.file_size
    while left:  # read, not mapped: so that the check does not count as this process's memory
        chunk = file.read(min(_CHUNK, left))
        if not chunk:
            raise ValueError(f"{entry.filename} ends too early")
        checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
    if checksum != entry.CRC:
        raise ValueError(f"the checksum of {entry.filename} is wrong")
    file.seek(start)
    if file.read(len(_NPY_START)) != _NPY_START:
        raise ValueError(f"{entry.filename} is not an array")
    length = int.from_bytes(file.read(2), "little")
    dtype, shape = _described(file.read(min(length, _MAX_NPY_HEADER)))
    data = mapped[start + len(_NPY_START) + 2 + length : end]
    count = 1
    for side in shape:  # Python's integers do not overflow
        count *= side
    if count * dtype.itemsize != len(data):
        raise ValueError(f"{entry.filename} has another length than its shape")
    return np.frombuffer(data, dtype=dtype).reshape(shape) if count else np.empty(shape, dtype)


def _described(header: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape from an array's header.

    Raises:
        ValueError: They are not of a plain array of one or two dimensions.
    """
    try:
        described = ast.literal_eval(header.decode("latin-1").strip())
        descr, shape, order = described["descr"], described["shape"], described["fortran_order"]
    except (SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise ValueError(f"an array's header is damaged ({type(error).__name__})") from error
    plain = isinstance(descr, str) and (descr in ("|u1", "<i4", "<i8") or (descr[:2] == "|S" and descr[2:].isdecimal()))
    sides = isinstance(shape, tuple) and len(shape) in (1, 2) and all(type(side) is int and side >= 0 for side in shape)
    if not plain or not sides or order is not False or len(descr) > 12 or descr == "|S0":
        raise ValueError("an array is not of plain numbers or bytes")
    return np.dtype(descr), shape
