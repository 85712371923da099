"""Hours of the paper's trainings on this machine, from a few timed steps on synthetic images: no dataset is needed."""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lit_splitmask import modules
from lit_splitmask.commands import recipes
from lit_splitmask.commands.plan.cost import TIMING_OPTIONS, StepTimer
from lit_splitmask.commands.plan.training import Stage as PlannedTraining
from lit_splitmask.commands.recipe_choice import Choice
from lit_splitmask.commands.reproduce.stages import SIZES, Stage
from lit_splitmask.commands.run_cli import RunCLI, quiet, trainer_defaults
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.commands.tasks.registry import task_for_recipe
from lit_splitmask.commands.terminal import silence
from lit_splitmask.datamodules.paper_rows import Row

SIDES = (375, 500)
"""Height and width of the synthetic images, the usual ones of ImageNet."""

NUM_IMAGES = 64
DENSE_BATCH = 2
"""Images in a timed step of segmentation and detection."""

IGNORED = (
    "--data=",
    "--data.batch_size=",
    "--data.root=",
    "--data.label_share=",
    "--data.budget.",
    "--weights=",
    "--name=",
    "--runs_dir=",
    "--recipe=",
    "--trainer.callbacks",
    "--model.seed=",
    "--data.seed=",
    "--data.subset_list=",
)
"""Options that do not change the time of a step."""


class StepClock:
    """Times one step of each kind of training once."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, ...], float] = {}

    def hours(self, row: Row, stage: Stage) -> float | None:
        """Hours of a training; None for a probe, or if DALL-E's encoder is needed and its file is not there."""
        size = f"--model.backbone.size={SIZES[row.backbone]}"
        options = [option for option in stage.arguments if not option.startswith((*IGNORED, "--model.backbone.size="))]
        encoder = next((o for o in options if o.startswith("--model.objective.tokenizer.weights=")), None)
        if stage.recipe is None or (encoder is not None and not Path(encoder.partition("=")[2]).is_file()):
            return None
        key = (stage.command, _kind(stage.recipe), size, *options)
        if key not in self._seconds:
            print(f"timing {stage.command} --recipe {stage.recipe} {size}", file=sys.stderr, flush=True)
            self._seconds[key] = _step_seconds(stage.command, stage.recipe, [size, *options])
        return self._seconds[key] * stage.steps / 3600


def _kind(name: str) -> str:
    """The settings of a recipe that change the time of a step, as text."""
    recipe = recipes.read(name)
    data = {key: value for key, value in recipe["data"]["init_args"].items() if key not in ("budget", "num_epochs")}
    model = {key: value for key, value in recipe["model"].items() if key not in ("optim", "backbone")}
    return json.dumps([model, data], sort_keys=True)


def _step_seconds(command: str, name: str, options: list[str]) -> float:
    """Seconds of a step of the recipe's batch on this machine."""
    recipe, task = recipes.read(name), task_for_recipe(name)
    quiet()
    with tempfile.TemporaryDirectory() as directory, silence():
        root = Path(directory) / "images"
        draw = {"segment": _draw_maps, "detect": _draw_objects}.get(task.name, _draw_classes)
        draw(root)
        arguments = [f"--data.root={root}", f"--data.index_dir={directory}/data", *options]
        if task.name != "classify":
            return _dense_seconds(task.module, arguments, recipe, Path(directory))
        recipe["data"]["class_path"] = "ImageFolder"
        module = modules.Pretrain if command == "pretrain" else modules.Classify
        training = PlannedTraining(module, arguments, recipe, Path(directory))
        seconds = training.plan(Choice(name, "the paper's"), num_checkpoints=1).step_seconds
        assert seconds is not None
        return seconds


def _dense_seconds(module: Any, arguments: list[str], recipe: dict[str, Any], folder: Path) -> float:
    """Seconds of a step; its time is taken as proportional to its images."""
    batch: int = recipe["data"]["init_args"]["batch_size"]
    recipe = {**recipe, "trainer": {**trainer_defaults(), **recipe.get("trainer", {})}}
    short = [f"--data.batch_size={DENSE_BATCH}", "--data.budget.steps=5", "--data.num_epochs=1", *TIMING_OPTIONS]
    timer = StepTimer()
    trainer, network, data = RunCLI(module, [*arguments, *short], recipe).build(RunFolder(folder), [timer])
    trainer.fit(network, datamodule=data)
    return statistics.median(timer.seconds) * batch / DENSE_BATCH


def _draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize(SIDES[::-1]).save(path)


def _draw_classes(root: Path) -> None:
    """Two class folders of training images."""
    for number in range(NUM_IMAGES):
        _draw(root / "train" / "ab"[number % 2] / f"{number}.jpg", number)


def _draw_maps(root: Path) -> None:
    """Images and label maps of ADE20K's 150 classes, in stripes, and 0 for unlabelled pixels."""
    for number in range(NUM_IMAGES):
        _draw(root / "images" / "train" / f"{number}.jpg", number)
        labels = np.broadcast_to(np.linspace(0, 150, SIDES[1]).astype(np.uint8), SIDES)
        path = root / "annotations" / "train" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(path)


def _draw_objects(root: Path) -> None:
    """Images with a few rectangular objects in COCO's format."""
    images, objects = [], []
    for number in range(NUM_IMAGES):
        _draw(root / "train" / f"{number}.jpg", number)
        images.append({"id": number, "file_name": f"{number}.jpg", "height": SIDES[0], "width": SIDES[1]})
        for part in range(4):
            left, top, width, height = 20 + 110 * part, 40 + 50 * part, 90, 120
            right, bottom = left + width, top + height
            outline = [left, top, right, top, right, bottom, left, bottom]
            shape = {
                "bbox": [left, top, width, height],
                "segmentation": [outline],
                "area": width * height,
                "iscrowd": 0,
            }
            objects.append({"id": 4 * number + part, "image_id": number, "category_id": 1, **shape})
    (root / "annotations").mkdir()
    categories = [{"id": 1, "name": "object"}]
    stored = {"images": images, "annotations": objects, "categories": categories}
    (root / "annotations" / "instances_train.json").write_text(json.dumps(stored))
