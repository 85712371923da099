"""Early stopping of fine-tuning by a score on val."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_runs import classifier, image_data, tiny_trainer

from lit_splitmask.callbacks import ScoreEarlyStopping
from lit_splitmask.errors import UserError
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.optim import OptimConfig

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

STILL = OptimConfig(lr=1e-12, reference_batch=0, min_lr=0.0)


@pytest.fixture
def root(class_folder: MakeFolder) -> Path:
    return class_folder(per_class=6)


def run(root: Path, patience: int, *, resume: bool = False) -> Trainer:
    """Six steps with a validation after each, unless the score stays the same."""
    last = ModelCheckpoint(
        str(root.parent), filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    stops = [ScoreEarlyStopping("val/accuracy", patience=patience), last]
    trainer = tiny_trainer(root.parent, callbacks=stops, enable_checkpointing=True)
    path = str(root.parent / "last.ckpt") if resume else None
    data = image_data(root, steps=6, num_epochs=6)
    trainer.fit(classifier(optim=STILL), datamodule=data, ckpt_path=path, weights_only=True)
    return trainer


def test_a_run_without_progress_stops_and_stays_stopped_until_its_patience_grows(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, patience=2).global_step == 3  # the first validation sets the best score, two more do not better it
    assert "Stopped at step 3: val/accuracy has not improved in 2 validations" in capsys.readouterr().out
    assert run(root, patience=2, resume=True).global_step == 3
    assert "Stopped at step 3" in capsys.readouterr().out
    assert run(root, patience=4, resume=True).global_step == 5


def test_a_run_that_ends_before_its_patience_does_not_say_that_it_stopped(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, patience=6).global_step == 6
    assert "Stopped" not in capsys.readouterr().out


def test_a_loss_is_better_when_it_is_lower() -> None:
    assert ScoreEarlyStopping("val/loss", patience=1).mode == "min"
    assert ScoreEarlyStopping("val/box/AP", patience=1).mode == "max"


def test_validations_are_needed(root: Path) -> None:
    data = image_data(root, splits=SplitOptions(val_share=0.0))
    trainer = tiny_trainer(root.parent, callbacks=[ScoreEarlyStopping("val/accuracy", patience=2)])
    with pytest.raises(UserError, match="early_stopping needs validation images, to measure val/accuracy"):
        trainer.fit(classifier(), datamodule=data)
    with pytest.raises(UserError, match="early_stopping is 0; it must be"):
        ScoreEarlyStopping("val/accuracy", patience=0)
