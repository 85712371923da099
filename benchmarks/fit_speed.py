"""Whole training steps of ``Trainer.fit``: seconds, model FLOPs utilisation, and the share of the time that waits for images.

Trains SplitMask and MAE on generated photos through the datamodule, the loader's workers and Lightning, as ``pretrain`` does,
eagerly and with ``torch.compile``, which take turns. A step is timed from the moment that its batch is there to the end of the
device's work; the wait is the time between steps. Utilisation counts two FLOPs per multiply-add of the forward and backward
pass, without recomputation, over the peak of the device's matrix units.

    python benchmarks/fit_speed.py --size small base --batch 128
    python benchmarks/fit_speed.py --size tiny --image-size 64 --batch 8 --steps 6 --photos 64 --compile off
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from PIL import Image
from rich.console import Console
from rich.table import Table
from timing import machine, synchronise
from torch.utils.flop_counter import FlopCounterMode

from lit_splitmask.datamodules import Budget, ImageFolder
from lit_splitmask.models import ViT, ViTConfig, use_fused_attention
from lit_splitmask.modules import Pretrain
from lit_splitmask.objectives import MAE, Objective, SplitMask

METHODS: dict[str, Callable[[ViT], Objective]] = {"SplitMask": SplitMask, "MAE": MAE}

PEAK_TFLOPS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10": 125.0,
}
"""Dense bfloat16 TFLOP/s of a GPU, by a part of its name, as in Nvidia's data sheets; the first that matches counts."""


class StepClock(Callback):
    """Times each step and the wait before it, in seconds, after ``skip`` steps."""

    def __init__(self, device: str, skip: int) -> None:
        self.device, self.skip = device, skip
        self.steps: list[float] = []
        self.waits: list[float] = []
        self._ended: float | None = None
        self._started = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        synchronise(self.device)
        now = time.perf_counter()
        if self._ended is not None and trainer.global_step > self.skip:
            self.steps.append(now - self._started)
            self.waits.append(self._started - self._ended)
        self._ended = now


def write_photos(folder: Path, number: int) -> None:
    """Smooth random photos of 500 × 375 px in ten classes."""
    rng = np.random.default_rng(0)
    for index in range(number):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        path = folder / f"class_{index % 10}" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)


def flops_per_image(name: str, size: str, args: argparse.Namespace) -> float:
    """FLOPs of the forward and backward pass of one image, counted on the CPU."""
    config = ViTConfig(size=size, image_size=args.image_size, patch_size=args.patch_size)
    objective = METHODS[name](ViT(config))
    use_fused_attention(objective, False)
    batch = {
        "images": torch.randn(2, 3, args.image_size, args.image_size),
        "token_view": torch.rand(2, 3, args.image_size // 2, args.image_size // 2),
    }
    with FlopCounterMode(display=False) as counter:
        objective(batch, torch.Generator().manual_seed(0))["loss"].backward()
    return counter.get_total_flops() / 2


def fit(name: str, size: str, compiled: bool, root: Path, args: argparse.Namespace) -> StepClock:
    """Trains one method for ``args.steps`` timed steps after the warm-up."""
    module = Pretrain(
        METHODS[name], backbone=ViTConfig(size=size, image_size=args.image_size, patch_size=args.patch_size)
    )
    if compiled:
        module.objective.compile()
    data = ImageFolder(
        str(root),
        image_size=args.image_size,
        batch_size=args.batch,
        num_workers=args.workers,
        budget=Budget(steps=args.warm_up + args.steps),
        num_epochs=1,
        index_dir=str(root.parent / "index"),
    )
    clock = StepClock(args.device, args.warm_up)
    trainer = Trainer(
        accelerator="gpu" if args.device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if args.precision == "bf16" else "32-true",
        max_epochs=-1,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=str(root.parent),
    )
    trainer.fit(module, datamodule=data)
    return clock


def peak_flops(args: argparse.Namespace) -> float | None:
    """The device's peak in FLOP/s, or None where it is not known."""
    if args.peak_tflops:
        return float(args.peak_tflops) * 1e12
    if args.device != "cuda" or args.precision != "bf16":
        return None
    name = torch.cuda.get_device_name()
    return next((peak * 1e12 for part, peak in PEAK_TFLOPS.items() if part in name), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", default=["small"], choices=["tiny", "small", "base", "large"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--compile", nargs="+", default=["off", "on"], choices=["off", "on"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--patch-size", type=int, default=16)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each run")
    parser.add_argument("--warm-up", type=int, default=5, help="steps before them, which also compile")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each; all take turns")
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--peak-tflops", type=float, help="peak of the device, where its name does not tell")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")

    runs = [(size, name, mode) for size in args.size for name in args.methods for mode in args.compile]
    clocks: dict[tuple[str, str, str], list[StepClock]] = {run: [] for run in runs}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photos"
        write_photos(root, args.photos)
        for _ in range(args.rounds):
            for size, name, mode in runs:
                clock = fit(name, size, mode == "on", root, args)
                clocks[size, name, mode].append(clock)
                step, wait = (1000 * statistics.median(values) for values in (clock.steps, clock.waits))
                # at once: the run after this one may be stopped
                print(f"ViT-{size} {name}, compile {mode}: step {step:.1f} ms, wait {wait:.1f} ms", flush=True)

    peak = peak_flops(args)
    title = f"{args.image_size} px in patches of {args.patch_size}, batch {args.batch}, {args.precision}"
    table = Table("ViT", "method", "compiled", "step, ms", "wait, share", "images/s", "utilisation", title=title)
    for (size, name, mode), measured in clocks.items():
        step = statistics.median(value for clock in measured for value in clock.steps)
        wait = statistics.median(value for clock in measured for value in clock.waits)
        flops = flops_per_image(name, size, args) * args.batch / (step + wait)
        table.add_row(
            size,
            name,
            mode,
            f"{1000 * step:.1f}",
            f"{100 * wait / (step + wait):.1f} %",
            f"{args.batch / (step + wait):,.0f}",
            f"{100 * flops / peak:.1f} %" if peak else f"{flops / 1e12:.2f} TFLOP/s",
        )
    Console(width=110).print(table, f"{machine(args.device)}; medians over {args.steps} steps")


if __name__ == "__main__":
    main()
