"""A bound on what threads decode at the same time: otherwise a few huge images would fill the memory, once per thread."""

import os
import threading
from collections.abc import Callable
from typing import TypeVar

MOST_BYTES = 2**30
"""Memory that all threads of a pool may decode in together, whatever their number: with what the libraries take, a process stays
below 2 GB. It is enough for ten JPEGs of 16 megapixels, or for four 16-bit scans of 34 megapixels."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _InFlight:
    """Counts the memory of the images that threads hold.

    Args:
        most: Largest number of bytes at the same time; an image that needs more is held alone.
    """

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self._changed = threading.Condition()

    def take(self, number: int) -> int:
        """Waits until this many bytes fit, and counts them; returns the number to give back."""
        number = min(number, self.most)
        with self._changed:
            self._changed.wait_for(lambda: self.held + number <= self.most)
            self.held += number
        return number

    def give_back(self, number: int) -> None:
        """Ends the count of bytes."""
        with self._changed:
            self.held -= number
            self._changed.notify_all()


class _Thread(threading.local):
    """What one thread of a pool holds; ``pool`` is None in other threads."""

    pool: _InFlight | None = None
    held: int = 0


_thread = _Thread()


def bounded(function: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """A function for the threads of a pool: what it decodes counts from :func:`hold` until it returns."""
    pool = _InFlight(MOST_BYTES)

    def run(item: Item) -> Result:
        _thread.pool, _thread.held = pool, 0
        try:
            return function(item)
        finally:
            pool.give_back(_thread.held)
            _thread.pool, _thread.held = None, 0

    return run


def hold(num_bytes: int) -> None:
    """Waits until an image that needs this many bytes may be decoded; does nothing outside of :func:`bounded` functions."""
    pool = _thread.pool
    if pool is None or min(num_bytes, pool.most) <= _thread.held:
        return
    pool.give_back(_thread.held)  # nobody waits while holding memory, so that two can't wait for each other
    _thread.held = 0
    _thread.held = pool.take(num_bytes)
