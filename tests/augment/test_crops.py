import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from lit_splitmask.augment.base import Augment, crop_box, resize_box
from lit_splitmask.augment.evaluate import EvalTransform
from lit_splitmask.augment.finetune import FinetuneAugment, erase
from lit_splitmask.augment.pretrain import PretrainAugment
from lit_splitmask.errors import UserError

STRONG = PretrainAugment(color_jitter=0.8, grayscale=0.2, blur=0.5, solarize=0.2)
AUGMENTS = [PretrainAugment(), STRONG, FinetuneAugment(), FinetuneAugment(rand_augment=None)]
IMAGE = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("augment", AUGMENTS, ids=["weak", "strong", "finetune", "plain"])
@pytest.mark.parametrize("size", [16, 96])
def test_a_seed_decides_everything(augment: Augment, size: int) -> None:
    one, other = augment.build(size), pickle.loads(pickle.dumps(augment.build(size)))
    crops = [one(IMAGE, seed) for seed in range(20)]
    for seed in reversed(range(20)):
        np.testing.assert_array_equal(other(IMAGE, seed), crops[seed])
    assert len({crop.tobytes() for crop in crops}) == 20
    assert all(crop.shape == (size, size, 3) and crop.dtype == np.uint8 for crop in crops)


@pytest.mark.parametrize("augment", AUGMENTS, ids=["weak", "strong", "finetune", "plain"])
def test_global_randomness_and_the_image_are_left_alone(augment: Augment) -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist())
    image = IMAGE.copy()
    image.flags.writeable = False
    augment.build(16)(image, 5)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()) == before


@pytest.mark.parametrize("augment", AUGMENTS, ids=["weak", "strong", "finetune", "plain"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (7, 2), (500, 400)])
def test_images_of_any_size_survive(augment: Augment, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 90, dtype=np.uint8)
    transform = augment.build(32)
    assert all(transform(image, seed).shape == (32, 32, 3) for seed in range(10))
    assert (EvalTransform(32)(image) == 90).all()


@pytest.mark.parametrize("factor", [0.08, 1.0])
def test_downscaling_antialiases(factor: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (448, 448, 3), dtype=np.uint8)
    large = np.kron(noise, np.ones((4, 4, 1), dtype=np.uint8)) if factor < 1 else noise
    crop = PretrainAugment(min_scale=1.0).build(56)(large, 0)
    assert crop.std() < noise.std() / 3
    assert EvalTransform(56)(noise).std() < noise.std() / 3


@pytest.mark.parametrize("size", [16, 50, 96])
def test_a_box_is_resized_as_pillow_does(size: int) -> None:
    smooth = np.asarray(Image.fromarray(IMAGE).resize((200, 150), Image.Resampling.BICUBIC))
    for box in ((0, 0, 200, 150), (13, 20, 60, 90), (199, 149, 200, 150)):
        ours = resize_box(smooth, size, box).astype(int)
        part = Image.fromarray(smooth).crop(box)  # Pillow's own box looks at pixels beyond it
        pillows = np.asarray(part.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(ours - pillows).max() <= 3
        assert np.abs(ours - pillows).mean() < 0.6


@pytest.mark.parametrize("scales", [(0.08, 1.0), (0.05, 0.25), (0.3, 0.3)])
@pytest.mark.parametrize("shape", [(100, 100), (20, 300), (300, 20), (3, 1)])
def test_crop_boxes_keep_their_share_of_the_area(shape: tuple[int, int], scales: tuple[float, float]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        left, top, right, bottom = crop_box(generator, *shape, min_scale=scales[0], max_scale=scales[1])
        assert 0 <= left < right <= shape[1]
        assert 0 <= top < bottom <= shape[0]
        if min(shape) >= 20:
            assert (right - left) * (bottom - top) <= 1.1 * scales[1] * shape[0] * shape[1]


def test_the_steps_draw_independently() -> None:
    # With one seed for all steps, every flipped image would be solarised, too.
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


def test_probabilities_are_kept() -> None:
    transform = PretrainAugment(grayscale=0.25, hflip=0.0).build(8)
    tinted = np.full((8, 8, 3), (200, 100, 50), dtype=np.uint8)
    share = np.mean([np.ptp(transform(tinted, seed)) == 0 for seed in range(800)])
    assert share == pytest.approx(0.25, abs=0.06)


def test_the_crop_scale_is_kept() -> None:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3))
    transform = PretrainAugment(min_scale=0.05, max_scale=0.1, hflip=0.0).build(32)
    assert max(np.ptp(transform(ramp, seed)) for seed in range(50)) < 256 * 0.4


@pytest.mark.parametrize("shape", [(100, 100), (20, 300), (300, 20)])
def test_crop_boxes_lie_inside(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = crop_box(generator, *shape, min_scale=0.08)
        assert 0 <= left < right <= shape[1]
        assert 0 <= top < bottom <= shape[0]
        assert 0.7 < (right - left) / (bottom - top) < 1.4


def test_erasing_overwrites_one_rectangle_with_noise() -> None:
    image = np.full((40, 50, 3), 128, dtype=np.uint8)
    for seed in range(30):
        changed = (erase(np.random.default_rng(seed), image) != image).any(axis=2)
        assert 0.01 < changed.mean() < 0.4
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.95
    assert (image == 128).all()


def test_full_strength_posterisation_survives() -> None:
    transform = FinetuneAugment(rand_augment="rand-m10-n15-p1-inc1", erase=0.0).build(16)
    assert all(transform(IMAGE, seed).shape == (16, 16, 3) for seed in range(40))


def test_the_centre_is_evaluated() -> None:
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    image[:, 50:150] = 255
    assert (EvalTransform(20, crop_ratio=1.0)(image)[:, 2:-2] == 255).all()
    assert (EvalTransform(20, crop_ratio=0.8)(image) == 255).all()


@pytest.mark.parametrize(
    "settings", [{"hflip": 1.5}, {"blur": -0.1}, {"min_scale": 0.0}, {"min_scale": 0.9, "max_scale": 0.5}]
)
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError):
        PretrainAugment(**settings)


def test_a_policy_that_timm_does_not_know_is_refused() -> None:
    with pytest.raises(UserError, match="rand_augment='nonsense'"):
        FinetuneAugment(rand_augment="nonsense").build(16)


def test_building_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for augment in AUGMENTS:
            augment.build(16)(IMAGE, 0)
