"""Reading from SQLite: one transaction is one snapshot; slices are ranges of row numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from difflib import get_close_matches
from typing import Literal

import pyarrow as pa
import pyarrow.types as pat

from dpone.arrow.fidelity import manifest_line
from dpone.connectors.sqlite import catalog
from dpone.connectors.sqlite.catalog import SCHEMA, Declared, Relation
from dpone.connectors.sqlite.config import SqliteConfig
from dpone.connectors.sqlite.dialect import Canonical, affinity, by_storage, can_be_kept, canonical
from dpone.connectors.sqlite.session import SqliteSession
from dpone.errors import DataError, SchemaError
from dpone.sdk import Column, Stream, StreamSchema, Table, Window
from dpone.sql.source import CursorSql, Cut, SqlReading, choose_columns, split_name

_SMALLEST_ROW = 8  # bytes; more rows than the file has room for means that the row numbers have gaps


class SqliteSource:
    """One SQLite file."""

    def __init__(self, config: SqliteConfig) -> None:
        self._session = SqliteSession(config.path, "source")

    def describe(self, stream: Stream) -> StreamSchema:
        """Columns, key and size of a table or view. A column is read in the type that was declared.

        Where the declaration does not say one (none, ANY, NUMERIC without digits, the expressions of a view), the
        values do when they all have one storage class; otherwise the column is refused.
        """
        relation = self._find(stream.name)
        columns = choose_columns(stream, tuple(self._column(stream, relation, column) for column in relation.columns))
        if stream.cursor:
            self._cursor_class(stream, relation, columns)
        if stream.filter:  # a mistake in it shows in the plan
            self._session.rows(f"EXPLAIN SELECT 1 FROM {self._quoted(relation)} WHERE ({stream.filter})")
        [(version,)] = self._session.rows("SELECT sqlite_version()")
        return StreamSchema(
            columns,
            primary_key=relation.primary_key,
            estimated_rows=self._estimate(relation),
            server_version=str(version),
        )

    def open(self, stream: Stream, schema: StreamSchema, window: Window) -> SqlReading:
        """A transaction of its own is the snapshot; for a cursor it begins when nobody is in the middle of writing."""
        if stream.cursor and stream.lookback is None:
            self._session.begin_settled()
        else:
            self._session.begin()
        try:
            relation = self._find(stream.name)
            name = self._session.dialect.table(Table(SCHEMA, relation.name))
            storage = self._cursor_class(stream, relation, schema.columns) if stream.cursor else "text"
            if stream.cursor:
                self._check_cursor(stream, name, schema, storage)
            return SqlReading(
                self._session,
                stream,
                schema,
                window,
                relation=name,
                cursor=_CURSORS[storage],
                # A later window is small beside its table: one slice, which an index on the cursor can serve.
                cut=Cut(relation.rowid, () if window.after is not None else self._bounds(stream, relation)),
                on_close=self._session.rollback,
            )
        except BaseException:
            self._session.rollback()
            raise

    def discover(self) -> list[str]:
        """All tables and views, without dpone's own."""
        return [_written(name) for name in catalog.names(self._session)]

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    # -- tables and columns ------------------------------------------------------------------------------------

    def _find(self, name: str) -> Relation:
        schema, table = split_name(name, SCHEMA)
        catalog.need_schema(schema)
        found = catalog.find(self._session, table)
        if found is not None:
            return found
        close = get_close_matches(table, catalog.names(self._session), n=1)
        hint = f"did you mean {close[0]}?" if close else "list what is there with `dpone init`"
        raise SchemaError(f"{table} does not exist at the source", remedy=hint, code="DP401")

    def _column(self, stream: Stream, relation: Relation, declared: Declared) -> Column:
        nullable = relation.nullable(declared)
        column = Column(declared.name, pa.string(), nullable=nullable, native=declared.native)
        left_out = declared.name in stream.exclude or (stream.include and declared.name not in stream.include)
        if left_out or declared.name in stream.casts:
            return column
        found = canonical(declared.native)
        if found is None:
            return self._undeclared(relation, column)
        kept = stream.keeps(declared.name) and can_be_kept(declared.native)
        if kept and pat.is_temporal(found.type):
            # Programs write dates in several forms; the text itself goes from one SQLite file to the other.
            found = Canonical(pa.string(), note="kept as the text that is stored")
        return replace(column, type=found.type, logical=found.logical, kept=kept, note=found.note)

    def _undeclared(self, relation: Relation, column: Column) -> Column:
        name = self._session.dialect.quote(column.name)
        table = self._session.dialect.table(Table(SCHEMA, relation.name))
        rows = self._session.rows(f"SELECT DISTINCT typeof({name}) FROM {table} WHERE {name} IS NOT NULL LIMIT 2")
        if len(rows) == 1:
            found = by_storage(rows[0][0])
            return replace(column, type=found.type, note=f"declared as {column.native or 'nothing'}; all values agree")
        why = "its values have several types" if rows else "it has no values that would"
        note = (
            f"the declared type {column.native or '(none)'} does not say how to read it, and {why}; say it with "
            f"{manifest_line(cast={column.name: 'text'})} (or int64, float64, decimal(p,s), binary)"
        )
        return replace(column, fidelity="refused", note=note)

    # -- slices ------------------------------------------------------------------------------------------------

    def _estimate(self, relation: Relation) -> int | None:
        """The range of the row numbers, which is the number of rows when none was ever deleted; else a count."""
        if not relation.rowid:
            return None
        first, last = self._ends(relation)
        if first is None or last is None:
            return 0
        if self._dense(first, last):
            return last - first + 1
        return int(self._session.rows(f"SELECT count(*) FROM {self._quoted(relation)}")[0][0])

    def _bounds(self, stream: Stream, relation: Relation) -> tuple[str, ...]:
        if not relation.rowid:
            return ()
        first, last = self._ends(relation)
        if first is None or last is None or last - first < stream.slice_rows:
            return ()
        if self._dense(first, last):
            return tuple(str(bound) for bound in range(first + stream.slice_rows, last + 1, stream.slice_rows))
        return tuple(map(str, self._steps(relation, first, stream.slice_rows)))

    def _steps(self, relation: Relation, first: int, rows: int) -> Iterator[int]:
        """Every so many rows, the row number: for row numbers with large gaps, one pass over the table's tree."""
        sql = (
            f"SELECT {relation.rowid} FROM {self._quoted(relation)} WHERE {relation.rowid} >= ? "
            f"ORDER BY {relation.rowid} LIMIT 1 OFFSET {rows:d}"
        )
        for _ in itertools.repeat(None):
            found = self._session.rows(sql, (first,))
            if not found:
                return
            first = int(found[0][0])
            yield first

    def _ends(self, relation: Relation) -> tuple[int | None, int | None]:
        table, rowid = self._quoted(relation), relation.rowid
        # Two queries: SQLite goes straight to one end of a tree, but scans for both.
        [(first, last)] = self._session.rows(
            f"SELECT (SELECT min({rowid}) FROM {table}), (SELECT max({rowid}) FROM {table})"
        )
        return first, last

    def _dense(self, first: int, last: int) -> bool:
        [(pages,)], [(size,)] = self._session.rows("PRAGMA page_count"), self._session.rows("PRAGMA page_size")
        return last - first < int(pages) * int(size) // _SMALLEST_ROW

    def _quoted(self, relation: Relation) -> str:
        return self._session.dialect.table(Table(SCHEMA, relation.name))

    # -- the cursor --------------------------------------------------------------------------------------------

    def _cursor_class(
        self, stream: Stream, relation: Relation, columns: tuple[Column, ...]
    ) -> Literal["integer", "text"]:
        """The storage class that a cursor compares in. Raises SchemaError for a column without a safe order."""
        declared = next(column for column in relation.columns if column.name == stream.cursor)
        column = next(column for column in columns if column.name == stream.cursor)
        kind, found = affinity(declared.native), canonical(declared.native) or Canonical(column.type)
        instant = pat.is_date(found.type) or pat.is_timestamp(found.type)
        if kind == "INTEGER" and (pat.is_integer(column.type) or column.type == pa.string()):
            return "integer"
        plain = kind == "TEXT" and pat.is_string(found.type)
        read_in_order = pat.is_string(column.type) or pat.is_date(column.type) or pat.is_timestamp(column.type)
        if (plain or instant) and read_in_order:
            self._need_binary(stream, relation)
            return "text"
        raise SchemaError(
            f"{stream.cursor} ({declared.native or 'untyped'}) cannot be a cursor of {stream.name}: "
            "what SQLite stores for it does not sort exactly",
            remedy="use an integer, text, date or timestamp column",
            code="DP404",
        )

    def _need_binary(self, stream: Stream, relation: Relation) -> None:
        """Refuse a column that is declared with a collation: its order is not that of the text."""
        name, table = self._session.dialect.quote(stream.cursor), self._quoted(relation)
        # The columns of a compound SELECT have the collations of its first part.
        # https://www.sqlite.org/datatype3.html#collation
        [(folded,)] = self._session.rows(
            f"SELECT x = 'A' OR x = 'a ' FROM (SELECT {name} AS x FROM {table} WHERE 0 UNION ALL SELECT 'a') AS probe"
        )
        if folded:
            raise SchemaError(
                f"{stream.cursor} cannot be a cursor of {stream.name}: its collation takes different texts for equal",
                remedy="use a column with the collation BINARY, which is SQLite's default",
                code="DP404",
            )

    def _check_cursor(self, stream: Stream, table: str, schema: StreamSchema, storage: str) -> None:
        """Refuse values that sort apart from all others, whatever they mean: a window would miss them."""
        name = self._session.dialect.quote(stream.cursor)
        rows = f"(SELECT {name} AS x FROM {table}{f' WHERE ({stream.filter})' if stream.filter else ''}) AS r"
        [ends] = self._session.rows(f"SELECT (SELECT typeof(min(x)) FROM {rows}), (SELECT typeof(max(x)) FROM {rows})")
        if set(ends) - {storage, "null"}:
            raise DataError(
                f"the cursor {stream.cursor} of {stream.name} has values that are not of type {storage}; "
                "they sort apart from the others",
                remedy="repair or filter out the rows: typeof(column) tells them apart",
                where=stream.cursor,
            )
        column = schema.column(stream.cursor)
        found = canonical(column.native) if column else None
        types = [known.type for known in (column, found) if known is not None]
        if not any(pat.is_timestamp(type_) for type_ in types):
            return
        # The order of the text is that of time when all have one separator, and one zone and length if they have one.
        zoned = any(pat.is_timestamp(type_) and type_.tz for type_ in types)
        zone = "CASE WHEN x LIKE '%Z' THEN 'Z' ELSE substr(x, -6) END || length(x)"
        shape = f"substr(x, 11, 1) || {zone}" if zoned else "nullif(substr(x, 11, 1), '')"
        [(shapes,)] = self._session.rows(f"SELECT count(DISTINCT {shape}) FROM {rows}")
        if shapes > 1:
            raise DataError(
                f"the cursor {stream.cursor} of {stream.name} holds timestamps in several forms; "
                "their order as text is not their order in time",
                remedy="write them in one form, YYYY-MM-DD HH:MM:SS.ffffff, or use another cursor",
                where=stream.cursor,
            )


def _number_back(value: str, lookback: timedelta | int) -> str:
    return f"{value} - {lookback:d}" if isinstance(lookback, int) else ""


def _time_back(value: str, lookback: timedelta | int) -> str:
    """A date or timestamp in the form it has, down to the second: what is left off makes it earlier.

    Dates and times are text here: https://www.sqlite.org/lang_datefunc.html
    """
    if isinstance(lookback, int):
        return ""
    step = f"'-{lookback // timedelta(seconds=1)} seconds'"
    moved = f"replace(datetime(substr({value}, 1, 19), {step}), ' ', substr({value}, 11, 1))"
    return f"CASE WHEN length({value}) = 10 THEN date({value}, {step}) ELSE {moved} END"


_CURSORS = {
    "integer": CursorSql(lambda value: f"CAST({value} AS TEXT)", lambda text: f"CAST({text} AS INTEGER)", _number_back),
    "text": CursorSql(lambda value: value, lambda text: text, _time_back),
}


def _written(name: str) -> str:
    """A name as the manifest writes it."""
    return '"' + name.replace('"', '""') + '"' if "." in name or '"' in name else name
