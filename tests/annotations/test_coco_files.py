"""Which files of a folder hold COCO's annotations, and for which split."""

import json
import os
from pathlib import Path

import pytest

from lit_splitmask.annotations import coco_files
from lit_splitmask.annotations.coco_files import find_annotations, looks_like_coco
from lit_splitmask.errors import UserError

COCO = json.dumps({"info": {}, "images": [], "annotations": [], "categories": []})


def write(root: Path, *files: str, text: str = COCO) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    return root


def found(root: Path) -> dict[str, str]:
    return {split: path.relative_to(root).as_posix() for split, path in find_annotations(root).items()}


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["annotations/instances_train.json", "annotations/instances_val.json"], ["train", "val"]),
        (["annotations/instances_train2017.json", "annotations/instances_val2017.json"], ["train", "val"]),
        (["annotations/instances_Train.json", "annotations/instances_valid.json"], ["train", "val"]),
        (["annotations/instances_default.json"], ["train"]),
        ([f"{split}/_annotations.coco.json" for split in ("train", "valid", "test")], ["train", "val", "test"]),
        (["_annotations.coco.json"], ["train"]),
        (["fish/train/_annotations.coco.json"], ["train"]),
        (["result.json"], ["train"]),
        (["train.json", "dev.json", "coco_test.json"], ["train", "val", "test"]),
        (["train/labels.json", "validation/labels.json"], ["train", "val"]),
        (["annotations/livecell_train.json", "annotations/livecell_val.json"], ["train", "val"]),
    ],
)  # fmt: skip
def test_annotation_files_are_found_with_their_splits(tmp_path: Path, files: list[str], splits: list[str]) -> None:
    assert found(write(tmp_path, *files)) == dict(zip(splits, files, strict=True))
    assert looks_like_coco(tmp_path)


def test_other_files_are_not_annotations(tmp_path: Path) -> None:
    write(tmp_path, "meta.json", "a/b/c/labels.json", text='{"images": 1}')
    write(tmp_path, "annotations/captions_train.json", text='{"images": [], "annotations": []}')
    write(tmp_path, "settings.json", text=json.dumps({"images": "annotations", "annotations": "x", "categories": 3}))
    write(tmp_path, "empty.json", text="")
    write(tmp_path, "photo.jpg", "photo.json")  # such as labelme's, beside its image
    assert find_annotations(tmp_path) == {}


def test_files_of_other_names_count_only_without_any_of_a_known_name(tmp_path: Path) -> None:
    write(tmp_path, "annotations/instances_train.json", "mine.json", "train/labels.json")
    assert found(tmp_path) == {"train": "annotations/instances_train.json"}


def test_a_damaged_file_with_cocos_words_is_found_so_that_it_can_be_named(tmp_path: Path) -> None:
    assert found(write(tmp_path, "labels.json", text=COCO[:-1])) == {"train": "labels.json"}


def test_a_large_file_is_known_without_parsing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_files, "_LARGEST", 10)
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("parsed"))
    assert found(write(tmp_path, "labels.json")) == {"train": "labels.json"}


def test_cocos_very_names_come_before_others_for_the_same_split(tmp_path: Path) -> None:
    names = [f"annotations/instances_train{suffix}.json" for suffix in ("", "2017", "_small", "2014")]
    assert found(write(tmp_path, *names))["train"] == names[0]
    (tmp_path / names[0]).unlink()
    assert found(tmp_path)["train"] == names[1]
    (tmp_path / names[1]).unlink()
    with pytest.raises(UserError, match=r"2 annotation files for train .*--data\.annotations '\{train: annotations/"):
        found(tmp_path)


def test_two_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        write(tmp_path, *(f"{name}/{split}/_annotations.coco.json" for split in ("train", "valid", "test")))
    with pytest.raises(UserError, match=r"2 annotation files for train \(v1/.*, v2/.*\): pass .* --data\.root .*/v1\."):
        found(tmp_path)


def test_two_files_for_each_split_are_refused_with_a_command_that_names_every_split(tmp_path: Path) -> None:
    write(tmp_path, "train_a.json", "train_b.json", "val_a.json", "val_b.json", "test_a.json")
    expected = r"--data\.annotations '\{train: train_a\.json, val: val_a\.json, test: test_a\.json\}'"
    with pytest.raises(UserError, match=expected):
        found(tmp_path)


def test_given_files_are_relative_to_the_current_folder_or_to_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "set", "annotations/instances_train.json", "labels/mine.json")
    write(tmp_path, "here.json")
    monkeypatch.chdir(tmp_path)
    assert find_annotations(root, "here.json") == {"train": Path("here.json")}
    both = {"testing": "labels/mine.json", "train": "here.json"}
    assert list(find_annotations(root, both)) == ["train", "test"]
    assert os.path.samefile(find_annotations(root, both)["test"], root / "labels" / "mine.json")
    for given, message in (
        ("gone.json", r"no annotation file gone\.json"),
        ({"photos": "here.json"}, "names the split 'photos'"),
        ({"val": "here.json", "valid": "here.json"}, "names two files for val"),
    ):
        with pytest.raises(UserError, match=message):
            find_annotations(root, given)  # type: ignore[arg-type]
