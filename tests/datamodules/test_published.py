"""The ten datasets, on tiny replicas of their official layouts."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from replicas import REPLICAS, domain, draw, food

from lit_splitmask import datamodules
from lit_splitmask.datamodules import listed_data
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.paper import FACTS, table_3
from lit_splitmask.errors import UserError

NAMES = [
    "ImageNet",
    "INaturalist2018",
    "INaturalist2019",
    "Food101",
    "StanfordCars",
    "Clipart",
    "Painting",
    "Sketch",
    "ADE20K",
    "COCO",
]  # fmt: skip
LABELLED = NAMES[:-2]


Make = Callable[..., ListedData]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a replica under ``tmp_path/data`` and its datamodule."""

    def make(name: str, *, replica: bool = True, **settings: Any) -> ListedData:
        if replica:
            REPLICAS[name](tmp_path / "data")
        small = {"image_size": 16, "batch_size": 4, "num_workers": 0, "index_dir": str(tmp_path / "index")}
        return getattr(datamodules, name)(str(tmp_path / "data"), **(small | settings))

    return make


def ready(data: ListedData) -> ListedData:
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.parametrize("name", NAMES)
def test_a_replica_in_the_official_layout_is_read(name: str, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    data = ready(make(name))
    assert {split: len(samples) for split, samples in data.source.splits.items()} == {"train": 6, "test": 4}
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 16)
    assert data.num_classes == (2 if name in LABELLED else 0)
    if name in LABELLED:
        assert sorted(data.train_samples.labels.tolist()) == [0, 0, 0, 1, 1, 1]
        for samples in data.source.splits.values():
            for file, label in zip(samples.files, samples.labels, strict=True):
                expected = {"40": "b", "7": "a"}.get(Path(file).parent.name, Path(file).parent.name)
                if name != "StanfordCars":
                    assert data.class_names[label] == expected
    assert f"{data.facts.title}: 6 training and 4 test images, where the paper has" in caplog.text
    assert "Training goes on" in caplog.text
    next(iter(data.test_dataloader()))


def test_cars_carry_the_labels_of_their_annotations(make: Make) -> None:
    data = ready(make("StanfordCars"))
    labels = dict(zip(data.train_samples.files, data.train_samples.labels.tolist(), strict=True))
    assert labels["stanford_cars/cars_train/00000.jpg"] == 0
    assert labels["stanford_cars/cars_train/00003.jpg"] == 1
    assert data.class_names == ["Audi A5", "BMW M3"]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_dataset_says_where_it_comes_from(name: str, make: Make, tmp_path: Path) -> None:
    facts = getattr(datamodules, name).facts
    for folder in (False, True):
        if folder:
            (tmp_path / "data").mkdir()
        with pytest.raises(UserError) as error:
            make(name, replica=False).prepare_data()
        assert facts.where in str(error.value)
        assert ("lacks" if folder else "does not exist") in str(error.value)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Food101"])
def test_what_cannot_be_downloaded_says_so(name: str, make: Make) -> None:
    with pytest.raises(UserError, match="cannot be downloaded by a program"):
        make(name, replica=False, download=True).prepare_data()


def test_food_is_downloaded_by_torchvision(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    def fetch(root: str, *, download: bool) -> None:
        assert download
        food(Path(root))

    monkeypatch.setattr(torchvision.datasets, "Food101", fetch)
    assert len(ready(make("Food101", replica=False, download=True)).train_samples) == 6


def test_lists_with_windows_line_ends_are_read(make: Make, tmp_path: Path) -> None:
    domain(tmp_path / "data", "clipart", "\r\n")
    assert len(ready(make("Clipart", replica=False)).train_samples) == 6


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("name", "file", "change", "says"),
    [
        (
            "Clipart",
            "clipart_train.txt",
            lambda text: text.replace("zebra/train_0.jpg 1", "zebra/train_0.jpg 345"),
            "345",
        ),
        ("Clipart", "clipart_train.txt", lambda text: text.replace(".jpg 1", ".jpg one"), "a path and a label"),
        ("Clipart", "clipart_test.txt", lambda text: text.replace(".jpg 1", ".jpg 0"), "one release"),
        ("Sketch", "sketch_train.txt", lambda text: text + "sketch/zebra/gone.jpg 1\n", "1 of the 11 images.*gone.jpg"),
        ("INaturalist2018", "train2018.json", lambda text: text[:-20], "train2018.json is damaged"),
        ("INaturalist2018", "val2018.json", lambda text: text.replace('"category_id": 7', '"category_id": 8'), "8"),
        ("INaturalist2018", "val2018.json", lambda text: text.replace("val1.jpg", "none.jpg"), "2 of the 10 images"),
        ("Food101", "food-101/meta/test.json", lambda text: text.replace('"pizza":', '"soup":'), "different classes"),
    ],
)
def test_damaged_lists_are_refused(
    name: str, file: str, change: Callable[[str], str], says: str, make: Make, tmp_path: Path
) -> None:
    data = make(name)
    edit(tmp_path / "data" / file, change)
    with pytest.raises(UserError, match=says):
        data.prepare_data()


def test_damaged_matlab_files_are_refused(make: Make, tmp_path: Path) -> None:
    data = make("StanfordCars")
    (tmp_path / "data/stanford_cars/devkit/cars_train_annos.mat").write_bytes(b"nothing")
    with pytest.raises(UserError, match="MATLAB"):
        data.prepare_data()


def test_many_damaged_images_are_refused_and_one_of_many_is_left_out(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make("COCO")
    (tmp_path / "data/train2017/0.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="1 of the 10 images"):
        data.prepare_data()
    monkeypatch.setattr("lit_splitmask.datamodules.listed_data.MOST_UNREADABLE", 0.1)
    assert len(ready(data).train_samples) == 5


def test_a_second_start_opens_no_image(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make("Clipart").load_or_make()
    monkeypatch.setattr(listed_data, "read_shape", lambda path: pytest.fail(f"{path} was opened again"))
    assert make("Clipart", replica=False).load_or_make() == first


def test_a_second_start_reads_the_record_and_a_change_renews_it(make: Make, tmp_path: Path) -> None:
    data = make("COCO")
    data.prepare_data()
    written = data.record.stat().st_mtime_ns
    data.prepare_data()
    assert data.record.stat().st_mtime_ns == written
    draw(tmp_path / "data/train2017/6.jpg", 6)
    assert len(ready(data).train_samples) == 7


def test_a_share_of_the_training_images_can_be_set_aside(make: Make) -> None:
    data = ready(make("ImageNet", val_share=0.4))
    assert {split: len(samples) for split, samples in data.source.splits.items()} == {"train": 4, "val": 2, "test": 4}
    assert data.table_passes is None
    with pytest.raises(UserError, match="val_share=1"):
        make("ImageNet", replica=False, val_share=1.0)
    with pytest.raises(UserError, match=r"ImageNet takes no data.pool"):
        make("ImageNet", replica=False, pool=["more"])


def test_a_published_list_names_the_training_images(make: Make, tmp_path: Path) -> None:
    (tmp_path / "1percent.txt").write_text("n01440764_train_1.JPEG\r\nn01443537_train_0.JPEG\r\n")
    data = ready(make("ImageNet", subset_list=str(tmp_path / "1percent.txt")))
    assert [Path(file).name for file in data.train_samples.files] == [
        "n01440764_train_1.JPEG",
        "n01443537_train_0.JPEG",
    ]
    assert len(data.source.splits["test"]) == 4
    (tmp_path / "1percent.txt").write_text("n01440764_val_1.JPEG\n")
    with pytest.raises(UserError, match="names 1 images, of which 0 are training images"):
        make("ImageNet", replica=False, subset_list=str(tmp_path / "1percent.txt")).prepare_data()
    with pytest.raises(UserError, match="does not exist"):
        make("ImageNet", replica=False, subset_list="none.txt").prepare_data()


def test_any_share_is_balanced_and_nested_down_to_one_image_a_class(make: Make) -> None:
    one = ready(make("ImageNet", label_share=0.001)).train_samples
    two = ready(make("ImageNet", replica=False, label_share=0.67)).train_samples
    assert sorted(one.labels.tolist()) == [0, 1]
    assert sorted(two.labels.tolist()) == [0, 0, 1, 1]
    assert set(one.files) < set(two.files)


@pytest.mark.parametrize("name", NAMES)
def test_the_default_budget_is_table_3s(name: str, make: Make) -> None:
    data = ready(make(name))
    assert data.schedule.passes == pytest.approx(data.facts.passes, rel=0.02)  # whole epochs of a batch of 4


def test_the_rule_gives_table_3_within_the_papers_rounding() -> None:
    header, *rows = table_3()
    assert len(rows) == len(FACTS) == 10
    assert all(len(row) == len(header) for row in rows)
    off = {name: facts.passes / facts.rule_passes for name, facts in FACTS.items()}
    assert {name for name, ratio in off.items() if abs(ratio - 1) > 1e-3} == {"inat2018", "inat2019", "ade20k", "coco"}
    assert all(0.9 < ratio < 1.11 for ratio in off.values())


def test_other_releases_are_recognised_by_their_counts() -> None:
    assert "exactly the counts of the cleaned lists" in str(FACTS["clipart"].explain_counts(33_525, 14_604, 345))
    assert "official JSON" in str(FACTS["inat2019"].explain_counts(265_213, 3_030, 1_010))
    assert "files are missing" in str(FACTS["cars"].explain_counts(8_000, 8_041, 196))
    assert "195 classes" in str(FACTS["cars"].explain_counts(8_144, 8_041, 195))
    for facts in FACTS.values():
        assert facts.explain_counts(facts.table.train, facts.table.test, facts.classes) is None


def test_table_1s_subsets_follow_from_the_rule(caplog: pytest.LogCaptureFixture) -> None:
    from lit_splitmask.loading.budget import resolve

    caplog.set_level(logging.WARNING)
    for images, passes in ((128_116, 3_000), (12_811, 30_000)):
        assert resolve(None, images, 2048, max_passes=float("inf")).passes == pytest.approx(passes, rel=1e-4)
