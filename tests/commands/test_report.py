"""``lit-splitmask report``: one page that shows what a folder holds, and nothing of elsewhere."""

import base64
import io
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from lit_splitmask.cli import main
from lit_splitmask.commands.report.run import _scores

HOSTILE = "<script>alert(1)</script>"
BROWSER = Path(__file__).parents[1] / "browser.py"
CHECK = """JSON.stringify({
 wide: document.documentElement.scrollWidth - innerWidth,
 images: [...document.images].every(image => image.complete && image.naturalWidth > 0),
 scripts: document.scripts.length,
 loaded: performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length})"""


class Page(HTMLParser):
    """The tags, the text and the addresses of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data: str) -> None:
        self.text += data


def write_run(folder: Path) -> Path:
    """A finished fine-tuning with a hostile class name, without its weights' tensors."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "model: {optim: {lr: 0.1}}\ndata: {class_path: lit_splitmask.datamodules.ImageFolder, init_args: {root: photos}}\n"
    )
    (folder / "metrics.csv").write_text("step,train/loss,val/accuracy\n0,2.0,\n1,1.0,0.5\n")
    Image.new("RGB", (30, 20)).save(folder / "words.png")
    report = {
        "scores": {"test/accuracy": 0.75},
        "classes": [HOSTILE, "b"],
        "confusion": [[2, 1], [0, 1]],
        "checkpoint": "best.ckpt",
    }
    (folder / "test.json").write_text(json.dumps(report))
    return folder


def write_comparison(folder: Path) -> Path:
    folder.mkdir()
    arms = [
        {
            "name": name,
            "label": name,
            "accuracy": {"0": a, "1": a + 0.1},
            "seconds": {"0": 1.0, "1": 1.0},
            "setting": "lr 1",
        }
        for name, a in (("scratch", 0.5), ("pretrained", 0.75))
    ]
    result = {"label_share": 1.0, "verdict": HOSTILE, "arms": arms, "command": "lit-splitmask finetune"}
    (folder / "comparison.json").write_text(json.dumps({"root": "photos", "recipe": "r", "results": [result]}))
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("lit_splitmask.commands.report.run._numbers", lambda weights: [])
    folder = write_run(tmp_path / "a & <b>")
    (folder / "classifier.safetensors").touch()
    return folder


def test_a_page_holds_its_pictures_escapes_names_and_names_the_interval(run: Path) -> None:
    assert main(["report", str(run)]) == 0
    page = Page(run / "report.html")
    assert "script" not in page.tags
    assert HOSTILE in page.text
    assert "75.0 % of the 4 test images" in page.text
    assert "95 % interval: 30.1 to 95.4 %" in page.text
    assert "right for 75.0 %" in page.text
    assert "lit-splitmask export" in page.text
    assert [tag for tag in page.tags if tag in ("h1", "h2", "h3")][:2] == ["h1", "h2"]
    assert len(page.addresses) == 2  # the curves, and the words
    for address in page.addresses:
        assert address.startswith("data:image/png;base64,")
        Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).load()


@pytest.mark.parametrize("known", [True, False])
def test_a_segmenter_has_its_intervals_over_images_if_they_are_recorded(known: bool) -> None:
    report = {"scores": {"test/miou": 0.5}, "iou": {"sky": 0.5, "cat": None}, "classes": ["sky", "cat"], "images": 8}
    if known:
        report["intervals"] = {"miou": [0.4, 0.61], "pixel_accuracy": [0.5, 0.9], "iou": [[0.4, 0.61], None]}
    sentence, (table,) = _scores(report, "test")
    if known:
        assert sentence == "Mean IoU on test: 50.0 % (95 % interval: 40.0 to 61.0 %)."
        assert table.rows == [["sky", "50.0 %", "40.0 to 61.0 %"], ["cat", "no pixels", "—"]]
        assert "over the 8 images" in table.note
    else:
        assert sentence == "Mean IoU on test: 50.0 %."
        assert table.rows == [["sky", "50.0 %"], ["cat", "no pixels"]]


def test_a_damaged_picture_is_named(run: Path) -> None:
    (run / "halves.png").write_bytes(b"no picture")
    assert main(["report", str(run), "--out", str(run / "other.html")]) == 0
    assert "halves.png is not shown" in Page(run / "other.html").text


def test_a_comparison_has_its_table_its_verdict_and_its_command(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c")
    assert main(["report", str(folder)]) == 0
    page = Page(folder / "report.html")
    assert HOSTILE in page.text
    assert "+25.0 [25.0, 25.0]" in page.text
    assert "lit-splitmask compare --data.root photos" in page.text


def test_a_folder_that_is_no_run_is_refused_with_what_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("runs/one"))
    Path("c/labels1/scratch").mkdir(parents=True)
    Path("c/labels1/scratch/result.json").touch()
    for given, said in (
        ("none", "In runs there are one"),
        ("runs", "give one of them, as runs/one"),
        ("c", "unfinished comparison"),
        ("runs/one/config.yaml", "is a file"),
    ):
        assert main(["report", given]) == 1
        assert said in capsys.readouterr().err
    Path("runs/one/config.yaml").write_text("a: 1")
    assert main(["report", "one"]) == 1
    assert "records in runs/one cannot be read" in capsys.readouterr().err


def test_a_browser_shows_the_page_on_a_phone_without_loading_anything(run: Path, tmp_path: Path) -> None:
    python = os.environ.get("BROWSER_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import PyQt6.QtWebEngineWidgets"], capture_output=True).returncode:
        pytest.skip("needs PyQt6-WebEngine; BROWSER_PYTHON may name a Python that has it")
    assert main(["report", str(run)]) == 0
    shown = subprocess.run(
        [python, str(BROWSER), str(run / "report.html"), "390", CHECK], capture_output=True, text=True, timeout=60
    )
    found = json.loads(json.loads(shown.stdout.splitlines()[-1]))
    assert found["images"]
    assert (found["scripts"], found["loaded"]) == (0, 0)
    assert found["wide"] <= 0
