"""The harness of the memory connector: what the kit puts at the other end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa

from dpone.arrow.types import parse_type, type_name
from dpone.testing.harness import SAMPLE, Address, Role, Row
from dpone.testing.memory.place import forget, place

_numbers = itertools.count(1)


class MemoryHarness:
    """One place in this process. `name` is the place's, for a script: `place(harness.name).script`."""

    served: ClassVar[Literal["real", "emulated", "fake"]] = "fake"
    variants: ClassVar[tuple[str, ...]] = ("",)
    native: ClassVar[Mapping[str, str]] = SAMPLE
    version = "1"
    address: Address | None = None

    def __init__(self, folder: Path, variant: str = "") -> None:
        del folder, variant
        self.name = f"certify-{next(_numbers)}"
        self.place = place(self.name)

    def close(self) -> None:
        """Forget the place."""
        forget(self.name)

    def endpoint(self, role: Role, *, address: Address | None = None) -> dict[str, Any]:
        """The place by its name."""
        del role, address
        return {"connector": "memory", "place": self.name}

    def mistakes(self, role: Role) -> Mapping[str, tuple[dict[str, Any], str]]:
        """A place is made when it is named, so none can be wrong."""
        del role
        return {}

    def stream(self, table: str) -> str:
        """Its name."""
        return table

    def setup(self, statements: Sequence[str]) -> None:
        """Memory knows no statements."""
        if statements:
            raise ValueError("a table in memory has no statements")

    def put(self, table: str, rows: Sequence[Row]) -> None:
        """The sample table in one batch."""
        columns = zip(*rows, strict=True) if rows else ((),) * len(SAMPLE)
        arrays = [
            pa.array(values, parse_type(type_)[0]) for values, type_ in zip(columns, SAMPLE.values(), strict=True)
        ]
        self.place.put(table, SAMPLE, [pa.RecordBatch.from_arrays(arrays, list(SAMPLE))], ["id"])

    def create(
        self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[str]] = (), key: Sequence[str] = ()
    ) -> None:
        """A table from texts; the literal NULL is no value."""
        cells = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
        arrays = [
            pa.array([None if text == "NULL" else text for text in texts], pa.string()).cast(parse_type(type_)[0])
            for texts, type_ in zip(cells, columns.values(), strict=True)
        ]
        self.place.put(table, columns, [pa.RecordBatch.from_arrays(arrays, list(columns))], key)

    def rows(self, table: str, columns: Sequence[str] = ()) -> list[Row]:
        """The rows, times as counts of their unit."""
        held = self.place.tables[table].table
        chosen = held.select(list(columns) or held.column_names)
        cells = [column.cast(_counted(column.type)).to_pylist() for column in chosen.columns]
        return list(zip(*cells, strict=True))

    def texts(self, table: str, columns: Sequence[str]) -> list[tuple[str | None, ...]]:
        """The values as Python writes them."""
        return [tuple(None if cell is None else repr(cell) for cell in row) for row in self.rows(table, columns)]

    def types(self, table: str) -> dict[str, str]:
        """The names of the canonical types."""
        return {c.name: type_name(c.type, c.logical) for c in self.place.tables[table].columns}

    def damage(self, how: str) -> None:
        """Every stream's state says what is wrong with it."""
        for state in self.place.states.values():
            state.damaged = how

    def backup(self, what: Literal["target", "state"], table: str) -> Callable[[], None]:
        """The table, or the receipts of every stream, as they are now."""
        held = self.place.tables[table]
        receipts = {key: list(state.receipts) for key, state in self.place.states.items()}

        def restore() -> None:
            if what == "target":
                self.place.put(table, held.columns, held.batches, held.primary_key)
                return
            for key, found in receipts.items():
                self.place.states[key].receipts = list(found)

        return restore

    def empty(self, table: str) -> None:
        """Keep the columns only."""
        self.place.put(table, self.place.tables[table].columns, [], self.place.tables[table].primary_key)

    def debris(self) -> list[str]:
        """Slices that are staged."""
        return [key for key, state in self.place.states.items() if state.staged]


def _counted(type_: pa.DataType) -> pa.DataType:
    """The same type with dates as days and times as counts of their unit: no year is too late for that."""
    if pa.types.is_list(type_):
        return pa.list_(_counted(type_.value_type))
    if not pa.types.is_temporal(type_):
        return type_
    return pa.int32() if pa.types.is_date32(type_) or pa.types.is_time32(type_) else pa.int64()
