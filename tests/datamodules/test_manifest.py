"""Images listed in a CSV file."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folder_data import stand_in
from records import as_json
from replicas import draw
from tiny_runs import classifier, tiny_trainer

from lit_splitmask.annotations.manifest_rows import read_manifest
from lit_splitmask.datamodules import Budget, Manifest
from lit_splitmask.errors import UserError
from lit_splitmask.images.folder_names import SPLITS
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.images.split import join
from lit_splitmask.modules import Classify

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
        (["x,label", "1,a"], "column path.*it has x, label and 1 rows"),
        (["1.png,a", "2.png,b"], "first line looks like an image"),
        (["path,label"], "0 rows"),
        (["path", "1.png", "1.png"], r"1.png in more than one row \(rows 2, 3\): give"),
        (["path,label", "1.png,a", "1.png,b"], "several labels of one image, put them into one cell"),
        (["path,label", "1.png,a", ",b"], "Row 3 of .* has no path"),
        (["path", "1\0.png"], "Row 2 of .* NUL"),
        (["path,label", "1.png,a,b"], "Row 2 of .* has 3 cells, but the header has 2"),
        (["path,split", "1.png,train", "2.png,"], r"some images a split, but not 2.png \(row 3\)"),
        (["path,split", "1.png,train", "2.png,fold3"], "2.png the split 'fold3'.* use train, val or test|Use train"),
        (["path,split", "1.png,train", "2.png,pred"], "the split 'pred'"),
        (["path,class,species", "1.png,bird,wren", "2.png,bird,tit"], "class, species. Rename the right one"),
    ],
)
def test_unusable_manifests_are_refused(rows: list[str], message: str, write: Write) -> None:
    with pytest.raises(UserError, match=message):
        read_manifest(write(*rows, images=False))


def test_missing_files_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(
        UserError, match=r"list\.csv lists are missing: 1\.png, 2\.png \(row 2\)\. They were looked for in .*scans"
    ):
        ready(write("path", "1.png", "2.png", images=False))
    (tmp_path / "scans" / "list.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(UserError, match="UTF-8"):
        read_manifest(tmp_path / "scans" / "list.csv")


def test_a_plain_manifest_has_the_digest_that_it_always_had(write: Write) -> None:
    """Else indexes of earlier versions, and the runs that were made with them, would be refused."""
    rows = (
        "path,label,split,group",
        "a/1.png,dog,train,p1",
        "a\\2.png,cat,TRAIN,p1",
        "b.png,cat,valid,",
        "c.png,dog,test,p2",
    )
    assert read_manifest(write(*rows, images=False)).digest == "a203d641ba3286d55cbe48708bf0eee8"


def test_an_index_without_newer_options_is_accepted(write: Write) -> None:
    path = write("path,label", *(f"{number}.png,{number % 2}" for number in range(20)))
    first = ready(path)
    as_json(first.record, lambda stored: stored["options"].pop("layout"))
    assert list(ready(path).train_samples.files) == list(first.train_samples.files)


def test_paths_that_differ_from_the_files_are_resolved_and_said(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = write("path,label", *(f"images/{number:03}.png,{number % 2}" for number in range(20)))
    path.write_text("\n".join(["image_id,label", *(f"{number:03},{number % 2}" for number in range(20))]))
    data = ready(path)
    assert sorted(file for samples in data.source.splits.values() for file in samples.files)[0] == "images/000.png"
    assert "20 of the listed paths do not exist as written" in caplog.text
    assert "000 -> images/000.png" in caplog.text
    assert "The path is read from the column 'image_id'." in caplog.text
    assert list(ready(path).train_samples.files) == list(data.train_samples.files)  # by the index


def for_fine_tuning(path: Path, **settings: Any) -> Manifest:
    """The datamodule with a trainer that runs a classifier."""
    small = {"image_size": 16, "batch_size": 4, "num_workers": 0, "index_dir": str(path.parents[1] / "index")}
    data = Manifest(str(path), **(small | settings))
    data.prepare_data()
    data.trainer = stand_in(lightning_module=Classify)  # type: ignore[assignment]
    data.setup("fit")
    return data


def splits_of(data: Manifest) -> dict[str, list[int]]:
    return {name: samples.labels.tolist() for name, samples in data.source.splits.items()}


def test_images_without_a_label_serve_pretraining_and_are_left_out_of_fine_tuning(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f"{number}.png,{'' if number >= 20 else number % 2}" for number in range(30)]
    path = write("path,label", *rows)
    unlabelled = {f"{number}.png" for number in range(20, 30)}
    pretrained = ready(path)
    labels = {
        file: label
        for samples in pretrained.source.splits.values()
        for file, label in zip(samples.files, samples.labels.tolist(), strict=True)
    }
    assert {file for file, label in labels.items() if label < 0} == unlabelled <= set(pretrained.train_samples.files)
    assert not pretrained.all_labelled
    tuned = for_fine_tuning(path)
    assert tuned.all_labelled
    assert splits_of(tuned) == {
        name: [label for label in found if label >= 0] for name, found in splits_of(pretrained).items()
    }
    assert tuned.num_classes == pretrained.num_classes == 2
    assert caplog.text.count("Images without a label are left out: 10 of train.") == 1


def test_a_test_split_without_labels_is_only_predicted(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"{number}.png,{number % 2},train" for number in range(16)] + [
        f"t{number}.png,,test" for number in range(4)
    ]
    path = write("path,label,split", *rows)
    caplog.set_level(logging.INFO)
    assert splits_of(ready(path))["test"] == [-1] * 4
    assert "4 of 20 images have no label" in caplog.text
    assert "4 of them are held out: to pre-train on these too, give them the split unlabelled" in caplog.text
    data = for_fine_tuning(path)
    assert data.source.splits.keys() == {"train", "val"}
    assert "4 of test. No image of test has one, so the test images are not evaluated, only predicted" in caplog.text
    with pytest.raises(UserError, match=r"test images in .* have no labels"):
        data.test_dataloader()
    data.setup("predict")
    assert len(data.predict_paths) == 20


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["path,breed", "1.png,a", "2.png,b"],
            "no image a label, and its other columns are breed: name the column of the",
        ),
        (["path,label,split", "1.png,a,test", "2.png,b,test", "3.png,,train"], "None of the 1 images of train"),
        (["path,label,split", "1.png,a,train", "2.png,b,train", "3.png,,val"], "None of the 1 images of val"),
    ],
)
def test_fine_tuning_without_labels_is_refused(rows: list[str], message: str, write: Write) -> None:
    with pytest.raises(UserError, match=message):
        for_fine_tuning(write(*rows))


def test_fine_tuning_with_labels_ignored_is_refused(write: Write) -> None:
    with pytest.raises(UserError, match=r"data\.splits\.labels=none ignores the labels"):
        for_fine_tuning(write("path,label", "1.png,a", "2.png,b"), splits=SplitOptions(labels="none"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs
def test_a_classifier_is_trained_and_tested_on_the_labelled_images_only(write: Write, tmp_path: Path) -> None:
    rows = [
        f"{split}{number}.png,{'' if number >= 6 else 'ab'[number % 2]},{split}"
        for split in SPLITS
        for number in range(8)
    ]
    path = write("path,label,split", *rows)
    data = Manifest(
        str(path), image_size=32, batch_size=4, budget=Budget(steps=3), num_workers=0, index_dir=str(tmp_path / "index")
    )
    module, trainer = classifier(), tiny_trainer(tmp_path)
    trainer.fit(module, datamodule=data)
    assert [len(samples) for samples in data.source.splits.values()] == [6, 6, 6]
    trainer.test(module, datamodule=data, verbose=False)
    assert int(module.confusion.sum()) == 6


def test_every_listed_image_is_predicted_and_no_other(write: Write) -> None:
    path = write("path,label,split", "a/1.png,x y,train", "a/2.png,x,fold", "b/3.png,,")
    draw(path.parent / "a/other.png", 9)
    (path.parent / "a/2.png").write_bytes(b"no image")
    path.write_text(path.read_text() + "gone.png,,\n")
    data = Manifest(str(path), image_size=16, batch_size=4, num_workers=0, index_dir=str(path.parents[1] / "index"))
    data.only_predict()
    data.prepare_data()
    data.setup("predict")
    assert list(data.predict_paths) == ["a/1.png", "b/3.png"]
    assert data.predict_problems.keys() == {"a/2.png", "gone.png"}
    assert not data.record.exists()


def test_a_list_of_missing_images_is_not_predicted(write: Write) -> None:
    data = Manifest(str(write("path", "1.png", images=False)), num_workers=0)
    with pytest.raises(UserError, match=r"1 of the 1 images .* are missing"):
        data.setup("predict")
