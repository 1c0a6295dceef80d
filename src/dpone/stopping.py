"""Whether the run that works in this thread is to stop, for everybody who may be at work for long.

The engine looks between batches. Inside of one there are three ways:

    current().is_set()       asked by whoever waits or loops, who then raises `Cancelled`
    current().check(act)     the same in one line
    current().interrupts(f)  for a call into a library that does not come back: `f` is called from another thread, again
                             and again until the block ends, such as `connection.interrupt`
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dpone import clock
from dpone.errors import Cancelled

_TICK_S = 0.1


class Stopping:
    """The end of a run as one stream sees it. Keep it with a connection: threads of other libraries may ask it."""

    def __init__(self, event: threading.Event | None = None) -> None:
        self._event = event or threading.Event()
        self._spared_until = 0.0
        self._interrupts: dict[object, Callable[[], object]] = {}
        self._guard = threading.Lock()

    def is_set(self) -> bool:
        """Whether to stop now."""
        return self._event.is_set() and clock.monotonic() >= self._spared_until

    def wait(self, seconds: float) -> bool:
        """Wait so many seconds, or until the run is to stop; whether it is."""
        if self._event.is_set() and not self.is_set():
            time.sleep(min(seconds, _TICK_S))
        else:
            self._event.wait(seconds)
        return self.is_set()

    def check(self, act: str) -> None:
        """Raise Cancelled when the run is to stop."""
        if self.is_set():
            raise Cancelled(f"cancelled while {act}", remedy="run again: durable slices are kept")

    def spare(self, seconds: float) -> None:
        """What is done in the next seconds is what ends the run in an orderly way: it does not stop for the stop."""
        self._spared_until = clock.monotonic() + seconds

    @contextmanager
    def interrupts(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """While the block lasts, call this when the run is to stop: once may come before what it is to interrupt."""
        mark = object()
        with self._guard:
            self._interrupts[mark] = interrupt
        try:
            yield
        finally:
            with self._guard:  # never while one is being called: it would hit what comes after the block
                del self._interrupts[mark]

    def watch(self, over: threading.Event) -> None:
        """Call the interrupts of running blocks, until it is over."""
        while not over.wait(_TICK_S):
            if self.is_set():
                with self._guard:
                    for interrupt in self._interrupts.values():
                        with contextlib.suppress(Exception):  # of a connection that is closed meanwhile
                            interrupt()


_current: ContextVar[Stopping | None] = ContextVar("dpone_stopping", default=None)


def current() -> Stopping:
    """Of the run that works in this thread; one that never stops where none does."""
    return _current.get() or Stopping()


@contextmanager
def stopped_by(event: threading.Event) -> Iterator[Stopping]:
    """Let `current`, in this thread, be about this event."""
    stopping, over = Stopping(event), threading.Event()
    watcher = threading.Thread(target=stopping.watch, args=(over,), name="dpone-stopping", daemon=True)
    watcher.start()
    token = _current.set(stopping)
    try:
        yield stopping
    finally:
        _current.reset(token)
        over.set()
        watcher.join()
