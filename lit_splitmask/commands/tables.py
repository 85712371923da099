"""``docs/datasets.md``: the paper's Tables 3 and 9, from the data that the code uses.

python -m lit_splitmask.commands.tables > docs/datasets.md
"""

from collections.abc import Iterable, Sequence
from typing import Any

from lit_splitmask.commands import recipes
from lit_splitmask.datamodules.paper import FACTS, table_3

INTRODUCTION = """\
# The paper's datasets

This page is made by `python -m lit_splitmask.commands.tables` from `datamodules/facts.py` and the recipes.

Each dataset is read in its official layout, with its official splits; the images that the paper calls "test" are the test
split, and `val_share` sets training images aside to choose checkpoints with. The counts are compared with Table 3 at every
start, and a difference is explained. Pre-training: `lit-splitmask pretrain --recipe splitmask_NAME --data.root DIR`;
fine-tuning: `lit-splitmask finetune --recipe finetune_NAME --weights FILE --data.root DIR`.
"""

TABLE_3 = """\
## Table 3, and the rule behind it

The rule: as many images are seen as in 300 passes over ImageNet, and at most 5,000 passes over a small classification set.
The paper's column is what recipes use; it differs where the paper rounded, and for ADE20K, where it is 10 % longer. A part of
the training images (`label_share`, `subset_list`, `val_share`) follows the rule; `budget.scale` takes a multiple.
"""

TABLE_9 = """\
## Table 9, fine-tuning

RandAugment is timm's, so the paper's colour jitter of 0.4 does nothing beside it; random erasing of 0.25 is DeiT's and BEiT's
default, on which Table 9 is silent. Resolution 224, test crop ratio as given, AdamW with a cosine schedule.
"""


def table_9() -> list[list[str]]:
    """Rows of Table 9, read from the recipes; the first is the header."""
    names = [name for name in FACTS if f"finetune_{name}" in recipes.available()]
    columns = [_settings(recipes.read(f"finetune_{name}")) for name in names]
    rows = [["", *(FACTS[name].title for name in names)]]
    return rows + [[key, *(column[key] for column in columns)] for key in columns[0]]


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


def _markdown(rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * (lines[0].count("|") - 1), *lines[1:]]) + "\n"


def page() -> str:
    """The whole page."""
    where = [["recipe name", "where, and how it must lie"], *([name, facts.where] for name, facts in FACTS.items())]
    return "\n".join(
        [INTRODUCTION, _markdown(where), TABLE_3, _markdown(table_3()), TABLE_9, _markdown(table_9())]
    )  # fmt: skip


if __name__ == "__main__":
    print(page(), end="")
