"""The time, for everything in dpone that asks for it. Nothing else does, so that a test can move this one clock.

No decision about data rests on it: a machine's clock can be wrong, and can be set while a run goes on. It labels
records and bounds waits.
"""

from __future__ import annotations

import time as _time
from collections.abc import Callable
from datetime import UTC, datetime

wall: Callable[[], float] = _time.time
"""Where `time` comes from; `dpone.testing.faults.moved_clock` puts another clock here."""


def time() -> float:
    """Seconds since 1970, as this machine believes."""
    return wall()


def now() -> datetime:
    """The same as an aware UTC datetime with microseconds."""
    return datetime.fromtimestamp(time(), UTC)


def monotonic() -> float:
    """Seconds that never go back, for durations and deadlines. Setting the machine's clock does not move it."""
    return _time.monotonic()
