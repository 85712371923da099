"""Two processes have the class weights, the balanced batches and the mean average precision of one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from process_runs import check_same_training, run
from replicas import draw

MakeFolder = Callable[..., Path]

SCRIPT = """
from tiny_runs import DATA, classifier, image_data

from lit_splitmask.datamodules import Budget, Manifest
from lit_splitmask.images.index import SplitOptions


def train(data):
    module = classifier(drop_path=0.0, mixup=0.0, cutmix=0.0, class_weights="balanced")
    found = fit(folder, devices, module, data)
    return {**found, "weights": module.mix.class_weights.tolist()}


several = Manifest(
    str(folder / "list.csv"),
    splits=SplitOptions(labels="several"),
    **{**DATA, "budget": Budget(steps=4), "index_dir": str(folder / "index")},
)
balanced = image_data(folder / "shapes", steps=4, balance=0.5)
save(folder, devices, {"balance": train(balanced), "several": train(several)})
"""


@pytest.fixture
def folder(tmp_path: Path, split_folder: MakeFolder) -> Path:
    """Unbalanced classes as ``shapes``, and ``list.csv`` with several labels; two processes cannot share val and test equally."""
    root = split_folder("shapes", train=8, val=3, test=3)
    for name, kept in (("square", 4), ("stripes", 2)):
        for file in sorted((root / "train" / name).iterdir())[kept:]:
            file.unlink()
    cells = ["rust|scab", "scab", "rust", "frog eye|rust", "scab"]
    rows = []
    for number in range(26):
        draw(tmp_path / f"{number}.png", number)
        rows.append(f"{number}.png,{'train' if number < 16 else 'val' if number < 21 else 'test'},{cells[number % 5]}")
    (tmp_path / "list.csv").write_text("\n".join(["path,split,label", *rows]))
    return tmp_path


@pytest.mark.slow  # it starts three processes, each of which imports torch: 20 s of CPU time
def test_two_processes_weigh_draw_and_score_as_one(folder: Path) -> None:
    whole, ranks = run(folder, SCRIPT)
    for kind, one in whole.items():
        first, second = (rank[kind] for rank in ranks)
        check_same_training(one, first, second)
        assert first["weights"] == second["weights"] == one["weights"]
        assert len(set(one["weights"])) > 1
        for two, expected in zip(first["scores"], one["scores"], strict=True):
            assert two == pytest.approx(expected, rel=1e-3, abs=1e-4)
    last_val, test = whole["several"]["scores"][-2:]
    assert "val/map" in last_val
    assert "test/map" in test
    assert "val/accuracy" in whole["balance"]["scores"][-2]
