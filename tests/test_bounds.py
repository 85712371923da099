"""What a file from elsewhere may ask for is bounded before work, and said in a paragraph."""

import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lit_splitmask.annotations import rle
from lit_splitmask.commands import recipes
from lit_splitmask.commands.run_cli import build_trainer
from lit_splitmask.config_files import check_yaml, read_settings, settings_in
from lit_splitmask.datamodules import Manifest
from lit_splitmask.errors import UserError
from lit_splitmask.files import check_regular, read_lines
from lit_splitmask.images.decode import DecodeError, decode
from lit_splitmask.models import ViTConfig
from lit_splitmask.models.description import disagreement, wrong_entry

LAUGHS = "\n".join(
    ["a: &a [1, 1, 1]", *(f"{n}: &{n} [*{p}, *{p}, *{p}]" for p, n in zip("abcdefghijkl", "bcdefghijklm", strict=True))]
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGHS, "more than 100,000 values"),
        ("a: &a [*a]", "contains itself"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "x" * 200_000, "200,003 characters"),
    ],
)
def test_a_configuration_is_bounded(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        read_settings(tmp_path / "c.yaml")


def test_anchors_that_people_write_pass() -> None:
    check_yaml("base: &base {a: 1, b: [2, 3]}\nfirst: {<<: *base, c: 4}\nsecond: *base")
    with pytest.raises(yaml.YAMLError):
        check_yaml("a: [")


def test_recipes_in_a_circle_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("self.yaml").write_text("recipe: self.yaml")
    with pytest.raises(UserError, match=r"self\.yaml starts from itself"):
        recipes.read("self.yaml")
    Path("one.yaml").write_text("recipe: two.yaml")
    Path("two.yaml").write_text("recipe: one.yaml")
    with pytest.raises(UserError, match=r"one\.yaml and two\.yaml start from each other"):
        recipes.read("one.yaml")


def test_pipes_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    for name in ("pipe.png", "link.png"):
        with pytest.raises(OSError, match="a pipe, a socket or a device"):
            check_regular(tmp_path / name)
        with pytest.raises(DecodeError, match="a pipe, a socket or a device"):
            decode(tmp_path / name)
        with pytest.raises(UserError, match="a pipe, a socket or a device"):
            read_lines(tmp_path / name)
        with pytest.raises(UserError, match="is a pipe"):
            settings_in(str(tmp_path / name))


def test_run_lengths_of_2_mb_take_linear_time() -> None:
    begin = time.process_time()
    with pytest.raises(ValueError, match="more than 60 bits"):
        rle.run_lengths("o" * 2_000_000)
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    "change", [{"depth": 10**9}, {"depth": True}, {"num_heads": 0}, {"num_heads": 3}, {"image_size": 10**6}]
)
def test_a_description_that_the_tensors_do_not_show_is_named(change: dict[str, int]) -> None:
    shape = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8, "image_size": 32}
    shown = ViTConfig(**shape)
    assert disagreement(shown, shown, 16) is None
    assert next(iter(change)) in str(disagreement(ViTConfig(**{**shape, **change}), shown, 16))


def test_entries_about_a_network_are_checked() -> None:
    assert wrong_entry({"pixel_mean": [0.5] * 3, "pixel_std": [1, 1, 1], "class_names": ["a"]}, 3) is None
    for entry in ({"pixel_mean": "x"}, {"pixel_std": [0.0] * 3}, {"pixel_mean": [0.5]}, {"class_names": 3}):
        assert next(iter(entry)) in str(wrong_entry(entry, 3))


def test_images_outside_of_the_manifests_folder_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "list").mkdir()
    for name in ("list/in.png", "out.png", "other.png"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(
            tmp_path / name
        )
    manifest = tmp_path / "list" / "m.csv"
    manifest.write_text(f"path\nin.png\n../out.png\n{tmp_path}/other.png\n")
    with caplog.at_level(logging.INFO):
        Manifest(str(manifest), image_size=32, index_dir=str(tmp_path / "runs")).prediction_files()
    assert f"2 of the 3 listed images are outside {tmp_path / 'list'}: ../out.png" in caplog.text


def test_settings_that_no_training_can_have_are_named() -> None:
    with pytest.raises(UserError, match="16-true"):
        build_trainer({"precision": "16-true"})
    with pytest.raises(UserError, match="rejects these settings"):
        build_trainer({"precision": "none-such"})
