"""Pictures at the end of pre-training: what the method sees and predicts, and a codebook's words."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from lit_splitmask.callbacks.drawing import tile, with_captions, write_png
from lit_splitmask.distributed import alone
from lit_splitmask.modules.pretrain import Pretrain
from lit_splitmask.objectives.pictures import Pictures
from lit_splitmask.seeding import generator_for
from lit_splitmask.selection.snapshot import undisturbed
from lit_splitmask.tokenizers.base import Codebook
from lit_splitmask.views import token_view

MIN_CELL = 112
"""Smallest width of a cell in pixels: smaller images are enlarged by a whole number."""

MIN_IMAGES = 256
"""Smallest number of images whose patches are averaged to draw words, if there are so many."""

WORDS_SHOWN, WORDS_IN_A_ROW, WORD_SIDE = 100, 10, 64
"""Most words that are drawn, how many side by side, and the least width of each in pixels."""


@torch.no_grad()
def contact_sheet(tokenizer: Codebook, views: Tensor, path: str | Path) -> None:
    """Draws the words that occur most often, each stretched to its own range, with their shares, and writes them as PNG.

    Args:
        tokenizer: Gives the words of ``views``.
        views: (B, C, h, w) float in [0, 1], half-size views whose patches are counted.
        path: The picture.
    """
    counts = torch.bincount(tokenizer(views).flatten(), minlength=tokenizer.vocabulary).cpu()
    most_used = counts.argsort(descending=True, stable=True)[: min(WORDS_SHOWN, int((counts > 0).sum()))]
    words = tokenizer.codebook.cpu()[most_used]
    low, high = words.amin(dim=1, keepdim=True), words.amax(dim=1, keepdim=True)
    patches = ((words - low) / (high - low).clamp(min=1e-6)).unflatten(
        1, (tokenizer.in_chans, tokenizer.patch_size, -1)
    )
    images = F.interpolate(patches, scale_factor=float(math.ceil(WORD_SIDE / tokenizer.patch_size)), mode="nearest")
    captions = [f"{100 * share:.2f} %" for share in (counts[most_used] / counts.sum()).tolist()]
    picture = with_captions(images, captions, columns=WORDS_IN_A_ROW)
    shown = f"The {len(words)} most used" if len(words) < tokenizer.vocabulary else "All"
    legend = (
        f"{shown} of {tokenizer.vocabulary:,} words. Below each: its share of {int(counts.sum()):,} patches of {len(views):,} "
        f"images; together {100 * counts[most_used].sum() / counts.sum():.0f} %. Each word is stretched to its own range."
    )
    write_png(path, picture, legend=legend)


@torch.no_grad()
def draw_columns(module: Pretrain, images: Tensor, num_images: int = 8) -> Pictures | None:
    """Draws what the module's objective sees and predicts, with masks that depend on the module's seed only.

    Args:
        module: The module.
        images: (B, C, H, W) uint8; the first ``num_images`` are drawn, and all may serve to draw words.
        num_images: Number of rows.

    Returns:
        Columns by title, (num_images, C, H, W) float in [0, 1] each; None if the objective draws nothing.
    """

    def to_pixels(normalised: Tensor) -> Tensor:
        mean, std = module.pixel_mean[:, None, None], module.pixel_std[:, None, None]
        return (normalised * std + mean).clamp(0, 1)

    with alone():
        return module.objective.draw(
            module.views(images), generator_for(module.seed, "picture"), num_images=num_images, to_pixels=to_pixels
        )


def rows_to_draw(labels: Sequence[int], count: int) -> list[int]:
    """Indices of images from as many classes as possible, and from apart within a class, where neighbours may be twins.

    Args:
        labels: The label of each image, in the order of the images; equal ones if there are no classes.
        count: Most images.
    """
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    classes = [members[label] for label in sorted(members)]
    if len(classes) > count:
        classes = [classes[number * len(classes) // count] for number in range(count)]
    rounds = -(-count // len(classes))
    rows = [images[number * len(images) // rounds] for number in range(rounds) for images in classes]
    return list(dict.fromkeys(rows))[:count]


def lay_out(columns: Pictures) -> Tensor:
    """Lays columns of pictures out, one row per image: (C, H', W') float in [0, 1]."""
    cells = torch.stack(list(columns.values()), dim=1).flatten(0, 1).float().cpu()
    scale = math.ceil(MIN_CELL / cells.shape[-1])
    return tile(F.interpolate(cells, scale_factor=float(scale), mode="nearest"), columns=len(columns))


class HalvesPicture(Callback):
    """Writes pictures of what a masked method sees and predicts when pre-training ends, with the last weights.

    The objective names the file: ``halves.png`` for SplitMask, ``masked.png`` for methods with one branch. Its rows come from all
    classes, if there are no more of them than rows. A codebook's most used words go to ``words.png``. Other methods and modules
    are not drawn.

    Args:
        directory: Folder for the files.
        num_images: Most rows of the picture.

    Example:
        >>> from lightning import Trainer
        >>> from lit_splitmask.callbacks import HalvesPicture
        >>> trainer = Trainer(callbacks=[HalvesPicture("runs/pictures", num_images=4)], logger=False)
    """

    def __init__(self, directory: str, num_images: int = 8) -> None:
        self.directory, self.num_images = Path(directory), num_images

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, Pretrain) or not trainer.is_global_zero or trainer.interrupted:
            return
        objective = pl_module.objective
        codebook = objective.tokenizer_to_fit if isinstance(objective.tokenizer_to_fit, Codebook) else None
        if objective.picture_file is None and codebook is None:
            return
        images, labels = _some_images(trainer, pl_module.device)
        rows = rows_to_draw(labels, self.num_images)
        others = sorted(set(range(len(images))).difference(rows))
        with undisturbed(pl_module):
            columns = draw_columns(pl_module, images[[*rows, *others]], len(rows))
        if columns is not None and objective.picture_file is not None:
            picture = self.directory / objective.picture_file
            write_png(picture, lay_out(columns), list(columns), objective.picture_legend)
        if codebook is not None:
            contact_sheet(codebook, token_view(images), self.directory / "words.png")


def _some_images(trainer: Trainer, device: torch.device) -> tuple[Tensor, list[int]]:
    """Held-out images from the whole split, or training images if none are held out, at least :data:`MIN_IMAGES` if there are.

    Returns:
        (B, C, H, W) uint8, and their labels, -1 without.
    """
    held_out: Any = trainer.val_dataloaders
    batches: Any
    if held_out:
        batches = _from_the_whole_split(held_out[0] if isinstance(held_out, list) else held_out)
    else:
        batches = trainer.train_dataloader  # in a random order
    images: list[Tensor] = []
    labels: list[int] = []
    for batch in batches:
        images.append(batch["image"].to(device))
        labels += batch["label"].tolist() if "label" in batch else [-1] * len(batch["image"])
        if len(labels) >= MIN_IMAGES:
            break
    return torch.cat(images), labels


def _from_the_whole_split(loader: Any) -> Iterable[Any]:
    """Batches of evenly spaced images, since a split is in the order of its classes; all batches if they cannot be chosen."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return loader
    keys = list(loader.sampler)
    number = min(MIN_IMAGES, len(keys))
    chosen = Subset(loader.dataset, [keys[place * len(keys) // number] for place in range(number)])
    return DataLoader(chosen, batch_size=number, collate_fn=loader.collate_fn, generator=torch.Generator())
