"""Pre-training with any objective."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_splitmask.distributed import alone, broadcast_from_zero
from lit_splitmask.errors import UserError
from lit_splitmask.models.vit import ViT, ViTConfig
from lit_splitmask.modules.base import TrainModule
from lit_splitmask.objectives.base import Objective
from lit_splitmask.objectives.splitmask import SplitMask
from lit_splitmask.optim import OptimConfig
from lit_splitmask.seeding import derive_seed, generator_for
from lit_splitmask.tokenizers.base import Codebook, Tokenizer, WordStatistics
from lit_splitmask.views import token_view

log = logging.getLogger(__name__)

STATISTICS_IMAGES = 1024
"""Number of training crops on which the words are counted at start-up."""

PATCHES_PER_WORD = 39
"""Least number of patches per word for k-means, as faiss advises; if one crop per image gives fewer, more crops are taken."""

MAX_CROPS_PER_IMAGE = 8
"""Largest number of crops per image for k-means."""


class Pretrain(TrainModule):
    """Trains a backbone with a pre-training objective.

    Args:
        objective: Makes the objective from the backbone, such as the class :class:`SplitMask`.
        backbone: Shape of the ViT.
        optim: Optimizer and schedule.
        seed: Seed of the initial weights and of everything random in the training steps.

    Raises:
        UserError: The shape of the backbone is not valid, or the objective does not accept it or its own arguments.

    Example:
        >>> shape = ViTConfig(embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32)
        >>> module = Pretrain(backbone=shape)
        >>> module.features(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 32])
    """

    def __init__(
        self,
        objective: Callable[[ViT], Objective] = SplitMask,
        *,
        backbone: ViTConfig = ViTConfig(drop_path=0.1),  # noqa: B008 (frozen)
        optim: OptimConfig = OptimConfig(),  # noqa: B008 (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__(optim, seed, backbone.in_chans)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initial weights"))
            self.objective = objective(ViT(backbone))
        self.word_statistics: WordStatistics | None = None

    @property
    def vit(self) -> ViT:
        return self.objective.kept

    def setup(self, stage: str) -> None:
        super().setup(stage)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "head"))
            self.objective.attach(self.data.num_classes or 0, self.data.num_train_images or 0)
        expected = self.data.image_size
        if expected is not None and expected != self.vit.config.image_size:
            raise UserError(
                f"The datamodule gives images of {expected} px, but the backbone was built for "
                f"{self.vit.config.image_size} px: set both to the same image_size."
            )

        if stage == "fit":
            self._check_batches()

    def _check_batches(self) -> None:
        """Checks that the datamodule gives the crops, labels and batches that the objective needs.

        Raises:
            UserError: It does not.
        """
        name = type(self.objective).__name__
        self.check_crops(self.data.crop_sizes)
        if self.objective.needs_labels and self.data.all_labelled is False:
            raise UserError(f"{name} needs a label for every image, but some have none: leave data.pool out.")
        batch = self.data.images_per_step
        if batch is None:
            return
        batch //= self.trainer.accumulate_grad_batches
        per_process = batch // self.trainer.world_size
        if batch < self.objective.least_batch or per_process < self.objective.least_per_process:
            raise UserError(
                f"{name} compares each image with others, so a batch needs at least {self.objective.least_batch} images, and "
                f"each process at least {self.objective.least_per_process}; data.batch_size with accumulated gradients gives "
                f"{batch} and {per_process}: raise data.batch_size."
            )
        self._check_number_of_images(name, batch)

    def check_crops(self, sizes: Sequence[int] | None) -> None:
        """Checks the crops that an augmentation gives.

        Args:
            sizes: Side of each crop of an image, in pixels; None if unknown.

        Raises:
            UserError: The objective needs more crops, or a crop cannot be cut into patches.
        """
        name, patch = type(self.objective).__name__, self.vit.config.patch_size
        if sizes is not None and len(sizes) < self.objective.num_crops:
            raise UserError(
                f"{name} compares {self.objective.num_crops} crops of each image, but the augmentation gives {len(sizes)}: use "
                "data.augment=MultiCrop, as the recipes of this method do."
            )
        odd = [size for size in sizes or [] if size % patch]
        if odd:
            raise UserError(
                f"Crops of {odd[0]} px cannot be cut into patches of {patch} px: choose a multiple of {patch}."
            )

    def _check_number_of_images(self, name: str, batch: int) -> None:
        num_images = self.data.num_train_images
        if num_images is None or num_images >= batch or self.objective.least_batch == 1:
            return
        if num_images < self.objective.least_batch:
            raise UserError(
                f"{name} compares each image with others, so it needs at least {self.objective.least_batch} training images, but "
                f"there is {num_images}: add images, or use a method that looks at single images, such as MAE."
            )
        log.warning(
            "A batch of %d is more than the %d training images, so %s uses an image as its own negative: lower "
            "data.batch_size.",
            batch,
            num_images,
            name,
        )

    def views(self, images: Tensor, *more: Tensor) -> dict[str, Any]:
        """The objective's inputs from uint8 crops (B, C, H, W); ``more`` are other crops of the same images."""
        views: dict[str, Any] = {"images": self.normalise(images)}
        if self.objective.tokenizer_to_fit is not None:
            views["token_view"] = token_view(images)
        if self.objective.num_crops > 1:
            views["crops"] = [views["images"], *(self.normalise(crop) for crop in more)]
        return views

    def _views_of(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        more = [batch[name] for name in batch if name.startswith("image_")]
        known = {"labels": "label", "index": "index"}
        return {
            **self.views(batch["image"], *more),
            **{view: batch[name] for view, name in known.items() if name in batch},
        }

    def on_fit_start(self) -> None:
        """Fits the tokenizer if needed (process zero does, and sends it to the others), and measures its words."""
        tokenizer = self.objective.tokenizer_to_fit
        if tokenizer is None:
            return
        if isinstance(tokenizer, Codebook) and tokenizer.needs_fitting and self.trainer.ckpt_path is None:
            if self.trainer.is_global_zero:
                num_crops = self._crops_to_fit(tokenizer.vocabulary)
                tokenizer.fit(self._token_views(num_crops), num_crops, self.seed)
            broadcast_from_zero(tokenizer.codebook)
            tokenizer.fitted.fill_(True)
        is_ready = not (isinstance(tokenizer, Codebook) and tokenizer.needs_fitting)
        if is_ready and self.trainer.is_global_zero:
            self._measure_words(tokenizer)

    def _measure_words(self, tokenizer: Tokenizer) -> None:
        views = self._token_views(min(STATISTICS_IMAGES, self._num_train_images()))
        words = torch.cat([tokenizer(view).flatten() for view in views])
        self.word_statistics = statistics = WordStatistics.of(words, tokenizer.vocabulary)
        self.print(
            f"Visual words: {statistics}; predicting their frequencies alone would give a loss of {statistics.entropy:.2f}."
        )
        if statistics.nearly_constant:
            log.warning(
                "The visual words are nearly constant (%s), so there is little to learn from them. Use centred pixels "
                "(tokenizer.init_args.pixels=centred, signed=true for random projection), random patches or k-means.",
                statistics,
            )
        if self.logger is not None:
            self.logger.log_metrics(
                {
                    "words/used": float(statistics.words_used),
                    "words/perplexity": statistics.perplexity,
                    "words/top_share": statistics.top_share,
                    "words/entropy": statistics.entropy,
                },
                step=self.trainer.global_step,
            )

    def _num_train_images(self) -> int:
        known = self.data.num_train_images
        return len(self._fitting_loader(1).dataset) if known is None else known

    def _crops_to_fit(self, vocabulary: int) -> int:
        """Number of training crops to fit a tokenizer on: one per image, or several if the images are few."""
        num_images = self._num_train_images()
        if self.data.fitting_dataloader is None:
            return num_images
        enough = math.ceil(PATCHES_PER_WORD * vocabulary / (num_images * self.vit.num_patches))
        return num_images * min(enough, MAX_CROPS_PER_IMAGE)

    def _fitting_loader(self, num_crops: int) -> Any:
        """A loader of training crops for one process, independent of the training loader."""
        if self.data.fitting_dataloader is not None:
            return self.data.fitting_dataloader(num_crops)
        self.trainer.fit_loop.setup_data()
        return self.trainer.train_dataloader

    def _token_views(self, num_crops: int) -> Iterator[Tensor]:
        """Half-size views of ``num_crops`` training crops, in batches on this module's device."""
        seen = 0
        for batch in self._fitting_loader(num_crops):
            images = batch["image"][: num_crops - seen].to(self.device)
            yield token_view(images)
            seen += len(images)
            if seen >= num_crops:
                return

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        generator = generator_for(self.seed, "objective", *self.step_key(batch_idx))
        self.objective.progress = self.trainer.global_step / self.trainer.estimated_stepping_batches
        losses = self.objective(self._views_of(batch), generator)
        self.log_training(losses, len(batch["image"]))
        return losses["loss"]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.objective.before_update()
        super().on_before_optimizer_step(optimizer)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """An optimizer step and what follows it, in one hook, so that no checkpoint is written between them."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        steps_done = self.trainer.global_step + 1  # Lightning counts this step afterwards
        self.objective.after_step(steps_done / self.trainer.estimated_stepping_batches)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Logs the losses on held-out images, with the same masks each time; nothing for objectives of several crops."""
        if self.objective.num_crops > 1:
            return
        with alone():
            losses = self.objective(self._views_of(batch), generator_for(self.seed, "held-out masks", batch_idx))
        values = {f"val/{k}": v for k, v in losses.items()}
        self.log_dict(values, sync_dist=self.trainer.world_size > 1, batch_size=len(batch["image"]))
