"""Small images of more than 8 bits, as files: PNG, float TIFF, DICOM."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def deep_values(number: int, side: int = 48) -> np.ndarray:
    """An X-ray of 12 bits: noise around a level that grows with the number, (side, side) uint16."""
    noise = np.random.default_rng(number).normal(600 + 40 * number, 150, (side, side))
    return noise.clip(0, 4095).astype(np.uint16)


def write_deep(path: Path, values: np.ndarray) -> Path:
    """Writes values as a PNG of 16 bits, or a TIFF of their type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def deep_folder(root: Path, per_class: int = 10, start: int = 0) -> Path:
    """Two classes of PNGs of 16 bits."""
    for number in range(start, start + per_class):
        write_deep(root / "dark" / f"{number}.png", deep_values(number))
        write_deep(root / "bright" / f"{number}.png", 2 * deep_values(number + per_class))
    return root


def dicom_dataset(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """A DICOM image of one frame: (H, W) integers, or (H, W, 3) uint8."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def write_dicom(path: Path, pixels: np.ndarray, **elements: Any) -> Path:
    """Writes :func:`dicom_dataset` to a file."""
    dicom_dataset(pixels, **elements).save_as(path, enforce_file_format=True)
    return path
