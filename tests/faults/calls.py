"""What a user's command does with a file from elsewhere, by its kind; imported once, before the processes are forked."""

from pathlib import Path

import torch

from lit_splitmask.annotations.coco_set import read_set
from lit_splitmask.annotations.manifest_rows import read_manifest
from lit_splitmask.callbacks.whole_checkpoints import read_checkpoint
from lit_splitmask.checkpoints import load_into, load_weights
from lit_splitmask.commands import recipes
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import RunCLI
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.datamodules import CocoDetection, Manifest, glance
from lit_splitmask.errors import UserError
from lit_splitmask.images.scan import scan
from lit_splitmask.images.tree import list_images
from lit_splitmask.models import ViT
from lit_splitmask.modules import Classify, Pretrain
from lit_splitmask.tokenizers.dalle_pickle import read_encoder

torch.set_num_threads(1)


def weights(path: Path) -> None:
    """Builds the network that a file describes, and loads its tensors, as ``finetune``, ``probe`` and ``predict`` do."""
    loaded = load_weights(path)
    from lit_splitmask.checkpoints import config_of

    vit = ViT(config_of(loaded))
    load_into(vit, loaded)
    Classify(str(path), num_classes=2)
    Classify(str(path), keep_head=True)


def encoder(path: Path) -> None:
    """As ``convert-dalle`` does."""
    read_encoder(path)


def checkpoint(path: Path) -> None:
    """As ``--resume`` and ``--ckpt_path`` do."""
    read_checkpoint(path)


def recipe(path: Path) -> None:
    """Reads a recipe, parses it with all settings and builds what it describes, as ``pretrain`` and ``plan`` do."""
    settings = recipes.read(str(path))
    Request.read("pretrain", ["--config", str(path)])
    run = _parsed(["--data.root", "."], {**recipes.read("splitmask_cpu"), **settings})
    run.build(RunFolder(Path("runs")), [])


def config(path: Path) -> None:
    """Reads a file as ``--config`` does."""
    request = Request.read("pretrain", ["--config", str(path), "--data.root", "."])
    run = _parsed(request.settings(), recipes.read("splitmask_cpu"))
    run.build(RunFolder(Path("runs")), [])


def _parsed(arguments: list[str], settings: dict[str, object]) -> RunCLI:
    """The parsed settings. An error of the parser is one of the user's: it prints a paragraph and exits with 2."""
    try:
        return RunCLI(Pretrain, ["--trainer.accelerator=cpu", "--trainer.logger=false", *arguments], settings)
    except SystemExit as error:
        raise UserError(f"exit code {error.code}") from None


def manifest(path: Path) -> None:
    """Reads a list of images and scans what it names, as ``pretrain --data.manifest`` does, and reads it for ``predict``."""
    read_manifest(path)
    data = Manifest(str(path), image_size=32, index_dir="runs/data", num_workers=0)
    data.prediction_files()
    data.load_or_make()


def coco(root: Path) -> None:
    """Reads the annotations of a folder, checks them and takes batches, as ``finetune`` does."""
    data = CocoDetection(str(root), image_size=64, max_size=96, batch_size=2, num_workers=0, index_dir="runs/data")
    read_set(root, None, None)
    data.prepare_data()
    data.setup("fit")
    for batch in data.train_dataloader():
        assert batch["image"]
        break


def coco_predicted(root: Path) -> None:
    """Reads the annotations for the ids of images that are only predicted on."""
    data = CocoDetection(str(root), image_size=64, max_size=96, batch_size=2, num_workers=0, index_dir="runs/data")
    data.only_predict()
    data.prepare_data()
    data.setup("predict")
    data.predict_dataloader()


def images(root: Path) -> None:
    """Looks at a folder and decodes all its images, as every command does."""
    glance(root)
    scan(root, list_images(root), max_bad_share=0.5)
