"""The base of datamodules that crop images to squares: all except segmentation and detection."""

import logging

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.data import DataLoader, Dataset

from lit_splitmask.augment.base import Augment
from lit_splitmask.augment.evaluate import EvalTransform
from lit_splitmask.augment.pretrain import PretrainAugment
from lit_splitmask.datamodules.checks import check_counts
from lit_splitmask.datamodules.joint_data import JointData
from lit_splitmask.datamodules.settings import JointSettings, Settings
from lit_splitmask.errors import UserError
from lit_splitmask.loading.crops import IndexedImages
from lit_splitmask.loading.sampler import MixtureSampler, WrapAroundSampler, class_shares
from lit_splitmask.loading.samples import Samples

log = logging.getLogger(__name__)

_MOST_EVAL_IMAGES = 256


class CropData(JointData):
    """Augmented crops for training, centre crops for evaluation.

    Args:
        image_size: Side of the crops, in pixels.
        augment: Augmentation of training images; None for :class:`PretrainAugment` with its defaults.
        crop_ratio: Share of the short side that centre crops cover.
        eval_batch_size: Images per evaluation batch of a process; None for ``batch_size``, at most 256.
        balance: How much more often training draws images of rare classes, in [0, 1]: at 0 every image equally often, at 1 every
            class, at 0.5 a class as often as the square root of its size. A pass keeps its number of images, and with it the
            budget: large classes are seen less.
        **settings: Settings of :class:`JointData` and :class:`ImageData`.

    Raises:
        UserError: ``eval_batch_size`` is less than 1, ``crop_ratio`` is outside (0, 1], ``balance`` is outside [0, 1], or a
            setting of :class:`JointData` or :class:`ImageData` is out of range.
    """

    crop_ratio: float

    def __init__(
        self,
        *,
        image_size: int = 224,
        augment: Augment | None = None,
        crop_ratio: float = 0.875,
        eval_batch_size: int | None = None,
        balance: float = 0.0,
        **settings: Settings[JointSettings],
    ) -> None:
        super().__init__(image_size=image_size, **settings)
        check_counts(eval_batch_size=eval_batch_size)
        self.eval_batch_size = eval_batch_size or min(self.batch_size, _MOST_EVAL_IMAGES)
        if not 0 < crop_ratio <= 1:
            raise UserError(f"crop_ratio={crop_ratio} must be more than 0 and at most 1; the usual value is 0.875.")
        if not 0 <= balance <= 1:
            raise UserError(
                f"balance={balance:g} must be at least 0 (images as they are) and at most 1 (every class equally often)."
            )
        self.balance = balance
        self.augment = augment or PretrainAugment()
        self.crop_ratio = crop_ratio

    def setup(self, stage: str | None = None) -> None:
        """Opens the images and converts the budget to steps; for ``fit``, sets the trainer's ``max_steps``.

        Raises:
            UserError: As in :class:`JointData`; or ``balance`` is set, but a training image has no label.
        """
        super().setup(stage)
        if not self.balance or stage not in (None, "fit"):
            return
        if self.several_labels:
            raise UserError(
                "balance draws images by their class, but here an image may have several: leave it out, or weight the classes in "
                "the loss (--model.class_weights balanced)."
            )
        if not self.class_names or (self._labels() < 0).any():
            raise UserError(
                f"balance={self.balance:g} draws images by their class, but some or all of these training images have no label: "
                "leave balance out."
            )
        shares, counts = self.class_shares, np.bincount(self._labels(), minlength=self.num_classes)
        rare = int(np.where(counts > 0, counts, counts.max() + 1).argmin())
        times = shares[rare] * counts.sum() / counts[rare]
        rank_zero_only(log.info)(
            f"balance={self.balance:g}: the rarest class, {self.class_names[rare]} ({counts[rare]:,} of {counts.sum():,} "
            f"images), is drawn {times:.3g} times as often as it occurs."
        )

    def _labels(self) -> np.ndarray:
        """The labels of the training images; with images of both kinds, of those that have one."""
        return self.train_samples.labels[: self._num_labelled]

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several labels; ``label`` is then (B, K) float32 of 0 and 1."""
        return any(s.meanings is not None and s.meanings.ndim == 2 for s in self.source.splits.values())

    @property
    def class_shares(self) -> list[float]:
        """The share of each class among the images with labels that training draws; zeros if there are none."""
        labels = self._labels()
        meanings = self.train_samples.meanings
        if meanings is not None and meanings.ndim == 2:
            shares: list[float] = meanings[labels[labels >= 0]].mean(axis=0).tolist()
            return shares
        counts = np.bincount(labels[labels >= 0], minlength=self.num_classes)
        return class_shares(counts, self.balance).tolist() if counts.any() else counts.tolist()

    def train_dataloader(self) -> DataLoader:
        """One trainer epoch of augmented images, starting at the trainer's global step."""
        loader = super().train_dataloader()
        if self.balance:
            sampler = loader.sampler.parts[0] if isinstance(loader.sampler, MixtureSampler) else loader.sampler
            assert isinstance(sampler, WrapAroundSampler)
            sampler.balance(self._labels(), self.balance)
        return loader

    @property
    def repeats(self) -> int:
        """Number of differently augmented copies of a training image in a row."""
        return self.augment.repeats

    @property
    def crop_sizes(self) -> list[int]:
        """Sides of the crops of one training image, in pixels."""
        return self.augment.sizes(self.image_size)

    def train_images(self) -> Dataset:
        """Augmented crops."""
        transform, *more = self.augment.build_all(self.image_size)
        return IndexedImages(
            self.train_samples,
            self.source.read,
            transform=transform,
            more=more,
            channels=self.channels,
            seed=self.seed,
        )

    def eval_images(self, samples: Samples) -> IndexedImages:
        """Centre crops."""
        transform = EvalTransform(self.image_size, self.crop_ratio)
        return IndexedImages(samples, self.source.read, transform=transform, channels=self.channels)
