"""Lightning's own way to load a module: ``load_from_checkpoint``, without a trainer."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from detectors import coco, detection_set, detector
from lightning import LightningDataModule, LightningModule
from scenes import scene_data, segmenter, write_scenes
from tiny_runs import classifier, image_data, one_thread, same_tensors, tiny_trainer  # noqa: F401

from lit_splitmask.errors import UserError
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Classify, Detect, Pretrain, Segment
from lit_splitmask.objectives import InstanceDiscrimination, SplitMask
from lit_splitmask.tokenizers import KMeans

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

MakeFolder = Callable[..., Path]
SHAPE = ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32)
SPLITMASK = partial(SplitMask, tokenizer=partial(KMeans, vocabulary=16), decoder_depth=1)


def checkpoint_of(module: LightningModule, data: LightningDataModule, folder: Path) -> Path:
    """A checkpoint after one step."""
    trainer = tiny_trainer(folder, limit_val_batches=0, limit_train_batches=1)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


def test_a_classifier_is_loaded_with_its_classes(tmp_path: Path, class_folder: MakeFolder) -> None:
    module = classifier()
    path = checkpoint_of(module, image_data(class_folder(4)), tmp_path)
    again = Classify.load_from_checkpoint(path)
    assert (again.class_names, again.crop_ratio) == (module.class_names, module.crop_ratio)
    assert same_tensors(again.state_dict(), module.state_dict())
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(images), module.eval()(images), rtol=1e-5, atol=1e-6)
    assert Classify.load_from_checkpoint(path, num_classes=again.num_classes, backbone=module.vit.config).network


def test_a_segmenter_is_loaded_with_its_head(tmp_path: Path) -> None:
    module = segmenter()
    path = checkpoint_of(module, scene_data(write_scenes(tmp_path / "scenes", {"train": 4, "val": 1})), tmp_path)
    again = Segment.load_from_checkpoint(path)
    assert (again.channels, again.void, again.class_names) == (16, 255, module.class_names)
    assert same_tensors(again.state_dict(), module.state_dict())


def test_a_detector_is_loaded_with_its_head(tmp_path: Path) -> None:
    module = detector()
    path = checkpoint_of(module, coco(detection_set(tmp_path / "set")), tmp_path)
    again = Detect.load_from_checkpoint(path)
    assert (again.category_ids, again.class_names) == (module.category_ids, module.class_names)
    assert same_tensors(again.state_dict(), module.state_dict())


@pytest.mark.parametrize("objective", [SPLITMASK, InstanceDiscrimination])
def test_a_pre_training_is_loaded_with_its_objective(objective: Any, tmp_path: Path, class_folder: MakeFolder) -> None:
    module = Pretrain(objective, backbone=SHAPE)
    path = checkpoint_of(module, image_data(class_folder(4)), tmp_path)
    again = Pretrain.load_from_checkpoint(path, objective=objective, backbone=SHAPE)
    assert same_tensors(again.state_dict(), module.state_dict())
    assert (again.preprocessing(), again.has_statistics) == (module.preprocessing(), True)


def test_a_checkpoint_of_an_earlier_version_says_what_it_needs(tmp_path: Path, class_folder: MakeFolder) -> None:
    module = classifier()
    path = checkpoint_of(module, image_data(class_folder(4)), tmp_path)
    stored = torch.load(path, weights_only=True)
    del stored["lit_splitmask_network"]
    torch.save(stored, path)
    with pytest.raises(UserError, match="give num_classes and backbone"):
        Classify.load_from_checkpoint(path)
