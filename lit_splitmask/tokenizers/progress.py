"""A progress bar for long steps of fitting a codebook."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

T = TypeVar("T")


def counted(
    values: Iterable[T], total: int, description: str, size: Callable[[T], int] = lambda value: 1
) -> Iterator[T]:
    """Yields the values, with a progress bar on a terminal that goes when the last is done, or no more are asked for.

    Args:
        values: The values.
        total: The sum of their sizes.
        description: What is done with them, in a few words.
        size: How much a value counts.
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        for value in values:
            yield value
            progress.advance(task, size(value))
