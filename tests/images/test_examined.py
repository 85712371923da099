"""The record of decoded images."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_splitmask.errors import UserError
from lit_splitmask.images import examined, scan
from lit_splitmask.images.examined import examine_once, load_examined


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(255, size=(20 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:200])
    return folder


FILES = ["0.png", "1.png", "2.png", "3.png", "broken.png"]


def test_sizes_hashes_and_problems_are_kept(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    found = examine_once(root, FILES, path)
    assert [(found[file].height, found[file].width) for file in FILES] == [
        (20, 30),
        (21, 30),
        (22, 30),
        (23, 30),
        (0, 0),
    ]
    assert len({found[file].hash for file in FILES[:4]}) == 4
    assert found["broken.png"].hash == ""
    assert "broken.png cannot be decoded" in found["broken.png"].problem
    assert load_examined(path) == found


def test_only_new_and_changed_images_are_decoded(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    examine_once(root, FILES[:3], path)
    decoded: list[str] = []
    read_pixels = scan.read_pixels
    monkeypatch.setattr(scan, "read_pixels", lambda file: decoded.append(Path(file).name) or read_pixels(file))
    os.utime(root / "1.png", ns=(5, 5))
    found = examine_once(root, FILES, path)
    assert sorted(decoded) == ["1.png", "3.png", "broken.png"]
    assert found["1.png"].mtime_ns == 5
    before = path.stat().st_mtime_ns
    decoded.clear()
    assert examine_once(root, FILES, path) == found
    assert decoded == []
    assert path.stat().st_mtime_ns == before  # nothing is written
    (root / "2.png").unlink()
    assert examine_once(root, ["2.png"], path)["2.png"].problem != ""


def test_a_damaged_record_is_named_and_one_of_another_version_is_made_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    found = examine_once(root, FILES, path)
    monkeypatch.setattr(examined, "VERSION", 0)
    assert load_examined(path) == {}
    assert examine_once(root, FILES, path) == found
    for text in ("{", "[]", '{"version": 0, "files": {"a": [1]}}'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"record\.json is damaged .* Delete it"):
            examine_once(root, FILES, path)
