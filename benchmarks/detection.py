"""Boxes and masks on a small COCO folder, from scratch and from SplitMask pre-training on the same training images.

A small ViT with fixed sin-cos positions is pre-trained on crops of the training images alone, and then trained for detection on
whole images by the recipe detect_cpu; the same detector is also trained from random weights. Every job writes result.json,
results in COCO's format and a picture. A finished job is not run again; a stopped one resumes at its last epoch.

    python benchmarks/detection.py --root facade_coco --seeds 0 --out runs/detection
"""

import argparse
import json
import logging
import statistics
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from curves import draw, logged
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from rich.table import Table

from lit_splitmask.callbacks import CocoResults, DetectionPictures, ExportWeights
from lit_splitmask.comparison import mean_and_sd, paired_difference
from lit_splitmask.datamodules import Budget, CocoDetection, DetectionAugment, ImageFolder, PretrainAugment
from lit_splitmask.files import write_atomically
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.masking import UniformMasking
from lit_splitmask.models import ViTConfig
from lit_splitmask.models.mask_rcnn import DetectorConfig
from lit_splitmask.modules import Detect, Pretrain
from lit_splitmask.objectives import SplitMask
from lit_splitmask.optim import OptimConfig
from lit_splitmask.tokenizers import KMeans

ARMS = ("scratch", "splitmask")
CROP = 96
BACKBONE = ViTConfig(
    size="tiny", embed_dim=128, depth=6, num_heads=4, patch_size=8, image_size=CROP, positions="sincos"
)
DETECTOR = DetectorConfig(channels=64, box_features=256, anchor_scale=4.0, proposals=500, regions_per_image=128)


class StepTimes(Callback):
    """Measures the seconds of each optimizer step, including data loading."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last: float | None = None

    @property
    def median(self) -> float | None:
        """Median seconds; None if no two steps followed each other."""
        return statistics.median(self.seconds) if self.seconds else None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = None  # the time between epochs is not a step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self.seconds.append(now - self._last)
        self._last = now


def make_trainer(args: argparse.Namespace, folder: Path, callbacks: list[Callback], clip: float) -> Trainer:
    """A trainer that writes its checkpoint and its curves to a folder."""
    last = ModelCheckpoint(str(folder), filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    return Trainer(
        accelerator=args.device,
        devices=1,
        max_epochs=-1,
        precision=args.precision,
        gradient_clip_val=clip,
        logger=CSVLogger(str(folder), name="", version=""),
        log_every_n_steps=10,
        callbacks=[last, *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(folder),
    )


def fit(trainer: Trainer, module: LightningModule, data: Any, folder: Path) -> None:
    """Trains from the start, or resumes a stopped training; its earlier curves are then moved to metrics-1.csv, …."""
    last, metrics = folder / "last.ckpt", folder / "metrics.csv"
    if metrics.exists():
        metrics.rename(folder / f"metrics-{len(list(folder.glob('metrics*.csv')))}.csv")
    trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.exists() else None, weights_only=True)


def pretrain(args: argparse.Namespace, seed: int) -> Path:
    """Pre-trains with SplitMask on the training images; returns the backbone's file."""
    folder = args.out / f"pretrain-seed{seed}"
    weights = folder / "backbone.safetensors"
    if weights.exists():
        return weights
    objective = partial(
        SplitMask, masking=UniformMasking(0.75), tokenizer=partial(KMeans, vocabulary=1024, pixels="centred")
    )
    optim = OptimConfig(lr=1.5e-3, reference_batch=0, weight_decay=0.05, beta2=0.98, warmup=0.05, min_lr=1e-5)
    data = ImageFolder(
        str(Path(args.root) / "train"),
        CROP,
        splits=SplitOptions(labels="none", val_share=0.0, test_share=0.0),
        batch_size=64,
        budget=Budget(passes=args.pretrain_passes),
        num_epochs=20,
        augment=PretrainAugment(min_scale=0.15),  # crops then show objects at about the size that detection sees
        seed=seed,
        num_workers=args.workers,
        index_dir=str(args.out / "data"),
    )
    times = StepTimes()
    start = time.perf_counter()
    fit(
        make_trainer(args, folder, [times, ExportWeights(str(weights))], 3.0),
        Pretrain(objective, backbone=BACKBONE, optim=optim, seed=seed),
        data,
        folder,
    )
    result = {"seconds": time.perf_counter() - start, "step_seconds": times.median}
    write_atomically(folder / "result.json", json.dumps(result).encode())
    return weights


def make_data(args: argparse.Namespace, seed: int) -> CocoDetection:
    """A datamodule of small whole images."""
    return CocoDetection(
        args.root,
        args.short,
        max_size=round(args.short * 5 / 3),
        batch_size=args.batch,
        budget=Budget(passes=args.passes),
        num_epochs=args.epochs,
        augment=DetectionAugment(crop=0.3, min_scale=0.8, num_scales=5),
        seed=seed,
        num_workers=args.workers,
        index_dir=str(args.out / "data"),
    )


def detect(args: argparse.Namespace, arm: str, seed: int) -> None:
    """Trains and evaluates a detector, and writes its results and a picture."""
    folder = args.out / f"{arm}-seed{seed}"
    if (folder / "result.json").exists():
        found = json.loads((folder / "result.json").read_text())["settings"]
        if found != settings(args):
            raise SystemExit(f"{folder} was made with other settings, {found}: choose another --out.")
        return
    weights = str(pretrain(args, seed)) if arm == "splitmask" else None
    optim = OptimConfig(
        lr=args.lr, reference_batch=0, weight_decay=0.05, warmup=0.05, layer_decay=args.layer_decay, schedule="steps"
    )
    module = Detect(weights, backbone=BACKBONE, detector=DETECTOR, optim=optim, seed=seed)
    times = StepTimes()
    start = time.perf_counter()
    trainer = make_trainer(args, folder, [times, DetectionPictures(str(folder))], 1.0)
    data = make_data(args, seed)
    fit(trainer, module, data, folder)
    seconds = time.perf_counter() - start
    ExportWeights(str(folder / "detector.safetensors")).export(module, trainer.global_step)
    (folder / "results.json").unlink(missing_ok=True)
    predictor = Trainer(
        accelerator=args.device,
        devices=1,
        precision=args.precision,
        logger=False,  # a logger would overwrite metrics.csv
        callbacks=[CocoResults(str(folder / "results.json"))],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    scores = predictor.validate(module, datamodule=data, verbose=False)[0]
    predictor.predict(module, datamodule=data)
    result = {
        "scores": scores,
        "seconds": seconds,
        "step_seconds": times.median,
        "settings": settings(args),
    }
    write_atomically(folder / "result.json", json.dumps(result, indent=1).encode())


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The options that the results depend on."""
    return {
        name: value for name, value in vars(args).items() if name not in ("root", "out", "seeds", "arms", "threads")
    }


def differences(args: argparse.Namespace) -> list[str]:
    """Means of both arms over their common seeds, and paired differences; empty with fewer than two seeds."""
    arms: list[dict[int, Any]] = []
    for arm in ARMS:
        paths = args.out.glob(f"{arm}-seed*/result.json")
        arms.append(
            {int(path.parent.name.rpartition("seed")[2]): json.loads(path.read_text())["scores"] for path in paths}
        )
    seeds = sorted(arms[0].keys() & arms[1].keys())
    lines = []
    for name in ("box/AP", "mask/AP") if len(seeds) > 1 else ():
        scores = [{seed: arm[seed][f"val/{name}"] for seed in seeds} for arm in arms]
        spreads = [mean_and_sd([100 * value for value in of_arm.values()]) for of_arm in scores]
        scratch, ours = (f"{mean:.1f} ± {sd:.1f}" for mean, sd in spreads)
        lines.append(f"{name}: {scratch} and {ours}, difference [95 %] {paired_difference(*scores)}, seeds {seeds}")
    return lines


def report(args: argparse.Namespace) -> None:
    """Prints a table of all finished jobs and draws their curves."""
    columns = ["box/AP", "box/AP50", "box/AP75", "mask/AP", "mask/AP50", "mask/AP75"]
    table = Table(
        "from",
        "seed",
        *columns,
        "s per step",
        "minutes",
        title=f"{args.passes} passes at {args.short} px, AP in percent",
    )
    for arm in ARMS:
        for path in sorted(args.out.glob(f"{arm}-seed*/result.json")):
            result = json.loads(path.read_text())
            values = [f"{100 * result['scores'][f'val/{name}']:.1f}" for name in columns]
            step = f"{result['step_seconds']:.2f}" if result["step_seconds"] else ""
            table.add_row(
                arm, path.parent.name.removeprefix(f"{arm}-seed"), *values, step, f"{result['seconds'] / 60:.1f}"
            )
    Console(width=130).print(table, *differences(args), sep="\n")
    done = {arm: sorted(args.out.glob(f"{arm}-seed*/result.json")) for arm in ARMS}
    columns = {"box AP on val": "val/box/AP", "mask AP on val": "val/mask/AP", "training loss": "train/loss"}
    panels = {
        title: {arm: [logged(path.parent, column) for path in paths] for arm, paths in done.items()}
        for title, column in columns.items()
    }
    draw(args.out / "curves.png", panels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="a folder in COCO's format")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="without values, only the table is printed")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--short", type=int, default=160, help="short side in pixels")
    parser.add_argument("--passes", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=4, help="number of evaluations")
    parser.add_argument("--pretrain-passes", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--layer-decay", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, default=Path("runs/detection"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    for seed in args.seeds:
        for arm in args.arms:
            detect(args, arm, seed)
            report(args)
    if not args.seeds:
        report(args)


if __name__ == "__main__":
    main()
