"""Makes the recorded runs in an empty current directory, and copies what the tests need. See README.md."""

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from coco_sets import write_set
from scenes import write_scenes
from shapes import write_classes

from lit_splitmask.cli import main
from lit_splitmask.modules import Classify, Pretrain

OPTIM: dict[str, Any] = {"lr": 3e-3, "reference_batch": 0, "warmup": 0.2}
TRAINER: dict[str, Any] = {"precision": "32-true", "log_every_n_steps": 1, "accelerator": "cpu"}
DATA: dict[str, Any] = {"image_size": 32, "batch_size": 8, "num_workers": 0, "num_epochs": 3, "budget": {"steps": 6}}
PASSES: dict[str, Any] = {**DATA, "num_epochs": 1, "budget": {"passes": 1}}


def backbone(width: int, depth: int, **settings: Any) -> dict[str, Any]:
    return {"size": "tiny", "embed_dim": width, "depth": depth, "num_heads": 2, "patch_size": 8, **settings}


def settings(data: str, images: dict[str, Any], **model: Any) -> dict[str, Any]:
    return {
        "model": {"optim": OPTIM, **model},
        "data": {"class_path": data, "init_args": images},
        "trainer": TRAINER,
    }


OBJECTIVE = {
    "class_path": "SplitMask",
    "init_args": {
        "masking": {"class_path": "UniformMasking", "init_args": {"mask_ratio": 0.5}},
        "tokenizer": {"class_path": "KMeans", "init_args": {"vocabulary": 16, "pixels": "centred"}},
        "decoder_depth": 1,
    },
}
DETECTOR = {"channels": 4, "box_features": 8, "proposals": 20, "detections": 5}
MAPS = {**DATA, "batch_size": 4, "budget": {"steps": 200}}
OBJECTS = {**DATA, "image_size": 64, "max_size": 96, "batch_size": 2, "num_epochs": 1, "budget": {"steps": 2}}

RECIPES = {
    "pretrain": settings("ImageFolder", DATA, objective=OBJECTIVE, backbone=backbone(16, 1, drop_path=0.1)),
    "classify": settings("ImageFolder", DATA, backbone=backbone(16, 1), optim={**OPTIM, "lr": 1e-2}),
    "segment": settings(
        "SegmentationFolder",
        MAPS,
        backbone=backbone(8, 4, positions="sincos"),
        channels=4,
        optim={**OPTIM, "lr": 1e-2, "warmup": 0.05},
    ),
    "detect": settings("CocoDetection", OBJECTS, backbone=backbone(8, 4, image_size=64), detector=DETECTOR),
    "compare": {
        "pretrain": settings("ImageFolder", PASSES, objective=OBJECTIVE, backbone=backbone(16, 1)),
        "finetune": settings("ImageFolder", PASSES, backbone=backbone(16, 1)),
        "grid": [{"model.optim.lr": 1e-3}, {"model.optim.lr": 3e-3}],
    },
}
TASKS = {"classify": "shapes", "segment": "scenes", "detect": "objects"}
RUN_FILES = [
    "part/config.yaml",
    "part/metrics.csv",
    "part/checkpoints/last.ckpt",
    "whole/backbone.safetensors",
    "classify-part/config.yaml",
    "classify-part/checkpoints/last.ckpt",
    *(f"{task}/{name}" for task in TASKS for name in ("config.yaml", "predict.yaml", "*.safetensors")),
]
OTHER_FILES = ["predictions*", "predictions/images/val/*.png", "compare.yaml", "compared/**/result.json"]


def interrupted(module: Any, step: int, command: list[str]) -> None:
    """Runs a command and interrupts it at a step, as Ctrl-C does."""
    original = module.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == step:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    module.training_step = training_step
    assert main(command) == 130
    module.training_step = original


def make(target: Path) -> None:
    """Runs the commands, and copies what the tests need."""
    write_classes(Path("shapes"), per_class=8)
    write_scenes(Path("scenes"), {"train": 6, "val": 3})
    write_set(Path("objects"), train=4, val=2)
    for name, recipe in RECIPES.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    pretrain = ["pretrain", "--recipe", "pretrain.yaml", "--data.root", "shapes", "--name"]
    assert main([*pretrain, "whole"]) == 0
    interrupted(Pretrain, 4, [*pretrain, "part"])
    classify = ["finetune", "--recipe", "classify.yaml", "--data.root", "shapes", "--name"]
    interrupted(Classify, 3, [*classify, "classify-part"])
    for task, images in TASKS.items():
        assert main(["finetune", "--recipe", f"{task}.yaml", "--data.root", images, "--name", task]) == 0
        assert main(["predict", "--config", f"runs/{task}/predict.yaml", "--data.root", images]) == 0
    compare = ["compare", "--recipe", "compare.yaml", "--data.root", "shapes", "--out", "compared", "--seeds", "2"]
    assert main(compare) == 0
    for folder, patterns in ((Path("runs"), RUN_FILES), (Path(), OTHER_FILES)):
        for path in (path for pattern in patterns for path in folder.glob(pattern) if path.is_file()):
            (target / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / path.relative_to(folder))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
