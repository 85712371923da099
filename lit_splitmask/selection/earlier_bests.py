"""Best checkpoints that were replaced by better ones, and how many of them stay on disk."""

from collections.abc import Sequence
from pathlib import Path

from lit_splitmask.files import link_or_copy


def keep_earlier_best(best: Path, step: int, earlier: Sequence[int], keep: int) -> list[int]:
    """Names the best checkpoint after its step before it is replaced, and deletes the oldest files of this kind.

    Args:
        best: The best checkpoint, ``best.ckpt``; it may be missing.
        step: Its step.
        earlier: Steps of the files that exist already, the oldest first.
        keep: Number of files that stay.

    Returns:
        Steps of the files that exist now.
    """
    steps = list(earlier)
    if keep and best.exists():
        path = _path(best, step)
        if not path.exists():  # after a kill between two checkpoints, best is that of a later step already
            link_or_copy(best, path)
        steps.append(step)
    num_dropped = max(0, len(steps) - keep)
    for dropped in steps[:num_dropped]:
        _path(best, dropped).unlink(missing_ok=True)
    return steps[num_dropped:]


def _path(best: Path, step: int) -> Path:
    return best.with_name(f"step-{step:08d}.ckpt")
