"""What all image datamodules share: budget, epochs, samplers and loaders."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from lit_splitmask.contract import TrainingData
from lit_splitmask.errors import UserError
from lit_splitmask.images.split import nested_share
from lit_splitmask.images.statistics import Colour
from lit_splitmask.loading.budget import MAX_PASSES, Budget, Schedule, resolve, steps_per_epoch, whole_epochs
from lit_splitmask.loading.loader import default_num_workers, make_loader
from lit_splitmask.loading.sampler import EvalSampler, WrapAroundSampler, check_divides
from lit_splitmask.loading.samples import Samples
from lit_splitmask.loading.source import Source

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow converts


class ImageData(LightningDataModule, ABC):
    """Batches of ``image`` (B, C, H, W) uint8, ``label`` and ``index`` (B,) int64.

    Training is counted in optimizer steps: the budget is resolved to steps, which are cut into ``num_epochs`` trainer
    epochs of equal length whatever the dataset's size. Use it with ``Trainer(max_epochs=-1)``, which gets the budget's
    ``max_steps``; a trainer's own ``max_steps`` counts only where no budget is given. A resume is exact from any
    checkpoint that was saved after an optimizer step.

    Args:
        image_size: Side of the crops.
        channels: 3, or 1 for the luminance alone (X-rays, say; colours are lost).
        batch_size: Images an optimizer step sees, over all processes and accumulated micro-batches.
        budget: How long to train; None for the paper's default.
        num_epochs: Trainer epochs that the budget is cut into.
        label_share: Share of the training images that are used, the same in each class.
        seed: Of order, augmentation and the share of labels.
        num_workers: Processes that read images; None for one less than the cores, at most 8.

    Raises:
        UserError: A setting is out of its range.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        channels: Literal[1, 3] = 3,
        batch_size: int = 256,
        budget: Budget | None = None,
        num_epochs: int = 100,
        label_share: float = 1.0,
        seed: int = 0,
        num_workers: int | None = None,
    ) -> None:
        super().__init__()
        check_counts(image_size=image_size, batch_size=batch_size, num_epochs=num_epochs)
        if channels not in (1, 3):
            raise UserError(f"channels={channels}, but images have 3 channels, or 1 where their luminance is enough.")
        self.image_size = image_size
        self.channels = channels
        self.batch_size = batch_size
        self.eval_batch_size = 1
        self.budget = budget
        self.num_epochs = num_epochs
        self.label_share = label_share
        self.seed = seed
        self.num_workers = default_num_workers() if num_workers is None else num_workers
        self._source: Source | None = None
        self._train: Samples | None = None
        self._schedule: Schedule | None = None
        self._installed_steps: int | None = None

    @abstractmethod
    def open_source(self) -> Source:
        """Opens what :meth:`prepare_data` has prepared; called on every process."""

    def setup(self, stage: str | None = None) -> None:
        """Opens the images and works the budget out; for ``fit``, hands it to the trainer.

        Raises:
            UserError: ``prepare_data`` has not run, or the batch cannot be shared among the processes.
        """
        self._source = self.open_source()
        everything = self._source.splits.get("train", Samples([], []))
        self._train = everything.subset(nested_share(everything.labels.tolist(), self.label_share, self.seed))
        is_fit = stage in (None, "fit")
        if is_fit or len(self._train):
            self._schedule = self._resolve_budget() if is_fit else self._plain_schedule(self.budget)
        if is_fit:
            check_divides(self.batch_size, self._world_size, self._accumulate)
            rank_zero_info(self.schedule.describe())

    def _resolve_budget(self) -> Schedule:
        schedule = self._plain_schedule(self.budget)
        if self.budget is None or self.budget.steps is None:
            schedule = whole_epochs(schedule, self.num_epochs)  # Lightning does not validate after a part of an epoch
        if self.trainer is None:
            return schedule
        max_steps, max_epochs = self.trainer.max_steps, self.trainer.max_epochs
        fast = getattr(self.trainer, "fast_dev_run", False)
        if max_steps not in (-1, self._installed_steps):
            if self.budget is not None and max_steps != schedule.steps and not fast:
                self._contradiction(schedule, f"trainer.max_steps={max_steps:,}")
            return self._plain_schedule(Budget(steps=max_steps))
        epochs = ceil(schedule.steps / steps_per_epoch(schedule.steps, self.num_epochs))
        if self.budget is not None and max_epochs is not None and -1 < max_epochs < epochs and not fast:
            self._contradiction(
                schedule, f"trainer.max_epochs={max_epochs:,}, of the {epochs:,} that the budget is cut into"
            )
        self._installed_steps = schedule.steps
        self.trainer.fit_loop.epoch_loop.max_steps = schedule.steps
        return schedule

    def _plain_schedule(self, budget: Budget | None) -> Schedule:
        assert self._train is not None
        return resolve(
            budget, len(self._train), self.batch_size, table_passes=self.table_passes, max_passes=self.max_passes
        )

    def _contradiction(self, schedule: Schedule, setting: str) -> NoReturn:
        raise UserError(
            f"The budget {self.budget} means {schedule.steps:,} steps, but the trainer was given {setting}. One of them must "
            "go: set the length by data.budget alone (steps, passes, images or scale), and leave max_steps and max_epochs "
            "at -1."
        )

    @property
    def table_passes(self) -> float | None:
        """Passes of the default budget where a table gives them; None for the rule."""
        return None

    @property
    def max_passes(self) -> float:
        """Cap on the passes of the default budget."""
        return MAX_PASSES

    @property
    def schedule(self) -> Schedule:
        """The budget, worked out."""
        if self._schedule is None:
            raise UserError("The datamodule has no schedule yet: call prepare_data() and setup('fit') first.")
        return self._schedule

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps a trainer epoch."""
        return steps_per_epoch(self.schedule.steps, self.num_epochs)

    @property
    def source(self) -> Source:
        """The opened images."""
        if self._source is None:
            raise UserError("The datamodule holds no images yet: call prepare_data() and setup() first.")
        return self._source

    @property
    def class_names(self) -> list[str]:
        """Sorted; empty without labels."""
        return self.source.class_names

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels."""
        return len(self.class_names)

    @property
    def pixel_mean(self) -> tuple[float, ...]:
        """Of each channel, of pixels in [0, 1]."""
        return self._by_channel(self.source.mean)

    @property
    def pixel_std(self) -> tuple[float, ...]:
        """Of each channel, of pixels in [0, 1]."""
        return self._by_channel(self.source.std)

    def _by_channel(self, colour: Colour) -> tuple[float, ...]:
        if self.channels == 3:
            return colour
        return (sum(weight * value for weight, value in zip(_LUMINANCE, colour, strict=True)),)

    @property
    def images_per_step(self) -> int:
        """Images that an optimizer step sees, over all processes and accumulated micro-batches."""
        return self.batch_size

    @property
    def num_train_images(self) -> int:
        """Training images that are used."""
        return self.schedule.num_images

    @property
    def all_labelled(self) -> bool:
        """Whether every training image that is used has a label."""
        return self.train_samples.all_labelled

    @property
    def pool(self) -> Sequence[Path]:
        """Folders of more images without labels among the training images."""
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
        """One trainer epoch of augmented images, from the trainer's step on."""
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
        return make_loader(
            self.train_images(), sampler, batch_size=sampler.loader_batch_size, num_workers=self.num_workers
        )

    @property
    def repeats(self) -> int:
        """Differently augmented copies of a training image in a row."""
        return 1

    @abstractmethod
    def train_images(self) -> Dataset:
        """The training images as a worker reads them, augmented."""

    @property
    def crop_sizes(self) -> list[int]:
        """Sides of the crops of one training image, in pixels."""
        return [self.image_size]

    def fitting_dataloader(self, num_crops: int | None = None) -> DataLoader:
        """Augmented training images for this process alone, apart from training: to fit or time things.

        Args:
            num_crops: at least so many crops, over several passes if need be; by default one of each image.
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
        """The validation images, each once; nothing if there is no such split."""
        samples = self.source.splits.get("val")
        return [] if samples is None else self.eval_loader(samples)

    def test_dataloader(self) -> DataLoader:
        """The test images, each once.

        Raises:
            UserError: There is no such split.
        """
        if "test" not in self.source.splits:
            raise UserError(
                "These images have no test split. Add a test folder, or set test_share above 0 before the first use."
            )
        return self.eval_loader(self.source.splits["test"])

    def predict_dataloader(self) -> DataLoader:
        """The test images if there are any, otherwise all; each once."""
        return self.eval_loader(self.source.predict)

    @property
    def predict_paths(self) -> Sequence[str]:
        """Names of the images that :meth:`predict_dataloader` gives, by index."""
        return self.source.predict.files

    @abstractmethod
    def eval_images(self, samples: Samples) -> Dataset:
        """Images as they are evaluated, not augmented."""

    def split_images(self, split: str) -> Dataset | None:
        """The images of a split as they are evaluated; None if there is no such split. ``train`` gives those that are used."""
        if split not in self.source.splits:
            return None
        return self.eval_images(self.train_samples if split == "train" else self.source.splits[split])

    def eval_sampler(self, samples: Samples) -> EvalSampler:
        """This process's share of some images.

        Raises:
            UserError: There are fewer images than processes, which Lightning does not allow.
        """
        if 0 < len(samples) < self._world_size:
            raise UserError(
                f"{len(samples)} image(s) cannot be shared among {self._world_size} processes: evaluate or predict on fewer "
                f"devices (trainer.devices={len(samples)} or 1)."
            )
        return EvalSampler(len(samples), rank=self._rank, world_size=self._world_size)

    def eval_loader(self, samples: Samples) -> DataLoader:
        """A loader of images as they are evaluated, each once over all processes."""
        sampler = self.eval_sampler(samples)
        return make_loader(
            self.eval_images(samples), sampler, batch_size=self.eval_batch_size, num_workers=self.num_workers
        )


def check_counts(**settings: int | None) -> None:
    """Checks settings, by name, that must be at least 1.

    Raises:
        UserError: One is not.
    """
    for name, value in settings.items():
        if value is not None and value < 1:
            raise UserError(f"{name}={value}, but it must be at least 1.")


if TYPE_CHECKING:

    def _meets_the_contract(data: ImageData) -> TrainingData:
        """mypy checks here that every datamodule of this project is :class:`TrainingData`."""
        return data
