"""Finds recipes, and chooses one for a folder of images."""

import math
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_splitmask.config_files import read_settings
from lit_splitmask.errors import UserError

if TYPE_CHECKING:
    from lit_splitmask.commands.request import Request

TRAINING_SHARE = 0.8
"""Of a folder's images, about."""

SMALL_SET = 50_000
"""Below so many images the small-set recipe is taken; the paper's small sets have 8,144 to 52,867 (Table 3)."""


FEW_ANNOTATED = 10_000
"""Below so many images with label maps or boxes, the schedules of ADE20K and COCO are not taken as they are."""


@dataclass(frozen=True)
class Choice:
    """A recipe and why it was chosen.

    Attributes:
        num_images: that it is for, training images and others; None where it was not chosen for a folder.
    """

    name: str
    reason: str
    num_images: int | None = None

    def settings(self) -> tuple[dict[str, Any], str]:
        """The recipe's settings, with a batch that holds no image twice, and the reason with what was changed for that."""
        recipe = read(self.name)
        changed = None if self.num_images is None else fit_to_images(recipe, self.num_images)
        return recipe, self.reason + (f"; {changed}" if changed else "")


def available() -> list[str]:
    """Names of the recipes that are shipped."""
    return sorted(
        f.name.removesuffix(".yaml") for f in files("lit_splitmask.recipes").iterdir() if f.name.endswith(".yaml")
    )


def read(name: str) -> dict[str, Any]:
    """A shipped recipe by name, or a YAML file by path; one that starts from another ``recipe`` is merged with it."""
    builtin = files("lit_splitmask.recipes") / f"{name}.yaml"
    if not builtin.is_file() and not Path(name).is_file():
        raise UserError(f"There is no recipe {name!r}: give a path, or one of {', '.join(available())}.")
    with as_file(builtin) as path:
        return _with_base(read_settings(path if path.is_file() else name))


def _with_base(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings merged over those of the ``recipe`` that they name, if they do."""
    base = settings.get("recipe")
    own = {key: value for key, value in settings.items() if key != "recipe"}
    return _merged(read(base), own) if base else own


def choose(num_images: int, median_side: int, gpu: bool) -> Choice:
    """The pre-training recipe for a folder: a pure function of what was found.

    Args:
        num_images: images in the folder.
        median_side: median of the images' shorter side, in pixels.
        gpu: whether there is an accelerator.
    """
    if median_side < 40:
        name, why = "splitmask_tiny_images", ": they are tiny, so the network looks at 32 px in patches of 4"
    elif not gpu:
        name, why = "splitmask_cpu", " and no GPU: a small network at 48 px that two CPU cores can train"
    elif num_images < SMALL_SET:
        name, why = "splitmask_own", f": fewer than {SMALL_SET:,}, so the paper's masks and augmentation for small sets"
    else:
        name, why = "splitmask_own_large", ": enough for the paper's masks and augmentation for large sets"
    return Choice(name, f"{num_images:,} images of about {median_side} px{why}", num_images)


def finetuning(pretraining: str) -> Choice:
    """The fine-tuning recipe that goes with a pre-training recipe."""
    for kind in ("finetune", "segment"):
        partner = pretraining.replace("splitmask", kind, 1)
        if partner != pretraining and partner in available():
            return Choice(partner, f"made for the network of {pretraining}")
    if pretraining.endswith("_cpu"):
        return Choice("finetune_cpu", f"made for the network of {pretraining}")
    return Choice("finetune", "the paper's fine-tuning recipe (Table 9, small sets)")


def choose_segmentation(num_images: int, gpu: bool) -> Choice:
    """The recipe for images with label maps."""
    if gpu and num_images < FEW_ANNOTATED:
        return Choice("segment_own", f"fewer than {FEW_ANNOTATED:,} images, so an eighth of ADE20K's steps")
    if gpu:
        return Choice("segment_ade20k", "the paper's for ADE20K (Table 5); --data.budget.steps shortens it")
    return Choice("segment_cpu", "no GPU: a small network on crops of 96 px that two CPU cores can train")


def choose_detection(num_images: int, gpu: bool) -> Choice:
    """The recipe for images with boxes."""
    if gpu and num_images < FEW_ANNOTATED:
        return Choice(
            "detect_own", f"fewer than {FEW_ANNOTATED:,} images, so a number of steps instead of COCO's passes"
        )
    if gpu:
        return Choice("detect_coco_3x", "the paper's for COCO (Table 4); --data.budget.passes shortens it")
    return Choice("detect_cpu", "no GPU: a small network on images of 160 px that two CPU cores can train")


def fit_to_images(recipe: dict[str, Any], num_images: int) -> str:
    """Makes a recipe's batch hold no image twice, where a folder has so few; says what was changed.

    Args:
        num_images: images in the folder, those for training and others.
    """
    images = recipe.get("data", {}).get("init_args", {})
    wanted, most = images.get("batch_size", 0), 2 ** int(math.log2(max(2, TRAINING_SHARE * num_images)))
    if wanted <= most:
        return ""
    images["batch_size"] = most
    return f"in batches of {most}, since its {wanted} are more than the training images"


def fit_to_weights(recipe: dict[str, Any], timm_args: dict[str, Any], *, size: bool = True) -> None:
    """Makes a recipe's images those that weights were trained on: their number of channels, and their ``size``."""
    images = recipe.setdefault("data", {}).setdefault("init_args", {})
    images["channels"] = timm_args["in_chans"]
    if size:
        images["image_size"] = timm_args["img_size"]


COMPARISONS = ("pretrain", "finetune", "grid")


def comparison(name: str) -> dict[str, Any]:
    """A comparison recipe: the settings of ``pretrain`` and ``finetune``, and the ``grid`` that both arms are tuned over.

    ``pretrain`` and ``finetune`` may be names of recipes, or settings; settings may start from a ``recipe`` by name. ``methods``
    is the suffix of the recipes of other methods for the same network.
    """
    recipe = read(name)
    missing = [key for key in COMPARISONS if key not in recipe]
    if missing:
        raise UserError(f"The recipe {name} is not one for compare: it lacks {', '.join(missing)}.")
    for part in ("pretrain", "finetune"):
        recipe[part] = _with_base({"recipe": recipe[part]} if isinstance(recipe[part], str) else recipe[part])
    return recipe


def pretraining_recipes() -> list[str]:
    """Names of the recipes that are shipped for pre-training."""
    return [name for name in available() if "objective" in read(name).get("model", {})]


def with_method(pretraining: dict[str, Any], method: str, suffix: str | None) -> dict[str, Any]:
    """A pre-training by another method: its objective, optimizer, augmentation and clipping; network, image size and batch stay.

    So does what the comparison is not about: a tokenizer for a method that has one, and whether images are flipped.

    Args:
        pretraining: settings.
        method: ``mae``, say, of which there is a recipe.
        suffix: the recipe is ``mae_<suffix>`` then.
    """
    ending = f"_{suffix}" if suffix else ""
    name = method + ending
    if name not in pretraining_recipes():
        known = [one.removesuffix(ending) for one in pretraining_recipes() if one.endswith(ending)]
        raise UserError(
            f"There is no method {method!r} to compare with: choose among {', '.join(one for one in known if '_' not in one)}."
        )
    theirs = read(name)
    images = {**pretraining["data"]["init_args"], "augment": theirs["data"]["init_args"]["augment"]}
    settings = images["augment"].setdefault("init_args", {})
    flip = pretraining["data"]["init_args"].get("augment", {}).get("init_args", {}).get("hflip")
    if flip is not None:
        crops = ("first", "second", "local") if images["augment"]["class_path"] == "MultiCrop" else ()
        for one in [settings.setdefault(crop, {}) for crop in crops] or [settings]:
            one["hflip"] = flip
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
    """``base`` with the values of ``over``, nested dicts merged.

    Another class brings its own arguments; only datamodules share theirs.
    """
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        same = both and (key == "data" or value.get("class_path") in (None, result[key].get("class_path")))
        result[key] = _merged(result[key], value) if same else value
    return result


def methods() -> dict[str, str]:
    """The pre-training methods with recipes for GPUs and for CPUs: their names, and the classes of their objectives."""
    names = available()
    both = [name for name in names if f"{name}_cpu" in names]
    settings = {name: read(name).get("model", {}) for name in both}
    return {
        name: model["objective"]["class_path"].rpartition(".")[2]
        for name, model in settings.items()
        if "objective" in model
    }


def list_recipes(request: "Request") -> int:
    """``lit-splitmask recipes``: prints the first comment line of each recipe."""
    for name in available():
        text = (files("lit_splitmask.recipes") / f"{name}.yaml").read_text()
        print(f"{name:24s} {text.splitlines()[0].lstrip('# ')}")
    return 0
