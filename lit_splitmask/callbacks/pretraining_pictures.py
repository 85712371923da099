"""Draws what SplitMask sees and says: the two halves, the true and the predicted words; and a codebook's words."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_splitmask.callbacks.drawing import tile, write_png
from lit_splitmask.masking import hidden_from, put, take
from lit_splitmask.modules.pretrain import Pretrain
from lit_splitmask.objectives.splitmask import SplitMask
from lit_splitmask.seeding import generator_for
from lit_splitmask.selection.material import undisturbed
from lit_splitmask.tokenizers.base import Codebook, Tokenizer
from lit_splitmask.views import patchify, token_view, unpatchify

GREY = 0.5
MIN_CELL = 112
"""Pictures are enlarged by a whole number so that a cell is at least so many pixels wide."""

WORDS_SHOWN, WORD_SCALE = 1024, 3

COLUMNS = ("image", "A sees", "B sees", "true words", "A's guess", "B's guess")


def contact_sheet(tokenizer: Codebook, path: str | Path) -> None:
    """Draws the codebook's first 1,024 words as patches, each stretched to its own range, and writes them as PNG."""
    words = tokenizer.codebook[:WORDS_SHOWN].cpu()
    low, high = words.amin(dim=1, keepdim=True), words.amax(dim=1, keepdim=True)
    patches = (words - low) / (high - low).clamp(min=1e-6)
    images = patches.reshape(-1, tokenizer.in_chans, tokenizer.patch_size, tokenizer.patch_size)
    images = images.repeat_interleave(WORD_SCALE, dim=2).repeat_interleave(WORD_SCALE, dim=3)
    write_png(path, tile(images, columns=math.ceil(math.sqrt(len(images))), gap=1))


def words_as_patches(tokenizer: Tokenizer, views: Tensor, words: Tensor) -> Tensor:
    """Draws words (B, N) as the mean of the patches of ``views`` (B', C, h, w) that have that word.

    A word that does not occur in ``views`` is drawn grey. Returns (B, C, h, w) float.
    """
    patches = patchify(views, tokenizer.patch_size).flatten(0, 1)  # (B'·N, d)
    known = tokenizer(views).flatten()
    total = patches.new_zeros(tokenizer.vocabulary, patches.shape[1]).index_add_(0, known, patches)
    count = torch.bincount(known, minlength=tokenizer.vocabulary)[:, None]
    pictures = torch.where(count > 0, total / count.clamp(min=1), GREY)
    rows = views.shape[2] // tokenizer.patch_size
    return unpatchify(pictures[words], tokenizer.patch_size, (rows, views.shape[3] // tokenizer.patch_size))


@torch.no_grad()
def draw_halves(module: Pretrain, images: Tensor, reference: Tensor, num_images: int = 8) -> Tensor:
    """One row an image: the crop, what A sees, what B sees, the true words, those predicted by A and by B.

    Predictions stand where a branch had to guess; where it saw the patch, the true word stands.

    Args:
        module: with a :class:`SplitMask` objective that inpaints.
        images: (B, C, H, W) uint8; the first ``num_images`` are drawn.
        reference: (B', C, H, W) uint8, crops from which the words' pictures are taken.

    Returns:
        (C, H', W') float in [0, 1].
    """
    objective = module.objective
    assert isinstance(objective, SplitMask)
    images = images[:num_images]
    batch = module.views(images)
    keeps = objective.masking.draw(len(images), module.vit.grid, generator_for(module.seed, "picture"))
    keeps_here = [keep.to(images.device) for keep in keeps]
    pixels, patch = images.float() / 255, module.vit.config.patch_size
    words = objective.tokenizer(batch["token_view"])
    columns = [pixels]
    for keep in keeps_here:
        visible = take(patchify(pixels, patch), keep)
        blank = patchify(torch.full_like(pixels, GREY), patch)
        columns.append(unpatchify(put(visible, keep, blank), patch, module.vit.grid))
    guesses = [words]
    for keep, decoded in zip(keeps_here, objective.decode(batch["images"], keeps_here), strict=True):
        hidden = hidden_from(keep, words.shape[1])
        predicted = objective.head.predict(take(decoded, hidden))
        guesses.append(words.scatter(1, hidden, predicted))
    small = token_view(reference)
    for guess in guesses:
        drawn = words_as_patches(objective.tokenizer, small, guess)
        columns.append(F.interpolate(drawn, scale_factor=2.0, mode="nearest"))
    cells = torch.stack(columns, dim=1).flatten(0, 1).float().cpu()
    enlarged = F.interpolate(cells, scale_factor=float(math.ceil(MIN_CELL / images.shape[-1])), mode="nearest")
    return tile(enlarged, columns=len(columns))


class HalvesPicture(Callback):
    """Writes the picture of :func:`draw_halves` and the contact sheet of words when pre-training ends, with the last weights.

    Args:
        directory: where ``halves.png`` and ``words.png`` go.
        num_images: rows of the picture.
    """

    def __init__(self, directory: str, num_images: int = 8) -> None:
        self.directory, self.num_images = Path(directory), num_images

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        objective = getattr(pl_module, "objective", None)
        drawable = isinstance(pl_module, Pretrain) and isinstance(objective, SplitMask)
        if not (drawable and trainer.is_global_zero) or trainer.interrupted:
            return
        assert isinstance(pl_module, Pretrain)
        assert isinstance(objective, SplitMask)
        if not objective.inpaint:
            return
        crops: list[Tensor] = []
        for batch in _drawing_batches(trainer):
            crops.append(batch["image"].to(pl_module.device))
            if sum(map(len, crops)) >= 256:
                break
        images = torch.cat(crops)
        with undisturbed(pl_module):
            picture = draw_halves(pl_module, images, images, self.num_images)
        write_png(self.directory / "halves.png", picture, COLUMNS)
        if isinstance(objective.tokenizer, Codebook):
            contact_sheet(objective.tokenizer, self.directory / "words.png")


def _drawing_batches(trainer: Trainer) -> Any:
    """Held-out images, or training images where none are held out."""
    loaders = trainer.val_dataloaders or trainer.train_dataloader
    return loaders[0] if isinstance(loaders, list) else loaders
