"""Does pre-training on the training images help segmentation? UperNet over a small ViT, from scratch and from SplitMask.

For each seed, SplitMask pre-trains on the training images alone (75 % uniform masks, k-means words of centred pixels), and
UperNet is trained for the same number of steps from scratch and from that backbone. The last weights, not the best ones, are
evaluated on val, so val is not used for any choice. The layer decay of each arm was tuned on other images (docs/results.md,
trashnet6). Every job writes a result.json and is not run again; several processes can run different seeds.

    python benchmarks/segmentation.py --root camvid11 --void 11 --out runs/segmentation
    python benchmarks/segmentation.py --root camvid11 --void 11 --out runs/segmentation --seeds 2      # that seed alone
"""

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from curves import draw, logged
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from rich.table import Table

from lit_splitmask.callbacks import ExportWeights, RunProgress, SegmentationPictures
from lit_splitmask.commands.run_cli import best_precision
from lit_splitmask.comparison import mean_and_sd, paired_difference
from lit_splitmask.datamodules import Budget, ImageFolder, PretrainAugment, SegmentationFolder
from lit_splitmask.files import write_atomically
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.masking import UniformMasking
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Pretrain, Segment
from lit_splitmask.modules.label_scores import class_iou
from lit_splitmask.objectives import SplitMask
from lit_splitmask.optim import OptimConfig
from lit_splitmask.tokenizers import KMeans

BACKBONE = ViTConfig(size="tiny", embed_dim=128, depth=6, num_heads=4, patch_size=8, image_size=96, positions="sincos")
ARMS = {"scratch": 1.0, "pretrained": 0.75}
"""Layer decay of each arm."""


@dataclass(frozen=True)
class Settings:
    """What the results depend on.

    Attributes:
        root: Folder of images and label maps.
        void: Value of pixels without a label in the maps.
        short_side: Shorter side to which images are scaled, in pixels.
        steps: Steps of fine-tuning, of 8 crops each.
        pretrain_steps: Steps of pre-training, of 32 crops each; 0 for training from scratch.
        precision: Precision of the trainer.
    """

    root: str
    void: int | None
    short_side: int
    steps: int
    pretrain_steps: int
    precision: str


def make_trainer(folder: Path, settings: Settings) -> Trainer:
    """A trainer that writes its curves to a folder."""
    return Trainer(
        accelerator="cpu",
        max_epochs=-1,
        precision=settings.precision,  # type: ignore[arg-type]
        gradient_clip_val=3.0,
        logger=CSVLogger(str(folder), name="", version=""),
        callbacks=[RunProgress()],
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
    )


def fit(folder: Path, settings: Settings, module: LightningModule, data: LightningDataModule) -> tuple[Trainer, float]:
    """Trains; returns the trainer and the seconds that training took, including evaluations."""
    trainer = make_trainer(folder, settings)
    start = time.perf_counter()
    trainer.fit(module, datamodule=data)
    return trainer, time.perf_counter() - start


def pretrain(folder: Path, settings: Settings, seed: int) -> dict[str, Any]:
    """Pre-trains with SplitMask on the training images and writes ``backbone.safetensors``."""
    data = ImageFolder(
        str(Path(settings.root) / "images" / "train"),
        96,
        splits=SplitOptions(labels="none", val_share=0.0),
        batch_size=32,
        budget=Budget(steps=settings.pretrain_steps),
        num_epochs=5,
        augment=PretrainAugment(min_scale=0.05, max_scale=0.5),
        seed=seed,
        num_workers=0,
        index_dir=str(folder.parent / "data"),
    )
    objective = partial(
        SplitMask,
        masking=UniformMasking(0.75),
        tokenizer=partial(KMeans, vocabulary=512, pixels="centred"),
        decoder_depth=2,
    )
    optim = OptimConfig(lr=1.5e-3, reference_batch=128, beta2=0.98, warmup=0.05, min_lr=1e-5)
    module = Pretrain(objective, backbone=BACKBONE, optim=optim, seed=seed)
    trainer, seconds = fit(folder, settings, module, data)
    ExportWeights(str(folder / "backbone.safetensors")).export(module, trainer.global_step)
    return {"seconds": seconds, **{name: float(v) for name, v in trainer.callback_metrics.items()}}


def finetune(folder: Path, settings: Settings, seed: int, arm: str) -> dict[str, Any]:
    """Trains UperNet from scratch or from the seed's pre-training; returns the scores of its last weights on val."""
    data = SegmentationFolder(
        settings.root,
        96,
        short_side=settings.short_side,
        void=settings.void,
        batch_size=8,
        budget=Budget(steps=settings.steps),
        num_epochs=5,
        seed=seed,
        num_workers=0,
        index_dir=str(folder.parent / "data"),
    )
    weights = folder.parent / f"pretrain-seed{seed}" / "backbone.safetensors"
    module = Segment(
        str(weights) if arm == "pretrained" else None,
        backbone=BACKBONE,
        channels=64,
        optim=OptimConfig(lr=1e-3, reference_batch=0, warmup=0.05, min_lr=0.0, layer_decay=ARMS[arm], schedule="poly"),
        drop_path=0.0,
        seed=seed,
    )
    trainer, seconds = fit(folder, settings, module, data)
    loader = data.eval_loader(data.source.splits["val"])
    scores = trainer.test(module, dataloaders=loader, verbose=False)[0]
    SegmentationPictures(str(folder / "predictions.png")).draw(module, loader.dataset)
    iou = dict(zip(module.class_names or [], class_iou(module.confusion).nan_to_num(-1).tolist(), strict=True))
    return {"seconds": seconds, "miou": scores["test/miou"], "accuracy": scores["test/pixel_accuracy"], "iou": iou}


def job(out: Path, name: str, settings: Settings, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """The result of a job; the job is run if there is no result yet.

    Raises:
        SystemExit: There is a result of other settings.
    """
    path = out / name / "result.json"
    options = asdict(settings)
    if path.exists():
        found = json.loads(path.read_text())
        if found["settings"] != options:
            raise SystemExit(f"{path} was made with other settings, {found['settings']}: choose another --out.")
        return dict(found)
    print(f"{name} …", flush=True)
    result = {"settings": options, **work(out / name)}
    write_atomically(path, json.dumps(result, indent=1).encode())
    return result


def report(out: Path, results: dict[str, dict[int, dict[str, Any]]], pretraining: dict[int, dict[str, Any]]) -> None:
    """Prints the arms' means over the seeds, their paired differences and IoU by class, and writes curves.png."""
    columns = {"mIoU on val": "val/miou", "training loss": "train/loss"}
    panels = {
        title: {arm: [logged(out / f"{arm}-seed{s}", column) for s in by] for arm, by in results.items()}
        for title, column in columns.items()
    }
    draw(out / "curves.png", panels)
    console = Console(width=120)
    table = Table("training", "mIoU, %", "pixel accuracy, %", "minutes per seed", title="Last weights on val")
    for arm, by_seed in results.items():
        cells = [mean_and_sd([100 * one[key] for one in by_seed.values()]) for key in ("miou", "accuracy")]
        before = pretraining if arm == "pretrained" else {}
        minutes = [(one["seconds"] + before.get(seed, {"seconds": 0})["seconds"]) / 60 for seed, one in by_seed.items()]
        table.add_row(arm, *(f"{mean:.1f} ± {sd:.1f}" for mean, sd in cells), f"{mean_and_sd(minutes)[0]:.1f}")
    console.print(table)
    scratch, ours = results["scratch"], results["pretrained"]
    for key, title in (("miou", "mIoU"), ("accuracy", "pixel accuracy")):
        difference = paired_difference(*({seed: one[key] for seed, one in arm.items()} for arm in (scratch, ours)))
        console.print(f"{title}: pre-trained minus scratch, points [95 %]: {difference}")
    table = Table("class", *results, title="IoU, %, mean over the seeds (-: class without pixels)")
    for name in next(iter(scratch.values()))["iou"]:
        means = [mean_and_sd([100 * one["iou"][name] for one in arm.values()])[0] for arm in results.values()]
        table.add_row(name, *("-" if mean < 0 else f"{mean:.1f}" for mean in means))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of images and label maps, with val")
    parser.add_argument("--void", type=int)
    parser.add_argument("--short_side", type=int, default=192)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--pretrain_steps", type=int, default=750)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/segmentation"))
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    precision = best_precision()
    settings = Settings(args.root, args.void, args.short_side, args.steps, args.pretrain_steps, precision)
    pretraining: dict[int, dict[str, Any]] = {}
    results: dict[str, dict[int, dict[str, Any]]] = {arm: {} for arm in ARMS}
    for seed in args.seeds:
        pretraining[seed] = job(
            args.out, f"pretrain-seed{seed}", settings, partial(pretrain, settings=settings, seed=seed)
        )
        for arm in ARMS:
            own = replace(settings, pretrain_steps=0) if arm == "scratch" else settings
            work = partial(finetune, settings=own, seed=seed, arm=arm)
            results[arm][seed] = job(args.out, f"{arm}-seed{seed}", own, work)
    report(args.out, results, pretraining)


if __name__ == "__main__":
    main()
