"""Reading from any SQL system: one snapshot, one window, slices of it.

A slice is a predicate. How a system cuts a table (row ids, pages) is its own `Cut`; windows, ties and NULL cursors
are the same for all of them and are written here once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dpone.arrow.digest import undigestible
from dpone.arrow.fidelity import of_cast
from dpone.arrow.types import parse_type
from dpone.errors import DataError, SchemaError
from dpone.sdk import Column, Digest, Slice, Stream, StreamSchema, Table, Window

if TYPE_CHECKING:
    import pyarrow as pa

    from dpone.sql.dialect import Session

BEHIND = "the source's greatest cursor value is below the checkpoint"

_PART = r'("(?:[^"]|"")+"|[^".]+)'
_NAME = re.compile(rf"(?:{_PART}\.)?{_PART}")


@dataclass(frozen=True, slots=True)
class Cut:
    """How a system cuts one table. `bounds` are the inner borders, in order, as SQL literals of `expression`."""

    expression: str = ""
    bounds: tuple[str, ...] = ()

    def slices(self) -> tuple[Slice, ...]:
        """One slice per interval between the borders; the first and the last are open to the outside."""
        borders = ["", *self.bounds, ""]
        return tuple(
            Slice(index, lower, upper, f"{self.expression or 'rows'} [{lower or '-'}, {upper or '-'})")
            for index, (lower, upper) in enumerate(pairwise(borders))
        )

    def predicate(self, piece: Slice) -> list[str]:
        """The conditions of a slice."""
        lower = [f"{self.expression} >= {piece.lower}"] if piece.lower else []
        return lower + ([f"{self.expression} < {piece.upper}"] if piece.upper else [])


@dataclass(frozen=True, slots=True)
class CursorSql:
    """How a system writes cursor values as text and back. `{}` is the column or the literal."""

    to_text: Callable[[str], str]
    from_text: Callable[[str], str]


class SqlReading:
    """A snapshot of one window of a table. The session must already be inside its consistent transaction."""

    def __init__(
        self,
        session: Session,
        stream: Stream,
        schema: StreamSchema,
        window: Window,
        *,
        relation: str,
        cursor: CursorSql,
        cut: Cut,
        snapshot: str = "",
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._dialect = session.dialect
        self._stream = stream
        self._schema = schema
        self._relation = relation
        self._cursor = cursor
        self._cut = cut
        self._on_close = on_close
        self._column = self._dialect.quote(stream.cursor) if stream.cursor else ""
        self.snapshot = snapshot
        self.window = self._fix(window)
        self.slices = cut.slices()

    def query(self, piece: Slice) -> str:
        """The SELECT of one slice."""
        expressions = []
        for column in self._schema.columns:
            name, expression = self._dialect.quote(column.name), self._dialect.read(column)
            expressions.append(expression if expression == name else f"{expression} AS {name}")
        return f"SELECT {', '.join(expressions)} FROM {self._relation}{self._where(self._conditions(piece))}"

    def read(self, piece: Slice) -> Iterator[pa.RecordBatch]:
        """The rows of one slice."""
        return self._session.batches(self.query(piece), self._schema.columns)

    def digest(self, piece: Slice) -> Digest:
        """The digest of one slice under this snapshot."""
        return self._digest(self._conditions(piece))

    def close(self) -> None:
        """End the snapshot."""
        self._on_close()

    def _conditions(self, piece: Slice) -> list[str]:
        return self._filter() + self._bounds(self.window) + self._cut.predicate(piece)

    def _filter(self) -> list[str]:
        return [f"({self._stream.filter})"] if self._stream.filter else []

    def _bounds(self, window: Window) -> list[str]:
        if window.full:
            return []
        parts = []
        if window.after is not None:
            parts.append(f"{self._column} {'>=' if window.inclusive else '>'} {self._value(window.after)}")
        if window.until is not None:
            parts.append(f"{self._column} <= {self._value(window.until)}")
        else:
            parts.append("1 = 0")  # no row has a cursor value
        condition = " AND ".join(parts)
        return [f"({condition} OR {self._column} IS NULL)" if window.null_rows else f"({condition})"]

    def _value(self, text: str) -> str:
        return self._cursor.from_text(self._dialect.literal(text))

    def _where(self, conditions: list[str]) -> str:
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""

    def _digest(self, conditions: list[str]) -> Digest:
        columns = tuple(column for column in self._schema.columns if not undigestible(column))
        relation = f"(SELECT {self._dialect.names(columns)} FROM {self._relation}{self._where(conditions)}) AS r"
        return self._session.digest(relation, columns)

    def _fix(self, window: Window) -> Window:
        if not self._stream.cursor:
            return replace(window, full=True)
        if window.until is not None:
            return window  # pinned by the open load
        null_rows = self._null_rows()
        if null_rows and self._stream.null_cursor == "refuse":
            raise DataError(
                f"{null_rows} rows of {self._stream.name} have no value in the cursor {self._stream.cursor}",
                remedy="set cursor: {column: ..., nulls: load} to load them in every run, or filter them out",
                code="DP411",
            )
        [(until,)] = self._session.rows(
            f"SELECT {self._cursor.to_text(f'max({self._column})')} FROM {self._relation}{self._where(self._filter())}"
        )
        return self._ties(
            replace(window, full=False, null_rows=null_rows, until_rule="max"), None if until is None else str(until)
        )

    def _null_rows(self) -> int:
        column = self._schema.column(self._stream.cursor)
        if column is not None and not column.nullable:
            return 0
        where = self._where([*self._filter(), f"{self._column} IS NULL"])
        [(count,)] = self._session.rows(f"SELECT count(*) FROM {self._relation}{where}")
        return int(count)

    def _ties(self, window: Window, until: str | None) -> Window:
        """Compare the rows at `after` with what was there when they were loaded; note those at the new `until`."""
        if until is None or (window.after is not None and self._behind(until, window.after)):
            if until is not None:
                window = replace(window, until_rule=BEHIND)
            until = window.after
        before = window.ties
        inclusive = window.after is not None and bool(before) and before != str(self._at(window.after))
        ties = before if until == window.after and not inclusive else str(self._at(until)) if until is not None else ""
        return replace(window, until=until, inclusive=inclusive, ties=ties)

    def _at(self, value: str) -> Digest:
        return self._digest([*self._filter(), f"{self._column} = {self._value(value)}"])

    def _behind(self, left: str, right: str) -> bool:
        rows: list[tuple[Any, ...]] = self._session.rows(
            f"SELECT CASE WHEN {self._value(left)} < {self._value(right)} THEN 1 ELSE 0 END"
        )
        return bool(rows[0][0])


def even_bounds(rows: int, first: int | None, last: int | None, slice_rows: int) -> list[int]:
    """Inner borders that cut the numbers `first` to `last`, which `rows` rows are spread over, into even slices.

    The number of slices follows from the number of rows, so that deleted rows leave gaps but no empty slices.
    """
    count = -(-rows // slice_rows)
    if first is None or last is None or count <= 1:
        return []
    return sorted({first + (last + 1 - first) * index // count for index in range(1, count)} - {first})


def split_name(name: str, default_schema: str) -> tuple[str, str]:
    """`schema.table` or `table` as the manifest writes it; a part with a dot or a quote is in double quotes.

    Raises SchemaError when the name has more parts or an open quote.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise SchemaError(
            f"{name!r} is not a table name",
            remedy='write table or schema.table; quote parts with dots: "odd.name"."t"',
            code="DP401",
        )
    schema, table = (_unquote(part) for part in match.groups(default=""))
    return schema or default_schema, table


def choose_columns(stream: Stream, columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """The columns that a stream reads, in the source's order, its casts applied.

    Raises SchemaError with a suggestion when the stream names one that does not exist. `exclude` may name columns
    that are gone already, so that a manifest survives the drop it asked for.
    """
    known = [column.name for column in columns]
    named = (*stream.include, *stream.casts, *stream.primary_key, *((stream.cursor,) if stream.cursor else ()))
    for name in named:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known[:20])}"
            raise SchemaError(f"column {name} does not exist in {stream.name}", remedy=hint, code="DP403")
    chosen = [
        column
        for column in columns
        if column.name not in stream.exclude and (not stream.include or column.name in stream.include)
    ]
    lost = {*stream.primary_key, *((stream.cursor,) if stream.cursor else ())} - {column.name for column in chosen}
    if lost or not chosen:
        what = f"{', '.join(sorted(lost))} of {stream.name}" if lost else f"every column of {stream.name}"
        raise SchemaError(
            f"{what} is left out", remedy="key and cursor columns are needed; change include or exclude", code="DP403"
        )
    return tuple(
        _cast(column, stream.casts[column.name]) if column.name in stream.casts else column for column in chosen
    )


def _cast(column: Column, name: str) -> Column:
    """The column after a cast that the source computes."""
    type_, logical = parse_type(name)
    fidelity = of_cast(column.type, type_)
    note = f"{column.native or 'an undeclared type'} cast to {name}"
    return replace(column, type=type_, logical=logical, kept=False, enum=(), fidelity=fidelity, note=note)


def join_name(table: Table) -> str:
    """The name as `split_name` reads it, quoted only where it must be."""
    return ".".join(
        '"' + part.replace('"', '""') + '"' if re.search(r'[".]', part) else part for part in (table.schema, table.name)
    )


def _unquote(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part
