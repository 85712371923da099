"""Views of a crop; cutting into patches and back."""

import pytest
import torch

from lit_splitmask.views import network_view, patchify, token_view, unpatchify


def crops(height: int = 8, width: int = 12, channels: int = 3) -> torch.Tensor:
    return torch.randint(256, (2, channels, height, width), generator=torch.Generator().manual_seed(0)).byte()


def test_the_token_view_is_the_mean_of_each_2_by_2_block() -> None:
    images = crops()
    view = token_view(images)
    assert view.shape == (2, 3, 4, 6)
    assert view.dtype == torch.float32
    for row in range(4):
        for column in range(6):
            block = images[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].double()
            torch.testing.assert_close(view[:, :, row, column].double(), block.mean(dim=(2, 3)) / 255)


def test_the_token_view_is_in_the_unit_range() -> None:
    assert token_view(torch.full((1, 3, 4, 4), 255).byte()).max() == 1
    assert token_view(torch.zeros(1, 3, 4, 4).byte()).min() == 0


def test_the_network_view_is_normalised_by_channel() -> None:
    images = crops()
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 1.0, 2.0])
    view = network_view(images, mean, std)
    for channel in range(3):
        torch.testing.assert_close(view[:, channel], (images[:, channel] / 255 - mean[channel]) / std[channel])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width", "patch_size"), [(8, 12, 4), (6, 6, 3), (16, 8, 8)])
def test_patches_are_cut_row_by_row_and_reassembled(height: int, width: int, patch_size: int, channels: int) -> None:
    images = crops(height, width, channels)[:, :, : height // patch_size * patch_size].float()
    grid = (height // patch_size, width // patch_size)
    patches = patchify(images, patch_size)
    assert patches.shape == (2, grid[0] * grid[1], channels * patch_size**2)
    for i in range(patches.shape[1]):
        top, left = i // grid[1] * patch_size, i % grid[1] * patch_size
        expected = images[:, :, top : top + patch_size, left : left + patch_size].flatten(1)
        assert torch.equal(patches[:, i], expected)
    assert torch.equal(unpatchify(patches, patch_size, grid), images)


def test_a_half_size_crop_is_the_token_view_and_another_crop_is_not() -> None:
    images, half = crops(8, 12), crops(4, 6)
    torch.testing.assert_close(token_view(images, half), half.float() / 255)
    assert torch.equal(token_view(images, images), token_view(images))
