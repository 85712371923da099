"""The backbone encodes any subset of patches, is timm's own model, and changes its size."""

from typing import Any

import pytest
import timm
import torch
from reference.tiny import tiny_batch, tiny_config, tiny_vit

from lit_splitmask.errors import UserError
from lit_splitmask.masking import take
from lit_splitmask.models import ViT, ViTConfig, use_fused_attention
from lit_splitmask.models.vit import SIZES, sincos_positions


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("class_token", [False, True])
def test_all_patches_in_order_are_the_whole_image(class_token: bool) -> None:
    vit, images = tiny_vit(class_token=class_token).eval(), tiny_batch()["images"]
    keep = torch.arange(16).expand(4, -1)
    assert vit.features(images).shape == (4, 16, 32)
    close(vit.features(images, keep), vit.features(images))


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("num_visible", [1, 8, 16])
def test_the_order_of_the_visible_patches_does_not_matter(class_token: bool, num_visible: int) -> None:
    vit, images = tiny_vit(class_token=class_token).eval(), tiny_batch()["images"]
    keep = torch.rand(4, 16).argsort(dim=1)[:, :num_visible]
    order = torch.rand(4, num_visible).argsort(dim=1)
    features = vit.features(images, keep)
    close(vit.features(images, keep.gather(1, order)), take(features, order))


def test_a_subset_sees_nothing_of_the_other_patches() -> None:
    vit, images = tiny_vit().eval(), tiny_batch()["images"]
    changed = images.clone()
    changed[:, :, 8:] = 7.0  # all rows of patches but the first
    keep = torch.arange(4).expand(4, -1)
    assert torch.equal(vit.features(images, keep), vit.features(changed, keep))
    assert not torch.allclose(vit.features(images), vit.features(changed))


@pytest.mark.parametrize("shape", [{}, {"class_token": True}, {"positions": "sincos"}])
def test_mask_tokens_with_positions_stand_for_hidden_patches(shape: dict[str, Any]) -> None:
    vit, images, mask_token = tiny_vit(**shape).eval(), tiny_batch()["images"], torch.randn(1, 1, 32)
    keep = torch.rand(4, 16).argsort(dim=1)[:, :5]
    found = vit.masked_features(images, keep, mask_token)
    for b, visible in enumerate(keep.tolist()):
        tokens = vit.patch_embed(images[b : b + 1])
        for i in set(range(16)) - set(visible):
            tokens[0, i] = mask_token[0, 0]
        close(found[b], vit.encode(tokens + vit.pos_embed[:, vit.num_prefix_tokens :])[0])


def test_without_hidden_patches_there_are_no_mask_tokens() -> None:
    vit, images = tiny_vit().eval(), tiny_batch()["images"]
    everything = torch.arange(16).expand(4, -1)
    assert torch.equal(vit.masked_features(images, everything, torch.randn(1, 1, 32)), vit.features(images))


@pytest.mark.parametrize("num_classes", [0, 7])
@pytest.mark.parametrize("in_chans", [1, 4])
@pytest.mark.parametrize("positions", ["learned", "sincos"])
@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("shape", [{}, {"image_size": 48, "patch_size": 16}, {"embed_dim": 48, "depth": 1}])
def test_timm_builds_the_same_model_and_loads_its_weights_strictly(
    shape: dict[str, Any], class_token: bool, positions: Any, in_chans: int, num_classes: int
) -> None:
    vit = tiny_vit(num_classes=num_classes, class_token=class_token, positions=positions, in_chans=in_chans, **shape)
    twin = timm.create_model(**vit.config.timm_args(num_classes))
    twin.load_state_dict(vit.state_dict(), strict=True)
    images = tiny_batch(2, vit.config.image_size, in_chans)["images"]
    vit.eval(), twin.eval()
    torch.testing.assert_close(vit(images), twin(images), rtol=1e-6, atol=1e-6)
    patches = twin.fc_norm(twin.forward_features(images))[
        :, vit.num_prefix_tokens :
    ]  # the norm follows the pooling with a head
    torch.testing.assert_close(vit.features(images), patches, rtol=1e-6, atol=1e-6)


def test_without_classes_the_output_is_the_mean_of_the_patches() -> None:
    vit, images = tiny_vit(class_token=True).eval(), tiny_batch()["images"]
    close(vit(images), vit.features(images).mean(dim=1))


def test_a_resized_model_interpolates_its_positions() -> None:
    vit = tiny_vit(class_token=True)
    prefix, ramp = vit.pos_embed[:, :1].clone(), torch.linspace(0, 1, 4)
    with torch.no_grad():
        vit.pos_embed[:, 1:] = ramp.repeat_interleave(4)[None, :, None]  # rises from row to row
    vit.resize(64)
    assert vit.grid == (8, 8)
    assert vit.num_patches == 64
    assert vit.config.image_size == 64
    assert torch.equal(vit.pos_embed[:, :1], prefix)
    table = vit.pos_embed[0, 1:, 0].reshape(8, 8)
    close(table, table[:, :1].expand(-1, 8))
    assert (table[1:-1, 0].diff() > 0).all()
    assert vit.pos_embed.requires_grad
    assert vit.features(tiny_batch(image_size=64)["images"]).shape == (4, 64, 32)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    vit, images = tiny_vit().eval(), tiny_batch()["images"]
    before = vit.features(images)
    vit.resize(32)
    assert torch.equal(vit.features(images), before)


def test_resizing_to_no_multiple_of_the_patch_size_is_refused() -> None:
    vit = tiny_vit()
    with pytest.raises(UserError, match=r"36 cannot be cut into patches of 8: .* 32 or 40"):
        vit.resize(36)
    assert vit.grid == (4, 4)


@pytest.mark.parametrize("class_token", [False, True])
def test_fixed_positions_are_never_trained_and_follow_the_size(class_token: bool) -> None:
    vit = tiny_vit(positions="sincos", class_token=class_token)
    for image_size in (32, 64):
        vit.resize(image_size)
        assert not vit.pos_embed.requires_grad
        assert torch.equal(vit.pos_embed[0, vit.num_prefix_tokens :], sincos_positions(vit.grid, 32))
    vit.features(tiny_batch(image_size=64)["images"]).sum().backward()
    assert vit.pos_embed.grad is None


def test_fixed_positions_are_sines_and_cosines_of_row_and_column() -> None:
    rows, columns, dim = 3, 5, 16
    table = sincos_positions((rows, columns), dim)
    frequencies = torch.tensor([10000 ** (-i / (dim // 4)) for i in range(dim // 4)])
    for row in range(rows):
        for column in range(columns):
            angles = [coordinate * frequencies for coordinate in (row, column)]
            waves = {
                tuple(round(v, 4) for v in wave(angle).tolist()) for angle in angles for wave in (torch.sin, torch.cos)
            }
            found = {
                tuple(round(v, 4) for v in part.tolist()) for part in table[row * columns + column].split(dim // 4)
            }
            assert found == waves


@pytest.mark.parametrize("class_token", [False, True])
def test_intermediate_features_are_the_outputs_of_the_blocks(class_token: bool) -> None:
    vit, images = tiny_vit(depth=3, class_token=class_token).eval(), tiny_batch()["images"]
    outputs: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda _m, _i, output: outputs.append(output)) for block in vit.blocks]
    vit(images)
    for hook in hooks:
        hook.remove()
    first, last = vit.blocks_features(images, [0, -1])
    assert torch.equal(first, outputs[0][:, vit.num_prefix_tokens :])
    assert torch.equal(last, outputs[2][:, vit.num_prefix_tokens :])


@pytest.mark.parametrize("size", SIZES)
def test_every_named_size_has_its_width_depth_and_heads(size: Any) -> None:
    config = ViTConfig(size=size).resolved()
    assert (config.embed_dim, config.depth, config.num_heads) == SIZES[size]
    with torch.device("meta"):
        vit = ViT(ViTConfig(size=size))
        twin = timm.create_model(**config.timm_args())
    assert {k: v.shape for k, v in vit.state_dict().items()} == {k: v.shape for k, v in twin.state_dict().items()}
    assert len(vit.blocks) == SIZES[size][1]
    assert vit.grid == (14, 14)
    assert not any("ls1" in name or "relative" in name or "cls" in name for name in vit.state_dict())


def test_a_width_without_heads_gets_heads_of_64() -> None:
    assert ViTConfig(embed_dim=192).resolved().num_heads == 3
    assert ViTConfig(embed_dim=32).resolved().num_heads == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"image_size": 225, "patch_size": 16}, "225 cannot be cut into patches of 16: .* 224 or 240"),
        ({"image_size": 0}, "image size of 0"),
        ({"image_size": -8}, "image size of -8"),
        ({"patch_size": 0}, "patch size of 0"),
        ({"num_heads": 5}, "width of 32 cannot be divided among 5"),
        ({"embed_dim": 30, "positions": "sincos"}, "divisible by 4, not 30"),
        ({"size": "huge"}, "no backbone size 'huge': choose one of tiny, small, base, large"),
    ],
)
def test_impossible_shapes_are_refused_with_what_to_choose(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        ViT(tiny_config(**change))


def test_stochastic_depth_grows_from_block_to_block() -> None:
    vit = ViT(tiny_config(depth=3, drop_path=0.2))
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in vit.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_fused_attention_on_or_off_gives_the_same_result() -> None:
    vit, images = tiny_vit().eval(), tiny_batch()["images"]
    results = []
    for enabled in (True, False):
        use_fused_attention(vit, enabled)
        assert all(block.attn.fused_attn is enabled for block in vit.blocks)
        results.append(vit.features(images))
    close(*results)
