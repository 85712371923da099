"""Reads the recipes: those of the package and files, merged over those that they start from. Light."""

from difflib import get_close_matches
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

from lit_splitmask.config_files import read_settings
from lit_splitmask.errors import UserError
from lit_splitmask.files import is_file

if TYPE_CHECKING:
    from lit_splitmask.commands.request import Request


def available() -> list[str]:
    """Names of the built-in recipes."""
    return sorted(
        f.name.removesuffix(".yaml") for f in files("lit_splitmask.recipes").iterdir() if f.name.endswith(".yaml")
    )


def read(name: str, from_: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings of a built-in recipe or of a YAML file, merged over those of the ``recipe`` that it starts from, if any.

    Args:
        name: Name of the built-in recipe, or path of the file.
        from_: The recipes that lead to it, the first one first.

    Raises:
        UserError: There is no such recipe, the file is not valid YAML, or recipes start from each other in a circle.
    """
    if name in from_:
        raise UserError(
            f"The recipes {' and '.join(from_)} start from each other in a circle: let one of them start from another."
            if len(from_) > 1
            else f"The recipe {name} starts from itself: let it start from another, or leave out its `recipe`."
        )
    builtin = files("lit_splitmask.recipes") / f"{name}.yaml"
    if not builtin.is_file() and not is_file(name):
        close = get_close_matches(name, available(), n=5, cutoff=0.4)
        hint = f" Similar names: {', '.join(close)}." if close else ""
        raise UserError(
            f"There is no recipe {name!r}: give the path of a file, or a name that lit-splitmask recipes lists.{hint}"
        )
    with as_file(builtin) as path:
        return _with_base(read_settings(path if path.is_file() else name), (*from_, name))


def check_command(name: str, settings: dict[str, Any], command: str) -> None:
    """Checks that a recipe is for a command; a file could be for ``pretrain`` or ``finetune``.

    Args:
        name: Name or path of the recipe.
        settings: Its settings.
        command: ``pretrain`` or ``finetune``.

    Raises:
        UserError: It is for another command.
    """
    if "grid" in settings:
        intended = "compare"
    elif name in available():
        intended = "pretrain" if "objective" in settings.get("model", {}) else "finetune"
    else:
        return
    if intended != command:
        raise UserError(
            f"{name} is a recipe for {intended}, not for {command}: give another one (lit-splitmask recipes lists them)."
        )


def _with_base(settings: dict[str, Any], from_: tuple[str, ...] = ()) -> dict[str, Any]:
    """Settings merged over those of the ``recipe`` that they name, if any."""
    base = settings.get("recipe")
    own = {key: value for key, value in settings.items() if key != "recipe"}
    if base and not isinstance(base, str):
        raise UserError(f"The setting recipe is {base!r}, but must be the name of a recipe or the path of a file.")
    return _merged(read(base, from_), own) if base else own


COMPARISON_KEYS = ("pretrain", "finetune", "grid")


def comparison(name: str) -> dict[str, Any]:
    """A comparison recipe: the settings of ``pretrain`` and ``finetune``, and the ``grid`` over which every arm is tuned.

    In the file, ``pretrain`` and ``finetune`` are names of recipes, or settings that may start from a ``recipe``. ``joint`` and
    ``self_training`` may be left out; each is a name, or settings over those of ``finetune``. ``methods`` is the suffix of other
    methods' recipes. ``tune_seeds`` is the number of seeds to tune with, the first ones; all of them if it is left out.

    Raises:
        UserError: There is no such recipe, or it is not for ``compare``.
    """
    recipe = read(name)
    missing = [key for key in COMPARISON_KEYS if key not in recipe]
    if missing:
        raise UserError(
            f"The recipe {name} is not for compare: it lacks {', '.join(missing)}. Give one whose name begins with compare "
            "(lit-splitmask recipes lists them)."
        )
    tuning = recipe.get("tune_seeds", 1)
    if type(tuning) is not int or tuning < 1:
        raise UserError(f"The recipe {name} has tune_seeds: {tuning!r}; it must be a number of seeds, at least 1.")
    for part in ("pretrain", "finetune"):
        recipe[part] = _with_base({"recipe": recipe[part]} if isinstance(recipe[part], str) else recipe[part])
    for part in ("joint", "self_training"):
        if beside := recipe.get(part):
            recipe[part] = read(beside) if isinstance(beside, str) else _merged(recipe["finetune"], beside)
    return recipe


def pretraining_recipes() -> list[str]:
    """Names of the built-in pre-training recipes."""
    return [name for name in available() if "objective" in read(name).get("model", {})]


def with_method(pretraining: dict[str, Any], method: str, suffix: str | None) -> dict[str, Any]:
    """The settings of a pre-training, changed to another method.

    Objective, optimizer, augmentation, drop path and clipping are the method's own. Network, image size, batch, flips, and the
    tokenizer of a method that has one stay.

    Args:
        pretraining: Settings of the pre-training.
        method: Name of the method, such as ``mae``.
        suffix: Suffix of the method's recipe: ``mae_<suffix>``.

    Raises:
        UserError: There is no recipe for the method.
    """
    ending = f"_{suffix}" if suffix else ""
    name = method + ending
    theirs = read(name) if name in available() else {}
    if "objective" not in theirs.get("model", {}):
        known = [recipe.removesuffix(ending) for recipe in pretraining_recipes() if recipe.endswith(ending)]
        choices = [other for other in known if "_" not in other]
        raise UserError(f"There is no method {method!r} to compare with: choose one of {', '.join(choices)}.")
    images = {**pretraining["data"]["init_args"], "augment": theirs["data"]["init_args"]["augment"]}
    settings = images["augment"].setdefault("init_args", {})
    flip = pretraining["data"]["init_args"].get("augment", {}).get("init_args", {}).get("hflip")
    if flip is not None:
        crops = ("first", "second", "local") if images["augment"]["class_path"] == "MultiCrop" else ()
        for crop_settings in [settings.setdefault(crop, {}) for crop in crops] or [settings]:
            crop_settings["hflip"] = flip
    backbone = dict(pretraining["model"].get("backbone", {}))
    if "local_size" in settings:
        patch = backbone.get("patch_size", 16)
        share = settings["local_size"] / theirs["data"]["init_args"]["image_size"]
        settings["local_size"] = max(1, round(share * images["image_size"] / patch)) * patch
    backbone["drop_path"] = theirs["model"].get("backbone", {}).get("drop_path", 0.0)
    objective = theirs["model"]["objective"]
    tokenizer = pretraining["model"]["objective"].get("init_args", {}).get("tokenizer")
    if tokenizer is not None and "tokenizer" in objective.get("init_args", {}):
        objective["init_args"]["tokenizer"] = tokenizer
    model = {**pretraining["model"], "backbone": backbone, "objective": objective, "optim": theirs["model"]["optim"]}
    clipping = {"gradient_clip_val": theirs.get("trainer", {}).get("gradient_clip_val")}
    trainer = {**pretraining.get("trainer", {}), **clipping}
    return {**pretraining, "model": model, "data": {**pretraining["data"], "init_args": images}, "trainer": trainer}


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``over``; nested dicts are merged.

    Arguments of another class replace those of the base; only datamodules share theirs. A budget replaces that of the base, since
    it has only one number.
    """
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        same = both and (key == "data" or value.get("class_path") in (None, result[key].get("class_path")))
        result[key] = _merged(result[key], value) if same and key != "budget" else value
    return result


def methods() -> dict[str, str]:
    """Names of the pre-training methods that have a recipe for GPUs and one for CPUs, and the classes of their objectives."""
    names = available()
    models = {name: read(name).get("model", {}) for name in names if f"{name}_cpu" in names}
    return {
        name: model["objective"]["class_path"].rpartition(".")[2]
        for name, model in models.items()
        if "objective" in model
    }


def list_recipes(request: "Request") -> int:
    """``lit-splitmask recipes``: prints the first comment line of each recipe.

    Raises:
        UserError: An option is given.
    """
    if request.options:
        raise UserError(f"recipes takes no options, but was given {' '.join(request.arguments())}.")
    for name in available():
        text = (files("lit_splitmask.recipes") / f"{name}.yaml").read_text()
        print(f"{name:24s} {text.splitlines()[0].lstrip('# ')}")
    return 0
