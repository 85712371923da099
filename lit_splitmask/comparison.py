"""Was pre-training worth it? Computes a table and a verdict from the test accuracies of each seed. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

CONFIDENCE = 0.95
"""Level of the intervals."""


@dataclass(frozen=True)
class Difference:
    """Paired difference of two arms, in percentage points.

    Attributes:
        mean: Mean over seeds of the second arm's accuracy minus the first's.
        low: Lower end of its interval; minus infinity with one seed.
        high: Upper end of the interval; infinity with one seed.
        num_seeds: Number of seeds that both arms have.
        num_images: Number of test images if the interval covers their randomness too; 0 if it covers only the seeds.
    """

    mean: float
    low: float
    high: float
    num_seeds: int
    num_images: int = 0

    def __str__(self) -> str:
        if self.num_seeds < 2:
            return f"{self.mean:+.1f} (one seed: no interval)"
        return f"{self.mean:+.1f} [{self.low:.1f}, {self.high:.1f}]"

    @property
    def half_width(self) -> float:
        """Half of the interval's width: smaller differences cannot be shown."""
        return (self.high - self.low) / 2


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def paired_difference(
    baseline: Mapping[int, float], other: Mapping[int, float], confidence: float = CONFIDENCE
) -> Difference:
    """Compares two arms over the seeds that both have. The interval covers only the randomness of the seeds.

    Args:
        baseline: Accuracies in [0, 1] by seed.
        other: Accuracies of the other arm.
        confidence: Level of the interval.
    """
    seeds = sorted(baseline.keys() & other.keys())
    differences = [100 * (other[s] - baseline[s]) for s in seeds]
    mean, sd = mean_and_sd(differences)
    if len(seeds) < 2:
        return Difference(mean, -math.inf, math.inf, len(seeds))
    # not scipy's ttest_1samp(…).confidence_interval, which warns of lost precision where all seeds differ by the same
    half = float(student_t.ppf((1 + confidence) / 2, len(seeds) - 1)) * sd / math.sqrt(len(seeds))
    return Difference(mean, mean - half, mean + half, len(seeds))


def crossed_half_width(differences: NDArray[np.floating], confidence: float = CONFIDENCE) -> NDArray[np.float64]:
    """Half the width of an interval for the mean of ``differences`` over all seeds and all test images.

    Seeds and images are crossed and both random, so the variance of the mean is that of a two-way analysis of variance: the mean
    square of the seeds, plus what the mean square of the images has in excess of the residual's. Both are weighted with
    Student's t of their own degrees of freedom (Cochran and Cox): an estimate from three seeds deserves little trust, one
    from hundreds of images much. SciPy has no such interval. ``benchmarks/comparison_interval.py`` checks how often it covers
    the true difference.

    Args:
        differences: (…, seeds, images), the second arm's correctness (0 or 1) minus the first's; at least two of each.
        confidence: Level of the interval.

    Returns:
        (…), in the unit of ``differences``.
    """
    *_, num_seeds, num_images = differences.shape
    mean = differences.mean((-2, -1), dtype=np.float64, keepdims=True)
    of_seeds = differences.mean(-1, dtype=np.float64, keepdims=True) - mean
    of_images = differences.mean(-2, dtype=np.float64, keepdims=True) - mean
    square_seeds = num_images * (of_seeds**2).sum((-2, -1)) / (num_seeds - 1)
    square_images = num_seeds * (of_images**2).sum((-2, -1)) / (num_images - 1)
    residual = ((differences - mean - of_seeds - of_images) ** 2).sum((-2, -1)) / ((num_seeds - 1) * (num_images - 1))
    excess = np.maximum(square_images - residual, 0)
    both = np.maximum(square_seeds + excess, np.finfo(float).tiny)
    t_seeds, t_images = student_t.ppf((1 + confidence) / 2, [num_seeds - 1, num_images - 1])
    quantile = (t_seeds * square_seeds + t_images * excess) / both
    half: NDArray[np.float64] = quantile * np.sqrt(both / (num_seeds * num_images))
    return half


def difference_of(baseline: "Arm", other: "Arm", confidence: float = CONFIDENCE) -> Difference:
    """Compares two arms, over seeds and over test images if both arms record each image's correctness.

    Args:
        baseline: The arm to subtract.
        other: The other arm.
        confidence: Level of the interval.
    """
    found = paired_difference(baseline.accuracy, other.accuracy, confidence)
    seeds = sorted(baseline.accuracy.keys() & other.accuracy.keys())
    tested = [arm.correct.get(seed, "") for arm in (baseline, other) for seed in seeds]
    sets = {arm.test_images.get(seed, "") for arm in (baseline, other) for seed in seeds}
    num_images = len(tested[0]) if tested else 0
    if found.num_seeds < 2 or num_images < 2 or len(sets) > 1 or any(len(text) != num_images for text in tested):
        return found
    correct = np.array([[mark == "1" for mark in text] for text in tested], dtype=float).reshape(
        2, len(seeds), num_images
    )
    half = 100 * float(crossed_half_width(correct[1] - correct[0], confidence))
    return Difference(found.mean, found.mean - half, found.mean + half, found.num_seeds, num_images)


LOOKS = (3, 5, 7, 10, 15, 20)
"""Numbers of seeds at which ``--seeds auto`` looks at the intervals."""


def looks_up_to(most: int) -> list[int]:
    """The numbers of seeds at which ``--seeds auto`` looks, up to ``most`` seeds, which is the last."""
    return [*(look for look in LOOKS if look < most), most]


def corrected(num_intervals: int) -> float:
    """The level of each of several intervals, so that all of them hold jointly at 95 % (Bonferroni).

    Args:
        num_intervals: Looks, times the arms that are compared with one baseline.
    """
    return 1 - (1 - CONFIDENCE) / num_intervals


def verdict(difference: Difference) -> str:
    """Whether own pre-training was worth it, compared with training from scratch, in one sentence."""
    if difference.num_seeds < 2:
        return f"No verdict from one seed: {difference.mean:+.1f} points in this run; use at least three seeds."
    if difference.low > 0:
        return f"Worth it: {difference} points of test accuracy over training from scratch."
    if difference.high < 0:
        return f"Not worth it: {difference} points of test accuracy compared with training from scratch."
    return f"No difference shown: {difference} points of test accuracy; the interval contains 0."


@dataclass(frozen=True)
class Arm:
    """One way of training, with one share of the labels.

    Attributes:
        name: ``scratch``, ``scratch_long``, ``pretrained``, ``given``, or a method.
        label: Label in tables.
        accuracy: Test accuracy in [0, 1] by seed.
        seconds: Total training time by seed, with pre-training.
        setting: The tuned values, as text.
        correct: By seed, ``1`` or ``0`` for each test image: whether it was classified correctly. Empty in results of earlier
            versions.
        test_images: By seed, a digest of the names of the test images: only equal sets are compared image by image.
    """

    name: str
    label: str
    accuracy: dict[int, float]
    seconds: dict[int, float]
    setting: str
    correct: dict[int, str] = field(default_factory=dict)
    test_images: dict[int, str] = field(default_factory=dict)

    @property
    def minutes(self) -> float:
        """Mean training time over the seeds, in minutes."""
        return sum(self.seconds.values()) / len(self.seconds) / 60


def rows(arms: Sequence[Arm], confidence: float = CONFIDENCE) -> list[list[str]]:
    """Table rows: arm, accuracy, gain over scratch with an interval of this level, training minutes, tuned setting."""
    baseline = next(arm for arm in arms if arm.name == "scratch")
    table = []
    for arm in arms:
        mean, sd = mean_and_sd([100 * a for a in arm.accuracy.values()])
        difference = "" if arm is baseline else str(difference_of(baseline, arm, confidence))
        table.append([arm.label, f"{mean:.1f} ± {sd:.1f}", difference, f"{arm.minutes:.1f}", arm.setting])
    return table


HEADER = ["training", "test accuracy, %", "gain over scratch [95 %]", "minutes per seed", "tuned on val"]


def markdown(
    groups: Mapping[float, Sequence[Arm]],
    title: str,
    notes: Sequence[str],
    conclusions: Mapping[float, Sequence[str]],
    confidence: float = CONFIDENCE,
) -> str:
    """The report as Markdown.

    Args:
        groups: The arms by share of the labels.
        title: Heading of the report.
        notes: Sentences for its end.
        conclusions: Paragraphs below each table.
        confidence: Level of each interval.
    """
    lines = [f"# {title}", ""]
    for share, arms in groups.items():
        lines += [
            f"## With {share:.0%} of the labels",
            "",
            "| " + " | ".join(HEADER) + " |",
            "|" + "---|" * len(HEADER),
        ]
        lines += ["| " + " | ".join(row) + " |" for row in rows(arms, confidence)]
        lines += ["", f"**{share_verdict(arms, confidence)}**", ""]
        lines += [line for text in conclusions[share] for line in (text, "")]
    return "\n".join([*lines, *(f"- {note}" for note in notes), ""])


def share_verdict(arms: Sequence[Arm], confidence: float = CONFIDENCE) -> str:
    """The verdict for one share of the labels: compared with scratch, and with scratch for equal total time."""
    by_name = {arm.name: arm for arm in arms}
    own = by_name["pretrained"]
    sentence = verdict(difference_of(by_name["scratch"], own, confidence))
    if "scratch_long" not in by_name:
        return sentence
    difference = difference_of(by_name["scratch_long"], own, confidence)
    if difference.num_seeds < 2:
        return sentence
    found = "better" if difference.low > 0 else "worse" if difference.high < 0 else "no difference shown"
    return f"{sentence} Compared with training from scratch for equal total time: {difference}, {found}."


def power(arms: Sequence[Arm], confidence: float = CONFIDENCE) -> str:
    """The smallest detectable difference, for the strictest comparison of own pre-training; empty with one seed."""
    by_name = {arm.name: arm for arm in arms}
    difference = difference_of(by_name.get("scratch_long", by_name["scratch"]), by_name["pretrained"], confidence)
    if difference.num_seeds < 2:
        return ""
    images = f" and {difference.num_images} test images" if difference.num_images else ""
    return f"Differences under {difference.half_width:.1f} points cannot be shown with {difference.num_seeds} seeds{images}."
