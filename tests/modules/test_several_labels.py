"""Images with any number of labels: from a list to losses, scores, files and predictions."""

import csv
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from replicas import draw
from tiny_runs import DATA, classifier, image_data, tiny_trainer

from lit_splitmask.callbacks import ExportWeights, PredictionWriter
from lit_splitmask.datamodules import Budget, Manifest
from lit_splitmask.errors import UserError
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.mixing import Mixing
from lit_splitmask.modules import Classify
from lit_splitmask.modules.class_scores import ClassPrecision

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

SETS = [["rust", "scab"], ["scab"], ["rust"], ["frog eye", "rust"]]


def write(folder: Path, header: str, cells: list[str], splits: str = "train") -> Path:
    """A list of 24 images with these labels in turn."""
    rows = []
    for number in range(24):
        draw(folder / f"{number}.png", number)
        split = "train" if number < 16 else "val" if number < 20 else "test"
        rows.append(f"{number}.png,{split},{cells[number % len(cells)]}")
    path = folder / "list.csv"
    path.write_text("\n".join([f"path,split,{header}", *rows]))
    return path


def data(path: Path, **settings: Any) -> Manifest:
    values: dict[str, Any] = {**DATA, "budget": Budget(steps=2), "index_dir": str(path.parent / "index")}
    return Manifest(str(path), splits=SplitOptions(labels="several"), **(values | settings))


def fitted(path: Path, **settings: Any) -> tuple[Classify, Manifest, Trainer]:
    images, module = data(path), classifier(**settings)
    trainer = tiny_trainer(path.parent)
    trainer.fit(module, datamodule=images)
    return module, images, trainer


@pytest.mark.parametrize(("header", "cells"), [
    ("label", ["rust|scab", "scab", "rust", "frog eye|rust"]),
    ("label", ["rust; scab", "scab", "rust", "frog eye; rust"]),
    ("label", ['"[\'rust\', \'scab\']"', "['scab']", "['rust']", '"[\'frog eye\', \'rust\']"']),
    ("frog eye,rust,scab", ["0,1,1", "0,0,1", "0,1,0", "1,1,0"]),
])  # fmt: skip
def test_cells_and_columns_give_the_same_sets(header: str, cells: list[str], tmp_path: Path) -> None:
    module, images, trainer = fitted(write(tmp_path, header, cells))
    assert images.class_names == ["frog eye", "rust", "scab"]
    assert module.several_labels
    batch = next(iter(images.train_dataloader()))
    assert batch["label"].dtype == torch.float32
    for index, row in zip(batch["index"].tolist(), batch["label"].tolist(), strict=True):
        number = int(images.train_samples.files[index].partition(".")[0])
        assert [name for name, has in zip(images.class_names, row, strict=True) if has] == SETS[number % 4]
    assert 0 < float(trainer.callback_metrics["val/map"]) <= 1
    scores = trainer.test(module, datamodule=images, verbose=False)[0]
    assert set(scores) == {"test/map", *(f"test/ap/{name}" for name in images.class_names)}
    with pytest.raises(UserError, match="balance draws images by their class, but here an image may have several"):
        tiny_trainer(tmp_path).fit(classifier(), datamodule=data(images.manifest, balance=1.0))


def test_an_image_of_zeros_has_no_class_and_an_empty_one_no_label(tmp_path: Path) -> None:
    path = write(tmp_path, "rust,scab", ["1,1", "0,0", ",", "1,0"])
    _, images, _ = fitted(path)
    assert len(images.train_samples) == 12
    batch = next(iter(images.train_dataloader()))
    assert not torch.isnan(batch["label"]).any()
    assert (images.train_samples.targets(torch.arange(12).numpy()).sum(axis=1) == 0).sum() == 4


def test_missing_splits_are_cut_by_the_rarest_class_of_an_image(tmp_path: Path) -> None:
    sets = ["|".join(names) for size in (2, 3) for names in itertools.combinations("abcdef", size)][:24]
    path = write(tmp_path, "label", sets)  # each set once: by sets, all images would stay in train
    path.write_text("\n".join(",".join(line.split(",")[::2]) for line in path.read_text().splitlines()))
    _, images, _ = fitted(path)
    assert images.class_names == list("abcdef")
    assert min(len(images.source.splits[split]) for split in ("val", "test")) >= 3


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 5.0]])
def test_the_loss_is_the_binary_cross_entropy(weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "label", ["rust|scab", "scab", "rust", "frog eye|rust"])
    module, images, _ = fitted(path, class_weights=weights, mixup=0.0, cutmix=0.0, label_smoothing=0.1, drop_path=0.0)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    batch = next(iter(images.train_dataloader()))
    p, t = module(batch["image"]).sigmoid(), batch["label"] * 0.9 + 0.05
    by_hand = -(t * p.log() * torch.tensor(weights or [1.0, 1.0, 1.0]) + (1 - t) * (1 - p).log()).mean()
    assert float(module.training_step(batch, 0)) == pytest.approx(float(by_hand), rel=1e-4)


def test_balanced_weights_are_images_without_over_images_with_a_class(tmp_path: Path) -> None:
    path = write(tmp_path, "label", ["rust|scab", "scab", "rust", "frog eye|rust"])
    module, _, _ = fitted(path, class_weights="balanced")
    assert module.mix.class_weights is not None
    assert module.mix.class_weights.tolist() == pytest.approx([3, 1 / 3, 1])


def test_mixed_images_have_the_labels_of_their_parts() -> None:
    mix = Mixing(3, mixup=0.8, cutmix=0.0, label_smoothing=0.0)
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    mixed, targets = mix(torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)]), labels)
    share = mixed.mean(dim=(1, 2, 3))
    torch.testing.assert_close(targets, torch.stack([1 - share, torch.ones(2), share], dim=1))


def test_predictions_are_a_probability_of_each_class(tmp_path: Path) -> None:
    path = write(tmp_path, "label", ["rust|scab", "scab", "rust", "frog eye|rust"])
    module, images, _ = fitted(path)
    with torch.no_grad():
        module.vit.get_parameter("head.bias").copy_(torch.tensor([3.0, -3.0, 3.0]))
    file = tmp_path / "classifier.safetensors"
    ExportWeights(str(file)).export(module, step=2)
    restored = Classify(str(file), keep_head=True)
    assert restored.several_labels
    trainer = tiny_trainer(tmp_path, callbacks=[PredictionWriter(str(tmp_path / "p.csv"))])
    trainer.predict(restored, datamodule=data(path))
    with (tmp_path / "p.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert {row["predicted"] for row in rows} == {"frog eye|scab"}
    assert sum(float(rows[0][name]) for name in images.class_names) > 1.5  # no distribution over classes
    one = image_data(_classes(tmp_path))
    with pytest.raises(
        UserError, match=r"made for several labels per image, but these images have one label per image"
    ):
        tiny_trainer(tmp_path).test(restored, datamodule=one)


def _classes(folder: Path) -> Path:
    for number in range(24):
        draw(folder / "folders" / ["frog eye", "rust", "scab"][number % 3] / f"{number}.png", number + 100)
    return folder / "folders"


def test_folders_have_one_label_per_image(class_folder: MakeFolder) -> None:
    images = image_data(class_folder(), splits=SplitOptions(labels="several"))
    with pytest.raises(UserError, match="labels=several is for lists"):
        images.prepare_data()


def test_a_training_that_takes_one_label_gets_none_of_several(tmp_path: Path) -> None:
    images = data(write(tmp_path, "label", ["rust|scab", "scab"]))
    images.prepare_data()
    images.setup("fit")
    assert images.class_names == []
    assert not images.all_labelled


def test_the_precision_of_a_class_that_does_not_occur_is_unknown() -> None:
    metric = ClassPrecision(2)
    metric.update(torch.tensor([[0.9, 0.2], [0.1, 0.3]]), torch.tensor([[1, 0], [0, 0]]))
    first, second = metric.compute().tolist()
    assert first == 1
    assert second != second  # NaN


def test_what_needs_one_label_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "label", ["rust|scab", "scab"])
    with pytest.raises(UserError, match="auxiliary and probe_head need one label per image"):
        fitted(path, probe_head=True)
