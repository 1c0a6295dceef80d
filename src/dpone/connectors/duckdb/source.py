"""Reading from DuckDB: one transaction is one snapshot; slices are row id ranges."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from dpone.connectors.duckdb.config import DuckDBConfig
from dpone.connectors.duckdb.dialect import canonical, checked
from dpone.connectors.duckdb.session import DuckDBSession
from dpone.errors import SchemaError
from dpone.sdk import Stream, StreamSchema, Table, Window
from dpone.sql.source import CursorSql, Cut, SqlReading, choose_columns, even_bounds, join_name, split_name

_ORDERED = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT|U?INTEGER|DECIMAL\(.*\)|DATE|TIME(STAMP.*)?|VARCHAR|UUID")
_LIST = """
    SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() AND NOT internal
    UNION ALL
    SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = current_database() AND NOT internal
"""


class DuckDBSource:
    """One DuckDB file."""

    def __init__(self, config: DuckDBConfig) -> None:
        self._session = DuckDBSession(config, read_only=True)

    def describe(self, stream: Stream) -> StreamSchema:
        """Columns, key and size of a table or view."""
        table = self._find(stream.name)
        where = (table.schema, table.name)
        found = self._session.rows(
            "SELECT column_name, data_type, is_nullable FROM duckdb_columns() "
            "WHERE database_name = current_database() AND schema_name = ? AND table_name = ? ORDER BY column_index",
            where,
        )
        columns = tuple(
            canonical(name, native, nullable=nullable, keep=stream.keeps(name)) for name, native, nullable in found
        )
        keys = self._session.rows(
            "SELECT constraint_column_names FROM duckdb_constraints() WHERE database_name = current_database() "
            "AND schema_name = ? AND table_name = ? AND constraint_type = 'PRIMARY KEY'",
            where,
        )
        size = self._session.rows(
            "SELECT estimated_size FROM duckdb_tables() WHERE database_name = current_database() "
            "AND schema_name = ? AND table_name = ?",
            where,
        )
        if stream.filter:  # a mistake in it shows in the plan
            self._session.rows(f"EXPLAIN SELECT 1 FROM {self._session.dialect.table(table)} WHERE ({stream.filter})")
        [(version,)] = self._session.rows("SELECT version()")
        return StreamSchema(
            tuple(checked(column, column.name in stream.casts) for column in choose_columns(stream, columns)),
            primary_key=tuple(keys[0][0]) if keys else (),
            estimated_rows=int(size[0][0]) if size else None,
            server_version=str(version),
        )

    def open(self, stream: Stream, schema: StreamSchema, window: Window) -> SqlReading:
        """A transaction of its own is the snapshot."""
        table = self._find(stream.name)
        relation = self._session.dialect.table(table)
        native = self._cursor_type(table, stream)
        self._session.snapshot()
        return SqlReading(
            self._session,
            stream,
            schema,
            window,
            relation=relation,
            cursor=CursorSql(
                lambda value: f"CAST({value} AS VARCHAR)", lambda text: f"CAST({text} AS {native})", _back(native)
            ),
            cut=self._cut(table, relation, stream),
            on_close=self._session.rollback,
        )

    def discover(self) -> list[str]:
        """All tables and views as schema.table, without dpone's own."""
        found = self._session.rows(_LIST)
        return sorted(join_name(Table(schema, table)) for schema, table in found if not table.startswith("_dpone_"))

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _find(self, name: str) -> Table:
        schema, table = split_name(name, "main")
        known = self._session.rows(_LIST)
        if (schema, table) in known:
            return Table(schema, table)
        close = get_close_matches(f"{schema}.{table}", [f"{s}.{t}" for s, t in known], n=1)
        hint = f"did you mean {close[0]}?" if close else "list what is there with `dpone init`"
        raise SchemaError(f"{schema}.{table} does not exist at the source", remedy=hint, code="DP401")

    def _cursor_type(self, table: Table, stream: Stream) -> str:
        if not stream.cursor:
            return ""
        found: list[tuple[Any, ...]] = self._session.rows(
            "SELECT data_type FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = ? "
            "AND table_name = ? AND column_name = ?",
            (table.schema, table.name, stream.cursor),
        )
        native = str(found[0][0]) if found else ""
        if not _ORDERED.fullmatch(native):
            raise SchemaError(
                f"{stream.cursor} ({native or 'missing'}) cannot be a cursor of {stream.name}",
                remedy="use an integer, decimal, date, timestamp or text column",
                code="DP404",
            )
        return native

    def _cut(self, table: Table, relation: str, stream: Stream) -> Cut:
        is_table = self._session.rows(
            "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() "
            "AND schema_name = ? AND table_name = ?",
            (table.schema, table.name),
        )
        if not is_table:
            return Cut()
        [(rows, first, last)] = self._session.rows(f"SELECT count(*), min(rowid), max(rowid) FROM {relation}")
        return Cut("rowid", tuple(map(str, even_bounds(rows, first, last, stream.slice_rows))))


def _back(native: str) -> Callable[[str, timedelta | int], str]:
    """See `CursorSql.back`: times go back by an interval, numbers by a number."""

    def back(value: str, lookback: timedelta | int) -> str:
        timed = native.startswith(("DATE", "TIMESTAMP"))
        if timed != isinstance(lookback, timedelta) or native in ("VARCHAR", "UUID", "TIME"):
            return ""
        if isinstance(lookback, int):
            return f"{value} - {lookback:d}"
        return f"CAST({value} - to_microseconds({lookback // timedelta(microseconds=1)}) AS {native})"

    return back
