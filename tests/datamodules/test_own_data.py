"""Folders of more images to pre-train on, for the datamodules of a user's own images."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import pytest
import torch
from folder_data import MakeData, batches, noise, ready
from PIL import Image
from records import as_json

from lit_splitmask import datamodules
from lit_splitmask.datamodules import Budget, ImageData, ImageFolder, Manifest, RegressionManifest
from lit_splitmask.datamodules.own_data import OwnData

MakeFolder = Callable[..., Path]


def test_a_pool_adds_images_to_pre_train_on(make_data: MakeData, tmp_path: Path) -> None:
    alone = ready(make_data())
    pool = tmp_path / "more" / "deep"
    pool.mkdir(parents=True)
    for number in range(100, 105):
        Image.fromarray(noise(number)).save(pool / f"{number} ü.png")
    data = ready(make_data(pool=[str(tmp_path / "more")], budget=Budget(passes=1), batch_size=13, num_epochs=1))
    assert len(data.train_samples) == 21 + 5
    assert data.train_samples.labels.tolist() == [*alone.train_samples.labels.tolist(), *[-1] * 5]
    assert data.index.splits == alone.index.splits
    assert data.class_names == alone.class_names
    for index, number in enumerate(range(100, 105), start=21):
        np.testing.assert_array_equal(data.source.read(data.train_samples.files[index]), noise(number))
    assert data.source.read(data.train_samples.files[0]).shape == alone.source.read(alone.train_samples.files[0]).shape
    seen = torch.cat([batch["index"] for batch in data.train_dataloader()])
    assert sorted(seen.tolist()) == list(range(26))


def test_an_image_of_the_pool_that_val_or_test_holds_is_left_out(
    make_data: MakeData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = ready(make_data())
    held_out = [alone.index.splits["test"][0], alone.index.splits["val"][0]]
    pool = tmp_path / "more"
    pool.mkdir()
    for number, file in enumerate([*held_out, alone.index.splits["train"][0]]):
        Image.open(alone.index.root / file).save(pool / f"{number}.bmp")  # the same pixels in another file
    data = ready(make_data(pool=[str(pool)]))
    assert len(data.train_samples) == 21 + 1
    assert f"2 images of {pool} are left out" in caplog.text


@pytest.mark.parametrize(
    "folders",
    [
        ("test", "dev"),
        ("train", "test", "extra"),
        ("train", "val"),
        ("a/x", "b/x"),
        (".",),
        ("deep/train", "deep/test"),
    ],
)
def test_all_images_of_a_pool_are_used_whatever_its_folders_are_called(
    make_data: MakeData, tmp_path: Path, folders: tuple[str, ...]
) -> None:
    for number, folder in enumerate(folders):
        (tmp_path / "more" / folder).mkdir(parents=True, exist_ok=True)
        for copy in range(2):
            Image.fromarray(noise(100 + 10 * number + copy)).save(tmp_path / "more" / folder / f"{copy}.png")
    data = ready(make_data(pool=[str(tmp_path / "more")]))
    assert len(data.train_samples) == 21 + 2 * len(folders)


def test_an_index_of_a_pool_from_before_layouts_is_accepted(make_data: MakeData, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    Image.fromarray(noise(100)).save(tmp_path / "more" / "1.png")
    ready(make_data(pool=[str(tmp_path / "more")]))
    (path,) = (tmp_path / "runs").glob("more-*/pool.npz")
    as_json(path, lambda stored: stored["options"].pop("layout"))
    assert len(ready(make_data(pool=[str(tmp_path / "more")])).train_samples) == 22


def test_a_manifest_takes_a_pool_too(class_folder: MakeFolder, tmp_path: Path) -> None:
    root = class_folder(per_class=10)
    rows = [f"{file.relative_to(root)},{file.parent.name}" for file in sorted(root.rglob("*.png"))]
    (root / "list.csv").write_text("\n".join(["path,label", *rows]))
    (tmp_path / "more").mkdir()
    Image.fromarray(noise(100)).save(tmp_path / "more" / "1.png")
    settings: dict[str, Any] = {
        "image_size": 16,
        "batch_size": 8,
        "num_workers": 0,
        "index_dir": str(tmp_path / "runs"),
    }
    data = ready(Manifest(str(root / "list.csv"), pool=[str(tmp_path / "more")], **settings))
    assert len(data.train_samples) == 21 + 1
    assert batches(data, 1)[0]["image"].shape == (8, 3, 16, 16)


def takes_a_pool(cls: type) -> bool:
    """Whether the command line offers ``--data.pool`` for a datamodule."""
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(cls, "data")
    return "--data.pool" in parser.format_help()


def test_only_the_users_own_images_take_a_pool() -> None:
    exported = [getattr(datamodules, name) for name in datamodules.__all__]
    concrete = [one for one in exported if inspect.isclass(one) and issubclass(one, ImageData) and one is not ImageData]
    assert {one for one in concrete if takes_a_pool(one)} == {ImageFolder, Manifest, RegressionManifest}
    assert all(issubclass(one, OwnData) for one in (ImageFolder, Manifest, RegressionManifest))
