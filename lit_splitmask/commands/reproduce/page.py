"""``docs/reproduce.md``: the paper's rows, from the data that the command uses.

python -m lit_splitmask.commands.reproduce.page > docs/reproduce.md
"""

from collections.abc import Iterable
from dataclasses import replace

from lit_splitmask.commands.reproduce.checks import needs_of
from lit_splitmask.commands.reproduce.report import paper_text, steps_text
from lit_splitmask.commands.reproduce.stages import Setting, Stage, stages_of
from lit_splitmask.commands.tables import markdown
from lit_splitmask.datamodules.paper_rows import PaperTable, Row, paper_tables

INTRODUCTION = """\
# The paper's tables and figures, row by row

This page is generated from `lit_splitmask/datamodules/paper_rows.yaml` by `python -m lit_splitmask.commands.reproduce.page`. No
row has been run at the paper's length for this page: the numbers are the paper's.

```sh
lit-splitmask reproduce                                       # all rows: trainings, steps, the paper's numbers
lit-splitmask reproduce table6 --hours                        # hours on this machine too, from timed steps on synthetic images
lit-splitmask reproduce table6 --row splitmask-s-cars --dry_run
lit-splitmask reproduce table6 --row splitmask-s-cars --data.root stanford_cars --seeds 0,1,2
lit-splitmask reproduce table6 --row deit-s-cars --data.root stanford_cars --pretrain_root imagenet --scale 0.01
```

A row is a pre-training, a fine-tuning and an evaluation. Each command below runs in its own process, on as many devices as
`--set_pretrain '["--trainer.devices=8"]'` says. The same command again skips what is finished and continues what was
interrupted; a part whose folder you delete runs again. Rows that need the same training share it, such as the ImageNet
pre-trainings of Table 6: while one row trains it, another that needs it is refused. `results.json` in `runs/reproduce` (or
`--out`) has each score by seed next to the paper's, for the seeds of the last command. Seeds can run as separate jobs; the
command with all of them then collects their numbers. `--scale 0.01` gives every training 1 % of its passes or steps, in a
separate folder: such numbers cannot be compared with the paper's. `--weights` starts from weights that you have, such as
DeiT's.

[Datasets](datasets.md) says where to get the datasets; [decisions](decisions.md) has the readings of what the paper leaves open.
ImageNet's pre-trainings with DALL-E's words need its encoder (`--tokenizer`, [methods](guide/methods.md#dall-es-words)).
"""

PRETRAININGS = """\
## Pre-trainings

DIR is that of `--pretrain_root` if a row is evaluated on other images, and otherwise that of `--data.root`. Steps are optimizer
steps of the recipe's batch, on the whole dataset.
"""

FINETUNINGS = """\
## Fine-tunings and probes

FILE is the backbone that the row's pre-training wrote. Rows without one train from scratch, in the size that they name.
"""

HIDDEN = ("--model.seed=", "--data.seed=", "--runs_dir=", "--name=", "--out=")
"""Options that the page leaves out."""


def _rows(table: PaperTable) -> list[list[str]]:
    rows = [["row", "method", "backbone", "pre-training", "then", "steps", "paper, %", "needs"]]
    for row in table.rows.values():
        stages = [] if row.outside else stages_of(row, 0, Setting())
        then = [stage for stage in stages if stage.command != "pretrain"]
        start = "" if row.outside else "none" if row.pretraining is None else f"`{row.pretraining.name}`"
        kinds = dict.fromkeys("probe" if one.command == "probe" else f"`{_finetuning(row)}`" for one in then)
        rows.append(
            [
                f"`{row.name}`",
                row.method,
                row.backbone,
                start,
                ", ".join(kinds),
                steps_text(stages),
                paper_text(row),
                ", ".join(needs_of(row)),
            ]
        )
    return rows


def _finetuning(row: Row) -> str:
    return "" if row.finetuning is None else row.finetuning.name


def _commands(command: str) -> list[list[str]]:
    """The distinct trainings of a command, without what a row or a seed changes."""
    found: dict[tuple[str, str], tuple[int, list[str]]] = {}
    setting = Setting(pretrain_root="DIR")
    for table in paper_tables().values():
        for row in table.rows.values():
            weights = None if command == "pretrain" or row.pretraining is None else "FILE"
            stages = [] if row.outside else stages_of(row, 0, replace(setting, weights=weights))
            for stage in stages:
                if stage.command != command:
                    continue
                training = row.pretraining if command == "pretrain" else row.finetuning
                name = "probe" if command == "probe" or training is None else training.name
                _, backbones = found.setdefault((name, _short(stage)), (stage.steps, []))
                if row.backbone not in backbones:
                    backbones.append(row.backbone)
    return [
        [f"`{name}`", ", ".join(backbones), f"{steps:,}" if steps else "", f"`{text}`"]
        for (name, text), (steps, backbones) in sorted(found.items())
    ]


def _short(stage: Stage) -> str:
    kept = [option for option in stage.arguments if not option.startswith(HIDDEN)]
    return " ".join(["lit-splitmask", stage.command, *kept])


def _paragraphs(tables: Iterable[PaperTable]) -> list[str]:
    parts = []
    for table in tables:
        scores = list(dict.fromkeys(score for row in table.rows.values() for score in row.paper))
        note = f"\n{table.note}\n" if table.note else ""
        parts.append(f"## {table.heading}\n\n{table.title}: {', '.join(scores)}.\n{note}")
        parts.append(markdown(_rows(table)))
    return parts


def page() -> str:
    """The whole page."""
    header = ["training", "backbone", "steps", "command"]
    finetunings = [*_commands("finetune"), *_commands("probe")]
    return "\n".join(
        [
            INTRODUCTION,
            *_paragraphs(paper_tables().values()),
            PRETRAININGS,
            markdown([header, *_commands("pretrain")]),
            FINETUNINGS,
            markdown([header, *finetunings]),
        ]
    )


if __name__ == "__main__":
    print(page(), end="")
