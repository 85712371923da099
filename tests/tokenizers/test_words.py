"""Eq. 1, scaling of pixels, statistics of words, and codebooks in files."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.splitmask import eq_1_in_loops

from lit_splitmask.errors import UserError
from lit_splitmask.tokenizers import Codebook, KMeans, RandomProjection, WordStatistics, base
from lit_splitmask.views import IMAGENET_MEAN, IMAGENET_STD


def views(batch_size: int = 3, size: int = 12, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch_size, channels, size, size, generator=torch.Generator().manual_seed(seed))


def projection(**changes: Any) -> RandomProjection:
    return RandomProjection(changes.pop("patch_size", 4), changes.pop("in_chans", 3), **{"vocabulary": 20, **changes})


@pytest.mark.parametrize("rows_at_a_time", [1, 5, 4096])
@pytest.mark.parametrize("pixels", ["normalised", "centred"])
@pytest.mark.parametrize(("in_chans", "patch_size", "size"), [(3, 4, 12), (1, 2, 6), (4, 3, 6)])
def test_words_have_the_highest_cosine_similarity(
    monkeypatch: pytest.MonkeyPatch, in_chans: int, patch_size: int, size: int, pixels: Any, rows_at_a_time: int
) -> None:
    monkeypatch.setattr(base, "ROWS_AT_A_TIME", rows_at_a_time)
    tokenizer = projection(patch_size=patch_size, in_chans=in_chans, pixels=pixels, signed=True)
    view = views(size=size, channels=in_chans)
    expected = eq_1_in_loops(
        view, tokenizer.codebook, patch_size, tokenizer.mean, tokenizer.std, centred=pixels == "centred"
    )
    words = tokenizer(view)
    assert words.dtype == torch.int64
    assert torch.equal(words, expected)


def test_rgb_is_normalised_by_the_statistics_of_imagenet() -> None:
    view = views(1, size=4)
    mean, std = (torch.tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(projection().patches(view)[0, 0], ((view[0] - mean) / std).flatten())


def test_centred_patches_have_no_mean_in_any_channel() -> None:
    patches = projection(pixels="centred").patches(views())
    assert patches.unflatten(-1, (3, -1)).mean(dim=-1).abs().max() < 1e-5
    assert patches.norm(dim=-1).min() > 0.1


def test_centred_words_do_not_depend_on_brightness() -> None:
    tokenizer, view = projection(pixels="centred", signed=True), views() * 0.5
    assert torch.equal(tokenizer(view), tokenizer(view + 0.3))
    assert not torch.equal(projection()(view), projection()(view + 0.3))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_patches_have_word_0_and_are_zero_when_centred(value: float) -> None:
    tokenizer = projection(pixels="centred", signed=True)
    view = views()
    view[:, :, :4, 4:8] = torch.tensor([value, 0.7, 0.1])[:, None, None]  # flat in each channel
    assert tokenizer(view)[:, 1].tolist() == [0, 0, 0]
    assert not tokenizer.patches(view)[:, 1].any()


def test_a_patch_of_the_mean_colour_has_word_0() -> None:
    view = torch.tensor(IMAGENET_MEAN)[None, :, None, None].expand(1, 3, 4, 4)
    assert projection(signed=True)(view).tolist() == [[0]]


def test_words_are_the_same_under_autocast_and_have_no_gradient() -> None:
    tokenizer, view = projection(signed=True), views().requires_grad_()
    expected = tokenizer(view)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tokenizer(view), expected)
    assert not tokenizer.patches(view).requires_grad


def test_a_codebook_holds_unit_vectors_and_is_not_a_parameter() -> None:
    tokenizer = projection()
    torch.testing.assert_close(tokenizer.codebook.norm(dim=1), torch.ones(20))
    assert not list(tokenizer.parameters())
    assert {"codebook", "fitted"} == tokenizer.state_dict().keys()


def test_random_projection_depends_on_its_seed_and_needs_no_fitting() -> None:
    assert not projection().needs_fitting
    assert torch.equal(projection(codebook_seed=3).codebook, projection(codebook_seed=3).codebook)
    assert not torch.equal(projection(codebook_seed=3).codebook, projection(codebook_seed=4).codebook)


def test_random_projection_draws_from_zero_to_one_or_from_both_signs() -> None:
    assert projection().codebook.min() >= 0
    signed = projection(signed=True, vocabulary=500).codebook
    assert abs(float((signed < 0).float().mean()) - 0.5) < 0.02
    flat = (signed / signed.abs().amax(dim=1, keepdim=True)).flatten()
    assert abs(float(flat.abs().mean()) - 0.5) < 0.02  # uniform, not normal


def test_the_default_vocabulary_is_the_papers() -> None:
    assert RandomProjection(8).codebook.shape == (8192, 192)


def test_a_vocabulary_of_one_is_refused() -> None:
    with pytest.raises(UserError, match="vocabulary of 1 words"):
        projection(vocabulary=1)


def test_a_saved_codebook_is_loaded_again(tmp_path: Path) -> None:
    tokenizer = projection(signed=True, pixels="centred")
    tokenizer.save(tmp_path / "book.safetensors")
    again = projection(pixels="centred", codebook_file=str(tmp_path / "book.safetensors"), codebook_seed=9)
    torch.testing.assert_close(again.codebook, tokenizer.codebook, rtol=1e-6, atol=1e-7)
    assert torch.equal(again(views()), tokenizer(views()))
    assert not again.needs_fitting


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"patch_size": 2}, "patch_size 4 instead of 2"),
        ({"in_chans": 1}, "in_chans 3 instead of 1"),
        ({"vocabulary": 30}, "vocabulary 20 instead of 30"),
        ({"pixels": "centred"}, "pixels normalised instead of centred"),
    ],
)
def test_a_codebook_for_other_settings_is_refused(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    projection().save(tmp_path / "book.safetensors")
    with pytest.raises(UserError, match=text):
        projection(codebook_file=str(tmp_path / "book.safetensors"), **change)


def test_a_codebook_of_another_kind_is_refused(tmp_path: Path) -> None:
    projection().save(tmp_path / "book.safetensors")
    with pytest.raises(UserError, match="kind RandomProjection instead of KMeans"):
        KMeans(4, vocabulary=20, codebook_file=str(tmp_path / "book.safetensors"))


def test_a_damaged_codebook_is_refused(tmp_path: Path) -> None:
    projection().save(tmp_path / "book.safetensors")
    data = (tmp_path / "book.safetensors").read_bytes()
    (tmp_path / "book.safetensors").write_bytes(data[:-100])
    with pytest.raises(UserError, match="damaged"):
        projection().load(tmp_path / "book.safetensors")


def test_a_file_without_a_codebook_is_refused(tmp_path: Path) -> None:
    for metadata in ({}, {"tokenizer": "dalle"}, {"tokenizer": "3"}, {"tokenizer": "[1]"}):
        base.write_safetensors(tmp_path / "other.safetensors", {"a": torch.zeros(2)}, metadata)
        with pytest.raises(UserError, match="holds no codebook"):
            projection().load(tmp_path / "other.safetensors")


def test_a_state_dict_contains_the_codebook() -> None:
    fitted, fresh = projection(codebook_seed=3), KMeans(4, vocabulary=20)
    assert fresh.needs_fitting
    fresh.load_state_dict(fitted.state_dict())
    assert not fresh.needs_fitting
    assert torch.equal(fresh.codebook, fitted.codebook)


@pytest.mark.parametrize("vocabulary", [2, 16, 100])
def test_uniform_words_have_the_perplexity_of_the_vocabulary(vocabulary: int) -> None:
    statistics = WordStatistics.of(torch.arange(vocabulary).repeat(3, 2), vocabulary)
    assert statistics.entropy == pytest.approx(math.log(vocabulary))
    assert statistics.perplexity == pytest.approx(vocabulary)
    assert statistics.words_used == statistics.vocabulary == vocabulary
    assert statistics.num_patches == 6 * vocabulary
    assert statistics.top_share == pytest.approx(1 / vocabulary)


def test_constant_words_have_no_entropy_and_are_called_nearly_constant() -> None:
    statistics = WordStatistics.of(torch.full((4, 9), 3), 16)
    assert statistics.entropy == 0
    assert statistics.perplexity == 1
    assert statistics.words_used == 1
    assert statistics.top_share == 1
    assert statistics.nearly_constant
    assert not WordStatistics.of(torch.arange(16), 16).nearly_constant


def test_the_entropy_of_given_frequencies_is_right() -> None:
    statistics = WordStatistics.of(torch.tensor([0, 0, 1, 2]), 5)
    assert statistics.entropy == pytest.approx(0.5 * math.log(2) + 2 * 0.25 * math.log(4))
    assert "3 of 5 words used" in str(statistics)


def test_a_codebook_without_a_way_to_fit_it_cannot_be_fitted() -> None:
    with pytest.raises(NotImplementedError):
        Codebook(4, vocabulary=4).fit([], 0, 0)
