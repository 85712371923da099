"""A SplitMask training step against a plain supervised one of the same ViT.

Both do forward, backward and AdamW on the same batch. SplitMask is the default: block masks, 8,192 words by random
projection, a decoder of two blocks. A third row encodes the two halves in two passes instead of one. The multiply-adds
are counted over forward and backward, tokenizer included.

    python benchmarks/step_time.py --batch 8 --precision bf16
"""

import argparse
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from timing import alternate, machine, median_ratio
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lit_splitmask.masking import take
from lit_splitmask.models import ViT, ViTConfig, use_fused_attention
from lit_splitmask.objectives import SplitMask


class TwoPasses(SplitMask):
    """SplitMask that encodes and decodes one half after the other."""

    def decode(self, images: Tensor, keeps: list[Tensor]) -> list[Tensor]:
        tokens = self.backbone.embed(images)
        return [self.decoder(self.backbone.encode(take(tokens, keep)), keep) for keep in keeps]


def training_step(model: nn.Module, loss: Callable[[], Tensor], precision: str, device: str) -> Callable[[], None]:
    """One step: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

    def context() -> AbstractContextManager[None]:
        return torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with context():
            value = loss()
        value.backward()
        optimizer.step()

    return step


def multiply_adds(step: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() // 2


def make_steps(args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    config = ViTConfig(size=args.size, image_size=args.image_size, patch_size=args.patch_size)
    images = torch.randn(args.batch, 3, args.image_size, args.image_size, device=args.device)
    view = torch.rand(args.batch, 3, args.image_size // 2, args.image_size // 2, device=args.device)
    labels = torch.randint(1000, (args.batch,), device=args.device)
    generator = torch.Generator().manual_seed(0)

    supervised = ViT(config, num_classes=1000)
    models: dict[str, nn.Module] = {
        "supervised": supervised,
        "SplitMask": SplitMask(ViT(config)),
        "SplitMask, two passes": TwoPasses(ViT(config)),
    }
    losses: dict[str, Callable[[], Tensor]] = {"supervised": lambda: F.cross_entropy(supervised(images), labels)}
    for name in ("SplitMask", "SplitMask, two passes"):
        losses[name] = lambda model=models[name]: model({"images": images, "token_view": view}, generator)["loss"]
    for model in models.values():
        model.to(args.device)
        use_fused_attention(model, args.device == "cuda")  # as in training
    return {name: training_step(model, losses[name], args.precision, args.device) for name, model in models.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", choices=["tiny", "small", "base", "large"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--patch-size", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 for torch's default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    steps = make_steps(args)
    seconds = alternate(steps, args.rounds, device=args.device)
    counts = {name: multiply_adds(step) for name, step in steps.items()}

    title = f"ViT-{args.size}/{args.patch_size} at {args.image_size}, batch {args.batch}, {args.precision}"
    table = Table("method", "median s", "ratio to supervised", "multiply-adds, ratio", title=title)
    for name, values in seconds.items():
        table.add_row(
            name,
            f"{statistics.median(values):.3f}",
            f"{median_ratio(values, seconds['supervised']):.2f}",
            f"{counts[name] / counts['supervised']:.2f}",
        )
    Console().print(table, f"{machine(args.device)}; medians of {args.rounds} alternating rounds")


if __name__ == "__main__":
    main()
