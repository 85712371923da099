"""Instance discrimination equals its paper's formula, in bounded memory, and takes features and mixed images that are given."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference.methods import instance_discrimination_in_loops
from reference.tiny import assert_same_gradients, generator, tiny_batch
from reference.tiny_methods import SHAPES, batch_of, instance
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lit_splitmask import losses
from lit_splitmask.errors import UserError


def mixed_twice(model: Any, batch: dict[str, Any], seed: int) -> list[tuple[Tensor, Tensor]]:
    """Each crop as the model mixes it after this seed, with its sources."""
    torch.manual_seed(seed)
    return [model.mixing.mix(crop) for crop in batch["crops"][: model.num_crops]]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_its_paper_on_every_backbone(shape: dict[str, Any], smoothing: float) -> None:
    model = instance(**shape, label_smoothing=smoothing)
    batch = batch_of(image_size=model.backbone.config.image_size)
    ours = model(batch, generator())
    exact = instance_discrimination_in_loops(model, [(batch["images"], torch.eye(4))], batch["index"], smoothing)
    assert ours.keys() == {"loss", "accuracy"}
    torch.testing.assert_close(ours["loss"], exact, rtol=1e-5, atol=1e-5)
    assert_same_gradients(model, ours["loss"], exact)


@pytest.mark.parametrize("chunk_elements", [1, 3 * 30, 2**24])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("mixing", [{"cutmix": 1.0}, {"mixup": 0.8}], ids=str)
@pytest.mark.parametrize("crops", [1, 2])
def test_mixed_crops_have_the_formulas_loss_and_gradients(
    monkeypatch: pytest.MonkeyPatch, chunk_elements: int, smoothing: float, mixing: dict[str, Any], crops: int
) -> None:
    monkeypatch.setattr(losses, "CPU_CHUNK_ELEMENTS", chunk_elements)
    model = instance(num_images=30, crops=crops, label_smoothing=smoothing, **mixing)
    index = torch.tensor([3, 29, 0, 3, 11])  # an image may be in a batch twice
    batch = {**batch_of(5), "index": index}
    seen = mixed_twice(model, batch, seed=1)
    assert any((sources.max(dim=1).values < 1).any() for _, sources in seen)
    torch.manual_seed(1)
    loss = model(batch, generator())["loss"]
    exact = instance_discrimination_in_loops(model, seen, index, smoothing)
    torch.testing.assert_close(loss, exact, rtol=1e-5, atol=1e-5)
    assert_same_gradients(model, loss, exact)


def test_crops_are_mixed_separately_and_may_be_of_any_size() -> None:
    model, batch = instance(crops=3, cutmix=1.0), batch_of()
    batch["crops"] = [batch["images"], tiny_batch(4, 32, seed=7)["images"], tiny_batch(4, 16, seed=8)["images"]]
    seen = mixed_twice(model, batch, seed=4)
    assert len({tuple(sources.flatten().tolist()) for _, sources in seen}) == 3
    torch.manual_seed(4)
    loss = model(batch, generator())["loss"]
    alone = [
        instance().eval().train()({**batch, "images": crop, "sources": sources}, generator())["loss"]
        for crop, sources in seen
    ]
    torch.testing.assert_close(loss, torch.stack(alone).mean(), rtol=1e-5, atol=1e-6)


def test_images_are_mixed_and_targets_smoothed_in_training_only() -> None:
    model, batch = instance(cutmix=1.0, label_smoothing=0.3).eval(), batch_of()
    logits = model.head(model.backbone.features(batch["images"]).mean(dim=1))
    evaluated = model(batch, generator())
    torch.testing.assert_close(evaluated["loss"], F.cross_entropy(logits, batch["index"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(evaluated["accuracy"], (logits.argmax(dim=1) == batch["index"]).float().mean())
    torch.manual_seed(0)
    assert not torch.isclose(model.train()(batch, generator())["loss"], evaluated["loss"], rtol=1e-3)


def test_the_accuracy_is_the_share_of_the_image_with_the_largest_logit() -> None:
    model = instance()
    with torch.no_grad():
        model.head.bias[2] = 100.0
    sources = torch.tensor([[0.7, 0.0, 0.3, 0.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0.4, 0.6]])
    losses_of = model({**batch_of(), "sources": sources}, generator())
    assert float(losses_of["accuracy"]) == pytest.approx((0.3 + 0 + 1 + 0.4) / 4)
    assert not losses_of["accuracy"].requires_grad


def test_given_features_and_sources_replace_mixing_and_the_backbone() -> None:
    model, batch = instance(cutmix=1.0), batch_of()
    torch.manual_seed(3)
    computed = model(batch, generator())
    mixed, sources = mixed_twice(model, batch, seed=3)[0]
    given = {"images": mixed, "index": batch["index"], "sources": sources}
    assert torch.equal(model(given, generator())["loss"], computed["loss"])
    features = model.backbone.features(mixed).detach().requires_grad_()
    seen: list[int] = []
    hook = model.backbone.norm.register_forward_hook(lambda *_: seen.append(1))
    loss = model({**given, "features": features}, generator())["loss"]
    hook.remove()
    assert not seen
    torch.testing.assert_close(loss, computed["loss"], rtol=1e-6, atol=1e-6)
    loss.backward()
    assert features.grad.any()


def test_features_of_plain_images_are_not_taken_for_mixed_ones() -> None:
    model, batch = instance(cutmix=1.0, label_smoothing=0.0), batch_of()
    features = model.backbone.features(batch["images"])
    loss = model({**batch, "features": features}, generator())["loss"]
    torch.testing.assert_close(loss, F.cross_entropy(model.head(features.mean(dim=1)), batch["index"]))


def test_only_the_first_of_several_crops_has_given_features() -> None:
    model, batch = instance(crops=2), batch_of()
    whole = model(batch, generator())["loss"]
    seen: list[int] = []
    features = model.backbone.features(batch["images"])
    hook = model.backbone.norm.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(model({**batch, "features": features}, generator())["loss"], whole)
    hook.remove()
    assert len(seen) == 1


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple | list) else [result]
        sizes = [value.untyped_storage().nbytes() // 4 for value in made if isinstance(value, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


@pytest.mark.parametrize("rows", [1, 4])
def test_no_more_than_a_chunk_of_logits_or_targets_is_held(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    num_images, batch_size = 50_000, 64
    monkeypatch.setattr(losses, "CPU_CHUNK_ELEMENTS", rows * num_images)
    states, shares = torch.randn(batch_size, 2), torch.eye(batch_size) / 2 + 1 / 2 / batch_size
    weight, bias = torch.randn(num_images, 2, requires_grad=True), torch.zeros(num_images, requires_grad=True)
    index = torch.randint(num_images, (batch_size,))
    with Largest() as largest:
        losses.mixture_cross_entropy(states, weight, bias, index, shares, smoothing=0.1)[0].backward()
    assert largest.elements == max(rows, 2) * num_images  # the head's gradient has 2 · num_images
    with Largest() as largest:
        F.cross_entropy(F.linear(states, weight, bias), index).backward()
    assert largest.elements == batch_size * num_images


def test_autocast_computes_the_same_in_bfloat16_with_float32_gradients() -> None:
    model, batch = instance(num_images=40), batch_of(8)
    exact = model(batch, generator())["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(batch, generator())["loss"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=2e-2, atol=2e-2)
    for parameter in (model.head.weight, model.backbone.blocks[0].mlp.fc1.weight):
        ours, theirs = (torch.autograd.grad(value, parameter, retain_graph=True)[0] for value in (loss, exact))
        assert ours.dtype == torch.float32
        assert F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.99


def test_the_head_is_linear_with_a_row_for_each_training_image_and_made_once() -> None:
    model = instance(num_images=30)
    head = model.head
    model.attach(0, 30)
    assert model.head is head
    assert head.weight.shape == (30, 32)
    assert 0.01 < head.weight.std() < 0.03
    assert not head.bias.any()
    with pytest.raises(UserError, match="has learned 30 training images, but now there are 31"):
        model.attach(0, 31)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_images": 0}, "their number is unknown: use a datamodule"),
        ({"num_images": 1}, "at least two, but there is 1"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1"),
        ({"cutmix": -1.0}, "cutmix is -1"),
        ({"mixup": -0.5}, "mixup is -0.5"),
        ({"crops": 0}, "crops is 0; it must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        instance(**settings)


def test_batches_without_an_index_are_refused() -> None:
    with pytest.raises(UserError, match="the batches have no index"):
        instance()({"images": batch_of()["images"]}, generator())


@pytest.mark.parametrize("index", [8, -1])
def test_an_index_that_is_no_training_images_breaks_an_invariant(index: int) -> None:
    with pytest.raises(AssertionError, match="indices are those of training images"):
        instance()({**batch_of(), "index": torch.tensor([0, 1, 2, index])}, generator())
