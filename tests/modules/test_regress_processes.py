"""Two processes learn and score numbers as one does: the validation on the way, and the test."""

from pathlib import Path

import pytest
from process_runs import check_same_training, run
from replicas import draw

SCRIPT = """
from tiny_runs import BACKBONE, DATA, OPTIM

from lit_splitmask.datamodules import Budget, RegressionManifest
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Regress
from lit_splitmask.optim import OptimConfig


def train(loss):
    data = RegressionManifest(
        str(folder / "list.csv"),
        target="wear",
        **{**DATA, "num_epochs": 2, "budget": Budget(steps=4), "index_dir": str(folder / "index")},
    )
    module = Regress(
        backbone=ViTConfig(image_size=32, **BACKBONE), optim=OptimConfig(**OPTIM), drop_path=0.0, loss=loss
    )
    found = fit(folder, devices, module, data)
    return {**found, "pairs": module.test_pairs, "unit": [float(module.target_mean), float(module.target_std)]}


save(folder, devices, {loss: train(loss) for loss in ("smooth_l1", "mse")})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``list.csv`` with a number for each image, far from zero; two processes cannot share 5 val and 7 test images equally."""
    rows = []
    for number in range(28):
        draw(tmp_path / f"{number}.png", number)
        split = "train" if number < 16 else "val" if number < 21 else "test"
        rows.append(f"{number}.png,{split},{2000 + 0.5 * number * number}")
    (tmp_path / "list.csv").write_text("\n".join(["path,split,wear", *rows]))
    return tmp_path


def by_hand(pairs: list[list[float]]) -> dict[str, float]:
    """The scores of true and predicted numbers."""
    truth, predicted = zip(*pairs, strict=True)
    errors = [b - a for a, b in pairs]
    mean, squares = sum(truth) / len(truth), sum(error**2 for error in errors)
    assert len(set(predicted)) > 1
    return {
        "test/mae": sum(map(abs, errors)) / len(errors),
        "test/rmse": (squares / len(errors)) ** 0.5,
        "test/r2": 1 - squares / sum((value - mean) ** 2 for value in truth),
    }


@pytest.mark.slow  # it starts three processes, each of which imports torch: 20 s of CPU time
def test_two_processes_learn_and_score_numbers_as_one(folder: Path) -> None:
    whole, ranks = run(folder, SCRIPT)
    for loss, one in whole.items():
        first, second = (rank[loss] for rank in ranks)
        check_same_training(one, first, second)
        assert first["unit"] == second["unit"] == one["unit"]
        assert [scores.keys() for scores in one["scores"]] == [
            *[{"val/mae", "val/rmse", "val/r2", "val/loss"}] * 2,
            {"test/mae", "test/rmse", "test/r2"},
        ]
        for two, expected in zip(first["scores"], one["scores"], strict=True):
            assert two == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert len(one["pairs"]) == 7
        assert one["scores"][-1] == pytest.approx(by_hand(one["pairs"]), rel=1e-3)
        both = sorted([*first["pairs"], *second["pairs"]])
        assert [truth for truth, _ in both] == [truth for truth, _ in sorted(one["pairs"])]  # every image once
