"""The rows of the paper's tables and figures, from ``paper_rows.yaml``: what trains each, and the paper's number. Data only."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

EMPTY = "-"
"""A cell that the paper leaves empty."""


@dataclass(frozen=True)
class Images:
    """The images of a training.

    Attributes:
        name: Name in ``paper_rows.yaml``.
        data: Class of the datamodule.
        share: Share of the training images.
        passes: Epochs of pre-training; None for those of Table 3.
    """

    name: str
    data: str
    share: float = 1.0
    passes: float | None = None


@dataclass(frozen=True)
class Pretraining:
    """A pre-training of the paper, with either backbone.

    Attributes:
        name: Name in ``paper_rows.yaml``.
        recipe: The recipe.
        images: What it trains on.
        base: The recipe for ViT-B; None for the same.
        passes: Epochs; None for those of the images.
        options: Options of ``pretrain`` over the recipe.
        tokenizer: Whether it needs the file of DALL-E's encoder.
        along: Epochs after which weights are written for fine-tuning; the last is the length of the run. Empty for the end alone.
    """

    name: str
    recipe: str
    images: Images
    base: str | None = None
    passes: float | None = None
    options: tuple[str, ...] = ()
    tokenizer: bool = False
    along: tuple[float, ...] = ()

    def recipe_for(self, backbone: str) -> str:
        """The recipe for ``ViT-S`` or ``ViT-B``."""
        return self.base if self.base is not None and backbone == "ViT-B" else self.recipe


@dataclass(frozen=True)
class Finetuning:
    """A fine-tuning of the paper, with either backbone.

    Attributes:
        name: Name in ``paper_rows.yaml``.
        recipe: The recipe.
        images: What it trains on and is evaluated on.
        base: The recipe for ViT-B; None for the same.
        options: Options of ``finetune`` over the recipe.
    """

    name: str
    recipe: str
    images: Images
    base: str | None = None
    options: tuple[str, ...] = ()

    def recipe_for(self, backbone: str) -> str:
        """The recipe for ``ViT-S`` or ``ViT-B``."""
        return self.base if self.base is not None and backbone == "ViT-B" else self.recipe


@dataclass(frozen=True)
class Row:
    """A row of a table: one pre-training, its fine-tunings and probe, and the paper's numbers.

    Attributes:
        table: Name of the table.
        name: Name of the row.
        method: The method, as the paper calls it.
        backbone: ``ViT-S`` or ``ViT-B``; another one in rows that cannot be run.
        paper: The paper's number by score, in percent; None if its text has none.
        pretraining: The pre-training; None for random initialisation.
        finetuning: The fine-tuning; None if features are only probed.
        probe: The images that frozen features are probed on; None if they are not.
        outside: What the row needs that this package does not have; None if it can be run.
    """

    table: str
    name: str
    method: str
    backbone: str
    paper: Mapping[str, float | None]
    pretraining: Pretraining | None = None
    finetuning: Finetuning | None = None
    probe: Images | None = None
    outside: str | None = None

    @property
    def evaluated_on(self) -> Images:
        """The images of the fine-tuning, or of the probe."""
        images = self.probe if self.finetuning is None else self.finetuning.images
        assert images is not None
        return images


@dataclass(frozen=True)
class PaperTable:
    """A table or figure of the paper.

    Attributes:
        name: Its name, such as ``table6``.
        title: What it shows.
        note: What to know before comparing numbers; may be empty.
        rows: Its rows by name.
    """

    name: str
    title: str
    note: str
    rows: Mapping[str, Row]

    @property
    def heading(self) -> str:
        """Its name in words, such as ``Table 6``."""
        kind = self.name.rstrip("0123456789")
        return f"{kind.title()} {self.name.removeprefix(kind)}"


def along_score(score: str, passes: float) -> str:
    """Name of a score after a part of a pre-training."""
    return f"{score} after {passes:,.0f}"


@cache
def paper_tables() -> dict[str, PaperTable]:
    """The paper's tables and figures by name.

    Example:
        >>> from lit_splitmask.datamodules.paper_rows import paper_tables
        >>> row = paper_tables()["table6"].rows["splitmask-s-cars"]
        >>> row.pretraining.recipe, row.finetuning.recipe, dict(row.paper)
        ('splitmask_cars', 'finetune_cars', {'top-1': 92.8})
    """
    data = yaml.safe_load((files("lit_splitmask.datamodules") / "paper_rows.yaml").read_text(encoding="utf-8"))
    images = {name: Images(name, **values) for name, values in data["images"].items()}
    pretrainings = {
        name: Pretraining(
            name,
            **{
                **values,
                "images": images[values["images"]],
                "options": tuple(values.get("options", ())),
                "along": tuple(values.get("along", ())),
            },
        )
        for name, values in data["pretraining"].items()
    }
    finetunings = {
        name: Finetuning(
            name, **{**values, "images": images[values["images"]], "options": tuple(values.get("options", ()))}
        )
        for name, values in data["finetuning"].items()
    }
    tables = {}
    for name, table in data["tables"].items():
        rows = {row.name: row for row in _rows(name, table, images, pretrainings, finetunings)}
        tables[name] = PaperTable(name, table["title"], table.get("note", ""), rows)
    return tables


def _rows(
    name: str,
    table: Mapping[str, Any],
    images: Mapping[str, Images],
    pretrainings: Mapping[str, Pretraining],
    finetunings: Mapping[str, Finetuning],
) -> Iterator[Row]:
    """The rows of a table: each line's, column by column."""
    scores = table["scores"]
    for line in table["lines"]:
        columns = table.get("columns", [None])
        for number, column in enumerate(columns):
            paper = line.get("paper") or [None] * len(columns if column else scores)
            cells = [paper[number]] if column else paper
            if cells == [EMPTY]:
                continue

            def named(key: str, line: Any = line, column: Any = column) -> str | None:
                value = line.get(key, table.get(key))
                return value.format(column=column) if value is not None else None

            pretrain, finetune, probe = named("pretrain"), named("finetune"), named("probe")
            probe = finetune if "linear top-1" in scores else probe
            pretraining = None if pretrain is None else pretrainings[pretrain]
            names = scores
            if pretraining is not None and pretraining.along:
                names = [along_score(score, passes) for score in scores for passes in pretraining.along]
                cells = [None] * len(names)
            yield Row(
                table=name,
                name=f"{line['line']}-{column}" if column else line["line"],
                method=line["method"],
                backbone=line["backbone"],
                paper=dict(zip(names, cells, strict=True)),
                pretraining=pretraining,
                finetuning=None if finetune is None else finetunings[finetune],
                probe=None if probe is None else images[probe],
                outside=line.get("outside"),
            )
