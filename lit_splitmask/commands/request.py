"""The command line, read once: what a command must know before a parser for all settings can be built. Light."""

from collections.abc import Sequence
from dataclasses import dataclass

from lit_splitmask.commands import recipes
from lit_splitmask.config_files import settings_in
from lit_splitmask.errors import UserError

FLAGS = ("--print_config", "--help_all", "--json")
"""Options that take no value from the next argument."""

BUDGET = ("--data.budget", "--data.init_args.budget")


@dataclass(frozen=True)
class Option:
    """One option of a command line.

    Attributes:
        name: With its dashes; empty for a positional argument.
        value: None for an option without a value.
    """

    name: str
    value: str | None

    def __str__(self) -> str:
        if not self.name:
            return self.value or ""
        return self.name if self.value is None else f"{self.name}={self.value}"


@dataclass(frozen=True)
class Request:
    """A command and its options; what commands look at has an attribute, the rest goes to the parser of all settings.

    Attributes:
        command: The name of the command.
        options: As given, in order.
        root: The folder of images.
        manifest: A CSV file that lists the images.
        pool: Folders of more images without labels.
        datamodule: The class of the datamodule, without its package.
        recipe: A recipe by name or path, also if it was given as ``--config``.
        configs: Configuration files that are not recipes.
        has_config_file: Whether any ``--config`` names a file, recipe or not.
        task: What to fine-tune for.
        weights: A file of weights.
        resume: Whether a run goes on.
        name: The name of the run.
        runs_dir: Where runs are kept.
    """

    command: str
    options: tuple[Option, ...]
    root: str | None
    manifest: str | None
    pool: tuple[str, ...]
    datamodule: str | None
    recipe: str | None
    configs: tuple[str, ...]
    has_config_file: bool
    task: str | None
    weights: str | None
    resume: bool
    name: str | None
    runs_dir: str

    @classmethod
    def read(cls, command: str, arguments: Sequence[str]) -> "Request":
        """Reads the arguments of a command.

        Raises:
            UserError: More than one recipe is given.
        """
        given = _split(arguments)
        options = tuple(_without_shorthands(option) for option in given)

        def value(*names: str) -> str | None:
            """The last value of any of these options."""
            values = [option.value or "" for option in options if option.name in names]
            return values[-1] if values else None

        named = [option.value or "" for option in options if option.name == "--recipe"]
        if len(named) > 1:
            raise UserError(f"A run starts from one recipe, not from {' and '.join(named)}: give one of them.")
        class_path = value("--data", "--data.class_path")
        return cls(
            command=command,
            options=options,
            root=value("--data.root"),
            manifest=value("--data.manifest"),
            pool=_folders(value("--data.pool")),
            datamodule=None if class_path is None else class_path.rpartition(".")[2],
            recipe=named[0] if named else None,
            configs=tuple(option.value or "" for option in options if option.name == "--config"),
            has_config_file=any(
                option.name in ("--config", "-c") and option.value not in recipes.available() for option in given
            ),
            task=value("--task"),
            weights=value("--weights", "--model.weights"),
            resume=value("--resume") not in (None, "false", "False"),
            name=value("--name"),
            runs_dir=value("--runs_dir") or "runs",
        )

    def value(self, name: str) -> str | None:
        """The last value of any other option; None if it is not given."""
        return next((option.value or "" for option in reversed(self.options) if option.name == name), None)

    def has(self, *prefixes: str) -> bool:
        """Whether an option begins with one of these."""
        return any(option.name.startswith(prefixes) for option in self.options)

    @property
    def names_settings(self) -> bool:
        """Whether the request says which settings to start from, so that none need be chosen."""
        return self.recipe is not None or bool(self.configs) or self.resume

    @property
    def gives_budget(self) -> bool:
        """Whether an option sets the training budget."""
        return self.has(*BUDGET)

    @property
    def gives_length(self) -> bool:
        """Whether the user has set the length of training: by an option, or by a configuration file."""
        return self.has_config_file or self.gives_budget or self.has("--trainer.max_")

    def settings(self, *, weights_option: str | None = None) -> list[str]:
        """The options for the parser of all settings.

        Args:
            weights_option: What that parser calls ``--weights``.
        """
        kept = [option for option in self.options if option.name != "--task"]
        if weights_option is not None:
            kept = [Option(weights_option, o.value) if o.name == "--weights" else o for o in kept]
        return [str(option) for option in kept]

    def arguments(self) -> list[str]:
        """All options, as for a shell."""
        return [text for option in self.options for text in _words(option)]

    def data_options(self) -> list[str]:
        """The options that say which images, as for a shell."""
        names = ("--data", "--data.root", "--data.manifest")
        chosen = {option.name: option for option in self.options if option.name in names}
        return [text for name in names if name in chosen for text in _words(chosen[name])]


def _words(option: Option) -> list[str]:
    """An option as the words of a shell command."""
    if not option.name or option.value is None or option.name.endswith("+"):
        return [str(option)]
    return [option.name, option.value]


def _split(arguments: Sequence[str]) -> list[Option]:
    """Names and values; a value follows its option, or an equals sign."""
    options: list[Option] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not _is_option(argument):
            options.append(Option("", argument))
            continue
        name, equals, value = argument.partition("=")
        if equals:
            options.append(Option(name, value))
        elif rest and not _is_option(rest[0]) and name not in FLAGS:
            options.append(Option(name, rest.pop(0)))
        else:
            options.append(Option(name, None))
    return options


def _is_option(argument: str) -> bool:
    return argument.startswith("--") or argument.partition("=")[0] in ("-c", "-h")


def _without_shorthands(option: Option) -> Option:
    """``-c`` as ``--config``, ``--resume`` alone as ``--resume=true``, and ``--config RECIPE`` as ``--recipe RECIPE``."""
    name = "--config" if option.name == "-c" else option.name
    if name == "--resume" and option.value is None:
        return Option(name, "true")
    if name == "--config" and is_recipe(option.value or ""):
        return Option("--recipe", option.value)
    return Option(name, option.value)


def is_recipe(config: str) -> bool:
    """Whether a configuration is the name of a recipe, or a file that starts from one and is not the saved one of a run."""
    if config in recipes.available():
        return True
    try:
        settings = settings_in(config)
    except UserError:
        return False  # the parser of all settings reports what is wrong
    return bool(settings.get("recipe")) and "runs_dir" not in settings


def _folders(value: str | None) -> tuple[str, ...]:
    """The folders of ``--data.pool``: ``[a, b]`` or a single one."""
    folders = (part.strip().strip("'\"") for part in (value or "").strip("[] ").split(","))
    return tuple(folder for folder in folders if folder)
