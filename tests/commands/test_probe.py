"""``lit-splitmask probe`` and ``embed``: frozen features of any weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from lit_splitmask import streamed_probing
from lit_splitmask.checkpoints import config_of, load_weights
from lit_splitmask.cli import main
from lit_splitmask.commands import embed
from lit_splitmask.models import ViT, ViTConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

PROBE = ["probe", "--data.root", "shapes", "--data.image_size=32", "--data.num_workers=0", "--out", "out"]


def test_a_backbone_is_probed_block_by_block(
    pretrained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pretrained.parents[1])
    weights = str(pretrained / "backbone.safetensors")
    command = [
        "probe",
        "--weights",
        weights,
        "--data.root",
        "shapes",
        "--data.num_workers=0",
        "--out",
        str(tmp_path / "p"),
    ]
    assert main(command) == 0
    found = json.loads((tmp_path / "p" / "probe.json").read_text())
    assert (found["split"], found["classes"], len(found["blocks"])) == ("test", 2, 2)
    assert found["train_images"] + found["held_out_images"] < 16
    for score in (found["knn"], found["linear"], *found["blocks"]):
        assert 0 <= score["accuracy"] <= 1
        assert score["error"] > 0
    assert (tmp_path / "p" / "probe.png").stat().st_size > 1000
    assert "linear, block 2" in capsys.readouterr().out
    assert main(command) == 1
    assert "already holds a probe" in capsys.readouterr().err


def test_random_weights_are_the_same_for_a_seed(work: Path) -> None:
    scores = []
    for seed in ("0", "0", "1"):
        command = [*PROBE[:-1], f"out{len(scores)}", "--seed", seed, "--blocks=false", "--data.image_size=16"]
        assert main(command) == 0
        found = json.loads(Path(f"out{len(scores)}/probe.json").read_text())
        assert found["blocks"] == []
        scores.append(found["rankme"])
    assert scores[0] == scores[1] != scores[2]


def test_the_streamed_probe_is_chosen_for_many_images_and_leaves_no_files(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed_probing, "LEAST_STEPS", 4)  # here the classifiers need not be good
    monkeypatch.setattr(streamed_probing, "PASSES", 1)
    left = Path("streamed/probe.json.0123456789ab.tmp/train")  # by a probe that was killed
    left.mkdir(parents=True)
    (left / "features_0.f16").write_bytes(b"left")
    found = {}
    for name, more in (("solved", []), ("streamed", ["--most_images=5"])):
        assert main([*PROBE[:-1], name, *more]) == 0
        found[name] = json.loads(Path(f"{name}/probe.json").read_text())
        assert found[name]["linear_probe"] == name
    assert found["streamed"]["train_images"] == found["solved"]["train_images"]
    assert found["streamed"]["knn"] == found["solved"]["knn"]
    assert found["streamed"]["rankme"] == pytest.approx(found["solved"]["rankme"], rel=0.01)
    assert len(found["streamed"]["blocks"]) == len(found["solved"]["blocks"])
    assert {path.name for path in Path("streamed").iterdir()} == {"probe.json", "probe.png"}


def test_images_of_a_list_without_a_label_are_left_out(work: Path) -> None:
    rows = [f"{path},{path.parent.name},train" for path in sorted(Path("shapes").rglob("*.png"))]
    rows = [
        *rows[:-6],
        *(row.replace("train", "test") for row in rows[-6:-3]),
        *(f"{row.split(',')[0]},," for row in rows[-3:]),
    ]
    rows = [f"{row}test" if row.endswith(",") else row for row in rows]
    Path("list.csv").write_text("\n".join(["path,label,split", *rows]))
    command = [
        "probe",
        "--data",
        "Manifest",
        "--data.manifest",
        "list.csv",
        "--data.image_size=32",
        "--data.num_workers=0",
    ]
    assert main([*command, "--blocks=false", "--out", "out"]) == 0
    found = json.loads(Path("out/probe.json").read_text())
    assert (found["split"], found["held_out_images"]) == ("test", 3)


def test_one_channel_weights_without_pixel_statistics_are_probed(work: Path) -> None:
    vit = ViT(ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32, in_chans=1))
    torch.save(vit.state_dict(), "grey.pth")
    assert main([*PROBE, "--weights", "grey.pth", "--blocks=false"]) == 0


@pytest.mark.parametrize("data", ["SegmentationFolder", "CocoDetection"])
def test_datamodules_with_annotations_are_refused(work: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PROBE, "--data", data]) == 1
    assert "probe uses only images, but" in capsys.readouterr().err


@pytest.mark.parametrize("class_token", [True, False])
def test_weights_of_timm_are_probed_at_their_own_shape(work: Path, class_token: bool) -> None:
    settings: dict[str, Any] = {"img_size": 48, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 1}
    model = timm.create_model("vit_tiny_patch16_224", **settings, class_token=class_token, global_pool="avg")
    torch.save(model.state_dict(), "theirs.pth")
    config = config_of(load_weights("theirs.pth"))
    assert (config.image_size, config.patch_size, config.embed_dim, config.depth) == (48, 8, 64, 3)
    assert (config.num_heads, config.class_token) == (1, class_token)
    assert (
        main(["probe", "--weights", "theirs.pth", "--data.root", "shapes", "--data.num_workers=0", "--out", "o"]) == 0
    )
    assert len(json.loads(Path("o/probe.json").read_text())["blocks"]) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--weights", "no.safetensors"], "The file no.safetensors does not exist"),
        (["--data.root", "no/such"], "does not exist"),
        (["--data.splits.labels=none"], "needs labelled training images"),
        (["--nonsense=1"], "nonsense"),
        (["--data.image_size=33"], "cannot be cut into patches"),
    ],
)
def test_errors_are_one_paragraph(
    work: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main([*PROBE, *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert not Path("out").exists()


EMBED = ["embed", "--data.root", "shapes", "--data.image_size=32", "--data.num_workers=0", "--data.eval_batch_size=5"]


def test_features_of_all_images_are_written_in_order(work: Path) -> None:
    assert main([*EMBED, "--out", "o/all.npz"]) == 0
    found = np.load("o/all.npz")
    assert found["features"].shape == (24, 384)
    assert found["features"].dtype == np.float32
    assert sorted(found["path"]) == sorted(str(path.relative_to("shapes")) for path in Path("shapes").rglob("*.png"))
    assert [found["class_names"][label] for label in found["label"]] == [path.split("/")[0] for path in found["path"]]
    assert {name: int((found["split"] == name).sum()) for name in ("train", "val", "test")} == {
        "train": 15,
        "val": 3,
        "test": 6,
    }
    assert Path("o/all.png").stat().st_size > 1000
    assert main([*EMBED, "--out", "o/again.npz", "--data.eval_batch_size=24"]) == 0
    np.testing.assert_allclose(np.load("o/again.npz")["features"], found["features"], atol=1e-4)


@pytest.mark.parametrize("most", ["1", "7", "100"])
def test_the_map_shows_evenly_spaced_images(work: Path, monkeypatch: pytest.MonkeyPatch, most: str) -> None:
    drawn: list[Any] = []
    placed: list[Any] = []
    place = embed.on_a_map
    monkeypatch.setattr(embed, "on_a_map", lambda features: (placed.append(features), place(features))[1])
    monkeypatch.setattr(embed, "draw_map", lambda *given: drawn.append(given))
    assert main([*EMBED, "--out", "o/all.npz", "--most_on_map", most]) == 0
    found = np.load("o/all.npz")
    step = -(-24 // int(most))
    if most == "1":
        assert not drawn
        return
    points, labels, _, _ = drawn[0]
    np.testing.assert_array_equal(placed[0], found["features"][::step])
    assert points.shape == (len(labels), 2)
    np.testing.assert_array_equal(labels, found["label"][::step])


def test_no_file_is_overwritten(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("all.npz").write_text("mine")
    assert main([*EMBED, "--out", "all.npz"]) == 1
    assert "already exists" in capsys.readouterr().err
    assert main([*EMBED, "--out", "all.csv"]) == 1
    assert "does not end in .npz" in capsys.readouterr().err
    assert Path("all.npz").read_text() == "mine"
