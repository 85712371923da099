"""The page of ``probe``."""

from pathlib import Path

from lit_splitmask.commands.chance import interval, interval_text, percent
from lit_splitmask.commands.report.page import Section, Table
from lit_splitmask.commands.report.records import number, pictures_in, read_json


def probe_sections(folder: Path) -> list[Section]:
    """The parts of a probe's page.

    Args:
        folder: The folder, which has ``probe.json``.
    """
    found = read_json(folder / "probe.json")
    rows = [(f"linear, block {block}", score) for block, score in enumerate(found["blocks"], start=1)]
    rows += [("linear, whole network", found["linear"]), (f"{found['knn']['k']}-NN, whole network", found["knn"])]
    images = found["held_out_images"]
    table = Table(
        ["probe", "accuracy", "95 % interval"],
        [
            [name, percent(score["accuracy"]), interval_text(interval(score["accuracy"], images))]
            for name, score in rows
        ],
        f"Frozen features; {found['train_images']:,} training and {images:,} images of {found['split']}; "
        f"{found['classes']} classes, so guessing would give {percent(1 / found['classes'])} if all were equally frequent. "
        f"RankMe, the effective rank of the features, is {number(found['rankme'])}.",
    )
    section = Section("Scores", tables=[table])
    section.texts.append(f"Weights: {found['weights'] or 'random'}. Images: {found['images']}.")
    section.show(pictures_in(folder))
    return [section]
