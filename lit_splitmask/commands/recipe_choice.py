"""Chooses a recipe for a folder of images or for weights, and fits it to them. Light."""

import math
from dataclasses import dataclass, replace
from typing import Any

from lit_splitmask.commands.recipes import available, read

TRAINING_SHARE = 0.8
"""Approximate share of a folder's images that are for training."""

SMALL_SET = 50_000
"""A folder with fewer images gets the recipe for small sets; the paper's small sets have 8,144 to 52,867 (Table 3)."""

FEW_ANNOTATED = 10_000
"""A folder with fewer annotated images gets a shorter schedule than that of ADE20K or COCO."""

FEW_LABELS = 50
"""With fewer labels per class, a classifier gets a recipe of its own, for example with more passes."""


CPU_IMAGES_SEEN = 20_000_000
"""A pre-training chosen for a machine without a GPU sees at most this many images: about seven hours of `splitmask_cpu`."""


@dataclass(frozen=True)
class Choice:
    """A recipe and why it was chosen.

    Attributes:
        name: Name or path of the recipe.
        reason: Why it was chosen.
        num_images: Images in the folder that it was chosen for, of all splits; None if it was not chosen for a folder.
        most_seen: Most images that a pre-training may see by its number of passes; None for any number.
    """

    name: str
    reason: str
    num_images: int | None = None
    most_seen: int | None = None

    def settings(self) -> tuple[dict[str, Any], str]:
        """The recipe's settings, fitted to the images, and the reason, which mentions what was changed.

        Raises:
            UserError: There is no such recipe.
        """
        recipe = read(self.name)
        changed = self.fit(recipe)
        return recipe, self.reason + (f"; {changed}" if changed else "")

    def fit(self, recipe: dict[str, Any]) -> str:
        """Fits settings to the images that the recipe was chosen for: no batch holds an image twice, and a CPU can train them.

        Args:
            recipe: Settings, which are changed.

        Returns:
            What was changed; empty if nothing was.
        """
        if self.num_images is None:
            return ""
        changes = [fit_to_images(recipe, self.num_images)]
        images = recipe.get("data", {}).get("init_args", {})
        passes = (images.get("budget") or {}).get("passes")
        if self.most_seen is not None and passes and "objective" in recipe.get("model", {}):
            fitting = max(1, int(self.most_seen / (TRAINING_SHARE * self.num_images)))
            if fitting < passes:
                images["budget"] = {"passes": fitting}
                changes.append(
                    f"{fitting} passes instead of {passes}, since without a GPU it sees at most {self.most_seen:,} images"
                )
        return "; ".join(filter(None, changes))


def choose(num_images: int, median_side: int, gpu: bool) -> Choice:
    """The pre-training recipe for a folder.

    Args:
        num_images: Images in the folder.
        median_side: Median of the images' shorter side, in pixels.
        gpu: Whether there is a GPU.
    """
    if median_side < 40:
        name, why = "splitmask_tiny_images", ": tiny images, so the network takes 32 px in patches of 4 px"
    elif not gpu:
        name, why = "splitmask_cpu", ", no GPU: a small network at 48 px that two CPU cores can train"
    elif num_images < SMALL_SET:
        name, why = "splitmask_own", f": fewer than {SMALL_SET:,}, so the paper's masks and augmentation for small sets"
    else:
        name, why = "splitmask_own_large", ": enough for the paper's masks and augmentation for large sets"
    reason = f"{num_images:,} images of about {median_side} px{why}"
    return Choice(name, reason, num_images, None if gpu else CPU_IMAGES_SEEN)


def finetuning(pretraining: str) -> Choice:
    """The fine-tuning recipe for a pre-training recipe."""
    for kind in ("finetune", "segment"):
        partner = pretraining.replace("splitmask", kind, 1)
        if partner != pretraining and partner in available():
            return Choice(partner, f"for the network of {pretraining}")
    if pretraining.endswith("_cpu"):
        return Choice("finetune_cpu", f"for the network of {pretraining}")
    return Choice("finetune", "the paper's fine-tuning recipe (Table 9, small sets)")


def joint(choice: Choice, auxiliary: str) -> Choice:
    """The recipe of joint training, or of self-training, for the network of a fine-tuning recipe; the same if there is none.

    Args:
        choice: The fine-tuning recipe.
        auxiliary: Class of the auxiliary objective, with or without its module.
    """
    kind = "self_training" if auxiliary.rpartition(".")[2] == "SelfTraining" else "joint"
    partner = choice.name.replace("finetune_few", "finetune").replace("finetune", kind, 1)
    reason = f"{choice.reason}, trained jointly with the auxiliary objective"
    return replace(choice, name=partner, reason=reason) if partner in available() else choice


def for_few_labels(choice: Choice, labels: float | None) -> Choice:
    """A fine-tuning recipe, or its variant for few labels.

    Args:
        choice: The recipe for enough labels.
        labels: Training images with a label, per class; None if unknown.
    """
    variant = choice.name.replace("finetune", "finetune_few", 1)
    if labels is None or labels >= FEW_LABELS or variant not in available():
        return choice
    reason = f"about {labels:,.0f} labels per class, fewer than {FEW_LABELS}, {choice.reason}"
    return replace(choice, name=variant, reason=reason)


def choose_segmentation(num_images: int, gpu: bool) -> Choice:
    """The segmentation recipe for a folder.

    Args:
        num_images: Images with label maps in the folder.
        gpu: Whether there is a GPU.
    """
    if gpu and num_images < FEW_ANNOTATED:
        return Choice("segment_own", f"fewer than {FEW_ANNOTATED:,} images, so an eighth of ADE20K's steps")
    if gpu:
        return Choice("segment_ade20k", "the paper's recipe for ADE20K (Table 5); --data.budget.steps shortens it")
    return Choice("segment_cpu", "no GPU: a small network on crops of 96 px that two CPU cores can train")


def choose_detection(num_images: int, gpu: bool) -> Choice:
    """The detection recipe for a folder.

    Args:
        num_images: Images in the folder.
        gpu: Whether there is a GPU.
    """
    if gpu and num_images < FEW_ANNOTATED:
        return Choice(
            "detect_own", f"fewer than {FEW_ANNOTATED:,} images, so a fixed number of steps instead of COCO's passes"
        )
    if gpu:
        return Choice("detect_coco_3x", "the paper's recipe for COCO (Table 4); --data.budget.passes shortens it")
    return Choice("detect_cpu", "no GPU: a small network on images of 160 px that two CPU cores can train")


def fit_to_images(recipe: dict[str, Any], num_images: int) -> str:
    """Lowers a recipe's batch size so that no batch holds an image twice.

    Args:
        recipe: Settings, which are changed.
        num_images: Images in the folder, of all splits.

    Returns:
        What was changed; empty if nothing was.
    """
    images = recipe.get("data", {}).get("init_args", {})
    given, largest = images.get("batch_size", 0), 2 ** int(math.log2(max(2, TRAINING_SHARE * num_images)))
    if given <= largest:
        return ""
    images["batch_size"] = largest
    return f"in batches of {largest}, since the recipe's {given} exceed the number of training images"


def fit_to_weights(
    recipe: dict[str, Any],
    timm_args: dict[str, Any],
    datamodule: str = "ImageFolder",
    *,
    size: bool = True,
    window: list[float] | None = None,
) -> None:
    """Gives a recipe's images the number of channels that weights were trained on, their size, and their window.

    Args:
        recipe: Settings, which are changed.
        timm_args: timm's arguments for the network of the weights.
        datamodule: Class of the datamodule, if the settings name none.
        size: Whether to change the size too.
        window: The values that were black and white in the images of the weights; None if unknown. A recipe's own window stays.
    """
    data = recipe.setdefault("data", {})
    data.setdefault("class_path", datamodule)
    images = data.setdefault("init_args", {})
    images["channels"] = timm_args["in_chans"]
    if size:
        images["image_size"] = timm_args["img_size"]
    if window is not None and images.get("window") is None:
        images["window"] = window
