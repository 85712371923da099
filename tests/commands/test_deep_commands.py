"""The window of X-rays through the commands: measured by pretrain, kept in the weights, used by all that start from them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from deep_images import deep_folder, deep_values, write_deep
from tiny_runs import FINETUNE, PRETRAIN, one_thread, recipe  # noqa: F401

from lit_splitmask.checkpoints import load_weights
from lit_splitmask.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

WEIGHTS = "runs/p/backbone.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``xrays`` and the run ``p`` of a pre-training on them."""
    folder = tmp_path_factory.mktemp("deep")
    deep_folder(folder / "xrays")
    settings = recipe(folder / "pretrain.yaml", PRETRAIN, budget={"steps": 2}, num_epochs=1)
    recipe(folder / "finetune.yaml", FINETUNE, budget={"steps": 2}, num_epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["pretrain", "--recipe", settings, "--data.root", "xrays", "--name", "p"]) == 0
    return folder


@pytest.fixture
def work(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy as the current directory, with ``others``: the first of the X-rays, and one of another brightness."""
    folder = shutil.copytree(finished, tmp_path / "work")
    write_deep(folder / "others" / "same.png", deep_values(0))
    write_deep(folder / "others" / "hot.png", 9 * deep_values(1))
    monkeypatch.chdir(folder)
    return folder


def window_of(path: str) -> list[float]:
    return load_weights(path).info["pixel_window"]


def test_what_starts_from_weights_has_their_window_and_a_prediction_too(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    measured = window_of(WEIGHTS)
    assert 0 <= measured[0] < 1000 < measured[1] <= 4095
    arguments = ["finetune", "--recipe", "finetune.yaml", "--weights", WEIGHTS, "--data.root", "xrays"]
    assert main([*arguments, "--name", "f"]) == 0
    assert window_of("runs/f/classifier.safetensors") == measured
    assert yaml.safe_load(Path("runs/f/config.yaml").read_text())["data"]["init_args"]["window"] == measured
    for window, name in ((None, "as trained"), ("0,60000", "other")):
        given = [] if window is None else [f"--data.window={window}"]
        output = ["--predictions.path", f"{name}.csv"]
        assert main(["predict", "--config", "runs/f/predict.yaml", "--data.root", "others", *output, *given]) == 0
    assert Path("as trained.csv").read_text() != Path("other.csv").read_text()
    assert caplog.text.count("the weights were trained with") == 1
    assert "stretched" not in caplog.text


def test_pretraining_that_goes_on_has_the_window_of_its_weights_or_the_given_one(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_deep(work / "xrays" / "dark" / "hot.png", 12 * deep_values(50))
    arguments = ["pretrain", "--recipe", "pretrain.yaml", "--weights", WEIGHTS, "--data.root", "xrays"]
    assert main([*arguments, "--runs_dir", "later", "--name", "a", "--data.index_dir", "later/data"]) == 0
    assert window_of("later/a/backbone.safetensors") == window_of(WEIGHTS)
    assert "the weights were trained with" not in caplog.text
    options = ["--data.window=-5,4095", "--data.index_dir", "later/data"]
    assert main([*arguments, "--runs_dir", "later", "--name", "b", *options]) == 0
    assert window_of("later/b/backbone.safetensors") == [-5, 4095]
    assert "read with the window -5,4095, but the weights were trained with" in caplog.text


def test_embed_and_probe_see_an_image_with_the_window_of_the_weights_whatever_is_beside_it(work: Path) -> None:
    options = ["--weights", WEIGHTS, "--data.num_workers=0"]
    found = {}
    for root in ("xrays", "others"):
        assert main(["embed", *options, "--data.root", root, "--out", f"{root}.npz"]) == 0
        with np.load(f"{root}.npz") as stored:
            found |= {f"{root}/{path}": row for path, row in zip(stored["path"], stored["features"], strict=True)}
    np.testing.assert_allclose(found["others/same.png"], found["xrays/dark/0.png"], rtol=1e-4, atol=1e-5)
    assert main(["embed", *options, "--data.root", "others", "--out", "o.npz", "--data.window=0,60000"]) == 0
    with np.load("o.npz") as stored:
        rows = dict(zip(stored["path"], stored["features"], strict=True))
    assert not np.allclose(rows["same.png"], found["xrays/dark/0.png"], rtol=1e-3)
    assert main(["probe", *options, "--data.root", "xrays", "--out", "probed", "--blocks=false"]) == 0
    assert json.loads(Path("probed/probe.json").read_text())["split"] == "test"
    low, high = (str(end).removesuffix(".0") for end in window_of(WEIGHTS))
    assert list(Path("runs/data").glob(f"xrays-*/pixels-*-{low},{high}.bin"))


def test_a_window_that_is_none_is_one_paragraph(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["pretrain", "--recipe", "pretrain.yaml", "--data.root", "xrays", "--name", "x", "--data.window", "9,1"]
    assert main(command) == 1
    assert "window=9,1 must be two numbers, the lower first" in capsys.readouterr().err
