"""One connection to an SQLite file, over the sqlite3 module of Python.

Rows leave SQLite by `fetchmany` and enter it by `executemany`; they become Arrow columns and back with `zip` and
pyarrow's own conversions, so no Python bytecode runs for a row or a value.

Writers wait for each other. Those of one process queue up without a limit, because a slice may take long to read;
another process is waited for some seconds at a time, and the engine tries again.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from dpone import clock, stopping
from dpone.arrow.digest import digest
from dpone.arrow.types import arrow_schema
from dpone.connectors.sqlite.dialect import SqliteDialect
from dpone.connectors.sqlite.errors import CAST, Side, mapped
from dpone.connectors.sqlite.values import decode, encode
from dpone.errors import ConfigError, ConflictError, DataError, SourceUnavailable
from dpone.sdk import Column, Digest, Table
from dpone.sql.dialect import Dialect

OLDEST = (3, 33, 0)
BUSY_SECONDS = 10.0
_POLL_S = 0.05
_FETCH_ROWS = 1000  # bounds what a sudden run of wide rows takes; the next fetch is sized by the one before
_BATCH_ROWS = 16_384
_BATCH_BYTES = 8 * 2**20

T = TypeVar("T")

_guard = threading.Lock()
_writers: dict[Path, threading.Lock] = {}
_readers: dict[Path, int] = {}


class SqliteSession:
    """A connection. A source's is read-only, and its transaction is a snapshot; a sink's writes.

    `required` names the columns that `ingest` refuses NULL in: SQLite replaces a NULL in an INTEGER PRIMARY KEY by a
    number of its own choice (https://www.sqlite.org/lang_createtable.html#rowids_and_the_integer_primary_key).
    """

    def __init__(self, path: str, side: Side) -> None:
        self.dialect: Dialect = SqliteDialect()
        self.required: frozenset[str] = frozenset()
        self._side: Side = side
        self._act = f"{'reading' if side == 'source' else 'writing'} sqlite {path}"
        self._file = Path(path).resolve()
        self._stop = stopping.current()
        self._refused: DataError | None = None
        self._in_queue = self._is_reading = False
        self._connection = self._connect(path)

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement; the number of rows it changed itself, without triggers."""
        with self._interruptible():
            before = self._connection.total_changes
            self._patient(lambda: self._connection.execute(sql, tuple(params)).close())
            if self._connection.total_changes == before:
                return 0
            return int(self._connection.execute("SELECT changes()").fetchone()[0])

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query with a small result."""
        with self._checked():
            return self._patient(lambda: self._connection.execute(sql, tuple(params)).fetchall())

    def batches(self, sql: str, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        """Run a query. A batch has at most 16,384 rows, and some 8 MiB; lists are the JSON text that is stored."""
        columns = _as_stored(columns)
        schema = arrow_schema(columns)
        waiting: list[pa.RecordBatch] = []
        count = size = 0
        with self._checked():
            cursor = self._connection.execute(sql)
        with contextlib.closing(cursor):
            fetch = _FETCH_ROWS
            while True:
                with self._checked():
                    rows = cursor.fetchmany(fetch)
                if not rows:
                    break
                by_column = zip(zip(*rows, strict=True), columns, strict=True)
                arrays = [decode(values, column) for values, column in by_column]
                batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
                # Fewer rows at a time where they are wide, so that the Python objects stay within the batch's size.
                fetch = max(1, min(_FETCH_ROWS, _BATCH_BYTES * batch.num_rows // max(1, batch.nbytes)))
                waiting.append(batch)
                count, size = count + batch.num_rows, size + batch.nbytes
                if count + fetch > _BATCH_ROWS or size >= _BATCH_BYTES:
                    yield _joined(waiting)
                    waiting, count, size = [], 0, 0
        if waiting:
            yield _joined(waiting)

    def digest(self, relation: str, columns: Sequence[Column]) -> Digest:
        """Read the rows back and digest them."""
        columns = _as_stored(columns)
        selected = ", ".join(f"{self.dialect.read(column)} AS {self.dialect.quote(column.name)}" for column in columns)
        return digest(columns, self.batches(f"SELECT {selected} FROM {relation}", columns))

    def ingest(self, table: Table, columns: Sequence[Column], batches: Iterator[pa.RecordBatch], ordinal: int) -> int:
        """INSERT, a few megabytes at a time, in arrival order."""
        marks = ", ".join("?" * len(columns))
        sql = (
            f"INSERT INTO {self.dialect.table(table)} ({self.dialect.names(columns)}, _dpone_slice) "
            f"VALUES ({marks}, {ordinal:d})"
        )
        taken = 0
        for batch in batches:
            for piece in _pieces(batch):
                values = [self._encode(array, column) for array, column in zip(piece.columns, columns, strict=True)]
                with self._interruptible():
                    taken += self._connection.executemany(sql, zip(*values, strict=True)).rowcount
        return taken

    def begin(self) -> None:
        """Start a transaction: a snapshot for a source, the only writer of the file for a sink.

        Raises ConflictError when another program keeps writing to the file.
        """
        if self._side == "source":
            with mapped(self._act, self._side):
                # BEGIN alone takes no snapshot, the first read does: https://www.sqlite.org/isolation.html
                self._connection.execute("BEGIN")
                self._patient(lambda: self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone())
            self._reading(now=True)
            return
        self._refuse_deadlock()
        with _guard:
            queue = _writers.setdefault(self._file, threading.Lock())
        while not queue.acquire(timeout=_POLL_S):
            self._stop.check(f"waiting for its turn of {self._act}")
        self._in_queue = True
        try:
            with mapped(self._act, self._side):
                self._patient(lambda: self._connection.execute("BEGIN IMMEDIATE"))
        except BaseException:
            self._leave()
            raise

    def commit(self) -> None:
        """Commit."""
        with mapped(self._act, self._side):
            self._patient(lambda: self._connection.execute("COMMIT"))
        self._leave()

    def rollback(self) -> None:
        """Roll back, if there is anything to."""
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        self._leave()

    def close(self) -> None:
        """Close the connection, which rolls back."""
        self._connection.close()
        self._leave()

    def _encode(self, array: pa.Array, column: Column) -> list[Any]:
        if array.null_count and column.name in self.required:
            raise DataError(
                f"writing column {column.name}: it is the key of the target, and has NULL",
                remedy="filter the rows out, or use another key",
                where=column.name,
            )
        return encode(array, column)

    def _connect(self, path: str) -> sqlite3.Connection:
        _check_version()
        if self._side == "source" and not self._file.is_file():
            raise SourceUnavailable(f"{self._act}: the file does not exist", remedy="check the path")
        if self._side == "sink" and not self._file.parent.is_dir():
            folder = Path(path).parent
            raise ConfigError(
                f"{self._act}: the folder {folder} does not exist",
                remedy="create the folder, or check the path",
                code="DP140",
            )
        mode = "ro" if self._side == "source" else "rwc"
        with mapped(self._act, self._side):
            connection = sqlite3.connect(
                f"{self._file.as_uri()}?mode={mode}",
                uri=True,
                timeout=0,  # see `_patient`
                isolation_level=None,  # transactions are begun and ended here, never by the driver
                check_same_thread=False,  # closed by whoever cleans up
            )
            connection.create_function("dpone_refuse", 2, self._refuse)
            connection.create_function("dpone_repr", 1, repr, deterministic=True)  # of a float: exact, and shortest
            connection.execute("PRAGMA synchronous = FULL")
            self._patient(lambda: connection.execute("SELECT count(*) FROM sqlite_master").fetchone())  # is it one?
        return connection

    def _patient(self, act: Callable[[], T]) -> T:
        """Do `act` again while the file is busy, for some seconds.

        Not SQLite's own wait (https://www.sqlite.org/c3ref/busy_timeout.html), which nothing can end. A statement that
        found the file busy has done nothing, and a COMMIT has left its transaction open.
        """
        deadline = clock.monotonic() + BUSY_SECONDS
        while True:
            try:
                return act()
            except sqlite3.OperationalError as error:
                name = getattr(error, "sqlite_errorname", None) or ""
                if not name.startswith("SQLITE_BUSY") or clock.monotonic() >= deadline:
                    raise
                if self._stop.wait(_POLL_S):
                    self._stop.check(f"{self._act}, which another program has locked")

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """SQLite's exceptions as dpone's, one of which is Cancelled when the run is to stop meanwhile."""
        with mapped(self._act, self._side), self._stop.interrupts(self._connection.interrupt):
            yield

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        """SQLite's errors as dpone's, and the reason when it was `dpone_refuse`."""
        self._refused = None
        try:
            with self._interruptible():
                yield
        except Exception:
            if self._refused is not None:
                raise self._refused from None
            raise

    def _refuse(self, column: str, storage: str) -> None:
        """Called by SQLite for a value whose storage class does not fit, once."""
        self._refused = DataError(
            f"{self._act}: column {column} holds a value of type {storage}, which its declared type does not allow for",
            remedy=CAST.replace("COLUMN", column).replace("text}", "binary}" if storage == "blob" else "text}"),
            where=column,
        )
        raise self._refused

    def _refuse_deadlock(self) -> None:
        """Without a write-ahead log a COMMIT waits for readers, and ours would wait for this write."""
        if _readers.get(self._file) and self.rows("PRAGMA journal_mode") != [("wal",)]:
            raise ConflictError(
                f"{self._act}: this run reads from the same file",
                remedy=f'let readers and writers work together: sqlite3 {self._file.name} "PRAGMA journal_mode=WAL"',
            )

    def _reading(self, *, now: bool) -> None:
        if now != self._is_reading:
            self._is_reading = now
            with _guard:
                _readers[self._file] = _readers.get(self._file, 0) + (1 if now else -1)

    def _leave(self) -> None:
        self._reading(now=False)
        if self._in_queue:
            self._in_queue = False
            _writers[self._file].release()


def _check_version() -> None:
    if sqlite3.sqlite_version_info < OLDEST:
        raise ConfigError(
            f"this Python has SQLite {sqlite3.sqlite_version}; dpone needs {'.'.join(map(str, OLDEST))} or newer",
            remedy="use a Python that is built with a newer SQLite",
            code="DP110",
        )


def _as_stored(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Lists are stored as the JSON text that their digest is made of, and are read back as it."""
    return tuple(
        replace(column, type=pa.string(), logical="json") if pa.types.is_nested(column.type) else column
        for column in columns
    )


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Slices of a batch whose Python objects take a bounded amount of memory."""
    rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * batch.num_rows // max(1, batch.nbytes)))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
