"""The tables that ``plan`` prints."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from lit_splitmask.commands.plan.images import Group, ImageFindings
from lit_splitmask.commands.plan.training import TrainingPlan
from lit_splitmask.units import duration, size

MOST_CLASSES = 30
"""Of more classes, only the largest and the smallest are listed."""

MOST_NAMES = 3
"""Largest number of files named on a line."""

MOST_GROUPS = 10
"""Largest number of groups of duplicates listed."""


def new_console() -> Console:
    """A console that prints file names unchanged."""
    return Console(markup=False, highlight=False, emoji=False)


def show_images(console: Console, images: ImageFindings) -> None:
    """Prints how many images each class has, their sizes and formats, and which files are odd."""
    console.print(f"{images.layout}.")
    table = Table("class", *images.counts, title="Images", title_justify="left")
    for name, *counts in _class_rows(images.counts):
        table.add_row(name, *counts)
    table.add_section()
    table.add_row("all", *(f"{count:,}" for count in images.images.values()))
    console.print(table)
    for axis, spread in (("Height", images.height), ("Width", images.width)):
        console.print(f"{axis}: {spread.smallest:,} to {spread.largest:,} px, median {spread.median:,}.")
    console.print(f"Formats: {', '.join(f'{name} {count:,}' for name, count in images.formats.items())}.")
    rows = [(kind, files.count, files.examples) for kind, files in images.odd.items()]
    rows += [("class with one image", len(images.one_image_classes), images.one_image_classes)]
    rows += [("class folder without images", len(images.empty_classes), images.empty_classes)]
    odd = Table("kind", "number", "examples", title="Odd files and classes", title_justify="left")
    for kind, count, names in rows:
        if count:
            odd.add_row(kind, f"{count:,}", _shortened(names, count))
    console.print(odd if odd.row_count else "No odd files.")
    for file, reason in images.undecodable.items():
        console.print(f"Left out, cannot be decoded: {file} ({reason})", soft_wrap=True)


def _class_rows(counts: dict[str, dict[str, int]]) -> list[list[str]]:
    """One row per class; of many classes, the largest and the smallest."""
    totals = {name: sum(split[name] for split in counts.values()) for split in counts.values() for name in split}
    rows = [[name, *(f"{split[name]:,}" for split in counts.values())] for name in totals]
    if len(rows) <= MOST_CLASSES:
        return rows
    by_size = [row for _, row in sorted(zip(totals.values(), rows, strict=True), key=lambda pair: -pair[0])]
    half = MOST_CLASSES // 2
    between = f"… {len(rows) - 2 * half:,} classes in between …"
    return [*by_size[:half], [between, *("" for _ in counts)], *by_size[-half:]]


def _shortened(names: list[str], count: int) -> str:
    return ", ".join(names[:MOST_NAMES]) + (", …" if count > MOST_NAMES else "")


def show_duplicates(console: Console, images: ImageFindings) -> None:
    """Prints which images occur more than once."""
    if not images.identical and not images.near:
        console.print("No duplicates or near duplicates.")
        return
    table = Table("", "groups", "across splits", "different labels", title="Duplicates", title_justify="left")
    for kind, groups in (("identical pixels", images.identical), ("nearly identical", images.near)):
        across, differ = sum(g.across_splits for g in groups), sum(g.labels_differ for g in groups)
        table.add_row(kind, f"{len(groups):,}", f"{across:,}", f"{differ:,}")
    console.print(table)
    for title, groups in (("Identical", images.identical), ("Nearly identical", images.near)):
        for group in groups[:MOST_GROUPS]:
            console.print(f"{title}{_problems(group)}: {_shortened(group.files, len(group.files))}", soft_wrap=True)
        if len(groups) > MOST_GROUPS:
            console.print(f"… and {len(groups) - MOST_GROUPS:,} more (--json lists all).")
    for line in images.taken_out[:MOST_GROUPS]:
        console.print(f"Left out: {line}", soft_wrap=True)
    if len(images.taken_out) > MOST_GROUPS:
        console.print(f"… and {len(images.taken_out) - MOST_GROUPS:,} more images are left out (--json lists all).")


def _problems(group: Group) -> str:
    reasons = ["across splits"] * group.across_splits + ["under different labels"] * group.labels_differ
    return f" ({' and '.join(reasons)})" if reasons else ""


def show_trainings(console: Console, pretraining: TrainingPlan, finetuning: TrainingPlan | None) -> None:
    """Prints the settings of each training, and what it would cost."""
    plans = [pretraining] if finetuning is None else [pretraining, finetuning]
    titles = ["pre-training", "fine-tuning"][: len(plans)]
    table = Table("", *titles, title="Training", title_justify="left")
    for name, cell in _ROWS if pretraining.step_seconds is None else (*_ROWS, *_TIMED_ROWS):
        table.add_row(name, *(cell(plan) for plan in plans))
    console.print(table)
    for title, plan in zip(titles, plans, strict=True):
        console.print(f"Recipe for {title}: {plan.recipe} ({plan.reason}).")
        if plan.step_seconds is not None:
            console.print(f"Time and memory of {title}: {_how_timed(plan)}.")
    if pretraining.step_seconds is not None:
        console.print("Not included: fitting visual words, and validation.")


def _seconds(seconds: float | None) -> str:
    assert seconds is not None
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _passes(plan: TrainingPlan) -> str:
    return f"{plan.passes:,.2f}".rstrip("0").rstrip(".")


_ROWS: tuple[tuple[str, Callable[[TrainingPlan], str]], ...] = (
    ("recipe", lambda plan: plan.recipe),
    ("image size", lambda plan: f"{plan.image_size} px"),
    ("images", lambda plan: f"{plan.num_images:,}"),
    ("passes", _passes),
    ("images seen", lambda plan: f"{plan.images_seen:,}"),
    ("batch", lambda plan: f"{plan.batch_size:,}"),
    ("steps", lambda plan: f"{plan.steps:,}"),
    ("warm-up steps", lambda plan: f"{plan.warmup_steps:,}"),
    ("device", lambda plan: f"{plan.num_devices} x {plan.device}"),
    ("pixel cache on disk", lambda plan: "none" if plan.cache is None else size(plan.cache_bytes)),
)

_TIMED_ROWS: tuple[tuple[str, Callable[[TrainingPlan], str]], ...] = (
    ("parameters", lambda plan: f"{(plan.parameters or 0) / 1e6:,.1f} M"),
    ("seconds per step", lambda plan: f"about {_seconds(plan.step_seconds)}"),
    ("time (h:mm:ss)", lambda plan: f"about {duration(plan.total_seconds or 0)}"),
    ("memory", lambda plan: f"about {size(plan.memory_bytes or 0)}"),
    ("checkpoints on disk", lambda plan: f"up to {plan.num_checkpoints} x {size(plan.checkpoint_bytes or 0)}"),
    ("weights on disk", lambda plan: size(plan.weights_bytes or 0)),
)


def _how_timed(plan: TrainingPlan) -> str:
    """What was timed, and how the estimate follows from it."""
    steps = "one timed step" if plan.timed_steps == 1 else f"{plan.timed_steps} timed steps"
    full = plan.batch_size // plan.num_devices
    scaled = f", scaled linearly to {full:,} per device" if full != plan.timed_images else ""
    return f"from {steps} of {plan.timed_images:,} images, with loading{scaled}"
