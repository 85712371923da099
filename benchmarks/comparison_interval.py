"""How often do the intervals of ``compare`` hold the truth? Simulated comparisons, with chance in seeds and in test images.

    python benchmarks/comparison_interval.py

An image is classified correctly if the sum of these is above 0: the arm's level, the image's difficulty (shared by both arms, and
the arm's own), the seed's luck (the arm's own) and noise, all normal. So the true accuracies are known exactly.
"""

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from lit_splitmask.comparison import corrected, crossed_half_width, looks_up_to

COMPARISONS = 2000
"""Simulated comparisons of a setting."""


def simulate(
    generator: np.random.Generator,
    shape: tuple[int, int, int],
    *,
    accuracy: float,
    seed_sd: float,
    difficulty: float,
    gain: float = 0.0,
) -> tuple[NDArray[np.float32], float]:
    """Differences of correctness between two arms, and their true mean.

    Args:
        generator: Source of the randomness.
        shape: Comparisons, seeds, images.
        accuracy: True accuracy of the first arm.
        seed_sd: Standard deviation of an arm's accuracy over seeds, in points.
        difficulty: Share of the images' shared difficulty in the variance of a decision without the arm's own.
        gain: What the second arm is better by.

    Returns:
        (comparisons, seeds, images) in {−1, 0, 1}; the true difference.
    """
    many, seeds, images = shape
    shared = difficulty / (1 - difficulty)
    own = shared / 4
    spread = seed_sd / 100 / norm.pdf(norm.ppf(accuracy)) * np.sqrt(1 + shared + own)
    total = np.sqrt(1 + shared + own + spread**2)

    def normal(*sizes: int) -> NDArray[np.float32]:
        return generator.standard_normal(sizes, dtype=np.float32)

    image = np.float32(np.sqrt(shared)) * normal(many, 1, images)
    correct = [
        np.float32(norm.ppf(level) * total)
        + image
        + np.float32(np.sqrt(own)) * normal(many, 1, images)
        + np.float32(spread) * normal(many, seeds, 1)
        + normal(many, seeds, images)
        > 0
        for level in (accuracy, accuracy + gain)
    ]
    return correct[1].astype(np.float32) - correct[0].astype(np.float32), gain


def held(differences: NDArray[np.float32], truth: float, confidence: float) -> NDArray[np.bool_]:
    """Whether the interval of each comparison holds the truth."""
    error = np.abs(differences.mean((1, 2), dtype=np.float64) - truth)
    result: NDArray[np.bool_] = error <= crossed_half_width(differences, confidence) + 1e-9
    return result


def held_at_all_looks(differences: NDArray[np.float32], truth: float) -> NDArray[np.bool_]:
    """Whether the corrected intervals hold the truth at every look of ``--seeds auto``."""
    looks = looks_up_to(differences.shape[1])
    return np.all([held(differences[:, :look], truth, corrected(len(looks))) for look in looks], axis=0)


def main() -> None:
    """Prints a table: the share of intervals that hold the truth, and their half-width in points."""
    generator = np.random.default_rng(0)
    print("images accuracy seed-sd difficulty | 3 seeds      | 5 seeds      | 10 seeds     | auto")
    worst: list[list[float]] = []
    for images, accuracy, sd, difficulty in itertools.product((100, 431), (0.6, 0.75, 0.9), (0, 1, 3), (0.3, 0.7)):
        chunks = []
        for _ in range(4):
            sample, truth = simulate(
                generator,
                (COMPARISONS // 4, 10, images),
                accuracy=accuracy,
                seed_sd=sd,
                difficulty=difficulty,
                gain=0.02,
            )
            found = [
                (held(sample[:, :seeds], truth, 0.95).mean(), 100 * crossed_half_width(sample[:, :seeds]).mean())
                for seeds in (3, 5, 10)
            ]
            chunks.append([*(value for pair in found for value in pair), held_at_all_looks(sample, truth).mean()])
        row = [float(value) for value in np.mean(chunks, axis=0)]
        worst.append([100 * row[0], 100 * row[2], 100 * row[4], 100 * row[6]])
        cells = " | ".join(f"{100 * row[i]:5.1f} % ±{row[i + 1]:4.1f}" for i in (0, 2, 4))
        print(f"{images:6} {accuracy:8} {sd:7} {difficulty:10} | {cells} | {100 * row[6]:.1f} %", flush=True)
    for name, pick in (("least", np.min), ("mean", np.mean), ("most", np.max)):
        print(name, "; ".join(f"{value:.1f} %" for value in pick(worst, axis=0)))


if __name__ == "__main__":
    main()
