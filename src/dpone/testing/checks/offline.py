"""C21: the SQL of a connector is built without a connection, and is what the golden file says.

`golden.sql` stands in the connector's folder and is reviewed like code. DPONE_GOLDEN=write writes it anew.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pyarrow as pa
import pytest

from dpone.arrow.types import UTC, parse_type
from dpone.sdk import Column, Step, Stream, StreamSchema, Table, Window
from dpone.sql.dialect import Dialect
from dpone.sql.source import CursorSql, Cut, SqlReading
from dpone.strategy import STRATEGIES, Publication
from dpone.strategy.base import DELETED_AT
from dpone.testing.found import folder_of
from dpone.testing.harness import SAMPLE, Harness
from dpone.testing.kit import Checks, certifies, inapplicable

if TYPE_CHECKING:
    from dpone.sql.dialect import Session

TARGET = Table("target schema", "orders")
STAGE = Table("target schema", "_dpone_stage_0123456789abcdef")


AGAIN = ", some rows again"
KEYS = ", each key once"
PARTS = ", by partitions"
WHOLE = ", without a cursor"
HARD = ", with rows to delete"
SOFT = ", with rows to mark"
_VARIANTS = {
    "append": ("", AGAIN, KEYS),
    "merge": ("", HARD, SOFT),
    "delete_insert": ("", PARTS),
    "scd2": ("", WHOLE, SOFT),
}
"""What a strategy does beside its usual way."""


class OfflineChecks(Checks):
    """What is built before anything is connected."""

    @certifies("C21")
    def test_statements_are_built_offline_as_the_golden_file_has_them(
        self, harness: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every strategy and every way to read, rendered with sockets disabled, is the text of golden.sql."""
        config = self.described().config_model()
        settings = {k: v for k, v in harness.endpoint("sink").items() if k not in ("connector", "schema")}
        monkeypatch.setattr(socket, "socket", _no_network)
        sink = self.described().open_sink(config(**settings))
        try:
            dialect = sink.dialect
            if not isinstance(dialect, Dialect):
                inapplicable("it has no SQL")
            text = "\n".join(_rendered(dialect, harness.native)) + "\n"
        finally:
            sink.close()
            monkeypatch.undo()
        golden = folder_of(self.described()).joinpath("golden.sql")
        if os.environ.get("DPONE_GOLDEN") == "write":
            golden.write_text(text, encoding="utf-8")
        assert golden.read_text(encoding="utf-8") == text


def _no_network(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("a socket was opened while SQL was rendered")


def _rendered(dialect: Dialect, native: Any) -> Iterator[str]:
    columns = []
    for name, type_ in SAMPLE.items():
        arrow, logical = parse_type(type_)
        columns.append(Column(name, arrow, logical=logical, native=native[name]))
    for write in STRATEGIES:
        for exists in (False, True):
            for variant in _VARIANTS.get(write, ("",)):
                if variant in (AGAIN, HARD, SOFT) and not exists:
                    continue
                publication = Publication(
                    dialect=dialect,
                    target=TARGET,
                    stage=STAGE,
                    columns=dialect.stored(columns, TARGET.schema),
                    exists=exists,
                    primary_key=("id",) if write in ("merge", "scd2") or variant == KEYS else (),
                    cursor="at" if write != "replace" and variant not in (PARTS, WHOLE) else "",
                    again=(1,) if variant == AGAIN else (),
                    gone=(1,) if variant in (HARD, SOFT) else (),
                    back=(2,) if variant in (HARD, SOFT) else (),
                    deletes="hard" if variant == HARD else "soft" if variant == SOFT else "ignore",
                    digest=True,
                    managed=dialect.stored(_managed(write, variant), TARGET.schema),
                    partition_by=("day", "id % 10") if variant == PARTS else (),
                    opened_at="2024-03-10T01:02:03.000004+00:00",
                )
                state = "into a table that is there" if exists else "into a new table"
                yield f"-- {write} {state}{variant}"
                yield from map(_step, STRATEGIES[write].steps(publication))
    yield from _reads(dialect, tuple(columns))


def _managed(write: str, variant: str) -> tuple[Column, ...]:
    marks = (Column(DELETED_AT, pa.timestamp("us", UTC)),) if (write, variant) == ("merge", SOFT) else ()
    return (*STRATEGIES[write].managed, *marks)


def _step(step: Step) -> str:
    rule = f" unless {' = '.join(step.unless_equal)}" if step.unless_equal else ""
    rule += f" only if {' = '.join(step.only_if_equal)}" if step.only_if_equal else ""
    return f"/* {step.kind} {step.name}{rule} */ {step.sql};"


def _reads(dialect: Dialect, columns: tuple[Column, ...]) -> Iterator[str]:
    windows = {
        "everything": Window(fixed=True),
        "what is new": Window(fixed=True, full=False, after="1", until="2"),
        "what is new, the rows at the checkpoint again": Window(
            fixed=True, full=False, after="1", until="2", again="1"
        ),
        "what is new, and rows without a cursor": Window(fixed=True, full=False, after="1", until="2", null_rows=1),
        "the first window": Window(fixed=True, full=False, until="2"),
    }
    for title, window in windows.items():
        stream = Stream("source schema.orders", cursor="" if window.full else "at", filter="total > 0")
        reading = SqlReading(
            cast("Session", _Offline(dialect)),
            stream,
            StreamSchema(columns),
            window,
            relation=dialect.table(Table("source schema", "orders")),
            cursor=CursorSql("text({})".format, "cursor({})".format),
            cut=Cut("place", ("100",)) if window.full else Cut(),
        )
        yield f"-- read {title}"
        yield from (f"{reading.query(piece)};" for piece in reading.slices)


class _Offline:
    """A session that has a dialect and no connection."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
