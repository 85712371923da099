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

from lit_splitmask.callbacks import ExportWeights
from lit_splitmask.checkpoints import write_atomically
from lit_splitmask.datamodules import Budget, FinetuneAugment, ImageFolder, PretrainAugment
from lit_splitmask.demo import write_digits
from lit_splitmask.masking import BlockMasking
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Classify, Pretrain
from lit_splitmask.objectives import SplitMask
from lit_splitmask.optim import OptimConfig
from lit_splitmask.tokenizers import KMeans

PASSES = 2000
AT_PASSES = (0, 25, 50, 100, 200, 350, 500, 750, 1000, 1500, 2000)
FINETUNE_PASSES = 100
FINETUNE_SEEDS = 2
STEPS_A_PASS = 3


@dataclass(frozen=True)
class Images:
    """A set of images, 300 of which are trained on.

    Attributes:
        label_share: Share of the training images that makes about 300.
        image_size, patch_size: In pixels.
        words: Of the vocabulary.
        hflip: Probability of a flip, in both stages.
    """

    label_share: float
    image_size: int
    patch_size: int
    words: int
    hflip: float


SETS = {"trashnet": Images(0.17, 32, 8, 512, 0.5), "digits": Images(0.238, 16, 4, 64, 0.0)}


def make_data(args: argparse.Namespace, *, passes: float, finetune: bool) -> ImageFolder:
    """300 training images, drawn by the seed of the run, and the set's own val and test."""
    images = SETS[args.set]
    augment: Any = PretrainAugment(min_scale=0.8, hflip=images.hflip)
    if finetune:
        augment = FinetuneAugment(min_scale=0.4, hflip=images.hflip, rand_augment=None, erase=0.0)
    return ImageFolder(
        args.root,
        images.image_size,
        batch_size=32 if finetune else 100,
        budget=Budget(passes=passes) if finetune else Budget(steps=round(passes * STEPS_A_PASS)),
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
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.losses: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/inpaint"]))
        self._keep(trainer, pl_module)

    def _keep(self, trainer: Trainer, module: LightningModule) -> None:
        path = self.folder / f"at-{trainer.global_step:06d}.pt"
        if trainer.global_step % STEPS_A_PASS or trainer.global_step // STEPS_A_PASS not in AT_PASSES or path.exists():
            return
        recent = self.losses[-25 * STEPS_A_PASS :]
        train_loss = statistics.mean(recent) if recent else None
        partial_path = path.with_suffix(".tmp")
        torch.save({"state": module.state_dict(), "train_inpaint": train_loss}, partial_path)
        partial_path.replace(path)


def pretrain(args: argparse.Namespace, folder: Path) -> None:
    """One pre-training, with checkpoints along the way."""
    if (folder / f"at-{PASSES * STEPS_A_PASS:06d}.pt").exists():
        return
    last = ModelCheckpoint(
        str(folder), filename="last", save_on_train_epoch_end=True, enable_version_counter=False, monitor=None
    )
    data = make_data(args, passes=PASSES, finetune=False)
    resume = folder / "last.ckpt"
    make_trainer(folder, [last, KeepAlong(folder)]).fit(
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
    data = make_data(args, passes=FINETUNE_PASSES, finetune=True)
    trainer = make_trainer(folder, [])
    trainer.fit(classifier, datamodule=data)
    return float(trainer.test(classifier, datamodule=data, verbose=False)[0]["test/accuracy"])


def run(args: argparse.Namespace) -> None:
    """All stages of one seed."""
    folder = args.out / args.set / f"seed{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    pretrain(args, folder)
    for path in sorted(folder.glob("at-*.pt")):
        result = path.with_suffix(".json")
        found = json.loads(result.read_text()) if result.exists() else {}
        accuracies = found.setdefault("accuracies", [])
        while len(accuracies) < FINETUNE_SEEDS:
            accuracies.append(finetune(args, folder, path, seed=1000 * args.seed + len(accuracies)))
            write_atomically(result, json.dumps(found).encode())
        print(path.stem, [round(100 * value, 1) for value in accuracies], flush=True)


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
    run(args)


if __name__ == "__main__":
    main()
