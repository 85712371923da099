"""``make demo``: is pre-training worth it on scikit-learn's handwritten digits, with few labels?

The 1,797 digits are real scans of 8×8 pixels, from the UCI repository. The demo writes them as an ordinary folder of images
and runs ``compare`` on it.
"""

import sys
from pathlib import Path

from PIL import Image

from lit_splitmask.cli import main

DIGITS = Path("demo/digits")
COMPARE = ["compare", "--recipe", "compare_digits", "--label_shares", "0.032", "--out", "demo/compare"]


def write_digits(directory: Path) -> None:
    """Writes scikit-learn's digits as ``directory/<digit>/<number>.png``: 8×8 pixels, greyscale."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = directory / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(folder / f"{number:04d}.png")


def run() -> int:
    """Writes the digits, unless they exist, and compares; returns the exit code."""
    if not DIGITS.exists():
        write_digits(DIGITS)
    print("1,797 handwritten digits, 40 of them labelled for training: is pre-training on them worth it?")
    code = main([*COMPARE, "--data.root", str(DIGITS)])
    if code == 0:
        print("See demo/compare/comparison.png, and in demo/compare/pretrain-seed0/halves.png what the network sees.")
    return code


if __name__ == "__main__":
    sys.exit(run())
