"""The lock on a stream: an advisory lock of the session, a lease, and the end of a holder that stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpone import clock, stopping
from dpone.connectors.postgres.dialect import lock_number
from dpone.errors import Cancelled, ConflictError, PermissionDenied
from dpone.sdk import Holder, StreamKey
from dpone.sql.lease import until
from dpone.sql.sink import transaction
from dpone.sql.state import State

if TYPE_CHECKING:
    from dpone.connectors.postgres.session import PostgresSession

ENDING_S = 30.0
"""Seconds that the server has to end a session; rolling back takes none, but a system call may."""
_POLL_S = 0.1

# A lock of 64 bits is shown as two halves: https://www.postgresql.org/docs/current/view-pg-locks.html
_SESSION = """
SELECT l.pid, coalesce(a.usename::text, ''), coalesce(r.rolsuper, false) FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid LEFT JOIN pg_roles r ON r.rolname = a.usename
WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = %s::bigint::oid AND l.objid = %s::bigint::oid
"""


class Lock:
    """The lock of one stream, seen from one session."""

    def __init__(self, session: PostgresSession, key: StreamKey) -> None:
        self._session = session
        self._key = key
        self._state = State(session, key.target.schema)
        self._number = lock_number(str(key))
        self._stop = stopping.current()

    def take(self) -> str | None:
        """Take the lock and its lease. Who stood still, when somebody's session had to be ended for it.

        Raises ConflictError (DP701) naming the holder whose lease is good, and PermissionDenied (DP211) when this role
        may not end the session of one whose lease has run out.
        """
        if not self._state.ready():  # before the lock, so that the lock and the lease are one statement
            with transaction(self._session):
                self._state.create()
        ended: str | None = None
        deadline = clock.monotonic() + ENDING_S
        while not self._try():
            holder = self._session.rows(_SESSION, (self._number >> 32 & 0xFFFFFFFF, self._number & 0xFFFFFFFF))
            if not holder:
                continue  # it has just let go
            pid, role, superuser = holder[0]
            left = self._left(pid)
            if left is None or left > 0 or clock.monotonic() > deadline:
                raise self._held(pid, left)
            ended = self._state.holder(self._key)
            self._end(pid, role, superuser=superuser)
            if self._stop.wait(_POLL_S):
                raise Cancelled("cancelled while taking over a lock", remedy="run again")
        return ended

    def release(self) -> None:
        """Give it back."""
        self._session.execute("SELECT pg_advisory_unlock(%s::bigint)", (self._number,))

    def holder(self) -> Holder | None:
        """Who has the lock now."""
        found = self._session.rows(_SESSION, (self._number >> 32 & 0xFFFFFFFF, self._number & 0xFFFFFFFF))
        if not found:
            return None
        run_id, name = self._state.holding(self._key)
        return Holder(run_id, name, self._left(found[0][0]))

    def _try(self) -> bool:
        """Take both in one statement: nobody can stop between the two and hold a lock without a lease."""
        sql = (
            "WITH got AS MATERIALIZED (SELECT pg_try_advisory_lock(%s::bigint) AS it) "
            f"INSERT INTO {self._state.table('_dpone_leases')} (stream_key, session, until_ms) "
            f"SELECT %s::text, pg_backend_pid(), {until(self._session)} FROM got WHERE it "
            "ON CONFLICT (stream_key) DO UPDATE SET session = excluded.session, until_ms = excluded.until_ms"
        )
        return self._session.execute(sql, (self._number, str(self._key))) == 1

    def _left(self, pid: int) -> float | None:
        """The seconds that the lease of a session is still good for; None when it has none."""
        if "_dpone_leases" not in self._state.tables():
            return None
        found = self._session.rows(
            f"SELECT (until_ms - {self._session.dialect.server_ms}) / 1000.0 "
            f"FROM {self._state.table('_dpone_leases')} WHERE stream_key = %s AND session = %s",
            (str(self._key), pid),
        )
        return float(found[0][0]) if found else None

    def _end(self, pid: int, role: str, *, superuser: bool) -> None:
        """End the session, unless it has renewed its lease by now."""
        table, server_ms = self._state.table("_dpone_leases"), self._session.dialect.server_ms
        try:
            self._session.rows(
                f"SELECT pg_terminate_backend(session::int) FROM {table} "
                f"WHERE stream_key = %s AND session = %s AND until_ms <= {server_ms}",
                (str(self._key), pid),
            )
        except PermissionDenied:
            quote = self._session.dialect.quote
            grant = f"GRANT pg_signal_backend TO {quote(self._session.user)}; or "
            raise PermissionDenied(
                f"stream {self._key.stream} is held by {self._state.holder(self._key)}, which has stood still for "
                f"longer than its lease; role {self._session.user} may not end its session (pid {pid}, role {role})",
                remedy=("" if superuser else grant)
                + f"end it as {'a superuser' if superuser else f'{role} or a superuser'}: "
                f"SELECT pg_terminate_backend({pid});",
                code="DP211",
            ) from None

    def _held(self, pid: int, left: float | None) -> ConflictError:
        remedy = "wait for that run to end, or let this one wait for it (--wait)"
        if left is None:
            remedy += f"; it has no lease: if it is dead, SELECT pg_terminate_backend({pid});"
        return ConflictError(
            f"stream {self._key.stream} is held by {self._state.holder(self._key)}",
            remedy=remedy,
            where=self._key.stream,
            code="DP701",
            retryable=True,
        )
