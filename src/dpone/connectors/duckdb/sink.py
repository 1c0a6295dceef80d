"""Writing to DuckDB."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dpone.connectors.duckdb.config import DuckDBConfig
from dpone.connectors.duckdb.dialect import DuckDBDialect
from dpone.connectors.duckdb.session import DuckDBSession, check_folder
from dpone.errors import SchemaError
from dpone.sdk import Column, Digest, Receipt, Standing, StreamKey, StreamState, Table, TargetSchema
from dpone.sdk.oslock import OsLock
from dpone.sql.dialect import Dialect
from dpone.sql.sink import SqlClaim, TargetParts, digest_target, inspect, standing
from dpone.sql.state import State

if TYPE_CHECKING:
    import pyarrow as pa


class DuckDBSink:
    """One DuckDB file. The stream's lock is an OS lock beside it, which dies with its process."""

    def __init__(self, config: DuckDBConfig) -> None:
        self._config = config
        self._path = Path(config.path)
        self._open: DuckDBSession | None = DuckDBSession(config, read_only=False) if self._path.exists() else None
        self._locks: list[OsLock] = []
        self.dialect: Dialect = DuckDBDialect()

    @property
    def _session(self) -> DuckDBSession:
        """The connection. A file that does not exist yet is made here, for a claim: a plan makes none."""
        if self._open is None:
            self._open = DuckDBSession(self._config, read_only=False)
        return self._open

    def describe(self, target: Table) -> TargetSchema | None:
        """The existing table, or None."""
        self._need_schema(target.schema)
        if self._open is None:
            return None
        rows = self._session.rows(
            "SELECT column_name, data_type, is_nullable, column_default FROM duckdb_columns() "
            "WHERE database_name = current_database() AND schema_name = ? AND table_name = ? ORDER BY column_index",
            (target.schema, target.name),
        )
        if not rows:
            return None
        if not self._session.rows(
            "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = ? "
            "AND table_name = ?",
            (target.schema, target.name),
        ):
            raise SchemaError(
                f"{target} in {self._config.path} is not a table", remedy="give another name with target:", code="DP403"
            )
        return TargetSchema(
            {name: native for name, native, _, _ in rows},
            frozenset(name for name, _, nullable, default in rows if not nullable and default is None),
        )

    def last_receipt(self, key: StreamKey) -> Receipt | None:
        """The last receipt, read without the lock."""
        if self._open is None:
            return None
        state = State(self._session, key.target.schema)
        return state.receipt(key) if state.check() else None

    def standing(self, key: StreamKey, receipt: Receipt | None) -> Standing:
        """See `Stands.standing`."""
        found = self.describe(key.target)
        state = State(self._session, key.target.schema)
        return standing(self._session, state, key, found, receipt) if found and state.check() else Standing()

    def inspect(self, key: StreamKey) -> StreamState:
        """See `Inspects.inspect`."""
        if self._open is None:
            return StreamState()
        state = State(self._session, key.target.schema)
        return inspect(state, key, self._lock(key).held_by()) if state.check() else StreamState()

    def claim(self, key: StreamKey, *, run_id: str, holder: str) -> SqlClaim:
        """Take the stream's lock."""
        lock = self._lock(key, holder, run_id)
        lock.acquire()
        self._locks.append(lock)
        if self._config.create_schema:
            self._session.execute(f"CREATE SCHEMA IF NOT EXISTS {self.dialect.quote(key.target.schema)}")
        return SqlClaim(self._session, key, run_id, holder, lock.release)

    def digest(
        self,
        target: Table,
        columns: tuple[Column, ...],
        *,
        without: tuple[tuple[Column, ...], Iterator[pa.RecordBatch]] | None = None,
        live: Mapping[str, bool | None] | None = None,
    ) -> Digest:
        """The digest of a target, for `dpone verify`."""
        return digest_target(self._session, target, columns, without, live)

    def compared(self, target: Table, live: Mapping[str, bool | None]) -> TargetParts:
        """See `dpone.sdk.ComparesTarget`."""
        return TargetParts(self._session, target, live)

    def close(self) -> None:
        """Give locks back and close the connection."""
        if self._open is not None:
            self._open.close()
        for lock in self._locks:
            lock.release()

    def _lock(self, key: StreamKey, holder: str = "", run_id: str = "") -> OsLock:
        name = hashlib.sha256(str(key).encode()).hexdigest()[:12]
        return OsLock(self._path.with_name(f"{self._path.name}.dpone-{name}.lock"), holder, run_id)

    def _need_schema(self, schema: str) -> None:
        if self._open is None:
            check_folder(self._path, f"opening duckdb {self._config.path}")
            found = schema == "main"
        else:
            sql = "SELECT 1 FROM duckdb_schemas() WHERE database_name = current_database() AND schema_name = ?"
            found = bool(self._open.rows(sql, (schema,)))
        if not found and not self._config.create_schema:
            raise SchemaError(
                f"schema {schema} does not exist in {self._config.path}",
                remedy=f"CREATE SCHEMA {schema}, or set create_schema: true on the sink",
                code="DP402",
            )
