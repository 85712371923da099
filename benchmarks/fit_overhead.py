"""A whole ``fit`` step of the small recipes against the bare loop of the same network.

Each recipe trains as its command does, but without log files, checkpoints and validation. The bare loop
then does the module's own step (views, forward pass, losses) on batches of that run, which are in memory, with backward pass,
clipping and the same optimizer. Recipes and loops take turns. Visual words are random, since fitting them is no part of a step.

    python benchmarks/fit_overhead.py --root trashnet6/train --digits demo/digits
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from timing import machine

from lit_splitmask.commands import recipes
from lit_splitmask.commands.compare import step_times
from lit_splitmask.commands.compare.step_times import TIMED_STEPS, WARMUP_STEPS, Training
from lit_splitmask.commands.terminal import silence
from lit_splitmask.datamodules import Budget
from lit_splitmask.demo import write_digits
from lit_splitmask.modules.base import TrainModule


class _Kept(step_times._Timer):
    """Times the steps and keeps the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Any] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches.append(batch)


def fit_and_loop(training: Training) -> tuple[float, float]:
    """Median seconds of a step of ``fit``, and of the bare loop after it."""
    kept = _Kept()
    with tempfile.TemporaryDirectory() as directory, silence():
        trainer, module, data = training._build(Path(directory), [kept])
        assert isinstance(module, TrainModule)
        data.budget, data.num_epochs = Budget(steps=WARMUP_STEPS + TIMED_STEPS), 1
        trainer.fit(module, datamodule=data)
        module.log_training = lambda *args, **kwargs: None  # type: ignore[method-assign]
        return statistics.median(kept.seconds), statistics.median(bare_loop(trainer, module, kept.batches))


def bare_loop(trainer: Trainer, module: TrainModule, batches: list[Any]) -> list[float]:
    """Seconds of each step of a plain loop over batches in memory, after the warm-up."""
    module.train()
    optimizer = trainer.optimizers[0]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    seconds = []
    with torch.enable_grad():
        for number, batch in enumerate(batches):
            start = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            module.training_step(batch, number).backward()
            if trainer.gradient_clip_val:
                torch.nn.utils.clip_grad_norm_(parameters, trainer.gradient_clip_val)
            optimizer.step()
            seconds.append(time.perf_counter() - start)
    return seconds[WARMUP_STEPS:]


def trainings(root: Path, digits: Path, index: Path) -> dict[str, Training]:
    """The recipes by name."""
    photos = [f"--data.root={root}", f"--data.index_dir={index / 'photos'}"]
    numbers = [f"--data.root={digits}", f"--data.index_dir={index / 'digits'}"]
    demo = recipes.comparison("compare_digits")
    return {
        "splitmask_cpu": step_times.pretraining(photos, recipes.read("splitmask_cpu")),
        "mae_cpu": step_times.pretraining(photos, recipes.read("mae_cpu")),
        "finetune_cpu": step_times.finetuning(photos, recipes.read("finetune_cpu"), 1.0),
        "demo, pre-training": step_times.pretraining(numbers, demo["pretrain"]),
        "demo, fine-tuning": step_times.finetuning(numbers, demo["finetune"], 1.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of images in classes")
    parser.add_argument("--digits", type=Path, help="the demo's digits; written if not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="names of recipes; by default all")
    args = parser.parse_args()
    sys.argv = sys.argv[:1]  # LightningCLI warns of arguments that are not its own
    with tempfile.TemporaryDirectory() as folder:
        digits = args.digits or Path(folder) / "digits"
        if args.digits is None:
            write_digits(digits)
        runs = trainings(args.root, digits, Path(folder) / "index")
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in args.only or runs}
        for _ in range(args.rounds):
            for name, pairs in measured.items():
                pairs.append(fit_and_loop(runs[name]))
    table = Table("recipe", "step of fit, ms", "bare loop, ms", "ratio")
    for name, pairs in measured.items():
        fit, loop = (1000 * statistics.median(values) for values in zip(*pairs, strict=True))
        table.add_row(name, f"{fit:.1f}", f"{loop:.1f}", f"{statistics.median(a / b for a, b in pairs):.2f}")
    Console(width=110).print(table, f"{machine()}; medians of {args.rounds} alternating rounds of {TIMED_STEPS} steps")


if __name__ == "__main__":
    main()
