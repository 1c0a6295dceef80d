"""The lease on a stream, for servers: a holder that stands still must not keep the lock for ever.

A session's lock ends with the session, and a session ends with its process. But a process that is stopped, a machine
that is paused, or a host that vanished behind a connection that nobody closes, keeps its session and does nothing. So
whoever holds a lock also holds a lease, which it renews by the server's clock in a thread of its own, with a connection
of its own: slow work never costs a lease, standing still does. Who finds the lock taken and the lease run out may end
the holder's session. The fencing token, not the lease, is what keeps a late holder from writing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from dpone.errors import DponeError
from dpone.sdk import StreamKey
from dpone.sql.dialect import Session
from dpone.sql.state import State

LENGTH_S = 60.0
"""Long enough for a server that restarts, or a network that is away for a moment; short enough to wait for."""
EVERY = 4
"""Renewals within one length, so that three of them may fail."""


class Leased(Session, Protocol):
    """A session that can bound how long it waits for the server."""

    def within(self, seconds: float) -> contextlib.AbstractContextManager[object]:
        """Every wait of the block ends after so many seconds, by an error."""


def until(session: Session) -> str:
    """The expression of the moment at which a lease taken now ends."""
    return f"{session.dialect.server_ms} + {int(LENGTH_S * 1000)}"


def renew(session: Session, schema: str, key: StreamKey, holder: int) -> bool:
    """Renew the lease that a session holds; False when another one has it."""
    p = session.dialect.placeholder
    sql = f"UPDATE {State(session, schema).table('_dpone_leases')} SET until_ms = {until(session)}"
    return session.execute(f"{sql} WHERE stream_key = {p} AND session = {p}", (str(key), holder)) == 1


class Heart:
    """Renews the lease of one claim until it is stopped, or another session has it.

    `connect` opens a session when the first renewal is due, so that a short load never needs a second connection. One
    that breaks is opened again. It raises nothing: the lease itself says whether it was renewed in time, and is looked
    at in every transaction that writes.
    """

    def __init__(self, connect: Callable[[], Leased], key: StreamKey, holder: int) -> None:
        self._connect = connect
        self._key = key
        self._holder = holder
        self._stop = threading.Event()
        self._session: Leased | None = None
        self._thread = threading.Thread(target=self._beat, name=f"dpone lease {key.stream}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Renew no more. Safe to call twice."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(LENGTH_S / EVERY)

    def _beat(self) -> None:
        pause = every = LENGTH_S / EVERY
        try:
            while not self._stop.wait(pause):
                pause = every
                try:
                    with self._limited(every) as session:
                        if not renew(session, self._key.target.schema, self._key, self._holder):
                            return
                except DponeError:
                    self._hang_up()
                    pause = every / EVERY
        finally:
            self._hang_up()

    @contextlib.contextmanager
    def _limited(self, seconds: float) -> Iterator[Session]:
        if self._session is None:
            self._session = self._connect()
        with self._session.within(seconds):
            yield self._session

    def _hang_up(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
