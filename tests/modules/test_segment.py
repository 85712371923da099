"""Segmenters: scores against plain counting, one process against two, files, training."""

import json
import logging
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scenes import BACKBONE, NO_CHANGE, plain_confusion, save, scene_data, segmenter, write_pairs, write_scenes
from tiny_runs import one_thread, same_tensors, tiny_trainer  # noqa: F401

from lit_splitmask.callbacks import ExportWeights
from lit_splitmask.checkpoints import save_backbone
from lit_splitmask.datamodules import Budget
from lit_splitmask.errors import UserError
from lit_splitmask.losses import IGNORED, pixel_loss
from lit_splitmask.models import ViT, ViTConfig
from lit_splitmask.modules.label_scores import bootstrap, class_iou, scores_of
from lit_splitmask.optim import OptimConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes", {"train": 6, "val": 3, "test": 3})


def fit(root: Path, module: Any, **settings: Any) -> Any:
    trainer = tiny_trainer(root.parent, **settings.pop("trainer", {}))
    trainer.fit(module, datamodule=scene_data(root, **settings))
    return trainer


def test_scores_are_those_of_a_plain_confusion_matrix() -> None:
    confusion = torch.tensor([[5, 1, 0, 0], [2, 3, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    expected = [5 / 9, 3 / 6, float("nan"), 0.0]  # the third class has no pixels, the fourth was never predicted
    torch.testing.assert_close(class_iou(confusion), torch.tensor(expected).double(), equal_nan=True, rtol=0, atol=1e-7)
    scores = scores_of(confusion)
    assert float(scores["miou"]) == pytest.approx((5 / 9 + 3 / 6 + 0) / 3)
    assert float(scores["pixel_accuracy"]) == pytest.approx(8 / 12)


def test_intervals_of_maps_are_those_of_resampled_images() -> None:
    generator = np.random.default_rng(0)
    right = generator.integers(0, 50, (60, 3))
    counts = torch.from_numpy(np.stack([right, right + generator.integers(0, 50, (60, 3)), right], axis=1))
    found = bootstrap(counts, 0.95)
    assert found is not None
    chosen = counts.numpy()[generator.integers(0, 60, (4000, 60))].sum(axis=1)
    iou = chosen[:, 0] / (chosen[:, 1] + chosen[:, 2] - chosen[:, 0])
    assert found["miou"] == pytest.approx(np.quantile(iou.mean(axis=1), [0.025, 0.975]), abs=0.01)
    assert found["iou"][1] == pytest.approx(np.quantile(iou[:, 1], [0.025, 0.975]), abs=0.015)
    accuracy = chosen[:, 0].sum(axis=1) / chosen[:, 1].sum(axis=1)
    assert found["pixel_accuracy"] == pytest.approx(np.quantile(accuracy, [0.025, 0.975]), abs=0.01)
    assert bootstrap(counts.flip(0), 0.95) == found  # processes deliver their images in any order


def test_intervals_of_maps_with_few_pixels() -> None:
    none = torch.zeros(4, 3, 2, dtype=torch.int64)
    assert bootstrap(none, 0.95) is None
    assert bootstrap(none[:1] + 1, 0.95) is None
    seen = none.clone()
    seen[:2, :, 0] = 5  # the other images and the other class have no labelled pixels
    found = bootstrap(seen, 0.95)
    assert found == {"miou": [1, 1], "pixel_accuracy": [1, 1], "iou": [[1, 1], None]}


def test_scores_are_counted_pixel_by_pixel_at_the_size_of_the_maps(root: Path) -> None:
    module = segmenter()
    trainer = fit(root, module, short_side=32)
    data = trainer.datamodule
    scores = trainer.test(module, datamodule=data, verbose=False)[0]
    confusion = np.zeros((3, 3), dtype=np.int64)
    module.eval()
    for batch in data.test_dataloader():
        assert batch["image"].shape[-2:] == (32, 45)
        assert batch["map"].shape[-2:] == (40, 56)
        with torch.no_grad():
            predicted = module.predict_step(batch, 0)["map"]
        confusion += plain_confusion(batch["map"].numpy(), predicted.numpy(), 3)
    assert module.confusion.tolist() == confusion.tolist()
    counts = module.image_counts.sum(dim=0).tolist()
    assert (len(module.image_counts), counts) == (
        3,
        [confusion.diagonal().tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist()],
    )
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    iou = [hit / all_ for hit, all_ in zip(confusion.diagonal(), union, strict=True) if all_]
    assert scores["test/miou"] == pytest.approx(np.mean(iou))
    assert scores["test/pixel_accuracy"] == pytest.approx(confusion.trace() / confusion.sum())
    named = {key.removeprefix("test/iou/"): value for key, value in scores.items() if key.startswith("test/iou/")}
    assert list(named.values()) == pytest.approx(iou)


def test_the_loss_is_the_mean_over_labelled_pixels() -> None:
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(-1, 3, (2, 4, 4))
    values = [
        -logits[b, :, i, j].log_softmax(0)[target[b, i, j]]
        for b in range(2)
        for i in range(4)
        for j in range(4)
        if target[b, i, j] != IGNORED
    ]
    torch.testing.assert_close(pixel_loss(logits, target), torch.stack(values).mean())
    assert pixel_loss(logits, torch.full_like(target, IGNORED)) == 0


def test_the_training_loss_is_that_of_both_heads(root: Path) -> None:
    module = segmenter(num_classes=3, dropout=0.0, drop_path=0.0)
    module.log = module.check_finite = lambda *_, **__: None
    batch = {
        "image": torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8),
        "map": torch.randint(-1, 3, (2, 32, 32)).short(),
    }
    logits, auxiliary = module.segmenter.with_auxiliary(module.normalise(batch["image"]))
    both = [F.cross_entropy(one, batch["map"].long(), ignore_index=IGNORED) for one in (logits, auxiliary)]
    torch.testing.assert_close(module.training_step(batch, 0), both[0] + 0.4 * both[1])


def test_a_repeated_run_ends_with_the_same_weights_for_any_number_of_workers(root: Path) -> None:
    states = []
    for workers in (0, 0, 2):
        module = segmenter()
        fit(root, module, num_workers=workers)
        states.append(module.state_dict())
    assert same_tensors(states[0], states[1])
    assert same_tensors(states[0], states[2])


def test_an_exported_segmenter_predicts_the_same_and_serves_as_backbone(root: Path, tmp_path: Path) -> None:
    module = segmenter()
    trainer = fit(root, module)
    path = str(tmp_path / "segmenter.safetensors")
    ExportWeights(path).export(module, 4)
    again = segmenter(weights=path, keep_head=True, backbone=None, channels=99)
    assert (again.class_names, again.void, again.num_classes) == (["0", "1", "2"], 255, 3)
    batch = next(iter(trainer.datamodule.val_dataloader()))
    with torch.no_grad():
        ours, theirs = (one.eval().logits_at(batch) for one in (again, module))
    torch.testing.assert_close(ours, theirs)
    other = segmenter(weights=path, num_classes=7, backbone=None)
    blocks = [one.vit.blocks[0].attn.qkv.weight for one in (other, module)]
    torch.testing.assert_close(*blocks)
    assert other.num_classes == 7


def test_what_the_values_of_maps_mean_is_exported(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "cracks", "images/{}.png", "masks/{}.png", count=6, values=[0, 255, 255, 0])
    module = segmenter()
    fit(root, module)
    assert (module.num_classes, module.map_values, module.colours) == (2, [0, 255], None)
    path = str(tmp_path / "segmenter.safetensors")
    ExportWeights(path).export(module, 4)
    assert segmenter(weights=path, keep_head=True, backbone=None).map_values == [0, 255]


@pytest.mark.parametrize(("void", "expected"), [(None, [0, 1, 2]), (1, [0, 2, 3]), (255, [0, 1, 2])])
def test_a_file_without_the_values_of_maps_has_those_without_void(void: int | None, expected: list[int]) -> None:
    module = segmenter(num_classes=3)
    module.restore_settings({"channels": 16, "void": void})  # as files of earlier versions have it
    assert module.map_values == expected


def test_a_backbone_is_refused_as_a_segmenter(tmp_path: Path) -> None:
    path = str(tmp_path / "backbone.safetensors")
    save_backbone(path, ViT(ViTConfig(image_size=32, **BACKBONE)))
    with pytest.raises(UserError, match=r"segmenter\.safetensors"):
        segmenter(weights=path, keep_head=True)


@pytest.mark.parametrize(
    ("positions", "size", "logged"), [("learned", 48, True), ("learned", 32, False), ("sincos", 48, False)]
)
def test_the_log_reports_when_learned_positions_are_interpolated(
    positions: Any, size: int, logged: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "backbone.safetensors")
    shape = {**BACKBONE, "positions": positions}
    source = ViT(ViTConfig(image_size=32, **shape))
    save_backbone(path, source)
    with caplog.at_level(logging.INFO):
        module = segmenter(weights=path, backbone=ViTConfig(image_size=size, **shape), num_classes=3)
    assert ("interpolated" in caplog.text) == logged
    torch.testing.assert_close(module.vit.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    if size == 32:
        torch.testing.assert_close(module.vit.pos_embed, source.pos_embed)


def test_an_image_smaller_than_a_patch_is_refused_by_name(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes")
    write_scenes(root, {"val": 1}, size=(44, 60))
    small = np.zeros((5, 60), dtype=np.uint8)
    save(root / "images/train/thin.png", np.stack([small] * 3, axis=-1))
    save(root / "annotations/train/thin.png", small)
    with pytest.raises(UserError, match=r"thin\.png has a side of 5 px.*patch \(8 px\)"):
        fit(root, segmenter())
    fit(root, segmenter(), short_side=40)


def test_a_network_for_other_classes_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="network has 5 classes, but the images have 3"):
        fit(root, segmenter(num_classes=5))
    with pytest.raises(UserError, match="at least two classes"):
        segmenter(num_classes=1)


def test_crops_without_labels_give_a_loss_of_zero(root: Path) -> None:
    module = segmenter(num_classes=3)
    module.log = lambda *_, **__: None
    batch = {"image": torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "map": torch.full((2, 32, 32), IGNORED).short()}
    loss = module.training_step(batch, 0)
    loss.backward()
    assert loss == 0


PROCESSES = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import torch
from scenes import scene_data, segmenter
from tiny_runs import end_together, tiny_trainer

torch.set_num_threads(1)
root, devices = Path(sys.argv[1]), int(sys.argv[2])
strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
trainer = tiny_trainer(root.parent, **strategy)
module = segmenter(dropout=0.0, drop_path=0.0)
data = scene_data(root)
before = segmenter(num_classes=3)
same = [trainer.test(before, datamodule=data, verbose=False)[0], before.confusion.tolist()]
trainer.fit(module, datamodule=data)
found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val")}
found |= trainer.test(module, datamodule=data, verbose=False)[0]
found["weights"] = sum(float(p.detach().double().abs().sum()) for p in module.parameters())
found["with the same weights"] = same
(root.parent / f"of{devices}-rank{trainer.global_rank}.json").write_text(json.dumps(found))
end_together()
"""


def test_two_processes_and_one_train_and_score_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_scenes(
        tmp_path / "scenes", {"train": 6, "val": 3, "test": 5}
    )  # numbers that two processes cannot share equally
    script = tmp_path / "script.py"
    script.write_text(PROCESSES)
    tests = str(Path(__file__).parents[1])
    monkeypatch.setattr(sys, "argv", [str(script), str(root), "1", tests])
    runpy.run_path(str(script))
    done = subprocess.run(
        [sys.executable, str(script), str(root), "2", tests],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sync_dist" not in done.stdout + done.stderr  # Lightning's advice for scores that differ between processes
    one, first, second = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("of1-rank0", "of2-rank0", "of2-rank1")
    )
    assert first == second
    assert one.pop("with the same weights") == first.pop("with the same weights")
    for name, value in one.items():
        assert first[name] == pytest.approx(value, rel=2e-3, abs=1e-3), name


@pytest.mark.slow
def test_eight_images_are_memorised(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", {"train": 8}, size=(48, 64))
    module = segmenter(
        backbone=ViTConfig(image_size=48, **{**BACKBONE, "embed_dim": 64}),
        channels=32,
        dropout=0.0,
        drop_path=0.0,
        optim=OptimConfig(lr=2e-3, reference_batch=0, schedule="poly", min_lr=0.0, warmup=0.05),
    )
    data = scene_data(
        root, image_size=48, batch_size=8, num_epochs=1, val_share=0.0, budget=Budget(steps=400), augment=NO_CHANGE
    )
    trainer = tiny_trainer(tmp_path, limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    score = trainer.test(module, dataloaders=data.eval_loader(data.train_samples), verbose=False)[0]["test/miou"]
    assert score > 0.95
