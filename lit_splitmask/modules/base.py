"""Shared by pre-training and fine-tuning: optimizer, pixel statistics, keyed randomness, stop at a loss of NaN."""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_splitmask.allocator import keep_freed_memory
from lit_splitmask.checkpoints import FORMAT, Weights, describe
from lit_splitmask.contract import TrainingData, training_data
from lit_splitmask.distributed import mean_over_processes
from lit_splitmask.errors import UserError
from lit_splitmask.images.window import Window, parse_window, show
from lit_splitmask.models.vit import ViT, use_fused_attention
from lit_splitmask.optim import OptimConfig, batch_scale, build_optimizer, half_cosine
from lit_splitmask.seeding import derive_seed
from lit_splitmask.views import INTERPOLATION, default_statistics, network_view

log = logging.getLogger(__name__)

NETWORK = f"{FORMAT}_network"
"""Key of a Lightning checkpoint's entry from which ``load_from_checkpoint`` makes what only a datamodule knew."""


class TrainModule(LightningModule):
    """A module around a ViT, trained with AdamW and the schedule of ``optim``.

    Batches are dicts with ``image`` (B, C, H, W) uint8 and, if there are labels, ``label`` (B,) int64.

    Args:
        optim: Optimizer and schedule.
        seed: Seed of everything random in a training step, together with the step's number and the process's rank.
        in_chans: Input channels, for the pixel statistics.

    Attributes:
        pixel_window: The values of images of more than 8 bits that became black and white, of the training images or of weights
            that were loaded; None if none is known. A datamodule of this project reads images with it.
        takes_numbers: Whether ``label`` may be (B,) float; a datamodule of numbers gives others its images without labels.
    """

    takes_numbers = False

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, optim: OptimConfig, seed: int, in_chans: int) -> None:
        super().__init__()
        self.optim, self.seed, self.in_chans = optim, seed, in_chans
        self.has_statistics = False
        self.pixel_window: Window | None = None
        self.crop_ratio: float | None = None
        mean, std = default_statistics(in_chans)
        self.register_buffer("pixel_mean", torch.tensor(mean))
        self.register_buffer("pixel_std", torch.tensor(std))

    @property
    def vit(self) -> ViT:
        """The backbone."""
        raise NotImplementedError

    @property
    def uses_unlabelled(self) -> bool:
        """Whether training uses the images without labels that a datamodule puts beside those with labels."""
        return False

    def exported(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What an exported file holds in addition to the backbone: tensors by name, and metadata as JSON values."""
        return {}, {}

    def preprocessing(self) -> dict[str, Any]:
        """How images become the network's input, as JSON values: mean and deviation per channel, the window, the centre crop."""
        window = {} if self.pixel_window is None else {"pixel_window": list(self.pixel_window)}
        crop = {} if self.crop_ratio is None else {"crop_ratio": self.crop_ratio, "interpolation": INTERPOLATION}
        return {"pixel_mean": self.pixel_mean.tolist(), "pixel_std": self.pixel_std.tolist(), **window, **crop}

    def take_statistics(self, weights: Weights) -> None:
        """Takes the pixel statistics and the window from a file of weights."""
        info = weights.info
        if {"pixel_mean", "pixel_std"} <= info.keys():
            self.set_statistics(info["pixel_mean"], info["pixel_std"])
        if "pixel_window" in info:
            low, high = info["pixel_window"]
            self.pixel_window = float(low), float(high)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores which part of the module is the backbone, so that the checkpoint can serve as weights."""
        backbone = next(name for name, module in self.named_modules() if module is self.vit)
        checkpoint[FORMAT] = {"prefix": f"{backbone}.", **describe(self.vit), **self.preprocessing()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the window of a checkpoint, with which training continues; evaluation reports images that are read with another.

        Raises:
            UserError: The window is not one, or a training that continues reads the images with another.
        """
        window = parse_window((checkpoint.get(FORMAT) or {}).get("pixel_window"))
        if self._trainer is not None:
            if self.trainer.state.fn == TrainerFn.FITTING:
                self._check_resumed_window(window)
            self._compare_window(window)
        else:  # load_from_checkpoint: the statistics come with the tensors
            self.has_statistics = True
            self.crop_ratio = (checkpoint.get(FORMAT) or {}).get("crop_ratio", self.crop_ratio)
        self.pixel_window = window or self.pixel_window

    def configure_model(self) -> None:
        """Chooses the attention and the memory allocation that are faster on the trainer's device, if there is a trainer."""
        if self._trainer is None:  # as in load_from_checkpoint
            return
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        use_fused_attention(self, not on_cpu)
        if on_cpu:
            keep_freed_memory()

    @property
    def datamodule(self) -> Any:
        """The trainer's datamodule, or None."""
        return getattr(self._trainer, "datamodule", None)

    @property
    def data(self) -> TrainingData:
        """The trainer's datamodule by the contract; what it does not offer is None or empty."""
        return training_data(self.datamodule)

    @property
    def images_per_step(self) -> int:
        """Images per optimizer step, over all processes and accumulated batches.

        Raises:
            UserError: Neither the datamodule nor the training loader has a batch size.
        """
        if self.data.images_per_step is not None:
            return self.data.images_per_step
        self.trainer.fit_loop.setup_data()  # with the trainer's max_steps, nothing has requested the loader yet
        loader = self.trainer.train_dataloader
        batch_size = getattr(loader, "batch_size", None)
        if batch_size is None:  # a batch_sampler makes the batches
            batch_size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
        if batch_size is None:
            raise UserError(
                f"The batch size of the training loader, of class {type(loader).__name__}, is unknown: use a DataLoader with "
                "batch_size, or a datamodule with images_per_step."
            )
        return int(batch_size) * self.trainer.world_size * self.trainer.accumulate_grad_batches

    def setup(self, stage: str) -> None:
        """Takes the crop of evaluation of the datamodule, and its pixel statistics unless loaded weights have set them.

        Raises:
            UserError: The images have a different number of channels than the network, or the datamodule mixes images without
                labels into the batches of a training that does not use them.
        """
        if stage == "fit" and self.data.unlabelled_share and not self.uses_unlabelled:
            raise UserError(
                f"data.unlabelled_share={self.data.unlabelled_share:g} adds images without labels to the batches, "
                "which only fine-tuning with an auxiliary objective uses: leave it out, or give finetune --auxiliary CLASS."
            )
        channels = self.data.channels
        if channels is not None and channels != self.in_chans:
            raise UserError(
                f"The datamodule gives images of {channels} channel(s), but the network takes {self.in_chans}: set "
                "data.channels and the backbone's in_chans to the same number."
            )
        if stage == "fit":
            self.crop_ratio = self.data.crop_ratio
        mean, std = self.data.pixel_mean, self.data.pixel_std
        if stage == "fit" and mean is not None and std is not None and not self.has_statistics:
            self.set_statistics(mean, std)
        self._take_window(stage)

    def _take_window(self, stage: str) -> None:
        """Takes the window of the images that it trains on."""
        window = self.data.pixel_window
        if window is not None:
            self._compare_window(self.pixel_window)
            if stage == "fit":
                self.pixel_window = window

    def _compare_window(self, trained: Window | None) -> None:
        """Reports images that are read with another window than that of the weights."""
        window = self.data.pixel_window
        if window is not None and trained is not None and window != trained:
            log.warning(
                "The images are read with the window %s, but the weights were trained with %s: --data.window=%s sets theirs.",
                show(window),
                show(trained),
                show(trained),
            )

    def _check_resumed_window(self, trained: Window | None) -> None:
        window = self.data.pixel_window
        if window is None or window == trained:
            return
        if trained is None:
            had, way = "no window", "leave data.window out, or start a new run"
        else:
            had, way = f"the window {show(trained)}", f"give --data.window={show(trained)}, or leave it out"
        raise UserError(
            f"The run to resume read its images with {had}, and now they are read with {show(window)}: {way}."
        )

    def set_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Sets the mean and standard deviation per channel that normalise images, of pixels in [0, 1]."""
        self.pixel_mean = self.pixel_mean.new_tensor(mean)
        self.pixel_std = self.pixel_std.new_tensor(std)
        self.has_statistics = True

    def normalise(self, images: Tensor) -> Tensor:
        """The network's input from a batch of uint8 crops: (B, C, H, W) -> (B, C, H, W) float."""
        return network_view(images, self.pixel_mean, self.pixel_std)

    def features(self, images: Tensor) -> Tensor:
        """One descriptor per image, the mean of its patch features: (B, C, H, W) uint8 -> (B, D)."""
        return self.vit.features(self.normalise(images)).mean(dim=1)

    def configure_optimizers(self) -> Any:
        total_steps = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = build_optimizer(
            self.named_parameters(),
            self.optim,
            batch_size=self.images_per_step,
            total_steps=total_steps,
            depth=len(self.vit.blocks),
            fused=self._can_fuse(),
        )
        if self.trainer.is_global_zero:
            scale = batch_scale(self.optim, self.images_per_step)
            self.print(
                f"Learning rate {self.optim.lr * scale:.2e} at {self.images_per_step} images per step"
                + (
                    f" ({self.optim.lr:g} × √({self.images_per_step}/{self.optim.reference_batch}))"
                    if scale != 1
                    else ""
                )
                + f", {total_steps:,} steps, {round(self.optim.warmup * total_steps):,} of them warm-up."
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _can_fuse(self) -> bool:
        """Whether device, strategy and precision allow torch's fused optimizer, which unscales float16 gradients itself."""
        plain = isinstance(self.trainer.strategy, SingleDeviceStrategy | DDPStrategy)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return plain and scaler is None and self.device.type in ("cpu", "cuda")

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as the trainer says; Lightning refuses for any fused optimizer, although no gradient scaler is used."""
        if not gradient_clip_val or not optimizer.defaults.get("fused"):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(parameters, gradient_clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def step_key(self, batch_idx: int) -> tuple[int, int]:
        """The key of a step's randomness: the optimizer step and the micro-batch in it, both 0-based."""
        return self.trainer.global_step, batch_idx % self.trainer.accumulate_grad_batches

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds drop path and mixing at each step, so that probes and resumes cannot change a run."""
        seed = derive_seed(self.seed, "step", *self.step_key(batch_idx), self.trainer.global_rank)
        if self.device.type == "cpu":
            # torch.manual_seed also queues a call, with a formatted stack, for each kind of accelerator that is not in use.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        # After a resume from the end of an epoch Lightning logs one step too late: the log's step must be the optimizer's.
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.trainer.global_step

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Moves the weight decay if the recipe has a ``weight_decay_end``."""
        start, end = self.optim.weight_decay, self.optim.weight_decay_end
        if end is None:
            return
        progress = self.trainer.global_step / self.trainer.estimated_stepping_batches
        for group in optimizer.param_groups:
            if group["weight_decay"] > 0:
                group["weight_decay"] = half_cosine(start, end, progress)

    def log_training(
        self,
        losses: Mapping[str, Tensor],
        num_images: int,
        *,
        shown: Collection[str] | None = None,
        checked: str = "loss",
    ) -> None:
        """Logs a step's losses as means over all processes, and stops the run, on all of them, if the loss is not finite.

        Args:
            losses: Scalars by name; logged as ``train/<name>``.
            num_images: Images of this process.
            shown: Names on the progress bar; by default all.
            checked: Name of the one that must be finite.

        Raises:
            UserError: The loss is not finite on some process.
        """
        means = mean_over_processes(losses)
        self.check_finite(means[checked])
        for name, mean in means.items():
            self.log(f"train/{name}", mean, prog_bar=shown is None or name in shown, batch_size=num_images)

    def log_held_out(self, losses: Mapping[str, Tensor], num_images: int) -> None:
        """Logs losses of a batch as ``val/<name>``, the means over the images of all batches and processes.

        Lightning's mean over processes rounds their images down to a multiple of their number; a multiple is not rounded.
        """
        processes = self.trainer.world_size
        values = {f"val/{name}": loss for name, loss in losses.items()}
        self.log_dict(values, sync_dist=processes > 1, batch_size=num_images * processes)

    def check_finite(self, loss: Tensor) -> None:
        """Stops the run at a loss that is not finite, before it reaches the weights.

        Raises:
            UserError: The loss is not finite.
        """
        if torch.isfinite(loss):
            return
        checkpoints = [
            path
            for callback in self.trainer.checkpoint_callbacks
            for path in (getattr(callback, "last_model_path", ""), getattr(callback, "best_model_path", ""))
        ]
        kept, then = "no checkpoint had been written", "start again"
        if any(path and os.path.isfile(path) for path in checkpoints):
            kept, then = "its last checkpoint is intact", "resume, or start again"
        raise UserError(
            f"The training loss became {loss.item()} at step {self.trainer.global_step}, so the run was stopped; {kept}. Lower "
            f"the learning rate (optim.lr is {self.optim.lr:g}), lengthen the warm-up (optim.warmup is {self.optim.warmup:g} of "
            f"the steps), set trainer.gradient_clip_val to 1.0 or less, or train with trainer.precision=32-true; then {then}."
        )
