"""A wrong clock: dpone's own time, moved while it works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dpone.clock


@dataclass
class MovedClock:
    """By how many `seconds` dpone's clock is off; may be set at any moment, also from another thread."""

    seconds: float


@contextmanager
def moved_clock(seconds: float) -> Iterator[MovedClock]:
    """Inside the block the wall clock of dpone in this process is `seconds` ahead, or behind when negative.

    As when somebody sets a machine's clock, durations and deadlines do not move with it, nor do other processes and
    the clocks of servers.
    """
    moved, real = MovedClock(seconds), dpone.clock.wall
    dpone.clock.wall = lambda: real() + moved.seconds
    try:
        yield moved
    finally:
        dpone.clock.wall = real
