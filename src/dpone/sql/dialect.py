"""What differs between SQL systems, as one small class per system; everything else is written once."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from dpone.errors import SchemaError
from dpone.sdk import Column, Digest, NativeType, Table

if TYPE_CHECKING:
    import pyarrow as pa


_GROUP = 100  # conditions in one chain


class Dialect(ABC):
    """The SQL of one system. Subclasses set the data and override the expressions that differ."""

    name: str = ""
    text: str = "TEXT"  # unbounded text, also used for dpone's own tables
    bigint: str = "BIGINT"
    identifier_bytes: int | None = None  # a longer name would be cut off, so it is refused
    most_columns: int | None = None  # that a table holds, where there is a limit
    arrival: str = "rowid"  # orders staged rows by arrival
    arrival_ddl: str = ""  # the column that gives `arrival`, if the system has none of its own
    same_values: str = "({a} IS NOT DISTINCT FROM {b})"
    placeholder: str = "?"
    enforces_keys: bool = True  # whether targets that dpone makes get a primary key
    one_at_a_time: str = ""  # a query that makes other transactions with it wait, where DDL needs that
    for_update: str = ""  # appended to a SELECT to lock the row it reads, where the system has row locks
    server_ms: str = ""  # the server's own clock in milliseconds; empty where a lock dies with its process

    @property
    def staging_columns(self) -> int:
        """How many columns a staging table has beside those of the stream: the slice, and the arrival if it is one."""
        return 2 if self.arrival_ddl else 1

    def quote(self, name: str) -> str:
        """A quoted identifier. Raises SchemaError for a name that the system would cut off or cannot hold."""
        if "\0" in name or not name:
            raise SchemaError(f"{name!r} cannot be a name in {self.name}", remedy="rename it", code="DP405")
        if self.identifier_bytes is not None and len(name.encode()) > self.identifier_bytes:
            raise SchemaError(
                f"the name {name!r} has {len(name.encode())} bytes; {self.name} keeps {self.identifier_bytes}",
                remedy="give a shorter name (target: for a table) or exclude the column (columns.exclude)",
                code="DP405",
            )
        return '"' + name.replace('"', '""') + '"'

    def table(self, table: Table) -> str:
        """A quoted, qualified table name."""
        return f"{self.quote(table.schema)}.{self.quote(table.name)}" if table.schema else self.quote(table.name)

    def names(self, columns: Sequence[Column], prefix: str = "") -> str:
        """A comma-separated list of quoted column names."""
        return ", ".join(prefix + self.quote(column.name) for column in columns)

    def literal(self, text: str) -> str:
        """A string literal."""
        return "'" + text.replace("'", "''") + "'"

    def create_table(self, table: Table, columns: Sequence[Column], primary_key: Sequence[str] = ()) -> str:
        """CREATE TABLE for a target that dpone makes. Only key columns refuse NULL, so that it can follow a source."""
        parts = []
        for column in columns:
            required = " NOT NULL" if column.name in primary_key else ""
            parts.append(f"{self.quote(column.name)} {column.native}{required}")
        if primary_key and self.enforces_keys:
            parts.append(f"PRIMARY KEY ({', '.join(map(self.quote, primary_key))})")
        return f"CREATE TABLE {self.table(table)} ({', '.join(parts)})"

    def add_column(self, table: Table, column: Column) -> str:
        """ALTER TABLE for a column that the source has and the target lacks."""
        return f"ALTER TABLE {self.table(table)} ADD COLUMN {self.quote(column.name)} {column.native}"

    def own_tables(self, schema: str) -> str:
        """A query for dpone's tables in a schema: the name of the table and the name of a column in each row."""
        return (
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_catalog = current_database() "
            f"AND table_schema = {self.literal(schema)} AND substr(table_name, 1, 7) = '_dpone_'"
        )

    def shown(self, expression: str) -> str:
        """A cursor value as text, which `value` reads back."""
        return f"CAST({expression} AS {self.text})"

    def value(self, text: str, native: str) -> str:
        """The expression of a cursor value of a native type, from the literal of its text."""
        return f"CAST({text} AS {native})"

    def hold(self, table: Table) -> str:  # noqa: ARG002 - for those that need it
        """A statement that keeps other writers off an existing target until the transaction ends, if one is needed."""
        return ""

    def ordered(self, expression: str, native: str) -> str:  # noqa: ARG002 - for those that need it
        """An expression that sorts as the source sorts, whatever collation a target column has."""
        return expression

    @abstractmethod
    def native(self, column: Column, schema: str = "") -> NativeType:
        """The type of this system for a column; `schema` is the target's, for types that live in one."""

    def accepts(self, existing: str, wanted: NativeType) -> bool:
        """Whether an existing column of type `existing` holds every value of the wanted type unaltered."""
        return existing.lower() == wanted.sql.lower()

    def read(self, column: Column) -> str:
        """The expression that yields a column's value in its canonical type; `column.native` is this system's."""
        return self.quote(column.name)

    def identical(self, expression: str, native: str) -> str:  # noqa: ARG002 - for those that need it
        """An expression with an equality that holds exactly when two values are the same value."""
        return expression

    def same(self, column: Column, left: str, right: str) -> str:
        """A predicate that is true exactly when two values of a column are the same value, or both NULL."""
        name = self.quote(column.name)
        return self.same_values.format(
            a=self.identical(f"{left}.{name}", column.native), b=self.identical(f"{right}.{name}", column.native)
        )

    def holds(self, expression: str, value: bool | None) -> str:  # noqa: FBT001 - a value of a column
        """A predicate that a column has this value."""
        return f"{expression} IS NULL" if value is None else expression if value else f"NOT {expression}"

    def instant(self, column: Column, prefix: str = "") -> str:  # noqa: ARG002 - for those that have times
        """A column as what this system stores a timestamptz in microseconds as; empty when it is no date or timestamp.

        A value without a zone is one in UTC.
        """
        return ""

    def moment(self, text: str) -> str:
        """A literal of a timestamptz in microseconds, from its ISO 8601 text in UTC."""
        return f"CAST({self.literal(text)} AS TIMESTAMP WITH TIME ZONE)"

    def next_moment(self, expression: str) -> str:
        """One microsecond after a timestamptz in microseconds."""
        return f"({expression} + INTERVAL '1 microsecond')"

    def unsettle(self, column: Column, into: str, matched: str) -> str:  # noqa: ARG002 - for those that need it
        """A statement without which UPDATE would keep the old value of a column, taking the new one for the same.

        `matched` is `FROM staged AS s WHERE ...`, which joins the rows of `into AS t`. Empty where none is needed.
        """
        return ""

    def stored(self, columns: Sequence[Column], schema: str) -> tuple[Column, ...]:
        """The columns as this system stores them: `native` is its own type."""
        return tuple(replace(column, native=self.native(column, schema).sql) for column in columns)


def every(conditions: Sequence[str]) -> str:
    """All of these conditions, or what is always true when there are none.

    Many are put in groups: systems read `a AND b AND c` as a tree that is as deep as the chain is long, and bound its
    depth (SQLite and DuckDB at 1000, https://www.sqlite.org/limits.html#max_expr_depth).
    """
    parts = list(conditions)
    while len(parts) > _GROUP:
        groups = (parts[start : start + _GROUP] for start in range(0, len(parts), _GROUP))
        parts = [f"({' AND '.join(group)})" for group in groups]
    return " AND ".join(parts) or "1 = 1"


_QUIET = (
    re.compile(  # what stands in quotes or comments, https://www.postgresql.org/docs/current/sql-syntax-lexical.html
        r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|--[^\n]*|/\*.*?\*/""", re.DOTALL
    )
)
_CONTROL = re.compile(
    r"begin|start\s+transaction|commit|end|rollback|abort|savepoint|release|prepare\s+transaction|set\s+transaction",
    re.IGNORECASE,
)


def breaks_transaction(sql: str) -> str:
    """Why a statement of the user must not run inside a transaction of dpone's, or nothing.

    It is looked at, not parsed: this keeps mistakes out, and trusts who writes SQL for their own database.
    """
    bare = _QUIET.sub(" ", sql).strip().rstrip(";").rstrip()
    if ";" in bare and not re.match(r"create\s+(temp\w*\s+)?trigger\b", bare, re.IGNORECASE):
        return "there are several statements in it"
    found = re.match(rf"(?:{_CONTROL.pattern})\b", bare, re.IGNORECASE)
    return f"{' '.join(found[0].upper().split())} would end or change the transaction it runs in" if found else ""


class Session(Protocol):
    """One connection to a SQL system. Not shared between threads. Outside begin/commit each statement stands alone.

    Every method maps the driver's exceptions to `dpone.errors`.
    """

    dialect: Dialect

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement; the number of rows affected."""

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query with a small result."""

    def batches(self, sql: str, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        """Run a query that selects `columns` as `Dialect.read` renders them; Arrow batches of a bounded size."""

    def digest(self, relation: str, columns: Sequence[Column]) -> Digest:
        """The digest of the rows of a FROM item that has these columns, with `column.native` set to this system's."""

    def ingest(self, table: Table, columns: Sequence[Column], batches: Iterator[pa.RecordBatch], ordinal: int) -> int:
        """Bulk-load batches into a staging table, `_dpone_slice` set to `ordinal`; how many rows the system took."""

    def begin(self) -> None:
        """Start a transaction that may write."""

    def commit(self) -> None:
        """Commit it."""

    def rollback(self) -> None:
        """Roll it back. Safe when there is none, or the connection is gone."""

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
