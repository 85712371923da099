import numpy as np
import pytest
from PIL import Image

from lit_splitmask.augment.pretrain import PretrainAugment
from lit_splitmask.errors import UserError


@pytest.mark.parametrize("factor", [0.08, 1.0])
def test_downscaling_is_antialiased(factor: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (448, 448, 3), dtype=np.uint8)
    large = np.kron(noise, np.ones((4, 4, 1), dtype=np.uint8)) if factor < 1 else noise
    crop = PretrainAugment(min_scale=1.0).build(56)(large, 0)
    assert crop.std() < noise.std() / 3


def test_the_steps_draw_independently() -> None:
    # With one seed for all steps, every flipped image would also be solarised.
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[:, :4] = 100
    transform = PretrainAugment(min_scale=1.0, solarize=0.5, grayscale=0.5).build(8)
    tinted = image.copy()
    tinted[..., 0] += 60
    found = set()
    for seed in range(60):
        crop = transform(tinted, seed)
        found.add((bool(crop[4, 0, 1] > crop[4, 7, 1]), bool((crop[..., 0] == crop[..., 1]).all())))
    assert len(found) == 4


def test_a_step_is_applied_with_its_probability() -> None:
    transform = PretrainAugment(grayscale=0.25, hflip=0.0).build(8)
    tinted = np.full((8, 8, 3), (200, 100, 50), dtype=np.uint8)
    share = np.mean([np.ptp(transform(tinted, seed)) == 0 for seed in range(800)])
    assert share == pytest.approx(0.25, abs=0.06)


def test_a_crop_is_within_the_scales() -> None:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3))
    transform = PretrainAugment(min_scale=0.05, max_scale=0.1, hflip=0.0).build(32)
    assert max(np.ptp(transform(ramp, seed)) for seed in range(50)) < 256 * 0.4


@pytest.mark.parametrize(
    "settings", [{"hflip": 1.5}, {"blur": -0.1}, {"min_scale": 0.0}, {"min_scale": 0.9, "max_scale": 0.5}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError):
        PretrainAugment(**settings)


@pytest.mark.parametrize("seed", range(6))
def test_the_lanczos_view_shows_the_crop_at_half_its_size(seed: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = np.array(
        Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)
    )  # smooth: filters hardly matter
    crop, view = (transform(image, seed) for transform in PretrainAugment(token_crop="lanczos").build_all(64))
    mean = crop.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert view.shape == (32, 32, 3)
    assert np.abs(view - mean).mean() < 4
    assert np.abs(view[:, ::-1] - mean).mean() > 8


def test_the_lanczos_view_refuses_colours() -> None:
    with pytest.raises(UserError, match="token_crop=lanczos"):
        PretrainAugment(token_crop="lanczos", grayscale=0.2)
    assert len(PretrainAugment().build_all(64)) == 1
