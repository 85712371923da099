"""Runs with a real trainer: which images are seen, with and without resuming."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lit_splitmask.datamodules import Budget, ImageFolder
from lit_splitmask.errors import UserError

MakeFolder = Callable[..., Path]
Run = Callable[..., tuple["Recorder", Trainer]]

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # Lightning's advice on tiny runs
    pytest.mark.filterwarnings("error:.*dataloader is not resumable"),
]


class Recorder(LightningModule):
    """Records the images of every batch and the sum of their pixels."""

    def __init__(self, *, asks_for_steps: bool = False) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[list[int], int]] = []
        self.evaluated: list[int] = []
        self.asks_for_steps = asks_for_steps
        self.steps: float = 0

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append((batch["index"].tolist(), int(batch["image"].long().sum())))
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        if not self.trainer.sanity_checking:
            self.evaluated += batch["index"].tolist()

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.evaluated += batch["index"].tolist()

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> list[int]:
        return batch["index"].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.asks_for_steps:  # makes Lightning load the training data before it restores a checkpoint
            self.steps = self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def run(class_folder: MakeFolder, tmp_path: Path) -> Run:
    root = class_folder(per_class=5)  # 9 images to train on

    def make(
        *,
        num_workers: int = 0,
        ckpt_path: Path | None = None,
        asks: bool = False,
        budget: Budget | None = Budget(steps=11),  # noqa: B008 (frozen)
        **settings: Any,
    ) -> tuple[Recorder, Trainer]:
        data = ImageFolder(
            str(root),
            16,
            batch_size=4,
            budget=budget,
            num_epochs=3,
            num_workers=num_workers,
            index_dir=str(tmp_path / "runs"),
        )
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
        saver = ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = Trainer(**({"max_epochs": -1, "callbacks": [saver], **quiet} | settings))
        module = Recorder(asks_for_steps=asks)
        trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=False if ckpt_path else None)
        return module, trainer

    return make


def test_the_budget_becomes_the_trainers_steps(run: Run) -> None:
    module, trainer = run(asks=True)
    assert trainer.global_step == len(module.seen) == 11
    assert module.steps == 11
    assert trainer.current_epoch == 3
    # Epochs of 4, 4 and 3 steps; Lightning does not validate after an incomplete one.
    assert len(module.evaluated) == 3 * 2
    images = [index for indices, _ in module.seen for index in indices]
    assert [sorted(images[start : start + 9]) for start in (0, 9, 18, 27)] == [list(range(9))] * 4


@pytest.mark.parametrize(
    ("budget", "setting", "value"),
    [(Budget(steps=11), "max_steps", 5), (Budget(passes=3), "max_epochs", 1), (Budget(scale=0.1), "max_steps", 1)],
)
def test_a_trainer_that_contradicts_the_budget_is_refused(run: Run, budget: Budget, setting: str, value: int) -> None:
    with pytest.raises(UserError, match=f"{next(iter(str(budget).split('=')))}.*trainer.{setting}={value}"):
        run(budget=budget, **{setting: value})


def test_a_trainer_that_agrees_with_the_budget_is_accepted(run: Run) -> None:
    _, trainer = run(max_steps=11, max_epochs=3)
    assert trainer.global_step == 11


def test_a_trainers_own_steps_count_if_there_is_no_budget(run: Run) -> None:
    module, trainer = run(budget=None, max_steps=5, asks=True)
    assert trainer.global_step == module.steps == 5
    assert trainer.datamodule.schedule.steps == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("step", [2, 4, 7])
def test_a_resumed_run_sees_the_same_images_as_an_uninterrupted_one(
    run: Run, tmp_path: Path, num_workers: int, step: int
) -> None:
    whole, _ = run(num_workers=num_workers)
    checkpoint = tmp_path / "saved" / f"step={step}.ckpt"
    resumed, trainer = run(num_workers=num_workers, ckpt_path=checkpoint)
    assert resumed.seen == whole.seen[step:]
    assert trainer.global_step == 11


@pytest.mark.parametrize("num_workers", [0, 2])
def test_asking_for_the_number_of_steps_does_not_change_a_resumed_run(
    run: Run, tmp_path: Path, num_workers: int
) -> None:
    whole, _ = run(max_epochs=3, asks=True)
    checkpoint = tmp_path / "saved" / "step=6.ckpt"
    resumed, _ = run(max_epochs=3, asks=True, num_workers=num_workers, ckpt_path=checkpoint)
    assert resumed.seen == whole.seen[6:]


def test_accumulated_steps_see_the_same_images(run: Run) -> None:
    whole, _ = run()
    halves, trainer = run(accumulate_grad_batches=2)
    assert trainer.global_step == 11
    pairs = zip(halves.seen[::2], halves.seen[1::2], strict=True)
    assert [(one[0] + other[0], one[1] + other[1]) for one, other in pairs] == whole.seen


def test_a_resume_between_accumulated_steps_is_exact(run: Run, tmp_path: Path) -> None:
    whole, _ = run(accumulate_grad_batches=2)
    checkpoint = tmp_path / "saved" / "step=5.ckpt"
    resumed, _ = run(accumulate_grad_batches=2, ckpt_path=checkpoint)
    assert resumed.seen == whole.seen[10:]


def test_testing_and_predicting_see_every_image(run: Run) -> None:
    module, trainer = run()
    module.evaluated.clear()
    trainer.test(module, trainer.datamodule, verbose=False)  # type: ignore[attr-defined]
    assert module.evaluated == [0, 1, 2]
    batches = trainer.predict(module, trainer.datamodule)  # type: ignore[attr-defined]
    assert [index for indices in batches for index in indices] == list(range(15))  # type: ignore[union-attr]
