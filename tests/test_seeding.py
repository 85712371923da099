"""Randomness follows its key and nothing else."""

import random

import numpy as np
import torch

from lit_splitmask.seeding import derive_seed, generator_for, seeded_globals


def test_seeds_differ_by_every_part_of_the_key() -> None:
    keys = [(seed, name, step) for seed in range(10) for name in ("masks", "mixup") for step in range(50)]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 23) != derive_seed(12, 3)


def test_a_key_gives_the_same_draws_whatever_was_drawn_before() -> None:
    first = torch.rand(5, generator=generator_for(7, "masks", 3))
    torch.rand(100)
    assert torch.equal(first, torch.rand(5, generator=generator_for(7, "masks", 3)))


def test_global_generators_are_seeded_inside_and_unmoved_outside() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def continued(interrupted: bool) -> tuple[tuple[float, float, float], list[tuple[float, float, float]]]:
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        inside = []
        if interrupted:
            for _ in range(2):
                with seeded_globals(5):
                    inside.append(draws())
        return draws(), inside

    after, inside = continued(interrupted=True)
    assert inside[0] == inside[1]
    assert after == continued(interrupted=False)[0]
