"""What is predicted in a COCO folder or any other, which ids it gets, and which classes."""

import logging
from pathlib import Path

import pytest
from coco_sets import CATEGORIES, change, coco_data, load, opened, rename, write_set
from lightning import Trainer
from PIL import Image

from lit_splitmask.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set", train=4, val=2)


def ids_of(root: Path, split: str) -> dict[str, int]:
    return {f"{split}/{image['file_name']}": image["id"] for image in load(root, split)["images"]}


def test_every_image_of_any_folder_is_predicted_once(root: Path, tmp_path: Path) -> None:
    for folder in ("test", "2024-05-01/north"):
        (root / folder).mkdir(parents=True)
        (root / folder / "x.png").write_bytes((root / "train" / "train000.png").read_bytes())
    (root / "val" / "._val000.png").write_bytes(b"\0\5\26\7")
    data = opened(root, "predict")
    expected = {path.relative_to(root).as_posix() for path in root.rglob("[!.]*.png")}
    assert sorted(data.predict_paths) == sorted(expected)
    assert len(expected) == 8
    batches = list(data.predict_dataloader())
    assert sorted(index for batch in batches for index in batch["index"].tolist()) == list(range(8))
    assert batches[0].keys() == {"image", "size", "index"}
    assert data.class_names == []
    assert data.smallest_image()[1] == 58  # as resized


def test_images_keep_the_ids_of_their_annotations_and_others_get_new_ones(root: Path) -> None:
    change(root, "train", images=[{**one, "id": one["id"] + 10_000} for one in load(root)["images"]], annotations=[])
    data = opened(root, "predict")
    known = ids_of(root, "train") | ids_of(root, "val")
    assert dict(zip(data.predict_paths, data.predict_image_ids, strict=True)) == known
    assert data.is_annotated
    for number in (1, 2):
        (root / f"new{number}.png").write_bytes((root / "train" / "train000.png").read_bytes())
    data = opened(root, "predict")
    found = dict(zip(data.predict_paths, data.predict_image_ids, strict=True))
    assert found == known | {"new1.png": 11_001, "new2.png": 11_002}
    assert not data.is_annotated  # the names must be written too


def test_an_id_that_two_files_use_stays_with_val(root: Path) -> None:
    data = opened(root, "predict")  # both begin at 1000
    found = dict(zip(data.predict_paths, data.predict_image_ids, strict=True))
    assert {name: number for name, number in found.items() if name.startswith("val/")} == ids_of(root, "val")
    assert len(set(found.values())) == 6
    assert found["train/train000.png"] == 1001
    assert found["train/train002.png"] == ids_of(root, "train")["train/train002.png"]
    assert not data.is_annotated


def test_without_annotations_images_are_numbered_from_1(root: Path) -> None:
    data = opened(root / "val", "predict")
    assert list(data.predict_paths) == ["val000.png", "val001.png"]
    assert data.predict_image_ids == [1, 2]
    assert not data.is_annotated
    assert data.category_ids == []


def test_annotations_that_cannot_be_used_do_not_stop_a_prediction(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "annotations" / "instances_train.json").write_text("{nonsense")
    with caplog.at_level(logging.WARNING):
        data = opened(root, "predict")
    assert data.predict_image_ids == list(range(1, 7))
    assert "the images get new ids" in caplog.text


def test_images_that_are_missing_do_not_stop_a_prediction(root: Path) -> None:
    (root / "val" / "val000.png").unlink()
    (root / "train" / "train000.png").unlink()
    rename(root, "train", "elsewhere/{}")
    data = opened(root, "predict")
    found = dict(zip(data.predict_paths, data.predict_image_ids, strict=True))
    assert found["val/val001.png"] == ids_of(root, "val")["val/val001.png"]
    assert len(found) == 4


def test_images_that_cannot_be_read_are_named_and_the_others_predicted(root: Path) -> None:
    (root / "val" / "broken.jpg").write_bytes((root / "val" / "val000.png").read_bytes()[:300])
    data = opened(root, "predict")
    assert len(data.predict_paths) == 6
    assert list(data.predict_problems) == ["val/broken.jpg"]


def test_images_that_the_network_cannot_take_are_named_and_the_others_predicted(root: Path) -> None:
    Image.new("RGB", (3, 900)).save(root / "val" / "strip.png")
    Image.new("RGB", (5, 5)).save(root / "val" / "icon.png")  # is enlarged
    data = opened(root, "predict")
    known = dict(zip(data.predict_paths, data.predict_image_ids, strict=True))
    data.leave_out_smaller(8)
    assert dict(zip(data.predict_paths, data.predict_image_ids, strict=True)) == {
        name: number for name, number in known.items() if name != "val/strip.png"
    }
    assert data.predict_problems == {"val/strip.png": "less than 8 px high or wide when resized"}
    assert data.smallest_image()[1] >= 8
    with pytest.raises(UserError, match=r"All images in .* are less than 300 px"):
        data.leave_out_smaller(300)


def test_preparing_a_prediction_reads_nothing(root: Path) -> None:
    (root / "annotations" / "instances_train.json").write_text("{nonsense")
    data = coco_data(root)
    data.only_predict()
    data.prepare_data()
    assert not data.record.exists()
    with pytest.raises(UserError, match="not valid JSON"):
        coco_data(root).prepare_data()


def test_a_network_gives_a_folder_its_classes(root: Path) -> None:
    data = opened(root, "validate")
    before = [item["truth"]["labels"].tolist() for item in data.eval_images(data.source.splits["val"])]
    data.use_classes(["roof", "tree", "bar", "disc"])
    assert data.class_names == ["roof", "tree", "bar", "disc"]
    assert data.category_ids == [90, 91, 3, 0]
    after = [item["truth"]["labels"].tolist() for item in data.eval_images(data.source.splits["val"])]
    assert after == [[[3, 2, 0][label] for label in labels] for labels in before]
    data.use_classes(["roof", "bar"])  # lacks disc: the network refuses these images
    assert data.class_names == ["roof", "tree", "bar", "disc"]
    data.setup("validate")
    assert data.class_names == ["disc", "bar", "roof"]
    assert [item["truth"]["labels"].tolist() for item in data.eval_images(data.source.splits["val"])] == before


def test_an_unused_category_keeps_its_id_for_a_network_that_knows_it(root: Path) -> None:
    for split in ("train", "val"):
        change(root, split, categories=[*CATEGORIES, {"id": 7, "name": "tree"}])
    data = opened(root, "validate")
    assert data.category_ids == [0, 3, 90]
    data.use_classes(["disc", "bar", "tree", "roof"])
    assert data.category_ids == [0, 3, 7, 90]


def test_predictions_get_the_category_ids_of_the_folder_if_it_knows_all_classes(root: Path) -> None:
    data = opened(root, "predict")
    data.use_classes(["roof", "disc"])
    assert data.category_ids == [90, 0]
    data.use_classes(["roof", "tree"])
    assert data.category_ids == []


def test_a_trainer_that_predicts_prepares_nothing(root: Path, tmp_path: Path) -> None:
    data = coco_data(root)
    data.trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False, default_root_dir=str(tmp_path))
    data.trainer.predicting = True
    data.prepare_data()
    assert not data.record.exists()
