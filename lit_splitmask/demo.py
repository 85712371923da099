"""``make demo``: is pre-training worth it on scikit-learn's handwritten digits, with few labels?

The 1,797 digits are real scans (8×8 pixels, from the UCI repository). They are written out as an ordinary folder of
images and go through the same ``compare`` as any other folder.
"""

import sys
from pathlib import Path

from PIL import Image

from lit_splitmask.cli import main

DIGITS = Path("demo/digits")


def write_digits(directory: Path) -> None:
    """Writes scikit-learn's digits as ``directory/<digit>/<number>.png``, 8×8 greyscale."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = directory / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(folder / f"{number:04d}.png")


def run() -> int:
    """Writes the digits, if they are not there, and compares."""
    if not DIGITS.exists():
        write_digits(DIGITS)
    print("1,797 handwritten digits, 40 of them labelled for training: is pre-training on the images worth it?")
    code = main(
        [
            "compare",
            "--data.root",
            str(DIGITS),
            "--recipe",
            "compare_digits",
            "--label_shares",
            "[0.032]",
            "--out",
            "demo/compare",
        ]
    )
    if code == 0:
        print(
            "Look at demo/compare/comparison.png, and at what the network sees in demo/compare/pretrain-seed0/halves.png."
        )
    return code


if __name__ == "__main__":
    sys.exit(run())
