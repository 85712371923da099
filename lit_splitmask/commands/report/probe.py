"""The page of ``probe``."""

from pathlib import Path

from lit_splitmask.commands.report.page import Section, Table
from lit_splitmask.commands.report.records import number, percent, pictures_in, read_json


def probe_sections(folder: Path) -> list[Section]:
    """The parts of a probe's page.

    Args:
        folder: The folder, which has ``probe.json``.
    """
    found = read_json(folder / "probe.json")
    rows = [(f"linear, block {block}", score) for block, score in enumerate(found["blocks"], start=1)]
    rows += [("linear, whole network", found["linear"]), (f"{found['knn']['k']}-NN, whole network", found["knn"])]
    table = Table(
        ["probe", "accuracy", "± one standard error"],
        [[name, percent(score["accuracy"]), percent(score["error"])] for name, score in rows],
        f"Frozen features; {found['train_images']:,} training and {found['held_out_images']:,} images of {found['split']}; "
        f"{found['classes']} classes, so guessing would give {percent(1 / found['classes'])} if all were equally frequent. "
        f"RankMe, the effective rank of the features, is {number(found['rankme'])}.",
    )
    section = Section("Scores", tables=[table])
    section.texts.append(f"Weights: {found['weights'] or 'random'}. Images: {found['images']}.")
    section.show(pictures_in(folder))
    return [section]
