"""Fine-tuning for few labels: the head that starts as the solved probe, and the moving average of the weights."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file
from tiny_runs import classifier, image_data, pretrain_module, same_tensors, tiny_trainer

from lit_splitmask.callbacks import ExportWeights, MovingAverage
from lit_splitmask.errors import UserError
from lit_splitmask.modules import Classify
from lit_splitmask.probing import LinearProbe

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

REPO = Path(__file__).parents[2]


@pytest.fixture
def root(class_folder: MakeFolder) -> Path:
    return class_folder(per_class=8)


class Keep(Callback):
    """Keeps the weights at the start and after each step."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._keep(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._keep(pl_module)

    def _keep(self, module: Classify) -> None:
        self.states.append({name: value.detach().clone() for name, value in module.vit.state_dict().items()})


def whole_set(data: Any) -> dict[str, torch.Tensor]:
    """All training images without augmentation."""
    images = data.split_images("train")
    batch: dict[str, torch.Tensor] = images.__getitems__(list(range(len(images))))
    return batch


def start(root: Path, **settings: Any) -> tuple[Classify, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A module of these settings, its weights when training starts, and all training images."""
    module, keep, data = classifier(**settings), Keep(), image_data(root, steps=1)
    tiny_trainer(root.parent, callbacks=[keep]).fit(module, datamodule=data)
    return module, keep.states[0], whole_set(data)


def test_a_probed_head_changes_nothing_but_the_head(root: Path) -> None:
    (_, plain, _), (_, probed, _) = start(root), start(root, probe_head=True)
    changed = {name for name in plain if not torch.equal(plain[name], probed[name])}
    assert changed == {"head.weight", "head.bias"}


def test_a_probed_head_is_the_solved_linear_probe_of_what_the_head_sees(root: Path) -> None:
    module, state, batch = start(root, probe_head=True)
    module.vit.load_state_dict(state)
    module.eval()
    with torch.no_grad():
        inputs = module.vit.forward_features(module.normalise(batch["image"])).mean(dim=1)
        inputs = module.vit.fc_norm(inputs)
        logits = module(batch["image"])
    probe = LinearProbe(inputs, batch["label"], 3)
    by_hand = (inputs - probe.mean) / probe.std @ probe.weights[:-1] + probe.weights[-1]
    assert torch.allclose(logits, by_hand, atol=1e-3)
    assert torch.equal(logits.argmax(dim=1), probe.predict(inputs))
    assert logits.std() > 0.1  # not the nearly uniform head that it replaces


def test_solving_the_head_leaves_the_random_states_alone(root: Path) -> None:
    class Draw(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            drawn.append(torch.rand(1))

    drawn: list[torch.Tensor] = []
    for probe_head in (False, True):
        torch.manual_seed(3)
        module = classifier(probe_head=probe_head)
        tiny_trainer(root.parent, callbacks=[Draw()]).fit(module, datamodule=image_data(root, steps=1))
    assert torch.equal(*drawn)


def test_a_head_is_kept_or_probed_but_not_both() -> None:
    with pytest.raises(UserError, match=r"keep_head .* probe_head"):
        classifier(keep_head=True, probe_head=True)


def test_a_probed_head_needs_images_without_augmentation(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = image_data(root, steps=1)
    monkeypatch.setattr(data, "split_images", None)
    with pytest.raises(UserError, match=r"split_images\(\"train\"\)"):
        tiny_trainer(root.parent).fit(classifier(probe_head=True), datamodule=data)


def averaged_run(root: Path, span: float, **settings: Any) -> tuple[Classify, Keep, MovingAverage]:
    module, keep, average = classifier(**settings), Keep(), MovingAverage(span=span)
    trainer = tiny_trainer(root.parent, callbacks=[keep, average])
    trainer.fit(module, datamodule=image_data(root, steps=6))
    return module, keep, average


@pytest.mark.parametrize(("span", "memory"), [(0.5, 3), (1.0, 6), (0.1, 1)])
def test_the_average_is_that_of_a_slow_loop(root: Path, span: float, memory: int) -> None:
    module, keep, _ = averaged_run(root, span)
    after_steps = keep.states[1:]
    assert len(after_steps) == 6
    for name, value in module.vit.state_dict().items():
        by_hand = torch.zeros_like(value)
        for step, state in enumerate(after_steps):
            newest = 1 / min(step + 1, memory)
            by_hand = (1 - newest) * by_hand + newest * state[name]
        assert torch.allclose(value, by_hand, atol=1e-6), name
    last = after_steps[-1]
    assert (memory == 1) == all(torch.allclose(last[name], v, atol=1e-6) for name, v in module.vit.state_dict().items())


def test_averaging_does_not_change_the_training(root: Path) -> None:
    plain = Keep()
    tiny_trainer(root.parent, callbacks=[plain]).fit(classifier(), datamodule=image_data(root, steps=6))
    _, averaged, _ = averaged_run(root, 0.5)
    assert len(plain.states) == len(averaged.states)
    assert all(same_tensors(a, b) for a, b in zip(plain.states, averaged.states, strict=True))


def test_what_is_validated_kept_and_exported_is_the_average(root: Path) -> None:
    class Seen(Callback):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            back.append({name: value.clone() for name, value in pl_module.vit.state_dict().items()})

        def on_validation_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            seen[trainer.global_step] = {name: value.clone() for name, value in pl_module.vit.state_dict().items()}

    seen: dict[int, dict[str, torch.Tensor]] = {}
    back: list[dict[str, torch.Tensor]] = []
    keep, module, file = Keep(), classifier(), root.parent / "classifier.safetensors"
    best = ModelCheckpoint(str(root.parent / "c"), filename="best", monitor="val/accuracy", mode="max")
    callbacks = [keep, MovingAverage(span=1.0), Seen(), ExportWeights(str(file)), best]
    trainer = tiny_trainer(root.parent, callbacks=callbacks, enable_checkpointing=True)
    trainer.fit(module, datamodule=image_data(root, steps=6))
    for step, state in seen.items():
        for name, value in state.items():
            mean = torch.stack([kept[name] for kept in keep.states[1 : step + 1]]).mean(dim=0)
            assert torch.allclose(value, mean, atol=1e-6), (step, name)
    assert sorted(seen) == [3, 6]
    assert same_tensors(back[-1], keep.states[-1])  # training goes on from its own weights
    stored = torch.load(best.best_model_path, weights_only=True)
    kept = {name.removeprefix("network."): value for name, value in stored["state_dict"].items()}
    assert all(torch.equal(kept[name], value) for name, value in seen[stored["global_step"]].items())
    exported = load_file(file)
    assert torch.equal(exported["blocks.0.attn.qkv.weight"], seen[6]["blocks.0.attn.qkv.weight"])


def test_validating_after_training_does_not_bring_the_average_back(root: Path) -> None:
    average = MovingAverage(span=0.5)
    module, data = classifier(), image_data(root, steps=3)
    trainer = tiny_trainer(root.parent, callbacks=[average])
    trainer.fit(module, datamodule=data)
    with torch.no_grad():
        module.vit.get_parameter("head.bias").copy_(torch.tensor([0.0, 1e4, 0.0]))
    scores = trainer.validate(module, datamodule=data, verbose=False)[0]
    assert scores["val/macro_accuracy"] == pytest.approx(1 / 3)


class PowerCut(Callback):
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("power cut")


def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(root: Path) -> None:
    def run(name: str, *more: Callback, resume: bool = False) -> dict[str, Any]:
        folder = root.parent / name
        last = ModelCheckpoint(str(folder), filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
        trainer = tiny_trainer(folder, callbacks=[MovingAverage(span=0.5), *more, last], enable_checkpointing=True)
        path = folder / "last.ckpt"
        data = image_data(root, steps=6)
        trainer.fit(
            classifier(probe_head=True), datamodule=data, ckpt_path=str(path) if resume else None, weights_only=True
        )
        stored: dict[str, Any] = torch.load(path, weights_only=True)
        return stored

    whole = run("whole")
    with pytest.raises(RuntimeError, match="power cut"):
        run("parts", PowerCut())
    resumed = run("parts", resume=True)
    for part in ("state_dict", "current_model_state", "averaging_state"):
        assert same_tensors(whole[part], resumed[part]), part
    assert not same_tensors(whole["state_dict"], whole["current_model_state"])


def test_only_fine_tuning_is_averaged(root: Path) -> None:
    trainer, data = tiny_trainer(root.parent, callbacks=[MovingAverage()]), image_data(root, steps=1)
    with pytest.raises(UserError, match="not for Pretrain"):
        trainer.fit(pretrain_module(), datamodule=data)


@pytest.mark.parametrize("span", [0.0, -0.1, 1.5])
def test_the_span_is_a_share_of_the_run(span: float) -> None:
    with pytest.raises(UserError, match=r"in \(0, 1\]"):
        MovingAverage(span=span)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
from pathlib import Path
from tiny_runs import classifier, end_together, image_data, tiny_trainer
from lit_splitmask.callbacks import MovingAverage
torch.set_num_threads(1)
two = {devices} > 1
trainer = tiny_trainer(Path({folder!r}), callbacks=[MovingAverage(span=0.5)], devices={devices},
                       strategy="ddp" if two else "auto", use_distributed_sampler=False)
module = classifier(probe_head=True, drop_path=0.0, mixup=0.0, cutmix=0.0)
trainer.fit(module, datamodule=image_data(Path({root!r}), steps=6))
torch.save(module.state_dict(), f"{folder}/{devices}-{{trainer.global_rank}}.pt")
end_together()
"""


def test_two_processes_have_the_head_and_the_average_of_one(root: Path) -> None:
    image_data(root).prepare_data()
    for devices in (1, 2):
        script = SCRIPT.format(tests=str(REPO / "tests"), folder=str(root.parent), devices=devices, root=str(root))
        path = root.parent / f"run{devices}.py"
        path.write_text(textwrap.dedent(script))
        environment = {**os.environ, "PYTHONPATH": str(REPO)}
        subprocess.run([sys.executable, str(path)], check=True, env=environment, timeout=300, capture_output=True)
    alone, first, second = (torch.load(root.parent / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert same_tensors(first, second)
    assert all(torch.allclose(alone[name], first[name], atol=1e-4) for name in alone)
