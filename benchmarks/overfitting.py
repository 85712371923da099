"""Figure 6 on small sets: which signal, seen during pre-training, tells how well a checkpoint will fine-tune?

A small ViT is pre-trained by SplitMask on 300 images far past the point of overfitting (50 % block masks, weak augmentation),
with several seeds. Checkpoints along the way are each fine-tuned on the same 300 images with their labels, and tested; the
signals are measured on the validation images. The last stage judges signals and rules, and writes the report's tables and curves.

Every stage goes on where it was stopped. Stages of one seed, two at a time on two cores:

    python benchmarks/overfitting.py run --set trashnet --root trashnet6 --seed 0 --out runs/overfitting
    python benchmarks/overfitting.py run --set digits --seed 0 --out runs/overfitting
    python benchmarks/overfitting.py report --out runs/overfitting
"""

import argparse
import json
import logging
import statistics
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from scipy.stats import t as student

from lit_splitmask.callbacks import KNN, ExportWeights, HeldOutLoss, Linear, LossGap, RankMe, ShortFinetune
from lit_splitmask.datamodules import Budget, FinetuneAugment, ImageFolder, PretrainAugment
from lit_splitmask.demo import write_digits
from lit_splitmask.files import write_atomically
from lit_splitmask.masking import BlockMasking
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Classify, Pretrain
from lit_splitmask.objectives import SplitMask
from lit_splitmask.optim import OptimConfig
from lit_splitmask.selection.material import Images, Material, undisturbed
from lit_splitmask.selection.rule import Reading, Rule, decide
from lit_splitmask.selection.signals import measure
from lit_splitmask.tokenizers import KMeans

BATCH_SIZE = 100
FINETUNE_PASSES = 100


@dataclass(frozen=True)
class Setting:
    """A set of images, some of which are trained on.

    Attributes:
        label_share: Share of the training images that makes about so many as are trained on.
        steps_a_pass: Their number over that of a batch.
        image_size, patch_size: In pixels.
        words: Of the vocabulary.
        hflip: Probability of a flip, in both stages.
        at_passes: When checkpoints are kept, the last of them at the end.
        finetunings: Of each checkpoint.
    """

    label_share: float
    steps_a_pass: int
    image_size: int
    patch_size: int
    words: int
    hflip: float
    at_passes: tuple[int, ...] = (0, 25, 50, 100, 200, 350, 500, 750, 1000, 1500, 2000)
    finetunings: int = 2

    @property
    def num_steps(self) -> int:
        return self.at_passes[-1] * self.steps_a_pass


@dataclass(frozen=True)
class Run:
    """What one run's checkpoints gave.

    Attributes:
        history: The signals, by rising step.
        accuracies: On test, after fine-tuning, by step; the mean over fine-tunings.
        train_losses: The inpainting loss of the passes before, by step.
    """

    history: list[Reading]
    accuracies: dict[int, float]
    train_losses: dict[int, float]

    def regret(self, step: int) -> float:
        """How much worse a checkpoint is than the best one after the start."""
        return max(self.accuracies[reading.step] for reading in self.history) - self.accuracies[step]


SIGNALS = [HeldOutLoss(), LossGap(), RankMe(), KNN(), Linear(), ShortFinetune()]
DIRECTIONS = {signal.name: signal.better for signal in SIGNALS}
FAR = (0, 25, 100, 250, 500, 1000, 2000, 3000, 5000, 7500, 10000)
SETS = {
    "trashnet": Setting(0.17, 3, 32, 8, 512, 0.5),
    "digits": Setting(0.238, 3, 16, 4, 64, 0.0),
    "trashnet100": Setting(0.0567, 1, 32, 8, 256, 0.5, at_passes=FAR, finetunings=4),
}


def make_data(args: argparse.Namespace, *, finetune: bool) -> ImageFolder:
    """Training images drawn by the seed of the run, and the set's own val and test."""
    images = SETS[args.set]
    augment: Any = PretrainAugment(min_scale=0.8, hflip=images.hflip)
    if finetune:
        augment = FinetuneAugment(min_scale=0.4, hflip=images.hflip, rand_augment=None, erase=0.0)
    return ImageFolder(
        args.root,
        images.image_size,
        batch_size=32 if finetune else BATCH_SIZE,
        budget=Budget(passes=FINETUNE_PASSES) if finetune else Budget(steps=images.num_steps),
        num_epochs=10 if finetune else 40,
        augment=augment,
        crop_ratio=1.0,
        label_share=images.label_share,
        seed=args.seed,
        num_workers=0,
        index_dir=str(args.out / "data"),
    )


def make_backbone(name: str) -> ViTConfig:
    """A ViT of width 128 and depth 4."""
    images = SETS[name]
    return ViTConfig(
        size="tiny",
        embed_dim=128,
        depth=4,
        num_heads=4,
        patch_size=images.patch_size,
        image_size=images.image_size,
        positions="sincos",
    )


def make_module(name: str, seed: int) -> Pretrain:
    """SplitMask with half of the patches hidden in blocks."""
    objective = partial(
        SplitMask, masking=BlockMasking(), tokenizer=partial(KMeans, vocabulary=SETS[name].words, pixels="centred")
    )
    optim = OptimConfig(lr=1.5e-3, reference_batch=0, weight_decay=0.05, beta2=0.98, warmup=0.05, min_lr=1e-5)
    return Pretrain(objective, backbone=make_backbone(name), optim=optim, seed=seed)


def make_trainer(folder: Path, callbacks: list[Callback]) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1,
        precision="bf16-mixed",
        gradient_clip_val=3.0,
        logger=False,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(folder),
    )


class KeepAlong(Callback):
    """Keeps the module's state at some steps, with the training loss since the one before.

    Args:
        folder: Where they go.
        setting: Says when.
    """

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.folder = folder
        self.setting = setting
        self.losses: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/inpaint"]))
        self._keep(trainer, pl_module)

    def _keep(self, trainer: Trainer, module: LightningModule) -> None:
        path = self.folder / f"at-{trainer.global_step:06d}.pt"
        steps_a_pass = self.setting.steps_a_pass
        passes, within = divmod(trainer.global_step, steps_a_pass)
        if within or passes not in self.setting.at_passes or path.exists():
            return
        recent = self.losses[-25 * steps_a_pass :]
        train_loss = statistics.mean(recent) if recent else None
        partial_path = path.with_suffix(".tmp")
        torch.save({"state": module.state_dict(), "train_inpaint": train_loss}, partial_path)
        partial_path.replace(path)


def pretrain(args: argparse.Namespace, folder: Path) -> None:
    """One pre-training, with checkpoints along the way."""
    setting = SETS[args.set]
    if (folder / f"at-{setting.num_steps:06d}.pt").exists():
        return
    last = ModelCheckpoint(
        str(folder), filename="last", save_on_train_epoch_end=True, enable_version_counter=False, monitor=None
    )
    data = make_data(args, finetune=False)
    resume = folder / "last.ckpt"
    make_trainer(folder, [last, KeepAlong(folder, setting)]).fit(
        make_module(args.set, args.seed),
        datamodule=data,
        ckpt_path=str(resume) if resume.exists() else None,
        weights_only=True,
    )


def finetune(args: argparse.Namespace, folder: Path, path: Path, seed: int) -> float:
    """Test accuracy of a classifier that starts from a checkpoint."""
    module = make_module(args.set, args.seed)
    module.load_state_dict(torch.load(path, weights_only=True)["state"])
    weights = folder / "backbone.safetensors"
    ExportWeights(str(weights)).export(module, step=0)
    optim = OptimConfig(lr=1e-3, reference_batch=0, weight_decay=0.05, warmup=0.1, min_lr=1e-6, layer_decay=0.75)
    classifier = Classify(str(weights), backbone=make_backbone(args.set), optim=optim, mixup=0.0, cutmix=0.0, seed=seed)
    data = make_data(args, finetune=True)
    trainer = make_trainer(folder, [])
    trainer.fit(classifier, datamodule=data)
    return float(trainer.test(classifier, datamodule=data, verbose=False)[0]["test/accuracy"])


def look(args: argparse.Namespace, folder: Path) -> None:
    """Measures the signals at every checkpoint."""
    data = make_data(args, finetune=False)
    data.prepare_data()
    data.setup("fit")
    module = make_module(args.set, args.seed)
    train, held_out = (
        Images(data.eval_images(samples), 10_000) for samples in (data.train_samples, data.source.splits["val"])
    )
    for path in sorted(folder.glob("at-*.pt")):
        result = path.with_suffix(".json")
        found = json.loads(result.read_text()) if result.exists() else {}
        wanted = [signal for signal in SIGNALS if signal.name not in found.get("values", {})]
        if not wanted:
            continue
        kept = torch.load(path, weights_only=True)
        module.load_state_dict(kept["state"])
        with undisturbed(module):
            material = Material(module, train, held_out, data.num_classes, seed=0)
            measured = measure(wanted, material)
        found.setdefault("values", {}).update(measured.values)
        found.setdefault("errors", {}).update(measured.errors)
        found["train_inpaint"] = kept["train_inpaint"]
        write_atomically(result, json.dumps(found).encode())


def run(args: argparse.Namespace) -> None:
    """All stages of one seed."""
    folder = args.out / args.set / f"seed{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    pretrain(args, folder)
    look(args, folder)
    for path in sorted(folder.glob("at-*.pt")):
        result = path.with_suffix(".json")
        found = json.loads(result.read_text()) if result.exists() else {}
        accuracies = found.setdefault("accuracies", [])
        while len(accuracies) < SETS[args.set].finetunings:
            accuracies.append(finetune(args, folder, path, seed=1000 * args.seed + len(accuracies)))
            write_atomically(result, json.dumps(found).encode())
        print(path.stem, [round(100 * value, 1) for value in accuracies], flush=True)


# The report


def read_runs(out: Path) -> dict[str, list[Run]]:
    """The finished runs of each set."""
    runs: dict[str, list[Run]] = {}
    for name, setting in SETS.items():
        for folder in sorted((out / name).glob("seed*")):
            found = {int(path.stem[3:]): json.loads(path.read_text()) for path in sorted(folder.glob("at-*.json"))}
            done = [len(e.get("accuracies", [])) >= setting.finetunings and "values" in e for e in found.values()]
            if len(done) == len(setting.at_passes) and all(done):
                history = [Reading(step, entry["values"], entry["errors"]) for step, entry in found.items()]
                accuracies = {step: statistics.mean(entry["accuracies"]) for step, entry in found.items()}
                losses = {step: entry["train_inpaint"] for step, entry in found.items()}
                runs.setdefault(name, []).append(Run(history[1:], accuracies, losses))  # the start is no choice
    return runs


def choices(run: Run, total_steps: int) -> dict[str, int]:
    """The step that each rule keeps."""
    chosen = {"last": run.history[-1].step}
    for signal in [signal.name for signal in SIGNALS]:
        for window, margin in ((1, 0.0), (1, 1.0), (Rule.window, Rule.margin)):
            rule = Rule((signal,), window=window, margin=margin)
            step = decide(run.history, directions=DIRECTIONS, total_steps=total_steps, rule=rule).best_step
            assert step is not None
            chosen[f"{signal}, mean of {window}, beyond {margin:g} errors"] = step
    return chosen


def report(out: Path) -> None:
    """Prints correlations and regrets, and draws the curves."""
    runs = read_runs(out)
    console = Console(width=130)
    for name, of_set in runs.items():
        table = Table("signal", "rank correlation with fine-tuned accuracy, run by run", "mean", title=name)
        for signal in SIGNALS:
            direction = 1 if signal.better == "max" else -1
            found = []
            for one in of_set:
                values = [direction * reading.values[signal.name] for reading in one.history]
                found.append(float(spearmanr(values, [one.accuracies[r.step] for r in one.history]).statistic))
            table.add_row(signal.name, ", ".join(f"{value:+.2f}" for value in found), interval(found))
        console.print(table)
        table = Table("rule", "steps kept", "regret, points", title=f"{name}: best checkpoint minus the rule's")
        steps_kept = [choices(one, SETS[name].num_steps) for one in of_set]
        for rule in steps_kept[0]:
            regrets = [100 * one.regret(kept[rule]) for one, kept in zip(of_set, steps_kept, strict=True)]
            table.add_row(rule, ", ".join(f"{kept[rule]:,}" for kept in steps_kept), interval(regrets))
        at_random = [100 * statistics.mean(one.regret(r.step) for r in one.history) for one in of_set]
        table.add_row("a random one", "", interval(at_random))
        console.print(table)
    draw(runs, out / "overfitting.png")
    stored = {
        name: [
            {"history": [r.as_json() for r in one.history], "accuracies": [one.accuracies[r.step] for r in one.history]}
            for one in of_set
        ]
        for name, of_set in runs.items()
    }
    write_atomically(out / "overfitting.json", json.dumps(stored, indent=1).encode())


def interval(values: list[float]) -> str:
    """Mean and, of three or more, Student's 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 3:
        return f"{mean:.2f}"
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def draw(runs: dict[str, list[Run]], path: Path) -> None:
    """Curves of accuracy, losses and signals over the passes, a row a set and a line a run."""
    signals = [signal.name for signal in SIGNALS]
    figure = Figure(figsize=(3.2 * (2 + len(signals)), 2.8 * len(runs)), layout="constrained")
    grid = figure.subplots(len(runs), 2 + len(signals), squeeze=False)
    for row, (name, of_set) in zip(grid, runs.items(), strict=True):
        for one in of_set:
            steps = [reading.step for reading in one.history]
            passes = [step / SETS[name].steps_a_pass for step in steps]
            row[0].plot(passes, [100 * one.accuracies[step] for step in steps], marker=".")
            row[1].plot(passes, [one.train_losses[step] for step in steps], marker=".")
            for axes, signal in zip(row[2:], signals, strict=True):
                axes.plot(passes, [reading.values[signal] for reading in one.history], marker=".")
        for axes, title in zip(row, ["fine-tuned accuracy, %", "training loss", *signals], strict=True):
            axes.set(title=f"{name}: {title}", xscale="log", xlabel="passes")
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["run", "report"])
    parser.add_argument("--set", choices=list(SETS))
    parser.add_argument("--root", help="the folder of images; the digits are written where they are not there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/overfitting"))
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    if args.set == "digits" and args.root is None:
        args.root = str(args.out / "digits-images")
        if not Path(args.root).exists():
            write_digits(Path(args.root))
    if args.stage == "report":
        report(args.out)
    else:
        run(args)


if __name__ == "__main__":
    main()
