import logging
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from records import as_json, rewrite
from test_decode import huge_png

from lit_splitmask.errors import UserError
from lit_splitmask.images import build_index, scan
from lit_splitmask.images.build_index import load_or_make
from lit_splitmask.images.glance import glance
from lit_splitmask.images.index import FolderIndex, SplitOptions, load_index

MakeFolder = Callable[..., Path]


@pytest.fixture
def index_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "data"


def make(root: Path, index_dir: Path, **options: object) -> FolderIndex:
    return load_or_make(root, index_dir, SplitOptions(**options))  # type: ignore[arg-type]


def test_class_folders_are_split_by_the_default_shares(class_folder: MakeFolder, index_dir: Path) -> None:
    index = make(class_folder(per_class=20), index_dir)
    assert {name: len(files) for name, files in index.splits.items()} == {"train": 42, "val": 6, "test": 12}
    assert index.classes == ["disc", "square", "stripes"]
    assert index.labels(["disc/disc000.png", "stripes/stripes001.png"]).tolist() == [0, 2]
    assert "train 42, val 6, test 12 images; 3 classes" in index.describe()


def test_images_without_labels_get_a_val_split_only(flat_folder: MakeFolder, index_dir: Path) -> None:
    index = make(flat_folder(20), index_dir)
    assert {name: len(files) for name, files in index.splits.items()} == {"train": 18, "val": 2}
    assert index.labels(index.splits["train"]).tolist() == [-1] * 18
    assert index.median_size == (48, 56)


@pytest.mark.parametrize("given", ["test", "val"])
def test_a_missing_split_is_cut_from_train(split_folder: MakeFolder, index_dir: Path, given: str) -> None:
    index = make(split_folder(**{"train": 10, given: 2}), index_dir)
    missing = {"test": "val", "val": "test"}[given]
    assert len(index.splits[given]) == 6
    assert len(index.splits[missing]) == {"val": 3, "test": 6}[missing]
    assert all(file.startswith("train/") for file in index.splits[missing])


def test_nothing_is_written_into_the_image_folder(class_folder: MakeFolder, index_dir: Path) -> None:
    root = class_folder()
    before = sorted(root.rglob("*"))
    index = make(root, index_dir)
    assert sorted(root.rglob("*")) == before
    assert index.path.parent.parent == index_dir
    assert index.path.parent.name.startswith("shapes-")


def test_the_second_call_decodes_nothing(
    class_folder: MakeFolder, index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folder()
    first = make(root, index_dir)
    monkeypatch.setattr(scan, "read_pixels", None)
    assert make(root, index_dir) == first


def test_identical_images_are_removed_from_train_and_reported(
    split_folder: MakeFolder, index_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = split_folder(train=6, val=2, test=2)
    shutil.copy(root / "test/disc/disc008.png", root / "train/square/again.png")
    Image.open(root / "val/disc/disc006.png").save(root / "train/disc/other_format.bmp")
    shutil.copy(root / "train/disc/disc000.png", root / "train/stripes/mislabelled.png")
    index = make(root, index_dir)
    assert {(entry.file, entry.same_as) for entry in index.dropped} == {
        ("train/square/again.png", "test/disc/disc008.png"),
        ("train/disc/other_format.bmp", "val/disc/disc006.png"),
    }
    assert index.conflicts == [["train/disc/disc000.png", "train/stripes/mislabelled.png"]]
    assert not {"train/square/again.png", "train/disc/other_format.bmp"} & set(index.splits["train"])
    assert "train/stripes/mislabelled.png" in index.splits["train"]
    for name in ("again.png", "other_format.bmp", "mislabelled.png", "2 image(s) were removed"):
        assert name in caplog.text
    assert make(root, index_dir) == index


def test_a_file_that_cannot_be_decoded_is_left_out_and_named_once(
    class_folder: MakeFolder, index_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = class_folder(per_class=20)
    (root / "disc/broken.jpg").write_bytes(b"no image")
    (root / "disc/dangling.jpg").symlink_to(root / "nowhere.jpg")
    with caplog.at_level(logging.WARNING):
        index = make(root, index_dir, max_bad_share=0.1)
        assert make(root, index_dir) == index
    assert set(index.unreadable) == {"disc/broken.jpg", "disc/dangling.jpg"}
    assert len(index.files) == 60
    assert caplog.text.count("broken.jpg cannot be decoded") == 1


@pytest.mark.parametrize(
    ("num_good", "num_bad", "share", "is_refused"),
    [
        (20, 3, 0.02, False),  # three files may be bad in any case
        (20, 4, 0.02, True),
        (20, 4, 0.2, False),
        (3, 3, 0.02, False),
        (2, 3, 0.02, True),  # but not more than half
        (1, 1, 0.02, False),
        (1, 2, 0.0, True),
        (1, 2, 0.7, False),
    ],
)
def test_a_few_files_that_cannot_be_read_are_left_out_and_more_are_an_error(
    flat_folder: MakeFolder, index_dir: Path, num_good: int, num_bad: int, share: float, is_refused: bool
) -> None:
    root = flat_folder(num_good)
    for number in range(num_bad):
        (root / f"bad{number}.jpg").write_bytes(b"no image")
    if is_refused:
        says = (
            rf"{num_bad} of the {num_good + num_bad} images .* max_bad_share={share} allows: bad0\.jpg.*not an image of"
        )
        with pytest.raises(UserError, match=says):
            make(root, index_dir, max_bad_share=share)
    else:
        index = make(root, index_dir, max_bad_share=share)
        assert (len(index.files), len(index.unreadable)) == (num_good, num_bad)


@pytest.mark.parametrize("count", [1, 4])
def test_a_folder_of_broken_files_is_an_error(tmp_path: Path, index_dir: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"bad{number}.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=rf"None of the {count} images in .* can be read: bad0\.jpg"):
        make(tmp_path, index_dir, max_bad_share=1.0)


def test_images_that_pillow_refuses_are_left_out_and_named(
    flat_folder: MakeFolder, index_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = flat_folder(8)
    huge_png(root / "pano.png")
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * 3_000_000, zip=True)
    Image.new("RGB", (9, 9)).save(root / "comfy.png", pnginfo=text)
    assert glance(root).median_side > 0
    index = make(root, index_dir)
    assert set(index.unreadable) == {"pano.png", "comfy.png"}
    for name in index.unreadable:
        assert f"{name} cannot be decoded: " in caplog.text


def test_what_is_not_read_is_named_once_per_process(
    class_folder: MakeFolder, index_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = class_folder(per_class=10)
    for name in ("IMG_1.HEIC", "IMG_2.HEIC", "film.mp4"):
        (root / "disc" / name).touch()
    shutil.copy(root / "disc/disc000.png", root / "disc/IMG_3")
    shutil.copy(root / "disc/disc000.png", root / "logo.png")
    for _ in range(2):
        caplog.clear()
        build_index._reported.clear()  # as in another process
        with caplog.at_level(logging.INFO):
            make(root, index_dir)
            make(root, index_dir)
        for says in (
            "is read as 3 class folders, 30 images. Evidence: its folders are disc, square, stripes",
            "1 image(s) beside the class folders are left out, such as logo.png",
            "Not read: 2 HEIC (convert to JPEG",
            "Not read: 1 images without a known extension (add it, such as .jpg), such as disc/IMG_3",
            "Not read: 1 videos (extract frames), such as disc/film.mp4",
        ):
            assert caplog.text.count(says) == 1


def test_classes_that_differ_in_capitals_are_pointed_out(
    class_folder: MakeFolder, index_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = class_folder(per_class=3)
    (root / "square").rename(root / "Disc")
    make(root, index_dir)
    assert "differ in capitals or spaces only: Disc, disc" in caplog.text


def test_an_index_from_before_layouts_is_accepted(class_folder: MakeFolder, index_dir: Path) -> None:
    root = class_folder(per_class=3)
    index = make(root, index_dir)
    as_json(index.path, lambda stored: stored["options"].pop("layout"))
    assert make(root, index_dir).splits == index.splits
    assert make(root, index_dir, layout="classes").splits == index.splits
    with pytest.raises(UserError, match=f"Pass the --layout that was meant then, or delete {index.path}"):
        make(root, index_dir, layout="flat")  # has been written anew


def test_an_index_with_decomposed_class_names_is_accepted(class_folder: MakeFolder, index_dir: Path) -> None:
    root = class_folder(per_class=3)
    decomposed = unicodedata.normalize("NFD", "é")
    (root / "disc").rename(root / decomposed)
    index = make(root, index_dir)
    assert index.classes == ["square", "stripes", "é"]
    as_json(index.path, lambda stored: stored.update(classes=[decomposed, "square", "stripes"]))
    again = make(root, index_dir)
    assert again.classes == [decomposed, "square", "stripes"]
    assert again.labels([f"{decomposed}/disc000.png", "square/square000.png"]).tolist() == [0, 1]


def test_an_index_whose_classes_are_read_differently_now_is_refused_with_the_way(
    split_folder: MakeFolder, index_dir: Path
) -> None:
    root = split_folder(Training=4, Testing=2)
    index = make(root, index_dir, layout="classes")
    assert index.classes == ["Testing", "Training"]
    as_json(index.path, lambda stored: stored["options"].pop("layout"))  # as before split names were known in any dress
    with pytest.raises(
        UserError, match=r"is read differently .* now as split folders .*; before as 2 class folders"
    ) as caught:
        make(root, index_dir)
    assert f"delete {index.path.with_suffix('.json')}" in str(caught.value)
    assert make(root, index_dir, layout="classes").classes == index.classes
    index.path.unlink()
    assert make(root, index_dir).classes == ["disc", "square", "stripes"]


def test_a_new_class_folder_is_a_change_and_no_question_of_the_layout(
    class_folder: MakeFolder, index_dir: Path
) -> None:
    root = class_folder(per_class=3)
    make(root, index_dir)
    (root / "more").mkdir()
    shutil.copy(root / "disc/disc000.png", root / "more/1.png")
    with pytest.raises(UserError, match="Restore the folder, or delete"):
        make(root, index_dir)


@pytest.mark.parametrize("kind", ["added", "missing", "changed"])
def test_a_changed_folder_is_an_error(class_folder: MakeFolder, index_dir: Path, kind: str) -> None:
    root = class_folder()
    path = make(root, index_dir).path
    file = root / "disc/disc003.png"
    if kind == "added":
        shutil.copy(file, root / "disc/new.png")
    elif kind == "missing":
        file.unlink()
    else:
        shutil.copy(root / "disc/disc004.png", file)
    name = "new" if kind == "added" else "disc003"
    with pytest.raises(UserError, match=f"1 {kind} \\(disc/{name}.png\\).*delete {path}"):
        make(root, index_dir)


def test_a_copied_folder_with_new_modification_times_is_unchanged(
    class_folder: MakeFolder, index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folder()
    before = make(root, index_dir)
    for file in before.files:
        os.utime(root / file, ns=(1, 1))
    after = make(root, index_dir)
    assert after.splits == before.splits
    assert {record.mtime_ns for record in after.files.values()} == {1}
    monkeypatch.setattr("lit_splitmask.images.changes.examine", None)  # the new times are saved: nothing is read again
    assert make(root, index_dir) == after


def test_files_next_to_the_split_folders_may_change(split_folder: MakeFolder, index_dir: Path) -> None:
    root = split_folder()
    index = make(root, index_dir)
    shutil.copy(root / "train/disc/disc000.png", root / "logo.png")
    assert make(root, index_dir) == index


@pytest.mark.parametrize(
    ("option", "value", "stored"),
    [("seed", 1, "0"), ("val_share", 0.3, "0.1"), ("labels", "none", "auto"), ("layout", "flat", "auto")],
)
def test_other_options_are_an_error(
    class_folder: MakeFolder, index_dir: Path, option: str, value: object, stored: str
) -> None:
    root = class_folder()
    make(root, index_dir)
    with pytest.raises(UserError, match=f"{option}={value} \\(stored: {stored}\\)"):
        make(root, index_dir, **{option: value})


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"version": 1}', '{"version": 1, "files": 3}'])
def test_a_damaged_index_is_a_user_error(class_folder: MakeFolder, index_dir: Path, text: str) -> None:
    root = class_folder(per_class=3)
    path = make(root, index_dir).path
    path.write_text(text)
    with pytest.raises(UserError, match=r"is damaged .*Delete it"):
        make(root, index_dir)


def test_an_index_of_another_version_is_a_user_error(class_folder: MakeFolder, index_dir: Path) -> None:
    root = class_folder(per_class=3)
    path = make(root, index_dir).path
    rewrite(path, version=99)
    with pytest.raises(UserError, match="version 99"):
        make(root, index_dir)
    path.unlink()
    as_json(make(root, index_dir).path, lambda stored: stored.update(version=1))
    with pytest.raises(UserError, match=r"splits\.json has version 1"):
        make(root, index_dir)


def test_an_index_of_the_json_version_is_read_and_written_anew(split_folder: MakeFolder, index_dir: Path) -> None:
    root = split_folder(train=6, val=2)
    shutil.copy(root / "val/disc/disc006.png", root / "train/square/again.png")
    (root / "train/disc/broken.jpg").write_bytes(b"no image")
    index = make(root, index_dir)
    old = as_json(index.path)
    assert load_index(index.path) == index
    assert make(root, index_dir) == index
    assert index.path.exists()
    assert not old.exists()
    assert load_index(index.path) == index


CUT = np.arange(2, dtype=np.int32)
HOSTILE = {
    "splits beyond the files": {"splits_train": np.array([0, 99], dtype=np.int32)},
    "splits before them": {"splits_train": np.array([-1], dtype=np.int32)},
    "unknown splits": {"splits": ["train", "../x"]},
    "labels without a class": {"labels": np.full(9, 3, dtype=np.int32)},
    "fewer labels": {"labels": CUT},
    "fewer sizes": {"files_sizes": CUT.astype(np.int64)},
    "flat shapes": {"files_shapes": np.zeros(9, dtype=np.int32)},
    "floats": {"files_sizes": np.zeros(9)},
    "ends in disorder": {"files_ends": np.arange(9, dtype=np.int64)[::-1]},
    "ends beyond the text": {"files_ends": np.full(9, 10**9, dtype=np.int64)},
    "no text": {"files_text": np.full(9 * 16, 0xFF, dtype=np.uint8)},
    "no digests": {"digests": 3},
    "no dataclass": {"dropped": [{"file": "x"}]},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_index_is_a_user_error(class_folder: MakeFolder, index_dir: Path, change: dict[str, Any]) -> None:
    path = make(class_folder(per_class=3), index_dir).path
    rewrite(path, **change)
    with pytest.raises(UserError, match=r"is damaged .*Delete it"):
        load_index(path)


def test_a_digest_that_is_none_is_computed(class_folder: MakeFolder, index_dir: Path) -> None:
    index = make(class_folder(per_class=3), index_dir)
    digest = index.pixel_digest(2)
    rewrite(index.path, digests={"2": "../../precious"})
    assert load_index(index.path).pixel_digest(2) == digest


def test_deleting_the_index_gives_the_same_split(class_folder: MakeFolder, index_dir: Path) -> None:
    root = class_folder()
    index = make(root, index_dir)
    index.path.unlink()
    assert make(root, index_dir) == index


def test_what_is_set_aside_is_said_in_a_sentence(
    split_folder: MakeFolder, index_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        load_or_make(split_folder(train=10), index_dir, SplitOptions())
    assert "of your 30 training images were set aside as test." in caplog.text
    assert "of your 30 training images were set aside as val." in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        load_or_make(split_folder("given", train=5, val=3, test=3), index_dir, SplitOptions())
    assert "set aside" not in caplog.text
