"""The page of a training: pre-training, or fine-tuning for any task."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_splitmask.checkpoints import load_weights
from lit_splitmask.commands.chance import interval_text, percent
from lit_splitmask.commands.export.command import command_to_export
from lit_splitmask.commands.export.run_numbers import run_numbers
from lit_splitmask.commands.plots import draw_history
from lit_splitmask.commands.pretrain import command_to_finetune
from lit_splitmask.commands.report.page import Section, Table, embed
from lit_splitmask.commands.report.records import in_words, number, of_images, pictures_in, read_json
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.tasks.registry import Task, task_for_datamodule
from lit_splitmask.commands.tasks.regress import baseline
from lit_splitmask.commands.tasks.segment import note_on_intervals
from lit_splitmask.config_files import read_settings
from lit_splitmask.files import as_typed, is_file, read_text
from lit_splitmask.selection.curves import signal_cells
from lit_splitmask.selection.rule import Decision, Reading

SETTINGS = {
    "images": ("data.init_args.root", "data.init_args.manifest"),
    "more images without labels": ("data.init_args.pool",),
    "column of numbers": ("data.init_args.target",),
    "read by": ("data.class_path",),
    "image size, pixels": ("data.init_args.image_size",),
    "images per step": ("data.init_args.batch_size",),
    "share of the labels": ("data.init_args.label_share",),
    "length": ("data.init_args.budget",),
    "method": ("model.objective.class_path",),
    "trained alongside the labels": ("model.auxiliary.class_path",),
    "starts from": ("model.weights",),
    "network": ("model.backbone",),
    "learning rate": ("model.optim.lr",),
    "weight decay": ("model.optim.weight_decay",),
    "layer-wise decay": ("model.optim.layer_decay",),
    "seed": ("model.seed",),
    "precision": ("trainer.precision",),
}
"""The settings that a reader looks for first, by the names of the options."""


def run_sections(folder: Path) -> list[Section]:
    """The parts of a training's page.

    Args:
        folder: The folder, which has ``config.yaml``.
    """
    settings = read_settings(folder / "config.yaml")
    if "objective" in settings["model"]:
        parts = [_pretrained(folder)]
        commands = _after_pretraining(folder, settings)
    else:
        task = task_for_datamodule(settings["data"]["class_path"].rpartition(".")[2])
        parts = [_finetuned(folder, task)]
        commands = _after_finetuning(folder, task)
    pictures = Section("Pictures")
    history = draw_history(sorted(folder.glob("metrics*.csv")))
    if history is not None:
        pictures.pictures.append(embed(history, "Losses and scores over the steps, from metrics.csv."))
    pictures.show(pictures_in(folder))
    found = [section for section in (*parts, pictures) if section.texts or section.pictures or section.verdict]
    return [*found, _settings(folder, settings), _commands(folder, settings, commands)]


def _numbers(weights: Path) -> list[Table]:
    """The scores of the kept weights."""
    numbers = run_numbers(load_weights(str(weights)))
    rows = [[name, number(value)] for name, value in numbers]
    return [Table(["score of the kept weights", "value"], rows)] if rows else []


def _pretrained(folder: Path) -> Section:
    """Which checkpoint of a pre-training to keep, and its numbers."""
    section = Section("Which checkpoint to keep")
    weights, selection = folder / "backbone.safetensors", folder / "checkpoints" / "selection.json"
    if not is_file(weights):
        section.verdict = "Not finished: there are no weights yet. The settings below are those of the run."
        return section
    section.tables += _numbers(weights)
    if not is_file(selection):
        section.verdict = f"Keep {weights.name}, the last checkpoint."
        section.texts.append("Nothing was measured during training, so there is no reason to prefer another.")
        return section
    found = read_json(selection)
    decision = Decision(**{name: found[name] for name in ("best_step", "stop", "reason", "signal", "overfits_from")})
    history = [Reading.from_json(stored) for stored in found["history"]]
    kept = "the last checkpoint" if decision.best_step is None else f"the weights of step {decision.best_step:,}"
    section.verdict = f"Keep {weights.name}, {kept}: {decision.reason}."
    if decision.overfits_from is not None:
        section.texts.append(f"From step {decision.overfits_from:,}, {decision.signal} stayed worse than at its best.")
    section.texts.append(f"Its checkpoint, to continue from: {_within(folder, found['checkpoint'])}")
    if history:
        header, *rows = signal_cells(history, decision)
        section.tables.append(Table(header, rows, "± one standard error, over the measured images."))
    return section


def _within(folder: Path, recorded: str) -> Path:
    """A checkpoint of a run, wherever the run was when its path was recorded."""
    return folder / "checkpoints" / Path(recorded).name


def _finetuned(folder: Path, task: Task) -> Section:
    """The scores of a fine-tuning, in words and as tables."""
    section = Section("Scores")
    weights = folder / task.weights
    if not is_file(weights):
        section.verdict = "Not finished: there are no weights yet. The settings below are those of the run."
        return section
    path = next((path for path in (folder / "test.json", folder / "val.json") if is_file(path)), None)
    if path is None:
        section.verdict = (
            f"Keep {weights.name}. There was neither a test nor a val split, so nothing is known about its quality."
        )
        return section
    report = read_json(path)
    section.verdict, tables = _scores(report, path.stem)
    section.tables += [*tables, *_numbers(weights)]
    best = _within(folder, report["checkpoint"])
    section.texts.append(f"Which checkpoint to keep: {weights.name} holds the weights of {best}.")
    if path.stem == "val":
        section.texts.append(
            "There is no test split. The checkpoint was chosen on val, so these scores are slightly optimistic."
        )
    return section


def _scores(report: Mapping[str, Any], split: str) -> tuple[str, list[Table]]:
    """The main score in a sentence, and the score of each class."""
    if "mae_of_median" in report:
        return _measured(report, split)
    scores, names = report["scores"], report["classes"]
    counts = report.get("confusion")
    if "test/accuracy" in scores and counts:
        return _classified(counts, names, split)
    if "iou" in report:
        return _segmented(report, split)
    if "box/AP" in scores:
        kinds = [kind for kind in ("box", "mask") if f"{kind}/AP" in scores]
        entries = dict.fromkeys(name.partition("/")[2] for name in scores if name.partition("/")[0] in kinds)
        rows = [[entry, *(_average_precision(scores.get(f"{kind}/{entry}")) for kind in kinds)] for entry in entries]
        sentence = in_words([f"{kind} AP {_average_precision(scores[f'{kind}/AP'])}" for kind in kinds])
        note = "In percent. No intervals: the objects of an image are not independent. Train several seeds to see the spread."
        return f"On {split}: {sentence}.", [Table(["", *(f"{kind} AP" for kind in kinds)], rows, note)]
    rows = [[name.removeprefix("test/"), percent(value)] for name, value in scores.items() if value is not None]
    return f"{rows[0][0]} on {split}: {rows[0][1]}." if rows else "No scores.", [Table(["score", "value"], rows)]


def _segmented(report: Mapping[str, Any], split: str) -> tuple[str, list[Table]]:
    """The mean IoU in a sentence, and the IoU of each class; records of earlier versions have no intervals."""
    ends = report.get("intervals")
    rows = [[name, "no pixels" if value is None else percent(value)] for name, value in report["iou"].items()]
    sentence = f"Mean IoU on {split}: {percent(report['scores']['test/miou'])}"
    if not ends:
        return f"{sentence}.", [Table(["class", "IoU"], rows, "No intervals over the images are recorded.")]
    for row, found in zip(rows, ends["iou"], strict=True):
        row.append("—" if found is None else interval_text(found))
    sentence += f" (95 % interval: {interval_text(ends['miou'])})."
    return sentence, [Table(["class", "IoU", "95 % interval"], rows, note_on_intervals(report["images"]))]


def _measured(report: Mapping[str, Any], split: str) -> tuple[str, list[Table]]:
    """The errors of predicted numbers, beside that of a constant prediction."""
    scores, target = report["scores"], report["target"]
    mae = number(scores["test/mae"], report["standard_error"])
    sentence = f"Predictions of {target} are off by {mae} on average, on {report['images']:,} {split} images. {baseline(report)}"
    rows = [
        ["mean absolute error (MAE)", mae],
        ["root mean squared error (RMSE)", number(scores["test/rmse"])],
        ["R²", number(scores["test/r2"])],
        ["MAE of always predicting the median", number(report["mae_of_median"])],
    ]
    note = "± one standard error over these images. R² is 1 if all are right, and 0 for always predicting their mean."
    return sentence, [Table(["score", target], rows, note)]


def _average_precision(value: float | None) -> str:
    return f"{100 * value:.1f}" if value is not None and math.isfinite(value) and value >= 0 else "no objects"


def _classified(counts: list[list[int]], names: list[str], split: str) -> tuple[str, list[Table]]:
    """The accuracy with its interval, beside that of always answering one class."""
    total, hits = sum(map(sum, counts)), sum(row[label] for label, row in enumerate(counts))
    if not total:
        return f"There are no labelled images in {split}.", []
    accuracy, interval, _ = of_images(hits, total)
    label = max(range(len(counts)), key=lambda label: sum(counts[label]))
    sentence = (
        f"{accuracy} of the {total:,} {split} images are classified correctly (95 % interval: {interval}). Always answering "
        f"{names[label] if names else f'class {label}'} would be right for {percent(sum(counts[label]) / total)}."
    )
    titles = names or [str(label) for label in range(len(counts))]
    rows = [
        [title, *of_images(row[label], sum(row))] for label, (title, row) in enumerate(zip(titles, counts, strict=True))
    ]
    note = "Accuracy of each class: the share of its images that are classified correctly. Wilson's intervals, for one network."
    tables = [
        Table(
            ["class", "accuracy", "95 % interval", "images"], [*rows, ["all", accuracy, interval, f"{total:,}"]], note
        )
    ]
    cells = [[title, *map(str, row)] for title, row in zip(titles, counts, strict=True)]
    tables.append(Table(["true class ↓ taken for →", *titles], cells, "Numbers of images."))
    return sentence, tables


def _settings(folder: Path, settings: dict[str, Any]) -> Section:
    """The main settings as a table, and all of them."""
    section, rows = Section("Settings"), []
    for title, names in SETTINGS.items():
        value = next((found for found in (_at(settings, name) for name in names) if found not in (None, [], {})), None)
        if value is not None:
            rows.append([title, _plain(value)])
    section.tables.append(Table(["setting", "value"], rows))
    section.details["All settings (config.yaml)"] = read_text(folder / "config.yaml")
    return section


def _at(settings: Any, name: str) -> Any:
    """A setting by the name of its option; None if it is not set."""
    for part in name.split("."):
        settings = settings.get(part) if isinstance(settings, dict) else None
    return settings


def _plain(value: Any) -> str:
    """A value in a table."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items() if entry is not None)
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return value.removeprefix("lit_splitmask.") if isinstance(value, str) else str(value)


def _commands(folder: Path, settings: dict[str, Any], following: list[tuple[str, str]]) -> Section:
    """The command that repeats the run, and those that come next."""
    command = "pretrain" if "objective" in settings["model"] else "finetune"
    again = [
        "lit-splitmask",
        command,
        "--config",
        str(folder / "config.yaml"),
        "--name",
        f"{as_typed(folder).name}-again",
    ]
    return Section("Commands", commands=[("To repeat this run with its settings:", shlex.join(again)), *following])


def _after_pretraining(folder: Path, settings: dict[str, Any]) -> list[tuple[str, str]]:
    """What to do with a backbone."""
    weights, data = folder / "backbone.safetensors", settings["data"]["init_args"]
    if not is_file(weights):
        return []
    given = [f"--data.{name}={data[name]}" for name in ("root", "manifest", "target") if data.get(name)]
    layout = (data.get("splits") or {}).get("layout", "auto")
    kind = settings["data"]["class_path"].rpartition(".")[2]
    given += [] if kind == "ImageFolder" else [f"--data={kind}"]
    given += [] if layout == "auto" else [f"--data.splits.layout={layout}"]
    given += [f"--recipe={settings['recipe']}"] if settings.get("recipe") else []
    request = Request.read("pretrain", given)
    images = request.data_options()
    embed_command = ["lit-splitmask", "embed", "--weights", str(weights), *images]
    return [
        ("To train from it for your classes, label maps or boxes:", shlex.join(command_to_finetune(weights, request))),
        ("To draw a map of the images:", shlex.join(embed_command)),
    ]


def _after_finetuning(folder: Path, task: Task) -> list[tuple[str, str]]:
    """What to do with a trained network."""
    weights, predict = folder / task.weights, folder / "predict.yaml"
    commands = []
    if is_file(predict):
        words = ["lit-splitmask", "predict", "--config", str(predict), "--data.root"]
        commands.append((f"To {task.verb} other images:", f"{shlex.join(words)} DIR"))
    if task.export_formats and is_file(weights):
        commands.append(("To use it elsewhere:", shlex.join(command_to_export(weights, task.export_formats))))
    return commands
