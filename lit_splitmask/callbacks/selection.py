"""Chooses the checkpoint to keep while a network trains, and stops training that has stopped to help."""

import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console

from lit_splitmask.contract import training_data
from lit_splitmask.errors import UserError
from lit_splitmask.files import link_or_copy, write_json
from lit_splitmask.selection.curves import draw_signals, signals_table
from lit_splitmask.selection.material import Images, Material, undisturbed
from lit_splitmask.selection.rule import Decision, Reading, Rule, decide
from lit_splitmask.selection.signals import KNN, HeldOutLoss, Linear, RankMe, Signal, Sizes, forward_passes
from lit_splitmask.selection.signals import measure as measure_signals

log = logging.getLogger(__name__)

EARLIER_BESTS = 2
"""Earlier bests that are kept beside the best one, unless told otherwise."""

FORWARD_SHARE = 1 / 2
"""Of a training step's time, what its images' way through the backbone would take with all patches: a third where all are seen,
more where most are hidden."""


class OverfitAwareCheckpoint(ModelCheckpoint):
    """Measures signals along the way, and keeps the checkpoint that a rule chooses by them.

    It writes ``last.ckpt`` after every trainer epoch, ``best.ckpt`` whenever the rule finds a new best, up to ``keep`` earlier
    bests as ``step-….ckpt``, and what it knows as ``selection.json``; the curves follow as ``selection.png`` when training
    ends. The signals are measured on images that are not augmented, in the same way on one process and on many, and leave the
    module, its modes and all random states as they were. ``trainer.fit(…, ckpt_path="last")`` goes on with the same decisions.

    Without held-out images, or where even one evaluation would cost more than ``most_cost``, it measures nothing and keeps the
    last checkpoint.

    Attributes:
        history: What was measured.
        best_step: Of the checkpoint that is kept; None while nothing was measured.
        seconds: That the evaluations took.
        training_seconds: That training took without them.

    Args:
        dirpath: Where everything goes.
        signals: What is measured; those that need labels are left out where there are none.
        rule: How the signals decide; by default in the order of :class:`Rule`, as far as they are measured.
        evaluations: How often, over the whole budget; fewer where they would cost more than ``most_cost``.
        most_cost: Share of the training time that the evaluations may take, as estimated from what they compute, so that every
            machine looks at the same steps. What they took is told at the end.
        keep: Number of earlier bests to keep.
        most_images: Training images, and held-out ones, that are looked at.
        images: Training and held-out images for modules that train without a datamodule of this project: datasets that give
            dicts with ``image`` (C, H, W) uint8 and ``label``.
        num_classes: Their number of classes; 0 without labels.

    Raises:
        UserError: The rule names signals that are not measured.
    """

    def __init__(
        self,
        dirpath: str,
        *,
        signals: Sequence[Signal] | None = None,
        rule: Rule | None = None,
        evaluations: int = 20,
        most_cost: float = 0.05,
        keep: int = EARLIER_BESTS,
        most_images: int = 5_000,
        images: tuple[Any, Any] | None = None,
        num_classes: int = 0,
    ) -> None:
        super().__init__(dirpath, filename="best", save_on_train_epoch_end=True, enable_version_counter=False)
        self.signals = [HeldOutLoss(), RankMe(), KNN(), Linear()] if signals is None else list(signals)
        names = [signal.name for signal in self.signals]
        self.rule = rule or Rule([name for name in Rule().signals if name in names] or names)
        unknown = [name for name in self.rule.signals if name not in names]
        if unknown:
            raise UserError(
                f"The rule decides by {', '.join(unknown)}, which is not measured: measured are {', '.join(names)}."
            )
        if evaluations < 1 or keep < 0:
            raise UserError(f"evaluations={evaluations} must be at least 1, and keep={keep} at least 0.")
        self.evaluations, self.most_cost, self.keep = evaluations, most_cost, keep
        self.most_images, self.images, self.num_classes = most_images, images, num_classes
        self.stops = False  # an OverfitAwareEarlyStopping sets it
        self.history: list[Reading] = []
        self.seconds = 0.0
        self.training_seconds = 0.0
        self.best_step: int | None = None
        self._kept: list[int] = []
        self._parts: tuple[Images, Images] | None = None
        self._every = 1
        self._epoch_started: float | None = None

    # What decides

    @property
    def settings(self) -> dict[str, Any]:
        """What must not change on a resume, so that it decides as the run would have."""
        names = [signal.name for signal in self.signals]
        amounts = {name: getattr(self, name) for name in ("evaluations", "most_cost", "most_images")}
        return {"signals": names, "rule": json.loads(json.dumps(asdict(self.rule))), **amounts}

    def decision(self, trainer: Trainer, module: LightningModule) -> Decision:
        """The rule's word on what has been measured so far."""
        total = int(trainer.estimated_stepping_batches)
        warmup = getattr(getattr(module, "optim", None), "warmup", 0.0)
        return decide(
            self.history,
            directions={signal.name: signal.better for signal in self.signals},
            total_steps=total,
            warmup_steps=round(warmup * total),
            rule=self.rule,
        )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the folder.

        Raises:
            UserError: It holds the checkpoints of another run.
        """
        folder = Path(str(self.dirpath))
        if trainer.ckpt_path is None and (folder / "last.ckpt").exists():
            raise UserError(
                f"{folder} holds checkpoints of another run: give another dirpath, or go on with that run "
                '(ckpt_path="last"), or delete them.'
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds the images, and works out how often to look at them.

        Raises:
            UserError: Training has no end.
        """
        self._parts = self._find_images(trainer)
        if self._parts is None:
            log.warning("There are no held-out images to judge checkpoints on: the last one is kept.")
            return
        if not math.isfinite(trainer.estimated_stepping_batches):
            raise UserError(
                "OverfitAwareCheckpoint must know how long training is: set the trainer's max_epochs or max_steps."
            )
        steps = int(trainer.estimated_stepping_batches)
        budget = self.most_cost * steps * getattr(pl_module, "images_per_step", 1) / FORWARD_SHARE
        affordable = int(min(self.evaluations, budget / forward_passes(self.signals, self._sizes(pl_module))))
        if affordable < 1:
            self._parts = None
            log.info("So short a training leaves no time to judge its checkpoints: the last one is kept.")
            return
        steps_per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        self._every = math.ceil(math.ceil(steps / max(1, steps_per_epoch)) / affordable)

    def _sizes(self, module: LightningModule) -> Sizes:
        assert self._parts is not None
        vit = getattr(module, "vit", None)
        macs = width = 0
        if vit is not None:
            macs = sum(parameter.numel() for parameter in vit.parameters()) * vit.num_patches
            width = vit.embed_dim
        return Sizes(len(self._parts[0]), len(self._parts[1]), self.num_classes, width, macs)

    def _find_images(self, trainer: Trainer) -> tuple[Images, Images] | None:
        data = training_data(getattr(trainer, "datamodule", None))
        if self.images is not None:
            train, held_out = self.images
        elif data.split_images is not None:
            train, held_out = data.split_images("train"), data.split_images("val")
            self.num_classes = (data.num_classes or 0) if data.all_labelled else 0
        else:
            return None
        if train is None or held_out is None:
            return None
        parts = Images(train, self.most_images), Images(held_out, self.most_images)
        return parts if all(len(part) for part in parts) else None

    # When it is done: one place orders signals, decision and saving

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._epoch_started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures, decides, saves, and stops."""
        if trainer.fast_dev_run or trainer.sanity_checking:  # type: ignore[attr-defined]
            return
        is_last = trainer.global_step >= trainer.estimated_stepping_batches
        if self._epoch_started is not None:
            self.training_seconds += time.perf_counter() - self._epoch_started
            self._epoch_started = None
        # On a resume Lightning ends the checkpoint's epoch once more.
        is_known = bool(self.history) and self.history[-1].step == trainer.global_step
        is_turn = (trainer.current_epoch + 1) % self._every == 0 or is_last
        due = self._parts is not None and is_turn and not is_known
        decision = None
        if due:
            self._measure(trainer, pl_module)
            decision = self.decision(trainer, pl_module)
            if decision.best_step == trainer.global_step:
                self._save_best(trainer, decision)
        self._save(trainer, "last")
        self.last_model_path = self._path("last")
        if decision is not None:
            self._write(trainer, decision)
            if self.stops and decision.stop:
                trainer.should_stop = True
                if trainer.is_global_zero:
                    log.info("Training stops at step %d: %s.", trainer.global_step, decision.reason)

    def _measure(self, trainer: Trainer, module: LightningModule) -> None:
        assert self._parts is not None
        started = time.perf_counter()
        with undisturbed(module):
            precision = trainer.precision_plugin.val_step_context
            material = Material(module, *self._parts, self.num_classes, getattr(module, "seed", 0), precision)
            found = measure_signals(self.signals, material)
        self.seconds += time.perf_counter() - started
        self.history.append(Reading(trainer.global_step, found.values, found.errors))
        logged = {f"signal/{name}": value for name, value in found.values.items() if math.isfinite(value)}
        logged |= {f"signal_seconds/{name}": seconds for name, seconds in found.seconds.items()}
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=trainer.global_step)

    # Files

    def _path(self, name: str) -> str:
        return str(Path(str(self.dirpath)) / f"{name}.ckpt")

    def _save_best(self, trainer: Trainer, decision: Decision) -> None:
        best, before = Path(self._path("best")), self.best_step
        if trainer.is_global_zero and self.keep and before is not None and best.exists():
            earlier = Path(self._path(f"step-{before:08d}"))
            if not earlier.exists():
                link_or_copy(best, earlier)
            self._kept.append(before)
        for step in self._kept[: -self.keep or None]:
            if trainer.is_global_zero:
                Path(self._path(f"step-{step:08d}")).unlink(missing_ok=True)
        self._kept = self._kept[-self.keep :] if self.keep else []
        self.best_model_path = str(best)
        value = self.history[-1].values.get(decision.signal or "")
        self.best_model_score = None if value is None else torch.tensor(value)
        self.best_step = trainer.global_step
        self._save(trainer, "best")

    def _save(self, trainer: Trainer, name: str) -> None:
        """Writes a checkpoint, whole or not at all."""
        try:
            trainer.save_checkpoint(self._path(name))
        except OSError as error:
            raise UserError(
                f"The checkpoint {self._path(name)} cannot be written ({error}): those before are kept. Free some space and "
                "resume the run."
            ) from error

    def _write(self, trainer: Trainer, decision: Decision) -> None:
        if not trainer.is_global_zero:
            return
        known = {
            **asdict(decision),
            "checkpoint": self.best_model_path,
            "step": trainer.global_step,
            "seconds": {"evaluations": round(self.seconds, 1), "training": round(self.training_seconds, 1)},
            "settings": self.settings,
            "history": [reading.as_json() for reading in self.history],
        }
        write_json(Path(str(self.dirpath)) / "selection.json", known)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves, and says which checkpoint to keep."""
        self._tell(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Says what is known where a person interrupted the training."""
        super().on_exception(trainer, pl_module, exception)
        if isinstance(exception, KeyboardInterrupt):
            self._tell(trainer, pl_module)

    def _tell(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.is_global_zero or not self.history:
            return
        decision = self.decision(trainer, module)
        draw_signals(Path(str(self.dirpath)) / "selection.png", self.history, decision)
        console = Console()
        console.print(signals_table(self.history, decision, title=f"{len(self.history)} evaluations, {self.cost}"))
        console.print(self.summary(trainer, decision), highlight=False)

    @property
    def cost(self) -> str:
        """What the evaluations took, in words."""
        share = self.seconds / self.training_seconds if self.training_seconds else math.nan
        return f"{self.seconds:.1f} s beside {self.training_seconds:.1f} s of training ({share:.1%})"

    def summary(self, trainer: Trainer, decision: Decision) -> str:
        """What a person should know, in one paragraph."""
        data = training_data(getattr(trainer, "datamodule", None))
        passes = ""
        if data.images_per_step and data.num_train_images and decision.best_step is not None:
            passes = f" (pass {decision.best_step * data.images_per_step / data.num_train_images:,.0f})"
        return f"Keep step {decision.best_step:,}{passes}, {self.best_model_path}: {decision.reason}."

    # Resuming

    def state_dict(self) -> dict[str, Any]:
        history = [reading.as_json() for reading in self.history]
        ours = {"history": history, "settings": self.settings, "kept": self._kept, "seconds": self.seconds}
        ours |= {"training_seconds": self.training_seconds, "best_step": self.best_step}
        return {**super().state_dict(), **ours}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the history.

        Raises:
            UserError: The run decided by other settings.
        """
        stored = state_dict["settings"]
        differing = [name for name, value in self.settings.items() if stored.get(name) != value]
        if differing:
            told = "; ".join(f"{name} was {stored.get(name)}, and is {self.settings[name]}" for name in differing)
            raise UserError(
                f"The run that is resumed chose its checkpoints by other settings: {told}. Resume with the same."
            )
        super().load_state_dict(state_dict)
        self.history = [Reading.from_json(entry) for entry in state_dict["history"]]
        self._kept, self.best_step = state_dict["kept"], state_dict["best_step"]
        self.seconds, self.training_seconds = state_dict["seconds"], state_dict["training_seconds"]


def chosen_checkpoint(trainer: Trainer) -> Path | None:
    """The one that an :class:`OverfitAwareCheckpoint` of the trainer keeps; None where it is the last, or nothing chooses."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, OverfitAwareCheckpoint) and callback.best_step not in (None, trainer.global_step):
            return Path(callback.best_model_path)
    return None
