"""What holds for every augmentation of crops, and the parts that they share."""

import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from lit_splitmask.augment.base import Augment, CropTransform, crop_box, resize_box
from lit_splitmask.augment.finetune import FinetuneAugment
from lit_splitmask.augment.pretrain import PretrainAugment

STRONG = PretrainAugment(color_jitter=0.8, grayscale=0.2, blur=0.5, solarize=0.2)
AUGMENTS = [PretrainAugment(), STRONG, FinetuneAugment(), FinetuneAugment(rand_augment=None)]
IMAGE = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("augment", AUGMENTS, ids=["weak", "strong", "finetune", "plain"])
@pytest.mark.parametrize("size", [16, 96])
def test_the_seed_determines_the_crop(augment: Augment, size: int) -> None:
    one, other = augment.build(size), pickle.loads(pickle.dumps(augment.build(size)))
    crops = [one(IMAGE, seed) for seed in range(20)]
    for seed in reversed(range(20)):
        np.testing.assert_array_equal(other(IMAGE, seed), crops[seed])
    assert len({crop.tobytes() for crop in crops}) == 20
    assert all(crop.shape == (size, size, 3) and crop.dtype == np.uint8 for crop in crops)


@pytest.mark.parametrize("augment", AUGMENTS, ids=["weak", "strong", "finetune", "plain"])
def test_the_global_random_state_and_the_image_do_not_change(augment: Augment) -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist())
    image = IMAGE.copy()
    image.flags.writeable = False
    augment.build(16)(image, 5)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()) == before


@pytest.mark.parametrize("augment", AUGMENTS, ids=["weak", "strong", "finetune", "plain"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (7, 2), (500, 400)])
def test_images_of_any_size_can_be_cropped(augment: Augment, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 90, dtype=np.uint8)
    transform = augment.build(32)
    assert all(transform(image, seed).shape == (32, 32, 3) for seed in range(10))


@pytest.mark.parametrize("size", [16, 50, 96])
def test_a_box_is_resized_as_by_pillow(size: int) -> None:
    smooth = np.asarray(Image.fromarray(IMAGE).resize((200, 150), Image.Resampling.BICUBIC))
    for box in ((0, 0, 200, 150), (13, 20, 60, 90), (199, 149, 200, 150)):
        ours = resize_box(smooth, size, box).astype(int)
        part = Image.fromarray(smooth).crop(box)  # with a box, Pillow also uses pixels outside it
        pillows = np.asarray(part.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(ours - pillows).max() <= 3
        assert np.abs(ours - pillows).mean() < 0.6


@pytest.mark.parametrize("augment", AUGMENTS, ids=["weak", "strong", "finetune", "plain"])
def test_a_crop_in_given_memory_is_the_same_crop(augment: Augment) -> None:
    transform = augment.build(24)
    assert isinstance(transform, CropTransform)
    for seed in range(10):
        batch = np.zeros((3, 24, 24, 3), dtype=np.uint8)
        transform.write(IMAGE, seed, batch[1])
        np.testing.assert_array_equal(batch[1], transform(IMAGE, seed))
        assert batch[1].any()
        assert not batch[[0, 2]].any()


@pytest.mark.parametrize("box", [(0, 0, 64, 48), (13, 20, 40, 41), (63, 47, 64, 48)])
def test_a_flipped_box_is_the_mirrored_box(box: tuple[int, int, int, int]) -> None:
    np.testing.assert_array_equal(resize_box(IMAGE, 20, box, flipped=True), resize_box(IMAGE, 20, box)[:, ::-1])


@pytest.mark.parametrize("scales", [(0.08, 1.0), (0.05, 0.25), (0.3, 0.3)])
@pytest.mark.parametrize("shape", [(100, 100), (20, 300), (300, 20), (3, 1)])
def test_crop_boxes_have_the_requested_share_of_the_area(shape: tuple[int, int], scales: tuple[float, float]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        left, top, right, bottom = crop_box(generator, *shape, min_scale=scales[0], max_scale=scales[1])
        assert 0 <= left < right <= shape[1]
        assert 0 <= top < bottom <= shape[0]
        if min(shape) >= 20:
            assert (right - left) * (bottom - top) <= 1.1 * scales[1] * shape[0] * shape[1]


@pytest.mark.parametrize("shape", [(100, 100), (20, 300), (300, 20)])
def test_crop_boxes_are_inside_the_image(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = crop_box(generator, *shape, min_scale=0.08)
        assert 0 <= left < right <= shape[1]
        assert 0 <= top < bottom <= shape[0]
        assert 0.7 < (right - left) / (bottom - top) < 1.4


def test_building_emits_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for augment in AUGMENTS:
            assert augment.build(16)(IMAGE, 0) is not None
