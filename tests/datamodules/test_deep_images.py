"""Images of more than 8 bits through the datamodules: one window for all splits, from the images, the option or the weights."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_sets import write_set
from deep_images import deep_folder, deep_values, write_deep, write_dicom
from lightning.pytorch.callbacks import LambdaCallback
from PIL import Image
from scenes import scene_data, write_scenes
from tiny_runs import classifier, image_data, one_thread, tiny_trainer  # noqa: F401

from lit_splitmask.callbacks import ExportWeights
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.cli import main
from lit_splitmask.datamodules import Budget, CocoDetection, ImageFolder, Shards
from lit_splitmask.errors import UserError
from lit_splitmask.images import scan
from lit_splitmask.images.decode import decode, read_pixels
from lit_splitmask.images.statistics import measure_window
from lit_splitmask.images.window import show
from lit_splitmask.modules import Classify

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

Window = tuple[float, float]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return deep_folder(tmp_path / "xrays")


def opened(root: Path, **settings: Any) -> ImageFolder:
    data = image_data(root, **settings)
    data.prepare_data()
    data.setup("fit")
    return data


def check_pixels(data: Any, window: Window | None) -> None:
    """Checks that every image of every split is read with a window."""
    for split, samples in data.source.splits.items():
        for place, file in enumerate(samples.files):
            expected = decode(data.root / file, window=window)
            np.testing.assert_array_equal(data.source.read(samples.key(place)), expected, f"{split}: {file}")


@pytest.mark.parametrize("cache_gb", [8.0, 0.0])
def test_the_window_of_the_training_images_is_used_for_every_split(
    root: Path, tmp_path: Path, cache_gb: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    data = opened(root, cache_gb=cache_gb)
    train = [root / file for file in data.source.splits["train"].files]
    assert 0 < len(train) < 20
    window = measure_window([(path, path.name + str(path.parent)) for path in train], tmp_path / "again")
    assert data.pixel_window == window
    assert (data.source.read.cache is not None) == bool(cache_gb)  # type: ignore[attr-defined]
    check_pixels(data, window)
    assert len(list((tmp_path / "index").rglob("pixels-*.bin"))) == bool(cache_gb)  # none without a window
    data.prepare_data()
    (line,) = [record.message for record in caplog.records if record.message.startswith("Window")]
    low, high = map(int, window)
    assert line == (
        f"Window: {len(train)} images to train on have more than 8 bits; their values from black to white are those of "
        f"--data.window={low},{high} (0.5 and 99.5 % of the pixels of {len(train)} of them)."
    )


def test_a_given_window_is_used_and_images_are_stored_as_they_are_scanned(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(scan, "read_pixels", lambda path: read.append(path) or read_pixels(path))
    monkeypatch.setattr("lit_splitmask.images.cache.decode", None)  # nothing is decoded a second time
    data = opened(root, window="100,3000")
    assert len(read) == len(set(read)) == 20
    assert data.pixel_window == (100, 3000)
    check_pixels(data, (100, 3000))


def test_runs_with_different_windows_have_words_statistics_and_pixels_of_their_own(root: Path) -> None:
    one, other = (opened(root, window=window, statistics="dataset") for window in ("0,1000", (0, 4095)))
    assert one.fitted_file("words") != other.fitted_file("words")
    assert one.pixel_mean[0] > 1.5 * other.pixel_mean[0]
    check_pixels(one, (0, 1000))  # from a cache that is still there
    check_pixels(other, (0, 4095))


def test_images_of_8_bits_among_them_stay_as_they_are_and_are_named(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    for number in range(6):
        Image.fromarray(plain + number).save(root / "dark" / f"plain{number}.png")
    data = opened(root)
    assert "others have 8 bits and are read as they are: check that the two kinds look alike." in caplog.text
    check_pixels(data, data.pixel_window)
    np.testing.assert_array_equal(data.source.read("dark/plain0.png")[..., 0], plain)


def test_images_of_8_bits_alone_have_no_window(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for number in range(12):
        write_deep(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png", deep_values(number).astype(np.uint8))
    data = opened(tmp_path / "photos")
    assert data.pixel_window is None
    assert "Window" not in caplog.text
    assert not list((tmp_path / "index").rglob("window-*"))


def test_if_only_held_out_images_have_more_than_8_bits_the_window_is_theirs(tmp_path: Path) -> None:
    deep_folder(tmp_path / "set" / "test", 3)
    for number in range(12):
        path = tmp_path / "set" / "train" / ("dark", "bright")[number % 2] / f"{number}.png"
        write_deep(path, deep_values(number).astype(np.uint8))
    data = opened(tmp_path / "set")
    assert data.pixel_window is not None
    check_pixels(data, data.pixel_window)


def test_the_pool_shares_the_window_and_helps_to_measure_it(root: Path, tmp_path: Path) -> None:
    alone = opened(root).pixel_window
    for number in range(8):
        write_dicom(tmp_path / f"{number}.dcm", 8 * deep_values(number, 40))
        (tmp_path / "more").mkdir(exist_ok=True)
        shutil.move(tmp_path / f"{number}.dcm", tmp_path / "more")
    data = opened(root, pool=[str(tmp_path / "more")])
    assert alone is not None
    assert data.pixel_window is not None
    assert data.pixel_window[1] > 2 * alone[1]
    for name in (file for file in data.source.splits["train"].files if "//" in file):
        expected = decode(tmp_path / "more" / name.partition("//")[2], window=data.pixel_window)
        np.testing.assert_array_equal(data.source.read(name), expected)


@pytest.fixture
def trained(root: Path, tmp_path: Path) -> Path:
    """A classifier that was trained for a step, with the window 100 to 3,000."""
    data, module = image_data(root, steps=1, num_epochs=1, window="100,3000"), classifier()
    tiny_trainer(tmp_path, limit_val_batches=0).fit(module, datamodule=data)
    assert module.pixel_window == (100, 3000)
    path = tmp_path / "classifier.safetensors"
    ExportWeights(str(path)).export(module, 1)
    return path


def test_a_prediction_sees_the_pixels_of_training(
    trained: Path, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_weights(trained).info["pixel_window"] == [100, 3000]
    new = tmp_path / "new"
    shutil.copytree(root / "dark", new)
    write_deep(new / "hot.png", 10 * deep_values(3))
    data, module = image_data(new), Classify(str(trained), keep_head=True)
    tiny_trainer(tmp_path).predict(module, datamodule=data)
    assert data.pixel_window == (100, 3000)
    training = opened(root, window=(100, 3000)).source.read
    for number in range(10):
        np.testing.assert_array_equal(data.source.read(f"{number}.png"), training(f"dark/{number}.png"))
    assert "window" not in caplog.text


def test_weights_without_a_window_are_said_to_have_none(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, module = image_data(root), classifier(num_classes=2)
    tiny_trainer(tmp_path).predict(module, datamodule=data)
    assert "20 of the images in" in caplog.text
    assert "each is stretched from its own smallest value to its largest. Give the values" in caplog.text
    np.testing.assert_array_equal(data.source.read("dark/1.png"), decode(root / "dark" / "1.png"))


@pytest.mark.parametrize("given", [None, "0,4095"])
def test_a_training_from_weights_takes_their_window_unless_one_is_given(
    trained: Path, root: Path, tmp_path: Path, given: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    data, module = image_data(root, steps=1, num_epochs=1, window=given), Classify(str(trained))
    tiny_trainer(tmp_path, limit_val_batches=0).fit(module, datamodule=data)
    assert data.pixel_window == module.pixel_window == ((100, 3000) if given is None else (0, 4095))
    said = "read with the window 0,4095, but the weights were trained with 100,3000: --data.window=100,3000 sets theirs"
    assert (said in caplog.text) == (given is not None)


def test_a_checkpoint_says_its_window(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer, module = tiny_trainer(tmp_path, limit_val_batches=0), classifier(num_classes=2)
    trainer.fit(module, datamodule=image_data(root, steps=1, num_epochs=1, window="100,3000"))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    tiny_trainer(tmp_path).test(
        classifier(num_classes=2),
        datamodule=image_data(root, window="0,4095"),
        ckpt_path=tmp_path / "last.ckpt",
        weights_only=True,
        verbose=False,
    )
    assert "the weights were trained with 100,3000" in caplog.text
    assert load_weights(tmp_path / "last.ckpt").info["pixel_window"] == [100, 3000]


def resume(root: Path, checkpoint: Path, **data: Any) -> ImageFolder:
    """Goes on from step 1 to step 2."""
    images = image_data(root, steps=2, num_epochs=2, **data)
    trainer, module = tiny_trainer(checkpoint.parent, limit_val_batches=0), classifier(num_classes=2)
    trainer.fit(module, datamodule=images, ckpt_path=checkpoint, weights_only=True)
    assert trainer.global_step == 2
    assert module.pixel_window == images.pixel_window
    return images


@pytest.mark.parametrize("given", [None, "100,3000"])
def test_a_resumed_run_has_the_window_of_its_beginning(root: Path, tmp_path: Path, given: str | None) -> None:
    begun, path = image_data(root, steps=2, num_epochs=2, window=given), tmp_path / "last.ckpt"
    trainer = tiny_trainer(tmp_path, limit_val_batches=0)
    stop = LambdaCallback(on_train_epoch_end=lambda trainer, _: setattr(trainer, "should_stop", True))
    trainer.callbacks.append(stop)  # type: ignore[attr-defined]
    trainer.fit(classifier(num_classes=2), datamodule=begun)
    trainer.save_checkpoint(path)
    assert trainer.global_step == 1
    shutil.rmtree(tmp_path / "index")  # with the measured window
    assert resume(root, path, window=given).pixel_window == begun.pixel_window
    assert begun.pixel_window is not None
    said = rf"read its images with the window {show(begun.pixel_window)}, and now they are read with 5,500: give --data\.window="
    with pytest.raises(UserError, match=said):
        resume(root, path, window="5,500")
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["lit_splitmask"]["pixel_window"]  # as of a run on images that had no window
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=r"with no window, and now they are read with 5,500: leave data\.window out"):
        resume(root, path, window="5,500")


def make_deep(folder: Path) -> None:
    """Gives all images of a folder 12 bits, of different brightness."""
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        Image.fromarray((8 + number % 8) * grey).save(path)


def test_segmentation_has_one_window(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes")
    make_deep(root / "images")
    data = scene_data(root)
    data.prepare_data()
    data.setup("fit")
    assert data.pixel_window is not None
    check_pixels(data, data.pixel_window)
    predicting = scene_data(root, window="5,500")
    predicting.setup("predict")
    np.testing.assert_array_equal(
        predicting.source.read("images/val/06.png"), decode(root / "images" / "val" / "06.png", window=(5, 500))
    )


def test_detection_has_one_window(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    make_deep(root)
    data = CocoDetection(
        str(root), 64, batch_size=2, budget=Budget(steps=2), num_epochs=1, index_dir=str(tmp_path / "index")
    )
    data.prepare_data()
    data.setup("fit")
    assert data.pixel_window is not None
    check_pixels(data, data.pixel_window)
    again = CocoDetection(str(root), 64, batch_size=2, index_dir=str(tmp_path / "index"), window="5,500")
    again.setup("predict")
    assert again.pixel_window == (5, 500)


def test_shards_keep_the_window_of_the_folder(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("litdata", reason="litdata is not installed (extra stream)")
    options = ["--data.index_dir", str(tmp_path / "index"), "--out", str(tmp_path / "shards")]
    assert main(["shard", "--data.root", str(root), *options]) == 0
    folder = opened(root)
    for window in (None, "0,4095"):
        data = Shards(str(tmp_path / "shards"), 32, index_dir=str(tmp_path / "copies"), window=window, num_workers=0)
        data.setup("test")
        assert data.pixel_window == (folder.pixel_window if window is None else (0, 4095))
        train = data.source.splits["train"]
        expected = decode(root / train.files[0], window=data.pixel_window)
        np.testing.assert_array_equal(data.source.read(train.key(0)), expected)
