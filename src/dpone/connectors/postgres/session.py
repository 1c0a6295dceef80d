"""One connection to PostgreSQL: the bulk protocol in both directions, and everything pinned that changes values.

Rows travel as CSV through COPY (https://www.postgresql.org/docs/current/sql-copy.html); no Python code runs per row.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import operator
import os
import selectors
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

from dpone import stopping
from dpone.connectors.postgres.dialect import PostgresDialect, digest_query, part_expression, parts_query
from dpone.connectors.postgres.errors import Side, translate
from dpone.connectors.postgres.waiting import Connection, Waits
from dpone.connectors.postgres.wire import CHUNK, MARK, Parser, Writer
from dpone.errors import Cancelled, ConfigError, DponeError, ResourceError, SinkUnavailable, SourceUnavailable
from dpone.sdk import Column, Digest, Table
from dpone.sql.dialect import Dialect
from dpone.sql.sink import SLICE

if TYPE_CHECKING:
    import pyarrow as pa

    from dpone.connectors.postgres.config import PostgresConfig

_OLDEST = 120000
_POLL = 0.1
_ENDING = 10.0  # seconds that the server has to end a COPY that nobody reads on
_SETTINGS = {
    "search_path": "",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",  # shortest text that gives the same float back
    "bytea_output": "hex",
    "xmloption": "content",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "quote_all_identifiers": "off",  # the names of types are compared
    "jit": "off",  # compiling the expressions of a digest costs more than it saves
    "row_security": "off",  # rows that a policy hides are an error, not silently left out
    # A client that vanished without a word is noticed within about a minute, and its lock is freed.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "0",  # a snapshot may wait for the other side
}
_SETTINGS_14 = {"idle_session_timeout": "0"}


class PostgresSession:
    """See `dpone.sql.dialect.Session`. `side` decides which of the unavailable errors a lost connection is."""

    def __init__(self, config: PostgresConfig, side: Side) -> None:
        self.dialect: Dialect = PostgresDialect()
        self._config = config
        self._side: Side = side
        self._stop = stopping.current()
        self._connection = self._connect()
        self._utf8 = self._connection.info.parameter_status("server_encoding") in ("UTF8", "SQL_ASCII")
        self._backend = 0
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    # -- the Session protocol ----------------------------------------------------------------------------------

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement; the number of rows affected."""
        return self._run(sql, params).rowcount

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query with a small result."""
        return self._run(sql, params).fetchall()

    def batches(self, sql: str, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        """COPY a query out; batches of about 4 MiB of text. Raises DataError naming a column that does not parse."""
        parse = Parser(columns)
        act = f"reading from {self._config.identity}"
        with self._translated(act):
            for chunk in _copy_out(self._connection, f"COPY ({sql}) TO STDOUT (FORMAT csv)", self._waits(act)):
                yield parse(chunk)

    def digest(self, relation: str, columns: Sequence[Column]) -> Digest:
        """`dpone-digest/1`, computed by the server."""
        [(rows, total)] = self.rows(digest_query(self.dialect, relation, columns, utf8=self._utf8))
        return Digest(int(rows), int(total or 0) % 2**64)

    def digest_parts(
        self, relation: str, columns: Sequence[Column], key: Sequence[Column], count: int
    ) -> dict[int, Digest]:
        """See `dpone.sql.parts.Hashing`."""
        found = self.rows(parts_query(self.dialect, relation, columns, key, count, utf8=self._utf8))
        return {int(part): Digest(int(rows), int(total) % 2**64) for part, rows, total in found}

    def part(self, key: Sequence[Column], count: int) -> str:
        """See `dpone.sql.parts.Hashing`."""
        return part_expression(self.dialect, key, count, utf8=self._utf8)

    def ingest(self, table: Table, columns: Sequence[Column], batches: Iterator[pa.RecordBatch], ordinal: int) -> int:
        """COPY batches into the staging table; the server's count of rows."""
        names = [column.name for column in columns]
        quoted = ", ".join(self.dialect.quote(name) for name in [*names, SLICE])
        sql = f"COPY {self.dialect.table(table)} ({quoted}) FROM STDIN (FORMAT csv)"
        write = Writer(columns, ordinal)
        act = f"writing to {table}"
        with (
            self._translated(act, names),
            self._connection.waiting(self._waits(act)) as waits,
            self._connection.cursor() as cursor,
        ):
            with cursor.copy(sql.encode()) as copy:
                waits.moving = True
                for batch in batches:
                    for text in write(batch):
                        copy.write(text)
                waits.moving = False  # the server has it all, and may take its time
            return cursor.rowcount

    def begin(self) -> None:
        """Start a transaction that may write, on the primary."""
        self._open("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")

    def begin_snapshot(self, first: str) -> None:
        """Start a transaction in which every query reads the same snapshot.

        It is taken by the first query, which `first` may come before if it is LOCK TABLE.
        """
        self._open(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {first}")

    def commit(self) -> None:
        """Commit."""
        self._run("COMMIT")

    def rollback(self) -> None:
        """Roll back. Safe when there is no transaction, or no connection."""
        status = self._connection.info.transaction_status
        if status == pq.TransactionStatus.ACTIVE:
            self._connection.give_up()  # it may wait for a lock, and would not notice that we are gone
            self.close()  # a COPY that was left in the middle: the server rolls back
        elif status != pq.TransactionStatus.IDLE:
            try:
                self._connection.execute(b"ROLLBACK")
            except psycopg.Error:
                pass
            except Cancelled:
                self.close()

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._connection.close()

    # -- what source and sink need beside it -------------------------------------------------------------------

    @property
    def version(self) -> int:
        """The server's version as `server_version_num`: 150004 is 15.4."""
        return self._connection.info.server_version

    @property
    def user(self) -> str:
        """The role that the connection uses."""
        return self._connection.info.user

    @property
    def backend(self) -> int:
        """The server's process id of this session."""
        return self._backend

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Every wait of the block ends after so many seconds, by an error."""
        waits = Waits(threading.Event(), 0, lambda: None)
        waits.end(seconds)
        with self._connection.waiting(waits):
            yield

    # -- plumbing ----------------------------------------------------------------------------------------------

    def _waits(self, act: str) -> Waits:
        limit = self._config.read_timeout

        def stalled() -> DponeError | None:
            if self._works():
                return None
            kind = SourceUnavailable if self._side == "source" else SinkUnavailable
            return kind(
                f"{act}: no byte moved for {limit} seconds, and the server does not say that it is busy",
                remedy="check the network between here and the server; read_timeout is the number of seconds",
                retryable=True,
            )

        return Waits(self._stop, limit, stalled)

    def _works(self) -> bool:
        """Whether the server itself, asked by another connection, is busy with our statement, and not with the link.

        https://www.postgresql.org/docs/current/monitoring-stats.html#WAIT-EVENT-CLIENT-TABLE
        """
        idle = "state <> 'disabled' AND (state <> 'active' OR wait_event_type = 'Client')"
        try:
            with contextlib.closing(self._connect()) as other:
                waits = Waits(self._stop, 0, lambda: None)
                waits.end(self._config.connect_timeout)
                with other.waiting(waits):
                    sql = f"SELECT ({idle}) IS TRUE FROM pg_stat_activity WHERE pid = {self._backend:d}"
                    rows = other.execute(sql.encode()).fetchall()
        except ResourceError:  # it is there, and has no connection left
            return True
        except (psycopg.Error, DponeError):
            return False
        return rows == [(False,)]

    def _connect(self) -> Connection:
        config = self._config
        settings: dict[str, Any] = {
            "host": config.host,
            "port": config.port,
            "dbname": config.database,
            "user": config.user,
            "sslmode": config.sslmode,
            "connect_timeout": config.connect_timeout,
            "client_encoding": "UTF8",
            "application_name": "dpone",
            # libpq fills what is missing from the environment and from ~/.pgpass; an empty value is not missing
            # (https://www.postgresql.org/docs/current/libpq-envars.html).
            "password": config.password.get_secret_value() if config.password is not None else "",
            "passfile": f"{os.devnull}/none",
            "sslrootcert": config.sslrootcert or "",
            "hostaddr": "",
            "options": "",
            "target_session_attrs": "any",
            "keepalives": 1,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        }
        act = f"connecting to {config.identity}"
        try:
            connection = self._patiently(
                act,
                lambda: Connection.connect(
                    **settings, autocommit=True, prepare_threshold=None, cursor_factory=psycopg.RawCursor
                ),
            )
        except psycopg.Error as error:
            found = translate(error, act, self._side, connecting=True)
            found.side = self._side
            raise found from None
        connection.stop = self._stop
        return connection

    def _patiently(self, act: str, connect: Callable[[], Connection]) -> Connection:
        """Connect in a thread of its own: looking up a name, and libpq's first steps, cannot be ended from here."""
        made: Future[Connection] = Future()

        def run() -> None:
            try:
                connection = connect()
            except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
                if made.set_running_or_notify_cancel():
                    made.set_exception(error)
                return
            if made.set_running_or_notify_cancel():
                made.set_result(connection)
            else:
                connection.close()  # nobody waits for it any more

        threading.Thread(target=run, name="dpone-connecting", daemon=True).start()
        while not wait([made], timeout=_POLL).done:
            try:
                self._stop.check(act)
            except Cancelled:
                made.cancel()
                raise
        return made.result()

    def _prepare(self) -> None:
        if self.version < _OLDEST:
            raise ConfigError(
                f"{self._config.identity} runs PostgreSQL {self.version // 10000}, dpone needs 12 or later",
                remedy="upgrade the server",
                code="DP142",
            )
        # Single statements that write stand alone; what a sink does in transactions says it in each of them.
        writes = {"default_transaction_read_only": "off"} if self._side == "sink" else {}
        settings = _SETTINGS | writes | (_SETTINGS_14 if self.version >= 140000 else {})  # noqa: PLR2004 - a version
        calls = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in settings.items())
        # Nothing is set, nor locked later, in a session that is not our own: a pooler would hand it on to others.
        sql = f"SELECT pg_backend_pid(), {calls} WHERE pg_backend_pid() = "
        rows = self.rows(f"{sql}{self._connection.info.backend_pid}") or self.rows(f"{sql}{self._behind_pooler()}")
        if not rows:
            raise self._pooled()
        self._backend = int(rows[0][0])

    def _behind_pooler(self) -> int:
        """The server process behind a pooler, once it is clear that it stays ours while another connection works."""
        [(mine,)] = self.rows("SELECT pg_backend_pid()")
        with self._connect() as other:
            try:
                [(theirs,)] = other.execute(b"BEGIN; SELECT pg_backend_pid()").set_result(1).fetchall()
            except psycopg.Error:  # a pooler of statements knows no BEGIN
                raise self._pooled() from None
            if theirs == mine or self.rows("SELECT pg_backend_pid()") != [(mine,)]:
                raise self._pooled()
        return int(mine)

    def _pooled(self) -> ConfigError:
        return ConfigError(
            f"{self._config.identity} is a pooler that gives each transaction another session",
            remedy="connect to the server itself, or to a pooler in session mode (pgbouncer: pool_mode = session)",
            code="DP143",
        )

    def _open(self, statement: str) -> None:
        """Begin, and make sure that this is still the session whose settings and lock are ours."""
        try:
            cursor = self._run(f"{statement}; SELECT pg_backend_pid()")
        except DponeError:
            self.rollback()
            raise
        while cursor.nextset():
            pass
        if cursor.fetchone() != (self._backend,):
            self.rollback()
            raise self._pooled()

    def _run(self, sql: str, params: Sequence[Any] = ()) -> psycopg.Cursor[tuple[Any, ...]]:
        with self._translated(f"{_verb(sql)} on {self._config.identity}"):
            # RawCursor numbers its parameters, so a % in a name means nothing; the dialect's placeholder is %s.
            if params:
                pieces = sql.split("%s")
                numbered = [f"{piece}${number}" for number, piece in enumerate(pieces[:-1], 1)]
                return self._connection.execute("".join([*numbered, pieces[-1]]).encode(), tuple(params))
            return self._connection.execute(sql.encode())

    @contextlib.contextmanager
    def _translated(self, act: str, columns: Sequence[str] = ()) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.QueryCanceled as error:
            self._stop.check(act)
            raise translate(error, act, self._side, columns=columns) from None
        except psycopg.Error as error:
            raise translate(error, act, self._side, columns=columns) from None


def _verb(sql: str) -> str:
    """The first word or two of a statement, for messages: the rest may hold values."""
    words = sql.split(None, 2)
    return f"running {' '.join(words[:2] if words[0] in ('CREATE', 'DROP', 'ALTER', 'INSERT') else words[:1])}"


# -- reading -----------------------------------------------------------------------------------------------------


def _copy_out(connection: Connection, sql: str, waits: Waits) -> Iterator[memoryview]:
    """The data of COPY TO STDOUT in chunks of whole rows, each after a `MARK`.

    Each CopyData message is one row: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY
    Raises psycopg errors, also for one that arrives after the data. A consumer that stops early ends the COPY.
    """
    pgconn = connection.pgconn
    with selectors.DefaultSelector() as selector:
        selector.register(pgconn.socket, selectors.EVENT_READ)
        done = False
        try:
            pgconn.send_query(sql.encode())
            _flush(pgconn, waits)
            result = _result(pgconn, selector, waits)
            if result is None or result.status != pq.ExecStatus.COPY_OUT:
                done = True
                _finish(pgconn, selector, waits, result)
                raise psycopg.InterfaceError("the server did not start a COPY")
            yield from _chunks(pgconn, selector, waits)
            done = True
            _finish(pgconn, selector, waits, None)
        finally:
            if not done:
                _stop(connection, selector, waits)


def _chunks(pgconn: pq.abc.PGconn, selector: selectors.BaseSelector, waits: Waits) -> Iterator[memoryview]:
    last: deque[tuple[int, memoryview]] = deque(maxlen=1)
    # All of this runs in C: take a message, note it in `last`, keep its data, until a call gives none.
    calls = iter(functools.partial(pgconn.get_copy_data, 1), None)
    data = map(operator.itemgetter(1), itertools.filterfalse(last.append, calls))
    buffer = _buffer()
    while True:
        buffer.writelines(itertools.takewhile(operator.truth, data))
        ended = last[0][0] == -1  # 0: nothing more has arrived, -1: the COPY has ended
        size = buffer.tell() - len(MARK)
        waits.moving = waits.moving or size > 0
        if size and (ended or size >= CHUNK):
            yield buffer.getbuffer()
            buffer = _buffer()
        if ended:
            return
        waits.select(selector)
        pgconn.consume_input()


def _buffer() -> io.BytesIO:
    buffer = io.BytesIO()
    buffer.write(MARK)
    return buffer


def _flush(pgconn: pq.abc.PGconn, waits: Waits) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(pgconn.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while pgconn.flush():
            waits.select(selector)
            pgconn.consume_input()


def _result(pgconn: pq.abc.PGconn, selector: selectors.BaseSelector, waits: Waits) -> pq.abc.PGresult | None:
    while pgconn.is_busy():
        waits.select(selector)
        pgconn.consume_input()
    return pgconn.get_result()


def _finish(
    pgconn: pq.abc.PGconn, selector: selectors.BaseSelector, waits: Waits, result: pq.abc.PGresult | None
) -> None:
    """Take what is left of the command. Raises the error that it ended with, if it did."""
    failed = None
    ended = False
    while True:
        if result is not None:
            ended = ended or result.status == pq.ExecStatus.COMMAND_OK
            if result.status == pq.ExecStatus.FATAL_ERROR:
                failed = failed or result
        result = _result(pgconn, selector, waits)
        if result is None:
            break
    if failed is not None:
        raise psycopg.errors.error_from_result(failed, encoding="utf-8")
    if not ended:
        raise psycopg.OperationalError("the COPY ended without the server's word that it is complete")


def _stop(connection: Connection, selector: selectors.BaseSelector, waits: Waits) -> None:
    """End a COPY that nobody reads on, so that the session can be used again; close it when that fails."""
    pgconn = connection.pgconn
    if pgconn.status != pq.ConnStatus.OK:
        return
    waits.end(_ENDING)
    try:
        connection.cancel_safe(timeout=waits.left)
        while (size := pgconn.get_copy_data(1)[0]) >= 0:
            if size == 0:
                waits.select(selector)
                pgconn.consume_input()
        _finish(pgconn, selector, waits, None)
    except psycopg.errors.QueryCanceled:
        pass
    except (psycopg.Error, DponeError):
        if pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            pgconn.finish()


__all__ = ["PostgresSession"]
