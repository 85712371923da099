"""Probes of more features than memory holds: features in files, a linear classifier by mini-batches, k-NN by chunks.

N training images, M queries, D features, K classes, P weight decays.
"""

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_splitmask.errors import UserError
from lit_splitmask.probing import PENALTIES, check_probe

BATCH = 4096
"""Most images per step of the linear probe."""

PASSES = 30
"""Least number of passes of the linear probe over the training images."""

LEAST_STEPS = 600
"""Least number of steps of the linear probe; few images are passed over more often."""

LEARNING_RATE = 0.02
"""Adam's learning rate at the start; it falls to 0 along half a cosine."""

ROWS = 16_384
"""Features that are read from a file at a time, for k-NN and statistics."""

QUERIES = 1024
"""Queries that are compared with these at a time."""


class FeatureFiles:
    """Feature sets of the same images on disk, in float16, one file per set.

    Give the images in a random order: the linear probe takes consecutive rows as a batch.

    Args:
        folder: A folder for the files, on a disk rather than in memory.
        widths: D of each set, such as that of each block.
        num_images: Number of images that will be added, to check the space on the disk.

    Raises:
        UserError: The disk has too little space.

    Example:
        >>> import tempfile
        >>> import torch
        >>> files = FeatureFiles(tempfile.mkdtemp(), widths=[4], num_images=6)
        >>> files.add([torch.ones(6, 4)], torch.arange(6) % 2)
        >>> len(files), files.read(0, 2, 5).shape
        (6, torch.Size([3, 4]))
    """

    def __init__(self, folder: str | Path, widths: Sequence[int], num_images: int) -> None:
        self.widths = list(widths)
        needed, free = 2 * num_images * sum(widths), shutil.disk_usage(folder).free
        if needed > free:
            raise UserError(
                f"The features of {num_images:,} images need {needed / 2**30:.1f} GiB, but the disk of {folder} has "
                f"{free / 2**30:.1f} GiB left: make room, give another --out, or leave out the blocks with --blocks=false."
            )
        self._paths = [Path(folder) / f"features_{number}.f16" for number in range(len(widths))]
        for path in self._paths:
            path.write_bytes(b"")
        self._labels: list[Tensor] = []

    def add(self, features: Sequence[Tensor], labels: Tensor) -> None:
        """Appends images.

        Args:
            features: (B, D) float of each set.
            labels: (B,) int64.

        Raises:
            UserError: A feature is not finite, or too large for float16.
        """
        for path, rows in zip(self._paths, features, strict=True):
            half = rows.to("cpu", torch.float16)
            if not half.isfinite().all():
                raise UserError(
                    f"A feature is {float(rows.abs().max()):g}, which float16 cannot hold: these weights are damaged, or need "
                    "the solved probe (--linear solved)."
                )
            with path.open("ab") as file:
                file.write(half.numpy().tobytes())
        self._labels.append(labels.cpu())

    def __len__(self) -> int:
        return sum(map(len, self._labels))

    @property
    def labels(self) -> Tensor:
        """Labels of all images, (N,) int64."""
        return torch.cat(self._labels)

    def read(self, number: int, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of a set: (B, D) float32."""
        width, count = self.widths[number], min(stop, len(self)) - start
        rows = np.fromfile(self._paths[number], np.float16, count * width, offset=2 * start * width)
        return torch.from_numpy(rows).reshape(count, width).float()

    def batches(self, number: int, size: int = ROWS) -> Iterator[Tensor]:
        """All rows of a set in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.read(number, start, start + size)


class StreamedLinearProbe:
    """A linear classifier on features in files, trained by mini-batches; its optimum is that of :class:`~probing.LinearProbe`.

    Like MAE's linear probe, it standardises features (a batch norm without affine parameters, here by the statistics of all
    training images) and trains by mini-batches with a cosine. Unlike it, it uses Adam instead of LARS, whose few steps on a
    small set do not reach the optimum, a small weight decay instead of none, and each image in one view. All weight decays
    of the solved probe are trained side by side on four fifths of the images, and the best on the last fifth is trained on all.

    Memory: one batch, and the weights of one set.

    Args:
        files: The training images' features, in random order.
        number: The feature set.
        num_classes: K.
        device: Where to train.

    Raises:
        UserError: The labels are of fewer than two classes, or outside [0, K).

    Example:
        >>> import tempfile
        >>> import torch
        >>> labels = torch.arange(40) % 2
        >>> files = FeatureFiles(tempfile.mkdtemp(), widths=[3], num_images=40)
        >>> files.add([torch.randn(40, 3) + 9 * labels[:, None]], labels)
        >>> probe = StreamedLinearProbe(files, 0, num_classes=2)
        >>> bool((probe.predict(files.read(0, 0, 40)) == labels).all())
        True
    """

    def __init__(
        self, files: FeatureFiles, number: int, num_classes: int, *, device: torch.device | str = "cpu"
    ) -> None:
        labels = files.labels
        check_probe(labels, num_classes)
        self.num_classes, self.device = num_classes, torch.device(device)
        self.mean, self.std = _statistics(files, number)
        held_out = torch.zeros(len(files), dtype=torch.bool)
        held_out[4::5] = True  # the rows are in random order
        self.penalty = PENALTIES[1]
        if held_out.any() and len(labels[~held_out].unique()) > 1:
            weights = self._train(files, number, labels, ~held_out, PENALTIES)
            right = torch.zeros(len(PENALTIES))
            for start in range(0, len(files), ROWS):
                chosen = held_out[start : start + ROWS]
                rows = self._standard(files.read(number, start, start + ROWS)[chosen])
                found = _logits(rows, weights).argmax(dim=2).cpu()
                right += (found == labels[start : start + ROWS][chosen]).sum(dim=1)
            self.penalty = max(zip(right.tolist(), PENALTIES, strict=True))[1]
        self.weights = self._train(files, number, labels, torch.ones_like(held_out), [self.penalty])[0]

    def predict(self, features: Tensor) -> Tensor:
        """Classifies features: (M, D) float -> (M,) int64."""
        parts = [
            _logits(self._standard(rows), self.weights[None])[0].argmax(dim=1).cpu() for rows in features.split(ROWS)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)

    def _standard(self, rows: Tensor) -> Tensor:
        return ((rows.float() - self.mean) / self.std).to(self.device)

    def _train(
        self, files: FeatureFiles, number: int, labels: Tensor, used: Tensor, penalties: Sequence[float]
    ) -> Tensor:
        """Weights (P, D + 1, K), the bias last, one classifier for each weight decay."""
        size = max(1, min(BATCH, len(files) // 8))
        starts = list(range(0, len(files), size))
        passes = max(PASSES, math.ceil(LEAST_STEPS / len(starts)))
        shape = (len(penalties), files.widths[number] + 1, self.num_classes)
        weights = torch.zeros(shape, device=self.device, requires_grad=True)
        decay = torch.tensor(penalties, device=self.device)
        optimizer = torch.optim.Adam([weights], lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes * len(starts))
        generator = torch.Generator().manual_seed(0)
        with torch.enable_grad():
            for _ in range(passes):
                for index in torch.randperm(len(starts), generator=generator).tolist():
                    start = starts[index]
                    chosen = used[start : start + size]
                    target = labels[start : start + size][chosen].to(self.device).expand(len(penalties), -1)
                    logits = _logits(self._standard(files.read(number, start, start + size)[chosen]), weights)
                    share = target.shape[1] / (float(used.sum()) / len(starts))  # a short batch counts less
                    losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
                    loss = share * losses.view(target.shape).mean(dim=1).nan_to_num() if len(losses) else decay * 0
                    loss = loss + decay / 2 * weights[:, :-1].square().sum(dim=(1, 2))
                    optimizer.zero_grad()
                    loss.sum().backward()
                    optimizer.step()
                    schedule.step()
        return weights.detach()


def streamed_knn(
    files: FeatureFiles,
    number: int,
    queries: Tensor,
    num_classes: int,
    *,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Classifies as :func:`~lit_splitmask.probing.knn_predict` does, with the training images' features in files.

    Memory: the queries, a chunk of training images, and the nearest neighbours so far.

    Args:
        files: The training images' features.
        number: The feature set.
        queries: (M, D) float.
        num_classes: K.
        k: Neighbours that vote; all N if there are fewer.
        temperature: Temperature of the weights.
        device: Where to compare.

    Returns:
        Classes, (M,) int64.

    Raises:
        UserError: The labels are of fewer than two classes, or outside [0, K).
    """
    labels = files.labels
    check_probe(labels, num_classes)
    queries = F.normalize(queries.float(), dim=1)
    best = [queries.new_zeros(len(part), 0) for part in queries.split(QUERIES)]
    nearest = [part.new_zeros(part.shape, dtype=torch.int64) for part in best]
    start = 0
    for rows in files.batches(number):
        rows = F.normalize(rows, dim=1).to(device)
        for index, part in enumerate(queries.split(QUERIES)):
            similarity, where = (part.to(device) @ rows.T).topk(min(k, len(rows)), dim=1)
            similarity = torch.cat([best[index], similarity.cpu()], dim=1)
            where = torch.cat([nearest[index], where.cpu() + start], dim=1)
            best[index], kept = similarity.topk(min(k, similarity.shape[1]), dim=1)
            nearest[index] = where.gather(1, kept)
        start += len(rows)
    predicted = []
    for similarity, where in zip(best, nearest, strict=True):
        votes = similarity.new_zeros(len(similarity), num_classes)
        votes.scatter_add_(1, labels[where], torch.exp((similarity - 1) / temperature))
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted)


def _statistics(files: FeatureFiles, number: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, (D,) float32; two passes, so that a large mean costs no precision."""
    mean = torch.stack([rows.double().sum(dim=0) for rows in files.batches(number)]).sum(dim=0) / len(files)
    squares = torch.zeros_like(mean)
    for rows in files.batches(number):
        squares += (rows.double() - mean).square().sum(dim=0)
    return mean.float(), (squares / len(files)).sqrt().float().clamp(min=1e-6)


def _logits(rows: Tensor, weights: Tensor) -> Tensor:
    """(B, D) and (P, D + 1, K) -> (P, B, K)."""
    return rows @ weights[:, :-1] + weights[:, -1:]
