"""How far chance goes: standard errors, and the accuracy of guessing."""

import numpy as np
import pytest

from lit_splitmask.commands.chance import chance_level, standard_error, with_error


def test_the_standard_error_is_that_of_a_share() -> None:
    draws = np.random.default_rng(0).random((20_000, 50)) < 0.3
    assert standard_error(0.3, 50) == pytest.approx(draws.mean(axis=1).std(), rel=0.05)
    assert with_error(0.3, standard_error(0.3, 50)) == "30.0 ± 6.3 %"
    assert standard_error(1.0, 8) > 0.1


def test_guessing_among_classes_of_unequal_size() -> None:
    text = chance_level({"cat": 10, "dog": 30, "owl": 10})
    assert text == "Chance: 33.3 % by guessing among 3 classes, 60.0 % by always answering dog, the most frequent."
