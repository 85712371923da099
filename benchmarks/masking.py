"""Block masks for a whole batch, against one image at a time in Python loops (BEiT's published form).

python benchmarks/masking.py
"""

import random
import statistics
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from timing import alternate, machine, median_ratio

from lit_splitmask.masking import BlockMasking, UniformMasking

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from reference.block_masks import beit_block_mask

GRID = (14, 14)


def main() -> None:
    generator, rng = torch.Generator().manual_seed(0), random.Random(0)
    block, uniform = BlockMasking(), UniformMasking()
    table = Table(
        "batch",
        "loop, µs per image",
        "block, µs per image",
        "ratio",
        "uniform, µs per image",
        title="masks on 14×14 patches",
    )
    for batch in (64, 256, 2048):
        seconds = alternate(
            {
                "loop": lambda batch=batch: [beit_block_mask(*GRID, 98, rng) for _ in range(batch)],
                "block": lambda batch=batch: block.draw(batch, GRID, generator),
                "uniform": lambda batch=batch: uniform.draw(batch, GRID, generator),
            },
            rounds=7,
        )
        per_image = {name: f"{statistics.median(values) / batch * 1e6:.1f}" for name, values in seconds.items()}
        table.add_row(
            str(batch),
            per_image["loop"],
            per_image["block"],
            f"{median_ratio(seconds['block'], seconds['loop']):.3f}",
            per_image["uniform"],
        )
    Console().print(table, f"{machine()}; medians of 7 alternating rounds")


if __name__ == "__main__":
    main()
