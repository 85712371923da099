"""The images that are predicted: every one of a folder exactly once, and what is wrong with those that cannot be read."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lit_splitmask.distributed import rank
from lit_splitmask.errors import UserError
from lit_splitmask.images.cache import STORE_FACTORS, read_shrunk
from lit_splitmask.images.decode import decode, read_pixels
from lit_splitmask.images.names import Names
from lit_splitmask.images.replaced import Scanned, check_same
from lit_splitmask.images.scan import examine, hash_pixels, in_threads
from lit_splitmask.images.window import DEEP, Window

log = logging.getLogger(__name__)


def warn(message: str, *values: object) -> None:
    """Logs a warning, in one process of a run."""
    if rank() == 0:
        log.warning(message, *values)


@dataclass(frozen=True)
class PredictionFiles:
    """The images to predict, after each was decoded once.

    Attributes:
        root: Folder that the paths are relative to.
        readable: Paths of the images that can be read, in the order given.
        shapes: Height and width of each of them.
        problems: Why each of the others cannot be read, by path.
        window: See :func:`decode`.
    """

    root: Path
    readable: list[str]
    shapes: list[tuple[int, int]]
    problems: Mapping[str, str] = field(default_factory=dict)
    window: Window | None = None

    def __len__(self) -> int:
        return len(self.readable) + len(self.problems)


def examine_files(
    root: Path, files: Sequence[str], unread: Mapping[str, str] | None = None, window: Window | None = None
) -> PredictionFiles:
    """Decodes every image once; those that cannot be read are named in a warning.

    Args:
        root: Folder that the paths are relative to.
        files: The images, each once.
        unread: Further images, of kinds that are not supported, and their kind.
        window: The window with which the network was trained; None if its weights do not say.

    Raises:
        UserError: None can be read.
    """
    readable, shapes, num_deep = [], [], 0
    problems = {file: f"not read: {kind}" for file, kind in (unread or {}).items()}
    outcomes = in_threads(lambda file: examine(root / file), files, f"Reading {root.name}")
    for file, (record, error) in zip(files, outcomes, strict=True):
        if error is None:
            readable.append(file)
            shapes.append(record.shape)
            num_deep += record.hash.startswith(DEEP)
        else:
            problems[file] = error.why
            warn("%s It is not predicted.", error)
    if not readable:
        first, why = next(iter(problems.items()), ("", "there are none"))
        raise UserError(f"None of the {len(problems):,} images in {root} can be read: {first} ({why}).")
    if num_deep and window is None:
        warn(
            "%s of the images in %s have more than 8 bits, and the weights have no window for them: each is stretched from its "
            "own smallest value to its largest. Give the values that become black and white, such as --data.window=0,4095.",
            f"{num_deep:,}",
            root,
        )
    return PredictionFiles(root, readable, shapes, problems, window)


class WholeReader:
    """Reads images at their own size.

    Args:
        root: Folder that the paths are relative to.
        known: What the scan found, by path; None if there was none.
        window: See :func:`decode`.
    """

    def __init__(self, root: Path, known: Mapping[str, Scanned] | None = None, *, window: Window | None) -> None:
        self.root, self.known, self.window = root, known or {}, window

    def __call__(self, file: str) -> np.ndarray:
        """Reads an image: (H, W, 3) uint8.

        Raises:
            DecodeError: The image is missing or damaged.
            UserError: It has been replaced by another one since it was scanned.
        """
        path, known = self.root / file, self.known.get(file)
        if known is not None:
            check_same(path, known.size, known.mtime_ns, lambda: hash_pixels(read_pixels(path)) == known.hash)
        return decode(path, window=self.window)


class ShrinkingReader(WholeReader):
    """Reads images as large as crops need them.

    The pixels are those of training and evaluation where the decoded images fit into ``cache_gb`` at four times the crops' size.
    With less space they are stored smaller, and with ``cache_gb=0`` they are cropped from the file's own size, or from a JPEG's
    reduced one: then pixels differ slightly, as after another resizing.

    Args:
        files: The images.
        image_size: Side of the crops to be made, in pixels.
    """

    def __init__(self, files: PredictionFiles, image_size: int) -> None:
        super().__init__(files.root, window=files.window)
        by_name = sorted(zip(files.readable, files.shapes, strict=True))
        self.names = Names(name for name, _ in by_name)
        self.shapes = np.array([shape for _, shape in by_name], dtype=np.int32).reshape(-1, 2)
        self.store_size = round(STORE_FACTORS[0] * image_size)

    def __call__(self, file: str) -> np.ndarray:
        """Reads an image: (H, W, 3) uint8, its short side at most four times the crop's.

        Raises:
            DecodeError: The image is missing or damaged.
        """
        height, width = self.shapes[self.names.index(file)].tolist()
        return read_shrunk(self.root / file, (height, width), self.store_size, self.window)
