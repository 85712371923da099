"""What pre-training and fine-tuning share: the optimizer, the pixel statistics, keyed randomness, the NaN stop."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from lit_splitmask.allocator import keep_freed_memory
from lit_splitmask.checkpoints import FORMAT, describe
from lit_splitmask.contract import TrainingData, training_data
from lit_splitmask.errors import UserError
from lit_splitmask.models.vit import ViT, use_fused_attention
from lit_splitmask.optim import OptimConfig, batch_scale, build_optimizer, half_cosine
from lit_splitmask.seeding import derive_seed
from lit_splitmask.views import default_statistics, network_view


class TrainModule(LightningModule):
    """A module around a ViT, trained by the project's one recipe.

    Batches are dicts with ``image`` (B, C, H, W) uint8 and, where there are labels, ``label`` (B,) int64.

    Args:
        optim: the recipe.
        seed: everything random in a training step follows from it, the step's number and the process's rank.
        in_chans: input channels, for the pixel statistics.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, optim: OptimConfig, seed: int, in_chans: int) -> None:
        super().__init__()
        self.optim, self.seed, self.in_chans = optim, seed, in_chans
        self.has_statistics = False
        mean, std = default_statistics(in_chans)
        self.register_buffer("pixel_mean", torch.tensor(mean))
        self.register_buffer("pixel_std", torch.tensor(std))

    @property
    def vit(self) -> ViT:
        """The backbone."""
        raise NotImplementedError

    def exported(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What an exported file holds beside the backbone: tensors by name, and facts as JSON values."""
        return {}, {}

    def about_pixels(self) -> dict[str, list[float]]:
        """The pixel statistics as JSON values."""
        return {"pixel_mean": self.pixel_mean.tolist(), "pixel_std": self.pixel_std.tolist()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Says which part of the module is the backbone, so that the checkpoint can be taken as weights."""
        place = next(name for name, module in self.named_modules() if module is self.vit)
        checkpoint[FORMAT] = {"prefix": f"{place}.", **describe(self.vit), **self.about_pixels()}

    def configure_model(self) -> None:
        """Sets what is faster on the device that the trainer uses."""
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        use_fused_attention(self, not on_cpu)
        if on_cpu:
            keep_freed_memory()

    @property
    def datamodule(self) -> Any:
        """The trainer's datamodule, or None."""
        return getattr(self.trainer, "datamodule", None)

    @property
    def data(self) -> TrainingData:
        """What is known of the trainer's datamodule."""
        return training_data(self.datamodule)

    @property
    def images_per_step(self) -> int:
        """Images that an optimizer step sees, over all processes and accumulated batches.

        Raises:
            UserError: Neither the datamodule nor the training loader says.
        """
        if self.data.images_per_step is not None:
            return self.data.images_per_step
        loader = self.trainer.train_dataloader
        batch_size = getattr(loader, "batch_size", None)
        if batch_size is None:
            raise UserError("The batch size of the training loader is unknown: use a DataLoader with batch_size set.")
        return int(batch_size) * self.trainer.world_size * self.trainer.accumulate_grad_batches

    def setup(self, stage: str) -> None:
        """Takes the pixel statistics of the datamodule, if it has any and no weights brought theirs.

        Raises:
            UserError: The images have another number of channels than the network.
        """
        channels = self.data.channels
        if channels is not None and channels != self.in_chans:
            raise UserError(
                f"The datamodule gives images of {channels} channel(s), but the network takes {self.in_chans}: set "
                "data.channels and the backbone's in_chans to the same."
            )
        mean, std = self.data.pixel_mean, self.data.pixel_std
        if stage == "fit" and mean is not None and std is not None and not self.has_statistics:
            self.set_statistics(mean, std)

    def set_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Sets the mean and standard deviation with which images are normalised, per channel, of pixels in [0, 1]."""
        self.pixel_mean = self.pixel_mean.new_tensor(mean)
        self.pixel_std = self.pixel_std.new_tensor(std)
        self.has_statistics = True

    def normalise(self, images: Tensor) -> Tensor:
        """The network's view of a batch of uint8 crops."""
        return network_view(images, self.pixel_mean, self.pixel_std)

    def features(self, images: Tensor) -> Tensor:
        """One descriptor an image, the mean of its patch features: (B, C, H, W) uint8 -> (B, D)."""
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
                f"Learning rate {self.optim.lr * scale:.2e} at {self.images_per_step} images a step"
                + (
                    f" ({self.optim.lr:g} × √({self.images_per_step}/{self.optim.reference_batch}))"
                    if scale != 1
                    else ""
                )
                + f", {total_steps:,} steps, {round(self.optim.warmup * total_steps):,} of them warm-up."
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _can_fuse(self) -> bool:
        """Whether torch's fused optimizer goes with device, strategy and precision (it unscales float16 by itself)."""
        plain = isinstance(self.trainer.strategy, SingleDeviceStrategy | DDPStrategy)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return plain and scaler is None and self.device.type in ("cpu", "cuda")

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as the trainer says; Lightning refuses to, for any fused optimizer, though there is no scaler here."""
        if not gradient_clip_val or not optimizer.defaults.get("fused"):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(parameters, gradient_clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def step_key(self, batch_idx: int) -> tuple[int, int]:
        """What keys a step's randomness: the optimizer step and the micro-batch in it, both 0-based."""
        return self.trainer.global_step, batch_idx % self.trainer.accumulate_grad_batches

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds drop path and mixing anew at each step, so that probes and resumes cannot change a run."""
        torch.manual_seed(derive_seed(self.seed, "step", *self.step_key(batch_idx), self.trainer.global_rank))
        # Lightning logs one step too late after a resume from the end of an epoch; the log's step is the optimizer's.
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.trainer.global_step

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Moves the weight decay where the recipe wants that."""
        start, end = self.optim.weight_decay, self.optim.weight_decay_end
        if end is None:
            return
        progress = self.trainer.global_step / self.trainer.estimated_stepping_batches
        for group in optimizer.param_groups:
            if group["weight_decay"] > 0:
                group["weight_decay"] = half_cosine(start, end, progress)

    def check_finite(self, loss: Tensor) -> None:
        """Stops the run at a loss that is not a number, before it reaches the weights."""
        if not torch.isfinite(loss):
            raise UserError(
                f"The training loss became {loss.item()} at step {self.trainer.global_step}; the run was stopped and its "
                f"last checkpoint is kept. Lower the learning rate (optim.lr is {self.optim.lr:g}), lengthen the warm-up "
                f"(optim.warmup is {self.optim.warmup:g} of the steps), set trainer.gradient_clip_val to 1.0 or less, or "
                "train with trainer.precision=32-true; then resume or start again."
            )
