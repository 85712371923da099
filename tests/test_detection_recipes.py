"""Recipes of Table 4 are parsed as they are, and train two steps on tiny images and a tiny backbone."""

from pathlib import Path
from typing import Any

import pytest
from coco_sets import write_set
from tiny_runs import one_thread  # noqa: F401

from lit_splitmask.commands import recipes
from lit_splitmask.commands.run_cli import RunCLI
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.datamodules import CocoDetection
from lit_splitmask.modules import Detect

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

NAMES = [name for name in recipes.available() if name.startswith("detect")]
TINY = """--model.backbone.size tiny --model.backbone.embed_dim 32 --model.backbone.depth 4 --model.backbone.num_heads 2
--model.backbone.patch_size 8 --model.backbone.image_size 64 --model.detector.channels 16 --model.detector.box_features 24
--data.image_size 64 --data.max_size 96 --data.batch_size 2 --data.num_workers 0 --data.budget.steps 2 --data.num_epochs 1
--trainer.accelerator cpu --trainer.precision 32-true --trainer.max_epochs -1 --trainer.logger false
--trainer.enable_progress_bar false --trainer.enable_checkpointing false --trainer.enable_model_summary false"""


def parsed(name: str, root: Path, options: str = "") -> RunCLI:
    record = ["--data.index_dir", str(root.parent / "index")]
    return RunCLI(Detect, ["--data.root", str(root), *record, *options.split()], recipes.read(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_detection_recipe_trains_two_steps(name: str, tmp_path: Path) -> None:
    cli = parsed(name, write_set(tmp_path / "set", train=4, val=1), TINY)
    trainer, module, data = cli.build(RunFolder(tmp_path / "run"), [])
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 2
    assert "val/mask/AP" in trainer.callback_metrics


@pytest.mark.parametrize(
    ("name", "size", "passes"),
    [
        ("detect_coco_3x", "small", 36),
        ("detect_coco_3x_base", "base", 36),
        ("detect_coco_6x", "small", 72),
        ("detect_coco_6x_base", "base", 72),
    ],
)
def test_the_recipes_are_those_of_table_4(name: str, size: str, passes: int, tmp_path: Path) -> None:
    settings: Any = parsed(name, tmp_path).config
    model, data = settings.model, settings.data.init_args
    assert (model.backbone.size, model.backbone.positions, data.budget.passes) == (size, "sincos", passes)
    assert (model.optim.lr, model.optim.reference_batch, data.batch_size) == (1e-4, 16, 16)
    assert (model.optim.schedule, model.optim.weight_decay, model.drop_path) == ("steps", 0.05, 0.1)
    steps = passes * 117_266 / 16
    assert model.optim.warmup * steps == pytest.approx(500, rel=0.01)
    assert settings.data.class_path.endswith(CocoDetection.__name__)
    assert (data.image_size, data.max_size) == (800, 1333)
