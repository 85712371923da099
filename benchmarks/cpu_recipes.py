"""Which CPU recipe learns most in the same time: SplitMask and MAE with cheaper decoders, fewer words, other sizes.

Every variant pre-trains the network of ``splitmask_cpu`` (width 128, depth 4) on the training images, for as many steps as take
the given CPU minutes on one thread. Steps are timed in turn before, in CPU seconds of the training process, which loads its own
images, so k-means, decoding and augmentation count. After each quarter, a checkpoint is kept. All are judged on **val**: k-NN and
a linear probe of frozen features, and the accuracy after fine-tuning on a tenth of the labels, the mean over draws of the labels.

Every stage resumes where it was stopped:

    python benchmarks/cpu_recipes.py run --root trashnet6 --out runs/cpu_recipes
    python benchmarks/cpu_recipes.py report --out runs/cpu_recipes --picture docs/curves_cpu_recipes.png
"""

import argparse
import json
import logging
import statistics
import time
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from cpu_recipes_report import report
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from timing import machine

from lit_splitmask.callbacks import KNN, ExportWeights, Linear
from lit_splitmask.commands.run_cli import best_precision
from lit_splitmask.datamodules import Budget, FinetuneAugment, ImageFolder, PretrainAugment
from lit_splitmask.files import write_atomically
from lit_splitmask.masking import UniformMasking
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Classify, Pretrain
from lit_splitmask.objectives import MAE, SplitMask
from lit_splitmask.optim import OptimConfig
from lit_splitmask.selection.measuring import measure
from lit_splitmask.selection.snapshot import ImageSubset, Snapshot, undisturbed
from lit_splitmask.tokenizers import KMeans

QUARTERS, JUDGED = 4, (0, 1, 2, 4)
TIMED_STEPS, ROUNDS = 30, 2
FINETUNE_STEPS, FINETUNE_BATCH, LABEL_SHARE = 300, 32, 0.1


@dataclass(frozen=True)
class Variant:
    """A pre-training; the defaults are those of ``splitmask_cpu`` before this comparison.

    Attributes:
        method: ``SplitMask`` or ``MAE``.
        decoder_dim, decoder_depth: Width (None for the backbone's) and blocks of the decoder.
        words: Number of k-means words.
        image_size, patch_size: In pixels.
        mask_ratio: Share of the patches that a branch does not see.
        batch_size: Images in a step; the learning rate follows by the square root.
        min_scale: Smallest share of an image that a crop covers.
    """

    method: str = "SplitMask"
    decoder_dim: int | None = None
    decoder_depth: int = 2
    words: int = 1024
    image_size: int = 48
    patch_size: int = 8
    mask_ratio: float = 0.75
    batch_size: int = 128
    min_scale: float = 0.2

    def objective(self) -> Any:
        """Makes the objective from the backbone."""
        masking = UniformMasking(self.mask_ratio)
        depth = self.decoder_depth
        if self.method == "MAE":
            dim = self.decoder_dim or 128
            return partial(MAE, masking=masking, decoder_dim=dim, decoder_depth=depth, decoder_heads=dim // 32)
        tokenizer = partial(KMeans, vocabulary=self.words, pixels="centred")
        return partial(
            SplitMask, masking=masking, tokenizer=tokenizer, decoder_depth=depth, decoder_dim=self.decoder_dim
        )

    def backbone(self) -> ViTConfig:
        """The ViT of width 128 and depth 4."""
        return ViTConfig(
            size="tiny",
            embed_dim=128,
            depth=4,
            num_heads=4,
            patch_size=self.patch_size,
            image_size=self.image_size,
            positions="sincos",
        )

    def module(self, seed: int) -> Pretrain:
        """The pre-training."""
        optim = OptimConfig(lr=1.5e-3, reference_batch=128, weight_decay=0.05, beta2=0.98, warmup=0.05, min_lr=1e-5)
        return Pretrain(self.objective(), backbone=self.backbone(), optim=optim, seed=seed)


VARIANTS = {
    "SplitMask": Variant(),
    "SplitMask, decoder 128×1": Variant(decoder_depth=1),
    "SplitMask, decoder 64×2": Variant(decoder_dim=64),
    "SplitMask, decoder 64×1": Variant(decoder_dim=64, decoder_depth=1),
    "SplitMask, decoder 64×1, 256 words": Variant(decoder_dim=64, decoder_depth=1, words=256),
    "SplitMask, decoder 64×1, 256 words, batch 64": Variant(decoder_dim=64, decoder_depth=1, words=256, batch_size=64),
    "SplitMask, decoder 64×1, 256 words, 32 px": Variant(decoder_dim=64, decoder_depth=1, words=256, image_size=32),
    "SplitMask, decoder 64×1, 256 words, patches of 12": Variant(
        decoder_dim=64, decoder_depth=1, words=256, patch_size=12
    ),
    "MAE, decoder 128×2": Variant("MAE", 128, 2),
    "MAE, decoder 64×1": Variant("MAE", 64, 1),
    "MAE, decoder 64×1, batch 64": Variant("MAE", 64, 1, batch_size=64),
    "MAE, decoder 64×1, patches of 12": Variant("MAE", 64, 1, patch_size=12),
}


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a variant: before its first step, and of a step."""

    before: float
    step: float


class CpuClock(Callback):
    """Notes the CPU seconds of this process before training and at the end of each step."""

    def __init__(self) -> None:
        self.started = time.process_time()
        self.ends: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = time.process_time() - self.started

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.ends.append(time.process_time())

    def cost(self) -> Cost:
        """The preparation and the mean step, without the first ones, which are slower, and the slowest tenth."""
        steps = sorted(later - earlier for earlier, later in pairwise(self.ends[5:]))
        return Cost(self.before, statistics.mean(steps[: -(len(steps) // 10) or None]))


def images(args: argparse.Namespace, variant: Variant, **settings: Any) -> ImageFolder:
    """The images at the variant's size, read in the training process."""
    index = str(args.out / f"data{variant.image_size}")
    return ImageFolder(args.root, variant.image_size, num_workers=0, index_dir=index, **settings)


def pretraining_images(args: argparse.Namespace, variant: Variant, steps: int, epochs: int) -> ImageFolder:
    """The images that a variant pre-trains on."""
    return images(
        args,
        variant,
        batch_size=variant.batch_size,
        budget=Budget(steps=steps),
        num_epochs=epochs,
        augment=PretrainAugment(min_scale=variant.min_scale),
        seed=args.seed,
    )


def trainer_in(folder: Path, callbacks: list[Callback]) -> Trainer:
    """A silent trainer on the CPU that validates only on request."""
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1,
        precision=best_precision(),  # type: ignore[arg-type]
        gradient_clip_val=3.0,
        logger=False,
        callbacks=callbacks,
        limit_val_batches=0,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
    )


def costs(args: argparse.Namespace) -> dict[str, Cost]:
    """CPU seconds of all variants, timed in turn; a variant that was added later is timed with all others again."""
    path = args.out / "costs.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if not set(args.variants) <= set(known):
        rounds = []
        for _ in range(ROUNDS):
            rounds.append({})
            for name in VARIANTS:
                clock = CpuClock()
                data = pretraining_images(args, VARIANTS[name], TIMED_STEPS, 1)
                trainer_in(args.out, [clock]).fit(VARIANTS[name].module(args.seed), datamodule=data)
                rounds[-1][name] = clock.cost()
                print(name, rounds[-1][name], flush=True)
        known = {
            name: asdict(Cost(min(r[name].before for r in rounds), min(r[name].step for r in rounds)))
            for name in VARIANTS
        }
        write_atomically(path, json.dumps({**known, "machine": machine(), "precision": best_precision()}).encode())
    return {name: Cost(**known[name]) for name in args.variants}


def pretrain(args: argparse.Namespace, folder: Path, name: str, cost: Cost) -> None:
    """Pre-trains one variant, with a checkpoint after each quarter of its steps."""
    found = sorted(folder.glob("quarter*.ckpt"))
    if len(found) == QUARTERS:
        return
    steps = round((60 * args.minutes - cost.before) / cost.step)
    start = time.process_time()
    keep = ModelCheckpoint(str(folder), filename="quarter{epoch}", auto_insert_metric_name=False, save_top_k=-1)
    trainer_in(folder, [keep]).fit(
        VARIANTS[name].module(args.seed),
        datamodule=pretraining_images(args, VARIANTS[name], steps, QUARTERS),
        ckpt_path=str(found[-1]) if found else None,
        weights_only=True,
    )
    print(f"{name}: {steps} steps, {(time.process_time() - start) / 60:.2f} CPU minutes", flush=True)


def probe(args: argparse.Namespace, variant: Variant, module: Pretrain) -> dict[str, float]:
    """k-NN and linear accuracy on val of features fitted on train with all labels."""
    data = images(args, variant)
    data.prepare_data()
    data.setup("fit")
    train, val = (
        ImageSubset(data.eval_images(samples), 10_000) for samples in (data.train_samples, data.source.splits["val"])
    )
    with undisturbed(module):
        return measure([KNN(), Linear()], Snapshot(module, train, val, data.num_classes, seed=0)).values


def finetune(args: argparse.Namespace, variant: Variant, weights: Path, draw: int) -> float:
    """Accuracy on val after fine-tuning on a tenth of the labels; the last weights, so that val chooses nothing."""
    optim = OptimConfig(lr=1e-3, reference_batch=0, weight_decay=0.05, warmup=0.1, min_lr=1e-6, layer_decay=0.75)
    classifier = Classify(str(weights), optim=optim, mixup=0.0, cutmix=0.0, drop_path=0.1, seed=draw)
    data = images(
        args,
        variant,
        batch_size=FINETUNE_BATCH,
        budget=Budget(steps=FINETUNE_STEPS),
        num_epochs=1,
        augment=FinetuneAugment(min_scale=0.3, rand_augment=None, erase=0.0),
        label_share=LABEL_SHARE,
        seed=draw,
    )
    trainer_in(args.out, []).fit(classifier, datamodule=data)
    trainer = trainer_in(args.out, [])
    trainer.limit_val_batches = 1.0
    return float(trainer.validate(classifier, datamodule=data, verbose=False)[0]["val/accuracy"])


def judge(args: argparse.Namespace, folder: Path, name: str) -> None:
    """Measures the untrained network and the checkpoints after a quarter, a half and all of the steps."""
    variant, result = VARIANTS[name], folder / "result.json"
    found = json.loads(result.read_text()) if result.exists() else {}
    for quarter in JUDGED:
        scores = found.setdefault(str(quarter), {"finetuned": []})
        draws = args.draws if quarter in args.finetune_at else 0
        if "knn" in scores and len(scores["finetuned"]) >= draws:
            continue
        module = variant.module(args.seed)
        if quarter:
            state = torch.load(folder / f"quarter{quarter - 1}.ckpt", map_location="cpu", weights_only=True)
            module.load_state_dict(state["state_dict"])
        if "knn" not in scores:
            scores |= probe(args, variant, module)
        weights = folder / "backbone.safetensors"
        ExportWeights(str(weights)).export(module, step=0)
        while len(scores["finetuned"]) < draws:
            scores["finetuned"].append(finetune(args, variant, weights, draw=len(scores["finetuned"])))
        found[str(quarter)] = scores
        write_atomically(result, json.dumps(found, indent=1).encode())
        print(name, quarter, scores, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["run", "report"])
    parser.add_argument("--root", default="trashnet6")
    parser.add_argument("--out", type=Path, default=Path("runs/cpu_recipes"))
    parser.add_argument("--minutes", type=float, default=1.5, help="CPU minutes of each pre-training")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=2, help="draws of the labels that are fine-tuned on")
    parser.add_argument("--finetune-at", type=int, nargs="*", default=[QUARTERS], help="quarters that are fine-tuned")
    parser.add_argument("--picture", type=Path, default=Path("curves_cpu_recipes.png"))
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    if args.stage == "run":
        torch.set_num_threads(1)
        for name, cost in costs(args).items():
            folder = args.out / f"{args.minutes:g}min-seed{args.seed}" / name
            folder.mkdir(parents=True, exist_ok=True)
            pretrain(args, folder, name, cost)
            judge(args, folder, name)
    report(args.out, args.minutes, args.picture)


if __name__ == "__main__":
    main()
