"""The contract between data and training: whole, in part, and not at all."""

import inspect
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from coco_sets import write_set
from lightning import LightningDataModule
from replicas import draw, food
from scenes import scene_data, write_scenes
from tiny_runs import classifier, image_data, one_thread, pretrain_module, tiny_trainer  # noqa: F401
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from lit_splitmask import contract
from lit_splitmask.contract import (
    DetectionData,
    SegmentationData,
    TrainingData,
    detection_data,
    segmentation_data,
    training_data,
)
from lit_splitmask.datamodules import Budget, CocoDetection, Food101, Manifest
from lit_splitmask.datamodules.file_data import FileData
from lit_splitmask.errors import UserError
from lit_splitmask.tokenizers import KMeans

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

EMPTY_IF_UNKNOWN: dict[str, Any] = {"class_names": (), "pool": (), "predict_paths": (), "predict_problems": {}}


def members(of: type) -> set[str]:
    return {name for name in vars(of) if not name.startswith("_")}


class NumClasses(LightningDataModule):
    """Offers the number of classes alone."""

    num_classes = 2

    def train_dataloader(self) -> DataLoader:
        images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return DataLoader([{"image": image, "label": i % 2} for i, image in enumerate(images)], batch_size=4)


class KnownAfterSetup(NumClasses):
    """Has properties that raise before ``setup``, and one that is None."""

    channels = None
    class_names = None
    is_set_up = False

    @property
    def image_size(self) -> int:
        assert self.is_set_up, "the image size was read before setup"
        return 32

    @property
    def predict_paths(self) -> list[str]:
        raise RuntimeError("the names were read, although nothing is predicted")

    def setup(self, stage: str) -> None:
        self.is_set_up = True


@pytest.mark.parametrize("datamodule", [None, LightningDataModule()], ids=["None", "a plain datamodule"])
def test_nothing_is_known_of_a_datamodule_that_offers_nothing(datamodule: Any) -> None:
    data = training_data(datamodule)
    for name in members(TrainingData):
        assert getattr(data, name) == EMPTY_IF_UNKNOWN.get(name), name
    assert segmentation_data(datamodule) is None
    assert detection_data(datamodule) is None


def test_of_a_datamodule_that_offers_a_part_the_rest_is_unknown() -> None:
    data = training_data(NumClasses())
    assert data.num_classes == 2
    for name in members(TrainingData) - {"num_classes"}:
        assert getattr(data, name) == EMPTY_IF_UNKNOWN.get(name), name
    with pytest.raises(AttributeError, match="no train_dataloader"):
        data.train_dataloader()  # type: ignore[attr-defined]


def test_properties_are_read_when_they_are_asked_for_and_not_before() -> None:
    datamodule = KnownAfterSetup()
    data = training_data(datamodule)
    assert data.num_classes == 2
    assert data.channels is None
    assert data.class_names == ()
    with pytest.raises(AssertionError, match="before setup"):
        data.image_size  # noqa: B018
    datamodule.setup("fit")
    assert data.image_size == 32


def test_an_attribute_that_setup_sets_is_known_afterwards() -> None:
    datamodule = LightningDataModule()
    data = training_data(datamodule)
    assert data.num_train_images is None
    datamodule.num_train_images = 7
    assert data.num_train_images == training_data(datamodule).num_train_images == 7


def test_a_datamodule_that_offers_everything_is_returned_itself_and_not_read() -> None:
    def unread(_: Any) -> Any:
        raise AssertionError("a property was read")

    names = members(TrainingData) | members(DetectionData) | members(SegmentationData)
    everything = type("Everything", (), {name: property(unread) for name in names})()
    assert training_data(everything) is everything
    assert segmentation_data(everything) is everything
    assert detection_data(everything) is everything


@pytest.mark.parametrize("missing", sorted(members(DetectionData)))
def test_boxes_are_known_only_with_every_part(missing: str) -> None:
    offered = type("Most", (), dict.fromkeys(members(DetectionData) - {missing}))()
    assert detection_data(offered) is None


@pytest.mark.parametrize("missing", sorted(members(SegmentationData)))
def test_label_maps_are_known_only_with_every_part(missing: str) -> None:
    offered = type("Most", (), dict.fromkeys(members(SegmentationData) - {missing}))()
    assert segmentation_data(offered) is None


def image_folder(folder: Path) -> Any:
    for number in range(12):
        draw(folder / "images" / "ab"[number % 2] / f"{number}.png", number)
    return image_data(folder / "images")


def manifest(folder: Path) -> Any:
    for number in range(12):
        draw(folder / f"{number}.png", number)
    (folder / "list.csv").write_text("path,label\n" + "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(12)))
    return Manifest(str(folder / "list.csv"), image_size=16, batch_size=4, index_dir=str(folder / "index"))


def published(folder: Path) -> Any:
    food(folder / "data")
    return Food101(str(folder / "data"), image_size=16, batch_size=4, index_dir=str(folder / "index"))


def coco(folder: Path) -> Any:
    root, record = write_set(folder / "set"), str(folder / "index")
    return CocoDetection(str(root), 64, batch_size=2, budget=Budget(steps=2), num_epochs=1, index_dir=record)


@pytest.mark.parametrize(
    "make",
    [image_folder, manifest, published, lambda folder: scene_data(write_scenes(folder / "scenes")), coco],
    ids=["ImageFolder", "Manifest", "a published dataset", "SegmentationFolder", "CocoDetection"],
)
def test_the_projects_datamodules_meet_the_contract(make: Any, tmp_path: Path) -> None:
    datamodule = make(tmp_path)
    assert training_data(datamodule) is datamodule  # before setup, when most properties raise
    datamodule.num_workers = 0
    datamodule.prepare_data()
    datamodule.setup("fit")
    for name in members(TrainingData):
        if name == "pixel_window":
            assert getattr(datamodule, name) is None, "these images have 8 bits"
        elif name not in ("fitted_file", "crop_ratio") or isinstance(datamodule, FileData):  # not cropped
            assert getattr(datamodule, name) is not None, name
    assert len(datamodule.pixel_mean) == len(datamodule.pixel_std) == datamodule.channels == 3
    assert len(datamodule.class_names) == datamodule.num_classes >= 2
    has_objects = segmentation_data(datamodule) is not None or detection_data(datamodule) is not None
    assert datamodule.all_labelled != has_objects
    assert datamodule.images_per_step == datamodule.batch_size
    assert datamodule.num_train_images == len(datamodule.split_images("train"))
    assert datamodule.split_images("no such split") is None
    batch = next(iter(datamodule.fitting_dataloader(None)))
    sizes = [datamodule.image_size] if datamodule.crop_sizes is None else datamodule.crop_sizes
    if isinstance(batch["image"], torch.Tensor):
        assert batch["image"].shape[-1] == sizes[0]
        assert batch["image"].dtype == torch.uint8
    assert len(datamodule.predict_paths) == sum(len(b["index"]) for b in datamodule.predict_dataloader())


@pytest.mark.parametrize(
    "make",
    [image_folder, manifest, published, lambda folder: scene_data(write_scenes(folder / "scenes")), coco],
    ids=["ImageFolder", "Manifest", "a published dataset", "SegmentationFolder", "CocoDetection"],
)
def test_the_projects_datamodules_predict_without_anything_prepared(make: Any, tmp_path: Path) -> None:
    datamodule = make(tmp_path)
    datamodule.num_workers = 0
    datamodule.only_predict()
    before = sorted(tmp_path.rglob("*"))
    datamodule.prepare_data()
    datamodule.setup("predict")
    assert sorted(tmp_path.rglob("*")) == before
    indices = [index for batch in datamodule.predict_dataloader() for index in batch["index"].tolist()]
    assert sorted(indices) == list(range(len(datamodule.predict_paths)))
    assert len(set(datamodule.predict_paths)) == len(indices) > 0
    assert datamodule.predict_problems == {}


def test_label_maps_and_boxes_meet_their_contracts(tmp_path: Path) -> None:
    maps, boxes = scene_data(write_scenes(tmp_path / "scenes")), coco(tmp_path)
    assert segmentation_data(maps) is maps
    assert detection_data(boxes) is boxes
    assert segmentation_data(boxes) is detection_data(maps) is None
    for datamodule in (maps, boxes):
        datamodule.num_workers = 0
        datamodule.prepare_data()
        datamodule.setup("fit")
        name, side = datamodule.smallest_image()
        assert name.endswith(".png")
        assert 0 < side <= 64
    assert maps.void == 255
    assert boxes.masks
    assert boxes.is_annotated
    assert list(boxes.category_ids) == [0, 3, 90]
    assert len(boxes.predict_image_ids) == len(boxes.predict_paths)


@pytest.mark.parametrize("datamodule", [NumClasses, KnownAfterSetup])
@pytest.mark.parametrize("make", [pretrain_module, classifier])
def test_a_users_datamodule_that_offers_a_part_trains(make: Any, datamodule: Any, tmp_path: Path) -> None:
    module = make()
    trainer = tiny_trainer(tmp_path, max_epochs=2)
    trainer.fit(module, datamodule=datamodule())
    assert trainer.global_step == 4
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = textwrap.dedent(inspect.getdoc(contract).partition("::\n")[2])  # type: ignore[union-attr]
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["module"].num_classes == 2
    assert names["module"].trainer.global_step == 2


class BatchesOfItsOwn(NumClasses):
    """A loader whose batches a batch sampler makes."""

    def train_dataloader(self) -> DataLoader:
        loader = super().train_dataloader()
        return DataLoader(
            loader.dataset, batch_sampler=BatchSampler(SequentialSampler(loader.dataset), 4, drop_last=True)
        )


@pytest.mark.parametrize("datamodule", [NumClasses, BatchesOfItsOwn])
@pytest.mark.parametrize("length", [{"max_steps": 3}, {"max_steps": 3, "max_epochs": 9}, {"max_epochs": 2}])
def test_a_plain_data_loader_trains_for_steps_and_for_epochs(
    datamodule: type[LightningDataModule], length: dict[str, int], tmp_path: Path
) -> None:
    trainer = tiny_trainer(tmp_path, accumulate_grad_batches=2 if "max_epochs" in length else 1, **length)
    module = classifier()
    trainer.fit(module, datamodule=datamodule())
    assert trainer.global_step == (3 if "max_steps" in length else 2)
    assert module.images_per_step == 4 * trainer.accumulate_grad_batches


@pytest.mark.parametrize("make", [classifier, pretrain_module])
def test_a_loader_without_a_datamodule_trains_for_steps(make: Any, tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, max_steps=3)
    module = make(num_classes=2) if make is classifier else make()
    trainer.fit(module, NumClasses().train_dataloader())
    assert (trainer.global_step, module.images_per_step) == (3, 4)


def test_a_loader_without_a_batch_size_is_named(tmp_path: Path) -> None:
    class Unbatched(NumClasses):
        def train_dataloader(self) -> Any:
            return [next(iter(super().train_dataloader()))]

    with pytest.raises(UserError, match="of class list, is unknown"):
        tiny_trainer(tmp_path, max_steps=3).fit(classifier(), datamodule=Unbatched())


class Streamed(IterableDataset):
    """Images that come one after the other, nobody knows how many."""

    def __iter__(self) -> Any:
        return iter(NumClasses().train_dataloader().dataset)


def test_a_stream_of_unknown_length_trains_for_steps(tmp_path: Path) -> None:
    module, trainer = pretrain_module(), tiny_trainer(tmp_path, max_steps=3)
    trainer.fit(module, DataLoader(Streamed(), batch_size=4))
    assert (trainer.global_step, module.images_per_step) == (3, 4)
    assert module.word_statistics is not None
    with pytest.raises(UserError, match=r"KMeans samples its words .* but how many there are is unknown"):
        tiny_trainer(tmp_path, max_steps=3).fit(
            pretrain_module(tokenizer=partial(KMeans, vocabulary=4)), DataLoader(Streamed(), batch_size=4)
        )
