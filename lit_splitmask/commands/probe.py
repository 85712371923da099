"""``lit-splitmask probe``: what a backbone's frozen features are worth, block by block."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from lit_splitmask.checkpoints import Weights, config_of, load_into, load_weights, write_atomically
from lit_splitmask.commands.arguments import value_of
from lit_splitmask.commands.parser import shorten
from lit_splitmask.commands.report import draw_blocks
from lit_splitmask.commands.run_cli import instantiate, quiet
from lit_splitmask.datamodules.base import ImageData
from lit_splitmask.datamodules.dataset import Samples
from lit_splitmask.errors import UserError
from lit_splitmask.models.vit import ViT
from lit_splitmask.probing import LinearProbe, accuracy, knn_predict, rankme
from lit_splitmask.seeding import derive_seed
from lit_splitmask.views import IMAGENET_MEAN, IMAGENET_STD, network_view


@dataclass
class Options:
    """What is probed.

    Attributes:
        weights: a backbone's file, ours or timm's; by default random weights.
        out: where ``probe.json`` and ``probe.png`` go; by default ``runs/probe-<weights>-<images>``.
        k: neighbours that vote.
        blocks: also probe the output of each block (Figure 5).
        most_images: training images that are used, evenly spaced; their features are held in memory.
        seed: of random weights.
    """

    weights: str | None = None
    out: str | None = None
    k: int = 20
    blocks: bool = True
    most_images: int = 20_000
    seed: int = 0


class _Parser(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> Any:  # type: ignore[override]
        """One paragraph instead of a nested report."""
        raise UserError(shorten(message))


def probe(arguments: list[str]) -> int:
    """``lit-splitmask probe``: k-NN and linear probes of any weights on any of the datamodules."""
    quiet()
    path = value_of(arguments, "--weights")
    weights = None if path is None else load_weights(path)
    config = config_of(weights)
    channels = [] if config.in_chans == 3 else [f"--data.channels={config.in_chans}"]
    parser = _Parser(prog="lit-splitmask probe")
    parser.add_class_arguments(Options, as_group=False)
    parser.add_subclass_arguments(ImageData, "data")
    given = ["--data=ImageFolder", f"--data.image_size={config.image_size}", *channels, *arguments]
    parsed = parser.parse_args(given)
    options = Options(**{name: parsed[name] for name in Options.__dataclass_fields__})
    root = value_of(arguments, "--data.root") or value_of(arguments, "--data.manifest")
    if root is None:
        raise UserError("probe needs images: --data.root DIR.")
    name = "random" if path is None else Path(path).resolve().parent.name
    out = Path(options.out or f"runs/probe-{name}-{Path(root).resolve().stem}")
    if (out / "probe.json").exists():
        raise UserError(f"{out} holds a probe already: give another --out, or delete it.")
    data = cast(ImageData, instantiate(cast(Any, parser), parsed)["data"])
    data.prepare_data()
    data.setup("test")
    result = _probe(_network(weights, data, options.seed), weights, data, options)
    out.mkdir(parents=True, exist_ok=True)
    report = {"weights": path, "images": root, **result}
    write_atomically(out / "probe.json", json.dumps(report, indent=2).encode())
    draw_blocks(result["blocks"], out / "probe.png")
    _print(report)
    print(f"Wrote probe.json and probe.png in {out}.")
    return 0


def _network(weights: Weights | None, data: ImageData, seed: int) -> ViT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "initial weights"))
        vit = ViT(config_of(weights))
    if weights is not None:
        load_into(vit, weights)
    if vit.config.image_size != data.image_size:
        vit.resize(data.image_size)
    return vit.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _probe(vit: ViT, weights: Weights | None, data: ImageData, options: Options) -> dict[str, Any]:
    """Fits on the training images, scores on the test images, or on val where there is no test."""
    split = next((name for name in ("test", "val") if name in data.source.splits), None)
    if split is None or data.num_classes < 2:
        raise UserError(
            f"probe needs labelled training images and a val or test split, but these images have {data.num_classes} classes "
            f"and the splits {', '.join(data.source.splits)}."
        )
    samples = data.train_samples
    if len(samples) > options.most_images:
        samples = samples.subset(torch.linspace(0, len(samples) - 1, options.most_images).round().long().tolist())
    info = {} if weights is None else weights.info
    mean = torch.tensor(info.get("pixel_mean", IMAGENET_MEAN))
    std = torch.tensor(info.get("pixel_std", IMAGENET_STD))
    blocks = list(range(len(vit.blocks))) if options.blocks else []
    train, labels = _features(vit, data, samples, blocks, mean, std, "Training images")
    held_out, truth = _features(vit, data, data.source.splits[split], blocks, mean, std, f"{split.title()} images")
    final_train, final_held_out = train.pop(), held_out.pop()

    def linear(one: Tensor, other: Tensor) -> dict[str, float]:
        value, error = accuracy(LinearProbe(one, labels, data.num_classes).predict(other), truth)
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
        "blocks": [linear(one, other) for one, other in zip(train, held_out, strict=True)],
    }


@torch.no_grad()
def _features(
    vit: ViT, data: ImageData, samples: Samples, blocks: list[int], mean: Tensor, std: Tensor, title: str
) -> tuple[list[Tensor], Tensor]:
    """(N, D) float32 of each block and of the whole network, the mean over patches; and labels (N,)."""
    device = vit.pos_embed.device
    found: list[list[Tensor]] = [[] for _ in range(len(blocks) + 1)]
    labels = []
    loader = data.eval_loader(samples)
    for batch in track(loader, title, console=Console(stderr=True), transient=True):
        images = network_view(batch["image"].to(device), mean.to(device), std.to(device))
        outputs = [*(vit.blocks_features(images, blocks) if blocks else []), vit.features(images)]
        for features, output in zip(found, outputs, strict=True):
            features.append(output.float().mean(dim=1).cpu())
        labels.append(batch["label"])
    return [torch.cat(features) for features in found], torch.cat(labels)


def _print(report: dict[str, Any]) -> None:
    title = f"{report['weights'] or 'random weights'} on {report['split']} of {report['images']}"
    table = Table("probe", "accuracy, %", title=title)

    def row(name: str, value: dict[str, float]) -> None:
        table.add_row(name, f"{100 * value['accuracy']:.1f} ± {100 * value['error']:.1f}")

    for number, value in enumerate(report["blocks"], start=1):
        row(f"linear, block {number}", value)
    row("linear, all", report["linear"])
    row(f"{report['knn']['k']}-NN, all", report["knn"])
    table.add_row("RankMe (no accuracy)", f"{report['rankme']:.1f}")
    Console().print(
        table,
        f"Frozen features, {report['train_images']:,} training and {report['held_out_images']:,} held-out images; "
        "± one standard error.",
    )
