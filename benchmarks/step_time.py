"""A training step of each method against a plain supervised step of the same ViT.

All do forward, backward, AdamW and the teacher's average on the same batch of images. SplitMask and BEiT have their defaults:
block masks and 8,192 words by random projection; "DALL-E" has the words of a random encoder of that architecture. DINO has two
global crops and eight of 96 px, MoCo v3 two crops, instance discrimination one crop and a class for each of ``--images``.
Multiply-adds are counted over forward and backward passes, including the tokenizer; the time of each method should be at most
1.1 times its ratio of multiply-adds. The peak is the memory that two steps add to a process.

    python benchmarks/step_time.py --batch 8 --precision bf16
    python benchmarks/step_time.py --batch 8 --against transformers       # needs the extra "bench"

With ``--against transformers``, that library's BEiT and ViT-MAE do the same work as ours (words are given, without a tokenizer).
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timing import alternate, machine, median_ratio
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lit_splitmask.allocator import keep_freed_memory
from lit_splitmask.masking import BlockMasking, take
from lit_splitmask.models import ViT, ViTConfig, use_fused_attention
from lit_splitmask.objectives import (
    DINO,
    MAE,
    BEiT,
    InstanceDiscrimination,
    MoCoV3,
    Objective,
    SplitMask,
    Supervised,
)
from lit_splitmask.tokenizers import Tokenizer, dalle

WORDS = 8192


class TwoPasses(SplitMask):
    """SplitMask with a separate encoder and decoder pass for each half."""

    def decode(self, images: Tensor, keeps: list[Tensor]) -> list[Tensor]:
        tokens = self.backbone.embed(images)
        return [self._decode(take(tokens, keep), keep) for keep in keeps]


class Given(Tokenizer):
    """A tokenizer that costs nothing: all words are 0."""

    def forward(self, view: Tensor) -> Tensor:
        rows = view.shape[2] // self.patch_size
        return torch.zeros(len(view), rows * rows, dtype=torch.int64, device=view.device)


class RandomDallE(dalle.DallE):
    """DALL-E's encoder with random weights."""

    def __init__(self, patch_size: int, in_chans: int = 3) -> None:
        Tokenizer.__init__(self, patch_size, in_chans, vocabulary=dalle.VOCABULARY)
        self._tensors = {name: 0.02 * torch.randn(shape) for name, shape in dalle.shapes().items()}
        self.exact = False


METHODS: dict[str, Callable[[ViT], Objective]] = {
    "supervised": partial(Supervised, mixup=0.0, cutmix=0.0),
    "SplitMask": SplitMask,
    "SplitMask, two passes": TwoPasses,
    "BEiT": BEiT,
    "BEiT, DALL-E": partial(BEiT, tokenizer=RandomDallE),
    "MAE": MAE,
    "instance": InstanceDiscrimination,
    "MoCo v3": MoCoV3,
    "DINO": partial(DINO, norm_last_layer=False),
}


def make_batch(args: argparse.Namespace) -> dict[str, Any]:
    """A random batch with all inputs of all methods."""

    def noise(side: int) -> Tensor:
        return torch.randn(args.batch, 3, side, side, device=args.device)

    local = args.image_size * 3 // 7 // args.patch_size * args.patch_size  # 96 of 224
    crops = [noise(args.image_size), noise(args.image_size), *(noise(local) for _ in range(8))]
    view = torch.rand(args.batch, 3, args.image_size // 2, args.image_size // 2, device=args.device)
    labels = torch.randint(1000, (args.batch,), device=args.device)
    index = torch.randint(args.images, (args.batch,), device=args.device)
    return {"images": crops[0], "crops": crops, "token_view": view, "labels": labels, "index": index}


def training_step(model: nn.Module, loss: Callable[[], Tensor], args: argparse.Namespace) -> Callable[[], None]:
    """One training step: forward, backward, AdamW, and what the method does after a step."""
    model.to(args.device).train()
    use_fused_attention(model, args.device == "cuda")  # this and the allocator as in training
    if args.device == "cpu":
        keep_freed_memory()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4, fused=True)

    def context() -> AbstractContextManager[None]:
        return torch.autocast(args.device, dtype=torch.bfloat16) if args.precision == "bf16" else nullcontext()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with context():
            value = loss()
        value.backward()
        optimizer.step()
        if isinstance(model, Objective):
            model.after_step(0.5)

    return step


def step_of(name: str, args: argparse.Namespace, batch: dict[str, Any]) -> Callable[[], None]:
    """The step of one method."""
    torch.manual_seed(0)
    config = ViTConfig(size=args.size, image_size=args.image_size, patch_size=args.patch_size)
    model = METHODS[name](ViT(config))
    model.attach(1000, args.images)
    model.progress = 0.5
    generator = torch.Generator().manual_seed(0)
    seen = {**batch, "crops": batch["crops"][:2]} if name == "MoCo v3" else batch
    return training_step(model, lambda: model(seen, generator)["loss"], args)


def against_transformers(args: argparse.Namespace, batch: dict[str, Any]) -> dict[str, Callable[[], None]]:
    """Training steps of BEiT and MAE, ours and theirs, with the same shape."""
    from transformers import BeitConfig, BeitForMaskedImageModeling, ViTMAEConfig, ViTMAEForPreTraining

    config = ViTConfig(
        size=args.size, image_size=args.image_size, patch_size=args.patch_size, class_token=True
    ).resolved()
    generator = torch.Generator().manual_seed(0)
    shape: dict[str, Any] = {
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": 4 * (config.embed_dim or 0),
        "image_size": args.image_size,
        "patch_size": args.patch_size,
    }
    # Both hide the same 40 % of the patches. They predict the words of all patches, we those of hidden ones.
    num_patches = (args.image_size // args.patch_size) ** 2
    masking = BlockMasking(mask_ratio=75 / 196)
    side = args.image_size // args.patch_size
    _, hidden = masking.draw(args.batch, (side, side), generator)
    mask = torch.zeros(args.batch, num_patches, dtype=torch.bool).scatter_(1, hidden, True).to(args.device)
    positions = {"use_relative_position_bias": False, "use_absolute_position_embeddings": True, "use_mask_token": True}
    their_beit = BeitForMaskedImageModeling(
        BeitConfig(
            **shape,
            **positions,
            vocab_size=WORDS,
            layer_scale_init_value=0.0,
            drop_path_rate=0.0,  # as ours; the default is 0.1
            attn_implementation="eager",
        )
    )
    their_mae = ViTMAEForPreTraining(
        ViTMAEConfig(**shape, mask_ratio=0.75, norm_pix_loss=True, attn_implementation="eager")
    )
    words = torch.zeros(int(mask.sum()), dtype=torch.int64, device=args.device)
    images = batch["images"]
    beit = BEiT(ViT(config), masking=masking, tokenizer=partial(Given, vocabulary=WORDS))
    mae = MAE(ViT(config))
    return {
        "theirs: BEiT": training_step(
            their_beit, lambda: their_beit(images, bool_masked_pos=mask, labels=words).loss, args
        ),
        "ours: BEiT": training_step(beit, lambda: beit(batch, generator)["loss"], args),
        "theirs: MAE": training_step(their_mae, lambda: their_mae(images).loss, args),
        "ours: MAE": training_step(mae, lambda: mae(batch, generator)["loss"], args),
    }


def multiply_adds(step: Callable[[], None]) -> int:
    """Multiply-adds of a training step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() // 2


def peak(args: argparse.Namespace) -> None:
    """Prints the memory in MiB that two steps of one method add to this process at their peak."""
    torch.set_num_threads(args.threads or torch.get_num_threads())
    batch = make_batch(args)
    before = high_water_mark()
    step = step_of(args.peak_of, args, batch)
    for _ in range(2):
        step()
    if args.device == "cuda":
        print(torch.cuda.max_memory_allocated() / 2**20)
    else:
        print(high_water_mark() - before)


def high_water_mark() -> float:
    """Peak memory of this process in MiB (``getrusage`` would include that of the parent)."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def peak_of(name: str) -> float:
    """Peak memory of one method in MiB, measured in a fresh process."""
    done = subprocess.run([sys.executable, *sys.argv, "--peak-of", name], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", choices=["tiny", "small", "base", "large"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--patch-size", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--images", type=int, default=2040, help="training images, the classes of instance discrimination"
    )
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="threads on a CPU; 0 for torch's default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--against", choices=["transformers"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_of:
        peak(args)
        return
    if args.threads:
        torch.set_num_threads(args.threads)

    batch = make_batch(args)
    title = f"ViT-{args.size}/{args.patch_size} at {args.image_size}, batch {args.batch}, {args.precision}"
    if args.against:
        steps = against_transformers(args, batch)
        seconds = alternate(steps, args.rounds, device=args.device)
        table = Table("method", "theirs, median s", "ours, median s", "ours / theirs", title=title)
        for name in ("BEiT", "MAE"):
            theirs, ours = seconds[f"theirs: {name}"], seconds[f"ours: {name}"]
            cells = [f"{statistics.median(values):.3f}" for values in (theirs, ours)]
            table.add_row(name, *cells, f"{median_ratio(ours, theirs):.2f}")
    else:
        steps = {name: step_of(name, args, batch) for name in dict.fromkeys(["supervised", *args.methods])}
        seconds = alternate(steps, args.rounds, device=args.device)
        counts = {name: multiply_adds(step) for name, step in steps.items()}
        table = Table("method", "median s", "ratio", "multiply-adds, ratio", "time / counted", "peak, MiB", title=title)
        for name, values in seconds.items():
            ratio, counted = median_ratio(values, seconds["supervised"]), counts[name] / counts["supervised"]
            cells = [f"{statistics.median(values):.3f}", f"{ratio:.2f}", f"{counted:.2f}", f"{ratio / counted:.2f}"]
            table.add_row(name, *cells, f"{peak_of(name):,.0f}")
    Console(width=110).print(table, f"{machine(args.device)}; medians of {args.rounds} alternating rounds")


if __name__ == "__main__":
    main()
