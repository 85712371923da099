"""Detection: training, AP as pycocotools has it, results, pictures, weights, what is refused."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_sets import annotation, change, evaluate, load, write_set
from lightning import Callback
from PIL import Image
from reference.mask_oracle import oracle
from tiny_runs import image_data, one_thread, tiny_trainer  # noqa: F401

from lit_splitmask.annotations import rle
from lit_splitmask.callbacks import CocoResults, DetectionPictures, ExportWeights
from lit_splitmask.callbacks.detection_pictures import draw_objects
from lit_splitmask.callbacks.drawing import bright_colour
from lit_splitmask.checkpoints import load_weights, save_backbone
from lit_splitmask.datamodules import Budget, CocoDetection, DetectionAugment
from lit_splitmask.errors import UserError
from lit_splitmask.files import write_atomically
from lit_splitmask.models import ViT, ViTConfig
from lit_splitmask.models.mask_rcnn import DetectorConfig
from lit_splitmask.modules import Detect
from lit_splitmask.modules.average_precision import CocoAP
from lit_splitmask.optim import OptimConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

BACKBONE: dict[str, Any] = {
    "size": "tiny", "embed_dim": 32, "depth": 4, "num_heads": 2, "patch_size": 8, "image_size": 64, "positions": "sincos"
}  # fmt: skip
DETECTOR = DetectorConfig(channels=16, box_features=24, anchor_scale=4.0, proposals=30, regions_per_image=16)
OPTIM = OptimConfig(lr=1e-3, reference_batch=0, warmup=0.2, schedule="steps")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training images; five of validation, one without objects, one with a crowd."""
    root = write_set(tmp_path_factory.mktemp("detect") / "set", val=5)
    stored = load(root, "val")
    ids = sorted(image["id"] for image in stored["images"])
    kept = [one for one in stored["annotations"] if one["image_id"] != ids[1]]
    crowd = {**annotation(99, ids[2], 3, (3, 3, 40, 30)), "iscrowd": 1}
    image = next(image for image in stored["images"] if image["id"] == ids[2])
    crowd["segmentation"] = rle.as_json(rle.rasterise(crowd["segmentation"], (image["height"], image["width"])))
    change(root, "val", annotations=[*kept, crowd])
    return root


def coco(root: Path, *, steps: int = 4, **settings: Any) -> CocoDetection:
    values: dict[str, Any] = {"batch_size": 2, "num_workers": 0, "num_epochs": 1, "max_size": 96}
    return CocoDetection(str(root), settings.pop("image_size", 64), budget=Budget(steps=steps), **(values | settings))


def detector(**settings: Any) -> Detect:
    values: dict[str, Any] = {"backbone": ViTConfig(**BACKBONE), "detector": DETECTOR, "optim": OPTIM}
    return Detect(**(values | settings))


class NearTheTruth:
    """In place of a network: the truth of a set, shaken, with wrong classes, misses and inventions."""

    def __init__(self, data: CocoDetection) -> None:
        images = data.eval_images(data.source.predict)
        self.items = {
            tuple(image["image"].flatten()[:40].tolist()): image
            for image in map(images.__getitem__, range(len(images)))
        }

    def __call__(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        return [self.shaken(self.items[tuple(image.flatten()[:40].tolist())]) for image in batch["image"]]

    @staticmethod
    def shaken(item: dict[str, Any]) -> dict[str, Any]:
        generator = np.random.default_rng(int(item["image"].long().sum()))
        height, width = item["size"]
        boxes, labels, scores, masks = [], [], [], []
        for (left, top, w, h), label in zip(
            item["truth"]["boxes"].tolist(), item["truth"]["labels"].tolist(), strict=True
        ):
            for _ in range(int(generator.integers(0, 4))):
                box = np.array([left, top, left + w, top + h]) + generator.normal(0, 2.0, 4)
                box = [max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])]
                mask = torch.zeros(height, width, dtype=torch.bool)
                mask[round(box[1]) : round(box[3]), round(box[0]) : round(box[2])] = True
                boxes.append(box)
                masks.append(mask)
                labels.append(label if generator.random() < 0.8 else int(generator.integers(3)))
                scores.append(round(float(generator.random()), 1))  # with ties, between images too
        order = np.argsort(-np.array(scores), kind="stable") if scores else []
        return {
            "boxes": torch.tensor(
                np.array(boxes).reshape(-1, 4)[order] if scores else np.zeros((0, 4)), dtype=torch.float32
            ),
            "labels": torch.tensor([labels[i] for i in order], dtype=torch.int64),
            "scores": torch.tensor([scores[i] for i in order]),
            "masks": rle.encode(torch.stack([masks[i] for i in order])) if scores else [],
        }


def near_the_truth(root: Path) -> tuple[Detect, CocoDetection]:
    data, module = coco(root), detector()
    data.setup("validate")
    module.build(data.num_classes)
    module.class_names, module.category_ids = data.class_names, data.category_ids
    module._found = NearTheTruth(data)  # type: ignore[method-assign]
    return module, data


def test_a_run_trains_and_logs_its_losses_and_ap(root: Path, tmp_path: Path) -> None:
    trainer, module = tiny_trainer(tmp_path), detector()
    trainer.fit(module, datamodule=coco(root))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    terms = ("objectness", "proposal", "class", "box", "mask")
    assert sum(logged[f"train/{term}"] for term in terms) == pytest.approx(logged["train/loss"], rel=1e-5)
    assert {"val/box/AP", "val/box/AP50", "val/box/AP75", "val/mask/AP", "val/box/AP/disc"} <= logged.keys()
    assert trainer.global_step == 4


def test_boxes_alone_are_trained_and_evaluated(root: Path, tmp_path: Path) -> None:
    trainer, module = tiny_trainer(tmp_path), detector()
    trainer.fit(module, datamodule=coco(root, masks=False))
    assert "val/box/AP" in trainer.callback_metrics
    assert not any("mask" in name for name in trainer.callback_metrics)


def test_a_run_is_the_same_again_and_after_a_resume(root: Path, tmp_path: Path) -> None:
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


def test_ap_is_pycocotools_own_of_the_written_results(root: Path, tmp_path: Path) -> None:
    module, data = near_the_truth(root)
    trainer = tiny_trainer(tmp_path, callbacks=[CocoResults(str(tmp_path / "results.json"))])
    logged = trainer.validate(module, datamodule=data, verbose=False)[0]
    trainer.predict(module, datamodule=data)
    results = json.loads((tmp_path / "results.json").read_text())
    stored = load(root, "val")
    assert {one["image_id"] for one in results} <= {image["id"] for image in stored["images"]}
    assert {one["category_id"] for one in results} <= {0, 3, 90}
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        expected = evaluate(root / "annotations" / "instances_val.json", tmp_path / "results.json", kind)
        assert 0.1 < expected[0] < 0.9
        for number, key in ((0, "AP"), (1, "AP50"), (2, "AP75"), (8, "AR100")):
            assert logged[f"val/{name}/{key}"] == pytest.approx(expected[number], abs=1e-6)
        alone = [{key: value for key, value in one.items() if kind == "bbox" or key != "bbox"} for one in results]
        by_size = evaluate(root / "annotations" / "instances_val.json", alone, kind)[3:6]
        for value, key in zip(by_size, ("AP_small", "AP_medium", "AP_large"), strict=True):
            assert logged.get(f"val/{name}/{key}", -1.0) == pytest.approx(value, abs=1e-6)
    with pytest.raises(UserError, match="already exists"):
        trainer.predict(module, datamodule=data)


def test_thresholds_are_pycocotools_own_to_the_last_digit() -> None:
    from pycocotools.cocoeval import Params

    scores, own = CocoAP(), Params()
    assert scores.iou_thresholds == own.iouThrs.tolist()
    assert scores.rec_thresholds == own.recThrs.tolist()


def test_ap_of_a_class_is_that_of_its_annotations_alone(root: Path) -> None:
    data = near_the_truth(root)[1]
    images, scores = data.eval_images(data.source.predict), CocoAP()
    items = [images[index] for index in range(len(images))]
    scores.update(
        [NearTheTruth.shaken(item) for item in items], [item["truth"] for item in items], list(range(len(items)))
    )
    summary = scores.summary(data.class_names)
    per_class = [value for name, value in summary.items() if name.startswith("mask/AP/")]
    assert len(per_class) == 3
    assert np.mean(per_class) == pytest.approx(summary["mask/AP"], abs=1e-6)


PROCESSES = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/modules"]
import torch
from test_detect import validate_and_predict
from tiny_runs import end_together

torch.set_num_threads(1)
root = Path(sys.argv[1])
validate_and_predict(root, root.parent / "two", strategy="ddp", devices=2)
end_together()
"""


def validate_and_predict(root: Path, folder: Path, **settings: Any) -> None:
    """Writes what each process logs, and the results of all."""
    trainer = tiny_trainer(folder, callbacks=[CocoResults(str(folder / "results.json"))], **settings)
    module, data = near_the_truth(root)
    logged = trainer.validate(module, datamodule=data, verbose=False)[0]
    trainer.predict(module, datamodule=data)
    trained = detector()
    trainer.fit(trained, datamodule=coco(root, steps=2))
    weights = sum(float(parameter.detach().double().abs().sum()) for parameter in trained.parameters())
    report = {"scores": logged, "weights": weights, "steps": trainer.global_step}
    write_atomically(folder / f"rank{trainer.global_rank}.json", json.dumps(report).encode())


def test_two_processes_train_one_detector_and_have_the_ap_and_results_of_one_process(root: Path) -> None:
    script, folder = root.parent / "script.py", root.parent
    script.write_text(PROCESSES)
    done = subprocess.run(
        [sys.executable, str(script), str(root), str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    validate_and_predict(root, folder / "one")
    one, first, second = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("one/rank0", "two/rank0", "two/rank1")
    )
    assert one["scores"]["val/box/AP"] > 0.1
    assert first == second
    assert first["scores"] == pytest.approx(one["scores"], abs=1e-7)
    assert first["steps"] == one["steps"] == 2
    assert first["weights"] != one["weights"]  # the regions that are sampled differ
    results = [json.loads((folder / name / "results.json").read_text()) for name in ("one", "two")]
    assert results[0] == results[1]


def test_pictures_show_the_truth_beside_the_predictions(root: Path, tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, callbacks=[DetectionPictures(str(tmp_path), num_images=3)], limit_val_batches=0)
    trainer.fit(detector(), datamodule=coco(root, steps=1))
    picture = Image.open(tmp_path / "detections.png")
    assert picture.width > 2 * 320
    assert picture.height > 3 * 320


def test_a_mask_is_drawn_in_the_colour_of_its_class_within_its_box() -> None:
    mask = torch.zeros(1, 40, 50, dtype=torch.bool)
    mask[0, 10:20, 10:30] = True
    objects = {"boxes": torch.tensor([[10.0, 10, 30, 20]]), "labels": torch.tensor([1]), "masks": mask}
    drawn = np.asarray(draw_objects(torch.zeros(3, 40, 50, dtype=torch.uint8), objects, ["a", "b"])).astype(int)
    assert drawn[10, 12].tolist() == list(bright_colour(1))
    assert np.abs(drawn[15, 25] - 0.45 * np.array(bright_colour(1))).max() <= 1
    assert drawn[30, 40].tolist() == [0, 0, 0]
    assert len({bright_colour(label) for label in range(80)}) == 80


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
    with pytest.raises(UserError, match="is none"):
        Detect(str(tmp_path / "backbone.safetensors"), keep_head=True)


def test_images_without_annotations_are_predicted_on(root: Path, tmp_path: Path) -> None:
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
def test_weights_are_taken_and_the_log_says_what_positions_cost(
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
    assert exported.keys() == module.vit.state_dict().keys()  # a backbone that was trained here can be exported


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


def test_other_classes_than_the_detectors_are_refused(root: Path, tmp_path: Path) -> None:
    module = detector()
    module.build(2)
    with pytest.raises(UserError, match="network has 2 classes, but the images have 3"):
        tiny_trainer(tmp_path).validate(module, datamodule=coco(root), verbose=False)
    module.build(3)
    module.class_names = ["cat", "dog", "emu"]
    with pytest.raises(UserError, match="knows the classes cat, dog, emu, but the images have disc, bar, roof"):
        tiny_trainer(tmp_path).validate(module, datamodule=coco(root), verbose=False)
    with pytest.raises(UserError, match=r"trained with masks, .* set data\.masks to true"):
        tiny_trainer(tmp_path).validate(module, datamodule=coco(root, masks=False), verbose=False)


def test_images_without_boxes_are_refused(class_folder: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="CocoDetection"):
        tiny_trainer(tmp_path).fit(detector(), datamodule=image_data(class_folder(per_class=4)))


def test_without_pycocotools_the_command_that_installs_it_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
