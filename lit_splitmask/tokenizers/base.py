"""Base classes of the tokenizers: words by a codebook (Eq. 1), codebooks in files, statistics of words.

B images, C channels, h and w height and width of the half-size view, N patches, V words, d numbers per patch (3·8·8 = 192 in the
paper).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_splitmask.checkpoints import read_safetensors, write_safetensors
from lit_splitmask.errors import UserError
from lit_splitmask.views import default_statistics, patchify

ROWS_AT_A_TIME = 4096
"""Patches compared with the codebook at a time."""

CONSTANT_PATCH_NORM = 1e-3
"""Patches with a smaller norm after scaling count as constant; all of them get word 0."""


PATCHES_PER_WORD = 39
"""Least number of patches per word to fit a codebook on, as faiss advises for k-means."""


@dataclass(frozen=True)
class WordStatistics:
    """How varied the words of a sample of patches are.

    Attributes:
        num_patches: Patches in the sample.
        vocabulary: V.
        words_used: Words that occur at least once.
        entropy: Entropy of the word frequencies in nats: the loss of a model that knows only these.
        perplexity: exp(entropy), from 1 (a single word) to V.
        top_share: Share of the most frequent word, in (0, 1].
    """

    num_patches: int
    vocabulary: int
    words_used: int
    entropy: float
    perplexity: float
    top_share: float

    @classmethod
    def of(cls, words: Tensor, vocabulary: int) -> "WordStatistics":
        """Computes the statistics of words.

        Args:
            words: int64 in [0, V), of any shape, at least one.
            vocabulary: V.
        """
        frequency = torch.bincount(words.flatten().cpu(), minlength=vocabulary).double() / words.numel()
        used = frequency[frequency > 0]
        entropy = float(-(used * used.log()).sum())
        return cls(words.numel(), vocabulary, len(used), entropy, float(torch.tensor(entropy).exp()), float(used.max()))

    @property
    def nearly_constant(self) -> bool:
        """Whether a model has almost nothing to predict."""
        return self.top_share > 0.5 or self.perplexity < 4

    def __str__(self) -> str:
        return (
            f"{self.words_used:,} of {self.vocabulary:,} words used, perplexity {self.perplexity:,.0f}, "
            f"top word {self.top_share:.1%} of {self.num_patches:,} patches"
        )


class Tokenizer(nn.Module):
    """Maps each patch of the half-size view to a visual word.

    Args:
        patch_size: Side of a patch in the half-size view, in pixels (8 for ViT patches of 16).
        in_chans: C.
        vocabulary: V.
    """

    def __init__(self, patch_size: int, in_chans: int = 3, *, vocabulary: int = 8192) -> None:
        super().__init__()
        self.patch_size, self.in_chans, self.vocabulary = patch_size, in_chans, vocabulary

    def forward(self, view: Tensor) -> Tensor:
        """Visual words of half-size views: (B, C, h, w) float in [0, 1] -> (B, N) int64 in [0, V)."""
        raise NotImplementedError


class Codebook(Tokenizer):
    """Maps each patch of the half-size view to the word with the highest cosine similarity (Eq. 1).

    Args:
        patch_size: Side of a patch in the half-size view, in pixels (8 for ViT patches of 16).
        in_chans: C.
        vocabulary: V; 8,192 in the paper.
        pixels: Scaling of the pixels before Eq. 1: ``normalised`` by ImageNet's statistics (the literal reading), or ``centred``,
            which subtracts the mean of each patch and channel. Centred words stand for structure rather than brightness, and
            are far more varied on plain backgrounds.
        codebook_file: A saved codebook, used instead of fitting one.

    Raises:
        UserError: ``vocabulary`` is below 2, or ``codebook_file`` does not exist, is damaged, or holds no codebook for these
            settings.
    """

    codebook: Tensor
    fitted: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        patch_size: int,
        in_chans: int = 3,
        *,
        vocabulary: int = 8192,
        pixels: Literal["normalised", "centred"] = "normalised",
        codebook_file: str | None = None,
    ) -> None:
        super().__init__(patch_size, in_chans, vocabulary=vocabulary)
        if vocabulary < 2:
            raise UserError(f"A vocabulary of {vocabulary} words leaves nothing to predict: at least 2 are needed.")
        self.pixels = pixels
        self.register_buffer("codebook", torch.zeros(vocabulary, in_chans * patch_size**2))
        self.register_buffer("fitted", torch.tensor(False))
        mean, std = default_statistics(in_chans)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        if codebook_file is not None:
            self.load(codebook_file)

    @property
    def needs_fitting(self) -> bool:
        """Whether :meth:`fit` must be called before use."""
        return not bool(self.fitted)

    @property
    def patches_to_fit(self) -> int:
        """Patches that :meth:`fit` should see at least; if one crop of each image gives fewer, it gets several of each."""
        return PATCHES_PER_WORD * self.vocabulary

    @property
    def fitted_by(self) -> dict[str, Any] | None:
        """What :meth:`fit` depends on besides the settings in a saved codebook, as JSON values, with a version of its algorithm.

        None if that is not known: what :meth:`fit` makes is then not kept for the next run.
        """
        return None

    @torch.no_grad()
    def patches(self, view: Tensor) -> Tensor:
        """Scaled patches: (B, C, h, w) float in [0, 1] -> (B, N, d) float32; constant patches are zero."""
        patches = patchify((view.float() - self.mean) / self.std, self.patch_size)
        if self.pixels == "centred":
            channels = patches.unflatten(-1, (self.in_chans, -1))
            patches = (channels - channels.mean(dim=-1, keepdim=True)).flatten(-2)
        return patches * (patches.norm(dim=-1, keepdim=True) > CONSTANT_PATCH_NORM)

    @torch.no_grad()
    def forward(self, view: Tensor) -> Tensor:
        """Visual words of half-size views (Eq. 1): (B, C, h, w) float in [0, 1] -> (B, N) int64 in [0, V)."""
        with torch.autocast(view.device.type, enabled=False):
            patches = self.patches(view)
            # Normalising the patches would not change the argmax.
            words = [(rows @ self.codebook.t()).argmax(dim=1) for rows in patches.flatten(0, 1).split(ROWS_AT_A_TIME)]
        return torch.cat(words).reshape(patches.shape[:2])

    def fit(self, views: Iterable[Tensor], num_images: int, seed: int) -> None:
        """Makes the codebook from half-size views of training crops.

        Args:
            views: Batches (B, C, h, w) float in [0, 1], ``num_images`` images in total.
            num_images: Images in ``views``.
            seed: Seed of everything random.

        Raises:
            UserError: The views have fewer usable patches than the vocabulary has words.
        """
        raise NotImplementedError

    def set_codebook(self, vectors: Tensor) -> None:
        """Sets the codebook to (V, d) float vectors, L2-normalised here."""
        self.codebook.copy_(F.normalize(vectors, dim=1))
        self.fitted.fill_(True)

    def save(self, path: str | Path) -> None:
        """Writes the codebook and the settings that it was fitted for, as safetensors."""
        write_safetensors(path, {"codebook": self.codebook}, {"tokenizer": json.dumps(self.settings())})

    def load(self, path: str | Path) -> None:
        """Reads a saved codebook.

        Raises:
            UserError: The file does not exist, is damaged, holds no codebook, or one that was fitted for other settings.
        """
        tensors, metadata = read_safetensors(path)
        try:
            saved: dict[str, Any] = dict(json.loads(metadata["tokenizer"]))
        except (KeyError, TypeError, ValueError, RecursionError):
            raise UserError(f"{path} holds no codebook: give a file written by a tokenizer's save().") from None
        expected = self.settings()
        different = [
            f"{name} {saved.get(name)} instead of {value}"
            for name, value in expected.items()
            if saved.get(name) != value
        ]
        if different:
            raise UserError(
                f"The codebook {path} was fitted for other settings: {', '.join(different)}. Fit a new one (leave out "
                "codebook_file), or use the settings that it was fitted for."
            )
        codebook = tensors.get("codebook")
        if codebook is None or codebook.shape != self.codebook.shape or not codebook.is_floating_point():
            raise UserError(
                f"{path} holds no codebook of its own settings: give a file written by a tokenizer's save()."
            )
        self.set_codebook(codebook)

    def settings(self) -> dict[str, int | str]:
        """The settings that a codebook is fitted for, as JSON values."""
        return {
            "kind": type(self).__name__,
            "patch_size": self.patch_size,
            "in_chans": self.in_chans,
            "vocabulary": self.vocabulary,
            "pixels": self.pixels,
        }
