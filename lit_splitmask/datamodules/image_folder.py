"""The user's own image folder."""

from pathlib import Path
from typing import Any

from lit_splitmask.annotations.label_maps import looks_like_segmentation
from lit_splitmask.datamodules.file_data import FileData
from lit_splitmask.errors import UserError
from lit_splitmask.images.build_index import load_or_make
from lit_splitmask.images.index import FolderIndex, SplitOptions, folder_in
from lit_splitmask.images.scan import Storing

DEFAULT_SPLITS = SplitOptions()

MAP_FOLDERS = ("labels", "masks", "labelmaps", "gt")
"""Names that label maps go by, beside images/."""


class ImageFolder(FileData):
    """Images in a folder: split folders with classes inside, class folders, or images without labels.

    The splits are made once and kept under ``index_dir``; nothing is ever written into the image folder.

    Args:
        root: The folder.
        image_size: Side of the crops.
        splits: How the folder is read and split.
        **settings: Those of :class:`FileData` and :class:`ImageData`.

    Raises:
        UserError: A setting is out of its range.
    """

    def __init__(
        self, root: str, image_size: int = 224, *, splits: SplitOptions = DEFAULT_SPLITS, **settings: Any
    ) -> None:
        super().__init__(root, image_size, **settings)
        self.split_options = splits

    @property
    def record(self) -> Path:
        """Where the record of the files is kept."""
        return folder_in(self.index_dir, self.root) / "splits.json"

    def load_or_make(self, storing: Storing | None = None) -> FolderIndex:
        """Scans and splits the folder, the first time.

        Raises:
            UserError: The folder cannot be used, has changed, was split with other options, or has label maps beside its images.
        """
        if looks_like_segmentation(self.root):
            images = self.root / "images"
            raise UserError(
                f"{self.root} holds label maps beside its images, which would be taken for images too: pass the training images "
                f"alone, such as --data.root {images / 'train' if (images / 'train').is_dir() else images}. (finetune trains a "
                "segmenter with both.)"
            )
        folders = {path.name for path in self.root.glob("*/")}
        maps = next((name for name in MAP_FOLDERS if folders == {"images", name}), None)
        if maps is not None:
            raise UserError(
                f"{self.root} has images/ and {maps}/, which look like images and their label maps rather than two classes: for "
                f"segmentation, call the folder of the maps annotations; to train on images alone, pass {self.root / 'images'}."
            )
        return load_or_make(self.root, self.index_dir, self.split_options, storing)
