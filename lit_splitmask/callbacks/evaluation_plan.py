"""What ``OverfitAwareCheckpoint`` measures in a run, on which images, and when."""

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from lightning import LightningModule, Trainer
from torch.utils.data import Dataset

from lit_splitmask.callbacks.selection_checks import (
    check_images,
    images_in,
    images_per_step,
    of_one_size,
    pair_of,
    per_step,
    total_steps,
    validation_images,
)
from lit_splitmask.contract import training_data
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.errors import UserError
from lit_splitmask.modules.base import TrainModule
from lit_splitmask.modules.objective_host import TrainsObjective
from lit_splitmask.selection.rule import MIN_READINGS_AFTER_BEST, Rule
from lit_splitmask.selection.schedule import plan
from lit_splitmask.selection.signals import Signal
from lit_splitmask.selection.sizes import Sizes
from lit_splitmask.selection.snapshot import ImageSubset

log = logging.getLogger("lit_splitmask.callbacks.selection")


def rule_for(module: LightningModule | None, measured: Collection[str]) -> Rule:
    """The rule if none is given: the signals that the module's method prefers, otherwise those of :class:`Rule`.

    Args:
        module: The module; None if it is not known yet.
        measured: Names of the signals that are measured.
    """
    method = module.hosted if isinstance(module, TrainsObjective) else None
    own = () if method is None else method.deciding_signals
    choices = ([name for name in order if name in measured] for order in (own, Rule().signals))
    return Rule(next((found for found in choices if found), list(measured)))


@dataclass
class EvaluationPlan:
    """Finds the images of a run, checks that the module can be measured on them, and spreads the evaluations.

    Attributes:
        signals: Signals that the user chose; after :meth:`find`, those that can be measured.
        rule: The rule that decides by them.
        evaluations: Number of evaluations at most.
        most_cost: Share of the training time that they may take.
        most_images: Number of training images, and of held-out images, at most.
        images: Training and held-out images that the user gave.
        num_classes: Number of classes; 0 without labels.
        stops: Whether the rule stops the training too.
        subsets: Training and held-out images to measure on; None if nothing is measured.
        epochs_between: Epochs from one evaluation to the next.
        steps_between: Steps from one evaluation to the next, where the length of an epoch is unknown; otherwise None.
    """

    signals: Sequence[Signal]
    rule: Rule
    evaluations: int
    most_cost: float
    most_images: int
    images: Any
    num_classes: int
    stops: bool
    subsets: tuple[ImageSubset, ImageSubset] | None = None
    epochs_between: int = 1
    steps_between: int | None = None
    _waits_for_batch: bool = False
    _has_warned: bool = False

    # Before training

    def find(self, trainer: Trainer, module: LightningModule) -> None:
        """Takes the images of the user or the datamodule, and checks the module on them.

        Raises:
            UserError: The images cannot be used, ``features`` fails or returns a wrong shape, or labels are wrong.
        """
        datamodule = getattr(trainer, "datamodule", None)
        data, option = training_data(datamodule), "num_classes"
        if self.images is not None:
            train, held_out = pair_of(self.images)
        elif data.split_images is not None:
            splits = (data.split_images("train"), data.split_images("val"))
            train, held_out = (of_one_size(images, data.image_size) for images in splits)
            if data.all_labelled is not None:
                self.num_classes, option = (
                    (data.num_classes or 0) if data.all_labelled else 0,
                    "the datamodule's num_classes",
                )
        else:
            return  # until the validation loader is known
        self._take(train, held_out)
        if self.subsets is None:
            return
        is_own = isinstance(module, TrainModule) and isinstance(datamodule, ImageData) and self.images is None
        self._choose_signals(trainer, module)
        if self.subsets is not None and not is_own:
            self._check(trainer, module, option)

    def start(self, trainer: Trainer, module: LightningModule) -> None:
        """Takes the validation loader's images if there are no others, and spreads the evaluations over the training.

        Raises:
            UserError: The number of training steps is unknown.
        """
        offers_images = training_data(getattr(trainer, "datamodule", None)).split_images is not None
        if self.images is None and not offers_images and not isinstance(module, TrainModule):
            self._take_validation_images(trainer, module)
        if self.subsets is None:
            if not self._has_warned:
                self._warn_without_images(trainer)
            return
        total_steps(trainer)
        num_images = images_per_step(trainer, module)
        self._waits_for_batch = num_images is None
        if num_images is not None:
            self._spread(trainer, module, num_images)

    def see(self, batch: Any, trainer: Trainer, module: LightningModule) -> None:
        """Counts the images of the first batch if nothing else says how many there are in a step."""
        if self._waits_for_batch:
            self._waits_for_batch = False
            self._spread(trainer, module, per_step(images_in(batch) or 1, trainer))

    def is_due(self, trainer: Trainer) -> bool:
        """Whether the epoch that ends, or the step just done if epochs have no known length, is followed by an evaluation."""
        if self.subsets is None:
            return False
        if trainer.global_step >= trainer.estimated_stepping_batches:
            return True
        if self.steps_between is not None:
            return trainer.global_step > 0 and trainer.global_step % self.steps_between == 0
        return (trainer.current_epoch + 1) % self.epochs_between == 0

    # Images and signals

    def _take(self, train: Dataset | None, held_out: Dataset | None) -> None:
        if train is None or held_out is None:
            return
        subsets = ImageSubset(train, self.most_images), ImageSubset(held_out, self.most_images)
        self.subsets = subsets if all(len(subset) for subset in subsets) else None

    def _take_validation_images(self, trainer: Trainer, module: LightningModule) -> None:
        """Measures on the first validation loader's images, without labels and without training images."""
        dataset = validation_images(trainer)
        if dataset is None or not len(dataset):
            return
        self.subsets, self.num_classes = (ImageSubset([], 0), ImageSubset(dataset, self.most_images)), 0
        self.signals = [signal for signal in self.signals if "train" not in signal.needs_features]
        self._choose_signals(trainer, module)
        if self.subsets is None:
            return
        try:
            self._check(trainer, module, "num_classes")
        except UserError as error:
            self._measure_nothing(trainer, f"the validation loader's images cannot be used. {error}")

    def _check(self, trainer: Trainer, module: LightningModule, option: str) -> None:
        assert self.subsets is not None
        needs_labels = any(signal.needs_labels for signal in self.signals)
        precision = trainer.precision_plugin.val_step_context
        check_images(
            module,
            *self.subsets,
            num_classes=self.num_classes if needs_labels else 0,
            option=option,
            precision=precision,
        )

    def _choose_signals(self, trainer: Trainer, module: LightningModule) -> None:
        """Leaves out the signals that the module or the images do not allow; warns if none is left, or none that decides."""
        lacks = {signal.name: signal.lacks(module) for signal in self.signals}
        for signal in self.signals:
            if signal.needs_labels and self.num_classes < 2:
                lacks[signal.name] = lacks[signal.name] or "labels (give images and num_classes)"
        reasons = "; ".join(f"{name} needs {lack}" for name, lack in lacks.items() if lack is not None)
        self.signals = [signal for signal in self.signals if lacks[signal.name] is None]
        if not self.signals:
            self._measure_nothing(trainer, f"no signal can be measured. {reasons}.")
        elif not {signal.name for signal in self.signals} & set(self.rule.signals):
            self._warn(
                trainer, f"None of the signals that decide can be measured, so the last checkpoint is kept. {reasons}."
            )

    # Schedule

    def _spread(self, trainer: Trainer, module: LightningModule, num_images_per_step: int) -> None:
        assert self.subsets is not None
        steps = total_steps(trainer)
        schedule = plan(
            self.signals,
            Sizes.of(module, *self.subsets, self.num_classes),
            steps=steps,
            images_per_step=num_images_per_step,
            most_cost=self.most_cost,
            evaluations=self.evaluations,
            thin=not isinstance(module, TrainModule),
        )
        number = schedule.num_evaluations
        if number < 1:
            self._measure_nothing(trainer, f"training is too short to evaluate checkpoints. {schedule.advice}")
            return
        if schedule.max_images is not None:
            train, held_out = (subset.thinned(schedule.max_images) for subset in self.subsets)
            self.subsets = train, held_out
            log.info("Signals are measured on at most %d images, to keep within most_cost.", schedule.max_images)
        if math.isinf(trainer.num_training_batches):
            self.steps_between = math.ceil(steps / number)
        else:
            steps_per_epoch = max(1, math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))
            epochs = math.ceil(steps / steps_per_epoch)
            self.epochs_between = math.ceil(epochs / number)
            number = math.ceil(epochs / self.epochs_between)
        self._warn_of_few(trainer, number, schedule.advice)

    def _warn_of_few(self, trainer: Trainer, number: int, advice: str) -> None:
        advice = advice or "It measures at the ends of epochs: train for more and shorter epochs (limit_train_batches)."
        if number == 1 < self.evaluations:
            self._warn(
                trainer,
                f"Checkpoints are evaluated only once, at the end, so there is nothing to choose from. {advice}",
            )
        elif self.stops and number <= MIN_READINGS_AFTER_BEST:
            self._warn(
                trainer,
                f"There are only {number} evaluations, and training stops only after {MIN_READINGS_AFTER_BEST} without an "
                "improvement: OverfitAwareEarlyStopping will not stop it. Train longer, or for more and shorter epochs.",
            )

    # Warnings

    def _warn_without_images(self, trainer: Trainer) -> None:
        if self.images is not None:
            how = "Give images=(train, held_out) with at least one image each."
        elif training_data(getattr(trainer, "datamodule", None)).split_images is not None:
            how = "Give the data validation images, or give OverfitAwareCheckpoint images=(train, held_out)."
        else:
            how = "Give OverfitAwareCheckpoint images=(train, held_out), or fit() a validation loader."
        self._measure_nothing(trainer, f"there are no held-out images to evaluate checkpoints on. {how}")

    def _measure_nothing(self, trainer: Trainer, why: str) -> None:
        self.subsets = None
        stays = " and OverfitAwareEarlyStopping does not stop training" if self.stops else ""
        self._warn(trainer, f"OverfitAwareCheckpoint measures nothing, the last checkpoint is kept{stays}: {why}")

    def _warn(self, trainer: Trainer, message: str) -> None:
        self._has_warned = True
        if trainer.is_global_zero:
            log.warning("%s", message)
