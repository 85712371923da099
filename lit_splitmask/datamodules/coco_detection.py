"""The user's own images with boxes and masks, in COCO's format; also COCO 2017 itself."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_splitmask.annotations.coco import Categories
from lit_splitmask.annotations.coco_files import WAYS
from lit_splitmask.annotations.coco_set import CocoSet, known_images, read_set
from lit_splitmask.augment.detect import DetectionAugment, fit, whole_view
from lit_splitmask.datamodules.checks import check_counts
from lit_splitmask.datamodules.coco_splits import (
    Part,
    Predicted,
    check_classes,
    check_objects,
    check_sizes,
    make_splits,
)
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.datamodules.recognise import LAYOUTS, recognise
from lit_splitmask.datamodules.settings import ImageSettings, Settings
from lit_splitmask.errors import UserError
from lit_splitmask.files import local_folder
from lit_splitmask.images.examined import Examined, examine_once, load_examined
from lit_splitmask.images.index import folder_in
from lit_splitmask.images.split import check_shares
from lit_splitmask.images.statistics import FIXED
from lit_splitmask.images.tree import Tree, check_has_images
from lit_splitmask.loading.objects import AnnotatedSamples, CocoImages
from lit_splitmask.loading.prediction import WholeReader, examine_files
from lit_splitmask.loading.samples import Samples
from lit_splitmask.loading.source import Source

log = logging.getLogger(__name__)


class CocoDetection(ImageData):
    """Images with boxes and masks in COCO's format.

    It reads COCO's own layout (``train/``, ``val/`` and ``annotations/instances_{train,val}.json``, also with COCO 2017's
    names), Roboflow's (``train/_annotations.coco.json``), CVAT's (``annotations/instances_default.json`` with ``images/``), and
    annotation files of any other name.

    Labels are indices into the list of categories that have objects; :attr:`category_ids` and :meth:`image_ids` give the ids in
    the files. Training images without objects are left out (crowds alone do not count); evaluation uses all. Before training,
    every image is decoded once: those that cannot be read are left out, and so are images of train that val or test has too. A
    ``test`` split is used if it is annotated. Prediction takes every image in the folder, with or without annotations; images
    without an id of their own get ids above the largest. Batches are those of :class:`CocoImages`.

    Args:
        root: The folder.
        image_size: Short side in evaluation, and largest short side in training, in pixels.
        annotations: The annotation file, or a file for each split (``{train: a.json, val: b.json}``), if their names do not tell;
            None to find them.
        max_size: Largest long side, in pixels.
        masks: Whether to learn masks as well as boxes; None for masks if at least 90 % of the objects have one, and no class
            would lose all its objects.
        val_share: Fraction of the training images for validation, if there is no val split.
        augment: Augmentation of training images.
        eval_batch_size: Images per evaluation batch of a process. In a batch, smaller images are padded, and attention sees the
            padding. With more than 1, scores depend on the batches, and so on the number of processes.
        index_dir: Folder of the record of the images, so that only new and changed ones are decoded again.
        **settings: Settings of :class:`ImageData`.

    Raises:
        UserError: ``eval_batch_size`` is less than 1, ``max_size`` is less than ``image_size``, ``val_share`` is outside [0, 1),
            or a setting of :class:`ImageData` is out of range.

    Example:
        >>> from lit_splitmask.datamodules import CocoDetection
        >>> data = CocoDetection("facades", image_size=32, max_size=64, batch_size=2, num_workers=0)
        >>> data.prepare_data()
        >>> data.setup("fit")
        >>> data.class_names, data.category_ids
        (['disc', 'bar', 'roof'], [0, 3, 90])
        >>> batch = next(iter(data.train_dataloader()))
        >>> sorted(batch), sorted(batch["target"][0])
        (['image', 'index', 'size', 'target'], ['boxes', 'labels', 'masks'])
    """

    def __init__(
        self,
        root: str,
        image_size: int = 800,
        *,
        annotations: str | dict[str, str] | None = None,
        max_size: int = 1333,
        masks: bool | None = None,
        val_share: float = 0.1,
        augment: DetectionAugment = DetectionAugment(),  # noqa: B008 (frozen)
        eval_batch_size: int = 1,
        index_dir: str = "runs/data",
        **settings: Settings[ImageSettings],
    ) -> None:
        super().__init__(image_size=image_size, **settings)
        check_counts(eval_batch_size=eval_batch_size)
        check_shares(val_share, 0.0)
        self.eval_batch_size = eval_batch_size
        if max_size < image_size:
            raise UserError(
                f"max_size={max_size}, the largest long side, must be at least image_size={image_size}, the short side."
            )
        self.root, self.max_size, self.augment = local_folder(root), max_size, augment
        self.annotations, self.val_share, self.index_dir = annotations, val_share, Path(index_dir)
        self._requested_masks = masks
        self._coco: CocoSet | None = None
        self._has_read = False
        self._parts: dict[str, Part] | None = None
        self._examined: Mapping[str, Examined] = {}
        self._categories = Categories([], [])
        self._predicted: Predicted | None = None
        self._said: set[str] = set()

    @property
    def record(self) -> Path:
        """Path of the record of the images."""
        return folder_in(self.index_dir, self.root) / "coco.json"

    @property
    def masks(self) -> bool:
        """Whether objects have masks; before the annotations are read, whether masks may be trained."""
        return self._coco.masks if self._coco is not None else self._requested_masks is not False

    def prepare_data(self) -> None:
        """Reads the annotations and decodes new and changed images.

        Raises:
            UserError: An annotation file cannot be used; images are missing, or of a different size than it says; or most of them
                cannot be read.
        """
        if self.predicts_only:
            return
        coco = self._read()
        if coco is None:  # there may be images to predict
            return
        self._split(coco, examine_once(self.root, coco.all_files(), self.record))

    def setup(self, stage: str | None = None) -> None:
        """Opens the images and converts the budget to steps, as :meth:`ImageData.setup` does.

        Raises:
            UserError: There are no annotations or objects for the stage, or :meth:`ImageData.setup` raises it.
        """
        if stage == "predict":
            super().setup(stage)
            return
        coco = self._read()
        if coco is None:
            raise UserError(_not_coco(self.root))
        self._predicted = None
        parts = self._splits_of(coco)
        if stage in (None, "fit"):
            check_objects(coco, parts, "train")
            self._say(check_classes(coco, parts["train"]))
        if stage in (None, "fit", "validate"):
            check_objects(coco, parts, "val")
        super().setup(stage)

    def _read(self) -> CocoSet | None:
        """The annotation files, which are read on the first call; None if there are none."""
        if not self._has_read:
            self._coco = read_set(self.root, self.annotations, self._requested_masks)
            self._has_read = True
        return self._coco

    def _splits_of(self, coco: CocoSet) -> dict[str, Part]:
        """The splits, from the record of the images if :meth:`prepare_data` has run in another process."""
        if self._parts is not None:
            return self._parts
        examined = load_examined(self.record) if self.record.exists() else {}
        if not examined.keys() >= set(coco.all_files()):
            raise UserError(
                f"The images of {self.root} have not been read yet ({self.record} does not have them all): call prepare_data() "
                "first."
            )
        return self._split(coco, examined)

    def _split(self, coco: CocoSet, examined: Mapping[str, Examined]) -> dict[str, Part]:
        check_sizes(self.root, coco, examined)
        self._parts, notes = make_splits(coco, examined, self.val_share)
        self._examined = examined
        self._say([*coco.notes, *notes])
        train = list(self._parts["train"].files) if "train" in self._parts else []
        self._window = self.window_of(self.root, train, lambda file: examined[file].hash, self.record.parent)
        return self._parts

    @rank_zero_only
    def _say(self, notes: Sequence[str]) -> None:
        """Logs each line once."""
        for note in notes:
            if note not in self._said:
                log.warning("%s", note)
        self._said |= set(notes)

    def open_source(self) -> Source:
        """The splits; a test split without objects is only predicted on.

        Raises:
            UserError: :meth:`prepare_data` has not run, or a file is not in COCO's format.
        """
        coco = self._read()
        if coco is None:
            raise UserError(_not_coco(self.root))
        self._categories = coco.categories
        samples = {}
        for split, part in self._splits_of(coco).items():
            part.annotations.relabel(None)
            samples[split] = AnnotatedSamples(part.files, part.annotations, part.rows)
        predict = next((samples[split] for split in ("test", "val", "train") if split in samples), Samples([], []))
        if "test" in samples and not coco.annotations["test"].num_objects.any():
            del samples["test"]
        read = WholeReader(self.root, self._examined, window=self._window)
        return Source(samples, predict, coco.categories.names, read, *FIXED["imagenet"], window=self._window)

    def open_for_prediction(self) -> Source:
        """Opens every image of the folder once, whatever its folders are called; annotations only give ids.

        Raises:
            UserError: There are no images, or none can be read.
        """
        tree = Tree.read(self.root)
        check_has_images(tree)
        files = examine_files(self.root, tree.images, tree.unread_images(), self.given_window)
        self._predicted = Predicted.of(files, known_images(self.root, self.annotations, tree))
        self._categories = Categories([], [])
        samples = Samples(files.readable, [-1] * len(files.readable))
        read = WholeReader(self.root, window=files.window)
        return Source({}, samples, [], read, *FIXED["imagenet"], files.problems, files.window)

    def use_classes(self, names: Sequence[str]) -> None:
        """Takes the classes of a trained network, in its order, if all classes that have objects here are among them.

        A folder may lack classes, or give them other ids. In prediction, results get the ids of the folder's annotation files if
        these know all the classes.

        Args:
            names: Class names of the network, by label.
        """
        if self._predicted is not None:
            known = self._predicted.categories
            ids = [known[name] for name in names] if set(names) <= known.keys() else []
            self._categories = Categories(ids, list(names) if ids else [])
            return
        if self._coco is None or not set(self._coco.categories.names) <= set(names):
            return
        self._categories = self._coco.categories.for_names(names)
        label_of = {name: label for label, name in enumerate(names)}
        for annotations in self._coco.annotations.values():
            annotations.relabel([label_of[name] for name in self._coco.categories.names])
        self._source = replace(self.source, class_names=list(names))

    def leave_out_smaller(self, side: int) -> None:
        """Leaves images that a network cannot take out of a prediction, and names them.

        Args:
            side: Least side of an image as resized, in pixels.

        Raises:
            UserError: All images are smaller.
        """
        assert self._predicted is not None, "call setup('predict') first"
        heights_and_widths = [fit(*shape, self.image_size, self.max_size) for shape in self._predicted.shapes]
        small = [index for index, shape in enumerate(heights_and_widths) if min(shape) < side]
        if not small:
            return
        kept = sorted(set(range(len(heights_and_widths))) - set(small))
        files = self.source.predict.files
        why = {files[index]: f"less than {side} px high or wide when resized" for index in small}
        self._say([f"{self.root / file} is {reason}. It is not predicted." for file, reason in why.items()])
        if not kept:
            raise UserError(
                f"All images in {self.root} are less than {side} px high or wide when resized: give larger ones."
            )
        self._predicted = self._predicted.subset(kept)
        predict = self.source.predict.subset(kept)
        self._source = replace(self.source, predict=predict, problems={**self.source.problems, **why})

    @property
    def table_passes(self) -> float:
        """Passes of the 3× schedule."""
        return 36

    @property
    def category_ids(self) -> list[int]:
        """Category ids in the annotation files, by label; empty if they are those of the network."""
        return self._categories.ids

    def image_ids(self, samples: Samples) -> list[int]:
        """Image ids in the annotation files, by index in ``samples``."""
        if not isinstance(samples, AnnotatedSamples):
            return []
        return samples.annotations.image_ids[samples.rows].tolist()

    @property
    def predict_image_ids(self) -> list[int]:
        """Image ids of the images to predict, by index."""
        return self.image_ids(self.source.predict) if self._predicted is None else self._predicted.ids

    @property
    def is_annotated(self) -> bool:
        """Whether annotation files give the images their ids."""
        return self._read() is not None if self._predicted is None else self._predicted.all_known

    def smallest_image(self) -> tuple[str, int]:
        """Name and shorter side, in pixels, of the image whose shorter side is smallest, resized or, in training, on disk."""
        sides: list[tuple[int, str]] = []
        for part in (self._parts or {}).values() if self._predicted is None else ():
            for name, (height, width) in zip(part.files, part.annotations.sizes[part.rows].tolist(), strict=True):
                sides.append((min(height, width, *fit(height, width, self.image_size, self.max_size)), name))
        if self._predicted is not None:
            shapes = zip(self.source.predict.files, self._predicted.shapes, strict=True)
            sides += [(min(fit(*shape, self.image_size, self.max_size)), name) for name, shape in shapes]
        side, name = min(sides)
        return name, side

    def _images(self, samples: Samples, *, training: bool) -> CocoImages:
        whole = partial(whole_view, short=self.image_size, longest=self.max_size)
        augmented = partial(self.augment.build(self.image_size), longest=self.max_size)
        return CocoImages(
            samples,
            self.source.read,
            view=augmented if training else whole,
            training=training,
            masks=self.masks,
            channels=self.channels,
            seed=self.seed,
        )

    def train_images(self) -> CocoImages:
        """Augmented views of whole images, with the objects in them."""
        return self._images(self.train_samples, training=True)

    def eval_images(self, samples: Samples) -> CocoImages:
        """Whole images, not augmented, with their objects as in the file."""
        return self._images(samples, training=False)


def _not_coco(root: Path) -> str:
    """Why a folder cannot be used for training, with what its annotations seem to be."""
    text = f"{root} is not a folder in COCO's format: no annotation file was found. Layouts that are read: {WAYS}."
    try:
        reading = recognise(root)
    except UserError:
        return text
    return text if reading.layout in LAYOUTS else f"{text} This one is {reading}: {reading.way}."
