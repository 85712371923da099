"""Mixup and CutMix: soft targets that match the mixed images."""

import pytest
import torch

from lit_splitmask.errors import UserError
from lit_splitmask.mixing import Mixing


@pytest.mark.parametrize("alphas", [{"mixup": 0.8, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_targets_are_the_shares_of_the_images(alphas: dict[str, float]) -> None:
    mix = Mixing(8, label_smoothing=0.0, **alphas)
    labels = torch.arange(8)
    images = labels[:, None, None, None].float().expand(8, 3, 32, 32)
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, targets = mix(images, labels)
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), targets @ labels.float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))


def test_neighbouring_copies_of_an_image_are_seldom_mixed_with_each_other() -> None:
    mix = Mixing(8, mixup=0.8, cutmix=0.0, label_smoothing=0.0)
    labels = torch.arange(8).repeat_interleave(2)
    unmixed = []
    for seed in range(50):
        torch.manual_seed(seed)
        _, targets = mix(torch.zeros(16, 3, 4, 4), labels)
        unmixed.append(float((targets.count_nonzero(dim=1) == 1).float().mean()))
    assert sum(unmixed) / 50 < 0.2  # half of them without shuffling; a fifteenth by chance


def test_without_mixing_targets_are_smoothed_and_images_stay() -> None:
    mix = Mixing(4, mixup=0.0, cutmix=0.0, label_smoothing=0.2)
    images = torch.randn(2, 3, 4, 4)
    mixed, targets = mix(images, torch.tensor([0, 3]))
    assert torch.equal(mixed, images)
    torch.testing.assert_close(targets, torch.tensor([[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.05, 0.85]]))


@pytest.mark.parametrize(("name", "value"), [("mixup", -0.1), ("cutmix", -1.0), ("label_smoothing", 1.0)])
def test_invalid_values_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{name} is {value:g}"):
        Mixing(4, **{"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, name: value})
