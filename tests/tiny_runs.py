"""Modules, data and settings small enough to train a few steps in a test."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Trainer

from lit_splitmask.datamodules import Budget, ImageFolder
from lit_splitmask.masking import UniformMasking
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Classify, Pretrain
from lit_splitmask.objectives import SplitMask
from lit_splitmask.optim import OptimConfig
from lit_splitmask.tokenizers import RandomProjection

BACKBONE: dict[str, Any] = {"size": "tiny", "embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8}
OPTIM: dict[str, Any] = {"lr": 1e-3, "reference_batch": 0, "warmup": 0.2}

DATA: dict[str, Any] = {"image_size": 32, "batch_size": 8, "num_workers": 0, "num_epochs": 2, "budget": {"steps": 6}}
TRAINER: dict[str, Any] = {"precision": "32-true", "log_every_n_steps": 1, "accelerator": "cpu"}

PRETRAIN: dict[str, Any] = {
    "model": {
        "objective": {
            "class_path": "SplitMask",
            "init_args": {
                "masking": {"class_path": "UniformMasking", "init_args": {"mask_ratio": 0.5}},
                "tokenizer": {"class_path": "KMeans", "init_args": {"vocabulary": 16, "pixels": "centred"}},
                "decoder_depth": 1,
            },
        },
        "backbone": {**BACKBONE, "drop_path": 0.1},
        "optim": OPTIM,
    },
    "data": {"class_path": "ImageFolder", "init_args": DATA},
    "trainer": TRAINER,
}

FINETUNE: dict[str, Any] = {
    "model": {"backbone": BACKBONE, "optim": OPTIM},
    "data": {
        "class_path": "ImageFolder",
        "init_args": {
            **DATA,
            "augment": {"class_path": "FinetuneAugment", "init_args": {"rand_augment": None, "erase": 0.0}},
        },
    },
    "trainer": TRAINER,
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    """Tiny tensors are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipe(path: Path, settings: dict[str, Any], **data: Any) -> str:
    """Writes ``settings``, with other values of the data, as a recipe; returns its path."""
    settings = copy.deepcopy(settings)
    settings["data"]["init_args"] |= data
    path.write_text("# a tiny run\n" + yaml.safe_dump(settings))
    return str(path)


def image_data(root: Path, *, steps: int = 6, **settings: Any) -> ImageFolder:
    """Images of 32 px, eight a step, two epochs of three steps."""
    values: dict[str, Any] = {**DATA, "budget": Budget(steps=steps), "index_dir": str(root.parent / "index")}
    return ImageFolder(str(root), **(values | settings))


def pretrain_module(*, tokenizer: Any = None, drop_path: float = 0.1, **settings: Any) -> Pretrain:
    """SplitMask on a ViT of width 32 and two blocks."""
    objective = partial(
        SplitMask,
        masking=UniformMasking(0.5),
        tokenizer=tokenizer or partial(RandomProjection, vocabulary=16, pixels="centred"),
        decoder_depth=1,
    )
    optim = settings.pop("optim", OptimConfig(**OPTIM))
    backbone = ViTConfig(**{"image_size": 32, **BACKBONE, "drop_path": drop_path, **settings.pop("backbone", {})})
    return Pretrain(objective, backbone=backbone, optim=optim, **settings)


def classifier(**settings: Any) -> Classify:
    """A classifier of the same shape."""
    values: dict[str, Any] = {"backbone": ViTConfig(image_size=32, **BACKBONE), "optim": OptimConfig(**OPTIM)}
    return Classify(**(values | settings))


def tiny_trainer(folder: Path, **settings: Any) -> Trainer:
    """A silent trainer on the CPU."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": -1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "default_root_dir": str(folder),
    }
    return Trainer(**(quiet | settings))


def same_tensors(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two state dicts are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def end_together() -> None:
    """The end of a script that several processes run: gloo's threads may abort one that ends while they work."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
