"""The user's own image folder."""

from pathlib import Path

from lit_splitmask.annotations.pairs import folders_of_images, looks_like_segmentation
from lit_splitmask.datamodules.markers import check_not_published
from lit_splitmask.datamodules.own_data import OwnData
from lit_splitmask.errors import UserError
from lit_splitmask.images.build_index import load_or_make
from lit_splitmask.images.index import FolderIndex, folder_in
from lit_splitmask.images.scan import Storing
from lit_splitmask.images.tree import Tree


class ImageFolder(OwnData):
    """Images in a folder: split folders of class folders, class folders, or images without labels.

    The splits are made once and stored under ``index_dir``; nothing is written into the image folder.

    Args:
        root: The image folder.
        image_size: Side of the crops, in pixels.
        splits: How labels are found and missing splits are cut.
        pool: Folders of more images to pre-train on, without labels. Images with the same pixels as one of val or test are
            left out.
        **settings: Settings of :class:`FileData`, :class:`CropData` and :class:`ImageData`.

    Raises:
        UserError: A setting of :class:`CropData` or :class:`ImageData` is out of range.

    Example:
        >>> from lit_splitmask.datamodules import ImageFolder
        >>> data = ImageFolder("photos", image_size=32, batch_size=8, num_workers=0)
        >>> data.prepare_data()
        >>> data.setup("fit")
        >>> data.class_names
        ['disc', 'square', 'stripes']
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["image"].shape, batch["image"].dtype, batch["label"].shape
        (torch.Size([8, 3, 32, 32]), torch.uint8, torch.Size([8]))
    """

    @property
    def record(self) -> Path:
        """Path of the index."""
        return folder_in(self.index_dir, self.root) / "splits.npz"

    def load_or_make(self, storing: Storing | None = None) -> FolderIndex:
        """The index of the folder; the first call scans and splits it.

        Raises:
            UserError: The folder cannot be used, has changed, was split with other options, or holds label maps.
        """
        tree = self.check_folder()
        return load_or_make(self.root, self.index_dir, self.split_options, storing, tree=tree)

    def check_folder(self) -> Tree:
        """Checks, by names alone, that the folder is one for this class; returns its files.

        Raises:
            UserError: It holds label maps or a published dataset, or the options are those of a list.
        """
        options, tree = self.split_options, Tree.read(self.root)
        if options.labels in ("several", "numbers"):
            raise UserError(
                f"data.splits.labels={options.labels} is for lists: a folder gives each image one label. Write a CSV "
                "file and pass --data Manifest --data.manifest FILE.csv, or leave it out."
            )
        if options.layout == "auto":
            if looks_like_segmentation(self.root, tree):
                images = folders_of_images(self.root, tree)
                raise UserError(
                    f"{self.root} holds label maps beside its images, which would be taken for images too: pass the training "
                    f"images alone, such as --data.root {images[0]}. (finetune trains a segmenter with both. If these are "
                    "classes, pass --layout classes.)"
                )
            check_not_published(self.root, tree)
        return tree
