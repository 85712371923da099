"""The decoder fills the positions of hidden patches with mask tokens."""

from typing import Any

import pytest
import torch

from lit_splitmask.masking import hidden_from, take
from lit_splitmask.models import Decoder
from lit_splitmask.models.vit import sincos_positions


def decoder(**changes: Any) -> Decoder:
    torch.manual_seed(0)
    return Decoder((4, 4), 32, **{"num_heads": 2, **changes})


def keep_of(num_visible: int) -> torch.Tensor:
    return torch.rand(3, 16, generator=torch.Generator().manual_seed(1)).argsort(dim=1)[:, :num_visible]


def test_it_has_two_blocks_by_default() -> None:
    assert len(decoder().blocks) == 2


@pytest.mark.parametrize("num_visible", [1, 4, 8, 12])
def test_it_returns_the_full_sequence_for_any_number_of_visible_patches(num_visible: int) -> None:
    assert decoder()(torch.randn(3, num_visible, 32), keep_of(num_visible)).shape == (3, 16, 32)


@pytest.mark.parametrize("reposition_visible", [False, True])
def test_without_blocks_it_normalises_patches_and_positioned_mask_tokens(reposition_visible: bool) -> None:
    model, keep, encoded = decoder(depth=0, reposition_visible=reposition_visible), keep_of(5), torch.randn(3, 5, 32)
    decoded, hidden = model(encoded, keep), hidden_from(keep, 16)
    positions = model.pos_embed.expand(3, -1, -1)
    seen = encoded + take(positions, keep) if reposition_visible else encoded
    torch.testing.assert_close(take(decoded, keep), model.norm(seen))
    torch.testing.assert_close(take(decoded, hidden), model.norm(model.mask_token + take(positions, hidden)))


def test_the_order_of_the_visible_patches_does_not_matter() -> None:
    model, keep, encoded = decoder(), keep_of(6), torch.randn(3, 6, 32)
    order = torch.rand(3, 6).argsort(dim=1)
    torch.testing.assert_close(
        model(take(encoded, order), keep.gather(1, order)), model(encoded, keep), rtol=1e-5, atol=1e-5
    )


def test_fixed_positions_are_not_trained() -> None:
    model = decoder(positions="sincos")
    assert not model.pos_embed.requires_grad
    assert torch.equal(model.pos_embed[0], sincos_positions((4, 4), 32))


@pytest.mark.parametrize("reposition_visible", [False, True])
def test_gradients_reach_every_parameter_and_the_encoded_patches(reposition_visible: bool) -> None:
    model, encoded = decoder(reposition_visible=reposition_visible), torch.randn(3, 6, 32, requires_grad=True)
    model(encoded, keep_of(6)).square().mul(torch.randn(3, 16, 32)).sum().backward()
    assert encoded.grad is not None
    assert encoded.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_it_runs_in_bfloat16() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert decoder()(torch.randn(3, 6, 32).bfloat16(), keep_of(6)).isfinite().all()
