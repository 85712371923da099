"""Durations and sizes as readable text."""

import pytest

from lit_splitmask.units import duration, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (0.9, "0:00:00"),
        (59.99, "0:00:59"),
        (60, "0:01:00"),
        (3_599, "0:59:59"),
        (36_061, "10:01:01"),
        (86_399, "23:59:59"),
        (86_400, "1 d 0:00:00"),
        (90_061, "1 d 1:01:01"),
        (100 * 86_400 + 3_600, "100 d 1:00:00"),
    ],
)
def test_durations_have_hours_minutes_and_seconds_after_the_days(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1,000 B"),
        (1023, "1,023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (2**20, "1 MiB"),
        (1000 * 2**20, "1,000 MiB"),
        (int(1.5 * 2**30), "1.5 GiB"),
        (123_456_789_012, "115 GiB"),
        (5 * 2**40, "5,120 GiB"),
    ],
)
def test_sizes_have_a_binary_unit_and_at_most_gib(num_bytes: int, text: str) -> None:
    assert size(num_bytes) == text
