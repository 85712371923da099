"""The rule on curves: overfitting, plateaus, noise, slow starts, missing values."""

import math
from pathlib import Path

import curves
import numpy as np
import pytest

from lit_splitmask.selection.rule import Decision, Reading, Rule, decide, deciding_signal

LOSS = Rule(("held_out_loss",), window=1, margin=1.0, patience=0.25)
KNN = Rule(("knn",), window=1, margin=1.0, patience=0.25)


def curve(signal: str, values: list[float], error: float = math.nan) -> list[Reading]:
    return [Reading(100 * (n + 1), {signal: value}, {signal: error}) for n, value in enumerate(values)]


def on(history: list[Reading], rule: Rule, **settings: int) -> Decision:
    return decide(history, **({"total_steps": 100 * len(history)} | settings), directions=curves.DIRECTIONS, rule=rule)


def test_the_start_of_overfitting_is_reported_and_the_lowest_loss_is_kept() -> None:
    decision = on(curve("held_out_loss", [5, 4, 3, 3.5, 4, 4.5], 0.1), LOSS)
    assert (decision.best_step, decision.overfits_from, decision.signal) == (300, 400, "held_out_loss")
    assert decision.stop
    assert "lowest" in decision.reason
    assert "got worse from step 400 on" in decision.reason


@pytest.mark.parametrize(
    ("margin", "worse_by", "overfits_from"),
    [
        (0.25, 1.9, None),  # beyond the margin, but not beyond two standard errors
        (0.25, 2.1, 200),
        (3.0, 2.9, None),  # a margin of more than two standard errors counts
        (3.0, 3.1, 200),
    ],
)
def test_overfitting_must_exceed_the_margin_and_two_standard_errors(
    margin: float, worse_by: float, overfits_from: int | None
) -> None:
    history = curve("knn", [0.7, *[0.7 - worse_by * 0.03] * 3], 0.03)
    decision = on(history, Rule(("knn",), window=1, margin=margin))
    assert (decision.best_step, decision.overfits_from) == (100, overfits_from)


@pytest.mark.parametrize(("first", "second"), [(0.01, 0.1), (0.1, 0.01)])
def test_the_larger_error_of_two_readings_counts(first: float, second: float) -> None:
    def overfits_from(worse_by: float) -> int | None:
        history = [Reading(100, {"knn": 0.7}, {"knn": first}), Reading(200, {"knn": 0.7 - worse_by}, {"knn": second})]
        return on(history, KNN).overfits_from

    def best_step(better_by: float) -> int | None:
        history = [Reading(100, {"knn": 0.7}, {"knn": first}), Reading(200, {"knn": 0.7 + better_by}, {"knn": second})]
        return on(history, KNN).best_step

    assert (overfits_from(0.19), overfits_from(0.21)) == (None, 200)
    assert (best_step(0.09), best_step(0.11)) == (100, 200)


def test_a_difference_of_exactly_the_noise_is_no_difference() -> None:
    assert on(curve("knn", [0.5, 0.5, 0.5]), KNN).best_step == 100
    assert on(curve("knn", [0.5, 0.625, 0.625], 0.125), KNN).best_step == 100
    decision = on(curve("knn", [0.75, 0.5, 0.5], 0.125), KNN)
    assert (decision.best_step, decision.overfits_from) == (100, None)


def test_a_later_recovery_means_that_overfitting_has_not_begun() -> None:
    decision = on(curve("held_out_loss", [5, 3, 4, 2.9, 2.8], 0.01), LOSS)
    assert (decision.best_step, decision.overfits_from, decision.stop) == (500, None, False)
    assert "still improving" in decision.reason


def test_the_earlier_of_two_equal_readings_is_kept() -> None:
    values = [0.5, 0.7, 0.71, 0.7, 0.72, 0.7, 0.71, 0.71]
    decision = on(curve("knn", values, 0.03), KNN)
    assert (decision.best_step, decision.overfits_from) == (200, None)
    assert "no better" in decision.reason
    assert on(curve("knn", values), KNN).best_step == 500  # without a known error every improvement counts


def test_small_improvements_add_up() -> None:
    decision = on(curve("knn", [0.50, 0.52, 0.54, 0.56, 0.58], 0.03), KNN)
    assert decision.best_step == 500  # 0.54 is beyond the noise of 0.50, and 0.58 of 0.54
    assert not decision.stop


def test_a_single_lucky_reading_counts_half() -> None:
    values = [0.5, 0.6, 0.7, 0.61, 0.64, 0.66, 0.66]
    assert on(curve("knn", values), Rule(("knn",), window=1, margin=0.0)).best_step == 300
    assert on(curve("knn", values), Rule(("knn",), window=2, margin=0.0)).best_step == 700


@pytest.mark.parametrize("missing", [math.nan, math.inf, -math.inf])
def test_readings_that_failed_are_skipped(missing: float) -> None:
    decision = on(curve("held_out_loss", [5, missing, 4, missing, 4.5], 0.1), LOSS)
    assert decision.best_step == 300
    assert on(curve("held_out_loss", [missing, missing]), LOSS).best_step == 200
    assert not on(curve("held_out_loss", [missing] * 9), LOSS).stop
    assert on([], LOSS).best_step is None


def test_it_does_not_stop_before_the_warm_up_and_the_patience_are_over() -> None:
    history = curve("held_out_loss", [3, 4, 4, 4, 4, 4], 0.1)
    stops = [
        decide(history[:n], directions=curves.DIRECTIONS, total_steps=1000, warmup_steps=200, rule=LOSS).stop
        for n in range(1, 7)
    ]
    assert stops == [False, False, False, False, True, True]  # 200 steps of warm-up, then 250 of patience


def test_it_stops_as_soon_as_the_patience_is_over_even_if_the_last_equals_the_best() -> None:
    history = curve("knn", [0.5] * 4)
    assert decide(history, directions=curves.DIRECTIONS, total_steps=1200, rule=KNN).stop  # 300 steps are a quarter
    assert not decide(history, directions=curves.DIRECTIONS, total_steps=1201, rule=KNN).stop


def test_readings_without_a_value_count_for_the_patience_only() -> None:
    history = curve("knn", [0.5, 0.4, 0.4, math.nan, math.nan], 0.03)
    assert not on(history, KNN).stop  # 400 steps without an improvement, but two readings
    history = curve("knn", [0.5, 0.4, 0.4, 0.4, math.nan], 0.03)
    assert decide(history, directions=curves.DIRECTIONS, total_steps=1600, rule=KNN).stop  # 400 steps are a quarter


def test_it_does_not_stop_on_few_readings_or_while_the_signal_creeps_up() -> None:
    assert not on(curve("knn", [0.5, 0.4, 0.4], 0.03), KNN).stop
    assert on(curve("knn", [0.5, 0.4, 0.4, 0.4], 0.03), KNN).stop
    assert not on(curve("knn", [0.5, 0.505, 0.51, 0.515, 0.52], 0.03), KNN).stop


@pytest.mark.parametrize(
    ("signal", "values", "reason"),
    [
        ("knn", [0.5, 0.6, 0.7], "knn was highest at step 300 (0.7), to within its noise; it was still improving"),
        (
            "knn",
            [0.5, 0.7, 0.71],
            "knn was highest at step 200 (0.7), to within its noise; later checkpoints are no better",
        ),
        (
            "held_out_loss",
            [5, 3, 4],
            "held_out_loss was lowest at step 200 (3), to within its noise; it got worse from step 300 on, to 4 at step 300",
        ),
        ("knn", [0.5], "knn was measured only once (0.5), so there was no choice"),
        ("knn", [math.nan], "none of knn could be measured, so the latest checkpoint is kept"),
    ],
)
def test_the_reason_is_plain_english(signal: str, values: list[float], reason: str) -> None:
    assert on(curve(signal, values, 0.03), Rule((signal,), window=1, margin=1.0)).reason == reason


def test_the_error_of_a_mean_falls_with_the_root_of_the_number_of_readings() -> None:
    history = curve("knn", [0.5, 0.5, 0.5, 0.5, 0.7, 0.7, 0.7], 0.09)  # means of four: 0.55, 0.6, 0.65 from step 500 on
    assert on(history, Rule(("knn",), window=4, margin=1.0)).best_step == 700  # their error is 0.045


def test_the_first_signal_that_was_ever_measured_decides_for_good() -> None:
    rule = Rule(("linear", "held_out_loss"))
    without = [Reading(100, {"held_out_loss": 3.0}), Reading(200, {"held_out_loss": 2.0})]
    assert deciding_signal(without, rule.signals) == "held_out_loss"
    later = [*without, Reading(300, {"held_out_loss": 2.5, "linear": 0.9})]
    assert deciding_signal(later, rule.signals) == "held_out_loss"
    assert deciding_signal([Reading(100, {"held_out_loss": 3.0, "linear": 0.1})], rule.signals) == "linear"


@pytest.mark.parametrize("seed", range(20))
def test_the_best_is_always_the_reading_at_which_it_was_found(seed: int) -> None:
    generator = np.random.default_rng(seed)
    history = curve("knn", list(generator.random(15)), 0.1)
    found: list[int | None] = []
    for number in range(1, 16):
        best = decide(history[:number], directions=curves.DIRECTIONS, total_steps=1500, rule=KNN).best_step
        assert best == history[number - 1].step or (found and best == found[-1])
        found.append(best)


def test_the_table_of_the_docs_is_what_the_rule_does() -> None:
    page = (Path(__file__).parents[2] / "docs" / "overfitting.md").read_text(encoding="utf-8")
    assert curves.table() in page, "run python tests/curves.py, and put its table into docs/overfitting.md"


def test_the_rule_loses_less_than_the_last_where_there_is_overfitting_and_little_elsewhere() -> None:
    for name, of_shape in curves.all_curves().items():
        lost = curves.regrets(of_shape)
        if "overfitting" in name:
            assert lost["the rule"] < lost["last"] / 4
        assert lost["the rule"] <= lost["a random one"]
        assert lost["the rule"] < 2


def test_a_single_reading_is_no_choice() -> None:
    decision = on(curve("knn", [0.5]), KNN)
    assert (decision.best_step, decision.stop) == (100, False)
    assert "measured only once" in decision.reason
    assert decision.signal == "knn"
