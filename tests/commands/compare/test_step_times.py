"""Equal time comes from the times of steps that are measured in turn."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import FINETUNE, PRETRAIN

from lit_splitmask.cli import main
from lit_splitmask.commands.compare import experiment, step_times
from lit_splitmask.commands.compare.jobs import Backbone, Finetuned
from lit_splitmask.commands.compare.step_times import ROUNDS, TIMED_STEPS, Training

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

JOINT = {
    "model": {
        "auxiliary": {"class_path": "MAE", "init_args": {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}}
    },
    "data": {"init_args": {"unlabelled_share": 0.5}},
}
SELF_TRAINING = {**JOINT, "model": {"auxiliary": {"class_path": "SelfTraining"}}}


def test_trainings_have_their_turns_and_the_median_step_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[Any] = []

    def time_steps(self: Training) -> list[float]:
        order.append(self.share)
        return [1.0, 1.0, 9.0] if len(order) <= 2 else [2.0, 2.0, 2.0]  # the first turns are slow or lucky

    monkeypatch.setattr(Training, "time_steps", time_steps)
    first = step_times.finetuning([], {}, 0.5)
    assert step_times.step_times({"a": first, "b": replace(first, share=1.0)}) == {"a": 2.0, "b": 2.0}
    assert order == [0.5, 1.0] * ROUNDS


def test_steps_are_timed_without_fitting_words_or_leaving_files(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_splitmask.tokenizers.KMeans.fit", lambda *_: pytest.fail("words were fitted"))
    before = {path.name for path in work.iterdir()}
    training = step_times.pretraining(["--data.root=shapes", "--data.index_dir=index"], PRETRAIN)
    seconds = training.time_steps()
    assert len(seconds) == TIMED_STEPS
    assert all(second > 0 for second in seconds)
    assert training.num_steps() == 6  # the recipe's, although other steps were timed
    assert {path.name for path in work.iterdir()} == before | {"index"}


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_long_arms_take_as_long_as_both_stages(share: float, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Joint training on a part of the labels has more steps in a pass, since only some images of a batch have labels."""
    settings = {
        name: {**part, "data": {**part["data"], "init_args": {**part["data"]["init_args"], "budget": {"passes": 20}}}}
        for name, part in (("pretrain", PRETRAIN), ("finetune", FINETUNE))
    }
    Path("tiny.yaml").write_text(
        yaml.safe_dump({**settings, "joint": JOINT, "self_training": SELF_TRAINING, "grid": [{"model.optim.lr": 1e-3}]})
    )
    times = {"pretrain": 2.0, "scratch_long": 1.0, "joint": 4.0} | ({"self_training": 1.5} if share < 1 else {})
    stretches: dict[str, float] = {}
    starts: dict[str, bool] = {}
    steps: dict[str, int] = {}

    def measured(trainings: dict[str, Training]) -> dict[str, float]:
        steps.update({name: training.num_steps() for name, training in trainings.items()})
        return times

    def finetuned(job: Any, *, stretch: float, **_: Any) -> Finetuned:
        stretches[job.folder.path.name.partition("-")[0]] = stretch
        starts[job.folder.path.name.partition("-")[0]] = "w.safetensors" in str(job.arguments)
        return Finetuned(0.5, 1.0, {"test/accuracy": 0.5})

    monkeypatch.setattr(step_times, "step_times", measured)
    monkeypatch.setattr(experiment, "run_pretraining", lambda job: Backbone("w.safetensors", 1.0))
    monkeypatch.setattr(experiment, "run_finetuning", finetuned)
    command = ["compare", "--data.root", "shapes", "--recipe", "tiny.yaml", "--out", "c", "--seeds", "2"]
    assert main([*command, "--label_shares", str(share)]) == 0
    assert steps["joint"] == pytest.approx((2 if share < 1 else 1) * steps["scratch_long"], rel=0.1)
    total = 2.0 * steps["pretrain"] + steps["scratch_long"]
    for name in ("scratch_long", "joint"):
        assert stretches[name] * steps[name] * times[name] == pytest.approx(total, rel=0.01)
    if share < 1:  # as long as fine-tuning, after the same pre-training
        after = stretches["self_training"] * steps["self_training"] * times["self_training"]
        assert after == pytest.approx(steps["scratch_long"], rel=0.01)
    left_out = "there are no images without labels for self-training, so it is left out"
    assert (left_out in Path("c/comparison.md").read_text()) == (share == 1)
    from_weights = [name for name, pretrained in starts.items() if pretrained]
    assert from_weights == (["pretrained"] if share == 1 else ["pretrained", "self_training"])
    assert stretches["scratch"] == stretches["pretrained"] == 1
    assert json.loads(Path("c/step_times.json").read_text()) == {f"{share:g}": times}
    monkeypatch.setattr(step_times, "step_times", lambda _: pytest.fail("timed again"))
    before = dict(stretches)
    assert main([*command, "--label_shares", str(share)]) == 0
    assert stretches == before
