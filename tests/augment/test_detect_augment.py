"""Views of detection: pixels, boxes and masks stay aligned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_sets import COLOURS, opened, write_set

from lit_splitmask.augment.detect import DetectionAugment, View, fit, whole_view
from lit_splitmask.errors import UserError

COLOUR_OF_LABEL = [COLOURS[category] for category in (0, 3, 90)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("views") / "set", train=3)


def targets(root: Path, augment: DetectionAugment, passes: int = 6) -> list[dict[str, Any]]:
    images = opened(root, image_size=96, max_size=160, batch_size=1, augment=augment).train_images()
    return [images[(number, index)] for number in range(passes) for index in range(3)]


@pytest.mark.parametrize("crop", [0.0, 1.0])
@pytest.mark.parametrize("hflip", [0.0, 1.0])
def test_boxes_match_their_masks_within_a_pixel(root: Path, crop: float, hflip: float) -> None:
    count = 0
    for item in targets(root, DetectionAugment(hflip=hflip, crop=crop)):
        height, width = item["image"].shape[1:]
        for box, mask in zip(item["target"]["boxes"], item["target"]["masks"], strict=True):
            assert mask.shape == (height, width)
            ys, xs = torch.where(mask)
            bounds = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
            assert (bounds - box).abs().max() <= 1.0
            count += 1
    assert count > 20


@pytest.mark.parametrize("crop", [0.0, 1.0])
def test_masks_cover_the_pixels_of_their_class(root: Path, crop: float) -> None:
    for item in targets(root, DetectionAugment(crop=crop)):
        for label, mask in zip(item["target"]["labels"], item["target"]["masks"], strict=True):
            mean = item["image"].float()[:, mask].mean(dim=1)
            distances = [(mean - torch.tensor(colour)).abs().sum() for colour in COLOUR_OF_LABEL]
            assert int(torch.stack(distances).argmin()) == int(label)


def test_resizing_cropping_and_resizing_again_is_one_view() -> None:
    view = View(left=10, top=4, width=20, height=10, out_width=40, out_height=30, flip=True)
    assert view.boxes(np.array([[10, 4, 15, 9], [20.0, 8, 30, 14]])).tolist() == [[30, 0, 40, 15], [0, 12, 20, 30]]
    image = np.arange(30 * 40 * 3, dtype=np.uint32).reshape(30, 40, 3).astype(np.uint8)
    assert view.image(image).shape == (30, 40, 3)
    assert np.array_equal(View(3, 5, 8, 9, 8, 9, flip=True).image(image), image[5:14, 3:11][:, ::-1])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((400, 600), (800, 1200)), ((600, 400), (1200, 800)), ((400, 900), (592, 1333)), ((1, 5000), (1, 1333))],
)
def test_the_short_side_is_reduced_if_the_long_side_would_be_too_long(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fit(*size, 800, 1333) == expected
    view = whole_view(*size, short=800, longest=1333)
    assert (view.out_height, view.out_width) == expected
    assert (view.width, view.height) == (size[1], size[0])


def test_views_have_the_sizes_of_the_reference_recipe() -> None:
    views = [DetectionAugment(crop=0.0).view(640, 640, seed, short=800, longest=1333) for seed in range(400)]
    assert {view.out_height for view in views} == set(range(480, 801, 32))
    assert 100 < sum(view.flip for view in views) < 300
    parts = [DetectionAugment(crop=1.0).view(1000, 1000, seed, short=800, longest=1333) for seed in range(2000)]
    shares = [view.width / 1000 for view in parts]
    assert min(shares) >= 0.639  # 384 of 600
    assert max(shares) == 1.0  # 600 of 400, limited to the whole image
    for view in parts:
        assert 0 <= view.left <= 1000 - view.width
        assert 0 <= view.top <= 1000 - view.height
        assert abs(view.out_width / view.width - view.out_height / view.height) < 0.01 * view.out_width / view.width


@pytest.mark.parametrize("changes", [{"crop": 1.5}, {"min_scale": 0.0}, {"num_scales": 0}, {"hflip": -1}])
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        DetectionAugment(**changes)
