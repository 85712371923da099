"""The base of all datamodules: training budget, epochs, samplers and loaders."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from lit_splitmask.datamodules.checks import check_counts, check_enough_images
from lit_splitmask.datamodules.pixels import PixelData
from lit_splitmask.datamodules.settings import FullSignature
from lit_splitmask.datamodules.trainer_length import Length, length_of
from lit_splitmask.errors import UserError
from lit_splitmask.images.window import parse_window
from lit_splitmask.loading.budget import MAX_PASSES, Budget, Schedule, resolve
from lit_splitmask.loading.loader import default_num_workers, make_loader
from lit_splitmask.loading.sampler import EvalSampler, WrapAroundSampler, check_divides
from lit_splitmask.loading.samples import Samples
from lit_splitmask.loading.source import Source


class ImageData(PixelData, ABC):
    """Batches of ``image`` (B, C, H, W) uint8, ``label`` (B,) int64 and ``index`` (B,) int64.

    The training budget is converted to optimizer steps and cut into ``num_epochs`` trainer epochs of equal length. Use
    ``Trainer(max_epochs=-1)``: ``setup`` sets its ``max_steps`` from the budget. A trainer's own ``max_steps`` counts only if
    no budget is given. Resuming is exact from any checkpoint saved after an optimizer step.

    Args:
        image_size: Side of the crops, in pixels.
        channels: 3, or 1 for luminance only (for X-rays, say).
        window: The values that become black and white in images of more than 8 bits (``"0,4095"`` or two numbers), in all
            splits; None for those of the weights that training starts from, or to measure them on the training images.
        batch_size: Images per optimizer step, over all processes and accumulated micro-batches.
        budget: How long to train; None for the paper's default.
        num_epochs: Number of trainer epochs that the budget is cut into; None for 100, or fewer, of at least ten steps.
        label_share: Share of the training images to use, the same in each class.
        seed: Seed of the order, the augmentation and the choice of ``label_share``.
        num_workers: Processes that read images; None for one less than the number of cores, at most 8.

    Raises:
        UserError: A number is less than 1, ``channels`` is neither 1 nor 3, or ``window`` is not two numbers.

    Example:
        >>> import numpy as np
        >>> from lit_splitmask.datamodules import Budget, ImageData
        >>> from lit_splitmask.datamodules.crop_data import CropData
        >>> from lit_splitmask.loading.samples import Samples
        >>> from lit_splitmask.loading.source import Source
        >>> def read(name):
        ...     return np.full((40, 40, 3), int(name), dtype=np.uint8)
        >>> class Grey(CropData):
        ...     def open_source(self):
        ...         train = Samples(["0", "100", "200"], labels=[0, 0, 1])
        ...         return Source({"train": train}, train, ["dark", "bright"], read, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        >>> data: ImageData = Grey(image_size=32, batch_size=2, budget=Budget(passes=4), num_epochs=2, num_workers=0)
        >>> data.setup("fit")
        >>> data.schedule.steps, data.steps_per_epoch, next(iter(data.train_dataloader()))["image"].shape
        (6, 3, torch.Size([2, 3, 32, 32]))
    """

    __signature__ = FullSignature()  # help() and editors show the settings of the base classes too
    unlabelled_share = 0.0  # JointData has more
    crop_ratio: float | None = None  # CropData has one
    fitted_file: Callable[[str], Path] | None = None  # FileData has one

    def __init__(
        self,
        *,
        image_size: int = 224,
        channels: Literal[1, 3] = 3,
        window: str | tuple[float, float] | None = None,
        batch_size: int = 256,
        budget: Budget | None = None,
        num_epochs: int | None = None,
        label_share: float = 1.0,
        seed: int = 0,
        num_workers: int | None = None,
    ) -> None:
        super().__init__()
        check_counts(image_size=image_size, batch_size=batch_size, num_epochs=num_epochs)
        if channels not in (1, 3):
            raise UserError(f"channels={channels}, but it must be 3 (colour) or 1 (luminance only).")
        self.image_size = image_size
        self.channels = channels
        self.window = parse_window(window)
        self.batch_size = batch_size
        self.eval_batch_size = 1
        self.budget = budget
        self.num_epochs = num_epochs
        self.label_share = label_share
        self.seed = seed
        self.num_workers = default_num_workers() if num_workers is None else num_workers
        self._only_predicts = False
        self._source: Source | None = None
        self._train: Samples | None = None
        self._length: Length | None = None

    @abstractmethod
    def open_source(self) -> Source:
        """Opens what :meth:`prepare_data` made. Called in every process."""

    def open_for_prediction(self) -> Source:
        """Opens every image once, for prediction: its ``predict`` holds those that can be read, without labels."""
        return self.open_source()

    def only_predict(self) -> None:
        """Makes :meth:`prepare_data` do nothing: prediction needs no splits, no statistics and no stored pixels."""
        self._only_predicts = True

    @property
    def predicts_only(self) -> bool:
        """Whether the images are only predicted: :meth:`only_predict` was called, or ``Trainer.predict`` is running."""
        return self._only_predicts or bool(getattr(self.trainer, "predicting", False))

    def setup(self, stage: str | None = None) -> None:
        """Opens the images and converts the budget to steps; for ``fit``, sets the trainer's ``max_steps``.

        Raises:
            UserError: ``prepare_data`` has not run, ``label_share`` is out of range, the batch cannot be divided among the
                processes, or the trainer's own length contradicts the budget.
        """
        if stage == "predict":
            self._source = self.open_for_prediction()
            return
        self._source = self.open_source()
        everything = self._source.splits.get("train", Samples([], []))
        self._train = self.choose_training(everything)
        is_fit = stage in (None, "fit")
        if is_fit or len(self._train):
            trainer = self.trainer if is_fit else None
            self._length = length_of(trainer, self.budget, self._schedule_of, self.num_epochs, self._length)
        if is_fit:
            check_divides(self.batch_size, self._world_size, self._accumulate)
            rank_zero_info(self.schedule.describe())

    def choose_training(self, everything: Samples) -> Samples:
        """The training images to use, of ``everything`` that the training split holds."""
        return everything.share(self.label_share, self.seed)

    def _schedule_of(self, budget: Budget | None) -> Schedule:
        return resolve(budget, *self.pass_and_step(), table_passes=self.table_passes, max_passes=self.max_passes)

    def pass_and_step(self) -> tuple[int, int]:
        """Number of images in a pass, and in a step, as the budget counts them."""
        return len(self.train_samples), self.batch_size

    @property
    def table_passes(self) -> float | None:
        """Passes of the default budget, if the paper gives them; None for the rule."""
        return None

    @property
    def max_passes(self) -> float:
        """Largest number of passes of the default budget."""
        return MAX_PASSES

    @property
    def schedule(self) -> Schedule:
        """The budget in images, passes and steps."""
        return self._checked_length.schedule

    @property
    def _checked_length(self) -> Length:
        if self._length is None:
            raise UserError("The datamodule has no schedule yet: call prepare_data() and setup('fit') first.")
        return self._length

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per trainer epoch."""
        return self._checked_length.steps_per_epoch

    @property
    def source(self) -> Source:
        """The opened images."""
        if self._source is None:
            raise UserError("The datamodule holds no images yet: call prepare_data() and setup() first.")
        return self._source

    @property
    def class_names(self) -> list[str]:
        """Class names by label; empty without labels."""
        return self.source.class_names

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels."""
        return len(self.class_names)

    @property
    def images_per_step(self) -> int:
        """Images per optimizer step, over all processes and accumulated micro-batches."""
        return self.batch_size

    @property
    def num_train_images(self) -> int:
        """Number of training images that are used."""
        return self.schedule.num_images

    @property
    def all_labelled(self) -> bool:
        """Whether every training image that is used has a label."""
        return self.train_samples.all_labelled

    @property
    def pool(self) -> Sequence[Path]:
        """Folders whose images were added to the training images without labels."""
        return ()

    @property
    def train_samples(self) -> Samples:
        """The training images that are used."""
        return self.source.splits["train"] if self._train is None else self._train

    @property
    def _world_size(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    @property
    def _accumulate(self) -> int:
        return 1 if self.trainer is None else self.trainer.accumulate_grad_batches

    def _global_step(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_step

    def train_dataloader(self) -> DataLoader:
        """One trainer epoch of augmented images, starting at the trainer's global step."""
        sampler = WrapAroundSampler(
            len(self.train_samples),
            self.batch_size,
            steps_per_epoch=self.steps_per_epoch,
            global_step=self._global_step,
            seed=self.seed,
            repeats=self.repeats,
            rank=self._rank,
            world_size=self._world_size,
            accumulate=self._accumulate,
        )
        images = self.train_images()
        return make_loader(images, sampler, batch_size=sampler.loader_batch_size, num_workers=self.num_workers)

    @property
    def repeats(self) -> int:
        """Number of differently augmented copies of a training image in a row."""
        return 1

    @abstractmethod
    def train_images(self) -> Dataset:
        """The training images, augmented."""

    @property
    def crop_sizes(self) -> list[int]:
        """Sides of the crops of one training image, in pixels."""
        return [self.image_size]

    def fitting_dataloader(self, num_crops: int | None = None) -> DataLoader:
        """Augmented training images for this process alone, outside training: to fit a tokenizer, or to time steps.

        Args:
            num_crops: Smallest number of crops, from several passes if necessary; None for one crop of each image.
        """
        batch_size = min(self.batch_size // (self._world_size * self._accumulate), len(self.train_samples), 256)
        sampler = WrapAroundSampler(
            len(self.train_samples),
            batch_size,
            steps_per_epoch=-(-(num_crops or len(self.train_samples)) // batch_size),
            global_step=lambda: 0,
            seed=self.seed,
        )
        return make_loader(self.train_images(), sampler, batch_size=batch_size, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """The validation images, each once; an empty list without a val split."""
        samples = self.source.splits.get("val")
        return [] if samples is None else self.eval_loader(samples)

    def test_dataloader(self) -> DataLoader:
        """The test images, each once.

        Raises:
            UserError: There is no test split.
        """
        if "test" not in self.source.splits:
            raise UserError(
                "These images have no test split. Add a test folder, or set test_share above 0 before they are first split."
            )
        return self.eval_loader(self.source.splits["test"])

    def predict_dataloader(self) -> DataLoader:
        """Every image that can be read, each once; :attr:`predict_problems` names the others."""
        return self.eval_loader(self.source.predict)

    @property
    def predict_paths(self) -> Sequence[str]:
        """Names of the images of :meth:`predict_dataloader`, by index."""
        return self.source.predict.files

    @property
    def predict_problems(self) -> Mapping[str, str]:
        """Why images cannot be predicted, by name."""
        return self.source.problems

    @abstractmethod
    def eval_images(self, samples: Samples) -> Dataset:
        """Images for evaluation, not augmented."""

    def split_images(self, split: str) -> Dataset | None:
        """The images of a split, not augmented; None if there is no such split. ``train`` holds only the images that are used."""
        if split not in self.source.splits:
            return None
        return self.eval_images(self.train_samples if split == "train" else self.source.splits[split])

    def eval_sampler(self, samples: Samples) -> EvalSampler:
        """Deals images to the processes for evaluation.

        Raises:
            UserError: There are fewer images than processes, which Lightning does not support.
        """
        check_enough_images(len(samples), self._world_size)
        return EvalSampler(len(samples), rank=self._rank, world_size=self._world_size)

    def eval_loader(self, samples: Samples) -> DataLoader:
        """A loader of images for evaluation, each once over all processes."""
        sampler = self.eval_sampler(samples)
        return make_loader(
            self.eval_images(samples), sampler, batch_size=self.eval_batch_size, num_workers=self.num_workers
        )
