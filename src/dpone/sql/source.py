"""Reading from any SQL system: one snapshot, one window, slices of it.

A slice is a predicate. How a system cuts a table (row ids, pages) is its own `Cut`; windows, ties and NULL cursors
are the same for all of them and are written here once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from difflib import get_close_matches
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dpone.arrow.digest import undigestible
from dpone.arrow.fidelity import of_cast
from dpone.arrow.types import parse_type
from dpone.errors import ConfigError, DataError, SchemaError
from dpone.sdk import Column, Digest, Slice, Stream, StreamSchema, Table, Window
from dpone.sql.parts import SqlParts

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
    """How a system writes cursor values as text and back; each takes and gives an expression.

    `back` is a value less a look-back, empty where the cursor's type has no such step.
    """

    to_text: Callable[[str], str]
    from_text: Callable[[str], str]
    back: Callable[[str, timedelta | int], str] = lambda _value, _lookback: ""


@dataclass(frozen=True, slots=True)
class Horizon:
    """Where a cursor window must end, so that nothing can be committed below it later.

    `below` is an exclusive bound in the text form of the cursor, `rule` says how it was found.
    """

    below: str
    rule: str


@dataclass(frozen=True, slots=True)
class Written:
    """What a system knows of when its rows were written.

    `seen` is what this snapshot has seen to its end, and equal only where nothing ended in between. `between` renders
    the predicate of the rows written after one such text and seen by another; without the first: all rows seen by
    it, without the second: all rows written after the first. `rule` says how `seen` was found.
    """

    seen: str
    between: Callable[[str, str], str]
    rule: str


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
        horizon: Horizon | None = None,
        written: Written | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._dialect = session.dialect
        self._stream = stream
        self._schema = schema
        self._relation = relation
        self._cursor = cursor
        self._cut = cut
        self._horizon = horizon
        self._written = written
        self._on_close = on_close
        self._column = self._dialect.quote(stream.cursor) if stream.cursor else ""
        self.snapshot = snapshot
        self.window = self._fix(window)
        self.slices = cut.slices()
        if stream.apart and self._has_again():
            self.slices += (Slice(len(self.slices), label="what came late, or may have", holds="again"),)

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

    def compared(self) -> SqlParts:
        """See `dpone.sdk.Compares`."""
        return SqlParts(self._session, f"(SELECT * FROM {self._relation}{self._where(self._filter())}) AS r")

    def close(self) -> None:
        """End the snapshot."""
        self._on_close()

    def _conditions(self, piece: Slice) -> list[str]:
        bounds = self._again(self.window) if piece.again else self._bounds(self.window)
        return self._filter() + bounds + self._cut.predicate(piece)

    def _filter(self) -> list[str]:
        return [f"({self._stream.filter})"] if self._stream.filter else []

    def _bounds(self, window: Window) -> list[str]:
        if window.full:
            return []
        if self._written is not None and not self._has_again():
            return [self._written.between(window.since, window.seen)]
        parts = []
        if self._written is not None:
            parts.append(self._written.between("", window.seen))
        if window.again is not None and not self._stream.apart:
            parts.append(f"{self._column} >= {self._value(window.again)}")
        elif window.after is not None:
            parts.append(f"{self._column} > {self._value(window.after)}")
        if window.until is not None and self._written is None:
            parts.append(f"{self._column} <= {self._value(window.until)}")
        condition = " AND ".join(parts) or "1 = 0"  # no row has a cursor value
        return [f"({condition} OR {self._column} IS NULL)" if window.null_rows else f"({condition})"]

    def _again(self, window: Window) -> list[str]:
        """Rows that an earlier load may have read, every cursor value with all of its rows."""
        known = f"{self._column} <= {self._value(window.after or '')}"
        if self._written is None:
            return [f"{self._column} >= {self._value(window.again or '')} AND {known}"]
        late = self._where([*self._filter(), self._written.between(window.since, window.seen), known])
        seen = self._written.between("", window.seen)
        return [f"{seen} AND {self._column} IN (SELECT {self._column} FROM {self._relation}{late})"]

    def _has_again(self) -> bool:
        window = self.window
        if self._written is not None:
            return bool(self._stream.apart and window.since and window.after is not None)
        return window.again is not None

    def _value(self, text: str) -> str:
        return self._cursor.from_text(self._dialect.literal(text))

    def _where(self, conditions: list[str]) -> str:
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""

    def _digest(self, conditions: list[str]) -> Digest:
        columns = tuple(column for column in self._schema.columns if not undigestible(column))
        relation = f"(SELECT {self._dialect.names(columns)} FROM {self._relation}{self._where(conditions)}) AS r"
        return self._session.digest(relation, columns)

    def _fix(self, window: Window) -> Window:
        if window.fixed:
            return window  # pinned by the open load
        if self._written is not None:
            return self._fix_written(window, self._written)
        if not self._stream.cursor:
            return replace(window, full=True, fixed=True)
        null_rows = self._null_rows(self._filter())
        below = [f"{self._column} < {self._value(self._horizon.below)}"] if self._horizon else []
        until = self._greatest([*self._filter(), *below])
        rule = self._horizon.rule if self._horizon else "max"
        window = replace(window, full=False, null_rows=null_rows, until_rule=rule, fixed=True)
        return self._back(window, until) if self._stream.lookback else self._ties(window, until)

    def _fix_written(self, window: Window, written: Written) -> Window:
        window = replace(window, full=False, seen=written.seen, ties="", until_rule=written.rule, fixed=True)
        if not self._column:
            return window
        self._null_rows([*self._filter(), written.between(window.since, window.seen)])
        until = self._greatest([*self._filter(), written.between("", window.seen)])
        return replace(window, until=until)

    def _greatest(self, conditions: list[str]) -> str | None:
        [(until,)] = self._session.rows(
            f"SELECT {self._cursor.to_text(f'max({self._column})')} FROM {self._relation}{self._where(conditions)}"
        )
        return None if until is None else str(until)

    def _back(self, window: Window, until: str | None) -> Window:
        """A window that begins before the last checkpoint: what came late behind it is read, and the rest again."""
        if window.after is None or self._stream.lookback is None:
            return replace(window, until=until)
        low = self._cursor.back(self._value(window.after), self._stream.lookback)
        if not low:
            raise no_lookback(self._stream.name, self._stream.cursor, self._stream.lookback)
        if until is None or self._behind(until, window.after):
            until = window.after
        [(again,)] = self._session.rows(f"SELECT {self._cursor.to_text(low)}")
        return replace(window, again=str(again), until=until, ties="")

    def _null_rows(self, conditions: list[str]) -> int:
        """How many rows have no cursor value. Raises DataError when there are some and the stream refuses them."""
        column = self._schema.column(self._stream.cursor)
        if column is not None and not column.nullable:
            return 0
        where = self._where([*conditions, f"{self._column} IS NULL"])
        [(count,)] = self._session.rows(f"SELECT count(*) FROM {self._relation}{where}")
        if count and self._stream.null_cursor == "refuse":
            raise DataError(
                f"{count} rows of {self._stream.name} have no value in the cursor {self._stream.cursor}",
                remedy="set cursor: {column: ..., nulls: load} to load them in every run, or filter them out",
                code="DP411",
            )
        return int(count)

    def _ties(self, window: Window, until: str | None) -> Window:
        """Compare the rows at `after` with what was there when they were loaded; note those at the new `until`."""
        if until is None or (window.after is not None and self._behind(until, window.after)):
            if until is not None:
                window = replace(window, until_rule=BEHIND)
            until = window.after
        before = window.ties
        changed = window.after is not None and bool(before) and before != str(self._at(window.after))
        ties = before if until == window.after and not changed else str(self._at(until)) if until is not None else ""
        return replace(window, until=until, again=window.after if changed else None, ties=ties)

    def _at(self, value: str) -> Digest:
        return self._digest([*self._filter(), f"{self._column} = {self._value(value)}"])

    def _behind(self, left: str, right: str) -> bool:
        rows: list[tuple[Any, ...]] = self._session.rows(
            f"SELECT CASE WHEN {self._value(left)} < {self._value(right)} THEN 1 ELSE 0 END"
        )
        return bool(rows[0][0])


def no_lookback(stream: str, cursor: str, lookback: timedelta | int | None) -> ConfigError:
    """The refusal of a look-back that the cursor's type has no step for."""
    amount = "a time" if isinstance(lookback, timedelta) else "a number"
    return ConfigError(
        f"the lookback of {stream} is {amount}, which cannot be taken off the cursor {cursor}",
        remedy="give a time (1h) for a date or timestamp, a number for an integer or decimal",
        code="DP139",
    )


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
