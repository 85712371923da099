"""Weights by timm's names: a folder, and a repository of the Hugging Face Hub (whose download is replaced: no network)."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RemoteEntryNotFoundError
from safetensors.torch import save_file

from lit_splitmask import weight_names
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.errors import UserError
from lit_splitmask.models.vit import ViTConfig
from lit_splitmask.modules import Classify, Pretrain
from lit_splitmask.objectives import MAE

SHAPE = ViTConfig(size="tiny", embed_dim=64, depth=1, num_heads=1, patch_size=8, image_size=32, class_token=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as timm writes it, without this project's metadata."""
    torch.manual_seed(0)
    args = {"embed_dim": 64, "depth": 1, "num_heads": 1, "patch_size": 8, "img_size": 32, "num_classes": 5}
    model: Any = timm.create_model("vit_tiny_patch16_224", **args)
    path = tmp_path / "saved"
    path.mkdir()
    save_file(model.state_dict(), path / "model.safetensors")
    statistics = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (path / "config.json").write_text(
        json.dumps({"architecture": "vit_tiny_patch16_224", "pretrained_cfg": statistics})
    )
    return path


def test_a_folder_gives_its_weights_and_its_statistics(folder: Path) -> None:
    weights = load_weights(f"local-dir:{folder}")
    assert weights.info == {"pixel_mean": [0.1, 0.2, 0.3], "pixel_std": [0.4, 0.5, 0.6]}
    for module in (
        Pretrain(MAE, weights=f"local-dir:{folder}", backbone=SHAPE),
        Classify(f"local-dir:{folder}", num_classes=3),
    ):
        torch.testing.assert_close(module.pixel_mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
        torch.testing.assert_close(
            module.vit.get_parameter("blocks.0.attn.qkv.weight"), weights.state["blocks.0.attn.qkv.weight"]
        )


def test_a_folder_without_a_configuration_gives_its_weights_alone(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert load_weights(f"local-dir:{folder}").info == {}


def in_cache(folder: Path, asked: list[Any]) -> Any:
    def download(repository: str, file: str, revision: str | None = None, local_files_only: bool = True) -> str:
        assert not local_files_only
        asked.append((repository, file, revision))
        return str(folder / file)

    return download


def test_a_repository_is_downloaded_at_its_revision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(weight_names, "hf_hub_download", in_cache(folder, asked))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])
    ours = load_weights("hf-hub:someone/photos@v2")
    assert ours.info["pixel_std"] == [0.4, 0.5, 0.6]
    assert torch.equal(ours.state["pos_embed"], load_weights(f"local-dir:{folder}").state["pos_embed"])
    assert asked == [("someone/photos", file, "v2") for file in ("model.safetensors", "config.json")]


class Answer:
    """What a server's refusal looks like to the Hub's library."""

    status_code, headers, request = 404, {}, None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LocalEntryNotFoundError("no"), "it is not in the cache, and cannot be reached"),
        (RemoteEntryNotFoundError("no", response=Answer()), "it has no model.safetensors"),
        (GatedRepoError("no", response=Answer()), "it needs an access token"),
        (ConnectionError("Network is unreachable\nand more"), "Network is unreachable"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_repository_that_cannot_be_had_is_named(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(weight_names, "hf_hub_download", refuse)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])
    with pytest.raises(UserError, match="hf-hub:a/b cannot be loaded") as caught:
        load_weights("hf-hub:a/b")
    assert words in str(caught.value)
    assert "and more" not in str(caught.value)


def test_a_repository_of_no_valid_name_is_refused_before_any_connection() -> None:
    with pytest.raises(UserError, match="hf-hub:a/b/c cannot be loaded"):
        load_weights("hf-hub:a/b/c")


def test_without_a_network_what_is_in_the_cache_is_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[str]
) -> None:
    commit = "0" * 40
    stored = tmp_path / "cache" / "models--someone--photos"
    shutil.copytree(folder, stored / "snapshots" / commit)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert load_weights("hf-hub:someone/photos").info["pixel_std"] == [0.4, 0.5, 0.6]
    assert set(no_network) == {"look up huggingface.co"}
    no_network.clear()


def test_a_proxy_resolves_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert not weight_names._has_no_network()


def test_a_folder_that_is_none_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        load_weights(f"local-dir:{tmp_path / 'absent'}")
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        load_weights(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "is not the configuration"),
        ("{", "is not the configuration"),
        ('{"pretrained_cfg": {"mean": 3}}', "is not the configuration"),
        ('{"mean": ["a", "b", "c"]}', "pixel_mean is"),
        ('{"std": [0, 1, 1]}', "pixel_std is"),
        (f'{{"x": "{"y" * 2**20}"}}', "too large"),
    ],
    ids=["list", "damaged", "number", "text", "zero", "large"],
)
def test_a_configuration_that_is_none_is_refused(folder: Path, text: str, problem: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=problem):
        load_weights(f"local-dir:{folder}")
