"""Joint training: an objective beside the labels, on images with labels and without."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_runs import classifier, image_data, one_thread, pretrain_module, same_tensors, tiny_trainer  # noqa: F401

from lit_splitmask.augment.multi_crop import MultiCrop
from lit_splitmask.callbacks import EstimateTime, ExportWeights
from lit_splitmask.checkpoints import load_weights, save_backbone
from lit_splitmask.datamodules import ImageFolder
from lit_splitmask.errors import UserError
from lit_splitmask.masking import UniformMasking
from lit_splitmask.mixing import Mixing
from lit_splitmask.modules import Classify
from lit_splitmask.objectives import (
    DINO,
    MAE,
    MoCoV3,
    Objective,
    RelativeLocalisation,
    SelfTraining,
    SplitMask,
    Supervised,
)
from lit_splitmask.seeding import generator_for
from lit_splitmask.tokenizers import KMeans

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

SMALL_MAE = partial(MAE, decoder_dim=16, decoder_depth=1, decoder_heads=2)
SMALL_DINO = partial(DINO, num_prototypes=16, hidden_dim=16, bottleneck_dim=8)
SMALL_MOCOV3 = partial(MoCoV3, hidden_dim=16, output_dim=8)
WORDS = partial(KMeans, vocabulary=16, pixels="centred")
SMALL_SPLITMASK = partial(SplitMask, masking=UniformMasking(0.5), tokenizer=WORDS, decoder_depth=1)


class Same(Objective):
    """Each feature near the mean of the features; notes what it is given."""

    takes_features = True

    def __init__(self, backbone: Any) -> None:
        super().__init__(backbone)
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.batches: list[dict[str, Any]] = []

    def attach(self, num_classes: int, num_images: int) -> None:
        self.attached = num_classes, num_images

    def forward(self, batch: Any, generator: Any) -> Any:
        self.batches.append(batch)
        features = batch["features"]
        return {"loss": (features * self.scale - features.mean().detach()).square().mean()}


@pytest.fixture
def root(class_folder: MakeFolder) -> Path:
    return class_folder(per_class=8)


OBJECTIVES: dict[str, tuple[Any, dict[str, Any]]] = {
    "mae": (SMALL_MAE, {}),
    "splitmask": (SMALL_SPLITMASK, {}),
    "dino": (SMALL_DINO, {"augment": MultiCrop(num_local=1, local_size=16)}),
    "mocov3": (SMALL_MOCOV3, {"augment": MultiCrop(num_local=0)}),
    "localise": (RelativeLocalisation, {}),
    "self-training": (SelfTraining, {}),
    "same": (Same, {}),
}


def joint_data(root: Path, **settings: Any) -> Any:
    return image_data(root, **{"label_share": 0.5, "unlabelled_share": 0.5, **settings})


def fit(root: Path, module: Classify, *callbacks: Any, ckpt_path: Any = None, **data: Any) -> Classify:
    trainer = tiny_trainer(root.parent, callbacks=list(callbacks), enable_checkpointing=bool(callbacks))
    trainer.fit(module, datamodule=joint_data(root, **data), ckpt_path=ckpt_path, weights_only=True)
    return module


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_resumed_joint_training_is_bit_for_bit_the_uninterrupted_one(root: Path, name: str) -> None:
    objective, data = OBJECTIVES[name]
    folder, data = root.parent / "ckpt", {**data, "num_workers": 1}
    every = ModelCheckpoint(str(folder), every_n_train_steps=1, save_top_k=-1, filename="{step}")
    start = classifier(auxiliary=objective, num_classes=3).state_dict()
    whole = fit(root, classifier(auxiliary=objective), every, EstimateTime(warmup=1, steps=1), **data)
    resumed = fit(root, classifier(auxiliary=objective), ckpt_path=folder / "step=4.ckpt", **data)
    assert same_tensors(whole.state_dict(), resumed.state_dict())
    moved = [key for key, value in whole.state_dict().items() if not torch.equal(value, start[key])]
    assert "network.blocks.0.attn.qkv.weight" in moved
    assert any(key.startswith("auxiliary.") for key in moved)
    assert not any(key.startswith("auxiliary.backbone.") for key in whole.state_dict())
    stored = torch.load(folder / "step=4.ckpt", weights_only=True)["state_dict"]
    assert stored.keys() == whole.state_dict().keys()


@pytest.mark.parametrize("mixup", [0.0, 0.8])
def test_features_are_computed_once_and_groups_are_mixed_apart(root: Path, mixup: float) -> None:
    module = classifier(auxiliary=Same, mixup=mixup, cutmix=0.0, drop_path=0.0, num_classes=3)
    calls: list[int] = []
    module.vit.patch_embed.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    fit(root, module, steps=1, num_epochs=1)
    objective: Any = module.auxiliary
    assert calls[0] == 8
    assert len(objective.batches) == 1
    batch = objective.batches[0]
    assert objective.attached == (3, 15)
    labelled = batch["labels"] >= 0
    assert int(labelled.sum()) == 4
    assert bool(((batch["index"] < 6) == labelled).all())
    torch.testing.assert_close(batch["sources"].sum(dim=1), torch.ones(8))
    assert not batch["sources"][labelled][:, ~labelled].any()
    assert not batch["sources"][~labelled][:, labelled].any()
    assert bool((batch["sources"] != torch.eye(8)).any()) == bool(mixup)


@pytest.mark.parametrize("objective", [Same, SMALL_MAE], ids=["same", "mae"])
def test_the_loss_is_that_of_the_labels_and_the_weighted_one_of_the_objective(
    root: Path, objective: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = classifier(auxiliary=objective, auxiliary_weight=0.3, mixup=0.0, cutmix=0.0, drop_path=0.0, num_classes=3)
    fit(root, module, steps=1, num_epochs=1)  # attaches
    with torch.no_grad():
        module.vit.get_parameter("head.weight").normal_()
    logged: dict[str, Any] = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value}))
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, -1, 0, -1, 1])
    loss = module.training_step({"image": pixels, "label": labels, "index": torch.arange(5)}, 0)
    has_label = labels >= 0
    classify = F.cross_entropy(module(pixels[has_label]), labels[has_label], label_smoothing=0.1)
    images = module.normalise(pixels)
    generator = generator_for(0, "pairs", *module.step_key(0))
    auxiliary = module.auxiliary({"images": images, "features": module.vit.features(images)}, generator)["loss"]  # type: ignore[misc]
    assert float(loss.detach()) == pytest.approx(float((classify + 0.3 * auxiliary).detach()), rel=1e-5)
    assert float(logged["train/classify"]) == pytest.approx(float(classify.detach()), rel=1e-5)
    assert float(logged["train/auxiliary"]) == pytest.approx(float(auxiliary.detach()), rel=1e-5)


def test_hidden_labels_never_influence_training(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = joint_data(root)
    first = classifier(auxiliary=SMALL_MAE)
    tiny_trainer(root.parent).fit(first, datamodule=plain)
    known = set(list(plain.train_samples.files)[:6])
    blind, open_source = joint_data(root, label_share=1.0), ImageFolder.open_source

    def without_hidden_labels(self: Any) -> Any:
        source = open_source(self)
        train = source.splits["train"]
        train.labels[[file not in known for file in train.files]] = -1
        return source

    monkeypatch.setattr(ImageFolder, "open_source", without_hidden_labels)
    second = classifier(auxiliary=SMALL_MAE)
    tiny_trainer(root.parent).fit(second, datamodule=blind)
    assert blind.train_samples.labels.tolist() == plain.train_samples.labels.tolist()
    assert same_tensors(first.state_dict(), second.state_dict())


def test_images_without_labels_change_what_is_learned(root: Path) -> None:
    with_more = fit(root, classifier(auxiliary=SMALL_MAE))
    without = fit(root, classifier(auxiliary=SMALL_MAE), unlabelled_share=0.0)
    assert not same_tensors(with_more.vit.state_dict(), without.vit.state_dict())


@pytest.mark.parametrize("objective", [SMALL_DINO, SMALL_MOCOV3], ids=["dino", "mocov3"])
def test_student_and_teacher_start_from_the_weights(objective: Any, tmp_path: Path) -> None:
    vit = pretrain_module(seed=3).vit
    save_backbone(tmp_path / "b.safetensors", vit)
    module = classifier(weights=str(tmp_path / "b.safetensors"), auxiliary=objective, num_classes=3)
    teacher = module.auxiliary.teacher_backbone.network  # type: ignore[union-attr]
    assert torch.equal(module.vit.patch_embed.proj.weight, vit.patch_embed.proj.weight)
    assert same_tensors(dict(module.vit.state_dict()), dict(teacher.state_dict()))


def test_only_the_classifier_is_exported_and_its_checkpoint_is_tested_without_the_objectives_state(root: Path) -> None:
    module = fit(root, classifier(auxiliary=partial(Supervised, mixup=0.0)), label_share=1.0, unlabelled_share=0.0)
    best = root.parent / "best.ckpt"
    module.trainer.save_checkpoint(best)
    ExportWeights(str(root.parent / "c.safetensors")).export(module, 6)
    assert not any("auxiliary" in name for name in load_weights(root.parent / "c.safetensors").state)
    expected = tiny_trainer(root.parent).test(module, datamodule=image_data(root), verbose=False)
    fresh = classifier(auxiliary=partial(Supervised, mixup=0.0))
    found = tiny_trainer(root.parent).test(fresh, datamodule=image_data(root), ckpt_path=best, verbose=False)
    assert found == expected
    assert same_tensors(dict(fresh.vit.state_dict()), dict(module.vit.state_dict()))


def test_own_layers_of_the_objective_have_the_full_learning_rate(root: Path) -> None:
    from lit_splitmask.optim import OptimConfig, parameter_groups

    module = classifier(auxiliary=SMALL_DINO, num_classes=3)
    config = OptimConfig(layer_decay=0.5)
    names = {parameter: name for name, parameter in module.named_parameters()}
    for group in parameter_groups(module.named_parameters(), config, lr=1.0, depth=2):
        for parameter in group["params"]:
            name = names[parameter]
            last = name.startswith(("auxiliary.", "network.head", "network.fc_norm"))
            assert (group["lr"] == 1.0) == last, name
            assert not name.startswith("auxiliary.backbone.")


def test_mixing_apart_is_mixing_if_there_is_one_group() -> None:
    mixing, images = Mixing(2, mixup=0.8, cutmix=1.0, label_smoothing=0.0), torch.rand(6, 3, 8, 8)
    torch.manual_seed(0)
    expected = mixing.mix(images)
    torch.manual_seed(0)
    found = mixing.mix_apart(images, torch.ones(6, dtype=torch.bool))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_a_pool_needs_a_share_of_the_batch(root: Path, flat_folder: MakeFolder) -> None:
    pool = [str(flat_folder(12))]
    with pytest.raises(UserError, match=r"data\.unlabelled_share"):
        fit(root, classifier(auxiliary=SMALL_MAE), pool=pool, unlabelled_share=0.0)
    data = joint_data(root, pool=pool, label_share=1.0)
    tiny_trainer(root.parent).fit(classifier(auxiliary=SMALL_MAE), datamodule=data)
    assert data.num_train_images > data.schedule.num_images == 15


@pytest.mark.parametrize("module", [classifier, pretrain_module])
def test_a_training_that_ignores_images_without_labels_is_refused(root: Path, module: Any) -> None:
    with pytest.raises(UserError, match=r"data\.unlabelled_share=0\.5.*--auxiliary"):
        fit(root, module())


def test_an_objective_that_needs_all_labels_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="Supervised needs a label for every image"):
        fit(root, classifier(auxiliary=Supervised))


def test_an_objective_that_needs_crops_is_refused_without_them(root: Path) -> None:
    with pytest.raises(UserError, match=r"DINO compares 2 crops.*MultiCrop"):
        fit(root, classifier(auxiliary=SMALL_DINO))


def test_without_images_of_the_second_kind_it_warns_and_trains(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ours = fit(root, classifier(auxiliary=SMALL_MAE), label_share=1.0)
    assert "all 15 training images have labels" in caplog.text
    theirs = fit(root, classifier(auxiliary=SMALL_MAE), label_share=1.0, unlabelled_share=0.0)
    assert same_tensors(ours.state_dict(), theirs.state_dict())


def test_a_weight_that_is_not_positive_is_refused() -> None:
    with pytest.raises(UserError, match="auxiliary_weight is 0"):
        classifier(auxiliary=SMALL_MAE, auxiliary_weight=0.0)


PROCESSES = """
import json
import sys
from functools import partial
from pathlib import Path

root, devices, method, tests = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
sys.path.insert(0, tests)

from lightning import Callback
from tiny_runs import classifier, end_together, image_data, tiny_trainer

from lit_splitmask.objectives import MAE, RelativeLocalisation


class Losses(Callback):
    def __init__(self):
        self.losses, self.images = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.images.append(batch["index"].tolist())


watch = Losses()
strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
trainer = tiny_trainer(root.parent, callbacks=[watch], limit_val_batches=0, **strategy)
small_mae = partial(MAE, decoder_dim=16, decoder_depth=1, decoder_heads=2)
auxiliary = {"mae": small_mae, "localise": partial(RelativeLocalisation, weight=1.0)}[method]
module = classifier(auxiliary=auxiliary, drop_path=0.0, mixup=0.0, cutmix=0.0)
trainer.fit(module, datamodule=image_data(root, steps=3, label_share=0.5, unlabelled_share=0.5))
weight = module.vit.patch_embed.proj.weight.detach().double().sum()
result = {"losses": watch.losses, "images": watch.images, "sum": float(weight)}
(root.parent / f"of{devices}-rank{trainer.global_rank}.json").write_text(json.dumps(result))
end_together()
"""


@pytest.mark.parametrize("method", ["mae", "localise"])
def test_two_processes_have_the_losses_of_one_with_the_whole_batch(root: Path, method: str) -> None:
    script = root.parent / "script.py"
    script.write_text(PROCESSES)
    tests = str(Path(__file__).parents[1])
    for devices in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(script), str(root), devices, method, tests],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one = json.loads((root.parent / "of1-rank0.json").read_text())
    two = [json.loads((root.parent / f"of2-rank{rank}.json").read_text()) for rank in (0, 1)]
    for step in range(3):
        images = [rank["images"][step] for rank in two]
        assert images[0] + images[1] == one["images"][step]
        assert [sum(index >= 6 for index in part) for part in images] == [2, 2]
        both = sum(rank["losses"][step] for rank in two) / 2
        assert both == pytest.approx(one["losses"][step], rel=1e-4)
    assert two[0]["sum"] == two[1]["sum"]
    assert two[0]["losses"] != two[1]["losses"]  # each process had its own half
