"""Detection: training, weights, exported detectors, what is refused."""

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from coco_sets import change, load, write_set
from detectors import BACKBONE, DETECTOR, OPTIM, coco, detection_set, detector
from lightning import Callback
from reference.mask_oracle import oracle
from tiny_runs import image_data, one_thread, tiny_trainer  # noqa: F401

from lit_splitmask.callbacks import CocoResults, ExportWeights
from lit_splitmask.checkpoints import load_weights, save_backbone
from lit_splitmask.datamodules import DetectionAugment
from lit_splitmask.errors import UserError
from lit_splitmask.models import ViT, ViTConfig
from lit_splitmask.models.mask_rcnn import DetectorConfig
from lit_splitmask.modules import Detect
from lit_splitmask.modules.average_precision import CocoAP
from lit_splitmask.optim import OptimConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detection_set(tmp_path_factory.mktemp("detect") / "set")


def test_a_run_trains_and_logs_its_losses_and_ap(root: Path, tmp_path: Path) -> None:
    trainer, module = tiny_trainer(tmp_path), detector()
    trainer.fit(module, datamodule=coco(root))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    terms = ("objectness", "proposal", "class", "box", "mask")
    assert sum(logged[f"train/{term}"] for term in terms) == pytest.approx(logged["train/loss"], rel=1e-5)
    assert {"val/box/AP", "val/box/AP50", "val/box/AP75", "val/mask/AP", "val/box/AP/disc"} <= logged.keys()
    assert trainer.global_step == 4


def test_without_masks_boxes_are_trained_and_evaluated(root: Path, tmp_path: Path) -> None:
    trainer, module = tiny_trainer(tmp_path), detector()
    trainer.fit(module, datamodule=coco(root, masks=False))
    assert "val/box/AP" in trainer.callback_metrics
    assert not any("mask" in name for name in trainer.callback_metrics)


def test_a_repeated_and_a_resumed_run_end_with_the_same_weights(root: Path, tmp_path: Path) -> None:
    whole, again, first, rest = (detector(drop_path=0.2) for _ in range(4))
    for module in (whole, again):
        tiny_trainer(tmp_path, limit_val_batches=0).fit(module, datamodule=coco(root))

    class Save(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "at2.ckpt")

    tiny_trainer(tmp_path, limit_val_batches=0, callbacks=[Save()]).fit(first, datamodule=coco(root))
    tiny_trainer(tmp_path, limit_val_batches=0).fit(
        rest, datamodule=coco(root), ckpt_path=tmp_path / "at2.ckpt", weights_only=True
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
        assert torch.equal(rest.state_dict()[name], value), name


def test_a_saved_detector_predicts_the_same(root: Path, tmp_path: Path) -> None:
    module = detector(detector=DetectorConfig(**{**vars(DETECTOR), "score_threshold": 0.0}))
    module.build(3)
    module.class_names = ["disc", "bar", "roof"]
    module.set_statistics((0.4, 0.5, 0.6), (0.2, 0.2, 0.3))
    ExportWeights(str(tmp_path / "detector.safetensors")).export(module, 1)
    again = Detect(str(tmp_path / "detector.safetensors"), keep_head=True)
    batch = [torch.randint(256, (3, 60, 70), dtype=torch.uint8)]
    for name, value in module.eval()(batch)[0].items():
        assert torch.equal(again.eval()(batch)[0][name], value), name
    tiny_trainer(tmp_path).validate(again, datamodule=coco(root), verbose=False)
    fewer = Detect(str(tmp_path / "detector.safetensors"), keep_head=True, detector=DetectorConfig(detections=3))
    assert fewer.detector == replace(module.detector, detections=3)
    assert len(fewer.eval()(batch)[0]["scores"]) == 3
    save_backbone(tmp_path / "backbone.safetensors", ViT(ViTConfig(**BACKBONE)))
    with pytest.raises(UserError, match="is not one"):
        Detect(str(tmp_path / "backbone.safetensors"), keep_head=True)


def test_images_without_annotations_can_be_predicted(root: Path, tmp_path: Path) -> None:
    module = detector(detector=DetectorConfig(**{**vars(DETECTOR), "score_threshold": 0.0}))
    tiny_trainer(tmp_path, limit_val_batches=0).fit(module, datamodule=coco(root, steps=1))
    ExportWeights(str(tmp_path / "detector.safetensors")).export(module, 1)
    again = Detect(str(tmp_path / "detector.safetensors"), keep_head=True)
    trainer = tiny_trainer(tmp_path, callbacks=[CocoResults(str(tmp_path / "found.json"))])
    trainer.predict(again, datamodule=coco(root / "val"))
    results = json.loads((tmp_path / "found.json").read_text())
    assert {one["category_id"] for one in results} <= {0, 3, 90}
    names = json.loads((tmp_path / "found_images.json").read_text())
    assert names == [{"id": i + 1, "file_name": f"val{i:03d}.png"} for i in range(5)]
    assert {one["image_id"] for one in results} <= {1, 2, 3, 4, 5}
    with pytest.raises(UserError, match="not a folder in COCO's format"):
        trainer.validate(again, datamodule=coco(root / "val"), verbose=False)


@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_weights_are_loaded_and_the_log_reports_what_their_positions_cost(
    positions: Any, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vit = ViT(ViTConfig(**{**BACKBONE, "positions": positions}))
    save_backbone(tmp_path / "b.safetensors", vit, pixel_mean=[0.1, 0.2, 0.3], pixel_std=[0.2, 0.2, 0.2])
    module = Detect(str(tmp_path / "b.safetensors"), detector=DETECTOR, optim=OPTIM)
    with caplog.at_level(logging.INFO):
        module.build(2)
    assert ("interpolated" in caplog.text) == (positions == "learned")
    assert ("nothing is lost" in caplog.text) == (positions == "sincos")
    assert torch.equal(module.vit.blocks[2].attn.qkv.weight, vit.blocks[2].attn.qkv.weight)
    assert module.pixel_mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    exported = load_weights(tmp_path / "b.safetensors").state
    assert exported.keys() == module.vit.state_dict().keys()  # the backbone can be exported again


def test_a_loss_that_is_not_finite_stops_the_run(root: Path, tmp_path: Path) -> None:
    class Break(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 1:
                pl_module.rcnn.roi_heads.box_predictor.cls_score.bias.data.fill_(float("nan"))

    with pytest.raises(UserError, match="became nan at step 1"):
        tiny_trainer(tmp_path, callbacks=[Break()]).fit(detector(), datamodule=coco(root))


def test_an_image_smaller_than_a_patch_is_refused(root: Path, tmp_path: Path) -> None:
    big = ViTConfig(**{**BACKBONE, "patch_size": 64})
    with pytest.raises(UserError, match=r"48 px high or wide .* less than a patch of 64 px"):
        tiny_trainer(tmp_path).fit(detector(backbone=big), datamodule=coco(root))


def test_images_of_other_classes_are_refused(root: Path, tmp_path: Path) -> None:
    module = detector()
    module.build(2)
    with pytest.raises(UserError, match="network has 2 classes, but the images have 3"):
        tiny_trainer(tmp_path).validate(module, datamodule=coco(root), verbose=False)
    module.build(3)
    module.class_names = ["cat", "dog", "emu"]
    with pytest.raises(UserError, match="has the classes cat, dog, emu, but the images have disc, bar, roof"):
        tiny_trainer(tmp_path).validate(module, datamodule=coco(root), verbose=False)
    with pytest.raises(UserError, match=r"trained with masks, .* set data\.masks to true"):
        tiny_trainer(tmp_path).validate(module, datamodule=coco(root, masks=False), verbose=False)


def test_a_folder_that_lacks_classes_or_orders_them_differently_is_evaluated(root: Path, tmp_path: Path) -> None:
    module, other = detector(), write_set(tmp_path / "other")
    module.build(3)
    module.class_names = ["roof", "bar", "disc"]
    objects = [one for one in load(other, "val")["annotations"] if one["category_id"] == 90]
    change(other, "val", annotations=objects)
    (other / "annotations" / "instances_train.json").unlink()
    (logged,) = tiny_trainer(tmp_path).validate(module, datamodule=coco(other), verbose=False)
    assert [name for name in logged if name.startswith("val/box/AP/")] == ["val/box/AP/roof"]
    assert module.category_ids == [90, 3, 0]


def test_images_without_boxes_are_refused(class_folder: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="CocoDetection"):
        tiny_trainer(tmp_path).fit(detector(), datamodule=image_data(class_folder(per_class=4)))


def test_without_pycocotools_the_error_names_the_command_that_installs_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match=r"pip install 'lit-splitmask\[dense\]'"):
        coco(root).prepare_data()


@pytest.mark.slow
def test_eight_images_are_learned_as_well_as_the_mask_head_can_draw_them(tmp_path: Path) -> None:
    root = write_set(tmp_path / "eight", train=8, val=1, objects=4, sizes=((128, 128),))
    for part in ("images", "annotations"):
        change(root, "val", **{part: load(root, "train")[part]})
    (root / "val").rename(root / "other")
    (root / "val").symlink_to(root / "train")
    plain = DetectionAugment(hflip=0.0, crop=0.0, min_scale=1.0, num_scales=1)
    data = coco(root, steps=400, batch_size=4, image_size=128, max_size=128, augment=plain)
    module = detector(
        backbone=ViTConfig(**{**BACKBONE, "embed_dim": 96, "num_heads": 3}),
        detector=DetectorConfig(channels=48, box_features=128, anchor_scale=4.0, proposals=200, regions_per_image=64),
        optim=OptimConfig(lr=1e-3, reference_batch=0, warmup=0.1, schedule="steps", weight_decay=0.0),
        drop_path=0.0,
    )
    trainer = tiny_trainer(tmp_path, gradient_clip_val=1.0)
    trainer.fit(module, datamodule=data)
    images = data.eval_images(data.source.splits["val"])
    items = [images[index] for index in range(len(images))]
    best = CocoAP()
    best.update(
        [oracle(item["truth"], item["size"]) for item in items], [item["truth"] for item in items], list(range(8))
    )
    reachable = best.summary(data.class_names)["mask/AP"]
    assert reachable > 0.7
    assert float(trainer.callback_metrics["val/mask/AP"]) > 0.9 * reachable
