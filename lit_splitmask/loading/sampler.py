"""Samplers: which images a process reads, and in which order, as a function of the optimizer step."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from torch.utils.data import DistributedSampler

from lit_splitmask.errors import UserError
from lit_splitmask.seeding import derive_seed

Key = tuple[int, int]
"""``(pass, index)``: the number of the pass, which seeds the augmentation, and the index of the image."""


class WrapAroundSampler(DistributedSampler):
    """Endless passes over the images, each in a new order, cut into trainer epochs of equally many steps.

    The position p = step · batch_size + offset determines the image: p // num_images is the pass, and p % num_images the index
    into the permutation of that pass. No images are dropped at the end of a pass, a batch may be larger than the dataset, and
    resuming is exact at every optimizer step. Within a step, the first ``batch_size / accumulate`` positions are the first
    micro-batch, of which rank r reads the r-th block.

    With ``repeats`` (repeated augmentation, Table 9), each image occupies that many consecutive positions, with a different key
    at each. A pass over the images is then ``repeats`` times as long, on any number of ranks.

    The class is a ``DistributedSampler`` so that Lightning does not replace it.

    Attributes:
        permute: Makes the order of a pass from a generator and the number of images.
        is_balanced: Whether rare classes are drawn more often than they occur.

    Args:
        num_images: Number of images to choose from.
        batch_size: Images per optimizer step, over all processes and micro-batches.
        steps_per_epoch: Optimizer steps per iteration over the sampler.
        global_step: Returns the number of optimizer steps taken; called when an iteration starts.
        seed: Seed of the permutations.
        repeats: Number of differently augmented copies of each image in a row.
        rank: Index of this process.
        world_size: Number of processes.
        accumulate: Micro-batches per optimizer step.

    Raises:
        UserError: The batch cannot be divided evenly among processes and micro-batches.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        steps_per_epoch: int,
        global_step: Callable[[], int],
        seed: int = 0,
        repeats: int = 1,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
    ) -> None:
        check_divides(batch_size, world_size, accumulate)
        super().__init__(range(num_images), num_replicas=world_size, rank=rank)  # type: ignore[arg-type]
        self.num_images = num_images
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.global_step = global_step
        self.order_seed = seed
        self.repeats = repeats
        self.accumulate = accumulate
        self.permute: Callable[[np.random.Generator, int], np.ndarray] = np.random.Generator.permutation
        self.is_balanced = False
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def balance(self, labels: np.ndarray, strength: float) -> None:
        """Draws rare classes more often from now on; a pass keeps its length. See :func:`balanced_order`.

        Args:
            labels: (num_images,) int64, the class of each image.
            strength: 0 draws classes as often as they occur, 1 equally often.
        """
        self.permute = partial(balanced_order, labels=labels, strength=strength)
        self.is_balanced = True

    @property
    def loader_batch_size(self) -> int:
        """Images per micro-batch of one process."""
        return self.batch_size // (self.num_replicas * self.accumulate)

    def __len__(self) -> int:
        return self.steps_per_epoch * self.loader_batch_size * self.accumulate

    def __iter__(self) -> Iterator[Key]:  # type: ignore[override]
        first_batch = self.global_step() * self.accumulate
        for batch in range(first_batch, first_batch + self.steps_per_epoch * self.accumulate):
            start = (batch * self.num_replicas + self.rank) * self.loader_batch_size
            for position in range(start, start + self.loader_batch_size):
                yield self.key_at(position)

    def key_at(self, position: int) -> Key:
        """The key at a position of the endless sequence."""
        number, copy = divmod(position, self.repeats)
        pass_number, index = divmod(number, self.num_images)
        if self._order[0] != pass_number:
            generator = np.random.default_rng(derive_seed(self.order_seed, "order", pass_number))
            self._order = (pass_number, self.permute(generator, self.num_images))
        image = int(self._order[1][index])
        if self.is_balanced:  # an image may come twice in a pass, but not with the same augmentation
            return position, image
        return pass_number * self.repeats + copy, image


class MixtureSampler(DistributedSampler):
    """Images with and without labels in each batch, in fixed numbers: two :class:`WrapAroundSampler` side by side.

    Both kinds are spread evenly over a batch, so that one process makes the same batches as several.
    Indices of the images without labels follow those of the images with labels.

    Args:
        num_labelled: Number of images with labels.
        num_unlabelled: Number of images without labels.
        batch_size: Images per optimizer step, over all processes and micro-batches.
        unlabelled: Images without labels in each micro-batch of a process; at least 1, and fewer than all of them.
        steps_per_epoch: Optimizer steps per iteration over the sampler.
        global_step: Returns the number of optimizer steps taken; called when an iteration starts.
        seed: Seed of the permutations; images with labels have the order that they have without the others.
        repeats: Number of differently augmented copies of each image in a row.
        rank: Index of this process.
        world_size: Number of processes.
        accumulate: Micro-batches per optimizer step.

    Raises:
        UserError: The batch cannot be divided evenly among processes and micro-batches.
    """

    def __init__(
        self,
        num_labelled: int,
        num_unlabelled: int,
        batch_size: int,
        *,
        unlabelled: int,
        steps_per_epoch: int,
        global_step: Callable[[], int],
        seed: int = 0,
        repeats: int = 1,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
    ) -> None:
        check_divides(batch_size, world_size, accumulate)
        super().__init__(range(num_labelled + num_unlabelled), num_replicas=world_size, rank=rank)  # type: ignore[arg-type]
        self.loader_batch_size = batch_size // (world_size * accumulate)
        self.num_labelled, self.unlabelled = num_labelled, unlabelled
        counts = (self.loader_batch_size - unlabelled, unlabelled)
        self.parts = [
            WrapAroundSampler(
                num_images,
                count * world_size * accumulate,
                steps_per_epoch=steps_per_epoch,
                global_step=global_step,
                seed=part_seed,
                repeats=repeats,
                rank=rank,
                world_size=world_size,
                accumulate=accumulate,
            )
            for num_images, count, part_seed in zip(
                (num_labelled, num_unlabelled), counts, (seed, derive_seed(seed, "unlabelled")), strict=True
            )
        ]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Key]:  # type: ignore[override]
        labelled, unlabelled = map(iter, self.parts)
        size = self.loader_batch_size
        for position in range(len(self)):
            row = position % size
            if (row + 1) * self.unlabelled // size > row * self.unlabelled // size:
                pass_number, index = next(unlabelled)
                yield pass_number, self.num_labelled + index
            else:
                yield next(labelled)


def class_shares(counts: np.ndarray, strength: float) -> np.ndarray:
    """The share of each class in a balanced pass: proportional to its number of images to the power of 1 - ``strength``.

    Args:
        counts: Number of images of each class; a class without images has no share.
        strength: In [0, 1]; at 0.5 the shares follow the square root.

    Returns:
        Shares that sum to 1, float64.
    """
    shares = np.where(counts > 0, np.asarray(counts, dtype=np.float64) ** (1 - strength), 0.0)
    return shares / shares.sum()


def balanced_order(
    generator: np.random.Generator, num_images: int, *, labels: np.ndarray, strength: float
) -> np.ndarray:
    """The order of a pass in which classes have the shares of :func:`class_shares`.

    A class gets its share of the ``num_images`` positions, rounded down or up at random. Its images come equally often, or
    differ by one; the extra ones are drawn anew in each pass.

    Args:
        generator: Source of the random numbers.
        num_images: Length of the pass, and number of labels.
        labels: (num_images,) int64, the class of each image.
        strength: As in :func:`class_shares`.

    Returns:
        (num_images,) int64, indices of images.
    """
    _, counts = np.unique(labels, return_counts=True)
    ends = np.floor(np.cumsum(class_shares(counts, strength)) * num_images + generator.random()).astype(np.int64)
    ends[-1] = num_images  # whatever the rounding of the sum
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    drawn = []
    for images, places in zip(by_class, np.diff(ends, prepend=0), strict=True):
        whole, rest = divmod(int(places), len(images))
        drawn += [np.tile(images, whole), generator.permutation(images)[:rest]]
    return generator.permutation(np.concatenate(drawn))


class EvalSampler(DistributedSampler):
    """Every image once, in order: rank r reads r, r + world_size, …, and no image is repeated to give ranks equal numbers.

    Args:
        num_images: Number of images.
        rank: Index of this process.
        world_size: Number of processes.
    """

    def __init__(self, num_images: int, *, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(range(num_images), num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.indices = range(rank, num_images, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Key]:  # type: ignore[override]
        for index in self.indices:
            yield 0, index


def check_divides(batch_size: int, world_size: int, accumulate: int) -> None:
    """Checks that a batch can be divided evenly among processes and micro-batches.

    Raises:
        UserError: It cannot; the message names the nearest possible sizes.
    """
    parts = world_size * accumulate
    if batch_size >= parts and batch_size % parts == 0:
        return
    below, above = batch_size // parts * parts, -(-batch_size // parts) * parts
    near = f"{below} or {above}" if below > 0 and below != above else f"{max(above, parts)}"
    raise UserError(
        f"batch_size={batch_size} is the number of images per optimizer step, which cannot be divided evenly among {world_size} "
        f"process(es) x {accumulate} accumulated micro-batch(es). Use a multiple of {parts}, such as {near}."
    )
