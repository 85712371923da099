"""The commands of a row of the paper, in their order, and how long they are."""

import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lit_splitmask import callbacks, datamodules
from lit_splitmask.commands import recipes
from lit_splitmask.commands.request import names_budget
from lit_splitmask.datamodules.facts import Facts
from lit_splitmask.datamodules.paper import TABLE_3
from lit_splitmask.datamodules.paper_rows import Finetuning, Images, Pretraining, Row, along_score

SIZES = {"ViT-S": "small", "ViT-B": "base"}
"""Values of ``model.backbone.size`` by backbone."""


@dataclass(frozen=True)
class Setting:
    """Where a row's files are, and how it is run.

    Attributes:
        out: Folder of all trainings.
        root: The images that the row is evaluated on.
        pretrain_root: The images of its pre-training, if they are others.
        tokenizer: The file of DALL-E's encoder.
        weights: Weights to start from instead of those of the row's pre-training.
        scale: Multiple of the length of each training.
        set_pretrain: More options of ``pretrain``.
        set_finetune: More options of ``finetune``.
        set_probe: More options of ``probe``.
    """

    out: str = "runs/reproduce"
    root: str = "DIR"
    pretrain_root: str = "PRETRAIN_DIR"
    tokenizer: str = "dalle_encoder.safetensors"
    weights: str | None = None
    scale: float = 1.0
    set_pretrain: tuple[str, ...] = ()
    set_finetune: tuple[str, ...] = ()
    set_probe: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A command of a row.

    Attributes:
        command: ``pretrain``, ``finetune`` or ``probe``.
        name: Name of its folder in ``out``. Rows that need the same training share it.
        arguments: Its options.
        recipe: Its recipe; None for a probe.
        steps: Its optimizer steps on the whole dataset; 0 for a probe.
        scores: The row's scores that it measures, and by what names it writes them.
    """

    command: str
    name: str
    arguments: tuple[str, ...]
    recipe: str | None
    steps: int
    scores: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """The command line."""
        return shlex.join(["lit-splitmask", self.command, *self.arguments])


WRITTEN = {
    "top-1": "test/accuracy",
    "mIoU": "test/miou",
    **{f"{kind} AP{level}": f"{kind}/AP{level}" for kind in ("box", "mask") for level in ("", "50", "75")},
}
"""Scores that a fine-tuning writes, by the paper's name."""


def facts_of(images: Images) -> Facts:
    """What is known of the dataset."""
    facts: Facts = getattr(datamodules, images.data).facts
    return facts


def count(images: Images) -> int:
    """Number of training images."""
    return round(images.share * facts_of(images).release.train)


def passes_of(pretraining: Pretraining) -> float:
    """Epochs of a pre-training."""
    if pretraining.along:
        return pretraining.along[-1]
    return pretraining.passes or pretraining.images.passes or TABLE_3[facts_of(pretraining.images).title]


def pretrains_elsewhere(row: Row) -> bool:
    """Whether a row pre-trains on another dataset than it is evaluated on."""
    return row.pretraining is not None and row.pretraining.images.data != row.evaluated_on.data


def stages_of(row: Row, seed: int, setting: Setting) -> list[Stage]:
    """The commands of a row that can be run, in order.

    Args:
        row: The row.
        seed: Seed of the weights, the order and the augmentation.
        setting: Where the files are, and how the row is run.
    """
    return list(_stages(row, seed, setting))


def _stages(row: Row, seed: int, setting: Setting) -> Iterator[Stage]:
    start, weights, along = f"scratch-{_letter(row)}", setting.weights, {}
    if weights is not None:
        start = f"given-{Path(weights).stem}"
    elif row.pretraining is not None:
        pretrain = _pretrain(row, row.pretraining, seed, setting)
        yield pretrain
        start, folder = pretrain.name.removesuffix(f"-seed{seed}"), Path(setting.out) / pretrain.name
        weights = str(folder / "backbone.safetensors")
        shares = {passes: passes / row.pretraining.along[-1] for passes in row.pretraining.along}
        along = {passes: str(folder / callbacks.ExportAlong.file_of(share)) for passes, share in shares.items()}
    if row.finetuning is not None:
        for passes, file in along.items():
            yield _finetune(row, row.finetuning, f"{start}-at-{passes:g}", file, seed, setting, passes)
        if not along:
            yield _finetune(row, row.finetuning, start, weights, seed, setting)
    if row.probe is not None:
        assert weights is not None
        yield _probe(row, row.probe, start, weights, seed, setting)


@cache
def _data_of(recipe: str) -> Mapping[str, Any]:
    """The settings of a recipe's images."""
    data: Mapping[str, Any] = recipes.read(recipe)["data"]["init_args"]
    return data


def _letter(row: Row) -> str:
    return SIZES[row.backbone][0]


def _common(seed: int, setting: Setting, name: str) -> list[str]:
    return [f"--model.seed={seed}", f"--data.seed={seed}", f"--runs_dir={setting.out}", f"--name={name}"]


def _pretrain(row: Row, pretraining: Pretraining, seed: int, setting: Setting) -> Stage:
    images, recipe = pretraining.images, pretraining.recipe_for(row.backbone)
    passes = setting.scale * passes_of(pretraining)
    name = f"{pretraining.name}-{_letter(row)}-seed{seed}"
    root = setting.pretrain_root if pretrains_elsewhere(row) else setting.root
    shares = [passes / pretraining.along[-1] for passes in pretraining.along]
    arguments = [
        f"--recipe={recipe}",
        f"--data={images.data}",
        f"--data.root={root}",
        f"--model.backbone.size={SIZES[row.backbone]}",
        *_budget("passes", passes, setting.set_pretrain),
        *([f"--data.label_share={images.share:g}"] if images.share < 1 else []),
        *pretraining.options,
        *([f"--model.objective.tokenizer.weights={setting.tokenizer}"] if pretraining.tokenizer else []),
        *(["--trainer.callbacks+=ExportAlong", f"--trainer.callbacks.shares={shares}"] if shares else []),
        *_common(seed, setting, name),
        *setting.set_pretrain,
    ]
    steps = math.ceil(round(passes * count(images)) / _data_of(recipe)["batch_size"])
    return Stage("pretrain", name, tuple(arguments), recipe, max(1, steps))


def _finetune(
    row: Row,
    finetuning: Finetuning,
    start: str,
    weights: str | None,
    seed: int,
    setting: Setting,
    after: float | None = None,
) -> Stage:
    recipe = finetuning.recipe_for(row.backbone)
    data = _data_of(recipe)
    ((unit, length),) = data["budget"].items()
    length = max(1, round(setting.scale * length)) if unit == "steps" else setting.scale * length
    steps = length if unit == "steps" else math.ceil(round(length * count(finetuning.images)) / data["batch_size"])
    name = f"{start}-on-{finetuning.name}-seed{seed}"
    arguments = [
        f"--recipe={recipe}",
        f"--data.root={setting.root}",
        *([f"--model.backbone.size={SIZES[row.backbone]}"] if weights is None else [f"--weights={weights}"]),
        *_budget(unit, length, setting.set_finetune),
        *finetuning.options,
        *_common(seed, setting, name),
        *setting.set_finetune,
    ]
    scores = {score if after is None else along_score(score, after): written for score, written in WRITTEN.items()}
    mine = tuple((score, written) for score, written in scores.items() if score in row.paper)
    return Stage("finetune", name, tuple(arguments), recipe, max(1, int(steps)), mine)


def _probe(row: Row, images: Images, start: str, weights: str, seed: int, setting: Setting) -> Stage:
    name = f"{start}-probe-seed{seed}"
    arguments = [
        f"--weights={weights}",
        f"--data={images.data}",
        f"--data.root={setting.root}",
        f"--out={Path(setting.out) / name}",
        *setting.set_probe,
    ]
    scores = [(score, score) for score in row.paper if score == "linear top-1" or score.startswith("block ")]
    return Stage("probe", name, tuple(arguments), None, 0, tuple(scores))


def _budget(unit: str, length: float, options: tuple[str, ...]) -> list[str]:
    """The option of a length, without the rounding errors of its scale; none if the user's options set a length."""
    return [] if any(map(names_budget, options)) else [f"--data.budget.{unit}={length:.10g}"]
