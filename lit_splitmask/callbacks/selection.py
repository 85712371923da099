"""Chooses the checkpoint to keep while a network trains, and stops training that no longer improves the network."""

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

from lit_splitmask.callbacks.evaluation_plan import EvaluationPlan, rule_for
from lit_splitmask.callbacks.selection_checks import check_same_settings
from lit_splitmask.callbacks.whole_checkpoints import newest_whole, write_whole_checkpoints
from lit_splitmask.contract import training_data
from lit_splitmask.errors import UserError
from lit_splitmask.files import from_here, remove_abandoned, write_json
from lit_splitmask.optim import OptimConfig
from lit_splitmask.selection.curves import draw_signals, signals_table
from lit_splitmask.selection.earlier_bests import keep_earlier_best
from lit_splitmask.selection.measuring import check_names, measure
from lit_splitmask.selection.rule import Decision, Reading, Rule, decide
from lit_splitmask.selection.signals import KNN, HeldOutLoss, Linear, RankMe, Signal
from lit_splitmask.selection.snapshot import Snapshot, undisturbed

log = logging.getLogger(__name__)

EARLIER_BESTS = 2
"""Default number of earlier best checkpoints that stay on disk besides the best one."""


class OverfitAwareCheckpoint(ModelCheckpoint):
    """Measures signals during training and keeps the checkpoint that a rule chooses by them.

    It writes ``last.ckpt`` after every trainer epoch, ``best.ckpt`` whenever the rule finds a new best, up to ``keep`` earlier
    bests as ``step-….ckpt``, and its measurements and decision as ``selection.json``; the curves follow as ``selection.png``
    when training ends. Signals are measured on images that are not augmented, equally on one process and on many. Measuring
    changes neither the module nor its modes nor any random state. ``trainer.fit(…, ckpt_path="last")`` continues with the same
    decisions.

    It works with any LightningModule with a method ``features(images)``, from a batch of images, as their dataset gives them, to
    one descriptor per image (B, D), or to tokens (B, N, D) or maps (B, D, H, W), which are averaged. The images are those of this
    project's datamodule, of ``images``, or of the first validation loader, the last without labels. The images per step are the
    module's or datamodule's ``images_per_step``, or follow from the training loader or its first batch. Modules that are not of
    this project are measured on fewer images if fewer than five evaluations were affordable otherwise. With an IterableDataset,
    set the trainer's ``max_steps``: signals are then measured within epochs.

    If nothing can be measured, for lack of held-out images or ``features``, or because even one evaluation would cost more than
    ``most_cost``, a warning at the start says why, and the last checkpoint is kept.

    Attributes:
        history: The readings so far.
        best_step: Step of the best checkpoint; None while nothing was measured.
        seconds: Time spent on evaluations.
        training_seconds: Time spent on training, without evaluations.

    Args:
        dirpath: Folder for all files.
        signals: Signals to measure; those that need labels are left out if there are none. By default the held-out loss, RankMe,
            k-NN and the linear probe.
        rule: How the signals decide; by default in the order of :class:`Rule`, or the method's own, of those that are measured.
        evaluations: Number of evaluations over the whole budget; fewer if they would cost more than ``most_cost``.
        most_cost: Share of the training time that the evaluations may take. Their cost is estimated from what they compute, so
            they happen at the same steps on every machine. The time that they took is reported at the end.
        keep: Number of earlier bests that stay on disk.
        most_images: Number of training images, and of held-out images, to measure on at most.
        images: Training and held-out images for modules that train without a datamodule of this project: two datasets with
            indices that give dicts with ``image`` (C, H, W) and ``label``, tuples (image, label), or images. The module's
            ``features`` gets the images as they are.
        num_classes: Number of classes of ``images``; 0 without labels.

    Raises:
        UserError: Two signals have the same name, the rule names a signal that is not measured, ``evaluations`` is less than 1,
            or ``keep`` or ``num_classes`` is negative.

    Example:
        >>> from lightning import Trainer
        >>> from lit_splitmask.callbacks import OverfitAwareEarlyStopping
        >>> choosing = [OverfitAwareCheckpoint("runs/mine"), OverfitAwareEarlyStopping()]
        >>> trainer = Trainer(max_epochs=-1, callbacks=choosing, accelerator="cpu", logger=False)
        >>> [signal.name for signal in trainer.checkpoint_callback.signals]
        ['held_out_loss', 'rankme', 'knn', 'linear']
        >>> trainer.checkpoint_callback.rule.signals
        ['rankme', 'linear', 'held_out_loss']
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
        self._has_own_rule, self.rule = rule is not None, rule or rule_for(None, names)
        check_names(names, self.rule.signals)
        if evaluations < 1 or keep < 0 or num_classes < 0:
            raise UserError(
                f"evaluations={evaluations} must be at least 1, and keep={keep} and num_classes={num_classes} at least 0."
            )
        self.evaluations, self.most_cost, self.keep = evaluations, most_cost, keep
        self.most_images, self.images, self.num_classes = most_images, images, num_classes
        self.stops = False  # set by OverfitAwareEarlyStopping
        self.history: list[Reading] = []
        self.seconds = 0.0
        self.training_seconds = 0.0
        self.best_step: int | None = None
        self._earlier_bests: list[int] = []
        self._plan: EvaluationPlan | None = None
        self._epoch_started: float | None = None

    # Before training

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the method's own rule, before the state of a resumed run is compared with it."""
        super().setup(trainer, pl_module, stage)
        if not self._has_own_rule:
            self.rule = rule_for(pl_module, [signal.name for signal in self.signals])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the folder, finds the images, and tries the module on some of them.

        Raises:
            UserError: The folder holds the checkpoints of another run, the images cannot be used, ``features`` fails or returns
                another shape, or labels are missing or outside ``num_classes``.
        """
        write_whole_checkpoints(trainer)
        folder = Path(str(self.dirpath))
        if trainer.is_global_zero:
            remove_abandoned(folder)
        if trainer.ckpt_path is None and newest_whole(folder / "last.ckpt") is not None:
            way = 'choose another dirpath, resume that run (ckpt_path="last"), or delete them'
            raise UserError(f"{folder} holds checkpoints of another run: {way}.")
        self._plan = EvaluationPlan(
            self.signals,
            self.rule,
            evaluations=self.evaluations,
            most_cost=self.most_cost,
            most_images=self.most_images,
            images=self.images,
            num_classes=self.num_classes,
            stops=self.stops,
        )
        self._plan.find(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Works out how often to measure; takes the validation loader's images if there are no others.

        Raises:
            UserError: The number of training steps is unknown.
        """
        if self._plan is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._plan.start(trainer, pl_module)

    # At the end of each epoch, or of a step if epochs have no known length: measures, decides, saves and stops, in this order

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._epoch_started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures, decides, saves, and stops."""
        if trainer.fast_dev_run or trainer.sanity_checking:  # type: ignore[attr-defined]
            return
        self._stop_clock()
        if self._is_due(trainer):
            self._evaluate(trainer, pl_module)
        else:
            self._save_last(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measures, decides, saves, and stops within an epoch of unknown length."""
        if self._plan is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._plan.see(batch, trainer, pl_module)
        if self._plan.steps_between is not None and self._is_due(trainer):
            self._stop_clock()
            self._evaluate(trainer, pl_module)
            self._epoch_started = time.perf_counter()

    def _stop_clock(self) -> None:
        if self._epoch_started is not None:
            self.training_seconds += time.perf_counter() - self._epoch_started
            self._epoch_started = None

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether to measure now."""
        # On a resume, Lightning ends the epoch of the checkpoint a second time.
        is_known = bool(self.history) and self.history[-1].step == trainer.global_step
        return self._plan is not None and not is_known and self._plan.is_due(trainer)

    def _evaluate(self, trainer: Trainer, module: LightningModule) -> None:
        self._measure(trainer, module)
        decision = self.decision(trainer, module)
        if decision.best_step == trainer.global_step:
            self._save_best(trainer, decision)
        self._save_last(trainer)
        self._write(trainer, decision)
        if self.stops and decision.stop:
            trainer.should_stop = True
            if trainer.is_global_zero:
                log.info("Training stops at step %d: %s.", trainer.global_step, decision.reason)

    def _measure(self, trainer: Trainer, module: LightningModule) -> None:
        plan = self._plan
        assert plan is not None
        assert plan.subsets is not None
        started = time.perf_counter()
        with undisturbed(module):
            precision = trainer.precision_plugin.val_step_context
            snapshot = Snapshot(module, *plan.subsets, plan.num_classes, getattr(module, "seed", 0), precision)
            measured = measure(plan.signals, snapshot)
        self.seconds += time.perf_counter() - started
        self.history.append(Reading(trainer.global_step, measured.values, measured.errors))
        logged = {f"signal/{name}": value for name, value in measured.values.items() if math.isfinite(value)}
        logged |= {f"signal_seconds/{name}": seconds for name, seconds in measured.seconds.items()}
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=trainer.global_step)

    def decision(self, trainer: Trainer, module: LightningModule) -> Decision:
        """What the rule decides from the readings so far."""
        total = int(trainer.estimated_stepping_batches)
        optim = getattr(module, "optim", None)
        warmup = optim.warmup if isinstance(optim, OptimConfig) else 0.0
        return decide(
            self.history,
            directions={signal.name: signal.better for signal in self.signals},
            total_steps=total,
            warmup_steps=round(warmup * total),
            rule=self.rule,
        )

    # Files

    def _path(self, name: str) -> str:
        return str(Path(str(self.dirpath)) / f"{name}.ckpt")

    def _save_best(self, trainer: Trainer, decision: Decision) -> None:
        """Writes ``best.ckpt``; the one that it replaces becomes an earlier best."""
        best = Path(self._path("best"))
        if trainer.is_global_zero and self.best_step is not None:
            self._earlier_bests = keep_earlier_best(best, self.best_step, self._earlier_bests, self.keep)
        self.best_model_path = str(best)
        value = self.history[-1].values.get(decision.signal or "")
        self.best_model_score = None if value is None else torch.tensor(value)
        self.best_step = trainer.global_step
        self._save(trainer, "best")

    def _save_last(self, trainer: Trainer) -> None:
        self._save(trainer, "last")
        self.last_model_path = self._path("last")

    def _save(self, trainer: Trainer, name: str) -> None:
        trainer.save_checkpoint(self._path(name))

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """What ``ckpt_path="last"`` means: the newest whole checkpoint."""
        found = newest_whole(Path(self._path("last")), sorted(Path(str(self.dirpath)).glob("*.ckpt")))
        return set() if found is None else {str(found)}

    def _write(self, trainer: Trainer, decision: Decision) -> None:
        """Writes ``selection.json``."""
        if not trainer.is_global_zero:
            return
        selection = {
            **asdict(decision),
            "checkpoint": self.best_model_path,
            "step": trainer.global_step,
            "seconds": {"evaluations": round(self.seconds, 1), "training": round(self.training_seconds, 1)},
            "settings": self.settings,
            "history": [reading.as_json() for reading in self.history],
        }
        write_json(Path(str(self.dirpath)) / "selection.json", selection)

    # After training

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves and prints which checkpoint to keep."""
        self._report(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Reports the same after an interruption from the keyboard."""
        super().on_exception(trainer, pl_module, exception)
        if isinstance(exception, KeyboardInterrupt):
            self._report(trainer, pl_module)

    def _report(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.is_global_zero or not self.history:
            return
        decision = self.decision(trainer, module)
        draw_signals(Path(str(self.dirpath)) / "selection.png", self.history, decision)
        console = Console()
        console.print(signals_table(self.history, decision, title=f"Evaluations: {len(self.history)}, {self.cost}"))
        console.print(self.summary(trainer, decision), highlight=False)

    @property
    def cost(self) -> str:
        """The time that the evaluations took, in words."""
        share = self.seconds / self.training_seconds if self.training_seconds else math.nan
        return f"{self.seconds:.1f} s on top of {self.training_seconds:.1f} s of training ({share:.1%})"

    def summary(self, trainer: Trainer, decision: Decision) -> str:
        """Which checkpoint to keep and why, in one sentence."""
        data = training_data(getattr(trainer, "datamodule", None))
        passes = ""
        if data.images_per_step and data.num_train_images and decision.best_step is not None:
            passes = f" (pass {decision.best_step * data.images_per_step / data.num_train_images:,.0f})"
        return f"Keep step {decision.best_step:,}{passes}, {from_here(self.best_model_path)}: {decision.reason}."

    # Resuming

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that must not change on a resume, so that it decides as an uninterrupted run."""
        names = [signal.name for signal in self.signals]
        amounts = {name: getattr(self, name) for name in ("evaluations", "most_cost", "most_images")}
        return {"signals": names, "rule": json.loads(json.dumps(asdict(self.rule))), **amounts}

    def state_dict(self) -> dict[str, Any]:
        history = [reading.as_json() for reading in self.history]
        own = {"history": history, "settings": self.settings, "kept": self._earlier_bests, "seconds": self.seconds}
        own |= {"training_seconds": self.training_seconds, "best_step": self.best_step}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the history.

        Raises:
            UserError: The run decided with other settings.
        """
        check_same_settings(state_dict["settings"], self.settings)
        super().load_state_dict(state_dict)
        self.history = [Reading.from_json(entry) for entry in state_dict["history"]]
        self._earlier_bests, self.best_step = state_dict["kept"], state_dict["best_step"]
        self.seconds, self.training_seconds = state_dict["seconds"], state_dict["training_seconds"]
