"""Torch's fused attention against plain matrix products, in a SplitMask step of the small network for CPUs.

python benchmarks/attention.py
"""

import argparse
import statistics
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from timing import alternate, machine, median_ratio

from lit_splitmask.masking import UniformMasking
from lit_splitmask.models import ViT, ViTConfig, use_fused_attention
from lit_splitmask.objectives import SplitMask
from lit_splitmask.tokenizers import RandomProjection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    vit = ViT(ViTConfig(embed_dim=128, depth=4, num_heads=4, patch_size=8, image_size=48))
    tokenizer = partial(RandomProjection, vocabulary=1024, pixels="centred", signed=True)
    model = SplitMask(vit, masking=UniformMasking(), tokenizer=tokenizer)
    batch = {"images": torch.randn(args.batch, 3, 48, 48), "token_view": torch.rand(args.batch, 3, 24, 24)}
    generator = torch.Generator().manual_seed(0)

    def step(fused: bool, precision: str) -> None:
        use_fused_attention(model, fused)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(batch, generator)["loss"]
        loss.backward()
        model.zero_grad(set_to_none=True)

    table = Table("precision", "fused, s", "plain, s", "plain / fused")
    for precision in ("fp32", "bf16"):
        tasks = {name: partial(step, name == "fused", precision) for name in ("fused", "plain")}
        seconds = alternate(tasks, args.rounds)
        medians = [f"{statistics.median(seconds[name]):.3f}" for name in ("fused", "plain")]
        table.add_row(precision, *medians, f"{median_ratio(seconds['plain'], seconds['fused']):.2f}")
    Console().print(table, f"{machine()}; medians of {args.rounds} alternating rounds")


if __name__ == "__main__":
    main()
