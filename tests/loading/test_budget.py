from math import ceil

import pytest

from lit_splitmask.errors import UserError
from lit_splitmask.loading.budget import Budget, resolve, steps_per_epoch


def test_the_default_is_300_passes_over_imagenet() -> None:
    schedule = resolve(None, 1_281_167, 2048)
    assert schedule.images == 384_350_100
    assert schedule.passes == 300
    assert schedule.steps == 187_671
    assert not schedule.capped


def test_a_small_folder_is_capped_at_5000_passes() -> None:
    schedule = resolve(Budget(), 1_000, 2048)
    assert schedule.capped
    assert (schedule.images, schedule.steps) == (5_000_000, 2_442)
    assert schedule.describe() == "1,000 images x 5,000 passes = 5,000,000 images seen = 2,442 steps of 2,048"


def test_the_cap_can_be_changed() -> None:
    assert resolve(None, 20_210, 2048, max_passes=21_000).passes == pytest.approx(384_350_100 / 20_210)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 2048])
@pytest.mark.parametrize(
    ("budget", "images"), [(Budget(images=999), 999), (Budget(passes=2.5), 250), (Budget(passes=9_000), 900_000)]
)
def test_a_requested_budget_is_not_capped(budget: Budget, images: int, batch_size: int) -> None:
    schedule = resolve(budget, 100, batch_size)
    assert schedule.images == images
    assert schedule.steps == max(1, ceil(images / batch_size))
    assert schedule.passes == images / 100
    assert not schedule.capped


def test_a_budget_in_steps_is_the_same_for_any_batch_size() -> None:
    assert [resolve(Budget(steps=7), 100, size).images for size in (1, 50, 300)] == [7, 350, 2100]


def test_fractions_of_a_pass_are_reported() -> None:
    assert "x 2.5 passes" in resolve(Budget(passes=2.5), 100, 10).describe()


def test_two_budgets_together_are_refused() -> None:
    with pytest.raises(UserError, match="images=5 and steps=7"):
        Budget(images=5, steps=7)


@pytest.mark.parametrize("setting", [{"steps": 0}, {"images": -1}, {"passes": 0.0}])
def test_a_budget_that_is_not_positive_is_refused(setting: dict) -> None:
    with pytest.raises(UserError, match="more than 0"):
        Budget(**setting)


def test_training_without_images_is_refused() -> None:
    with pytest.raises(UserError, match="0 training images"):
        resolve(None, 0, 10)
    with pytest.raises(UserError, match="batch_size=0"):
        resolve(None, 10, 0)


@pytest.mark.parametrize(("steps", "epochs", "expected"), [(1000, 100, 10), (1001, 100, 11), (3, 100, 1)])
def test_epochs_cover_all_steps(steps: int, epochs: int, expected: int) -> None:
    assert steps_per_epoch(steps, epochs) == expected
    assert steps_per_epoch(steps, epochs) * epochs >= steps


def test_the_default_can_be_scaled() -> None:
    whole = resolve(None, 1_000_000, 2048)
    tenth = resolve(Budget(scale=0.1), 1_000_000, 2048)
    assert tenth.images == round(whole.images / 10)
    assert resolve(Budget(scale=2), 100, 10, table_passes=21_000).passes == 42_000


def test_a_tables_passes_replace_the_rule_but_not_the_users_budget() -> None:
    assert resolve(None, 20_210, 2048, table_passes=21_000).passes == 21_000
    assert resolve(Budget(passes=2), 20_210, 2048, table_passes=21_000).passes == 2
