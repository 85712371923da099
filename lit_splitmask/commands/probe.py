"""``lit-splitmask probe``: the quality of a backbone's frozen features, block by block."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lit_splitmask.commands.frozen import Frozen
from lit_splitmask.commands.plots import draw_blocks
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import quiet
from lit_splitmask.errors import UserError
from lit_splitmask.files import write_json
from lit_splitmask.loading.samples import Samples
from lit_splitmask.probing import LinearProbe, accuracy, knn_predict, rankme


@dataclass
class Options:
    """Options of ``probe``.

    Attributes:
        out: Folder of ``probe.json`` and ``probe.png``; by default ``runs/probe-<weights>-<images>``.
        k: Neighbours that vote.
        blocks: Whether to probe the output of each block too (Figure 5).
        most_images: Largest number of training images, evenly spaced; their features are held in memory.
    """

    out: str | None = None
    k: int = 20
    blocks: bool = True
    most_images: int = 20_000


def probe(request: Request) -> int:
    """Fits k-NN and linear probes, and writes their scores and a plot.

    Raises:
        UserError: The images, the weights or the options cannot be used, or the output folder already holds a probe.
    """
    quiet()
    frozen = Frozen(request, Options)
    out = Path(frozen.options.out or f"runs/probe-{frozen.name}")
    if (out / "probe.json").exists():
        raise UserError(f"{out} already holds a probe: give another --out, or delete it.")
    frozen.open()
    report = {"weights": frozen.weights_path, "images": frozen.images, **_probe(frozen)}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "probe.json", report)
    _print(report)
    written = "probe.json"
    if report["blocks"]:
        draw_blocks(report["blocks"], out / "probe.png")
        written += " and probe.png"
    print(f"Wrote {written} in {out}.")
    return 0


def _probe(frozen: Frozen[Options]) -> dict[str, Any]:
    """Fits on the training images, and scores on the test images, or on val if there is no test split."""
    data, options = frozen.data, frozen.options
    held_out_of = {name: data.source.splits[name].labelled() for name in ("test", "val") if name in data.source.splits}
    split = next((name for name, samples in held_out_of.items() if len(samples)), None)
    if split is None or data.num_classes < 2:
        raise UserError(
            f"probe needs labelled training images and a val or test split, but these images have {data.num_classes} classes "
            f"and the splits {', '.join(data.source.splits)}: put each class's images into a folder of its own."
        )
    samples = data.train_samples.labelled()
    if len(samples) > options.most_images:
        samples = samples.subset(torch.linspace(0, len(samples) - 1, options.most_images).round().long().tolist())
    blocks = list(range(len(frozen.vit.blocks))) if options.blocks else []
    train, labels = _collect(frozen, samples, "Training images", blocks)
    held_out, truth = _collect(frozen, held_out_of[split], f"{split.title()} images", blocks)
    final_train, final_held_out = train.pop(), held_out.pop()

    def linear(fitted_on: Tensor, scored_on: Tensor) -> dict[str, float]:
        value, error = accuracy(LinearProbe(fitted_on, labels, data.num_classes).predict(scored_on), truth)
        return {"accuracy": value, "error": error}

    neighbours, error = accuracy(knn_predict(final_train, labels, final_held_out, data.num_classes, k=options.k), truth)
    return {
        "split": split,
        "train_images": len(labels),
        "held_out_images": len(truth),
        "classes": data.num_classes,
        "knn": {"accuracy": neighbours, "error": error, "k": min(options.k, len(labels))},
        "linear": linear(final_train, final_held_out),
        "rankme": rankme(final_held_out),
        "blocks": [linear(*block) for block in zip(train, held_out, strict=True)],
    }


def _collect(
    frozen: Frozen[Options], samples: Samples, title: str, blocks: Sequence[int]
) -> tuple[list[Tensor], Tensor]:
    """Features (N, D) of each block and of the whole network; and labels (N,)."""
    batches = list(frozen.features(samples, title, blocks))
    features = [torch.cat(parts) for parts in zip(*(outputs for outputs, _ in batches), strict=True)]
    return features, torch.cat([labels for _, labels in batches])


def _print(report: dict[str, Any]) -> None:
    title = f"{report['weights'] or 'random weights'} on {report['split']} of {report['images']}"
    table = Table("probe", "accuracy, %", title=title)

    def row(name: str, value: dict[str, float]) -> None:
        table.add_row(name, f"{100 * value['accuracy']:.1f} ± {100 * value['error']:.1f}")

    for number, value in enumerate(report["blocks"], start=1):
        row(f"linear, block {number}", value)
    row("linear, whole network", report["linear"])
    row(f"{report['knn']['k']}-NN, whole network", report["knn"])
    table.add_row("RankMe (not an accuracy)", f"{report['rankme']:.1f}")
    Console().print(
        table,
        f"Frozen features, {report['train_images']:,} training and {report['held_out_images']:,} held-out images; "
        "± one standard error.",
    )
