"""``export`` as a command: from a fine-tuning to timm, what it refuses, and that nothing half-written stays."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from exported import MEAN, STD, photo, run, run_card, save_classifier, save_segmenter
from PIL import Image
from timm.data import create_transform, resolve_data_config

from lit_splitmask.callbacks import ExportWeights
from lit_splitmask.checkpoints import FORMAT, load_weights, read_safetensors, save_backbone, write_safetensors
from lit_splitmask.cli import main
from lit_splitmask.commands.export import command, formats
from lit_splitmask.commands.export.trained import USUAL_CROP_RATIO
from lit_splitmask.modules import Detect

EXACT = ["--trainer.precision", "32-true", "--trainer.accelerator", "cpu"]
PREDICT = ["predict", "--config", "runs/f/predict.yaml", "--data.root", "photos", *EXACT]


def larger_head(path: Path) -> None:
    """Makes the classes' scores differ, which six steps do not, so that wrong pixels would show."""
    state, metadata = read_safetensors(path)
    state["head.weight"] = torch.randn(state["head.weight"].shape, generator=torch.Generator().manual_seed(0))
    write_safetensors(path, state, metadata)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_fine_tuned_classifier_predicts_in_timm_what_predict_does(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune = ["finetune", "--recipe", "finetune.yaml", "--data.root", "shapes", "--name", "f"]
    assert main([*finetune, "--data.crop_ratio=0.9"]) == 0
    said = capsys.readouterr().out
    assert "lit-splitmask export --weights runs/f/classifier.safetensors --format timm,onnx" in said
    about = load_weights("runs/f/classifier.safetensors").info
    assert (about["crop_ratio"], about["interpolation"]) == (0.9, "bicubic")
    larger_head(Path("runs/f/classifier.safetensors"))
    assert main(["export", "--weights", "runs/f/classifier.safetensors", "--format", "timm"]) == 0
    assert "does not record its crop ratio" not in capsys.readouterr().out

    Path("photos").mkdir()
    photo(Path("photos/photo.png"))
    assert main(PREDICT) == 0
    with Path("runs/f/predictions.csv").open() as file:
        (row,) = csv.DictReader(file)
    model = timm.create_model("local-dir:runs/f/classifier-timm", pretrained=True).eval()
    names = model.pretrained_cfg["label_names"]
    predicted = np.array([float(row[name]) for name in names])
    assert predicted.max() < 0.99  # a difference would show

    Path("photo.jpg").write_bytes(Path("photos/photo.png").read_bytes())
    of_card = torch.from_numpy(run_card(Path("runs/f/classifier-timm"), work)["logits"][0]).softmax(dim=0)
    np.testing.assert_allclose(of_card, predicted, atol=1e-5)
    transform = create_transform(**resolve_data_config({}, model=model))
    with torch.inference_mode():
        of_timm = model(transform(Image.open("photo.jpg"))[None])[0].softmax(dim=0)
    np.testing.assert_allclose(of_timm, predicted, atol=0.01)


def test_the_card_has_the_numbers_of_the_run(tmp_path: Path) -> None:
    save_classifier(tmp_path / "c.safetensors", step=6)
    scores = {"test/accuracy": 0.8125, "test/accuracy/rose": 0.5, "test/macro_accuracy": None}
    (tmp_path / "test.json").write_text(json.dumps({"scores": scores}))
    rows = ["epoch,step,train/loss,val/accuracy", "0,2,,0.25", "1,5,0.9,", "1,5,,0.75", "2,8,,0.5"]
    (tmp_path / "metrics.csv").write_text("\n".join(rows))
    assert run(tmp_path / "c.safetensors", "timm", tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert re.findall(r"^\| (.*/.*) \| (.*) \|$", card, flags=re.MULTILINE) == [
        ("test/accuracy", "0.8125"),
        ("val/accuracy", "0.75"),
    ]
    assert "0. daisy\n1. rose\n2. tulip\n" in card


def test_a_report_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_classifier(tmp_path / "c.safetensors")
    (tmp_path / "test.json").write_text("{")
    assert run(tmp_path / "c.safetensors", "timm", tmp_path / "out") == 1
    assert f"metrics in {tmp_path} cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_class_names_cannot_write_into_the_card(tmp_path: Path) -> None:
    save_classifier(tmp_path / "c.safetensors", class_names=["a\n# b", "<script>", "```\ncode"])
    assert run(tmp_path / "c.safetensors", "timm", tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.endswith("0. a \\# b\n1. \\<script\\>\n2. \\`\\`\\` code\n")


def test_only_a_new_or_an_empty_folder_is_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_classifier(tmp_path / "c.safetensors", crop_ratio=1.0)
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "c.safetensors", "timm", tmp_path / "empty") == 0
    assert sorted(file.name for file in (tmp_path / "empty").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "file", "link"):
        assert run(tmp_path / "c.safetensors", "timm", tmp_path / name) == 1
        assert f"{tmp_path / name} already exists" in capsys.readouterr().err
    assert run(tmp_path / "c.safetensors", "timm", Path("..")) == 1
    assert "give a new folder" in capsys.readouterr().err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["c.safetensors", "empty", "file", "link"]


def test_several_formats_get_a_folder_each_or_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_classifier(tmp_path / "c.safetensors", crop_ratio=1.0)
    monkeypatch.setitem(formats.WRITERS, "torch-export", formats.WRITERS["timm"])  # for speed
    assert run(tmp_path / "c.safetensors", "timm,torch-export", tmp_path / "out") == 0
    assert all((tmp_path / f"out-{name}" / "README.md").is_file() for name in ("timm", "torch-export"))
    (tmp_path / "new-torch-export").touch()
    assert run(tmp_path / "c.safetensors", "timm,torch-export", tmp_path / "new") == 1
    assert "new-torch-export already exists" in capsys.readouterr().err
    assert not (tmp_path / "new-timm").exists()
    assert run(tmp_path / "c.safetensors", "timm,tflite", tmp_path / "other") == 2
    assert "tflite is not one of timm, onnx, torch-export" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["differs", "disk", "killed"])
def test_nothing_stays_of_an_export_that_fails(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(folder: Path, trained: Any) -> formats.Run:
        run = formats.write_timm(folder, trained)
        if how == "disk":
            raise OSError(28, "No space left on device")
        if how == "killed":
            raise KeyboardInterrupt
        return lambda images: run(images) + 0.01

    monkeypatch.setitem(formats.WRITERS, "timm", write)
    save_classifier(tmp_path / "c.safetensors", crop_ratio=1.0)
    assert run(tmp_path / "c.safetensors", "timm", tmp_path / "out") == {"killed": 130}.get(how, 1)
    expected = {"differs": "differ from the original's", "disk": "free some space", "killed": "interrupted"}[how]
    assert expected in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.safetensors"]


def test_nan_is_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        formats.WRITERS, "timm", lambda folder, trained: lambda images: torch.full((1, 3), float("nan"))
    )
    save_classifier(tmp_path / "c.safetensors", crop_ratio=1.0)
    assert run(tmp_path / "c.safetensors", "timm", tmp_path / "out") == 1


def test_weights_that_do_not_say_their_input_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = save_classifier(tmp_path / "c.safetensors").state_dict()
    write_safetensors(tmp_path / "timm.safetensors", state, {"format": "pt"})
    assert run(tmp_path / "timm.safetensors", "timm", tmp_path / "out") == 1
    assert "pixel mean and std, which an export needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["a"]}, "has 3 classes, but names 1"),
        ({"crop_ratio": 0}, "crop_ratio is 0, but must be"),
        ({"crop_ratio": "0.9"}, "crop_ratio is '0.9', but must be"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest', but must be bicubic"),
    ],
)
def test_weights_that_describe_another_input_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_classifier(tmp_path / "c.safetensors", **change)
    assert run(tmp_path / "c.safetensors", "timm", tmp_path / "out") == 1
    assert message in capsys.readouterr().err


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vit = save_classifier(tmp_path / "c.safetensors")
    save_backbone(tmp_path / "c.safetensors", vit, parts={"more": torch.ones(1)}, pixel_mean=MEAN, pixel_std=STD)
    assert run(tmp_path / "c.safetensors", "timm", tmp_path / "out") == 1
    assert "does not fit the network that it describes" in capsys.readouterr().err


def test_detectors_and_segmenters_for_timm_are_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from detectors import detector

    module: Detect = detector()
    module.build(2)
    ExportWeights(str(tmp_path / "d.safetensors")).export(module, step=0)
    assert run(tmp_path / "d.safetensors", "onnx", tmp_path / "out") == 1
    assert "torchvision's non-maximum suppression" in capsys.readouterr().err
    save_segmenter(tmp_path / "s.safetensors")
    assert run(tmp_path / "s.safetensors", "timm", tmp_path / "out") == 1
    assert "which timm does not support: give --format onnx or torch-export" in capsys.readouterr().err
    assert run(tmp_path / "s.safetensors", "onnx", tmp_path / "out", "--crop_ratio", "0.9") == 1
    assert "leave out --crop_ratio" in capsys.readouterr().err
    state, metadata = read_safetensors(tmp_path / "s.safetensors")
    about = json.loads(metadata[FORMAT])
    about["segmenter"]["short_side"] = "0); import os"
    write_safetensors(tmp_path / "s.safetensors", state, {**metadata, FORMAT: json.dumps(about)})
    assert run(tmp_path / "s.safetensors", "onnx", tmp_path / "out") == 1
    assert "short_side is '0); import os', but must be a number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--crop_ratio", "1.5"], 1, "--crop_ratio is 1.5"),
        (["--format", "tflite"], 2, "tflite"),
        (["--fromat", "onnx"], 2, "--fromat"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_classifier(tmp_path / "c.safetensors")
    assert run(tmp_path / "c.safetensors", "timm", tmp_path / "out", *options) == code
    assert message in capsys.readouterr().err


def test_missing_onnx_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert run(tmp_path / "missing.safetensors", "onnx", tmp_path / "out") == 1
    assert "ONNX files need onnxscript: pip install 'lit-splitmask[export]'" in capsys.readouterr().err


def test_weights_for_more_than_two_gib_are_refused_as_onnx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    monkeypatch.setattr(formats, "_MOST_ONNX_BYTES", 1000)
    save_classifier(tmp_path / "c.safetensors", crop_ratio=1.0)
    assert run(tmp_path / "c.safetensors", "onnx", tmp_path / "out") == 1
    assert "give --format torch-export" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_crop_is_the_given_one_the_files_or_the_usual_one_which_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_classifier(tmp_path / "old.safetensors")
    save_classifier(tmp_path / "new.safetensors", crop_ratio=1.0)
    cases = (("old", [], USUAL_CROP_RATIO), ("new", [], 1.0), ("new", ["--crop_ratio", "0.8"], 0.8))
    for number, (name, options, ratio) in enumerate(cases):
        assert run(tmp_path / f"{name}.safetensors", "timm", tmp_path / str(number), *options) == 0
        assert ("does not record its crop ratio" in capsys.readouterr().out) == (name == "old")
        assert f"min(image.size) * {ratio}\n" in (tmp_path / str(number) / "README.md").read_text()


def test_transformers_gives_the_logits_and_pixels_of_timm(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="of the extra bench")
    vit = save_classifier(tmp_path / "c.safetensors", crop_ratio=0.9)
    assert run(tmp_path / "c.safetensors", "timm", tmp_path / "out") == 0
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(pixel_values=images).logits, vit(images))
    assert model.config.id2label == {0: "daisy", 1: "rose", 2: "tulip"}
    photo(tmp_path / "photo.png")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    image = Image.open(tmp_path / "photo.png")
    data = resolve_data_config({}, model=timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True))
    torch.testing.assert_close(
        processor(image, return_tensors="pt")["pixel_values"][0], create_transform(**data)(image)
    )
