import numpy as np
import pytest

from lit_splitmask.augment.finetune import FinetuneAugment, erase
from lit_splitmask.errors import UserError

IMAGE = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_erasing_overwrites_one_rectangle_with_noise() -> None:
    image = np.full((40, 50, 3), 128, dtype=np.uint8)
    for seed in range(30):
        changed = (erase(np.random.default_rng(seed), image) != image).any(axis=2)
        assert 0.01 < changed.mean() < 0.4
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.95
    assert (image == 128).all()


def test_posterisation_works_at_full_strength() -> None:
    transform = FinetuneAugment(rand_augment="rand-m10-n15-p1-inc1", erase=0.0).build(16)
    assert all(transform(IMAGE, seed).shape == (16, 16, 3) for seed in range(40))


def test_a_policy_that_timm_does_not_know_is_refused() -> None:
    with pytest.raises(UserError, match="rand_augment='nonsense'"):
        FinetuneAugment(rand_augment="nonsense").build(16)


@pytest.mark.parametrize("settings", [{"erase": 1.5}, {"hflip": -0.1}, {"min_scale": 0.0}, {"repeats": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(settings))):
        FinetuneAugment(**settings)  # type: ignore[arg-type]


def test_as_timm_the_noise_is_around_imagenets_mean_and_not_the_images() -> None:
    image = np.full((200, 200, 3), 20, dtype=np.uint8)
    mean = {}
    for as_timm in (False, True):
        augment = FinetuneAugment(rand_augment=None, erase=1.0, min_scale=1.0, as_timm=as_timm)
        crop = augment.build(200)(image, 0)
        mean[as_timm] = crop[(crop != 20).any(axis=2)].mean()
    assert mean[True] == pytest.approx(115, abs=3)
    assert mean[False] < 50


def test_as_timm_every_operation_resamples_bicubically() -> None:
    from PIL import Image

    for as_timm, expected in (
        (True, Image.Resampling.BICUBIC),
        (False, (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)),
    ):
        policy = FinetuneAugment(as_timm=as_timm).build(16).policy  # type: ignore[attr-defined]
        assert {op.kwargs["resample"] for op in policy.ops} == {expected}
