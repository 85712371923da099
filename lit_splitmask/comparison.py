"""Was pre-training worth it? From test accuracies per seed to a table and one honest sentence. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Paired difference of two arms over seeds, in points (percent).

    Attributes:
        mean: mean over seeds of the second arm's accuracy minus the first's.
        low, high: its 95 % interval by Student's t over the seeds; infinite with one seed.
        num_seeds: seeds that both arms have.
    """

    mean: float
    low: float
    high: float
    num_seeds: int

    def __str__(self) -> str:
        if self.num_seeds < 2:
            return f"{self.mean:+.1f} (one seed: no interval)"
        return f"{self.mean:+.1f} [{self.low:.1f}, {self.high:.1f}]"


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value)."""
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def paired_difference(baseline: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """Compares two arms seed by seed.

    Args:
        baseline, other: seed -> accuracy in [0, 1].
    """
    seeds = sorted(baseline.keys() & other.keys())
    differences = [100 * (other[s] - baseline[s]) for s in seeds]
    mean, sd = mean_and_sd(differences)
    if len(seeds) < 2:
        return Difference(mean, -math.inf, math.inf, len(seeds))
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, len(seeds) - 1)) * sd / math.sqrt(len(seeds))
    return Difference(mean, mean - half, mean + half, len(seeds))


def verdict(difference: Difference) -> str:
    """One sentence: whether own pre-training was worth it against training from scratch."""
    if difference.num_seeds < 2:
        return f"No verdict from one seed: {difference.mean:+.1f} points in this run; use at least three seeds."
    if difference.low > 0:
        return f"Worth it: {difference} points of test accuracy over training from scratch."
    if difference.high < 0:
        return f"Not worth it: {difference} points of test accuracy against training from scratch."
    return f"No difference shown: {difference} points of test accuracy; the interval contains 0."


@dataclass(frozen=True)
class Arm:
    """One way of training, with one share of the labels.

    Attributes:
        name: ``scratch``, ``pretrained``, ….
        label: for the table.
        accuracy: seed -> test accuracy in [0, 1].
        seconds: seed -> training time in all, pre-training included.
        setting: the tuned values, in words.
    """

    name: str
    label: str
    accuracy: dict[int, float]
    seconds: dict[int, float]
    setting: str


def rows(arms: Sequence[Arm]) -> list[list[str]]:
    """Table rows: arm, accuracy, difference to scratch, training minutes, tuned setting."""
    baseline = next(arm for arm in arms if arm.name == "scratch")
    table = []
    for arm in arms:
        mean, sd = mean_and_sd([100 * a for a in arm.accuracy.values()])
        minutes = sum(arm.seconds.values()) / len(arm.seconds) / 60
        difference = "" if arm is baseline else str(paired_difference(baseline.accuracy, arm.accuracy))
        table.append([arm.label, f"{mean:.1f} ± {sd:.1f}", difference, f"{minutes:.1f}", arm.setting])
    return table


HEADER = ["training", "test accuracy, %", "difference to scratch [95 %]", "minutes a seed", "tuned on val"]


def markdown(groups: Mapping[float, Sequence[Arm]], title: str, notes: Sequence[str]) -> str:
    """The report as Markdown; ``groups`` maps a share of the labels to its arms."""
    lines = [f"# {title}", ""]
    for share, arms in groups.items():
        lines += [
            f"## With {share:.0%} of the labels",
            "",
            "| " + " | ".join(HEADER) + " |",
            "|" + "---|" * len(HEADER),
        ]
        lines += ["| " + " | ".join(row) + " |" for row in rows(arms)]
        lines += ["", f"**{share_verdict(arms)}**", ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes), ""])


def share_verdict(arms: Sequence[Arm]) -> str:
    """The verdict on the arms of one share of the labels: against scratch, and against scratch for as long in all."""
    by_name = {arm.name: arm for arm in arms}
    own = by_name["pretrained"].accuracy
    first = verdict(paired_difference(by_name["scratch"].accuracy, own))
    if "scratch_long" not in by_name:
        return first
    difference = paired_difference(by_name["scratch_long"].accuracy, own)
    if difference.num_seeds < 2:
        return first
    found = "better" if difference.low > 0 else "worse" if difference.high < 0 else "no difference shown"
    return f"{first} Against training from scratch for as long in all: {difference}, {found}."
