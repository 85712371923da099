"""Folders of empty files with the names of images, for tests of layouts."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from lit_splitmask.errors import UserError
from lit_splitmask.images.layout import LabelsMode, Layout, understand


def touch(root: Path, *files: str) -> Path:
    """Empty files."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def fill(root: Path, *folders: str, count: int = 4) -> Path:
    """A few images in each folder."""
    return touch(root, *(f"{folder}/{number}.jpg" for folder in folders for number in range(count)))


def sizes(layout: Layout) -> Mapping[str, int]:
    """How many images each split has."""
    return {name: len(files) for name, files in layout.given.items()}


def refuse(root: Path, *says: str, mode: LabelsMode = "auto") -> str:
    """The message of a refusal, which must hold these parts."""
    with pytest.raises(UserError) as caught:
        understand(root, mode)
    for part in says:
        assert part in str(caught.value)
    return str(caught.value)
