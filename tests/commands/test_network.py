"""Nothing goes to the network unless a download was asked for; refused or silent, that ends with a paragraph (see conftest)."""

import contextlib
import socket
from pathlib import Path

import pytest
from tiny_runs import one_thread  # noqa: F401

from lit_splitmask import files
from lit_splitmask.cli import main
from lit_splitmask.datamodules.published.food101 import Food101
from lit_splitmask.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

HUB = [
    "hf-hub:timm/vit_tiny_patch16_224",
    "vit_tiny_patch16_224.augreg_in21k",
    "https://example.com/weights.safetensors",
]


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("finetune", "--weights"),
        ("compare", "--weights"),
        ("probe", "--weights"),
        ("embed", "--weights"),
        ("pretrain", "--recipe"),
        ("finetune", "--recipe"),
        ("pretrain", "--config"),
        ("predict", "--config"),
        ("pretrain", "--data.manifest"),
        ("pretrain", "--data.root"),
        ("plan", "--data.root"),
    ],
)
def test_names_of_hubs_and_addresses_are_taken_for_files_that_are_missing(
    command: str, option: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in HUB:
        if name.startswith("hf-hub:") and option == "--weights":
            continue  # asks for a download
        images = [] if option.startswith(("--data", "--config")) else ["--data.root", "shapes"]
        if option == "--data.manifest":
            images = ["--data", "Manifest"]
        try:
            code = main([command, *images, option, name])
        except SystemExit as error:
            code = int(error.code or 0)
        said = capsys.readouterr().err
        assert code in (1, 2), said
        assert name.split("/")[-1] in said
        assert "Traceback" not in said
    assert not (work / "runs").exists()


@pytest.mark.parametrize("command", ["pretrain", "finetune", "compare", "probe"])
def test_weights_of_a_hub_that_cannot_be_reached_are_a_paragraph(
    command: str,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_network: list[str],
) -> None:
    def no_attempts(seconds: float) -> None:
        raise AssertionError("it waits for another attempt")

    monkeypatch.setattr("time.sleep", no_attempts)
    assert main([command, "--data.root", "shapes", "--weights", HUB[0]]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {HUB[0]} cannot be loaded (it is not in the cache, and cannot be reached)")
    assert set(no_network) == {"look up huggingface.co"}
    no_network.clear()
    assert not (work / "runs").exists()


def test_a_refused_download_is_a_paragraph(
    work: Path, capsys: pytest.CaptureFixture[str], no_network: list[str]
) -> None:
    assert main(["convert-dalle", "--out", "encoder.safetensors"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: https://cdn.openai.com/dall-e/encoder.pkl cannot be downloaded (")
    assert "give the file with --weights FILE." in said
    assert no_network == ["look up cdn.openai.com"]
    with pytest.raises(UserError, match="could not be downloaded"):
        Food101("food", image_size=32, download=True).prepare_data()
    assert len(no_network) > 1
    no_network.clear()


def test_a_server_that_never_answers_ends_a_download(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "NETWORK_SECONDS", 0.2)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        address = f"https://127.0.0.1:{silent.getsockname()[1]}/encoder.pkl"
        assert main(["convert-dalle", "--weights", address, "--out", "encoder.safetensors"]) == 1
    assert "timed out" in capsys.readouterr().err
    assert socket.getdefaulttimeout() is None
