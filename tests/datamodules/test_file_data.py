"""Images in files: decoded images on disk, pixel statistics, file names; tested on an image folder."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folder_data import MakeData, batches, noise, ready, same
from PIL import Image
from torch import Tensor

from lit_splitmask.datamodules import FinetuneAugment, ImageFolder
from lit_splitmask.errors import UserError

MakeFolder = Callable[..., Path]


@pytest.mark.parametrize("augment", [None, FinetuneAugment()], ids=["pretrain", "finetune"])
@pytest.mark.parametrize("cache_gb", [8.0, 0.0])
def test_workers_change_nothing(make_data: MakeData, augment: FinetuneAugment | None, cache_gb: float) -> None:
    settings = {"augment": augment, "cache_gb": cache_gb}
    alone = ready(make_data(**settings))
    for num_workers in (1, 4):
        helped = ready(make_data(**settings, num_workers=num_workers))
        assert same(batches(alone, 8), batches(helped, 8))  # each buffer of each worker is used again
    for name in ("val_dataloader", "test_dataloader", "predict_dataloader"):
        assert same(list(getattr(alone, name)()), list(getattr(helped, name)()))


def test_statistics_can_be_the_datasets_own(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ready(make_data(statistics="dataset"))
    reader = data.source.read
    pixels = [reader(file).reshape(-1, 3) / 255 for file in data.index.splits["train"]]
    assert data.pixel_mean == pytest.approx(np.mean([image.mean(0) for image in pixels], axis=0), abs=1e-4)
    spread = np.mean([((image - data.pixel_mean) ** 2).mean(0) for image in pixels], axis=0) ** 0.5
    assert data.pixel_std == pytest.approx(spread, abs=1e-4)
    monkeypatch.setattr("lit_splitmask.images.statistics.decode", None)
    assert ready(make_data(statistics="dataset")).pixel_mean == data.pixel_mean
    assert ready(make_data(statistics="half")).pixel_std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_vanishes_later_is_named(make_data: MakeData, num_workers: int) -> None:
    data = ready(make_data(cache_gb=0.0, num_workers=num_workers))
    victim = data.index.root / data.train_samples.files[3]
    victim.unlink()
    with pytest.raises(UserError, match=f"^The image {victim} does not exist"):
        list(data.train_dataloader())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_becomes_another_image_later_is_named(make_data: MakeData, num_workers: int) -> None:
    data = ready(make_data(cache_gb=0.0, num_workers=num_workers))
    victim = data.index.root / data.train_samples.files[3]
    Image.fromarray(noise(99)).save(victim)
    with pytest.raises(UserError, match=f"^The image {victim} was replaced after the folder was scanned"):
        list(data.train_dataloader())


def test_a_file_that_is_written_again_with_the_same_pixels_changes_nothing(make_data: MakeData) -> None:
    before = batches(ready(make_data(cache_gb=0.0)), 3)
    data = ready(make_data(cache_gb=0.0))
    for file in data.train_samples.files:
        pixels = Image.open(data.index.root / file)
        pixels.load()
        pixels.save(data.index.root / file, compress_level=1)
    assert same(batches(data, 3), before)


def test_a_file_that_changes_between_scan_and_training_is_read_from_the_cache_as_it_was(make_data: MakeData) -> None:
    before = batches(ready(make_data()), 3)
    data = ready(make_data())
    for file in data.train_samples.files:
        (data.index.root / file).write_bytes(b"")
    assert same(batches(data, 3), before)


@pytest.mark.parametrize("cache_gb", [8.0, 0.0])
def test_the_order_of_files_on_the_disk_changes_nothing(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_gb: float
) -> None:
    sorted_data = ready(make_data(cache_gb=cache_gb))
    scandir, shuffled_folders = os.scandir, []

    class Shuffled:
        """The entries of a folder in another order."""

        def __init__(self, path: Any = ".") -> None:
            with scandir(path) as entries:
                self.entries = list(entries)
            np.random.default_rng(len(self.entries)).shuffle(self.entries)
            shuffled_folders.append(path)

        def __enter__(self) -> Any:
            return iter(self.entries)

        def __exit__(self, *_: Any) -> None:
            pass

        def __iter__(self) -> Any:
            return iter(self.entries)

    monkeypatch.setattr(os, "scandir", Shuffled)
    other = ready(make_data(cache_gb=cache_gb, index_dir=str(tmp_path / "other runs")))
    assert len(shuffled_folders) >= 4  # the root and three classes
    assert other.index.splits == sorted_data.index.splits
    assert other.class_names == sorted_data.class_names
    assert same(batches(other, 3), batches(sorted_data, 3))


def test_file_names_may_have_any_script_and_even_be_no_text(tmp_path: Path) -> None:
    root = tmp_path / "bilder"
    names = [b"\xe5\x9b\xbe\xe5\x83\x8f", "é".encode(), "e\u0301".encode(), b"\xff\xfe", b"a b\nc", "😀".encode()]
    for label in ("α", "β"):
        for number, name in enumerate(names):
            path = root / label / os.fsdecode(name + b".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(number + 10 * (label == "β"))).save(path)
    data = ready(ImageFolder(str(root), 16, batch_size=4, num_workers=1, index_dir=str(tmp_path / "runs")))
    again = ready(ImageFolder(str(root), 16, batch_size=4, num_workers=0, index_dir=str(tmp_path / "runs")))
    assert data.class_names == ["α", "β"]
    assert sum(map(len, data.index.splits.values())) == 12
    assert same(batches(data, 2), batches(again, 2))


def seen(loader: Iterable[dict[str, Tensor]], paths: Sequence[str]) -> dict[str, Tensor]:
    """The crop of each image that a loader gives, by name."""
    return {
        paths[index]: image
        for batch in loader
        for index, image in zip(batch["index"].tolist(), batch["image"], strict=True)
    }


@pytest.mark.parametrize("image_size", [4, 16])
def test_prediction_has_the_pixels_that_evaluation_has(
    tmp_path: Path, split_folder: MakeFolder, image_size: int
) -> None:
    root = split_folder()
    for file in sorted(root.rglob("*.png"))[::2]:
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()
    settings: dict[str, Any] = {"batch_size": 4, "num_workers": 0, "index_dir": str(tmp_path / "runs")}
    trained = ready(ImageFolder(str(root), image_size, **settings))
    predicted = ImageFolder(str(root), image_size, **settings)
    predicted.setup("predict")
    crops = seen(predicted.predict_dataloader(), predicted.predict_paths)
    for split, loader in (("val", trained.val_dataloader()), ("test", trained.test_dataloader())):
        evaluated = seen(loader, trained.index.splits[split])
        assert len(evaluated) == 6
        for name, crop in evaluated.items():
            assert torch.equal(crops[name], crop)


def test_prediction_sees_every_image_whatever_the_folders_are_called(tmp_path: Path) -> None:
    root = tmp_path / "new"
    names = [
        "a.png", "train/b.png", "test/c.png", "Val/x/d.png", "disc/e.png", "2026-05-01/f.png", "one/two/three/g.png",
        "masks/h.png", "labels/i.png", "JPEGImages/j.png", "unlabelled/k.png", "A/a.png", "__MACOSX/not.png", "x/._y.png",
    ]  # fmt: skip
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number % 9)).save(root / name)  # some images twice
    (root / "broken.jpg").write_bytes(b"no image")
    (root / "IMG_1.HEIC").touch()
    Image.fromarray(noise(0)).save(root / "IMG_2", "JPEG")
    data = ImageFolder(str(root), 16, batch_size=4, num_workers=0, index_dir=str(tmp_path / "runs"))
    data.only_predict()
    data.prepare_data()
    data.setup("predict")
    assert list(data.predict_paths) == sorted(names[:-2])
    assert seen(data.predict_dataloader(), data.predict_paths).keys() == set(names[:-2])
    assert data.predict_problems == {
        "broken.jpg": "its content is not an image of a known format",
        "IMG_1.HEIC": "not read: HEIC (convert to JPEG, for example with `magick mogrify -format jpg *.HEIC`)",
        "IMG_2": "not read: images without a known extension (add it, such as .jpg)",
    }
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("image_size", "reported"), [(16, False), (400, True)])
def test_images_that_crops_enlarge_are_reported(
    image_size: int, reported: bool, class_folder: MakeFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        ImageFolder(str(class_folder(per_class=2)), image_size, index_dir=str(tmp_path / "runs")).prepare_data()
    assert (f"crops of {image_size} px enlarge them" in caplog.text) is reported
