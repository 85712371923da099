"""The command line, read once: what a command must know before it can build the parser of all settings. Light."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lit_splitmask.commands import recipes
from lit_splitmask.config_files import settings_in
from lit_splitmask.errors import UserError

FLAGS = ("--print_config", "--help_all", "--json", "--no_timing", "--hours", "--dry_run", "--help", "-h")
"""Options that take no value from the next argument."""

TAKE_A_FOLDER = (
    "plan",
    "pretrain",
    "finetune",
    "compare",
    "probe",
    "embed",
    "shard",
    "fit",
    "validate",
    "test",
    "predict",
)
"""Commands after which a folder of images may stand alone, without ``--data.root``."""

TASK_LAYOUTS = {"segmentation": "segment", "coco": "detect"}
"""Values of ``--layout`` that stand for a task."""


@dataclass(frozen=True)
class Option:
    """One option of a command line.

    Attributes:
        name: Name with its dashes; empty for a positional argument.
        value: Value; None for an option without one.
    """

    name: str
    value: str | None

    @property
    def key(self) -> str:
        """The name without ``init_args``, which may be left out."""
        return _without_init_args(self.name)

    def __str__(self) -> str:
        """The option as one word."""
        if not self.name:
            return self.value or ""
        return self.name if self.value is None else f"{self.name}={self.value}"

    def words(self) -> list[str]:
        """The option as a shell command has it: name and value apart, where that means the same."""
        if not self.name or self.value is None or self.name.endswith("+") or self.name in FLAGS:
            return [str(self)]
        return [str(self)] if _is_option(self.value) else [self.name, self.value]


@dataclass(frozen=True)
class Request:
    """A command and its options. What a command must know first has a property here; the parser reads the rest.

    Attributes:
        command: Name of the command.
        given: The options as given, in order.
    """

    command: str
    given: tuple[Option, ...]

    @classmethod
    def read(cls, command: str, arguments: Sequence[str]) -> "Request":
        """Reads the arguments of a command.

        Raises:
            UserError: More than one recipe is given, or a folder alone beside another.
        """
        request = cls(command, tuple(_split(arguments)))
        folders = [option.value or "" for option in request.given if option.key in ("", "--data.root")]
        if command in TAKE_A_FOLDER and len(folders) > 1 and "" in {option.name for option in request.given}:
            raise UserError(
                f"{command} takes one folder of images, but was given {' and '.join(folders)}: give one of them."
            )
        named = [option.value or "" for option in request.options if option.name == "--recipe"]
        if len(named) > 1:
            raise UserError(f"A run starts from one recipe, not from {' and '.join(named)}: give one of them.")
        return request

    @cached_property
    def options(self) -> tuple[Option, ...]:
        """The options with shorthands written out. A folder that stands alone is that of the images."""
        written = [_written_out(option) for option in self.given]
        if self.command in TAKE_A_FOLDER:
            alone = [Option("--data.root", option.value) for option in written if not option.name]
            written = [
                *(option for option in written if option.name),
                *alone,
            ]  # after the class of the images, if one is given
        return tuple(written)

    def value(self, *names: str) -> str | None:
        """The last value of any of these options; None if none is given."""
        return next((option.value or "" for option in reversed(self.options) if option.key in names), None)

    def has(self, *prefixes: str) -> bool:
        """Whether the name of an option begins with one of these."""
        return any(option.key.startswith(prefixes) for option in self.options)

    @property
    def root(self) -> str | None:
        """The folder of images."""
        return self.value("--data.root")

    @property
    def manifest(self) -> str | None:
        """The CSV file that lists the images."""
        return self.value("--data.manifest")

    @property
    def pool(self) -> tuple[str, ...]:
        """Folders of more images without labels: those of the last ``--data.pool``, and what ``--data.pool+`` adds."""
        folders: tuple[str, ...] = ()
        for option in self.options:
            if option.key == "--data.pool":
                folders = _folders(option.value)
            elif option.key == "--data.pool+":
                folders += _folders(option.value)
        return folders

    @property
    def label_share(self) -> float:
        """The share of the labels to use; 1 if none is given, or no number (the parser of all settings reports that)."""
        try:
            return float(self.value("--data.label_share") or 1)
        except ValueError:
            return 1.0

    @property
    def datamodule(self) -> str | None:
        """The class of the datamodule, without its package."""
        class_path = self.value("--data", "--data.class_path")
        return None if class_path is None else class_path.rpartition(".")[2]

    @property
    def predicts_numbers(self) -> bool:
        """Whether the images are a list of numbers to predict."""
        return self.has("--data.target") or self.datamodule == "RegressionManifest"

    @property
    def recipe(self) -> str | None:
        """The recipe by name or path, also if it was given as ``--config``."""
        return self.value("--recipe")

    @property
    def configs(self) -> tuple[str, ...]:
        """Configuration files, or settings as text, that are not recipes."""
        return tuple(option.value or "" for option in self.options if option.name == "--config")

    @property
    def task(self) -> str | None:
        """What to fine-tune for."""
        return self.value("--task")

    @property
    def layout(self) -> str | None:
        """What the folder is, in the user's words."""
        return self.value("--layout", "--data.splits.layout")

    @property
    def weights(self) -> str | None:
        """The file of weights."""
        return self.value("--weights", "--model.weights")

    @property
    def auxiliary(self) -> str | None:
        """The objective to train beside the labels."""
        return self.value("--model.auxiliary", "--model.auxiliary.class_path")

    @property
    def resume(self) -> bool:
        """Whether a run is to be continued."""
        return (self.value("--resume") or "").lower() in ("true", "yes")

    @property
    def name(self) -> str | None:
        """The name of the run."""
        return self.value("--name")

    @property
    def runs_dir(self) -> str:
        """The folder of all runs."""
        return self.value("--runs_dir") or "runs"

    @property
    def names_settings(self) -> bool:
        """Whether the request says which settings to start from, so that no recipe need be chosen."""
        return self.recipe is not None or bool(self.configs) or self.resume

    @property
    def gives_budget(self) -> bool:
        """Whether an option sets the training budget."""
        return any(names_budget(option.name) for option in self.options)

    @property
    def gives_length(self) -> bool:
        """Whether the user has set the length of training, by an option or by a file of their own."""
        own_file = any(o.name in ("--config", "-c") and o.value not in recipes.available() for o in self.given)
        return own_file or self.gives_budget or self.has("--trainer.max_")

    def settings(self, *, weights_option: str = "--weights") -> list[str]:
        """The options for the parser of all settings.

        Args:
            weights_option: What that parser calls ``--weights``.

        Raises:
            UserError: A configuration file cannot be read; jsonargparse would wait for a pipe, or raise what Python does.
        """
        for config in self.configs:
            settings_in(config)
        names = {"--weights": weights_option, "--layout": "--data.splits.layout"}
        renamed = [Option(names.get(option.name, option.name), option.value) for option in self.options]
        return [str(option) for option in renamed if option.name != "--task" and not _is_task_layout(option)]

    def arguments(self) -> list[str]:
        """The options as given, for a shell."""
        return [word for option in self.given for word in option.words()]

    def data_options(self) -> list[str]:
        """The options that say which images and classes, for a shell."""
        last = {option.key: option for option in self.options}
        names = ("--data", "--data.root", "--data.manifest", "--data.target", "--layout", "--data.splits.layout")
        kept = [last[name] for name in names if name in last]
        labels = last.get("--data.splits.labels")
        kept += [labels] if labels is not None and labels.value == "several" else []
        return [word for option in kept for word in option.words()]


def names_budget(argument: str) -> bool:
    """Whether an argument is an option of the training budget."""
    return _without_init_args(argument).startswith("--data.budget")


def is_recipe(config: str) -> bool:
    """Whether a configuration is the name of a recipe, or a file that starts from one; the saved one of a run is not."""
    if config in recipes.available():
        return True
    try:
        settings = settings_in(config)
    except UserError:
        return False  # Request.settings reports what is wrong
    return bool(settings.get("recipe")) and "runs_dir" not in settings


def _is_task_layout(option: Option) -> bool:
    """Whether it is a layout that another datamodule than ImageFolder reads."""
    return option.name == "--data.splits.layout" and option.value in TASK_LAYOUTS


def _without_init_args(name: str) -> str:
    return name.replace(".init_args.", ".")


def _split(arguments: Sequence[str]) -> list[Option]:
    """Names and values; a value follows its option, or an equals sign."""
    options: list[Option] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if not _is_option(argument):
            options.append(Option("", argument))
        elif equals:
            options.append(Option(name, value))
        elif rest and not _is_option(rest[0]) and name not in FLAGS:
            options.append(Option(name, rest.pop(0)))
        else:
            options.append(Option(name, None))
    return options


def _is_option(argument: str) -> bool:
    return argument.startswith("--") or argument.partition("=")[0] in ("-c", "-h")


def _written_out(option: Option) -> Option:
    """Shorthands written out.

    ``-c`` is ``--config``, ``--auxiliary`` is ``--model.auxiliary``, ``--resume`` alone is ``--resume=true``, and
    ``--config RECIPE`` is ``--recipe RECIPE``.
    """
    if option == Option("--resume", None):
        return Option("--resume", "true")
    if option.name == "--auxiliary" or option.name.startswith("--auxiliary."):
        return Option(option.name.replace("--", "--model.", 1), option.value)
    if option.name not in ("-c", "--config"):
        return option
    return Option("--recipe" if is_recipe(option.value or "") else "--config", option.value)


def _folders(value: str | None) -> tuple[str, ...]:
    """The folders in ``[a, b]``, or a single one."""
    folders = (part.strip().strip("'\"") for part in (value or "").strip("[] ").split(","))
    return tuple(folder for folder in folders if folder)
