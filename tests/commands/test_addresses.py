"""A folder of images that is an address is named, with what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lit_splitmask.cli import main
from lit_splitmask.datamodules import CocoDetection, ImageFolder, SegmentationFolder
from lit_splitmask.errors import UserError
from lit_splitmask.files import is_remote


@pytest.mark.parametrize(
    ("words", "address"),
    [
        (["pretrain", "--data.root", "s3://bucket/x"], "s3://bucket/x"),
        (["finetune", "--data.root", "gs://bucket/x"], "gs://bucket/x"),
        (["compare", "--data.root", "https://host/x.zip"], "https://host/x.zip"),
        (["plan", "s3://bucket/x"], "s3://bucket/x"),
        (["pretrain", "--recipe", "splitmask_cpu", "--data.root", "s3://bucket/x"], "s3://bucket/x"),
        (["probe", "--data.root", "az://bucket/x"], "az://bucket/x"),
        (["pretrain", "--data.root", ".", "--data.pool", "[s3://bucket/pool]"], "s3://bucket/pool"),
        (["finetune", "--data", "Manifest", "--data.manifest", "s3://bucket/list.csv"], "s3://bucket/list.csv"),
        (["fit", "--model", "Pretrain", "--data", "ImageFolder", "--data.root", "hf://x/y"], "hf://x/y"),
    ],
)
def test_every_command_names_an_address_and_says_what_to_do(
    words: list[str], address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {address} is an address")
    assert "--data Shards" in said


@pytest.mark.parametrize(
    "words",
    [
        ["pretrain", "--data.root", ".", "--runs_dir", "s3://bucket/runs"],
        ["reproduce", "table6", "--row", "scratch-s-cars", "--data.root", ".", "--out=s3://bucket/runs"],
        ["shard", "--data.root", ".", "--out", "s3://bucket/runs"],
        ["finetune", "--data.root", ".", "--data.index_dir", "s3://bucket/runs"],
    ],
)
def test_a_folder_to_write_to_is_no_address(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    assert "s3://bucket/runs is an address, and files are written to folders" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [ImageFolder, SegmentationFolder, CocoDetection])
def test_datamodules_name_an_address(make: Callable[[str], object]) -> None:
    with pytest.raises(UserError, match=r"s3://bucket/x is an address.*aws s3 sync s3://bucket/x DIR"):
        make("s3://bucket/x")
    with pytest.raises(UserError, match="is an address"):
        make(str(Path("s3://bucket/x")))  # pathlib makes one slash of two


@pytest.mark.parametrize("path", ["photos", "/data/photos", "C:/photos", "a:b", "./s3/x", "2026:05/x", ""])
def test_paths_are_no_addresses(path: str) -> None:
    assert not is_remote(path)
