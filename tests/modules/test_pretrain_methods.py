"""``Pretrain`` with methods that need several crops, a teacher or labels."""

import copy
import itertools
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_runs import BACKBONE, OPTIM, classifier, image_data, same_tensors, tiny_trainer

from lit_splitmask.callbacks import EstimateTime, ExportWeights, OverfitAwareCheckpoint, ShortFinetune
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.datamodules import FinetuneAugment, MultiCrop, PretrainAugment
from lit_splitmask.errors import UserError
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.mixing import Mixing
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Pretrain
from lit_splitmask.objectives import (
    DINO,
    MAE,
    InstanceDiscrimination,
    MoCoV3,
    Objective,
    RelativeLocalisation,
    Supervised,
)
from lit_splitmask.optim import OptimConfig
from lit_splitmask.selection.snapshot import ImageSubset, Snapshot, undisturbed

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

SMALL_DINO = partial(DINO, num_prototypes=16, hidden_dim=16, bottleneck_dim=8)
SMALL_MOCOV3 = partial(MoCoV3, hidden_dim=16, output_dim=8)
SMALL_MAE = partial(MAE, decoder_dim=16, decoder_depth=1, decoder_heads=2)
CROPS = MultiCrop(num_local=2, local_size=16)


@pytest.fixture
def root(class_folder: MakeFolder) -> Path:
    return class_folder(per_class=8)


def module(objective: Any, **optim: Any) -> Pretrain:
    backbone = ViTConfig(**{**BACKBONE, "image_size": 32, "drop_path": 0.1})
    return Pretrain(objective, backbone=backbone, optim=OptimConfig(**{**OPTIM, **optim}))


def fit(root: Path, objective: Any, *callbacks: Any, ckpt_path: Any = None, optim: Any = None, **data: Any) -> Pretrain:
    trained = module(objective, **(optim or {}))
    trainer = tiny_trainer(root.parent, callbacks=list(callbacks), enable_checkpointing=bool(callbacks))
    trainer.fit(trained, datamodule=image_data(root, **data), ckpt_path=ckpt_path, weights_only=True)
    return trained


@pytest.mark.parametrize(
    "objective", [SMALL_DINO, SMALL_MOCOV3, InstanceDiscrimination], ids=["dino", "mocov3", "instance"]
)
def test_a_resumed_method_is_bit_for_bit_the_uninterrupted_one(root: Path, objective: Any) -> None:
    class Stop(OverfitAwareCheckpoint):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError("power cut")

    whole = fit(root, objective, augment=CROPS)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(root, objective, Stop(str(root.parent / "c")), augment=CROPS)
    keeper = OverfitAwareCheckpoint(str(root.parent / "c"))
    resumed = fit(root, objective, keeper, ckpt_path=str(root.parent / "c" / "last.ckpt"), augment=CROPS)
    assert same_tensors(whole.state_dict(), resumed.state_dict())
    assert whole.objective.backbone.blocks[0].attn.qkv.weight.requires_grad


class Recorded(DINO):
    """Notes its calls and the progress at each."""

    def __init__(self, backbone: Any) -> None:
        super().__init__(backbone, num_prototypes=16, hidden_dim=16, bottleneck_dim=8, momentum=0.5, freeze_share=0.3)
        self.calls: list[tuple[str, float]] = []

    def forward(self, batch: Any, generator: Any) -> Any:
        self.calls.append(("forward", self.progress))
        return super().forward(batch, generator)

    def before_update(self) -> None:
        assert self.head.mlp[0].weight.grad is not None
        self.calls.append(("before", self.progress))
        super().before_update()

    def after_step(self, progress: float) -> None:
        self.calls.append(("after", progress))
        super().after_step(progress)


def test_a_method_is_called_with_the_progress_at_each_step(root: Path) -> None:
    class Look(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            objective = pl_module.objective
            self.teacher = objective.teacher_backbone.network.blocks[0].mlp.fc1.weight.clone()
            self.prototypes = [objective.head.prototypes.detach().clone()]

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            objective, step = pl_module.objective, trainer.global_step
            if len(self.prototypes) == step + 1:
                return  # gradients were only accumulated
            momentum = 1 - 0.5 * (1 + math.cos(math.pi * (step - 1) / 4)) / 2
            student = objective.backbone.blocks[0].mlp.fc1.weight.detach()
            self.teacher = momentum * self.teacher + (1 - momentum) * student
            torch.testing.assert_close(objective.teacher_backbone.network.blocks[0].mlp.fc1.weight, self.teacher)
            self.prototypes.append(objective.head.prototypes.detach().clone())

    look = Look()
    trainer = tiny_trainer(root.parent, callbacks=[look], accumulate_grad_batches=2)
    trained = module(Recorded)
    trainer.fit(trained, datamodule=image_data(root, steps=4, augment=CROPS))
    assert trained.objective.calls == [
        call
        for step in range(4)
        for call in [("forward", step / 4), ("forward", step / 4), ("before", step / 4), ("after", (step + 1) / 4)]
    ]
    moved = [not torch.equal(one, other) for one, other in itertools.pairwise(look.prototypes)]
    assert moved == [False, False, True, True]  # frozen for 0.3 of the run


@pytest.mark.parametrize("objective", [SMALL_DINO, SMALL_MOCOV3], ids=["dino", "mocov3"])
def test_a_checkpoint_within_an_epoch_holds_the_updated_teacher(root: Path, objective: Any) -> None:
    folder = root.parent / "steps"
    each = ModelCheckpoint(str(folder), filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = fit(root, objective, each, augment=CROPS, steps=4, num_epochs=1)
    for step in (1, 3):
        path = str(folder / f"step={step}.ckpt")
        resumed = fit(root, objective, ckpt_path=path, augment=CROPS, steps=4, num_epochs=1)
        assert same_tensors(whole.state_dict(), resumed.state_dict())


def test_dino_exports_its_teacher(root: Path) -> None:
    trained = fit(root, SMALL_DINO, ExportWeights(str(root.parent / "w.safetensors")), augment=CROPS)
    teacher = trained.objective.teacher_backbone.network
    assert trained.vit is teacher
    assert same_tensors(load_weights(root.parent / "w.safetensors").state, dict(teacher.state_dict()))


def test_the_signal_of_a_short_fine_tuning_works_on_a_teacher(root: Path) -> None:
    """A teacher's weights have no gradients, but those of the fine-tuned copy must."""
    data = image_data(root)
    data.prepare_data()
    data.setup("fit")
    trained = module(SMALL_DINO)
    images = ImageSubset(data.eval_images(data.train_samples), 100)
    before = copy.deepcopy(trained.state_dict())
    with undisturbed(trained):
        signal = ShortFinetune(steps=5)
        optimised = signal.measure(Snapshot(trained, images, images, 3, 0))
    assert 0 <= optimised[0] <= 1
    assert same_tensors(before, trained.state_dict())


def test_timing_the_steps_of_dino_changes_nothing(root: Path) -> None:
    timed = fit(root, SMALL_DINO, EstimateTime(), augment=CROPS)
    plain = fit(root, SMALL_DINO, augment=CROPS)
    assert same_tensors(timed.state_dict(), plain.state_dict())


def test_the_weight_decay_follows_half_a_cosine(root: Path) -> None:
    class Note(ExportWeights):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            seen.append(sorted({group["weight_decay"] for group in trainer.optimizers[0].param_groups}))

    seen: list[Any] = []
    note = Note(str(root.parent / "w.safetensors"))
    fit(root, SMALL_MAE, note, optim={"weight_decay": 0.04, "weight_decay_end": 0.4}, steps=4)
    halves = [0.04, 0.4 - 0.36 * (1 + 2**-0.5) / 2, 0.22, 0.4 - 0.36 * (1 - 2**-0.5) / 2]
    assert [values[0] for values in seen] == [0, 0, 0, 0]  # vectors
    assert [values[-1] for values in seen] == pytest.approx(halves)


@pytest.mark.parametrize(
    ("objective", "data", "message"),
    [
        (
            SMALL_DINO,
            {},
            "DINO compares 2 crops of each image, but the augmentation gives 1: use data.augment=MultiCrop",
        ),
        (SMALL_MOCOV3, {"augment": CROPS, "batch_size": 1}, "a batch needs at least 2 images"),
        (
            SMALL_DINO,
            {"augment": MultiCrop(num_local=1, local_size=40)},
            "local crops of 40 px are larger than the global",
        ),
        (
            SMALL_DINO,
            {"augment": MultiCrop(num_local=1, local_size=12)},
            "Crops of 12 px cannot be cut into patches of 8",
        ),
    ],
)
def test_unsuitable_crops_and_batches_are_refused(root: Path, objective: Any, data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(root, objective, **data)


def test_a_batch_of_more_images_than_there_are_is_reported(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(root, SMALL_MOCOV3, augment=CROPS, batch_size=40, steps=2)
    assert "A batch of 40 is more than the 15 training images" in caplog.text


def test_methods_that_compare_images_need_at_least_two(flat_folder: MakeFolder) -> None:
    alone = flat_folder(count=1)
    with pytest.raises(UserError, match="needs at least 2 training images, but there is 1"):
        fit(alone, SMALL_MOCOV3, EstimateTime(), augment=CROPS, splits=SplitOptions(val_share=0.0))
    fit(alone, SMALL_MAE, EstimateTime(), steps=1, splits=SplitOptions(val_share=0.0))


def test_supervised_pre_training_finds_its_classes(root: Path, flat_folder: MakeFolder) -> None:
    objective = partial(Supervised, auxiliary=RelativeLocalisation)
    trained = fit(root, objective, augment=FinetuneAugment(rand_augment=None))
    assert trained.objective.head.out_features == 3
    again = fit(root, objective, augment=FinetuneAugment(rand_augment=None))
    assert same_tensors(trained.state_dict(), again.state_dict())
    with pytest.raises(UserError, match="at least two classes"):
        fit(flat_folder(12, name="flat"), objective)


def test_supervised_pre_training_needs_a_label_for_every_image(root: Path, flat_folder: MakeFolder) -> None:
    with pytest.raises(UserError, match="needs a label for every image"):
        fit(root, Supervised, pool=[str(flat_folder(12, name="pool"))])


def test_images_are_mixed_with_other_images_although_copies_are_neighbours() -> None:
    torch.manual_seed(0)
    mixing = Mixing(8, mixup=0.8, cutmix=0.0, label_smoothing=0.0)
    labels = torch.arange(8).repeat_interleave(3)
    mixed = 0
    for _ in range(20):
        images, targets = mixing(
            torch.nn.functional.one_hot(labels, 8)[:, None, None].expand(-1, 3, 1, -1).float(), labels
        )
        torch.testing.assert_close(images[:, 0, 0], targets)  # the order of the targets is that of the images
        mixed += int((targets.max(dim=1).values < 1).sum())
    assert mixed > 20 * 24 * 0.75


def test_relative_localisation_changes_the_training_of_a_classifier(root: Path) -> None:
    plain, helped = (classifier(auxiliary=aux) for aux in (None, RelativeLocalisation))
    for one in (plain, helped):
        tiny_trainer(root.parent).fit(one, datamodule=image_data(root))
    assert not same_tensors(dict(plain.vit.state_dict()), dict(helped.vit.state_dict()))
    assert any(name.startswith("auxiliary.") for name in helped.state_dict())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_crops_are_the_same_for_any_number_of_workers(root: Path, channels: Any, num_workers: int) -> None:
    def batches(workers: int) -> list[dict[str, torch.Tensor]]:
        augment = MultiCrop(second=PretrainAugment(solarize=1.0), num_local=2, local_size=16)
        data = image_data(root, augment=augment, num_workers=workers, channels=channels)
        data.prepare_data()
        data.setup("fit")
        return [{name: value.clone() for name, value in batch.items()} for batch in data.train_dataloader()]

    for ours, theirs in zip(batches(0), batches(num_workers), strict=True):
        assert [tuple(ours[name].shape[1:]) for name in ("image", "image_1", "image_2", "image_3")] == [
            (channels, 32, 32),
            (channels, 32, 32),
            (channels, 16, 16),
            (channels, 16, 16),
        ]
        assert same_tensors(ours, theirs)
        assert not torch.equal(ours["image_2"], ours["image_3"])


def test_each_crop_has_its_own_augmentation(root: Path) -> None:
    plain = {"min_scale": 1.0, "hflip": 0.0}
    solarised, grey = PretrainAugment(**plain, solarize=1.0), PretrainAugment(**plain, grayscale=1.0)
    augment = MultiCrop(first=PretrainAugment(**plain), second=solarised, local=grey, num_local=1, local_size=16)
    data = image_data(root, augment=augment)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    first, second, local = (batch[name].int() for name in ("image", "image_1", "image_2"))
    colourful = [int((crop.amax(dim=1) - crop.amin(dim=1)).amax()) for crop in (first, second, local)]
    assert second.max() < 128 <= first.max()
    assert colourful[2] <= 1 < min(colourful[:2])


def test_every_objective_is_public() -> None:
    from lit_splitmask import objectives

    classes = [value for value in vars(objectives).values() if isinstance(value, type) and issubclass(value, Objective)]
    assert {one.__name__ for one in classes} <= set(objectives.__all__)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_before_the_fused_update(root: Path, algorithm: Any, precision: Any) -> None:
    class Look(Callback):
        def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            if found:
                seen.append(
                    (float(torch.stack([g.norm() for g in found]).norm()), max(float(g.abs().max()) for g in found))
                )

    seen: list[tuple[float, float]] = []
    settings = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": algorithm, "precision": precision}
    trainer = tiny_trainer(root.parent, callbacks=[Look()], **settings)
    trainer.fit(module(SMALL_MAE), datamodule=image_data(root))
    assert trainer.optimizers[0].defaults["fused"]
    assert len(seen) >= 4
    assert all((norm if algorithm == "norm" else largest) == pytest.approx(1e-3, rel=1e-2) for norm, largest in seen)
