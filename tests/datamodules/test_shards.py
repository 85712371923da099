"""Shards: the same images, labels and crops as the folder that they were written from, and the same batches after a resume."""

import builtins
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from replicas import draw
from tiny_runs import DATA, classifier, one_thread, same_tensors, tiny_trainer  # noqa: F401
from torch.utils.data import DataLoader

from lit_splitmask.cli import main
from lit_splitmask.datamodules import Budget, ImageFolder, Shards
from lit_splitmask.errors import UserError
from lit_splitmask.images.names import Selection
from lit_splitmask.images.shards import ShardPlace, ShardReader, ShardRecord, shard_order

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

NEEDS_LITDATA = "litdata is not installed (extra stream)"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The current directory of a finished ``shard``: ``shapes``, an image folder, and ``shards``, written from it."""
    pytest.importorskip("litdata", reason=NEEDS_LITDATA)
    folder = tmp_path_factory.mktemp("sharded")
    for number in range(24):
        path = folder / "shapes" / "abc"[number % 3] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path, number)
    options = ["--data.index_dir", str(folder / "data"), "--shard_mb", "0.008"]
    assert main(["shard", "--data.root", str(folder / "shapes"), "--out", str(folder / "shards"), *options]) == 0
    return folder


def opened(written: Path, root: str | None = None, **settings: Any) -> Shards:
    values: dict[str, Any] = {**DATA, "budget": Budget(steps=6), "index_dir": str(written / "copies")}
    data = Shards(root or str(written / "shards"), **(values | settings))
    data.prepare_data()
    data.setup("fit")
    return data


def batches(loader: DataLoader) -> list[dict[str, torch.Tensor]]:
    return [{name: value.clone() for name, value in batch.items()} for batch in loader]


def test_shards_give_the_images_and_labels_of_the_folder(written: Path) -> None:
    settings: dict[str, Any] = {**DATA, "budget": Budget(steps=6), "index_dir": str(written / "data"), "cache_gb": 0}
    folder = ImageFolder(str(written / "shapes"), **settings)
    folder.prepare_data()
    folder.setup("fit")
    data = opened(written)
    assert data.class_names == folder.class_names
    assert (data.pixel_mean, data.pixel_std) == (folder.pixel_mean, folder.pixel_std)
    for split in ("train", "val", "test"):
        expected, found = folder.source.splits[split], data.source.splits[split]
        assert sorted(found.files) == list(expected.files)
        label_of = dict(zip(expected.files, expected.labels, strict=True))
        assert [label_of[file] for file in found.files] == found.labels.tolist()
        assert found.numbers is not None
        for file, number in zip(found.files, found.numbers.tolist(), strict=True):
            assert np.array_equal(
                data.source.read(number), folder.source.read(list(folder.source.predict.files).index(file))
            )
    assert list(data.source.predict.files) == list(folder.source.predict.files)


@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
def test_remote_shards_give_the_batches_of_local_ones(written: Path, cache_gb: float) -> None:
    local = opened(written)
    remote = opened(written, f"local:{written / 'shards'}", cache_gb=cache_gb, num_workers=2)
    for ours, theirs in zip(batches(local.train_dataloader()), batches(remote.train_dataloader()), strict=True):
        assert same_tensors(ours, theirs)
    copies = [name for _, _, names in os.walk(written / "copies" / "shards" / "train") for name in names]
    assert cache_gb == 0 or sum(name.endswith(".bin") for name in copies) == 3


def test_a_pass_takes_images_of_a_few_shards_at_a_time(written: Path) -> None:
    data = opened(written, shuffle_shards=1, batch_size=1, budget=Budget(passes=1), num_epochs=1)
    assert data._record is not None
    sizes = data._record.splits["train"].shards
    assert len(sizes) > 2
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    seen = [int(batch["index"]) for batch in data.train_dataloader()]
    assert sorted(seen) == list(range(len(shard_of)))
    changes = np.count_nonzero(np.diff(shard_of[seen]))
    assert changes == len(sizes) - 1
    assert seen != sorted(seen)


@pytest.mark.parametrize("together", [1, 3, 100])
def test_the_order_by_shards_is_a_permutation_of_random_groups(together: int) -> None:
    shards = np.repeat(np.arange(10), 7)
    orders = [shard_order(np.random.default_rng(seed), 70, shards=shards, together=together) for seed in (0, 1)]
    assert all(sorted(order) == list(range(70)) for order in orders)
    assert not np.array_equal(*orders)
    for order in orders:
        groups = [set(shards[order][start : start + 7 * together]) for start in range(0, 70, 7 * together)]
        assert all(len(group) <= together for group in groups)


def test_a_share_of_the_labels_keeps_the_order_by_shards(written: Path) -> None:
    data = opened(written, label_share=0.5, shuffle_shards=1, batch_size=1, budget=Budget(passes=1), num_epochs=1)
    everything = opened(written)
    assert everything._record is not None
    shard = np.repeat(np.arange(3), everything._record.splits["train"].shards)
    place = {file: number for number, file in enumerate(everything.train_samples.files)}
    seen = [shard[place[data.train_samples.files[int(b["index"])]]] for b in data.train_dataloader()]
    assert len(seen) == data.num_train_images < len(shard)
    assert np.count_nonzero(np.diff(seen)) == len(set(seen)) - 1


def test_a_balanced_order_is_not_replaced_by_the_order_by_shards(written: Path) -> None:
    data = opened(written, balance=1.0, shuffle_shards=1, batch_size=1, budget=Budget(passes=1), num_epochs=1)
    assert data._record is not None
    shard_of = np.repeat(np.arange(3), data._record.splits["train"].shards)
    batches_seen = list(data.train_dataloader())
    labels = [int(batch["label"]) for batch in batches_seen]
    assert max(labels.count(n) for n in range(3)) - min(labels.count(n) for n in range(3)) <= 1
    assert np.count_nonzero(np.diff(shard_of[[int(batch["index"]) for batch in batches_seen]])) > 2


def test_a_run_on_shards_resumes_bit_for_bit_in_the_middle_of_a_pass(written: Path, tmp_path: Path) -> None:
    whole = classifier()
    keeps = ModelCheckpoint(tmp_path, filename="half", every_n_train_steps=4)
    first = tiny_trainer(tmp_path, callbacks=[keeps], enable_checkpointing=True)
    first.fit(whole, datamodule=opened_for(written))
    resumed = classifier(seed=1)  # whose initial weights the checkpoint must replace
    resumed.seed = whole.seed
    second = tiny_trainer(tmp_path)
    data = opened_for(written, num_workers=2)
    second.fit(resumed, datamodule=data, ckpt_path=str(tmp_path / "half.ckpt"))
    assert second.global_step == 6
    assert not same_tensors(whole.state_dict(), classifier().state_dict())
    assert same_tensors(resumed.state_dict(), whole.state_dict())


def opened_for(written: Path, **settings: Any) -> Shards:
    values: dict[str, Any] = {**DATA, "budget": Budget(steps=6), "index_dir": str(written / "copies")}
    return Shards(str(written / "shards"), **(values | settings))


def test_a_folder_without_shards_is_refused_by_name(written: Path) -> None:
    with pytest.raises(UserError, match=r"shapes holds no shards that can be read"):
        Shards(str(written / "shapes")).prepare_data()


def test_a_folder_that_holds_something_is_not_overwritten(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data.index_dir", str(written / "data")]
    shapes = str(written / "shapes")
    assert main(["shard", "--data.root", shapes, "--out", shapes, *options]) == 1
    assert "shapes is not empty" in capsys.readouterr().err


def test_several_labels_an_image_are_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "1.png", 1)
    (tmp_path / "list.csv").write_text("path,label\n1.png,a|b\n")
    given = ["--data", "Manifest", "--data.manifest", str(tmp_path / "list.csv"), "--data.splits.labels", "several"]
    assert main(["shard", *given, "--out", str(tmp_path / "shards")]) == 1
    assert "shard writes one class per image" in capsys.readouterr().err


def test_without_litdata_the_way_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **settings: Any) -> Any:
        if name.partition(".")[0] == "litdata":
            raise ModuleNotFoundError(name, name="litdata")
        return real(name, *arguments, **settings)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'lit-splitmask\[stream\]'"):
        Shards("s3://bucket/photos").prepare_data()


def test_no_recipe_is_chosen_for_shards(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("pretrain", "finetune"):
        assert main([command, "--data", "Shards", "--data.root", "s3://bucket/photos"]) == 1
        assert "--recipe NAME" in capsys.readouterr().err


def test_images_go_by_number_and_the_record_holds_their_names_once(written: Path) -> None:
    data = opened(written)
    samples = [*data.source.splits.values(), data.source.predict]
    assert data._record is not None
    for split in samples:
        assert split.numbers is not None
        assert isinstance(split.files, Selection)
        assert split.files.names is data._record.names
    assert [data.train_samples.key(index) for index in (0, 1)] == [0, 1]


def stored(**splits: list[str]) -> dict[str, Any]:
    """A record of an earlier version, without the order of names."""
    made = {
        name: {"files": files, "labels": [0] * len(files), "shards": [len(files)], "num_bytes": 1}
        for name, files in splits.items()
    }
    return {"splits": made, "class_names": ["a"], "mean": [0.5] * 3, "std": [0.2] * 3}


def test_a_record_without_the_order_of_names_is_sorted() -> None:
    record = ShardRecord.from_json(stored(train=["c", "a"], test=["b"]))
    assert [record.names[number] for number in record.by_name] == ["a", "b", "c"]
    assert record.splits["test"].numbers.tolist() == [2]


def test_an_empty_split_takes_no_image_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    record = ShardRecord.from_json(stored(train=["c", "a"], val=[], test=["b"]))
    reader = ShardReader(ShardPlace("x", "y"), record, draft_size=8, cache_bytes=1, window=None)
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(reader, "_item", lambda part, number: asked.append((part, number)) or {"image": b""})
    monkeypatch.setattr("lit_splitmask.images.shards.decode", lambda name, *_: name)
    assert [reader(number) for number in range(3)] == ["c", "a", "b"]
    assert asked == [("train", 0), ("train", 1), ("test", 0)]
