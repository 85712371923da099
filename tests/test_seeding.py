"""Random numbers depend on their key alone."""

import random
from typing import Any

import numpy as np
import pytest
import torch

from lit_splitmask.seeding import derive_seed, generator_for, seeded_globals, seeded_python_and_numpy


def test_every_part_of_the_key_changes_the_seed() -> None:
    keys = [(seed, name, step) for seed in range(10) for name in ("masks", "mixup") for step in range(50)]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 23) != derive_seed(12, 3)


def test_a_key_gives_the_same_numbers_after_any_other_draws() -> None:
    first = torch.rand(5, generator=generator_for(7, "masks", 3))
    torch.rand(100)
    assert torch.equal(first, torch.rand(5, generator=generator_for(7, "masks", 3)))


Draws = tuple[float, float, float]


def draws() -> Draws:
    """A number of each of Python's, NumPy's and torch's global generators."""
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def within(context: Any) -> tuple[list[Draws], Draws]:
    """What is drawn within a context, entered twice, and then outside it."""
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    inside = []
    for _ in range(2):
        with context():
            inside.append(draws())
    return inside, draws()


def test_global_generators_are_seeded_inside_and_unmoved_outside() -> None:
    inside, after = within(lambda: seeded_globals(5))
    assert inside[0] == inside[1]
    assert after == within(lambda: seeded_globals(6))[1]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert after == draws()


def test_pythons_and_numpys_generators_can_be_seeded_without_torchs() -> None:
    inside, after = within(lambda: seeded_python_and_numpy(2**40 + 5))
    assert inside[0][:2] == inside[1][:2]
    assert inside[0][:2] == within(lambda: seeded_globals(2**40 + 5))[0][0][:2]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    own = [float(torch.rand(())) for _ in range(2)]
    assert [numbers[2] for numbers in inside] == own
    assert after == draws()


@pytest.mark.parametrize("seeded", [seeded_globals, seeded_python_and_numpy])
def test_an_error_inside_restores_the_generators_too(seeded: Any) -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with pytest.raises(ValueError, match="stop"), seeded(5):
        raise ValueError("stop")
    assert draws() == expected
