"""Checks of a row's files before its long pre-training."""

from dataclasses import replace
from pathlib import Path

from lit_splitmask import datamodules
from lit_splitmask.commands.reproduce.options import Options
from lit_splitmask.commands.reproduce.stages import Setting, facts_of, pretrains_elsewhere
from lit_splitmask.datamodules.listed_data import ListedData
from lit_splitmask.datamodules.paper_rows import Images, Row
from lit_splitmask.errors import UserError


def needs_of(row: Row) -> list[str]:
    """What a row needs, in words: its datasets, and what this package does not have."""
    if row.outside is not None:
        return [row.outside]
    needs = [facts_of(row.evaluated_on).title]
    if row.pretraining is not None and pretrains_elsewhere(row):
        needs.append(f"{facts_of(row.pretraining.images).title} (--pretrain_root)")
    if row.pretraining is not None and row.pretraining.tokenizer:
        needs.append("DALL-E's encoder (--tokenizer)")
    return needs


def checked(row: Row, options: Options) -> Setting:
    """The setting of a row that can be run.

    Raises:
        UserError: The row cannot be run by this package; a folder or file is not given or does not exist; or a folder does not
            hold the dataset in its official layout.
    """
    name = f"{row.name} of {row.table}"
    if row.outside is not None:
        raise UserError(f"The row {name} cannot be run: it needs {row.outside}.")
    setting = options.setting()
    _check_weights(row, options, name)
    if options.root is None:
        raise UserError(f"The row {name} needs {facts_of(row.evaluated_on).title}: give --data.root DIR.")
    setting = replace(setting, root=_folder_of(row.evaluated_on, "--data.root", setting.root))
    if row.pretraining is None or options.weights is not None:
        return setting
    if pretrains_elsewhere(row):
        title = facts_of(row.pretraining.images).title
        if options.pretrain_root is None:
            raise UserError(
                f"The row {name} is pre-trained on {title}: give --pretrain_root DIR, or --weights FILE of such a pre-training."
            )
        place = _folder_of(row.pretraining.images, "--pretrain_root", setting.pretrain_root)
        setting = replace(setting, pretrain_root=place)
    if row.pretraining.tokenizer and (options.tokenizer is None or not Path(setting.tokenizer).is_file()):
        given = "is not given" if options.tokenizer is None else f"{options.tokenizer} does not exist"
        raise UserError(
            f"The row {name} needs DALL-E's encoder, but --tokenizer {given}: make the file with lit-splitmask convert-dalle."
        )
    return setting


def _check_weights(row: Row, options: Options, name: str) -> None:
    if options.weights is None:
        return
    if row.pretraining is None:
        raise UserError(f"The row {name} starts from random weights: leave out --weights.")
    if row.pretraining.along:
        raise UserError(
            f"The row {name} fine-tunes from several parts of one pre-training, which it runs itself: leave out --weights."
        )
    if not Path(options.weights).expanduser().is_file():
        raise UserError(f"--weights {options.weights} does not exist: give a file of weights.")


def _folder_of(images: Images, option: str, root: str) -> str:
    """The folder of a dataset: the root, or for dense prediction the folder below it that holds images and annotations.

    Raises:
        UserError: It does not exist, or does not hold the dataset.
    """
    facts = facts_of(images)
    if not Path(root).is_dir():
        kind = "is a file" if Path(root).exists() else "does not exist"
        raise UserError(f"The folder {root} of {option} {kind}. {facts.where}")
    data = getattr(datamodules, images.data)(root)
    assert isinstance(data, ListedData)
    data.listing()
    if facts.labelled:
        return root
    is_coco = images.data == "COCO"
    parts = ("train2017", "val2017") if is_coco else ("images/training", "images/validation")
    folder = Path(root) / data.find(*parts)
    looks = datamodules.looks_like_coco if is_coco else datamodules.looks_like_segmentation
    if option == "--data.root" and not looks(folder):
        missing = (
            "annotations/instances_train2017.json" if is_coco else "annotations/training/ and annotations/validation/"
        )
        raise UserError(
            f"{folder} holds the images of {facts.title}, but not their annotations: it needs {missing} beside them, from the "
            "same place."
        )
    return str(folder)
