"""Training the last blocks of a backbone: what is trained, at which rates, and that the rest stays as it was given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectors import coco, detection_set, detector
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from reference.tiny import tiny_vit
from scenes import scene_data, segmenter, write_scenes
from tiny_runs import BACKBONE, classifier, image_data, same_tensors, tiny_trainer

from lit_splitmask.callbacks import MovingAverage
from lit_splitmask.checkpoints import load_weights, save_backbone
from lit_splitmask.errors import UserError
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Classify
from lit_splitmask.modules.downstream import DownstreamModule
from lit_splitmask.objectives import MAE
from lit_splitmask.optim import OptimConfig

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

EMBEDDINGS = ("pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "cls_token")


@pytest.fixture
def root(class_folder: MakeFolder) -> Path:
    return class_folder(per_class=8)


def weights_of(folder: Path, **shape: Any) -> str:
    """A file of a backbone of random weights."""
    path = folder / "backbone.safetensors"
    save_backbone(path, tiny_vit(**shape))
    return str(path)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return weights_of(tmp_path, **{**BACKBONE, "image_size": 32, "class_token": True})


class Watch(Callback):
    """Keeps what the optimizer holds, and whether frozen weights ever had a gradient."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}
        self.states: set[str] = set()
        self.with_gradient: set[str] = set()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.with_gradient |= {name for name, value in pl_module.named_parameters() if value.grad is not None}

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        names = {value: name for name, value in pl_module.named_parameters()}
        for group in trainer.optimizers[0].param_groups:
            self.rates |= {names[value]: group["initial_lr"] for value in group["params"]}
        self.states = {names[value] for value in trainer.optimizers[0].state}


def trained(module: DownstreamModule, data: Any, folder: Path, *callbacks: Callback) -> Watch:
    watch = Watch()
    tiny_trainer(folder, callbacks=[watch, *callbacks]).fit(module, datamodule=data)
    return watch


def frozen_names(module: DownstreamModule, frozen_blocks: int) -> set[str]:
    """The names, in the backbone, of what must be frozen, by hand."""
    names = dict(module.vit.named_parameters())
    blocks = tuple(f"blocks.{number}." for number in range(frozen_blocks))
    return {name for name in names if name in EMBEDDINGS or name.startswith(blocks)}


@pytest.mark.parametrize("trained_blocks", [0, 1, 2])
@pytest.mark.parametrize("averages", [False, True])
def test_frozen_weights_stay_as_given_and_are_unknown_to_the_optimizer(
    trained_blocks: int, averages: bool, root: Path, weights: str
) -> None:
    module, given = (
        classifier(weights=weights, backbone=None, trained_blocks=trained_blocks),
        load_weights(weights).state,
    )
    watch = trained(module, image_data(root), root.parent, *([MovingAverage(span=0.5)] if averages else []))
    frozen = frozen_names(module, 2 - trained_blocks)
    assert len(frozen) == 4 + 12 * (2 - trained_blocks)
    state = module.vit.state_dict()
    assert all(torch.equal(state[name], given[name]) for name in frozen)  # no gradient, and no weight decay
    expected = {f"network.{name}" for name in state.keys() - frozen}
    assert watch.rates.keys() == watch.states == watch.with_gradient == expected
    assert {"network.head.weight", "network.fc_norm.weight"} <= expected
    others = [name for name in given.keys() - frozen if name in state]
    assert len(others) >= 12 * trained_blocks
    assert not any(torch.equal(state[name], given[name]) for name in others if name.startswith("blocks"))


def test_the_rates_of_the_other_layers_do_not_change(root: Path, weights: str) -> None:
    optim = OptimConfig(lr=1e-3, reference_batch=0, warmup=0.0, layer_decay=0.5)
    rates = []
    for trained_blocks in (None, 1):
        module = classifier(weights=weights, backbone=None, optim=optim, trained_blocks=trained_blocks)
        rates.append(trained(module, image_data(root, steps=1), root.parent).rates)
    whole, part = rates
    assert part == {name: whole[name] for name in part}
    assert part["network.blocks.1.attn.qkv.weight"] == pytest.approx(1e-3 / 2)
    assert len(part) < len(whole)


@pytest.mark.parametrize(("trained_blocks", "is_random"), [(None, True), (1, True), (0, False)])
def test_frozen_blocks_have_no_stochastic_depth(trained_blocks: int | None, is_random: bool, weights: str) -> None:
    module = classifier(weights=weights, backbone=None, drop_path=0.9, num_classes=3, trained_blocks=trained_blocks)
    tokens = torch.randn(64, 17, 32, generator=torch.Generator().manual_seed(0))
    block = module.vit.blocks[1].train()  # the first has a rate of 0 in any case
    assert torch.equal(block(tokens), block(tokens)) != is_random
    assert torch.equal(block.eval()(tokens), block(tokens))


def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(root: Path, weights: str) -> None:
    class Cut(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError("cut")

    def run(name: str, *more: Callback, resume: bool = False) -> dict[str, Any]:
        folder = root.parent / name
        last = ModelCheckpoint(str(folder), filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
        trainer = tiny_trainer(folder, callbacks=[*more, last], enable_checkpointing=True)
        path = folder / "last.ckpt"
        module = classifier(weights=weights, backbone=None, trained_blocks=1)
        trainer.fit(module, datamodule=image_data(root), ckpt_path=str(path) if resume else None, weights_only=True)
        stored: dict[str, Any] = torch.load(path, weights_only=True)["state_dict"]
        return stored

    whole = run("whole")
    with pytest.raises(RuntimeError, match="cut"):
        run("parts", Cut())
    assert same_tensors(run("parts", resume=True), whole)


def test_segmenters_freeze_the_same_part_of_their_backbone(tmp_path: Path) -> None:
    data = scene_data(write_scenes(tmp_path / "scenes"))
    file = weights_of(tmp_path, **{**BACKBONE, "depth": 4, "image_size": 32})
    module = segmenter(weights=file, backbone=None, trained_blocks=1)
    check_backbone(module, file, trained(module, data, tmp_path))


def test_detectors_freeze_the_same_part_of_their_backbone(tmp_path: Path) -> None:
    data = coco(detection_set(tmp_path / "set"), steps=2)
    file = weights_of(tmp_path, **{**BACKBONE, "depth": 4, "image_size": 64, "positions": "sincos"})
    module = detector(weights=file, backbone=None, trained_blocks=1)
    check_backbone(module, file, trained(module, data, tmp_path))


def check_backbone(module: DownstreamModule, file: str, watch: Watch) -> None:
    given, state, frozen = load_weights(file).state, module.vit.state_dict(), frozen_names(module, 3)
    assert all(torch.equal(state[name], given[name]) for name in frozen)
    assert not torch.equal(state["blocks.3.mlp.fc1.weight"], given["blocks.3.mlp.fc1.weight"])
    names = {value: name for name, value in module.named_parameters()}
    frozen_here = {names[value] for name, value in module.vit.named_parameters() if name in frozen}
    assert watch.with_gradient.isdisjoint(frozen_here)
    assert watch.rates.keys().isdisjoint(frozen_here)
    assert watch.rates.keys() == watch.states


@pytest.mark.parametrize("number", [-1, 3])
def test_what_is_not_a_number_of_blocks_is_refused(number: int, weights: str) -> None:
    with pytest.raises(UserError, match=rf"trained_blocks is {number}.* the 2 blocks"):
        Classify(weights, trained_blocks=number)


def test_random_weights_are_not_frozen() -> None:
    with pytest.raises(UserError, match=r"random initial weights.*--weights FILE"):
        Classify(backbone=ViTConfig(image_size=32, **BACKBONE), trained_blocks=1)


def test_an_auxiliary_objective_needs_a_part_of_the_backbone_to_train(weights: str) -> None:
    with pytest.raises(UserError, match="nothing to train"):
        Classify(weights, trained_blocks=0, auxiliary=MAE)
