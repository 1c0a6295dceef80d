"""Writing to SQLite."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from dpone.arrow.fidelity import manifest_line
from dpone.connectors.sqlite import catalog
from dpone.connectors.sqlite.config import SqliteConfig
from dpone.connectors.sqlite.dialect import SqliteDialect
from dpone.connectors.sqlite.session import SqliteSession
from dpone.errors import ConfigError, SchemaError
from dpone.sdk import Column, Digest, LoadSpec, Receipt, Standing, StreamKey, StreamState, Table, TargetSchema
from dpone.sdk.oslock import OsLock
from dpone.sql.dialect import Dialect
from dpone.sql.sink import SqlClaim, SqlLoad, TargetParts, digest_target, inspect, standing
from dpone.sql.state import State

if TYPE_CHECKING:
    from collections.abc import Callable


class SqliteSink:
    """One SQLite file, created when a stream is claimed. A stream's lock is an OS lock beside it."""

    def __init__(self, config: SqliteConfig) -> None:
        self._path = Path(config.path)
        self._session: SqliteSession | None = None
        self._locks: list[OsLock] = []
        self._dialect = SqliteDialect()
        if not self._path.parent.is_dir():
            raise ConfigError(
                f"writing sqlite {self._path}: the folder {self._path.parent} does not exist",
                remedy="create the folder, or check the path",
                code="DP140",
            )

    @property
    def dialect(self) -> Dialect:
        """SQLite's."""
        return self._dialect

    def describe(self, target: Table) -> TargetSchema | None:
        """The existing table, or None. Raises SchemaError for a view, which cannot be written to."""
        catalog.need_schema(target.schema)
        if not self._path.exists():
            return None
        found = catalog.find(self._open(), target.name)
        if found is None:
            return None
        if found.is_view:
            raise SchemaError(
                f"{target.name} in {self._path} is not a table", remedy="give another name with target:", code="DP403"
            )
        return TargetSchema(
            {column.name: column.native for column in found.columns},
            frozenset(
                column.name
                for column in found.columns
                if not found.nullable(column) and column.default is None and column.name != found.alias
            ),
        )

    def last_receipt(self, key: StreamKey) -> Receipt | None:
        """The last receipt, read without the lock."""
        if not self._path.exists():
            return None
        state = State(self._open(), key.target.schema)
        return state.receipt(key) if state.check() else None

    def standing(self, key: StreamKey, receipt: Receipt | None) -> Standing:
        """See `Stands.standing`."""
        found = self.describe(key.target)
        if found is None:
            return Standing()
        state = State(self._open(), key.target.schema)
        return standing(self._open(), state, key, found, receipt) if state.check() else Standing()

    def inspect(self, key: StreamKey) -> StreamState:
        """See `Inspects.inspect`."""
        if not self._path.exists():
            return StreamState()
        state = State(self._open(), key.target.schema)
        return inspect(state, key, self._lock(key).held_by()) if state.check() else StreamState()

    def claim(self, key: StreamKey, *, run_id: str, holder: str) -> SqlClaim:
        """Take the stream's lock, and create the file when it is missing."""
        catalog.need_schema(key.target.schema)
        lock = self._lock(key, holder, run_id)
        lock.acquire()
        self._locks.append(lock)
        try:
            return SqliteClaim(self._open(), key, run_id, holder, lock.release)
        except BaseException:
            lock.release()
            raise

    def digest(
        self,
        target: Table,
        columns: tuple[Column, ...],
        *,
        without: tuple[tuple[Column, ...], Iterator[pa.RecordBatch]] | None = None,
        live: Mapping[str, bool | None] | None = None,
    ) -> Digest:
        """The digest of a target, for `dpone verify`."""
        return digest_target(self._open(), target, columns, without, live)

    def compared(self, target: Table, live: Mapping[str, bool | None]) -> TargetParts:
        """See `dpone.sdk.ComparesTarget`."""
        return TargetParts(self._open(), target, live)

    def close(self) -> None:
        """Give locks back and close the connection."""
        if self._session is not None:
            self._session.close()
            self._session = None
        for lock in self._locks:
            lock.release()

    def _lock(self, key: StreamKey, holder: str = "", run_id: str = "") -> OsLock:
        name = hashlib.sha256(str(key).encode()).hexdigest()[:12]
        file = self._path.resolve()
        return OsLock(file.with_name(f"{file.name}.dpone-{name}.lock"), holder, run_id)

    def _open(self) -> SqliteSession:
        if self._session is None:
            self._session = SqliteSession(str(self._path), "sink")
        return self._session


class SqliteClaim(SqlClaim):
    """A claim that refuses what SQLite would sort or alter silently."""

    def __init__(
        self, session: SqliteSession, key: StreamKey, run_id: str, holder: str, unlock: Callable[[], None]
    ) -> None:
        super().__init__(session, key, run_id, holder, unlock)
        self._sqlite = session

    def begin(self, spec: LoadSpec) -> SqlLoad:
        """Attach to the pending load or open a new one.

        Raises SchemaError for a decimal cursor: decimals are stored as text, whose order is not that of numbers.
        """
        cursor = next((column for column in spec.columns if column.name == spec.cursor), None)
        if cursor is not None and pa.types.is_decimal(cursor.type):
            raise SchemaError(
                f"the cursor {cursor.name} is a decimal, which SQLite stores as text and cannot order",
                remedy=f"cast it: {manifest_line(cast={cursor.name: 'int64'})}, or use another cursor",
                code="DP404",
            )
        target = catalog.find(self._sqlite, spec.key.target.name)
        self._sqlite.required = frozenset({*spec.primary_key, *((target.alias,) if target and target.alias else ())})
        return super().begin(spec)
