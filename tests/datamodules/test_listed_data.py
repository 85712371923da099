"""What published datasets share: their index, and parts of their training images."""

from collections.abc import Callable
from pathlib import Path

import pytest
from folder_data import ready
from replicas import draw

from lit_splitmask.config_files import up_to_date
from lit_splitmask.datamodules import listed_data
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.errors import UserError

Make = Callable[..., ListedData]


def test_many_damaged_images_are_refused_and_one_of_many_is_left_out(
    make_published: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_published("COCO")
    (tmp_path / "data/train2017/0.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="1 of the 10 images"):
        data.prepare_data()
    monkeypatch.setattr("lit_splitmask.datamodules.listed_data.MAX_UNREADABLE", 0.1)
    assert len(ready(data).train_samples) == 5


def test_a_second_start_opens_no_image(make_published: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_published("Clipart").load_or_make()
    monkeypatch.setattr(listed_data, "read_shape", lambda path: pytest.fail(f"{path} was opened again"))
    assert make_published("Clipart", replica=False).load_or_make() == first


def test_a_second_start_reads_the_index_and_a_change_renews_it(make_published: Make, tmp_path: Path) -> None:
    data = make_published("COCO")
    data.prepare_data()
    written = data.record.stat().st_mtime_ns
    data.prepare_data()
    assert data.record.stat().st_mtime_ns == written
    draw(tmp_path / "data/train2017/6.jpg", 6)
    assert len(ready(data).train_samples) == 7


def test_a_share_of_the_training_images_can_be_set_aside(make_published: Make) -> None:
    data = ready(make_published("ImageNet", val_share=0.4))
    assert {split: len(samples) for split, samples in data.source.splits.items()} == {"train": 4, "val": 2, "test": 4}
    assert data.table_passes is None
    with pytest.raises(UserError, match="val_share=1"):
        make_published("ImageNet", replica=False, val_share=1.0)


def test_there_is_no_pool_since_copies_of_test_images_would_not_be_found_in_it(make_published: Make) -> None:
    with pytest.raises(TypeError, match="pool"):
        make_published("ImageNet", replica=False, pool=["more"])


def test_a_published_list_names_the_training_images(make_published: Make, tmp_path: Path) -> None:
    (tmp_path / "1percent.txt").write_text("n01440764_train_1.JPEG\r\nn01443537_train_0.JPEG\r\n")
    data = ready(make_published("ImageNet", subset_list=str(tmp_path / "1percent.txt")))
    assert [Path(file).name for file in data.train_samples.files] == [
        "n01440764_train_1.JPEG",
        "n01443537_train_0.JPEG",
    ]
    assert len(data.source.splits["test"]) == 4
    assert data.table_passes is None
    (tmp_path / "1percent.txt").write_text("n01440764_val_1.JPEG\n")
    with pytest.raises(UserError, match="names 1 images, of which 0 are training images"):
        make_published("ImageNet", replica=False, subset_list=str(tmp_path / "1percent.txt")).prepare_data()
    with pytest.raises(UserError, match="does not exist"):
        make_published("ImageNet", replica=False, subset_list="none.txt").prepare_data()


def test_any_share_is_balanced_and_nested_down_to_one_image_per_class(make_published: Make) -> None:
    one = ready(make_published("ImageNet", label_share=0.001)).train_samples
    two = ready(make_published("ImageNet", replica=False, label_share=0.67)).train_samples
    assert sorted(one.labels.tolist()) == [0, 1]
    assert sorted(two.labels.tolist()) == [0, 0, 1, 1]
    assert set(one.files) < set(two.files)


def test_saved_settings_with_an_empty_pool_still_load() -> None:
    def arguments(name: str, pool: list[str]) -> dict[str, object]:
        config = {"class_path": f"lit_splitmask.datamodules.{name}", "init_args": {"root": "x", "pool": pool}}
        loaded: dict[str, object] = up_to_date(config)["init_args"]
        return loaded

    assert arguments("Food101", []) == {"root": "x"}
    assert arguments("Food101", ["more"]) == {"root": "x", "pool": ["more"]}
    assert arguments("ImageFolder", []) == {"root": "x", "pool": []}
