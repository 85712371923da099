"""LightningCLI's own ``fit | validate | test | predict``, with any module and datamodule."""

from pathlib import Path
from typing import Any

import yaml
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from lit_splitmask.commands import tasks
from lit_splitmask.commands.arguments import value_of
from lit_splitmask.commands.run_cli import new_parser, quiet, trainer_defaults
from lit_splitmask.commands.runs import check_checkpoint
from lit_splitmask.errors import UserError


class AnyCLI(LightningCLI):
    """LightningCLI with any module and datamodule."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return new_parser(kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--predictions.path",
            type=str | None,
            default=None,
            help="where predict writes: a CSV file, a folder of PNGs, or a JSON file",
        )

    def before_predict(self) -> None:
        """Adds what writes the predictions of the module's task."""
        writer = tasks.task_of(self.model).writer(self._get(self.config, "predictions.path"))
        self.trainer.callbacks.append(writer)  # type: ignore[attr-defined]


def lightning(arguments: list[str]) -> int:
    """``lit-splitmask fit | validate | test | predict``."""
    quiet()
    checkpoint = value_of(arguments, "--ckpt_path")
    if checkpoint not in (None, "last", "best", "hpc", "null"):
        check_checkpoint(Path(str(checkpoint)))
    if checkpoint == "last":
        raise UserError("--ckpt_path last guesses a file, and trains from scratch where there is none: give the path.")
    _refuse_a_runs_config(value_of(arguments, "--config") or value_of(arguments, "-c"))
    predicts = arguments[0] == "predict"
    if predicts and value_of(arguments, "--return_predictions") is None:
        arguments = [*arguments, "--return_predictions=false"]  # they are written, and would fill the memory
    AnyCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        args=arguments,
        seed_everything_default=False,
        auto_configure_optimizers=False,
        save_config_callback=None if predicts else SaveConfigCallback,  # a prediction leaves nothing but its file
        save_config_kwargs={"overwrite": False},
        trainer_defaults=trainer_defaults() | ({"logger": False} if predicts else {}),
    )
    return 0


def _refuse_a_runs_config(path: str | None) -> None:
    """``config.yaml`` of a run is for ``pretrain`` and ``finetune``, whose module has no ``class_path``."""
    if path is None or not Path(path).is_file():
        return
    settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if isinstance(settings, dict) and "runs_dir" in settings:
        raise UserError(
            f"{path} repeats a run of pretrain or finetune. To test a fine-tuned network or to predict with it, give "
            f"{Path(path).with_name('predict.yaml')}, which finetune writes at its end."
        )
