"""SimMIM equals its paper's formula, and does not see hidden pixels."""

from typing import Any

import pytest
import torch
from reference.methods import simmim_in_loops
from reference.tiny import assert_same_gradients, blanked, generator, tiny_vit
from reference.tiny_methods import SHAPES, batch_of, simmim

from lit_splitmask.errors import UserError
from lit_splitmask.masking import BlockMasking, Masking, UniformMasking, hidden_from
from lit_splitmask.objectives import SimMIM
from lit_splitmask.views import patchify


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_simmim_is_its_paper(shape: dict[str, Any]) -> None:
    model = simmim(**shape)
    batch = batch_of(image_size=model.backbone.config.image_size)
    keep = model.masking.visible(4, model.backbone.grid, generator())
    losses = model(batch, generator())
    exact = simmim_in_loops(model, batch["images"], keep)
    assert losses.keys() == {"loss", "reconstruct"}
    torch.testing.assert_close(losses["loss"], exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses["reconstruct"], exact, rtol=1e-5, atol=1e-5)
    assert_same_gradients(model, losses["loss"], exact)


def test_it_hides_60_percent_by_default() -> None:
    assert simmim().masking.visible(4, (14, 14), generator()).shape == (4, 78)


def test_the_pixels_of_a_hidden_patch_do_not_reach_the_prediction() -> None:
    model, images = simmim(), batch_of()["images"]
    keep = model.masking.visible(4, (4, 4), generator())
    hidden = hidden_from(keep, 16)
    before = model.predict(images, keep, hidden)
    assert before.shape == (4, 10, 3 * 8 * 8)
    assert torch.equal(before, model.predict(blanked(images, hidden), keep, hidden))
    assert not torch.equal(before, model.predict(blanked(images, keep[:, :1]), keep, hidden))


def test_visible_patches_are_no_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = simmim(), batch_of()
    keep = model.masking.visible(4, (4, 4), generator())
    true = patchify(batch["images"], 8)
    monkeypatch.setattr(
        model, "predict", lambda images, keep, hidden: true.gather(1, hidden[:, :, None].expand(-1, -1, 192))
    )
    assert model(batch, generator())["loss"] == 0
    changed = {**batch, "images": blanked(batch["images"], keep)}
    assert model(changed, generator())["loss"] == 0
    changed = {**batch, "images": blanked(batch["images"], hidden_from(keep, 16)[:, :1])}
    assert model(changed, generator())["loss"] > 0


@pytest.mark.parametrize("masking", [UniformMasking(0.2), UniformMasking(0.9), BlockMasking(mask_ratio=0.4)])
def test_it_takes_any_masking_of_one_branch(masking: Masking) -> None:
    assert SimMIM(tiny_vit(), masking=masking)(batch_of(), generator())["loss"].isfinite()


@pytest.mark.parametrize("masking", [None, BlockMasking()])
def test_a_grid_that_cannot_be_masked_is_refused_when_the_method_is_made(masking: Masking | None) -> None:
    with pytest.raises(UserError, match="1×1"):
        SimMIM(tiny_vit(image_size=8), masking=masking)
