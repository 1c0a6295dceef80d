"""Waiting for the server: during COPY, in either direction, and for the answers to statements.

A wait for an answer lasts as long as the server works, or until the run is told to stop: the server is asked to give
the statement up, and when it does not say so within a second, the wait ends all the same.

A wait in a COPY ends with `Cancelled` soon after the run is told to stop, and with an unavailable error when rows were
on their way and the link has been silent for `read_timeout` seconds. Silence alone does not mean that: a query may look
for its next row for hours, and a write may wait for a lock. So the server is asked, by another connection, whether it
works on the statement or waits for this end of the link. A machine that is gone is noticed earlier, by TCP's
keepalives.
"""

from __future__ import annotations

import contextlib
import selectors
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import psycopg

from dpone import clock
from dpone.errors import Cancelled, DponeError
from dpone.stopping import Stopping

T = TypeVar("T")
_TICK = 0.1
_GRACE = 0.5
"""Seconds that a COPY has to end in an orderly way after it was given up."""
_ANSWER = 1.0
"""Seconds to reach the server with the wish to give a statement up, and then to hear that it did."""


class Waits:
    """The waits of one COPY. `moving` says whether rows are on their way, so that silence means something.

    `stalled` is asked after `limit` seconds of silence, and gives the error of a dead link, or None.
    """

    def __init__(
        self, stop: Stopping | threading.Event, limit: float, stalled: Callable[[], DponeError | None]
    ) -> None:
        self.moving = False
        self._stop = stop
        self._limit = limit
        self._stalled = stalled
        self._since = clock.monotonic()
        self._error: Exception | None = None
        self._end: float | None = None

    def select(self, selector: selectors.BaseSelector) -> None:
        """Wait until the socket is ready."""
        self._since = clock.monotonic()
        while True:
            ready = selector.select(_TICK)
            self._woken(ready=bool(ready))
            if ready:
                return

    def heard(self, waiting: Generator[int, Any, T]) -> Generator[int, Any, T]:
        """A generator of psycopg, which is woken at least every tenth of a second."""
        self._since = clock.monotonic()
        ready: Any = None
        while True:
            try:
                state = waiting.send(ready)
            except StopIteration as end:
                found: T = end.value
                return found
            ready = yield state
            self._woken(ready=bool(ready))

    def end(self, seconds: float) -> None:
        """From now on there are so many seconds left, whatever happens; no more than that after an error."""
        if self._end is None:
            self._end = clock.monotonic() + seconds
            self._error = psycopg.OperationalError("the COPY did not end in time")

    @property
    def left(self) -> float:
        """The seconds that are left after `end`."""
        return max(0.0, (self._end or 0.0) - clock.monotonic())

    def _woken(self, *, ready: bool) -> None:
        now = clock.monotonic()
        if self._end is not None:
            if now >= self._end and self._error is not None:
                raise self._error
        elif self._stop.is_set():
            self._give_up(Cancelled("cancelled while rows were on their way", remedy="run again"))
        elif ready:
            self._since = now
        elif self.moving and now - self._since >= self._limit:
            error = self._stalled()
            if error is not None:
                self._give_up(error)
            self._since = clock.monotonic()

    def _give_up(self, error: DponeError) -> None:
        self.end(_GRACE)
        self._error = error
        raise error


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose waits are those of a COPY while there is one. None of them outlasts the run."""

    waits: Waits | None = None
    stop: Stopping | None = None

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """See psycopg."""
        heard: Any = self._until_stopped(gen) if self.waits is None else self.waits.heard(gen)
        return super().wait(heard, *args, **kwargs)

    def give_up(self) -> None:
        """Ask the server to end what it does for this connection, if it can be reached."""
        with contextlib.suppress(psycopg.Error):
            self.cancel_safe(timeout=_ANSWER)

    def _until_stopped(self, waiting: Generator[int, Any, T]) -> Generator[int, Any, T]:
        ready: Any = None
        end: float | None = None
        while True:
            try:
                state = waiting.send(ready)
            except StopIteration as stopped:
                found: T = stopped.value
                return found
            ready = yield state
            if self.stop is None or not self.stop.is_set():
                continue
            if end is None:
                self.give_up()
                end = clock.monotonic() + _ANSWER
            elif clock.monotonic() >= end:
                self.stop.check("waiting for the server's answer")

    @contextlib.contextmanager
    def waiting(self, waits: Waits) -> Iterator[Waits]:
        """Let every wait of the block be one of these."""
        self.waits = waits
        try:
            yield waits
        finally:
            self.waits = None
