"""``docs/datasets.md``: the published datasets, and the paper's Tables 3 and 9, from the data that the code uses.

python -m lit_splitmask.commands.tables > docs/datasets.md
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from lit_splitmask import datamodules
from lit_splitmask.commands import recipes
from lit_splitmask.datamodules.facts import Facts
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.paper import TABLE_3, TABLE_9
from lit_splitmask.loading.budget import IMAGENET_IMAGES, IMAGENET_PASSES

INTRODUCTION = """\
# Published datasets

This page is generated from the datamodules and the recipes by `python -m lit_splitmask.commands.tables`.

Each dataset is read in its official layout or as copies of it on Kaggle have it, in DIR or up to two folders below, with its
official splits. The test split is the official test images, or the official validation images if the test images have no public
labels. `val_share` sets training images aside to choose checkpoints. At every start, the counts are compared with the published
ones, and a difference is reported.

Pre-training: `lit-splitmask pretrain --recipe splitmask_NAME --data.root DIR`. Fine-tuning, for the datasets of Table 9:
`lit-splitmask finetune --recipe finetune_NAME --weights FILE --data.root DIR`.
"""

TABLE_3_TEXT = """\
## Table 3: the paper's datasets, and the rule for their epochs

The rule: as many images seen as in 300 epochs of ImageNet, and at most 5,000 epochs of a small classification set. The recipes
use the paper's epochs, which differ where the paper rounded, and by 10 % for ADE20K. Datasets that the paper does not have, and a
part of the training images (`label_share`, `subset_list`, `val_share`), follow the rule; `budget.scale` takes a multiple.
"""

TABLE_9_TEXT = """\
## Table 9: fine-tuning

RandAugment is timm's. It replaces colour jitter, so the paper's jitter of 0.4 has no effect. Table 9 does not mention random
erasing; 0.25 is the default of DeiT and BEiT. Resolution 224, AdamW, cosine schedule.
"""


def published_sets() -> dict[str, Facts]:
    """The published datasets by the NAME in ``splitmask_NAME``: the paper's in the order of Table 3, then the others."""
    exported = {name: getattr(datamodules, name) for name in datamodules.__all__}
    facts = {name: one.facts for name, one in exported.items() if inspect.isclass(one) and issubclass(one, ListedData)}
    recipe_of: dict[str, str] = {}
    for recipe in recipes.available():
        dataset = recipes.read(recipe).get("data", {}).get("class_path")
        if recipe.startswith("splitmask_") and dataset in facts:
            recipe_of.setdefault(dataset, recipe.removeprefix("splitmask_"))
    order = {title: number for number, title in enumerate(TABLE_3)}
    listed = sorted(recipe_of, key=lambda dataset: (order.get(facts[dataset].title, len(order)), dataset))
    return {recipe_of[dataset]: facts[dataset] for dataset in listed}


def table_3() -> list[list[str]]:
    """Rows of Table 3, with the rule's epochs next to the paper's; the first is the header."""
    rows = [
        ["dataset", "train", "test", "classes", "epochs (Table 3)", "epochs by the rule", "images seen / ImageNet's"]
    ]
    for facts in published_sets().values():
        if facts.title not in TABLE_3:
            continue
        release, epochs = facts.release, TABLE_3[facts.title]
        rows.append(
            [
                facts.title,
                f"{release.train:,}",
                f"{release.test:,}",
                f"{facts.classes:,}",
                f"{epochs:,}",
                f"{facts.rule_passes:,.0f}",
                f"{epochs * release.train / (IMAGENET_PASSES * IMAGENET_IMAGES):.3f}",
            ]
        )
    return rows


def table_9() -> list[list[str]]:
    """Rows of Table 9, read from the recipes; the first is the header."""
    names = {facts.title: name for name, facts in published_sets().items()}
    columns = [_settings(recipes.read(f"finetune_{names[title]}")) for title in TABLE_9]
    return [["", *TABLE_9], *([key, *(column[key] for column in columns)] for key in columns[0])]


def _settings(recipe: dict[str, Any]) -> dict[str, str]:
    model, data = recipe["model"], recipe["data"]["init_args"]
    optim, augment, epochs = model["optim"], data["augment"]["init_args"], data["budget"]["passes"]
    return {
        "epochs": f"{epochs}",
        "batch size": f"{data['batch_size']:,}",
        "learning rate": f"{optim['lr']:g}",
        "layer decay": f"{optim['layer_decay']:g}" if optim["layer_decay"] < 1 else "none",
        "weight decay": f"{optim['weight_decay']:g}",
        "warm-up epochs": f"{optim['warmup'] * epochs:.0f}",
        "label smoothing": f"{model['label_smoothing']:g}",
        "stochastic depth": f"{model['drop_path']:g}",
        "copies of an image in a row": f"{augment.get('repeats', 1)}",
        "RandAugment": f"`{augment['rand_augment']}`",
        "mixup, cutmix": f"{model['mixup']:g}, {model['cutmix']:g}",
        "random erasing": f"{augment['erase']:g}",
        "test crop ratio": f"{data['crop_ratio']:g}",
    }


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """Rows as a table; the first is the header."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * (lines[0].count("|") - 1), *lines[1:]]) + "\n"


def page() -> str:
    """The whole page."""
    where = [["NAME", "where to get it, and its layout in DIR"]]
    where += [[name, facts.where] for name, facts in published_sets().items()]
    return "\n".join(
        [INTRODUCTION, markdown(where), TABLE_3_TEXT, markdown(table_3()), TABLE_9_TEXT, markdown(table_9())]
    )  # fmt: skip


if __name__ == "__main__":
    print(page(), end="")
