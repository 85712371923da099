"""Images listed in a CSV file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from replicas import draw

from lit_splitmask.datamodules import Manifest
from lit_splitmask.datamodules.manifest import read_manifest
from lit_splitmask.errors import UserError
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.images.split import join

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a manifest, and the images that do not exist yet."""

    def write(*rows: str, images: bool = True, end: str = "\n") -> Path:
        path = tmp_path / "scans" / "list.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(end.join([*rows, ""]).encode())
        column = rows[0].split(",").index("path") if images else 0
        for number, row in enumerate(rows[1:] if images else []):
            file = path.parent / row.split(",")[column].replace("\\", "/")
            if not file.exists():
                draw(file, number)
        return path

    return write


def ready(path: Path, **settings: Any) -> Manifest:
    small = {"image_size": 16, "batch_size": 4, "num_workers": 0, "index_dir": str(path.parents[1] / "index")}
    data = Manifest(str(path), **(small | settings))
    data.prepare_data()
    data.setup("fit")
    return data


def patients(count: int, scans: int = 3) -> list[str]:
    """Rows of several scans per patient; half of the patients are ill."""
    return [
        f"p{patient}/{scan}.png,{'ill' if patient % 2 else 'well'},p{patient}"
        for patient in range(count)
        for scan in range(scans)
    ]


def test_labels_and_splits_come_from_the_file(write: Write) -> None:
    rows = [
        "split,path,note,label",
        "train,a/1.png,x,dog",
        "TRAIN,a/2.png,,cat",
        "valid,b/1.png,,cat",
        "test,b\\2.png,,dog",
    ]
    data = ready(write(*rows, end="\r\n"))
    found = {
        name: dict(zip(split.files, split.labels.tolist(), strict=True)) for name, split in data.source.splits.items()
    }
    assert data.class_names == ["cat", "dog"]
    assert found == {"train": {"a/1.png": 1, "a/2.png": 0}, "val": {"b/1.png": 0}, "test": {"b/2.png": 1}}
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 16, 16)


def test_missing_splits_are_cut_in_whole_groups(write: Write) -> None:
    data = ready(write("path,label,group", *patients(20)), splits=SplitOptions(val_share=0.2, test_share=0.2))
    where = {name: {file.split("/")[0] for file in split.files} for name, split in data.source.splits.items()}
    assert where.keys() == {"train", "val", "test"}
    assert sum(map(len, where.values())) == len(set.union(*where.values())) == 20
    for split in data.source.splits.values():
        assert set(split.labels.tolist()) == {0, 1}


def test_identical_images_join_their_groups(write: Write, tmp_path: Path) -> None:
    path = write("path,label,group", *patients(12))
    for patient in range(11):  # a chain of copies through all patients
        draw(path.parent / f"p{patient}/2.png", 1000 + patient)
        draw(path.parent / f"p{patient + 1}/0.png", 1000 + patient)
    data = ready(path)
    assert list(data.source.splits) == ["train"]  # one group cannot be split


def test_joining_is_transitive() -> None:
    hashes = {"a": "1", "b": "1", "c": "2", "d": "3", "e": "2", "f": "4"}
    keys = join(hashes, {"b": "x", "c": "x", "d": "y"})
    assert keys["a"] == keys["b"] == keys["c"] == keys["e"]
    assert len({keys["a"], keys["d"], keys["f"]}) == 3


def test_groups_that_the_given_splits_divide_are_reported(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    ready(write("path,split,group", "1.png,train,p1", "2.png,test,p1", "3.png,train,p2"))
    assert "1 group(s) have images in more than one of the given splits, such as p1" in caplog.text


def test_without_labels_it_serves_pretraining(write: Write) -> None:
    data = ready(write("path", *(f"{number}.png" for number in range(20))))
    assert data.num_classes == 0
    assert len(data.train_samples) == 18
    labelled = write("path,label", *(f"{number}.png,{number % 2}" for number in range(20)))
    ignoring = ready(labelled, splits=SplitOptions(labels="none"), index_dir=str(labelled.parent / "other"))
    assert ignoring.num_classes == 0


def test_a_second_start_uses_the_index_and_a_change_is_refused(write: Write) -> None:
    rows = ["path,label", *(f"{number}.png,{number % 2}" for number in range(20))]
    path = write(*rows)
    first = ready(path)
    written = first.record.stat().st_mtime_ns
    assert list(ready(path).train_samples.files) == list(first.train_samples.files)
    assert first.record.stat().st_mtime_ns == written
    write(*rows, "20.png,0")
    with pytest.raises(UserError, match=r"has changed since.*delete"):
        ready(path)
    write(*rows[:-1], "19.png,0")
    with pytest.raises(UserError, match="has changed since"):
        ready(path)
    write(*rows)
    draw(path.parent / "3.png", 99)
    with pytest.raises(UserError, match="1 changed"):
        ready(path)


@pytest.mark.parametrize("changed", ["0.png,b,train,p1", "0.png,a,val,p1", "0.png,a,train,p2"])
def test_another_label_split_or_group_is_a_change_but_another_order_is_not(write: Write, changed: str) -> None:
    first, *rest = ["0.png,a,train,p1", "1.png,b,train,p2", "2.png,a,val,p3", "3.png,b,test,p4"]
    header = "path,label,split,group"
    ready(write(header, first, *rest))
    ready(write(header, *rest, first))
    with pytest.raises(UserError, match="has changed since"):
        ready(write(header, changed, *rest))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["file,label", "1.png,a"], "column path.*it has file, label and 1 rows"),
        (["path,label"], "0 rows"),
        (["path", "1.png", "1.png"], "1.png in more than one row"),
        (["path,label", "1.png,a", ",b"], "Row 3 of the manifest"),
        (["path,label", "1.png,a", "2.png,"], "some images a label, but not 2.png"),
        (["path,split", "1.png,train", "2.png,"], "some images a split, but not 2.png"),
        (["path,split", "1.png,training"], "'training': use train, val or test"),
    ],
)
def test_unusable_manifests_are_refused(rows: list[str], message: str, write: Write) -> None:
    with pytest.raises(UserError, match=message):
        read_manifest(write(*rows, images=False))


def test_missing_files_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"2 of the 2 images .* 1\.png, 2\.png"):
        ready(write("path", "1.png", "2.png", images=False))
    (tmp_path / "scans" / "list.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(UserError, match="UTF-8"):
        read_manifest(tmp_path / "scans" / "list.csv")
