"""Batches from items of people's datasets, and descriptors from what their modules return."""

from typing import Any

import numpy as np
import pytest
import torch

from lit_splitmask.errors import UserError
from lit_splitmask.selection.descriptors import descriptors
from lit_splitmask.selection.items import as_batch, labels_of

IMAGE = torch.arange(12).reshape(3, 2, 2)


@pytest.mark.parametrize(
    ("item", "label"),
    [
        ({"image": IMAGE, "label": 3}, 3),
        ({"image": IMAGE.numpy(), "label": np.int64(3)}, 3),
        ({"image": IMAGE, "label": torch.tensor([3])}, 3),
        ((IMAGE, 3), 3),
        ([IMAGE, torch.tensor(3)], 3),
        ((IMAGE, np.int32(3), "a.jpg"), 3),
        ((IMAGE, True), 1),
        ((IMAGE.numpy(), np.array([3])), 3),
        ((IMAGE, 3.5), None),
        ((IMAGE, "cat"), None),
        ((IMAGE, torch.rand(5)), None),
        ((IMAGE, {"boxes": []}), None),
        ((IMAGE,), None),
        ({"image": IMAGE}, None),
        (IMAGE, None),
    ],
)
def test_images_and_labels_are_found_in_every_kind_of_item(item: Any, label: int | None) -> None:
    batch = as_batch([item, item])
    assert torch.equal(batch["image"], torch.stack([IMAGE, IMAGE]))
    if label is None:
        assert "label" not in batch
        with pytest.raises(UserError, match=r"^classes=5, but some of the images .* no label that is a whole number"):
            labels_of(batch, 5, "classes")
    else:
        assert labels_of(batch, 5).tolist() == [label, label]


def test_labels_that_only_some_items_have_are_none() -> None:
    assert "label" not in as_batch([{"image": IMAGE, "label": 1}, {"image": IMAGE}])
    assert "label" not in as_batch([{"image": IMAGE, "label": 1}, {"image": IMAGE, "label": None}])


def test_further_keys_of_dicts_are_kept() -> None:
    assert as_batch([{"image": IMAGE, "weight": 2}])["weight"].tolist() == [2]


@pytest.mark.parametrize(
    ("features", "expected"),
    [((4, 7), "no"), ((4, 5, 7), "tokens"), ((4, 7, 3, 5), "map"), ((4, 6, 6, 6), "map"), ((4, 512, 1, 1), "map")],
)
def test_descriptors_are_averaged_over_tokens_and_maps(features: tuple[int, ...], expected: str) -> None:
    found, images = torch.rand(features), torch.zeros(4, 3, 24, 40)
    averaged = {"no": lambda x: x, "tokens": lambda x: x.mean(dim=1), "map": lambda x: x.mean(dim=(2, 3))}[expected]
    assert torch.equal(descriptors(found, images), averaged(found))
    assert descriptors(found.double(), images).dtype == torch.float32


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (224, 160)])
def test_maps_with_their_channels_last_are_refused(size: tuple[int, int]) -> None:
    height, width = size[0] // 16, size[1] // 16
    images = torch.zeros(4, 3, *size)
    assert descriptors(torch.rand(4, 96, height, width), images).shape == (4, 96)
    with pytest.raises(UserError, match=r"looks like \(B, H, W, D\), with the channels last"):
        descriptors(torch.rand(4, height, width, 96), images)
