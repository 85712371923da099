"""Batches of images with labels and of images without, for joint training."""

import logging
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.data import DataLoader

from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.datamodules.settings import ImageSettings, Settings
from lit_splitmask.errors import UserError
from lit_splitmask.images.split import nested_share
from lit_splitmask.loading.loader import make_loader
from lit_splitmask.loading.sampler import MixtureSampler
from lit_splitmask.loading.samples import Samples

log = logging.getLogger(__name__)


class JointData(ImageData):
    """Images without labels beside those with labels, in fixed numbers in each batch.

    Images without labels are the training images beyond ``label_share``, whose labels are hidden; those that never had a label;
    and those of a pool. Their ``label`` is -1, and their ``index`` follows those of the images with labels. A budget then counts
    the images with labels: a pass is a pass over these, and ``batch_size`` is the total of both kinds.

    Args:
        image_size: Side of the crops, in pixels.
        unlabelled_share: Share of each batch that is images without labels, in [0, 1). A process has at least one image of each
            kind in a batch. 0 does not tell the kinds apart. Without images of the second kind, all images have labels.
        **settings: Settings of :class:`ImageData`.

    Raises:
        UserError: ``unlabelled_share`` is outside [0, 1), or a setting of :class:`ImageData` is out of range.
    """

    def __init__(
        self, *, image_size: int = 224, unlabelled_share: float = 0.0, **settings: Settings[ImageSettings]
    ) -> None:
        super().__init__(image_size=image_size, **settings)
        if not 0 <= unlabelled_share < 1:
            raise UserError(
                f"unlabelled_share={unlabelled_share:g} must be at least 0 and less than 1: 0.5 makes half of each batch images "
                "without labels."
            )
        self.unlabelled_share = unlabelled_share
        self._num_labelled: int | None = None

    @property
    def _mixes(self) -> bool:
        """Whether there are images of both kinds."""
        return self._num_labelled is not None and self._num_labelled < len(self.train_samples)

    def setup(self, stage: str | None = None) -> None:
        """Opens the images and converts the budget to steps; for ``fit``, sets the trainer's ``max_steps``.

        Raises:
            UserError: As in :class:`ImageData`; no training image has a label, although there should be images of both kinds; or
                a process has fewer than two images in a batch.
        """
        super().setup(stage)
        if stage not in (None, "fit") or not self.unlabelled_share:
            return
        if not self._mixes:
            log.warning(
                "unlabelled_share=%g, but all %d training images have labels, so all images in a batch have labels: add images "
                "without labels (data.pool), or leave it out.",
                self.unlabelled_share,
                len(self.train_samples),
            )
            return
        if self._micro_batch < 2:
            raise UserError(
                f"unlabelled_share={self.unlabelled_share:g} needs a batch with images of both kinds, but each process has one "
                f"image at a time: raise batch_size above {self.batch_size}, or accumulate fewer batches."
            )
        num_labelled, without = self.pass_and_step()
        rank_zero_only(log.info)(
            f"Each step of {self.batch_size:,} has {without:,} of the {num_labelled:,} images with a label, and "
            f"{self.batch_size - without:,} of the {len(self.train_samples) - num_labelled:,} without."
        )

    def choose_training(self, everything: Samples) -> Samples:
        """The images with labels that ``label_share`` chooses, followed by all others, whose labels are hidden.

        Raises:
            UserError: None has a label.
        """
        self._num_labelled = None
        if not self.unlabelled_share or not len(everything):
            return super().choose_training(everything)
        labels = everything.labels
        chosen = [i for i in nested_share(labels.tolist(), self.label_share, self.seed) if labels[i] >= 0]
        if not chosen:
            raise UserError(
                f"unlabelled_share={self.unlabelled_share:g} adds images without labels to those with labels, but none "
                f"of the {len(everything):,} training images has a label: give some images labels, or leave unlabelled_share out."
            )
        others = np.setdiff1d(np.arange(len(everything)), chosen).tolist()
        self._num_labelled = len(chosen)
        return everything.subset([*chosen, *others]).relabelled([*labels[chosen].tolist(), *[-1] * len(others)])

    @property
    def num_train_images(self) -> int:
        """Number of training images that are used, with labels and without."""
        return len(self.train_samples) if self._mixes else super().num_train_images

    @property
    def _micro_batch(self) -> int:
        """Images in a micro-batch of one process."""
        return self.batch_size // (self._world_size * self._accumulate)

    def _unlabelled_in(self, batch: int) -> int:
        """Number of images without labels in a batch of a process: the share, rounded, but at least one of each kind."""
        return min(max(1, round(self.unlabelled_share * batch)), batch - 1)

    def pass_and_step(self) -> tuple[int, int]:
        """Number of images in a pass, and in a step, as the budget counts them: those with labels."""
        if self._num_labelled is None or not self._mixes:
            return super().pass_and_step()
        labelled = self._micro_batch - self._unlabelled_in(self._micro_batch)
        return self._num_labelled, max(1, labelled * self._world_size * self._accumulate)

    def train_dataloader(self) -> DataLoader:
        """One trainer epoch of augmented images, starting at the trainer's global step."""
        if not self._mixes:
            return super().train_dataloader()
        return self._mixture(
            self.batch_size,
            self._unlabelled_in(self._micro_batch),
            steps_per_epoch=self.steps_per_epoch,
            global_step=self._global_step,
            rank=self._rank,
            world_size=self._world_size,
            accumulate=self._accumulate,
        )

    def fitting_dataloader(self, num_crops: int | None = None) -> DataLoader:
        """Augmented training images for this process alone, outside training: to fit a tokenizer, or to time steps.

        Args:
            num_crops: Smallest number of crops, from several passes over all images if necessary; None for about one crop of each
                image, in batches that are mixed as in training.
        """
        if num_crops is not None or not self._mixes:
            return super().fitting_dataloader(num_crops)
        size = min(self._micro_batch, 256)
        steps = -(-len(self.train_samples) // size)
        return self._mixture(size, self._unlabelled_in(size), steps_per_epoch=steps, global_step=lambda: 0)

    def _mixture(self, batch_size: int, unlabelled: int, **settings: Any) -> DataLoader:
        """A loader of batches of both kinds; ``settings`` are those of :class:`MixtureSampler`."""
        assert self._num_labelled is not None
        num_others = len(self.train_samples) - self._num_labelled
        sampler = MixtureSampler(
            self._num_labelled,
            num_others,
            batch_size,
            unlabelled=unlabelled,
            seed=self.seed,
            repeats=self.repeats,
            **settings,
        )
        return make_loader(
            self.train_images(), sampler, batch_size=sampler.loader_batch_size, num_workers=self.num_workers
        )
