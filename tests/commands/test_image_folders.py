"""Image folders as people have them, through the commands: read, refused with the way, or read without what cannot be."""

import csv
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from records import stored_in
from tiny_runs import FINETUNE, one_thread, recipe  # noqa: F401

from lit_splitmask.cli import main
from lit_splitmask.commands.plan.images import find
from lit_splitmask.images.build_index import load_or_make
from lit_splitmask.images.index import SplitOptions

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


def photos(root: Path, *folders: str, count: int = 6) -> Path:
    """Different images in each folder."""
    generator = np.random.default_rng(len(list(root.rglob("*"))) if root.exists() else 0)
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            noise = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            noise.resize((40, 48)).save(root / folder / f"{number}.png")
    return root


def odd_files(root: Path, folder: str) -> set[str]:
    """Images that cannot be read: one with a huge text, one cut off, one empty."""
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * 3_000_000, zip=True)
    Image.new("RGB", (40, 48)).save(root / folder / "comfy.png", pnginfo=text)
    whole = (root / folder / "0.png").read_bytes()
    (root / folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / folder / "empty.jpg").touch()
    return {f"{folder}/{name}" for name in ("comfy.png", "cut.png", "empty.jpg")}


SPLITS: dict[str, tuple[Callable[[str], list[str]], set[str]]] = {
    "Training and Testing": (lambda name: [f"Training/{name}", f"Testing/{name}"], {"train", "val", "test"}),
    "doubled": (lambda name: [f"seg_train/seg_train/{name}", f"seg_test/seg_test/{name}"], {"train", "val", "test"}),
    "dressed": (lambda name: [f"train-images/{name}", f"dev_set/{name}"], {"train", "val", "test"}),
    "NFC and NFD": (
        lambda name: [f"train/{unicodedata.normalize('NFC', name)}", f"val/{unicodedata.normalize('NFD', name)}"],
        {"train", "val", "test"},
    ),
}


@pytest.mark.parametrize("layout", SPLITS)
def test_splits_in_any_dress_are_fine_tuned_on_with_their_classes(
    layout: str, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders, splits = SPLITS[layout]
    for name in ("café", "thé"):
        photos(work / "set", *folders(name))
    if layout == "doubled":
        photos(work / "set", "seg_pred/seg_pred", count=2)
    assert main(["finetune", "--recipe", "finetune.yaml", "--data.root", "set", "--name", "f"]) == 0
    (path,) = (work / "runs" / "data").glob("set-*/splits.npz")
    stored = stored_in(path)
    assert stored["classes"] == ["café", "thé"]
    assert set(stored["splits"]) == splits
    first = {split: {file.split("/")[0] for file in files} for split, files in stored["splits"].items()}
    given = {file.split("/")[0] for file in folders("café")}
    assert set.union(*first.values()) == given
    if layout in ("Training and Testing", "doubled"):
        assert len(first["test"]) == 1
        assert first["test"].isdisjoint(first["train"] | first["val"])
    if layout == "doubled":
        assert "--data.pool '[set/seg_pred]'" in caplog.text


@pytest.mark.parametrize("command", ["finetune", "pretrain", "plan"])
@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (["parts-v3/train/ok", "parts-v3/train/bad", "parts-v3/test/ok"], "pass download/parts-v3 instead"),
        (["a/x", "a/y", "b/x", "b/y"], "--layout subfolders"),
        (["cat", "dog", "test"], "test looks like a split"),
        (["train/cat", "train/dog", "others"], "train looks like a split (it holds cat, dog), unlike others"),
        (["train/cat", "train/dog", "val/cat", "val/dog", "others"], "--layout splits"),
    ],
)
def test_what_is_not_clear_is_refused_before_anything_is_written(
    command: str, folders: list[str], says: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(work / "download", *folders)
    options = [] if command == "plan" else ["--recipe", f"{command}.yaml", "--name", "f"]
    assert main([command, *options, "--data.root", "download"]) == 1
    message = capsys.readouterr().err
    assert says in message
    assert "--layout " in message
    assert "Traceback" not in message
    assert not (work / "runs").exists()


def test_the_layout_that_the_message_names_trains(work: Path) -> None:
    photos(work / "sites", "a/x", "a/y", "b/x", "b/y")
    options = ["--recipe", "finetune.yaml", "--data.root", "sites", "--layout", "subfolders", "--name", "f"]
    assert main(["finetune", *options]) == 0
    (path,) = (work / "runs" / "data").glob("sites-*/splits.npz")
    assert stored_in(path)["classes"] == ["x", "y"]


def test_images_that_cannot_be_read_are_named_and_left_out_of_training(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = odd_files(photos(work / "mixed", "a", "b"), "a")
    (work / "mixed" / "b" / "IMG_1.HEIC").touch()
    assert main(["pretrain", "--recipe", "pretrain.yaml", "--data.root", "mixed", "--name", "p"]) == 0
    for name in bad:
        assert f"mixed/{name} cannot be decoded: " in caplog.text
    assert "Not read: 1 HEIC (convert to JPEG" in caplog.text
    found = find(load_or_make(Path("mixed"), "runs/data", SplitOptions()))  # what plan reports
    assert found.undecodable.keys() == bad
    assert "a text chunk in it" in found.undecodable["a/comfy.png"]
    assert found.undecodable["a/empty.jpg"] == "the file is empty"


NEW = {
    "class folders": ["a", "b", "c"],
    "split folders": ["train", "test", "val/deep", "."],
    "dated folders": ["2026-05-01", "2026-05-02"],
    "one too high": ["download/parts/train/a", "download/parts/test/a"],
    "the same sub-folders": ["x/a", "x/b", "y/a", "y/b"],
    "images and masks": ["images", "masks"],
}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that predicts, made once."""
    folder = tmp_path_factory.mktemp("classifier")
    photos(folder / "set", "a", "b")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = recipe(folder / "finetune.yaml", FINETUNE)
        weights = str(folder / "runs")
        assert main(["finetune", "--recipe", settings, "--data.root", "set", "--name", "f", "--runs_dir", weights]) == 0
    return folder / "runs" / "f" / "predict.yaml"


@pytest.mark.parametrize("layout", NEW)
def test_every_image_is_predicted_whatever_the_folders_are_called(
    layout: str, classifier: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = photos(work / "new", *NEW[layout], count=3)
    first = sorted(root.rglob("*.png"))[0]
    copy = first.with_name("copy.png")
    copy.write_bytes(first.read_bytes())  # a duplicate is predicted too
    bad = odd_files(root, NEW[layout][0])
    (root / "IMG_1.HEIC").touch()
    (root / "notes.txt").write_text("not an image")
    assert main(["predict", "--config", str(classifier), "--data.root", "new", "--predictions.path", "out.csv"]) == 0
    with Path("out.csv").open(newline="") as stream:
        rows = {row["path"]: row for row in csv.DictReader(stream)}
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and path.suffix != ".txt"}
    assert rows.keys() == files
    unread = {name.removeprefix("./") for name in bad} | {"IMG_1.HEIC"}
    assert {name for name, row in rows.items() if row["error"]} == unread
    assert {name for name, row in rows.items() if not row["predicted"]} == unread
    assert not (work / "runs").exists()
    assert f"{len(files) - len(unread)} images, {len(unread)} could not be read" in capsys.readouterr().out
