"""Figure 6 on small sets: which signal, measured during pre-training, predicts how well a checkpoint will fine-tune?

A small ViT is pre-trained by SplitMask on 300 images for very many passes (50 % block masks, weak augmentation), with several
seeds. Checkpoints along the way are each fine-tuned on the same 300 images with their labels, and tested; the signals are
measured on the validation images. The last stage evaluates signals and rules, prints the tables and writes the curves of the
report.

Every stage resumes where it was stopped. The seeds can run in parallel:

    python benchmarks/overfitting.py run --set trashnet --root trashnet6 --seed 0 --out runs/overfitting
    python benchmarks/overfitting.py run --set digits --seed 0 --out runs/overfitting
    python benchmarks/overfitting.py report --out runs/overfitting

``--change`` changes the setting of a set (the fields of ``Setting``), and ``--name`` names the folder of its runs:

    python benchmarks/overfitting.py run --set digits --name digits-mae --change method=MAE lr=3e-3 weight_decay=0
"""

import argparse
import json
import logging
import statistics
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from overfitting_report import JUDGES, report
from overfitting_sets import SETS, SIGNALS, Setting

from lit_splitmask.callbacks import ExportWeights, Linear
from lit_splitmask.datamodules import Budget, FinetuneAugment, ImageFolder
from lit_splitmask.demo import write_digits
from lit_splitmask.files import write_atomically
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Classify, Pretrain
from lit_splitmask.optim import OptimConfig
from lit_splitmask.selection.measuring import measure
from lit_splitmask.selection.snapshot import ImageSubset, Snapshot, undisturbed


def make_data(args: argparse.Namespace, *, finetune: bool) -> ImageFolder:
    """Training images drawn by the seed of the run, with the set's val and test."""
    setting: Setting = args.setting
    augment: Any = setting.augment()
    share = setting.label_share
    if finetune:
        augment = FinetuneAugment(min_scale=0.4, hflip=setting.hflip, rand_augment=None, erase=0.0)
        share = setting.finetune_share or share
    return ImageFolder(
        args.root,
        setting.image_size,
        batch_size=32 if finetune else setting.batch_size,
        budget=Budget(passes=setting.finetune_passes) if finetune else Budget(steps=setting.num_steps),
        num_epochs=10 if finetune else 40,
        augment=augment,
        crop_ratio=1.0,
        label_share=share,
        seed=args.seed,
        num_workers=0,
        index_dir=str(args.out / "data"),
    )


def make_backbone(setting: Setting) -> ViTConfig:
    """A small ViT."""
    return ViTConfig(
        size="tiny",
        embed_dim=setting.embed_dim,
        depth=setting.depth,
        num_heads=setting.embed_dim // 32,
        patch_size=setting.patch_size,
        image_size=setting.image_size,
        positions="sincos",
    )


def make_module(setting: Setting, seed: int) -> Pretrain:
    """The module of pre-training."""
    optim = OptimConfig(
        lr=setting.lr,
        reference_batch=0,
        weight_decay=setting.weight_decay,
        beta2=0.98,
        warmup=0.05,
        min_lr=setting.min_lr,
    )
    return Pretrain(setting.objective(), backbone=make_backbone(setting), optim=optim, seed=seed)


def make_trainer(folder: Path, callbacks: list[Callback]) -> Trainer:
    """A silent trainer on the CPU."""
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
        limit_val_batches=0,
        default_root_dir=str(folder),
    )


class SaveAlongTheWay(Callback):
    """Saves the module's state after some passes, with the mean training loss of the last 25 passes before.

    Args:
        folder: Folder for the files.
        setting: The set of images, which has the passes.
    """

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.folder = folder
        self.setting = setting
        self.losses: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        name = getattr(pl_module.objective, "held_out_loss", None) or "loss"
        self.losses.append(float(trainer.callback_metrics[f"train/{name}"]))
        self._save(trainer, pl_module)

    def _save(self, trainer: Trainer, module: LightningModule) -> None:
        path = self.folder / f"at-{trainer.global_step:06d}.pt"
        steps_per_pass = self.setting.steps_per_pass
        passes, within = divmod(trainer.global_step, steps_per_pass)
        if within or passes not in self.setting.at_passes or path.exists():
            return
        recent = self.losses[-25 * steps_per_pass :]
        train_loss = statistics.mean(recent) if recent else None
        partial_path = path.with_suffix(".tmp")
        torch.save({"state": module.state_dict(), "train_loss": train_loss}, partial_path)
        partial_path.replace(path)


def pretrain(args: argparse.Namespace, folder: Path) -> None:
    """Pre-trains once, with checkpoints along the way."""
    setting: Setting = args.setting
    if (folder / f"at-{setting.num_steps:06d}.pt").exists():
        return
    last = ModelCheckpoint(
        str(folder), filename="last", save_on_train_epoch_end=True, enable_version_counter=False, monitor=None
    )
    data = make_data(args, finetune=False)
    resume = folder / "last.ckpt"
    make_trainer(folder, [last, SaveAlongTheWay(folder, setting)]).fit(
        make_module(args.setting, args.seed),
        datamodule=data,
        ckpt_path=str(resume) if resume.exists() else None,
        weights_only=True,
    )


def load_state(module: Pretrain, path: Path) -> dict[str, Any]:
    """Loads a checkpoint of the run, without the head that a method makes for its training images; returns the checkpoint."""
    saved: dict[str, Any] = torch.load(path, weights_only=True)
    own = module.state_dict()
    module.load_state_dict({name: value for name, value in saved["state"].items() if name in own})
    return saved


def finetune(args: argparse.Namespace, folder: Path, path: Path, seed: int) -> float:
    """Test accuracy of a classifier that starts from a checkpoint."""
    module = make_module(args.setting, args.seed)
    load_state(module, path)
    weights = folder / "backbone.safetensors"
    ExportWeights(str(weights)).export(module, step=0)
    optim = OptimConfig(lr=1e-3, reference_batch=0, weight_decay=0.05, warmup=0.1, min_lr=1e-6, layer_decay=0.75)
    classifier = Classify(
        str(weights), backbone=make_backbone(args.setting), optim=optim, mixup=0.0, cutmix=0.0, seed=seed
    )
    data = make_data(args, finetune=True)
    trainer = make_trainer(folder, [])
    trainer.fit(classifier, datamodule=data)
    return float(trainer.test(classifier, datamodule=data, verbose=False)[0]["test/accuracy"])


def measure_signals(args: argparse.Namespace, folder: Path) -> None:
    """Measures the signals at every checkpoint, and the test accuracy of a linear probe on the images of fine-tuning."""
    data, labelled = (make_data(args, finetune=finetune) for finetune in (False, True))
    for one in (data, labelled):
        one.prepare_data()
        one.setup("fit")
    module = make_module(args.setting, args.seed)
    train, held_out, known, test = (
        ImageSubset(data.eval_images(samples), 10_000)
        for samples in (
            data.train_samples,
            data.source.splits["val"],
            labelled.train_samples,
            data.source.splits["test"],
        )
    )
    for path in sorted(folder.glob("at-*.pt")):
        result = path.with_suffix(".json")
        found = json.loads(result.read_text()) if result.exists() else {}
        wanted = [signal for signal in SIGNALS if signal.name in args.setting.signals]
        missing = [signal for signal in wanted if signal.name not in found.get("values", {})]
        if not missing:
            continue
        saved = load_state(module, path)
        with undisturbed(module):
            measured = measure(missing, Snapshot(module, train, held_out, data.num_classes, seed=0))
            found["probe"] = Linear().measure(Snapshot(module, known, test, data.num_classes, seed=0))[0]
        found.setdefault("values", {}).update(measured.values)
        found.setdefault("errors", {}).update(measured.errors)
        found["train_loss"] = saved["train_loss"]
        write_atomically(result, json.dumps(found).encode())
        shown = {name: round(value, 3) for name, value in found["values"].items()}
        print(path.stem, f"loss {found['train_loss']} probe {found['probe']:.3f}", shown, flush=True)


def run(args: argparse.Namespace) -> None:
    """Runs all stages of one seed."""
    folder = args.out / (args.name or args.set) / f"seed{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    args.setting.record(folder.parent)
    pretrain(args, folder)
    measure_signals(args, folder)
    for path in sorted(folder.glob("at-*.pt"), reverse=True):  # a fall shows at the end
        result = path.with_suffix(".json")
        found = json.loads(result.read_text()) if result.exists() else {}
        accuracies = found.setdefault("accuracies", [])
        while len(accuracies) < args.setting.finetunings:
            accuracies.append(finetune(args, folder, path, seed=1000 * args.seed + len(accuracies)))
            write_atomically(result, json.dumps(found).encode())
        print(path.stem, [round(100 * value, 1) for value in accuracies], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["run", "report"])
    parser.add_argument("--set", choices=list(SETS))
    parser.add_argument("--root", help="folder of images; the digits are written if it is not given")
    parser.add_argument("--change", nargs="+", default=[], metavar="FIELD=VALUE", help="changes of the set's setting")
    parser.add_argument("--name", help="name of the runs' folder, if the setting is changed")
    parser.add_argument(
        "--judge", choices=list(JUDGES), default="finetune", help="what the report compares signals with"
    )
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
        report(args.out, args.judge)
    else:
        args.setting = SETS[args.set].changed(args.change)
        run(args)


if __name__ == "__main__":
    main()
