"""LightningCLI's own ``fit | validate | test | predict``, with any module and datamodule."""

from pathlib import Path
from typing import Any

from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lit_splitmask import callbacks
from lit_splitmask.commands.arguments import value_of
from lit_splitmask.commands.run_cli import new_parser, quiet, trainer_defaults
from lit_splitmask.commands.runs import check_checkpoint
from lit_splitmask.errors import UserError


class AnyCLI(LightningCLI):
    """LightningCLI with any module and datamodule."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return new_parser(kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(callbacks.PredictionWriter, "predictions")


def lightning(arguments: list[str]) -> int:
    """``lit-splitmask fit | validate | test | predict``."""
    quiet()
    checkpoint = value_of(arguments, "--ckpt_path")
    if checkpoint not in (None, "last", "best", "hpc", "null"):
        check_checkpoint(Path(str(checkpoint)))
    if checkpoint == "last":
        raise UserError("--ckpt_path last guesses a file, and trains from scratch where there is none: give the path.")
    AnyCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        args=arguments,
        seed_everything_default=False,
        auto_configure_optimizers=False,
        save_config_kwargs={"overwrite": False},
        trainer_defaults=trainer_defaults(),
    )
    return 0
