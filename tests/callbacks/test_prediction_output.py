"""Predictions: no two processes write one output, none is half-written, and the line about them is below the finished bar."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning import Callback
from lightning.pytorch.callbacks import ProgressBar
from scenes import scene_data, segmenter, write_scenes
from tiny_runs import classifier, image_data, tiny_trainer

from lit_splitmask.callbacks import CocoResults, LabelMapWriter, PredictionWriter, prediction_output
from lit_splitmask.callbacks.prediction_output import PredictionOutput
from lit_splitmask.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


class Bar(ProgressBar):
    """Records its end and what is printed."""

    is_enabled = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def on_predict_end(self, *_: Any) -> None:
        self.seen.append("end")

    def print(self, *args: Any, **_: Any) -> None:
        self.seen.append(" ".join(map(str, args)))


class Fails(Callback):
    """Fails after the first batch is written."""

    def on_predict_batch_end(self, *_: Any) -> None:
        raise RuntimeError("the first batch")


@pytest.fixture
def photos(class_folder: Any) -> Path:
    return Path(class_folder(per_class=4))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths that another process holds."""
    held: list[Path] = []
    ours = prediction_output.reserve
    monkeypatch.setattr(prediction_output, "reserve", lambda path: None if path in held else ours(path))
    return held


def predict(photos: Path, *callbacks: Callback, **settings: Any) -> None:
    trainer = tiny_trainer(photos.parent, callbacks=list(callbacks), **settings)
    trainer.predict(classifier(num_classes=3), datamodule=image_data(photos, steps=1))


def alone(writer: PredictionOutput) -> PredictionOutput:
    """A writer that is about to write, without a training."""
    trainer: Any = SimpleNamespace(is_global_zero=True, strategy=SimpleNamespace(broadcast=lambda value: value))
    writer.setup(trainer, None, "predict")  # type: ignore[arg-type]
    return writer


@pytest.mark.parametrize("bar_first", [True, False])
def test_what_was_written_is_said_when_the_bar_has_ended(bar_first: bool, photos: Path) -> None:
    bar, writer = Bar(), PredictionWriter(str(photos.parent / "p.csv"))
    predict(photos, *((bar, writer) if bar_first else (writer, bar)), enable_progress_bar=True)
    assert bar.seen == ["end", f"Wrote {writer.path}: 12 images."]


def test_a_name_that_another_process_is_writing_is_passed_over(
    tmp_path: Path, taken: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.csv"
    taken.append(path)
    (tmp_path / "p-2.csv").touch()
    writer = alone(PredictionWriter(str(path), numbered=True))
    assert writer.path == tmp_path / "p-3.csv"
    assert capsys.readouterr().out == f"{path} is being written: these go to {writer.path}.\n"
    writer.on_exception(None, None, KeyboardInterrupt())  # type: ignore[arg-type]
    assert [entry.name for entry in tmp_path.iterdir()] == ["p-2.csv"]


def test_a_path_of_the_users_that_another_process_is_writing_is_refused(tmp_path: Path, taken: list[Path]) -> None:
    taken.append(tmp_path / "p.csv")
    with pytest.raises(UserError, match=r"p.csv is being written: wait for that, or choose another file"):
        alone(PredictionWriter(str(tmp_path / "p.csv")))


def test_detections_pass_over_a_number_whose_second_file_exists(tmp_path: Path) -> None:
    (tmp_path / "r.json").touch()
    (tmp_path / "r-2_images.json").touch()
    writer = alone(CocoResults(str(tmp_path / "r.json"), numbered=True))
    assert writer.path == tmp_path / "r-3.json"
    (tmp_path / "r-3.json").touch()  # then the disk is full
    writer.on_exception(None, None, OSError())  # type: ignore[arg-type]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["r-2_images.json", "r.json"]


def test_label_maps_of_a_prediction_that_fails_are_removed(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", {"train": 2, "val": 1, "test": 1})
    module, data = segmenter(), scene_data(root)
    tiny_trainer(tmp_path).fit(module, datamodule=data)
    writer = LabelMapWriter(str(tmp_path / "new" / "maps"))
    with pytest.raises(RuntimeError, match="the first batch"):
        tiny_trainer(tmp_path, callbacks=[writer, Fails()]).predict(module, datamodule=data)
    assert not (tmp_path / "new").exists()


def test_label_maps_can_go_to_the_current_folder_if_it_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    writer = alone(LabelMapWriter("."))
    writer.partial.mkdir()
    (writer.partial / "a.png").touch()
    writer.name_folder()
    writer.on_exception(None, None, KeyboardInterrupt())  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.rglob("*")] == ["here", "a.png"]
