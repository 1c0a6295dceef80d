"""One connection to a DuckDB file.

Within a process all connections to one file share one database instance; writers are serialised by a lock here,
because two concurrent DuckDB transactions that touch the same table may fail instead of waiting. Between processes
DuckDB's own file lock lets one process write, or several read.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from dpone import stopping
from dpone.arrow.digest import digest
from dpone.arrow.types import arrow_schema
from dpone.connectors.duckdb import bounds
from dpone.connectors.duckdb.config import DuckDBConfig
from dpone.connectors.duckdb.dialect import DuckDBDialect, write
from dpone.connectors.duckdb.errors import mapped
from dpone.errors import ConfigError, SourceUnavailable
from dpone.sdk import Column, Digest, Table
from dpone.sql.dialect import Dialect

BATCH_ROWS = 65_536
_POLL_S = 0.1


class _File:
    """What the connections of this process to one file share."""

    def __init__(self) -> None:
        self.writer = threading.RLock()
        # One is opened or closed at a time: the last one to close takes the database instance away, and DuckDB
        # refuses to open a file of which an instance is on its way out.
        self.door = threading.Lock()


_files: dict[str, _File] = {}
_files_guard = threading.Lock()


class DuckDBSession:
    """A connection; `read_only` for a source."""

    def __init__(self, config: DuckDBConfig, *, read_only: bool) -> None:
        self.dialect: Dialect = DuckDBDialect()
        self._act = f"duckdb {config.path}"
        self._stop = stopping.current()
        key = str(Path(config.path).resolve())
        with _files_guard:
            self._file = _files.setdefault(key, _File())
        with self._file.door:
            self._connection = _connect(config, read_only=read_only)
        self._reader: pa.RecordBatchReader | None = None
        self._writing = False

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement; rows affected, or 0 when DuckDB does not say."""
        with self._interruptible():
            found = self._connection.execute(sql, list(params)).fetchall()
        return int(found[0][0]) if found and isinstance(found[0][0], int) else 0

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query with a small result."""
        with self._interruptible():
            return self._connection.execute(sql, list(params)).fetchall()

    def batches(self, sql: str, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        """Stream a query as Arrow."""
        schema = arrow_schema(tuple(columns))
        with self._interruptible():
            self._reader = self._connection.sql(sql).to_arrow_reader(BATCH_ROWS)
            for batch in self._reader:
                yield batch.cast(schema) if batch.schema != schema else batch

    def digest(self, relation: str, columns: Sequence[Column]) -> Digest:
        """Read the rows back and digest them."""
        expressions = ", ".join(
            f"{self.dialect.read(column)} AS {self.dialect.quote(column.name)}" for column in columns
        )
        return digest(tuple(columns), self.batches(f"SELECT {expressions} FROM {relation}", columns))

    def ingest(self, table: Table, columns: Sequence[Column], batches: Iterator[pa.RecordBatch], ordinal: int) -> int:
        """One INSERT that streams, in arrival order; several would keep their rows in memory until COMMIT."""
        values = ", ".join(write(column, self.dialect.quote(column.name)) for column in columns)
        names = self.dialect.names(columns)
        sql = (
            f"INSERT INTO {self.dialect.table(table)} ({names}, _dpone_slice) "
            f"SELECT {values}, {ordinal} FROM _dpone_arriving"
        )
        schema = arrow_schema(tuple(columns))
        # What another DuckDB file holds has room here, and its infinities are meant.
        checked = [(index, column) for index, column in enumerate(columns) if not column.kept]
        failures: list[BaseException] = []

        def arriving() -> Iterator[pa.RecordBatch]:
            try:
                for batch in batches:
                    for index, column in checked:
                        bounds.check(column, batch.column(index))
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
            except BaseException as error:  # DuckDB would only say that the stream failed
                failures.append(error)
                raise

        with mapped(self._act):
            self._connection.register("_dpone_arriving", pa.RecordBatchReader.from_batches(schema, arriving()))
            try:
                return self.execute(sql)
            except Exception:
                if failures:
                    raise failures[0] from None
                raise
            finally:
                with contextlib.suppress(duckdb.Error):  # refused in a failed transaction, whose rollback does it
                    self._connection.unregister("_dpone_arriving")

    def begin(self) -> None:
        """Start a transaction; the only one that writes to this file in this process."""
        while not self._file.writer.acquire(timeout=_POLL_S):
            self._stop.check(f"waiting to write to {self._act}")
        self._writing = True
        with mapped(self._act):
            self._connection.execute("BEGIN TRANSACTION")

    def snapshot(self) -> None:
        """Start a transaction that only reads."""
        with mapped(self._act):
            self._connection.execute("BEGIN TRANSACTION")

    def commit(self) -> None:
        """Commit."""
        with mapped(self._act):
            self._connection.execute("COMMIT")
        self._done()

    def rollback(self) -> None:
        """Roll back, if there is anything to."""
        with contextlib.suppress(duckdb.Error):
            self._connection.execute("ROLLBACK")
        self._done()

    def close(self) -> None:
        """Close the connection."""
        self._done()
        with self._file.door:
            if self._reader is not None:  # one that was not read to its end would keep the file open
                self._reader.close()
            self._connection.close()

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """DuckDB's exceptions as dpone's, one of which is Cancelled when the run is to stop meanwhile."""
        with mapped(self._act), self._stop.interrupts(self._connection.interrupt):
            yield

    def _done(self) -> None:
        if self._writing:
            self._writing = False
            self._file.writer.release()


def _connect(config: DuckDBConfig, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    path = Path(config.path)
    act = f"opening duckdb {config.path}"
    if read_only and not path.exists():
        raise SourceUnavailable(f"{act}: the file does not exist", remedy="check the path of the connection")
    check_folder(path, act)
    with mapped(act):
        try:
            connection = duckdb.connect(str(path), read_only=read_only)
        except duckdb.ConnectionException:
            # This process has the file open for writing already: a route from a file to itself.
            connection = duckdb.connect(str(path), read_only=False)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET memory_limit = '{config.memory_limit}'")
        connection.execute("SET preserve_insertion_order = true")
    return connection


def check_folder(path: Path, act: str) -> None:
    """Raise ConfigError when the folder of a file does not exist."""
    if not path.parent.is_dir():
        raise ConfigError(f"{act}: the folder {path.parent} does not exist", remedy="create the folder", code="DP140")
