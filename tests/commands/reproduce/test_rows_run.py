"""One row of each table and figure runs at a tiny scale, on replicas of the datasets, and can be interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from coco_sets import write_set
from reference.tiny_methods import METHODS
from replicas import REPLICAS
from scenes import write_scenes
from tiny_runs import one_thread  # noqa: F401

from lit_splitmask.cli import main
from lit_splitmask.commands import recipes
from lit_splitmask.commands.reproduce import running
from lit_splitmask.datamodules.paper_rows import Row, paper_tables

pytestmark = pytest.mark.filterwarnings("ignore")  # of tiny trainings: short logs, no workers

TINY = """--model.backbone.embed_dim=32 --model.backbone.depth={depth} --model.backbone.num_heads=2
--model.backbone.patch_size=8 --data.image_size={size} --data.batch_size=4 --data.num_workers=0 --data.num_epochs=2
--trainer.accelerator=cpu --trainer.precision=32-true"""
SHAPE = "--model.backbone.embed_dim=32 --model.backbone.num_heads=2 --model.backbone.patch_size=8"
LOAD = (
    "--data.batch_size=4 --data.num_workers=0 --data.num_epochs=1 --trainer.accelerator=cpu --trainer.precision=32-true"
)
SEGMENT = f"{LOAD} --data.budget.steps=2 --model.channels=8 --data.short_side=40 --data.image_size=32 {SHAPE}"
DETECT = f"""{LOAD} --data.budget.steps=2 --data.batch_size=2 --model.detector.channels=16 --model.detector.box_features=24
--data.image_size=64 --data.max_size=96 {SHAPE} --model.backbone.depth=4"""

ROWS = {
    "table1": "supervised-imagenet",
    "table2": "random-patches",
    "table4": "scratch-s",
    "table5": "beit",
    "table6": "splitmask-s-cars",
    "table7": "dino-b",
    "table8": "split-match",
    "figure2": "splitmask-imagenet",
    "figure3": "splitmask",
    "figure5": "beit",
    "figure6": "splitmask",
}
"""A row of each table; together they have every command, method and kind of image."""

QUICK = ("table6",)
"""Tables whose row takes few seconds."""


def options_of(row: Row) -> list[str]:
    """Options of ``reproduce`` that make a row tiny."""
    depth = 12 if row.table == "figure5" else 4 if row.table == "table5" else 2
    options = ["--scale=0.0005"]
    if row.pretraining is not None:
        objective = recipes.read(row.pretraining.recipe)["model"]["objective"]["class_path"]
        method = {class_name: name for name, class_name in recipes.methods().items()}[objective]
        tiny = f"{TINY.format(depth=depth, size=32)} --data.budget.passes=1 {METHODS[method].recipe_options}"
        share = ["--data.label_share=1"] if row.pretraining.images.share < 1 else []
        options.append(f"--set_pretrain={json.dumps([*tiny.split(), *share])}")
    special = {"table4": DETECT, "table5": f"{SEGMENT} --model.backbone.depth=4"}.get(row.table)
    finetune = special or f"{LOAD} --data.budget.passes=1"
    return [*options, f"--set_finetune={json.dumps(finetune.split())}", '--set_probe=["--data.num_workers=0"]']


def write_images(row: Row, folder: Path) -> list[str]:
    """Writes the datasets of a row; returns the options that name them."""
    root = folder / row.evaluated_on.name
    writers = {
        "ADE20K": lambda: write_scenes(
            root / "ADEChallengeData2016", {"training": 4, "validation": 2}, values=[1, 2, 3, 0]
        ),
        "COCO": lambda: write_set(root, train=4, val=1, year="2017"),
    }
    writers.get(row.evaluated_on.data, lambda: REPLICAS[row.evaluated_on.data](root))()
    options = [f"--data.root={root}"]
    if row.pretraining is not None and row.pretraining.images.data != row.evaluated_on.data:
        REPLICAS[row.pretraining.images.data](folder / "others")
        options.append(f"--pretrain_root={folder / 'others'}")
    return options


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory; the commands of a row run in this process, which is faster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "run_command", lambda arguments: main(arguments))
    return tmp_path


def results(folder: Path, row: Row) -> dict[str, dict[str, float]]:
    """The entry of a row in ``results.json``."""
    written = json.loads((folder / "runs/reproduce-scale0.0005/results.json").read_text())
    return dict(written[f"{row.table}/{row.name}"])


def test_a_row_of_every_table_is_run() -> None:
    assert ROWS.keys() == paper_tables().keys()


@pytest.mark.parametrize(
    "table", [pytest.param(table, marks=() if table in QUICK else pytest.mark.slow) for table in ROWS]
)
def test_a_row_runs(table: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = paper_tables()[table].rows[ROWS[table]]
    assert main(["reproduce", table, f"--row={row.name}", *write_images(row, here), *options_of(row)]) == 0
    printed = capsys.readouterr().out
    found = results(here, row)
    assert list(found["scores"]) == list(row.paper)
    for score, number in row.paper.items():
        value = found["scores"][score]
        assert value["paper"] == number
        assert 0 <= value["seeds"]["0"] <= 100
        assert value["mean"] == value["seeds"]["0"]
        assert f"│ {score}" in printed
    assert "0.0005 times the paper's length" in printed


@pytest.mark.slow
def test_a_row_that_sigterm_stopped_ends_as_if_it_had_not(tmp_path: Path) -> None:
    row = paper_tables()["table6"].rows["splitmask-s-cars"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    images = write_images(row, tmp_path)
    longer = [option.replace("passes=1", "passes=40").replace("epochs=2", "epochs=30") for option in options_of(row)]
    command = [sys.executable, "-m", "lit_splitmask.cli", "reproduce", row.table, f"--row={row.name}", *images, *longer]

    def run(out: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, f"--out={out}"], cwd=tmp_path, env=environment)

    assert run("whole").wait() == 0
    stopped = run("stopped")
    while not list(tmp_path.glob("stopped/splitmask-cars-s-seed0/checkpoints/last.ckpt")):
        time.sleep(0.05)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait() == 143
    assert not (tmp_path / "stopped/splitmask-cars-s-seed0/backbone.safetensors").exists()
    assert run("stopped").wait() == 0
    found = [
        (tmp_path / out / "splitmask-cars-s-seed0/backbone.safetensors").read_bytes() for out in ("whole", "stopped")
    ]
    assert found[0] == found[1]
    written = [json.loads((tmp_path / out / "results.json").read_text()) for out in ("whole", "stopped")]
    scores = [one[f"{row.table}/{row.name}"]["scores"] for one in written]
    assert scores[0] == scores[1]


@pytest.mark.slow
@pytest.mark.parametrize("table", ["table4", "table5", "table6"])
def test_hours_come_from_timed_steps(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = paper_tables()[table].rows[ROWS[table]]
    arguments = ["reproduce", table, f"--row={row.name}", "--hours", "--json", *options_of(row)]
    assert main(arguments) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    hours = [training["hours"] for training in entry["trainings"]]
    assert all(0 < value < 100 for value in hours)
