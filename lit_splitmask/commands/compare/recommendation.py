"""Which way of training a comparison recommends: the best for equal total time, if it is shown to be better than scratch."""

from collections.abc import Sequence
from dataclasses import dataclass

from lit_splitmask.comparison import Arm, Difference, corrected, difference_of

TOLERANCE = 0.1
"""Times that differ by at most this share count as equal."""

EQUAL = ("pretrained", "joint", "self_training")
"""The arms that take as long as training from scratch for equal total time."""


@dataclass(frozen=True)
class Recommendation:
    """What to do, for one share of the labels.

    Attributes:
        arm: The way of training.
        sentence: Why.
        settled: Whether each way was shown to be better or worse, or one to be better, so that more seeds are not needed.
    """

    arm: Arm
    sentence: str
    settled: bool


def recommend(arms: Sequence[Arm], num_looks: int = 1) -> Recommendation | None:
    """Chooses among the arms that take no longer than training from scratch for equal total time.

    Args:
        arms: The arms of one share of the labels.
        num_looks: How often the intervals may be looked at; with the number of arms it corrects their level.

    Returns:
        None if there is only one seed, or nothing was trained from scratch for equal total time.
    """
    by_name = {arm.name: arm for arm in arms}
    if "scratch_long" not in by_name or len(by_name["scratch_long"].accuracy) < 2:
        return None
    long = by_name["scratch_long"]
    equal = [by_name[name] for name in ("scratch_long", *EQUAL) if name in by_name]
    most = (1 + TOLERANCE) * max(arm.minutes for arm in equal)
    candidates = [arm for arm in arms if arm.name not in ("scratch", "scratch_long") and arm.minutes <= most]
    level = corrected(num_looks * len(candidates))
    differences: list[tuple[Arm, Difference]] = [(arm, difference_of(long, arm, level)) for arm in candidates]
    better = [(arm, difference) for arm, difference in differences if difference.low > 0]
    if better:
        arm, difference = max(better, key=lambda pair: pair[1].mean)
        sentence = f"{arm.label}: {difference} points over training from scratch for equal total time"
        return Recommendation(arm, f"{sentence} ({_level(level, len(candidates), num_looks)}).", settled=True)
    sentence = (
        "training from scratch, the simplest way, for as long as pre-training and fine-tuning take together: no other is shown "
        f"to be better in equal time ({_level(level, len(candidates), num_looks)})."
    )
    return Recommendation(long, sentence, settled=all(difference.high < 0 for _, difference in differences))


def _level(level: float, num_arms: int, num_looks: int) -> str:
    """The level of the intervals and what it is corrected for."""
    reasons = [f"{num_arms} ways" if num_arms > 1 else "", f"up to {num_looks} looks" if num_looks > 1 else ""]
    because = " and ".join(reason for reason in reasons if reason)
    return f"{100 * level:.3g} % interval" + (f", for {because}" if because else "")


def unequal_times(arms: Sequence[Arm]) -> str:
    """A sentence on measured times that should have been equal and are not; empty if they are."""
    by_name = {arm.name: arm for arm in arms}
    if "scratch_long" not in by_name:
        return ""
    long = by_name["scratch_long"]
    others = [by_name[name] for name in EQUAL if name in by_name]
    apart = [arm for arm in others if abs(arm.minutes / long.minutes - 1) > TOLERANCE]
    if not apart:
        return ""
    measured = "; ".join(f"{arm.label}: {arm.minutes:.2g} min" for arm in (long, *apart))
    return (
        f"The measured times are more than {TOLERANCE:.0%} apart, although the steps were meant to take equal time: {measured}. "
        "They include validation, writing checkpoints and delays by other programs."
    )
