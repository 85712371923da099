"""Lists the rows of the paper, and reports what a row measured beside the paper's numbers."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from lit_splitmask.commands.plan.report import new_console
from lit_splitmask.commands.reproduce.checks import needs_of
from lit_splitmask.commands.reproduce.running import Measured
from lit_splitmask.commands.reproduce.scores import Score, read_record
from lit_splitmask.commands.reproduce.stages import Setting, Stage, stages_of
from lit_splitmask.comparison import mean_and_sd
from lit_splitmask.datamodules.paper_rows import PaperTable, Row
from lit_splitmask.files import locked, write_json

Hours = Callable[[Row, Stage], float | None]
"""Hours of a training on this machine; None if it cannot be timed."""


def paper_text(row: Row) -> str:
    """The paper's numbers of a row, in the order of its scores."""
    numbers = [number for number in row.paper.values() if number is not None]
    return ", ".join(f"{number:.1f}" for number in numbers) or "not in the text"


def steps_text(stages: Sequence[Stage]) -> str:
    """The optimizer steps of a row: those of its pre-training, and of what follows."""
    counts = [f"{stage.steps:,}" for stage in stages if stage.command == "pretrain"]
    later = [stage.steps for stage in stages if stage.command == "finetune"]
    counts += [f"{len(later)} × {later[0]:,}" if len(later) > 1 else f"{steps:,}" for steps in later[:1]]
    return " + ".join(counts)


def show(tables: Sequence[PaperTable], setting: Setting, hours: Hours | None) -> None:
    """Prints the rows of tables.

    Args:
        tables: The tables.
        setting: Where the files are, and how the rows are run.
        hours: Times a training; None to list no hours.
    """
    console = new_console()
    for paper in tables:
        scores = list(dict.fromkeys(score for row in paper.rows.values() for score in row.paper))
        columns = [
            Column("row", no_wrap=True, min_width=max(map(len, paper.rows))),  # a command takes this name
            Column("method, trainings, and what they need", overflow="fold"),
            Column("steps", min_width=len("1,000,000")),
            *([] if hours is None else [Column("hours", no_wrap=True)]),
            Column("paper, %", min_width=len("paper, %")),
        ]
        table = Table(*columns, title=f"{paper.heading}. {paper.title} ({', '.join(scores)})", title_justify="left")
        for row in paper.rows.values():
            table.add_row(*_cells(row, setting, hours))
        console.print(table)
        if paper.note:
            console.print(paper.note)
        console.print()
    console.print(_length(setting.scale))
    console.print(
        "To run a row: lit-splitmask reproduce TABLE --row ROW --data.root DIR; --dry_run prints its commands."
    )


def _length(scale: float) -> str:
    if scale == 1:
        return "Steps are those of the paper's lengths on the whole datasets."
    return f"Steps are {scale:g} times those of the paper, in every training: the numbers cannot be compared with the paper's."


def _cells(row: Row, setting: Setting, hours: Hours | None) -> list[str]:
    stages = [] if row.outside else stages_of(row, 0, setting)
    trainings = [one.name for one in (row.pretraining, row.finetuning) if one is not None and not row.outside]
    trainings += [] if row.probe is None else ["probe"]
    lines = [f"{row.method}, {row.backbone}", " + ".join(trainings), f"needs {', '.join(needs_of(row))}"]
    cells = [row.name, "\n".join(filter(None, lines)), steps_text(stages)]
    if hours is not None:
        times = [hours(row, stage) for stage in stages if stage.command != "probe"]
        known = [time for time in times if time is not None]
        cells.append("?" if len(known) < len(times) or not times else f"{sum(known):,.1f}")
    return [*cells, paper_text(row)]


def as_json(tables: Sequence[PaperTable], setting: Setting, hours: Hours | None) -> str:
    """The rows of tables with their commands, as JSON."""
    entries = []
    for paper in tables:
        for row in paper.rows.values():
            stages = [] if row.outside else stages_of(row, 0, setting)
            entries.append(
                {
                    "table": row.table,
                    "row": row.name,
                    "method": row.method,
                    "backbone": row.backbone,
                    "paper": dict(row.paper),
                    "needs": needs_of(row),
                    "runs": row.outside is None,
                    "note": paper.note,
                    "scale": setting.scale,
                    "trainings": [
                        {
                            "command": str(stage),
                            "steps": stage.steps,
                            **({} if hours is None else {"hours": hours(row, stage)}),
                        }
                        for stage in stages
                    ],
                }
            )
    return json.dumps(entries, indent=2, ensure_ascii=False)


def read_results(out: Path) -> dict[str, Any]:
    """The entries of ``results.json`` by table and row; none if there is no file.

    Raises:
        UserError: It is damaged.
    """
    path = out / "results.json"
    if not path.is_file():
        return {}
    return read_record(path, "delete it; the same commands read what is finished, and write their rows again")


def write_results(row: Row, measured: Measured, commands: Sequence[str], setting: Setting) -> dict[str, Any]:
    """Adds a row to ``results.json``, or replaces it; returns its entry.

    Args:
        row: The row.
        measured: What was measured.
        commands: The commands of all seeds.
        setting: Where the files are, and how the row was run.

    Raises:
        UserError: The file is damaged, or cannot be written.
    """
    path = Path(setting.out) / "results.json"
    entry: dict[str, Any] = {
        "table": row.table,
        "row": row.name,
        "method": row.method,
        "backbone": row.backbone,
        "scale": setting.scale,
        "scores": {score: _score(row.paper[score], values) for score, values in measured.items()},
        "commands": list(commands),
    }
    with locked(path.with_name(".results.lock")):  # another reproduce may be adding its row
        write_json(path, {**read_results(path.parent), f"{row.table}/{row.name}": entry})
    return entry


def _score(paper: float | None, found: Mapping[int, Score]) -> dict[str, Any]:
    mean, sd = mean_and_sd([score.value for score in found.values()])
    first = next(iter(found.values()))
    return {
        "paper": paper,
        "mean": mean,
        "sd": sd if len(found) > 1 else None,
        "seeds": {seed: score.value for seed, score in found.items()},
        "intervals": {seed: score.interval for seed, score in found.items()},
        "chance": first.chance,
    }


def _interval(found: Mapping[str, Any]) -> str:
    """The interval of a single seed, in percent; several seeds have their deviation instead."""
    ends = next(iter(found["intervals"].values()))
    return "—" if ends is None or len(found["intervals"]) > 1 else f"{ends[0]:.1f} to {ends[1]:.1f}"


def show_results(row: Row, entry: Mapping[str, Any], note: str, setting: Setting) -> None:
    """Prints what a row measured beside the paper's numbers."""
    console: Console = new_console()
    score_column = Column("score", no_wrap=True, min_width=max(map(len, entry["scores"])))
    difference = Column("difference", no_wrap=True, min_width=len("difference"))
    table = Table(score_column, "paper, %", "measured, %", "95 % interval", difference, "seeds")
    console.print(f"{row.table} {row.name}", soft_wrap=True)  # as a title it would be broken to the table's width
    for score, found in entry["scores"].items():
        paper, sd = found["paper"], found["sd"]
        table.add_row(
            score,
            "not in the text" if paper is None else f"{paper:.1f}",
            f"{found['mean']:.1f}" + ("" if sd is None else f" ± {sd:.1f}"),
            _interval(found),
            "" if paper is None else f"{found['mean'] - paper:+.1f}",
            ", ".join(map(str, found["seeds"])),
        )
    console.print(table)
    if any(found["sd"] is not None for found in entry["scores"].values()):
        console.print("± is the standard deviation over seeds.")
    if any(_interval(found) != "—" for found in entry["scores"].values()):
        console.print("The interval is over the test images, for one network.")
    for chance in dict.fromkeys(found["chance"] for found in entry["scores"].values() if found["chance"]):
        console.print(chance)
    if setting.scale < 1:
        console.print(f"Trained for {setting.scale:g} times the paper's length, so the numbers cannot be compared.")
    changed = [*setting.set_pretrain, *setting.set_finetune, *setting.set_probe]
    if changed:
        console.print(f"Trained with other settings than the paper's: {' '.join(changed)}.")
    if setting.weights is not None:
        console.print(f"Started from {setting.weights}, not from the row's pre-training.", soft_wrap=True)
    if note:
        console.print(note)
    console.print(f"Wrote {Path(setting.out) / 'results.json'}.", soft_wrap=True)
