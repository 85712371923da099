"""Hosting a pre-training objective: what :class:`Pretrain` and joint training share."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence, Sized
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lit_splitmask.distributed import after_process_zero
from lit_splitmask.errors import UserError
from lit_splitmask.modules.base import TrainModule
from lit_splitmask.objectives.base import Objective
from lit_splitmask.seeding import derive_seed
from lit_splitmask.tokenizers.base import Codebook, Tokenizer, WordStatistics
from lit_splitmask.tokenizers.kept import fitting_settings, keep, load_kept
from lit_splitmask.views import token_view

log = logging.getLogger(__name__)

STATISTICS_IMAGES = 1024
"""Number of training crops on which the words are counted at start-up."""

MAX_CROPS_PER_IMAGE = 8
"""Largest number of crops per image to fit a tokenizer on."""


class TrainsObjective(TrainModule):
    """A module that trains a pre-training objective, alone or with another loss.

    Attributes:
        word_statistics: How often the tokenizer's words occur, once a training has begun; None without a tokenizer.
    """

    word_statistics: WordStatistics | None = None

    @property
    def hosted(self) -> Objective | None:
        """The objective, or None if there is none."""
        raise NotImplementedError

    @property
    def _objective(self) -> Objective:
        assert self.hosted is not None
        return self.hosted

    def attach_objective(self) -> None:
        """Tells the objective what is known about the data; its new layers have their own randomness."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "head"))
            self._objective.attach(self.data.num_classes or 0, self.data.num_train_images or 0)

    def check_objective(self) -> None:
        """Checks that the datamodule gives the crops, labels and batches that the objective needs.

        Raises:
            UserError: It does not.
        """
        name = type(self._objective).__name__
        self.check_crops(self.data.crop_sizes)
        if self._objective.needs_labels and self.data.all_labelled is False:
            raise UserError(
                f"{name} needs a label for every image, but some have none: leave out data.pool and data.unlabelled_share."
            )
        batch = self.data.images_per_step
        if batch is None:
            return
        batch //= self.trainer.accumulate_grad_batches
        per_process = batch // self.trainer.world_size
        if batch < self._objective.least_batch or per_process < self._objective.least_per_process:
            raise UserError(
                f"{name} compares each image with others, so a batch needs at least {self._objective.least_batch} images, and "
                f"each process at least {self._objective.least_per_process}; data.batch_size with accumulated gradients gives "
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
        name, patch = type(self._objective).__name__, self.vit.config.patch_size
        if sizes is not None and len(sizes) < self._objective.num_crops:
            raise UserError(
                f"{name} compares {self._objective.num_crops} crops of each image, but the augmentation gives {len(sizes)}: use "
                "data.augment=MultiCrop, as the recipes of this method do."
            )
        odd = [size for size in sizes or [] if size % patch]
        if odd:
            raise UserError(
                f"Crops of {odd[0]} px cannot be cut into patches of {patch} px: choose a multiple of {patch}."
            )

    def _check_number_of_images(self, name: str, batch: int) -> None:
        num_images = self.data.num_train_images
        if num_images is None or num_images >= batch or self._objective.least_batch == 1:
            return
        if num_images < self._objective.least_batch:
            raise UserError(
                f"{name} compares each image with others, so it needs at least {self._objective.least_batch} training images, "
                f"but there is {num_images}: add images, or use a method that looks at single images, such as MAE."
            )
        log.warning(
            "A batch of %d is more than the %d training images, so %s uses an image as its own negative: lower "
            "data.batch_size.",
            batch,
            num_images,
            name,
        )

    def views(self, images: Tensor, *more: Tensor) -> dict[str, Any]:
        """The objective's inputs from uint8 crops (B, C, H, W); ``more`` are other crops, or the tokenizer's view."""
        views: dict[str, Any] = {"images": self.normalise(images)}
        if self._objective.tokenizer_to_fit is not None:
            views["token_view"] = token_view(images, *more)
        if self._objective.num_crops > 1:
            views["crops"] = [views["images"], *(self.normalise(crop) for crop in more)]
        return views

    def views_of(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """The objective's inputs from a batch of any split."""
        more = [batch[name] for name in batch if name.startswith("image_")]
        labels = {"labels": batch["label"]} if "label" in batch else {}
        return self.views(batch["image"], *more) | labels

    def training_views(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """The objective's inputs from a training batch, with the index of each image; other splits number their own images."""
        index = {"index": batch["index"]} if "index" in batch else {}
        return self.views_of(batch) | index

    def on_fit_start(self) -> None:
        """Fits the tokenizer if needed (process zero does, and sends it to the others), and measures its words."""
        tokenizer = None if self.hosted is None else self.hosted.tokenizer_to_fit
        if tokenizer is None:
            return
        if isinstance(tokenizer, Codebook) and tokenizer.needs_fitting and self.trainer.ckpt_path is None:
            after_process_zero(partial(self._fit_words, tokenizer), tokenizer.codebook)
            tokenizer.fitted.fill_(True)
        is_ready = not (isinstance(tokenizer, Codebook) and tokenizer.needs_fitting)
        if is_ready and self.trainer.is_global_zero:
            self._measure_words(tokenizer)

    def _fit_words(self, tokenizer: Codebook) -> None:
        """Fits the tokenizer, or takes what an earlier run fitted on the same data with the same settings."""
        num_crops = self._crops_to_fit(tokenizer)
        settings = fitting_settings(tokenizer, num_crops, self.seed)
        file = self.data.fitted_file
        path = file(settings) if file is not None and settings is not None else None
        if path is not None and load_kept(tokenizer, path):
            return
        tokenizer.fit(self._token_views(num_crops), num_crops, self.seed)
        if path is not None:
            keep(tokenizer, path)

    def _measure_words(self, tokenizer: Tokenizer) -> None:
        num_images = self._num_train_images()
        views = self._token_views(STATISTICS_IMAGES if num_images is None else min(STATISTICS_IMAGES, num_images))
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
        logged = {
            "words/used": float(statistics.words_used),
            "words/perplexity": statistics.perplexity,
            "words/top_share": statistics.top_share,
            "words/entropy": statistics.entropy,
        }
        for logger in self.trainer.loggers:
            logger.log_metrics(logged, step=self.trainer.global_step)

    def _num_train_images(self) -> int | None:
        """Number of training images; None if nobody knows it, as with an IterableDataset."""
        known = self.data.num_train_images
        if known is not None:
            return known
        dataset = getattr(self._fitting_loader(1), "dataset", None)
        return len(dataset) if isinstance(dataset, Sized) else None

    def _crops_to_fit(self, tokenizer: Codebook) -> int:
        """Number of training crops to fit a tokenizer on: one per image, or several if these give too few patches.

        Raises:
            UserError: The number of training images is unknown.
        """
        num_patches, num_images = tokenizer.patches_to_fit, self._num_train_images()
        if num_images is None:
            raise UserError(
                f"{type(tokenizer).__name__} samples its words among all training images, but how many there are is unknown: "
                "give the dataset a __len__, the datamodule a num_train_images, or the tokenizer a codebook_file."
            )
        if self.data.fitting_dataloader is None:
            return num_images
        enough = math.ceil(num_patches / (num_images * self.vit.num_patches))
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
            views = [batch[name] for name in ("image", "image_1") if name in batch]
            images, *more = (view[: num_crops - seen].to(self.device) for view in views)
            yield token_view(images, *more)
            seen += len(images)
            if seen >= num_crops:
                return

    def objective_losses(self, views: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """The objective's losses at this step of the run."""
        self._objective.progress = self.trainer.global_step / self.trainer.estimated_stepping_batches
        losses: dict[str, Tensor] = self._objective(views, generator)
        return losses

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.hosted is not None:
            self.hosted.before_update()
        super().on_before_optimizer_step(optimizer)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """An optimizer step and what follows it, in one hook, so that no checkpoint is written between them."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.hosted is not None:
            steps_done = self.trainer.global_step + 1  # Lightning counts this step afterwards
            self.hosted.after_step(steps_done / self.trainer.estimated_stepping_batches)
