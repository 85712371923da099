"""``lit-splitmask probe``: the quality of a backbone's frozen features, block by block."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from lit_splitmask.commands.chance import chance_level, interval, interval_text, percent
from lit_splitmask.commands.frozen import Frozen
from lit_splitmask.commands.plots import draw_blocks
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import quiet
from lit_splitmask.errors import UserError
from lit_splitmask.files import partial_name, write_json
from lit_splitmask.loading.samples import Samples
from lit_splitmask.probing import LinearProbe, accuracy, knn_predict, rankme
from lit_splitmask.reserved import reserved
from lit_splitmask.seeding import generator_for
from lit_splitmask.shell import say
from lit_splitmask.streamed_probing import FeatureFiles, StreamedLinearProbe, streamed_knn

MOST_SOLVED = 2**30
"""Most bytes of features that ``--linear auto`` holds in memory."""

MOST_QUERIES = 65_536
"""Held-out images of which the k-NN holds the features; RankMe takes the first that many."""


@dataclass
class Options:
    """Options of ``probe``.

    Attributes:
        out: Folder of ``probe.json`` and ``probe.png``; by default ``runs/probe-<weights>-<images>``.
        k: Neighbours that vote.
        blocks: Whether to probe the output of each block too (Figure 5).
        linear: ``solved`` holds all features in memory, solves the linear probe, and takes ``most_images`` training images;
            ``streamed`` keeps the features of all images in files and trains by mini-batches (MAE's form); ``auto`` solves
            up to ``most_images`` training images whose features, with the held-out ones, fit in 1 GiB.
        most_images: Largest number of training images of the solved probe, evenly spaced.
    """

    out: str | None = None
    k: int = 20
    blocks: bool = True
    linear: Literal["auto", "solved", "streamed"] = "auto"
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
    with reserved(out / "probe.json", "give another --out"):
        frozen.open()
        report = {"weights": frozen.weights_path, "images": frozen.images, **_probe(frozen, out)}
        write_json(out / "probe.json", report)
    _print(report)
    written = "probe.json"
    if report["blocks"]:
        draw_blocks(report["blocks"], report["held_out_images"], out / "probe.png")
        written += " and probe.png"
    say(f"Wrote {written} in {out}.")
    return 0


def _probe(frozen: Frozen[Options], out: Path) -> dict[str, Any]:
    """Fits on the training images, and scores on the test images, or on val if there is no test split."""
    data, options = frozen.data, frozen.options
    held_out_of = {name: data.source.splits[name].labelled() for name in ("test", "val") if name in data.source.splits}
    split = next((name for name, samples in held_out_of.items() if len(samples)), None)
    if split is None or data.num_classes < 2:
        raise UserError(
            f"probe needs labelled training images and a val or test split, but these images have {data.num_classes} classes "
            f"and the splits {', '.join(data.source.splits)}: put each class's images into its own folder."
        )
    train, held_out = data.train_samples.labelled(), held_out_of[split]
    blocks = list(range(len(frozen.vit.blocks))) if options.blocks else []
    linear = options.linear
    if linear == "auto":
        size = 4 * (len(train) + len(held_out)) * frozen.vit.embed_dim * (len(blocks) + 1)
        linear = "solved" if len(train) <= options.most_images and size <= MOST_SOLVED else "streamed"
    scores = (
        _solved(frozen, train, held_out, blocks)
        if linear == "solved"
        else _streamed(frozen, train, held_out, blocks, out)
    )
    counts = np.bincount(held_out.labels, minlength=data.num_classes).tolist()
    of_classes = dict(zip(data.class_names, counts, strict=True))
    return {"split": split, "classes": data.num_classes, "held_out": of_classes, "linear_probe": linear, **scores}


def _solved(frozen: Frozen[Options], samples: Samples, held_out: Samples, blocks: list[int]) -> dict[str, Any]:
    """Solves the probes of features in memory."""
    options, num_classes = frozen.options, frozen.data.num_classes
    if len(samples) > options.most_images:
        samples = samples.subset(torch.linspace(0, len(samples) - 1, options.most_images).round().long().tolist())
    train, labels = _collect(frozen, samples, "Training images", blocks)
    queries, truth = _collect(frozen, held_out, "Held-out images", blocks)
    linear = [
        accuracy(LinearProbe(fitted_on, labels, num_classes).predict(scored_on), truth)
        for fitted_on, scored_on in zip(train, queries, strict=True)
    ]
    neighbours = accuracy(knn_predict(train[-1], labels, queries[-1], num_classes, k=options.k), truth)
    return _scores(labels, truth, options.k, neighbours, linear, rankme(queries[-1]))


def _streamed(
    frozen: Frozen[Options], samples: Samples, held_out: Samples, blocks: list[int], out: Path
) -> dict[str, Any]:
    """Trains the probes on features in files, which are deleted afterwards; at most one feature set is in memory."""
    num_classes, device, k = frozen.data.num_classes, frozen.vit.pos_embed.device, frozen.options.k
    folder = partial_name(out / "probe.json")  # if this process is killed, the next that reserves the name removes it
    folder.mkdir()
    try:
        order = torch.randperm(len(samples), generator=generator_for(0, "order of the probe's images"))
        train = _store(frozen, samples.subset(order.tolist()), "Training images", blocks, folder / "train")
        queries = _store(frozen, held_out, "Held-out images", blocks, folder / "held-out")
        labels, truth, last = train.labels, queries.labels, len(blocks)
        linear = []
        for number in track(range(last + 1), "Linear probes", console=Console(stderr=True), transient=True):
            probe = StreamedLinearProbe(train, number, num_classes, device=device)
            linear.append(accuracy(torch.cat([probe.predict(rows) for rows in queries.batches(number)]), truth))
        final = [
            streamed_knn(train, last, rows, num_classes, k=k, device=device)
            for rows in queries.batches(last, MOST_QUERIES)
        ]
        effective_rank = rankme(queries.read(last, 0, MOST_QUERIES))
        return _scores(labels, truth, k, accuracy(torch.cat(final), truth), linear, effective_rank)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _store(frozen: Frozen[Options], samples: Samples, title: str, blocks: Sequence[int], folder: Path) -> FeatureFiles:
    """Features of each block and of the whole network, in files."""
    folder.mkdir()
    files = FeatureFiles(folder, [frozen.vit.embed_dim] * (len(blocks) + 1), len(samples))
    for features, labels in frozen.features(samples, title, blocks):
        files.add(features, labels)
    return files


def _scores(
    labels: Tensor,
    truth: Tensor,
    k: int,
    neighbours: tuple[float, float],
    linear: Sequence[tuple[float, float]],
    effective_rank: float,
) -> dict[str, Any]:
    named = [{"accuracy": value, "error": error} for value, error in linear]
    return {
        "train_images": len(labels),
        "held_out_images": len(truth),
        "knn": {"accuracy": neighbours[0], "error": neighbours[1], "k": min(k, len(labels))},
        "linear": named[-1],
        "rankme": effective_rank,
        "blocks": named[:-1],
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
    table = Table("probe", "accuracy", "95 % interval")

    def row(name: str, value: dict[str, float]) -> None:
        ends = interval(value["accuracy"], report["held_out_images"])
        table.add_row(name, percent(value["accuracy"]), interval_text(ends))

    for number, value in enumerate(report["blocks"], start=1):
        row(f"linear, block {number}", value)
    row("linear, whole network", report["linear"])
    row(f"{report['knn']['k']}-NN, whole network", report["knn"])
    table.add_row("RankMe (not an accuracy)", f"{report['rankme']:.1f}")
    console = Console(markup=False, highlight=False)
    console.print(title, soft_wrap=True)  # as a title it would be broken to the table's width
    console.print(table)
    say(
        f"Frozen features, {report['train_images']:,} training and {report['held_out_images']:,} held-out images; "
        f"intervals over the held-out images; {report['linear_probe']} linear probe."
    )
    say(chance_level(report["held_out"]))
