"""Images listed in a CSV file, with a number to predict for each."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from lit_splitmask.annotations.manifest_rows import Rows, read_manifest
from lit_splitmask.datamodules.manifest import Manifest
from lit_splitmask.datamodules.settings import OwnSettings, Settings
from lit_splitmask.errors import UserError
from lit_splitmask.images.index import folder_in
from lit_splitmask.images.split import quantiles
from lit_splitmask.loading.source import Source


class RegressionManifest(Manifest):
    """A :class:`Manifest` with a column of numbers to predict, such as a wear in millimetres; ``label`` is (B,) float32.

    An image whose cell is empty has no label. Missing splits, and a ``label_share``, are cut evenly over the range of the
    numbers. A module of this project that does not learn numbers gets the images without labels, for pre-training.

    Args:
        manifest: The CSV file, with a header.
        target: Name of the column of the numbers.
        root: The folder that relative paths start from; None for the folder of the CSV file.
        image_size: Side of the crops, in pixels.
        **settings: Settings of :class:`Manifest`, without those that are for classes: ``balance``, ``unlabelled_share`` and the
            ``labels`` of ``splits``.

    Raises:
        UserError: A setting is for classes, or out of range.

    Example:
        >>> from lit_splitmask.datamodules import RegressionManifest
        >>> data = RegressionManifest("wear.csv", target="millimetres", image_size=32, batch_size=8, num_workers=0)
        >>> data.prepare_data()
        >>> data.setup("fit")
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["image"].shape, batch["label"].shape, batch["label"].dtype
        (torch.Size([8, 3, 32, 32]), torch.Size([8]), torch.float32)
    """

    def __init__(
        self,
        manifest: str,
        target: str = "",
        root: str | None = None,
        image_size: int = 224,
        **settings: Settings[OwnSettings],
    ) -> None:
        super().__init__(manifest, root, image_size, **settings)
        if self.split_options.labels not in ("auto", "numbers"):
            raise UserError(
                f"data.splits.labels={self.split_options.labels} is for classes, but RegressionManifest reads numbers: leave it "
                "out, or give --data Manifest."
            )
        self.split_options = replace(self.split_options, labels="numbers")
        for name in ("balance", "unlabelled_share"):
            if value := getattr(self, name):
                raise UserError(f"data.{name}={value:g} is for classes, not for numbers: leave it out.")
        self.target = target

    @property
    def record(self) -> Path:
        """Path of the index, one for each column of numbers."""
        digest = hashlib.blake2b(self.target.encode(), digest_size=4).hexdigest()
        return folder_in(self.index_dir, self.manifest) / f"splits-{digest}.npz"

    def _read(self) -> Rows:
        return read_manifest(self.manifest, target=self.target)

    def classes_of(self, rows: Rows) -> list[str]:
        """The different numbers as text, in ascending order."""
        return sorted(set(rows.labels.values()), key=float)

    def strata_of(self, rows: Rows) -> dict[str, int]:
        """Which part of the range the number of each image falls into."""
        parts = quantiles([float(number) for number in rows.labels.values()]).tolist()
        return dict.fromkeys(rows.files, -1) | dict(zip(rows.labels, parts, strict=True))

    def open_source(self) -> Source:
        """Opens what :meth:`prepare_data` made, with numbers for a module that learns them, or that is not of this project.

        Raises:
            UserError: As in :class:`Manifest`; or the module needs classes.
        """
        module = getattr(self.trainer, "lightning_module", None)
        takes_numbers = getattr(module, "takes_numbers", True)
        if self.module_needs_labels and not takes_numbers:
            raise UserError(
                f"{type(module).__name__} learns classes, but RegressionManifest reads numbers: use Regress (--task regress), or "
                "give --data Manifest to read each number as a class."
            )
        source = super().open_source()
        if takes_numbers:
            meanings = np.array([float(number) for number in self.index.classes])
            splits = {name: samples.with_meanings(meanings) for name, samples in source.splits.items()}
            return replace(source, splits=splits, class_names=[self.target])
        splits = {name: samples.relabelled([-1] * len(samples)) for name, samples in source.splits.items()}
        return replace(source, splits=splits, class_names=[])

    @property
    def train_targets(self) -> np.ndarray:
        """The numbers of the training images that have one, (N,) float32."""
        samples = self.train_samples.labelled()
        return samples.targets(np.arange(len(samples)))
