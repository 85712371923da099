"""The losses equal plain ones, with their gradients, on one process and on two."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from reference.splitmask import info_nce_in_loops
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lit_splitmask import losses
from lit_splitmask.distributed import local_rows
from lit_splitmask.losses import IGNORED, info_nce, mixture_cross_entropy, pixel_loss, word_cross_entropy

LABELLED = {"unequally many": (5, 64, 1, 30), "none in the first half": (0, 0, 64, 7), "none": (0, 0, 0, 0)}
"""Labelled pixels of each of four images."""


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def problem(num_states: int, dim: int, vocabulary: int, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_states + vocabulary)
    states, weight = (
        torch.randn(num_states, dim, generator=generator),
        torch.randn(vocabulary, dim, generator=generator),
    )
    bias, words = (
        torch.randn(vocabulary, generator=generator),
        torch.randint(vocabulary, (num_states,), generator=generator),
    )
    return (*(x.to(device).requires_grad_() for x in (states, weight, bias)), words.to(device))


def plain(states: Tensor, weight: Tensor, bias: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    logits = F.linear(states, weight, bias)
    return F.cross_entropy(logits, words), (logits.argmax(dim=1) == words).float().mean()


@pytest.mark.parametrize("chunk_elements", [1, 7 * 64, 1000, 2**24])
@pytest.mark.parametrize(("num_states", "dim", "vocabulary"), [(1, 3, 2), (13, 16, 64), (50, 8, 200)])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_word_cross_entropy_equals_the_plain_one_with_gradients(
    monkeypatch: pytest.MonkeyPatch, chunk_elements: int, num_states: int, dim: int, vocabulary: int, scale: float
) -> None:
    monkeypatch.setattr(losses, "CPU_CHUNK_ELEMENTS", chunk_elements)
    *inputs, words = problem(num_states, dim, vocabulary)
    loss, accuracy = word_cross_entropy(*inputs, words)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected, expected_accuracy = plain(*exact, words)
    torch.testing.assert_close(loss, expected.float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(accuracy, expected_accuracy)
    for gradient, exact_gradient in zip(
        torch.autograd.grad(loss * scale, inputs), torch.autograd.grad(expected * scale, exact), strict=True
    ):
        torch.testing.assert_close(gradient, exact_gradient.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk_elements", [1, 300, 2**24])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("num_rows", [5, 15])
def test_the_cross_entropy_of_mixtures_is_that_of_dense_targets_with_gradients(
    monkeypatch: pytest.MonkeyPatch, chunk_elements: int, smoothing: float, num_rows: int
) -> None:
    monkeypatch.setattr(losses, "CPU_CHUNK_ELEMENTS", chunk_elements)
    *inputs, _ = problem(num_rows, 8, 100)
    classes, shares = torch.tensor([4, 99, 4, 0, 17]), torch.rand(num_rows, 5).softmax(dim=1)
    loss, _ = mixture_cross_entropy(*inputs, classes, shares, smoothing=smoothing)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    dense = shares.double() @ F.one_hot(classes, 100).double()
    expected = F.cross_entropy(F.linear(*exact), dense, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected.float(), rtol=1e-6, atol=1e-6)
    for gradient, exact_gradient in zip(
        torch.autograd.grad(loss * 0.3, inputs), torch.autograd.grad(expected * 0.3, exact), strict=True
    ):
        torch.testing.assert_close(gradient, exact_gradient.float(), rtol=1e-5, atol=1e-6)


def test_gradients_equal_finite_differences_of_the_loss() -> None:
    states, weight, bias, words = problem(6, 5, 11)
    gradients = torch.autograd.grad(word_cross_entropy(states, weight, bias, words)[0], (states, weight, bias))
    exact = [x.detach().double() for x in (states, weight, bias)]
    for i, gradient in enumerate(gradients):
        direction = torch.randn_like(exact[i])
        ahead, behind = ([x + s * 1e-5 * direction if j == i else x for j, x in enumerate(exact)] for s in (1, -1))
        slope = (plain(*ahead, words)[0] - plain(*behind, words)[0]) / 2e-5
        torch.testing.assert_close((gradient.double() * direction).sum(), slope, rtol=1e-4, atol=1e-6)


def test_gradients_add_up_over_two_backward_passes() -> None:
    states, weight, bias, words = problem(6, 5, 11)
    for _ in range(2):
        word_cross_entropy(states, weight, bias, words)[0].backward()
    assert weight.grad is not None
    expected = torch.autograd.grad(plain(states, weight, bias, words)[0], weight)[0]
    torch.testing.assert_close(weight.grad, 2 * expected)


def close_in_bfloat16(device: str) -> None:
    states, weight, bias, words = problem(64, 32, 100, device)
    with torch.autocast(device, dtype=torch.bfloat16):
        loss, _ = word_cross_entropy(states.bfloat16(), weight, bias, words)
    expected, _ = plain(states, weight, bias, words)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=1e-2)
    ours, theirs = (torch.autograd.grad(x, (states, weight, bias)) for x in (loss, expected))
    for gradient, exact in zip(ours, theirs, strict=True):
        assert gradient.dtype == torch.float32
        assert F.cosine_similarity(gradient.flatten(), exact.flatten(), dim=0) > 0.999


def test_autocast_computes_the_same_in_bfloat16_with_float32_gradients() -> None:
    close_in_bfloat16("cpu")


@pytest.mark.gpu
def test_autocast_computes_the_same_on_a_gpu() -> None:
    close_in_bfloat16("cuda")


def test_without_gradients_the_loss_is_the_same_and_needs_none() -> None:
    *inputs, words = problem(20, 8, 30)
    with torch.no_grad():
        loss, accuracy = word_cross_entropy(*inputs, words)
    assert not loss.requires_grad
    assert not accuracy.requires_grad
    torch.testing.assert_close(loss, plain(*inputs, words)[0].detach())


def test_the_accuracy_has_no_gradient() -> None:
    *inputs, words = problem(20, 8, 30)
    assert not word_cross_entropy(*inputs, words)[1].requires_grad


def test_a_frozen_head_still_passes_gradients_to_the_states() -> None:
    states, weight, bias, words = problem(20, 8, 30)
    loss, _ = word_cross_entropy(states, weight.detach(), bias.detach(), words)
    expected = torch.autograd.grad(plain(states, weight, bias, words)[0], states)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, states)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("same_branch_negatives", [False, True])
@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_info_nce_equals_the_sum_of_equation_2(
    batch_size: int, temperature: float, same_branch_negatives: bool
) -> None:
    a, b = torch.randn(2, batch_size, 12).requires_grad_().unbind()
    loss, _ = info_nce(a, b, temperature, same_branch_negatives=same_branch_negatives)
    expected = info_nce_in_loops(a, b, temperature, same_branch_negatives)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(loss, (a, b)), torch.autograd.grad(expected, (a, b)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_info_nce_is_symmetric_and_ignores_length() -> None:
    a, b = torch.randn(2, 6, 12)
    torch.testing.assert_close(info_nce(a, b)[0], info_nce(b, a)[0])
    torch.testing.assert_close(info_nce(a, b)[0], info_nce(3 * a, b / 5)[0])


def test_equal_descriptors_are_matched_and_shifted_ones_are_not() -> None:
    a = torch.eye(8)
    assert info_nce(a, a)[1] == 1
    assert info_nce(a, a.roll(1, dims=0))[1] == 0


def test_info_nce_is_computed_in_float32_under_autocast() -> None:
    a, b = torch.randn(2, 6, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = info_nce(a, b)[0]
    assert torch.equal(under, info_nce(a, b)[0])


def labelled_images(counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Images (4, 3, 8, 8), and label maps of 5 classes in which so many pixels of each image have a label."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 8, 8, generator=generator)
    maps = torch.randint(5, (4, 64), generator=generator)
    for labels, count in zip(maps, counts, strict=True):
        labels[count:] = IGNORED
    return images, maps.reshape(4, 8, 8)


def pixel_classifier() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, 5, 3, padding=1)


def loss_and_gradients(model: torch.nn.Module, images: Tensor, maps: Tensor) -> dict[str, Any]:
    loss = pixel_loss(model(images), maps)
    loss.backward()
    return {"loss": loss.detach(), "gradients": [parameter.grad for parameter in model.parameters()]}


def train_on_half(number: int, folder: Path) -> None:
    """The work of one of two processes, each with two of the four images."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    results = {}
    for name, counts in LABELLED.items():
        images, maps = labelled_images(counts)
        model = DistributedDataParallel(pixel_classifier())
        results[name] = loss_and_gradients(model, local_rows(images), local_rows(maps))
        dist.all_reduce(results[name]["loss"])
    torch.save(results, folder / f"{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(train_on_half, (folder,), nprocs=2)
    return [torch.load(folder / f"{number}.pt") for number in range(2)]


@pytest.mark.parametrize("labelled", LABELLED)
def test_two_processes_average_the_loss_over_the_labelled_pixels_of_both(
    processes: list[dict[str, Any]], labelled: str
) -> None:
    expected = loss_and_gradients(pixel_classifier(), *labelled_images(LABELLED[labelled]))
    for process in processes:
        torch.testing.assert_close(process[labelled]["loss"] / 2, expected["loss"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(process[labelled]["gradients"], expected["gradients"], rtol=1e-5, atol=1e-6)
    if labelled != "none":
        images, maps = labelled_images(LABELLED[labelled])
        plain = F.cross_entropy(pixel_classifier()(images), maps, ignore_index=IGNORED)
        torch.testing.assert_close(expected["loss"], plain.detach())
