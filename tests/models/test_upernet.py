"""UperNet's shapes, independence and gradients; sliding windows agree with a plain loop."""

import pytest
import torch
from tiny_runs import one_thread  # noqa: F401
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.models import Pyramid, UperNet, ViT, ViTConfig, sliding_logits
from lit_splitmask.models.sliding import window_starts
from lit_splitmask.optim import layer_of


def network(**settings: object) -> UperNet:
    torch.manual_seed(0)
    config = ViTConfig(size="tiny", embed_dim=32, depth=4, num_heads=2, patch_size=8, image_size=32, positions="sincos")
    return UperNet(Pyramid(ViT(config)), 5, **{"channels": 16, **settings}).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (40, 64), (24, 8)])
def test_there_are_logits_for_every_pixel(size: tuple[int, int]) -> None:
    logits, auxiliary = network().with_auxiliary(torch.randn(2, 3, *size))
    assert logits.shape == auxiliary.shape == (2, 5, *size)
    assert torch.isfinite(logits).all()


def test_images_of_a_batch_do_not_depend_on_each_other_even_in_training() -> None:
    model, images = network(dropout=0.0).train(), torch.randn(3, 3, 32, 32)
    together = model.with_auxiliary(images)
    alone = [torch.cat(parts) for parts in zip(*(model.with_auxiliary(image[None]) for image in images), strict=True)]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_every_trainable_parameter_gets_a_gradient() -> None:
    model = network().train()
    sum(part.square().mean() for part in model.with_auxiliary(torch.randn(2, 3, 32, 32))).backward()  # type: ignore[union-attr]
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"pyramid.vit.pos_embed", "pyramid.vit.norm.weight", "pyramid.vit.norm.bias"}


def test_a_single_image_of_one_patch_trains() -> None:
    model = network().train()
    logits = model.with_auxiliary(torch.randn(1, 3, 8, 8))[0]
    logits.square().mean().backward()
    assert torch.isfinite(logits).all()
    gradient = model.pyramid.vit.patch_embed.proj.weight.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()


def test_the_backbone_has_the_layers_of_a_vit_and_the_head_is_the_last() -> None:
    layers: dict[int, set[str]] = {}
    for name, _ in network().named_parameters():
        layers.setdefault(layer_of(f"network.{name}", depth=4), set()).add(name)
    assert layers[0] == {
        "pyramid.vit.pos_embed",
        "pyramid.vit.patch_embed.proj.weight",
        "pyramid.vit.patch_embed.proj.bias",
    }
    for block in range(4):
        assert all(name.startswith(f"pyramid.vit.blocks.{block}.") for name in layers[block + 1])
    assert not any(".blocks." in name for name in layers[5])


@pytest.mark.parametrize("settings", [{"channels": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_invalid_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match="segmentation head"):
        network(**settings)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 53, 54, 96, 100])
@pytest.mark.parametrize("stride", [1, 21, 32])
def test_windows_cover_every_pixel_and_stay_inside(length: int, stride: int) -> None:
    starts = window_starts(length, 32, stride)
    covered = {pixel for start in starts for pixel in range(start, start + 32)}
    assert covered >= set(range(length))
    assert max(starts) == max(0, length - 32)
    assert starts == sorted(set(starts))


def plain_windows(model: UperNet, image: Tensor, stride: int) -> Tensor:
    """Averages the windows' logits pixel by pixel, for an image at least as large as a window."""
    height, width = image.shape[-2:]
    found: dict[tuple[int, int], list[Tensor]] = {}
    for top in sorted({min(t, height - 32) for t in range(0, height + stride, stride)}):
        for left in sorted({min(t, width - 32) for t in range(0, width + stride, stride)}):
            logits = model(image[:, :, top : top + 32, left : left + 32])[0]
            for row in range(32):
                for column in range(32):
                    found.setdefault((top + row, left + column), []).append(logits[:, row, column])
    result = torch.empty(1, 5, height, width)
    for (row, column), values in found.items():
        result[0, :, row, column] = torch.stack(values).mean(dim=0)
    return result


@torch.no_grad()
@pytest.mark.parametrize("most_windows", [1, 4, 100])
def test_sliding_windows_agree_with_a_plain_loop(most_windows: int) -> None:
    model, image = network(), torch.randn(1, 3, 45, 61)
    ours = sliding_logits(model, image, window=32, stride=21, patch_size=8, most_windows=most_windows)
    torch.testing.assert_close(ours, plain_windows(model, image, 21), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(3, 5), (8, 100), (31, 33), (32, 32), (70, 9), (129, 65)])
def test_images_of_any_size_have_logits_of_their_size(size: tuple[int, int]) -> None:
    model, image = network(), torch.randn(1, 3, *size)
    logits = sliding_logits(model, image, window=32, stride=21, patch_size=8)
    assert logits.shape == (1, 5, *size)
    if size == (32, 32):
        torch.testing.assert_close(logits, model(image))


def test_windows_are_averaged_at_their_own_pixels() -> None:
    image = torch.randn(1, 3, 50, 19)
    torch.testing.assert_close(sliding_logits(lambda x: x, image, window=16, stride=10, patch_size=8), image)
