"""SplitMask equals Section 4 in loops, keeps its halves apart, and trains every parameter."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.splitmask import branch, splitmask_in_loops
from reference.tiny import blanked, generator, tiny_batch, tiny_config, tiny_splitmask, tiny_tokenizer, tiny_vit
from tiny_runs import OPTIM, image_data, pretrain_module, tiny_trainer
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.masking import BlockMasking, Masking, UniformMasking, hidden_from, take
from lit_splitmask.models.decoder import Decoder
from lit_splitmask.modules import Pretrain
from lit_splitmask.objectives import SplitMask
from lit_splitmask.optim import OptimConfig

MASKINGS = {
    "block": BlockMasking(),
    "half": UniformMasking(0.5),
    "quarters": UniformMasking(0.75),
    "complement": UniformMasking(0.75, complement=True),
}


@pytest.mark.parametrize("decoder_dim", [None, 16, 32, 48])
@pytest.mark.parametrize("positions", ["learned", "sincos"])
@pytest.mark.parametrize("masking", MASKINGS.values(), ids=MASKINGS)
def test_it_equals_section_4_one_image_and_one_half_at_a_time(
    masking: Masking, positions: Any, decoder_dim: int | None
) -> None:
    vit = tiny_vit(positions=positions)
    model = tiny_splitmask(vit, masking=masking, match_weight=0.7, decoder_dim=decoder_dim)
    batch = tiny_batch()
    losses = model(batch, generator())
    keep_a, keep_b = masking.split(4, (4, 4), generator())
    expected = splitmask_in_loops(model, batch["images"], model.tokenizer(batch["token_view"]), keep_a, keep_b)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decoder_dim", [None, 16])
def test_its_gradients_equal_those_of_section_4(decoder_dim: int | None) -> None:
    model, batch = tiny_splitmask(decoder_dim=decoder_dim), tiny_batch()
    keep_a, keep_b = model.masking.split(4, (4, 4), generator())
    expected = splitmask_in_loops(model, batch["images"], model.tokenizer(batch["token_view"]), keep_a, keep_b)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours = torch.autograd.grad(model(batch, generator())["loss"], parameters)
    for gradient, exact in zip(ours, torch.autograd.grad(expected["loss"], parameters), strict=True):
        torch.testing.assert_close(gradient, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decoder_dim", [None, 16])
@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("masking", MASKINGS.values(), ids=MASKINGS)
def test_a_half_sees_nothing_of_the_patches_hidden_from_it(
    masking: Masking, class_token: bool, decoder_dim: int | None
) -> None:
    model = tiny_splitmask(tiny_vit(class_token=class_token), masking=masking, decoder_dim=decoder_dim)
    images = tiny_batch()["images"]
    keeps = list(masking.split(4, (4, 4), generator()))
    before = model.decode(images, keeps)
    for own, other in ((0, 1), (1, 0)):
        after = model.decode(blanked(images, hidden_from(keeps[own], 16)), keeps)
        assert torch.equal(after[own], before[own])
        assert not torch.allclose(after[other], before[other])


@pytest.mark.parametrize("masking", MASKINGS.values(), ids=MASKINGS)
def test_the_loss_of_one_branch_does_not_depend_on_hidden_pixels_when_its_words_are_held(masking: Masking) -> None:
    model, batch = tiny_splitmask(masking=masking, split=False, match=False), tiny_batch()
    keep, _ = masking.split(4, (4, 4), generator())
    changed = {**batch, "images": blanked(batch["images"], hidden_from(keep, 16))}
    assert torch.equal(model(batch, generator())["loss"], model(changed, generator())["loss"])


@pytest.mark.parametrize("masking", [MASKINGS["block"], MASKINGS["half"]], ids=["block", "half"])
def test_at_one_half_each_patch_is_inpainted_exactly_once(masking: Masking, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_splitmask(masking=masking, match=False)
    words = torch.arange(64).reshape(4, 16)  # a different word for each patch of the batch
    seen: list[Tensor] = []
    loss = model.head.loss
    monkeypatch.setattr(model.tokenizer, "forward", lambda _view: words)
    monkeypatch.setattr(model.head, "loss", lambda states, targets: seen.append(targets) or loss(states, targets))
    model(tiny_batch(), generator())
    assert torch.equal(seen[0].sort().values, torch.arange(64))


@pytest.mark.parametrize(
    ("switches", "names"),
    [
        ({}, {"loss", "inpaint", "word_accuracy", "match", "match_accuracy"}),
        ({"match": False}, {"loss", "inpaint", "word_accuracy"}),
        ({"inpaint": False}, {"loss", "match", "match_accuracy"}),
        ({"split": False, "match": False}, {"loss", "inpaint", "word_accuracy"}),
    ],
)
def test_each_part_can_be_switched_off(switches: dict[str, bool], names: set[str]) -> None:
    model = tiny_splitmask(**switches, match_weight=0.5)
    losses = model(tiny_batch(), generator())
    assert losses.keys() == names
    expected = losses.get("inpaint", 0) + 0.5 * losses.get("match", 0)
    torch.testing.assert_close(losses["loss"], expected)
    assert all(value.shape == () and value.isfinite() for value in losses.values())
    assert model.held_out_loss == ("inpaint" if switches.get("inpaint", True) else None)
    assert (model.tokenizer_to_fit is None) == (not switches.get("inpaint", True))


def test_matching_needs_two_images() -> None:
    assert tiny_splitmask().least_batch == 2
    assert tiny_splitmask(inpaint=False).least_batch == 2
    assert tiny_splitmask(match=False).least_batch == 1
    assert tiny_splitmask(split=False, match=False).least_batch == 1


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs
def test_training_refuses_batches_of_one_image_only_if_they_are_matched(class_folder: Callable[..., Path]) -> None:
    root = class_folder(per_class=5)
    data: dict[str, Any] = {"batch_size": 1, "steps": 1}
    with pytest.raises(UserError, match="a batch needs at least 2 images"):
        tiny_trainer(root.parent).fit(pretrain_module(), datamodule=image_data(root, **data))
    unmatched = partial(SplitMask, match=False, tokenizer=tiny_tokenizer)
    module = Pretrain(unmatched, backbone=tiny_config(), optim=OptimConfig(**OPTIM))
    trainer = tiny_trainer(root.parent)
    trainer.fit(module, datamodule=image_data(root, **data))
    assert trainer.global_step == 1


@pytest.mark.parametrize("masking", [BlockMasking(), UniformMasking(0.4)], ids=["block", "uniform"])
def test_without_split_there_is_one_branch(masking: Masking) -> None:
    model, batch = tiny_splitmask(split=False, match=False, masking=masking), tiny_batch(1)
    keep = model.masking.visible(1, (4, 4), generator())
    decoded = branch(model, batch["images"][0], keep[0].tolist())
    hidden = hidden_from(keep, 16)
    words = model.tokenizer(batch["token_view"]).gather(1, hidden)[0]
    expected = torch.nn.functional.cross_entropy(model.head(take(decoded[None], hidden)[0]), words)
    torch.testing.assert_close(model(batch, generator())["loss"], expected, rtol=1e-5, atol=1e-5)


def test_matching_without_two_halves_is_refused() -> None:
    with pytest.raises(UserError, match="needs split"):
        tiny_splitmask(split=False)


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(UserError, match="nothing to learn"):
        tiny_splitmask(inpaint=False, match=False)


def test_an_odd_patch_size_is_refused() -> None:
    with pytest.raises(UserError, match="even, not 7"):
        tiny_splitmask(tiny_vit(patch_size=7, image_size=28))


def test_a_grid_that_cannot_be_halved_is_refused_when_the_method_is_made() -> None:
    with pytest.raises(UserError, match="3×3"):
        tiny_splitmask(tiny_vit(image_size=24))
    tiny_splitmask(tiny_vit(image_size=24), masking=UniformMasking(0.75))
    tiny_splitmask(tiny_vit(image_size=24), split=False, match=False)


def test_two_branches_that_would_share_patches_are_refused_when_the_method_is_made() -> None:
    with pytest.raises(UserError, match=r"mask_ratio is 0.4.*from 0.5"):
        tiny_splitmask(masking=UniformMasking(0.4))


@pytest.mark.parametrize(
    "switches", [{}, {"split": False, "match": False}, {"inpaint": False}, {"decoder_dim": 16}, {"decoder_dim": 32}]
)
@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_gradients_reach_every_trainable_parameter(positions: Any, class_token: bool, switches: dict[str, Any]) -> None:
    model = tiny_splitmask(tiny_vit(positions=positions, class_token=class_token), **switches)
    model(tiny_batch(), generator())["loss"].backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert not any(
        p.requires_grad for name, p in model.named_parameters() if "pos_embed" in name and positions != "learned"
    )


def test_the_same_generator_gives_the_same_losses_and_another_gives_others() -> None:
    model, batch = tiny_splitmask(), tiny_batch()
    first, again, other = (model(batch, generator(seed))["loss"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_decoder_has_the_papers_two_blocks() -> None:
    assert len(SplitMask(tiny_vit()).decoder.blocks) == 2
    assert len(tiny_splitmask(decoder_depth=1).decoder.blocks) == 1


def test_the_decoder_has_the_backbones_width_unless_it_is_given_one() -> None:
    papers = tiny_splitmask()
    assert papers.decoder.mask_token.shape == (1, 1, 32)
    assert not any("decoder_embed" in name for name in papers.state_dict())  # as in files of earlier versions
    narrow = tiny_splitmask(decoder_dim=16)
    assert narrow.decoder_embed.weight.shape == (16, 32)
    assert narrow.decoder.mask_token.shape == (1, 1, 16)
    assert narrow.head.weight.shape == (64, 16)
    heads = [model.decoder.blocks[0].attn.num_heads for model in (papers, narrow)]
    assert heads == [2, 1]  # as wide as the backbone's


def test_without_a_width_of_its_own_the_decoder_begins_with_the_same_weights_as_ever() -> None:
    model, vit = tiny_splitmask(), tiny_vit()
    torch.manual_seed(1)
    decoder = Decoder(vit.grid, 32, num_heads=2)
    assert all(torch.equal(model.decoder.state_dict()[name], value) for name, value in decoder.state_dict().items())


@pytest.mark.parametrize("decoder_dim", [0, -16, 8, 24])
def test_a_decoder_that_cannot_be_divided_into_heads_of_the_backbones_width_is_refused(decoder_dim: int) -> None:
    with pytest.raises(UserError, match=f"decoder_dim={decoder_dim} cannot.*multiple of 16"):
        tiny_splitmask(decoder_dim=decoder_dim)


def test_the_words_are_those_of_half_size_patches_and_the_papers_vocabulary() -> None:
    model = SplitMask(tiny_vit(in_chans=4))
    assert (model.tokenizer.patch_size, model.tokenizer.in_chans, model.tokenizer.vocabulary) == (4, 4, 8192)
    assert model.head.weight.shape == (8192, 32)


@pytest.mark.parametrize("channels", [1, 4])
def test_it_runs_on_other_numbers_of_channels(channels: int) -> None:
    model = tiny_splitmask(tiny_vit(in_chans=channels))
    assert model(tiny_batch(channels=channels), generator())["loss"].isfinite()


def test_it_memorises_a_batch() -> None:
    model, batch = tiny_splitmask(), tiny_batch(8)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        result = model(batch, generator())
        result["loss"].backward()
        optimizer.step()
        losses.append(float(result["inpaint"].detach()))
    assert losses[-1] < losses[0] - 1


def test_a_state_dict_can_be_loaded() -> None:
    model, other = tiny_splitmask(), tiny_splitmask(tiny_vit(seed=9))
    other.load_state_dict(model.state_dict())
    batch = tiny_batch()
    assert torch.equal(model(batch, generator())["loss"], other(batch, generator())["loss"])


@pytest.mark.gpu
def test_it_trains_on_a_gpu_in_bfloat16() -> None:
    model = tiny_splitmask().cuda()
    batch = {name: value.cuda() for name, value in tiny_batch().items()}
    expected = model(batch, generator())["loss"]
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(batch, generator())["loss"]
    torch.testing.assert_close(loss, expected, rtol=2e-2, atol=2e-2)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
