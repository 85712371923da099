"""Callbacks around a run: time estimate, progress, clock, exported weights, pictures, predictions."""

import csv
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from own_modules import Images, Plain
from PIL import Image
from rich.console import Console
from tiny_runs import BACKBONE, OPTIM, classifier, image_data, pretrain_module, same_tensors, tiny_trainer
from torch.utils.data import DataLoader

from lit_splitmask.callbacks import (
    EstimateTime,
    ExportWeights,
    HalvesPicture,
    PredictionWriter,
    RunProgress,
    TrainingClock,
    pretraining_pictures,
    progress,
)
from lit_splitmask.callbacks.drawing import LINE_HEIGHT, TITLE_HEIGHT, tile
from lit_splitmask.callbacks.estimate import too_long_message
from lit_splitmask.callbacks.pretraining_pictures import (
    MIN_CELL,
    WORD_SIDE,
    contact_sheet,
    draw_columns,
    lay_out,
    rows_to_draw,
)
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.errors import UserError
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Pretrain
from lit_splitmask.objectives import MAE, BEiT, SimMIM, SplitMask
from lit_splitmask.optim import OptimConfig
from lit_splitmask.tokenizers import RandomProjection
from lit_splitmask.tokenizers.pictures import words_as_patches
from lit_splitmask.units import duration

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


@pytest.fixture
def root(class_folder: MakeFolder) -> Path:
    return class_folder(per_class=8)


class Spy(Callback):
    """Notes weights, gradients and the state of torch's generator when training starts."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        self.generator = torch.get_rng_state()
        self.gradients = [parameter.grad for parameter in pl_module.parameters()]
        self.training = pl_module.training


def test_a_time_estimate_changes_nothing(root: Path) -> None:
    before, after = Spy(), Spy()
    estimate = EstimateTime(warmup=1, steps=2)
    module, plain = pretrain_module(), pretrain_module()
    tiny_trainer(root.parent, callbacks=[before, estimate, after]).fit(module, datamodule=image_data(root))
    tiny_trainer(root.parent).fit(plain, datamodule=image_data(root))
    assert estimate.seconds is not None
    assert estimate.seconds > 0
    assert same_tensors(before.weights, after.weights)
    assert torch.equal(before.generator, after.generator)
    assert all(gradient is None for gradient in after.gradients)
    assert after.training
    assert same_tensors(module.state_dict(), plain.state_dict())
    assert "log" not in vars(module)


def test_an_estimate_counts_the_remaining_steps(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EstimateTime, "_time_steps", lambda self, trainer, module: 2.0)
    estimate = EstimateTime()
    tiny_trainer(root.parent, callbacks=[estimate]).fit(pretrain_module(), datamodule=image_data(root, steps=4))
    assert estimate.seconds == 8.0


def test_a_run_above_the_limit_is_stopped_with_commands_that_fit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EstimateTime, "_time_steps", lambda self, trainer, module: 50_000.0)
    module = pretrain_module()
    before = {name: value.clone() for name, value in module.vit.state_dict().items()}
    estimate = EstimateTime(stop_above=86_400.0, command="lit-splitmask pretrain --data.root DIR")
    with pytest.raises(UserError, match=r"lit-splitmask pretrain --data.root DIR --data.budget.images \d+"):
        tiny_trainer(root.parent, callbacks=[estimate]).fit(module, datamodule=image_data(root))
    assert same_tensors(before, module.vit.state_dict())


def test_a_run_below_the_limit_continues(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EstimateTime, "_time_steps", lambda self, trainer, module: 1.0)
    trainer = tiny_trainer(root.parent, callbacks=[EstimateTime(stop_above=10.0)])
    trainer.fit(pretrain_module(), datamodule=image_data(root))
    assert trainer.global_step == 6


def test_proposed_budgets_take_an_hour_a_night_and_a_day() -> None:
    text = too_long_message(1_000_000.0, steps=1_000, images=2_000_000, command="cmd")  # two images a second
    for images in (7_200, 72_000, 172_800):
        assert f"cmd --data.budget.images {images} " in text
    assert text.endswith("cmd --data.budget.images 2000000")
    assert "1,000 steps" in text
    assert "11 d 13:46:40" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.9, "0:00:59"), (3_661, "1:01:01"), (90_000, "1 d 1:00:00")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_is_printed_as_lines_without_a_terminal(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = tiny_trainer(root.parent, callbacks=[RunProgress(0.0)], enable_progress_bar=True)
    trainer.fit(pretrain_module(), datamodule=image_data(root))
    lines = [line for line in capsys.readouterr().err.splitlines() if "step " in line]
    assert [line.split()[3] for line in lines] == [f"{step}/6" for step in range(1, 7)]
    assert all("images/s" in line and "loss" in line and line.split()[1] == "left" for line in lines)
    assert lines[-1].startswith("0:00:00 left")
    assert not any("\x1b" in line for line in lines)


def test_progress_of_an_endless_run_has_no_total(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = trainer.global_step == 3

    trainer = tiny_trainer(tmp_path, callbacks=[RunProgress(0.0), Stop()], enable_progress_bar=True, max_epochs=-1)
    trainer.fit(Plain(), DataLoader(Images(8), batch_size=2))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["1", "2", "3"]
    assert not any("left" in line for line in lines)


def test_progress_lines_are_rare_by_default(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = tiny_trainer(root.parent, callbacks=[RunProgress()], enable_progress_bar=True)
    trainer.fit(pretrain_module(), datamodule=image_data(root))
    assert not [line for line in capsys.readouterr().err.splitlines() if "step " in line]


@pytest.mark.parametrize(("width", "shown"), [(50, 0), (80, 1), (110, 3)])
def test_the_progress_bar_fits_the_terminal_with_the_time_first(
    width: int, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: terminal)
    scores = {"train/loss": 8.4, "train/inpaint": 5.2, "train/word_accuracy": 0.0, "train/match_accuracy": 0.2}
    run: Any = SimpleNamespace(global_step=0, estimated_stepping_batches=1e5, is_global_zero=True, datamodule=None)
    run.progress_bar_metrics = scores
    monkeypatch.setattr(RunProgress, "_rate", lambda *_: 10.0)
    bar = RunProgress()
    bar.on_train_start(run, None)  # type: ignore[arg-type]
    run.global_step = 1
    bar.on_train_batch_end(run, None, None, None, 0)  # type: ignore[arg-type]
    bar.on_train_end(run, None)  # type: ignore[arg-type]
    line = [text for text in terminal.file.getvalue().splitlines() if " left " in text][-1]  # type: ignore[attr-defined]
    line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip()
    assert re.match(r"[\d d:]+ left .{12} step 1/100,000", line)
    assert len(line) <= width
    assert sum(name.removeprefix("train/") in line for name in scores) == shown


def test_the_clock_counts_the_first_part_of_a_resumed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    first: Any = TrainingClock()
    assert first.seconds == 0
    first.on_train_start(None, None)
    now = 130.0
    state = first.state_dict()  # as in a checkpoint during training
    assert state == {"seconds": 30.0}
    second: Any = TrainingClock()
    second.load_state_dict(state)
    now = 500.0
    second.on_train_start(None, None)
    now = 512.0
    assert second.seconds == 42.0
    second.on_train_end(None, None)
    now = 900.0
    assert second.seconds == 42.0


def test_weights_are_written_when_training_ends(root: Path) -> None:
    path = root.parent / "out" / "backbone.safetensors"
    module = pretrain_module()
    trainer = tiny_trainer(root.parent, callbacks=[ExportWeights(str(path))])
    trainer.fit(module, datamodule=image_data(root, steps=2))
    weights = load_weights(path)
    assert weights.info["step"] == 2
    assert weights.info["pixel_mean"] == pytest.approx(module.pixel_mean.tolist())
    assert same_tensors(weights.state, dict(module.vit.state_dict()))


def test_weights_are_exported_only_as_safetensors() -> None:
    with pytest.raises(UserError, match="safetensors"):
        ExportWeights("backbone.pt")


def test_weights_of_other_modules_are_not_exported(tmp_path: Path) -> None:
    from lightning import LightningModule

    with pytest.raises(UserError, match="LightningModule"):
        ExportWeights(str(tmp_path / "a.safetensors")).export(LightningModule(), 0)


CELL = -(-MIN_CELL // 32) * 32 + 2
"""Width of a cell: 32 px enlarged by a whole number, and the gap."""


def test_pictures_have_one_row_per_image_and_one_column_per_view(root: Path) -> None:
    picture = HalvesPicture(str(root.parent / "pictures"), num_images=2)
    module = pretrain_module()
    tiny_trainer(root.parent, callbacks=[picture]).fit(module, datamodule=image_data(root, steps=1))
    with Image.open(root.parent / "pictures" / "halves.png") as image:
        assert image.width == 6 * CELL
        assert image.height in (2 * CELL + TITLE_HEIGHT + lines * LINE_HEIGHT for lines in (1, 2))  # its legend
    with Image.open(root.parent / "pictures" / "words.png") as image:
        assert image.width == 10 * (WORD_SIDE + 6)  # up to ten words in a row


@pytest.mark.parametrize(
    ("labels", "count", "rows"),
    [
        ([0, 0, 0, 0, 1, 1, 2], 3, [0, 4, 6]),
        ([0, 0, 0, 0, 1, 1, 2], 6, [0, 4, 6, 2, 5]),  # the only image of the third class, once
        ([-1] * 8, 4, [0, 2, 4, 6]),
        ([0, 1, 2, 3, 4, 5], 2, [0, 3]),
    ],
)
def test_rows_come_from_all_classes_and_from_apart_within_a_class(
    labels: list[int], count: int, rows: list[int]
) -> None:
    assert rows_to_draw(labels, count) == rows


def test_pictures_draw_from_the_whole_held_out_split(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining_pictures, "MIN_IMAGES", 2)
    data = [{"image": torch.zeros(3, 8, 8, dtype=torch.uint8), "label": label} for label in (0, 0, 0, 1, 1, 1)]
    _, labels = pretraining_pictures._some_images(
        SimpleNamespace(val_dataloaders=DataLoader(data)), torch.device("cpu")
    )
    assert labels == [0, 1]


def test_only_words_that_occur_are_drawn(tmp_path: Path) -> None:
    tokenizer = RandomProjection(2, vocabulary=64, pixels="centred")
    contact_sheet(tokenizer, torch.rand(1, 3, 4, 2), tmp_path / "words.png")  # two patches
    with Image.open(tmp_path / "words.png") as image:
        assert image.height < 2 * (WORD_SIDE + LINE_HEIGHT) + 10 * LINE_HEIGHT
        assert image.width == 10 * (WORD_SIDE + 6)


FEW_WORDS = partial(RandomProjection, vocabulary=16, pixels="centred")


@pytest.mark.parametrize(
    ("objective", "columns", "files"),
    [
        (partial(BEiT, tokenizer=FEW_WORDS), 4, {"masked.png", "words.png"}),
        (partial(MAE, decoder_dim=16, decoder_depth=1, decoder_heads=2), 3, {"masked.png"}),
        (SimMIM, 3, {"masked.png"}),
        (partial(SplitMask, inpaint=False), 0, set()),
    ],
    ids=["beit", "mae", "simmim", "match"],
)
def test_every_masked_method_has_its_picture(root: Path, objective: Any, columns: int, files: set[str]) -> None:
    folder = root.parent / "pictures"
    folder.mkdir()
    module = Pretrain(objective, backbone=ViTConfig(image_size=32, **BACKBONE), optim=OptimConfig(**OPTIM))
    picture = HalvesPicture(str(folder), num_images=2)
    tiny_trainer(root.parent, callbacks=[picture]).fit(module, datamodule=image_data(root, steps=1))
    assert {path.name for path in folder.iterdir()} == files
    if files:
        with Image.open(folder / "masked.png") as image:
            assert image.width == columns * CELL
            assert image.height >= 2 * CELL + TITLE_HEIGHT + LINE_HEIGHT


def test_drawing_changes_no_weights(root: Path) -> None:
    module = pretrain_module()
    tiny_trainer(root.parent).fit(module, datamodule=image_data(root, steps=1))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    first, again = draw_columns(module.eval(), images, 3), draw_columns(module, images, 3)
    assert first is not None
    assert again is not None
    assert torch.equal(lay_out(first), lay_out(again))
    assert torch.allclose(first["image"], images / 255, atol=1e-6)
    assert same_tensors(before, dict(module.state_dict()))


def test_classification_is_not_drawn(root: Path) -> None:
    trainer = tiny_trainer(root.parent, callbacks=[HalvesPicture(str(root.parent / "pictures"))])
    trainer.fit(classifier(), datamodule=image_data(root, steps=1))
    assert not (root.parent / "pictures").exists()


def test_a_word_is_drawn_as_the_mean_of_the_patches_that_have_it() -> None:
    tokenizer = RandomProjection(2, vocabulary=4, pixels="centred")
    views = torch.rand(3, 3, 6, 6)
    words = tokenizer(views)
    drawn = words_as_patches(tokenizer, views, words)
    cells = [
        (b, r, c, views[b, :, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2])
        for b in range(3)
        for r in range(3)
        for c in range(3)
    ]
    for b, r, c, _ in cells:
        word = words[b, 3 * r + c]
        mean = torch.stack([patch for i, j, k, patch in cells if words[i, 3 * j + k] == word]).mean(dim=0)
        assert torch.allclose(drawn[b, :, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2], mean, atol=1e-6)


def test_a_word_that_does_not_occur_is_grey() -> None:
    tokenizer = RandomProjection(2, vocabulary=4, pixels="centred")
    views = torch.rand(1, 3, 2, 2)  # one patch, one word
    absent = (tokenizer(views) + 1) % 4
    assert torch.equal(words_as_patches(tokenizer, views, absent), torch.full((1, 3, 2, 2), 0.5))


def test_tiles_are_laid_out_row_by_row() -> None:
    images = torch.stack([torch.full((1, 2, 2), value) for value in (0.1, 0.2, 0.3)])
    grid = tile(images, columns=2, gap=1)
    assert grid.shape == (1, 6, 6)
    assert grid[0, 0, 0] == images[0, 0, 0, 0]
    assert grid[0, 0, 3] == images[1, 0, 0, 0]
    assert grid[0, 3, 0] == images[2, 0, 0, 0]
    assert grid[0, 3, 3] == 1.0
    assert grid[0, 2, 0] == 1.0


def test_predictions_have_paths_and_probabilities_that_sum_to_one(root: Path) -> None:
    module, data = classifier(), image_data(root, steps=1)
    tiny_trainer(root.parent).fit(module, datamodule=data)
    path = root.parent / "out.csv"
    tiny_trainer(root.parent, callbacks=[PredictionWriter(str(path))]).predict(module, datamodule=data)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == data.predict_paths
    for row in rows:
        scores = {name: float(row[name]) for name in module.class_names}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-4)
        assert row["predicted"] == max(scores, key=lambda name: scores[name])


PROCESSES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
from tiny_runs import classifier, end_together, image_data, tiny_trainer
from lit_splitmask.callbacks import PredictionWriter

torch.set_num_threads(1)
root = Path(sys.argv[1])
writer = PredictionWriter(str(root.parent / "of2.csv"))
trainer = tiny_trainer(root.parent, callbacks=[writer], strategy="ddp", devices=2)
trainer.predict(classifier(num_classes=3), datamodule=image_data(root, steps=1))
end_together()
"""


def test_two_processes_write_one_file_of_predictions(root: Path) -> None:
    one = root.parent / "of1.csv"
    trainer = tiny_trainer(root.parent, callbacks=[PredictionWriter(str(one))])
    trainer.predict(classifier(num_classes=3), datamodule=image_data(root, steps=1))
    script = root.parent / "script.py"
    script.write_text(PROCESSES)
    done = subprocess.run(
        [sys.executable, str(script), str(root), str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [list(csv.reader(path.open())) for path in (one, root.parent / "of2.csv")]
    assert [row[:2] for row in found[0]] == [row[:2] for row in found[1]]
    assert len(found[0]) > 3
    assert [path.name for path in root.parent.glob("*.csv")] in (["of1.csv", "of2.csv"], ["of2.csv", "of1.csv"])
