"""Fitted codebooks are kept in files, and used again only if they are whole and for the same settings."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lit_splitmask.errors import UserError
from lit_splitmask.tokenizers import Codebook, KMeans, RandomPatches, kept
from lit_splitmask.tokenizers.kept import fitting_settings, keep, load_kept


def fitted(seed: int = 0) -> KMeans:
    tokenizer = KMeans(4, vocabulary=12, iterations=3)
    tokenizer.fit([torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(seed))], 30, seed)
    return tokenizer


def test_a_kept_codebook_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    first, second = fitted(), KMeans(4, vocabulary=12)
    keep(first, tmp_path / "new" / "words.safetensors")
    assert load_kept(second, tmp_path / "new" / "words.safetensors")
    assert torch.equal(first.codebook, second.codebook)
    assert not second.needs_fitting


def test_without_a_file_nothing_is_loaded_and_nothing_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = KMeans(4, vocabulary=12)
    assert not load_kept(tokenizer, tmp_path / "words.safetensors")
    assert tokenizer.needs_fitting
    assert not caplog.records


@pytest.mark.parametrize("damage", ["cut", "a bit", "empty", "no metadata", "other settings"])
def test_a_damaged_file_is_not_used_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path, tokenizer = tmp_path / "words.safetensors", KMeans(4, vocabulary=12)
    keep(fitted(), path)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-40])
    elif damage == "a bit":
        data[-5] ^= 4
        path.write_bytes(data)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "no metadata":
        save_file(load_file(path), path)
    else:
        tokenizer = KMeans(4, vocabulary=12, pixels="centred")
    assert not load_kept(tokenizer, path)
    assert tokenizer.needs_fitting
    assert not tokenizer.codebook.any()
    assert "damaged" in caplog.text
    assert "fitted again" in caplog.text


def test_a_full_disk_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise UserError("The disk is full.")

    monkeypatch.setattr(kept, "write_safetensors", full)
    with caplog.at_level(logging.WARNING):
        keep(fitted(), tmp_path / "words.safetensors")
    assert "not kept" in caplog.text
    assert "The disk is full." in caplog.text


def test_the_settings_differ_whenever_the_codebook_does() -> None:
    texts = [
        fitting_settings(tokenizer, crops, seed)
        for tokenizer, crops, seed in (
            (KMeans(4, vocabulary=12), 100, 0),
            (KMeans(4, vocabulary=13), 100, 0),
            (KMeans(4, vocabulary=12, pixels="centred"), 100, 0),
            (KMeans(4, vocabulary=12, iterations=3), 100, 0),
            (KMeans(4, vocabulary=12, max_patches=5), 100, 0),
            (KMeans(2, vocabulary=12), 100, 0),
            (KMeans(4, vocabulary=12), 101, 0),
            (KMeans(4, vocabulary=12), 100, 1),
            (RandomPatches(4, vocabulary=12), 100, 0),
        )
    ]
    assert len(set(texts)) == len(texts)
    assert texts[0] == fitting_settings(KMeans(4, vocabulary=12), 100, 0)


def test_what_an_unknown_tokenizer_fits_is_not_kept() -> None:
    class Mine(Codebook):
        pass

    assert fitting_settings(Mine(4, vocabulary=12), 100, 0) is None


def test_the_least_number_of_patches_is_39_a_word_or_as_asked_for() -> None:
    assert RandomPatches(4, vocabulary=100).patches_to_fit == KMeans(4, vocabulary=100).patches_to_fit == 3900
    assert KMeans(4, vocabulary=100, min_patches=70_000).patches_to_fit == 70_000
    assert KMeans(4, vocabulary=100, min_patches=70_000, max_patches=5000).patches_to_fit == 5000
