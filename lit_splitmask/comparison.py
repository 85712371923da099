"""Was pre-training worth it? Computes a table and a verdict from the test accuracies of each seed. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t

CONFIDENCE = 0.95
"""Level of the intervals."""


@dataclass(frozen=True)
class Difference:
    """Paired difference of two arms over seeds, in percentage points.

    Attributes:
        mean: Mean over seeds of the second arm's accuracy minus the first's.
        low: Lower end of its 95 % interval, by Student's t over the seeds; minus infinity with one seed.
        high: Upper end of the interval; infinity with one seed.
        num_seeds: Number of seeds that both arms have.
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
    """Mean and sample standard deviation (0 for a single value)."""
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def paired_difference(baseline: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """Compares two arms over the seeds that both have.

    Args:
        baseline: Accuracies in [0, 1] by seed.
        other: Accuracies of the other arm.
    """
    seeds = sorted(baseline.keys() & other.keys())
    differences = [100 * (other[s] - baseline[s]) for s in seeds]
    mean, sd = mean_and_sd(differences)
    if len(seeds) < 2:
        return Difference(mean, -math.inf, math.inf, len(seeds))
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, len(seeds) - 1)) * sd / math.sqrt(len(seeds))
    return Difference(mean, mean - half, mean + half, len(seeds))


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
    """

    name: str
    label: str
    accuracy: dict[int, float]
    seconds: dict[int, float]
    setting: str


def rows(arms: Sequence[Arm]) -> list[list[str]]:
    """Table rows: arm, accuracy, gain over scratch, training minutes, tuned setting."""
    baseline = next(arm for arm in arms if arm.name == "scratch")
    table = []
    for arm in arms:
        mean, sd = mean_and_sd([100 * a for a in arm.accuracy.values()])
        minutes = sum(arm.seconds.values()) / len(arm.seconds) / 60
        difference = "" if arm is baseline else str(paired_difference(baseline.accuracy, arm.accuracy))
        table.append([arm.label, f"{mean:.1f} ± {sd:.1f}", difference, f"{minutes:.1f}", arm.setting])
    return table


HEADER = ["training", "test accuracy, %", "gain over scratch [95 %]", "minutes per seed", "tuned on val"]


def markdown(groups: Mapping[float, Sequence[Arm]], title: str, notes: Sequence[str]) -> str:
    """The report as Markdown.

    Args:
        groups: The arms by share of the labels.
        title: Heading of the report.
        notes: Sentences for its end.
    """
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
    """The verdict for one share of the labels: compared with scratch, and with scratch for equal total time."""
    by_name = {arm.name: arm for arm in arms}
    own = by_name["pretrained"].accuracy
    sentence = verdict(paired_difference(by_name["scratch"].accuracy, own))
    if "scratch_long" not in by_name:
        return sentence
    difference = paired_difference(by_name["scratch_long"].accuracy, own)
    if difference.num_seeds < 2:
        return sentence
    found = "better" if difference.low > 0 else "worse" if difference.high < 0 else "no difference shown"
    return f"{sentence} Compared with training from scratch for equal total time: {difference}, {found}."
