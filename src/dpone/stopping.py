"""Whether the run that works in this thread is to stop, for connectors that wait on a network.

The engine looks between batches. Whoever waits for long inside of one asks here, and raises `dpone.errors.Cancelled`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_stop: ContextVar[threading.Event | None] = ContextVar("dpone_stop", default=None)


def current() -> threading.Event:
    """The event that is set when the run is to stop; one that nobody sets where no run is.

    Keep it with a connection: its data may be taken in a thread of another library.
    """
    return _stop.get() or threading.Event()


@contextmanager
def stopped_by(event: threading.Event) -> Iterator[None]:
    """Let `current` give this event, in this thread."""
    token = _stop.set(event)
    try:
        yield
    finally:
        _stop.reset(token)
