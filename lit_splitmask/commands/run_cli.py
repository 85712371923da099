"""LightningCLI for one run: a fixed module, a folder for the run, and a recipe that every option overrides."""

import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
import yaml
from jsonargparse import ActionConfigFile, set_config_read_mode
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_splitmask import modules
from lit_splitmask.callbacks.whole_checkpoints import write_whole_checkpoints
from lit_splitmask.commands.config_classes import check_classes
from lit_splitmask.commands.parser import CONFIG_MODE, Parser
from lit_splitmask.commands.processes import RANKS, launched
from lit_splitmask.commands.request import names_budget
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.config_files import settings_in
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.errors import UserError
from lit_splitmask.files import write_atomically
from lit_splitmask.shell import wrapped

set_config_read_mode(fsspec_enabled=False)  # Lightning's default would open URLs given as files

IGNORED_WARNINGS = [  # advice by Lightning that does not apply here
    ".*does not have many workers.*",
    ".*is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
    ".*`tensorboardX` has been removed.*",
    ".*you defined a `validation_step` but have no `val_dataloader`.*",
    ".*You are trying to `self.log\\(\\)` but the `self.trainer` reference.*",
    ".*Found .* module\\(s\\) in eval mode at the start of training.*",
    ".*GPU available but not used.*",
    ".*You have overridden `transfer_batch_to_device` in `LightningModule`.*",
    ".*Experiment logs directory .* exists and is not empty.*",
    ".*LightningCLI's args parameter is intended.*",
    ".*You're using the WeightAveraging callback with a model that overrides.*",  # no layers are sharded
]


class _ToTerminal(logging.StreamHandler[TextIO]):
    """Writes messages as :func:`~lit_splitmask.shell.say` does, and above a progress bar that is shown."""

    def format(self, record: logging.LogRecord) -> str:
        return wrapped(record.getMessage())

    @property
    def stream(self) -> TextIO:
        """What ``sys.stderr`` is now: rich replaces it while a bar is shown."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """Keeps nothing of the ``sys.stderr`` of the beginning."""


def _say_unless_raised_again(error: threading.ExceptHookArgs) -> None:
    """Prints the error of a thread, but not of TensorBoard's, which raises it again where the training writes next."""
    if type(error.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(error)


def quiet() -> None:
    """Silences advice that does not concern the user; other warnings stay."""
    for pattern in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)
    threading.excepthook = _say_unless_raised_again
    for name in ("lightning.pytorch", "lightning.fabric", "litdata"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not logging.getLogger().handlers:
        level = logging.INFO if is_process_zero() else logging.ERROR  # the others would say the same
        logging.basicConfig(level=level, handlers=[_ToTerminal()])
        for name in ("faiss", "matplotlib", "PIL"):
            logging.getLogger(name).setLevel(logging.WARNING)


def is_process_zero() -> bool:
    """Whether this process prints and writes for all processes of a run."""
    return not getattr(rank_zero_only, "rank", 0)


def best_precision() -> str:
    """``bf16-mixed`` where the hardware computes in bfloat16, otherwise ``32-true``."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"


def new_parser(settings: dict[str, Any]) -> Parser:
    """LightningCLI's parser with this project's errors."""
    parser = Parser(parser_mode=CONFIG_MODE, allow_abbrev=False, **settings)
    parser.add_argument("--help_all", action="help", help="list all options")
    parser.add_argument(
        "-c", "--config", action=ActionConfigFile, help="YAML file of settings; may be given several times"
    )
    return parser


def instantiate(parser: LightningArgumentParser, config: Any) -> Any:
    """Builds the objects that a configuration describes.

    Raises:
        UserError: The configuration names a function or a class of a kind that is not for it, or :func:`short_errors` raises it.
    """
    check_classes(config)
    with short_errors():
        return parser.instantiate(config)


@contextmanager
def short_errors() -> Iterator[None]:
    """Leaves out jsonargparse's report of every type that it tried to build.

    Raises:
        UserError: A constructor raised it; or a logger could not be built, because its package is not installed, for example.
    """
    try:
        yield
    except Exception as error:
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(cause)
        for cause in chain:
            if isinstance(cause, UserError):
                raise cause from None
        if f"Subtypes: [{Logger}" in str(error) or f"Iterable[{Logger.__module__}" in str(error):
            raise UserError(f"trainer.logger cannot be built. {chain[-1]}") from error
        raise


class RunCLI(LightningCLI):
    """One run of a fixed module class with any datamodule.

    Args:
        module: Class of the module.
        arguments: Options, which override the recipe.
        recipe: The settings of lowest priority.
    """

    def __init__(self, module: type[LightningModule], arguments: list[str], recipe: dict[str, Any]) -> None:
        if any(map(_sets_length, arguments)):
            recipe = _without_budget(recipe)  # otherwise the recipe's passes would join the user's steps
        with tempfile.TemporaryDirectory() as directory:
            defaults = Path(directory) / "recipe.yaml"
            defaults.write_text(yaml.safe_dump(recipe))
            super().__init__(
                module,
                ImageData,
                subclass_mode_data=True,
                run=False,
                args=["--config", str(defaults), *arguments],
                save_config_callback=None,
                seed_everything_default=False,
                auto_configure_optimizers=False,
            )

    @property
    def command(self) -> str:
        """The command that trains this module."""
        return "pretrain" if self.model_class is modules.Pretrain else "finetune"

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return new_parser(kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name", type=str | None, default=None, help="name of the run: its folder under --runs_dir"
        )
        parser.add_argument("--runs_dir", type=str, default="runs", help="folder of all runs")
        parser.add_argument(
            "--resume", type=bool, default=False, help="continue the run --name from its last checkpoint"
        )
        parser.add_argument(
            "--recipe", type=str | None, default=None, help="recipe by name or path (see: lit-splitmask recipes)"
        )
        if self.model_class is modules.Pretrain:
            parser.link_arguments("data.init_args.image_size", "model.backbone.image_size")
            parser.link_arguments("data.init_args.channels", "model.backbone.in_chans")
            return
        parser.add_argument(
            "--monitor", type=str | None, default=None, help="score by which the best epoch is kept, such as val/loss"
        )
        parser.add_argument(
            "--early_stopping",
            type=int | None,
            default=None,
            help="stop after this many validations without a better score",
        )
        parser.add_argument(
            "--moving_average",
            type=float | None,
            default=None,
            help="keep the weights' moving average, over this share of the steps (0: off, whatever the recipe says)",
        )

    def instantiate_classes(self) -> None:
        """Builds nothing: :meth:`build` does, once the folder of the run is known."""

    def build(
        self, folder: RunFolder, extra: list[Callback], without: tuple[type[Callback], ...] = ()
    ) -> tuple[Trainer, LightningModule, ImageData]:
        """Builds the trainer, the module and the datamodule.

        Args:
            folder: The folder of the run, for logs and checkpoints.
            extra: Callbacks besides those in the settings.
            without: Classes of callbacks that are left out of the settings.

        Raises:
            UserError: A setting is out of range, or settings do not fit together.
        """
        self.config_init = instantiate(self.parser, self.config)
        settings = dict(self.config_init["trainer"])
        if settings.get("enable_progress_bar") is False:
            extra = [callback for callback in extra if not isinstance(callback, ProgressBar)]
        configured = [one for one in settings.get("callbacks") or [] if not isinstance(one, without)]
        settings["callbacks"] = [*configured, *extra]
        settings["logger"] = loggers(settings.get("logger"), folder)
        settings["default_root_dir"] = str(folder.path)
        fit_to_launcher(settings, os.environ)
        trainer = build_trainer(settings)
        write_whole_checkpoints(trainer)
        return trainer, self.config_init["model"], self.config_init["data"]

    def log_settings(self, trainer: Trainer) -> None:
        """Gives the user's own loggers the resolved settings, by which W&B and MLflow tell runs apart."""
        settings = yaml.safe_load(self.parser.dump(self.config, skip_none=False, skip_link_targets=True))
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger | TensorBoardLogger):  # beside these is config.yaml
                logger.log_hyperparams(settings)

    def save_resolved(self, folder: RunFolder) -> None:
        """Writes the resolved settings, from which the run can be repeated or resumed."""
        text = self.parser.dump(self.config, skip_none=False, skip_link_targets=True)
        write_atomically(folder.config, text.encode())


def loggers(given: Any, folder: RunFolder) -> list[Logger] | bool:
    """The loggers of a run: those that were given, or TensorBoard's; and ``metrics.csv``, which reports and plots read.

    Args:
        given: The trainer's setting: a logger, several, False for none, True or None for the default.
        folder: The folder of the run.
    """
    if given is False:
        return False
    metrics = CSVLogger(str(folder.path), name="", version="")
    if given in (None, True):
        return [metrics, TensorBoardLogger(str(folder.path), name="tensorboard", version="")]
    return [*([given] if isinstance(given, Logger) else given), metrics]


def fit_to_launcher(settings: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Gives the trainer the processes that torchrun or SLURM started, unless the user has said how many they are.

    Args:
        settings: The trainer's settings, which are changed.
        environment: The environment variables.

    Raises:
        UserError: There are several nodes, but no launcher started this process.
    """
    started = launched(environment)
    if started is not None:
        if settings.get("devices") in (None, "auto"):
            settings["devices"] = started.per_node
        if settings.get("num_nodes") in (None, 1):
            settings["num_nodes"] = started.nodes
    elif settings.get("num_nodes") not in (None, 1) and not any(name in environment for name in RANKS):
        raise UserError(
            f"trainer.num_nodes is {settings['num_nodes']}, but a command starts processes on its own node only: run it on "
            "each node with torchrun, or on all of them with srun (docs/guide/nodes.md has both command lines)."
        )


def build_trainer(settings: dict[str, Any]) -> Trainer:
    """Builds the trainer.

    Raises:
        UserError: Weights would be in float16, which does not train; or Lightning refuses the settings.
    """
    if settings.get("precision") in ("16-true", "fp16-true"):
        raise UserError(
            "trainer.precision is 16-true, but weights in float16 do not train: their small updates are lost. Give 16-mixed, "
            "bf16-mixed or 32-true."
        )
    try:
        return Trainer(**settings)
    except (ValueError, TypeError, ImportError, MemoryError, RuntimeError, MisconfigurationException) as error:
        raise UserError(f"Lightning's Trainer rejects these settings: {error or type(error).__name__}") from error


def _sets_length(argument: str) -> bool:
    """Whether an option, or the file of settings that it names, sets the length of training in a way of its own."""
    name, _, value = argument.partition("=")
    if name == "--config":
        images = (settings_in(value).get("data") or {}).get("init_args") or {}
        return "budget" in images
    return names_budget(argument) or (name == "--trainer.max_steps" and value != "-1")


def _without_budget(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without its budget."""
    data = recipe.get("data", {})
    settings = {name: value for name, value in data.get("init_args", {}).items() if name != "budget"}
    return {**recipe, "data": {**data, "init_args": settings}} if data else recipe


def trainer_defaults() -> dict[str, Any]:
    """The trainer's settings that a recipe overrides."""
    return {
        "max_epochs": -1,
        "precision": best_precision(),
        "log_every_n_steps": 10,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
    }


def last_checkpoint(folder: RunFolder) -> ModelCheckpoint:
    """Writes ``last.ckpt`` after every epoch; Lightning's ``save_last`` would write only epochs that are among the best."""
    return ModelCheckpoint(
        str(folder.checkpoints), filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
