"""``lit-splitmask fit | validate | test | predict``: LightningCLI with any module and datamodule."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from lit_splitmask.callbacks import StopOnSignal
from lit_splitmask.callbacks.whole_checkpoints import read_checkpoint, write_whole_checkpoints
from lit_splitmask.commands.chance import chance_level, chance_of_maps, interval, interval_text, percent
from lit_splitmask.commands.config_classes import check_classes
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import new_parser, quiet, short_errors, trainer_defaults
from lit_splitmask.commands.tasks.registry import task_of
from lit_splitmask.commands.tasks.segment import note_on_intervals
from lit_splitmask.commands.training import ends_with_143, is_interrupt
from lit_splitmask.comparison import CONFIDENCE
from lit_splitmask.config_files import settings_in
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.errors import UserError
from lit_splitmask.modules import Segment
from lit_splitmask.modules.label_scores import bootstrap
from lit_splitmask.shell import copyable, say


class AnyCLI(LightningCLI):
    """LightningCLI with any module and datamodule.

    Args:
        request: The command.
        **settings: Arguments of LightningCLI.
    """

    def __init__(self, request: Request, **settings: Any) -> None:
        self.request = request
        super().__init__(
            LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True, **settings
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return new_parser(kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--predictions.path",
            type=str | None,
            default=None,
            help="output of predict: a CSV file, a folder of PNGs, or a JSON file (default: beside the weights, with a number "
            "if it exists)",
        )

    def before_instantiate_classes(self) -> None:
        """Checks what the configuration would build.

        Raises:
            UserError: It names a function, or a class of a kind that is not for it.
        """
        check_classes(self.config[str(self.subcommand)])

    def instantiate_classes(self) -> None:
        """Builds everything; checkpoints are written whole, and SIGTERM ends a training with one."""
        with short_errors():
            super().instantiate_classes()
        write_whole_checkpoints(self.trainer)
        self.trainer.callbacks.insert(0, StopOnSignal())  # type: ignore[attr-defined]

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Trains."""
        given = [word for option in self.request.given if option.key != "--ckpt_path" for word in option.words()]
        command = ["lit-splitmask", "fit", *given, "--ckpt_path"]
        try:
            with ends_with_143(self.trainer, command):
                self.trainer.fit(model, **kwargs)
        except (KeyboardInterrupt, SystemExit) as stop:
            if not is_interrupt(stop):
                raise
            kept = self._newest_checkpoint()
            raise KeyboardInterrupt(
                "" if kept is None else f"{kept} is kept. To continue:\n{copyable([*command, str(kept)])}"
            ) from None

    def _newest_checkpoint(self) -> Path | None:
        """The newest checkpoint that this training has written; None if there is none."""
        written = [
            Path(path)
            for callback in self.trainer.checkpoint_callbacks
            for path in (getattr(callback, "last_model_path", ""), getattr(callback, "best_model_path", ""))
            if path
        ]
        return max((path for path in written if path.is_file()), key=lambda path: path.stat().st_mtime, default=None)

    def after_validate(self) -> None:
        """Prints how far chance goes."""
        self._say_chance("val")

    def after_test(self) -> None:
        """Prints how far chance goes."""
        self._say_chance("test")
        if isinstance(self.model, Segment) and self.trainer.is_global_zero:
            self._say_chance_of_maps(self.model)

    def _say_chance_of_maps(self, module: Segment) -> None:
        """Prints the intervals of a segmenter's scores, and those of one class everywhere."""
        ends = bootstrap(module.image_counts, CONFIDENCE)
        if ends is not None:
            texts = [
                f"{name} {interval_text(ends[key])}"
                for name, key in (("mIoU", "miou"), ("pixel accuracy", "pixel_accuracy"))
            ]
            print(f"95 % intervals: {', '.join(texts)}. {note_on_intervals(len(module.image_counts))}")
        print(chance_of_maps(dict(zip(module.class_names or [], module.confusion.sum(dim=1).tolist(), strict=True))))

    def _say_chance(self, split: str) -> None:
        """Prints the interval of an accuracy, and the accuracy of guessing, for classes of images."""
        accuracy = self.trainer.callback_metrics.get(f"{split}/accuracy")
        if accuracy is None or not isinstance(self.datamodule, ImageData) or not self.trainer.is_global_zero:
            return
        labels = self.datamodule.source.splits[split].labelled().labels
        names = self.datamodule.class_names
        counts = dict(zip(names, np.bincount(labels, minlength=len(names)).tolist(), strict=True))
        value = float(accuracy)
        ends = interval_text(interval(value, len(labels)))
        say(f"Accuracy: {percent(value)} of {len(labels):,} images (95 % interval: {ends}). {chance_level(counts)}")

    def before_predict(self) -> None:
        """Adds the callback that writes the predictions of the module's task; the images are neither split nor stored."""
        if isinstance(self.datamodule, ImageData):
            self.datamodule.only_predict()
        task = task_of(self.model)
        path = self._get(self.config, "predictions.path")
        usual = str(self._folder_of_weights() / task.predictions)
        writer = task.writer(path or usual, numbered=path is None)
        self.trainer.callbacks.append(writer)  # type: ignore[attr-defined]

    def _folder_of_weights(self) -> Path:
        """The folder of the weights that predict, which is their run's; the current one for a module without a file of them."""
        weights = self._get(self.config, "model.init_args.weights", default=None)
        return Path(weights).parent if isinstance(weights, str) and Path(weights).is_file() else Path()


def lightning(request: Request) -> int:
    """Runs one of LightningCLI's commands.

    Raises:
        UserError: The checkpoint cannot be read, or the configuration is that of a run of ``pretrain`` or ``finetune``.
    """
    quiet()
    checkpoint = request.value("--ckpt_path")
    if checkpoint == "last":
        raise UserError(
            "--ckpt_path last guesses the file, and trains from scratch if it finds none: give the path of the checkpoint."
        )
    if checkpoint not in (None, "best", "hpc", "null"):
        read_checkpoint(Path(str(checkpoint)))
    for path in request.configs:
        _refuse_run_config(path)
    predicts = request.command == "predict"
    arguments = [request.command, *request.settings()]
    if predicts and request.value("--return_predictions") is None:
        arguments.append("--return_predictions=false")  # they are written to a file; in memory there may be too many
    AnyCLI(
        request,
        args=arguments,
        seed_everything_default=False,
        auto_configure_optimizers=False,
        save_config_callback=None if predicts else SaveConfigCallback,  # predict writes its output only
        save_config_kwargs={"overwrite": False},
        trainer_defaults=trainer_defaults() | ({"logger": False} if predicts else {}),
    )
    return 0


def _refuse_run_config(path: str) -> None:
    """Refuses the ``config.yaml`` of a run, which is for ``pretrain`` and ``finetune``: its module has no ``class_path``."""
    if "runs_dir" in settings_in(path):
        raise UserError(
            f"{path} holds the settings of a run of pretrain or finetune. To test a fine-tuned network or predict with it, give "
            f"{Path(path).with_name('predict.yaml')}, which finetune writes when it ends."
        )
