"""Images listed in a CSV file, with labels, splits and groups."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch.utils.data import DataLoader

from lit_splitmask.annotations.manifest_rows import Rows, read_manifest
from lit_splitmask.datamodules.own_data import OwnData
from lit_splitmask.datamodules.settings import OwnSettings, Settings
from lit_splitmask.errors import UserError
from lit_splitmask.images import label_sets
from lit_splitmask.images.build_index import make_from_lists
from lit_splitmask.images.changes import check_unchanged
from lit_splitmask.images.index import (
    FolderIndex,
    check_options,
    folder_in,
    has_index,
    load_index,
    stored_at,
)
from lit_splitmask.images.listed_files import ListedFiles, check_listed, find_listed
from lit_splitmask.images.scan import Storing
from lit_splitmask.loading.samples import Samples
from lit_splitmask.loading.source import Source

log = logging.getLogger(__name__)


class Manifest(OwnData):
    """Images listed in a CSV file with the columns ``path`` and, if known, ``label``, ``split`` and ``group``.

    Columns are recognised in any case and by usual other names, such as ``image_id``, ``class`` or ``subset``; several columns of
    0 and 1 with one 1 per row are labels too. Images of one group (a patient, a site, a series of photos) stay in one split, as
    identical images do. Splits that the file does not give are cut from the training images, class by class and in whole groups.
    Images without a label serve pre-training and prediction; a module with ``needs_labels`` does not get them.

    Args:
        manifest: The CSV file, with a header.
        root: The folder that relative paths start from; None for the folder of the CSV file.
        image_size: Side of the crops, in pixels.
        **settings: Settings of :class:`OwnData`, :class:`FileData`, :class:`CropData` and :class:`ImageData`. Of ``splits``,
            ``labels=none`` ignores the label column, and ``labels=several`` gives an image any number of labels: those that a
            cell separates, or the columns of 0 and 1 that have a 1.

    Raises:
        UserError: A setting of :class:`CropData` or :class:`ImageData` is out of range.

    Example:
        >>> from lit_splitmask.datamodules import Manifest
        >>> data = Manifest("list.csv", image_size=32, batch_size=8, num_workers=0)
        >>> data.prepare_data()
        >>> data.setup("fit")
        >>> data.class_names
        ['disc', 'square', 'stripes']
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["image"].shape, batch["label"].shape
        (torch.Size([8, 3, 32, 32]), torch.Size([8]))
    """

    def __init__(
        self,
        manifest: str,
        root: str | None = None,
        image_size: int = 224,
        **settings: Settings[OwnSettings],
    ) -> None:
        super().__init__(str(Path(manifest).parent) if root is None else root, image_size, **settings)
        self.manifest = Path(manifest).expanduser()
        self._reported = False

    @property
    def record(self) -> Path:
        """Path of the index."""
        return folder_in(self.index_dir, self.manifest) / "splits.npz"

    def load_or_make(self, storing: Storing | None = None) -> FolderIndex:
        """The index of the images; the first call scans them and cuts missing splits.

        Raises:
            UserError: The manifest or its images cannot be used, or have changed.
        """
        rows = self._read()
        found = find_listed(self.root, rows.files)
        if not has_index(self.record):
            check_listed(found, self.manifest, rows.lines)
            return self._make(rows, found, storing)
        index = load_index(self.record)
        check_options(index, self.split_options)
        if index.list_digest != rows.digest:
            raise UserError(
                f"The manifest {self.manifest} has changed since its images were split, or is now read differently. Restore it, "
                f"or delete {stored_at(self.record)} to make a new split; results of the old split can't be compared "
                "with those of the new."
            )
        return check_unchanged(index, set(found.names.values()))

    def _read(self) -> Rows:
        labels = self.split_options.labels
        if labels == "numbers":
            raise UserError(
                "data.splits.labels=numbers is set by RegressionManifest: give --data RegressionManifest --data.target COLUMN."
            )
        return read_manifest(self.manifest, use_labels=labels != "none", several=labels == "several")

    def _make(self, rows: Rows, found: ListedFiles, storing: Storing | None) -> FolderIndex:
        rows.report()
        self._report(found)
        if rows.unlabelled:
            held_out = sum(rows.splits.get(file) in ("val", "test") for file in rows.unlabelled)
            log.info(
                "%d of %d images have no label and are used without one, for pre-training and prediction.%s",
                len(rows.unlabelled),
                len(rows.files),
                f" {held_out} of them are held out: to pre-train on these too, give them the split unlabelled."
                if held_out
                else "",
            )
        digest, rows = rows.digest, rows.renamed(found.names)
        classes = self.classes_of(rows)
        number = {name: label for label, name in enumerate(classes)}
        labels = {file: number[rows.labels[file]] if file in rows.labels else -1 for file in rows.files}
        given: dict[str, list[str]] = {}
        for file, split in rows.splits.items():
            given.setdefault(split, []).append(file)
        return make_from_lists(
            self.root,
            self.record,
            self.split_options,
            files=sorted(rows.files),
            layout=f"{self.manifest.name}: {len(rows.files):,} rows",
            classes=classes,
            labels=labels,
            given=given,
            groups=rows.groups,
            list_digest=digest,
            strata=self.strata_of(rows),
            storing=storing,
        )

    def classes_of(self, rows: Rows) -> list[str]:
        """The names that labels stand for, in the order of the labels."""
        return sorted(set(rows.labels.values()))

    def strata_of(self, rows: Rows) -> dict[str, int] | None:
        """What missing splits are cut by, by image, -1 for one without a label; None for the label."""
        if self.split_options.labels != "several":
            return None
        named = label_sets.rarest(rows.labels)
        order = {name: stratum for stratum, name in enumerate(sorted(set(named.values())))}
        return {file: order[named[file]] if file in named else -1 for file in rows.files}

    def _report(self, found: ListedFiles) -> None:
        """Logs where images are found, if that is not where the manifest and its folder suggest."""
        for line in (found.describe(), found.describe_outside(self.manifest.parent)):
            if line is not None:
                log.info("%s", line)

    def prediction_files(self) -> list[str]:
        """The images to predict: all that the manifest lists.

        Raises:
            UserError: The manifest cannot be read, or none of its images exists.
        """
        rows = read_manifest(self.manifest, use_labels=False, use_splits=False)
        found = find_listed(self.root, rows.files)
        if found.folders or not found.names:
            check_listed(found, self.manifest, rows.lines)
        self._report(found)
        return sorted({*found.names.values(), *found.missing})

    def unread_files(self) -> Mapping[str, str]:
        """Nothing: files that the manifest does not list are ignored."""
        return {}

    def open_source(self) -> Source:
        """Opens what :meth:`prepare_data` made; for a module with ``needs_labels``, without the images that have no label, except
        those that ``unlabelled_share`` puts into the batches.

        Raises:
            UserError: :meth:`prepare_data` has not run; or the module needs labels, and no training image or no image of val has
                one.
        """
        source = super().open_source()
        if self.split_options.labels == "several":
            source = self._with_sets(source)
        if not self.module_needs_labels or (self.pool and not self.unlabelled_share):  # such modules refuse that pool
            return source
        self._check_has_labels(source)
        kept = ("train",) if self.unlabelled_share else ()
        splits = {name: samples if name in kept else samples.labelled() for name, samples in source.splits.items()}
        self._report_unlabelled({name: samples for name, samples in source.splits.items() if name not in kept})
        return replace(source, splits={name: samples for name, samples in splits.items() if len(samples)})

    def _with_sets(self, source: Source) -> Source:
        """Labels as sets of classes for a module that takes them; for any other the images count as without labels.

        Raises:
            UserError: Images without labels are to be mixed into the batches.
        """
        if self.unlabelled_share:
            raise UserError(
                "data.unlabelled_share needs one label per image: leave out either it or data.splits.labels=several."
            )
        classes = self.index.classes
        if not getattr(getattr(self.trainer, "lightning_module", None), "takes_several_labels", False):
            splits = {name: samples.relabelled([-1] * len(samples)) for name, samples in source.splits.items()}
            return replace(source, splits=splits, class_names=[])
        sets = label_sets.table(classes)
        splits = {name: samples.with_meanings(sets) for name, samples in source.splits.items()}
        return replace(source, splits=splits, class_names=label_sets.classes_of(classes))

    def _check_has_labels(self, source: Source) -> None:
        if not source.class_names and self.split_options.labels == "none":
            raise UserError("data.splits.labels=none ignores the labels, which this training needs: leave it out.")
        if not source.class_names:
            rows = self._read()
            others = f", and its other columns are {', '.join(rows.other_columns)}" if rows.other_columns else ""
            raise UserError(
                f"The manifest {self.manifest} gives no image a label{others}: name the column of the classes label, pass --task "
                "regress --data.target COLUMN if a column holds numbers to predict, or use its images for pre-training."
            )
        for name in ("train", "val"):
            samples = source.splits.get(name)
            if samples is not None and len(samples) and not len(samples.labelled()):
                raise UserError(
                    f"None of the {len(samples):,} images of {name} in {self.manifest} has a label, which training needs: give "
                    "them labels, or the split unlabelled (val is then cut from the training images)."
                )

    def _report_unlabelled(self, splits: Mapping[str, Samples]) -> None:
        """Logs, once, how many images of each split are left out."""
        counts = {name: len(samples) - len(samples.labelled()) for name, samples in splits.items()}
        if self._reported or not any(counts.values()):
            return
        self._reported = True
        listed = ", ".join(f"{count:,} of {name}" for name, count in counts.items() if count)
        unevaluated = "test" in splits and not len(splits["test"].labelled())
        log.warning(
            "Images without a label are left out: %s.%s",
            listed,
            " No image of test has one, so the test images are not evaluated, only predicted." if unevaluated else "",
        )

    @property
    def all_labelled(self) -> bool:
        """Whether every image that training and the choice of a checkpoint use has a label."""
        val = self.source.splits.get("val")
        return super().all_labelled and (val is None or val.all_labelled)

    def test_dataloader(self) -> DataLoader:
        """The test images, each once.

        Raises:
            UserError: There is no test split, or its images have no labels.
        """
        if "test" not in self.source.splits and self.index.splits.get("test"):
            raise UserError(
                f"The test images in {self.manifest} have no labels, so they cannot be evaluated: use `lit-splitmask predict`, "
                "or give them labels."
            )
        return super().test_dataloader()
