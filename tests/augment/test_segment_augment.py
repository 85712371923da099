"""The joint augmentation of images and label maps: crops, scale and photometric distortion."""

import numpy as np
import pytest
from scenes import COLOURS, NO_CHANGE, draw_scene

from lit_splitmask.annotations.label_maps import to_classes
from lit_splitmask.augment.segment import SegmentAugment, distort, resize_classes, resize_to, scale_for
from lit_splitmask.errors import UserError
from lit_splitmask.losses import IGNORED

FILL = np.array([1, 2, 3], dtype=np.uint8)


def colour_classes(pixels: np.ndarray) -> np.ndarray:
    """The class whose colour is nearest, 3 for black: (H, W, 3) to (H, W)."""
    return np.abs(pixels[:, :, None].astype(int) - COLOURS.astype(int)).sum(axis=-1).argmin(axis=-1)


@pytest.mark.parametrize("short_side", [None, 20, 90])
@pytest.mark.parametrize("seed", range(6))
def test_pixels_and_labels_move_together(seed: int, short_side: int | None) -> None:
    image, values = draw_scene(seed, 60, 90)
    classes = to_classes(values, 255)
    transform = SegmentAugment(photometric=False).build(32, short_side=short_side, fill=COLOURS[3])
    crop, labels = transform(image, classes, seed)
    assert crop.shape == (32, 32, 3)
    assert (labels.shape, labels.dtype) == ((32, 32), np.int16)
    seen = colour_classes(crop)
    agrees = seen == np.where(labels == IGNORED, 3, labels)
    inside = np.ones_like(agrees)  # not at edges, where colours mix
    for axis in (0, 1):
        for shift in (-1, 1, -2, 2):
            inside &= np.roll(labels, shift, axis) == labels
    assert inside.sum() > 100
    assert agrees[inside].mean() > 0.98


def test_no_augmentation_is_a_crop_of_both() -> None:
    image, values = draw_scene(0, 60, 90)
    crop, labels = NO_CHANGE.build(32, short_side=None, fill=FILL)(image, to_classes(values, 255), 5)
    positions = [
        (top, left)
        for top in range(29)
        for left in range(59)
        if (image[top : top + 32, left : left + 32] == crop).all()
        and (to_classes(values, 255)[top : top + 32, left : left + 32] == labels).all()
    ]
    assert positions


def test_small_images_are_padded_at_the_right_and_at_the_bottom() -> None:
    image, values = draw_scene(0)
    crop, labels = NO_CHANGE.build(64, short_side=None, fill=FILL)(image, to_classes(values, 255), 0)
    assert (crop[:40, :56] == image).all()
    assert (crop[40:] == FILL).all()
    assert (crop[:, 56:] == FILL).all()
    assert (labels[40:] == IGNORED).all()
    assert (labels[:, 56:] == IGNORED).all()


def test_crops_with_too_much_of_one_class_are_drawn_again() -> None:
    classes = np.zeros((100, 100), dtype=np.int16)
    classes[:, 90:] = 1
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    shares = {}
    for ratio in (0.75, 1.0):
        transform = SegmentAugment(1.0, 1.0, ratio, 0.0, False).build(20, short_side=None, fill=FILL)
        crops = [transform(image, classes, seed)[1] for seed in range(60)]
        shares[ratio] = np.mean([(crop == 0).mean() < 0.75 for crop in crops])
    assert shares[1.0] < 0.3
    assert shares[0.75] > 2 * shares[1.0]


def test_the_seed_determines_the_joint_crop() -> None:
    image, values = draw_scene(0, 60, 90)
    transform = SegmentAugment().build(32, short_side=None, fill=FILL)
    crops = [transform(image, to_classes(values, 255), seed) for seed in (1, 1, 2)]
    assert (crops[0][0] == crops[1][0]).all()
    assert (crops[0][1] == crops[1][1]).all()
    assert (crops[0][0] != crops[2][0]).any()


def test_distortion_changes_the_colours_and_not_the_original() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    before = image.copy()
    changed = [distort(np.random.default_rng(seed), image) for seed in range(40)]
    assert (image == before).all()
    assert all(one.dtype == np.uint8 and one.shape == image.shape for one in changed)
    same = sum((one == image).all() for one in changed)
    assert 0 < same < 12  # no step is applied to one in sixteen
    means = [one.mean() - image.mean() for one in changed]
    assert min(means) < -5
    assert max(means) > 5


def test_label_maps_are_resized_by_nearest_neighbour() -> None:
    classes = np.arange(12).reshape(3, 4)
    assert (resize_classes(classes, (6, 8)) == classes.repeat(2, 0).repeat(2, 1)).all()
    assert resize_classes(np.arange(81).reshape(9, 9), (3, 3)).tolist() == [[10, 13, 16], [37, 40, 43], [64, 67, 70]]
    assert resize_to(np.zeros((3, 4, 3), dtype=np.uint8), (7, 5)).shape == (7, 5, 3)


def test_the_long_side_is_at_most_four_times_the_short_side() -> None:
    assert scale_for((100, 200), 50) == 0.5
    assert scale_for((100, 800), 50) == pytest.approx(200 / 800)
    assert scale_for((7, 9), None) == 1


@pytest.mark.parametrize("settings", [{"min_scale": 0.0}, {"min_scale": 3.0}, {"cat_max_ratio": 1.5}, {"hflip": -0.1}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError):
        SegmentAugment(**settings)  # type: ignore[arg-type]
