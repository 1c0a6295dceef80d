"""Where tables in memory are, and the script that makes their connector die or lie."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from dpone.arrow.types import arrow_schema, parse_type
from dpone.errors import ConfigError
from dpone.sdk import Column, OpenLoad, Receipt

Act = Callable[[Any], Any]


class Death(Exception):
    """The end of a process, as far as one process can play it: nothing after this point happens."""


class Script:
    """What happens at the named points of the connector: nothing, until it is told.

    The points are those of the interfaces, with the value that passes there:

        describe StreamSchema   open Window        read RecordBatch     source_digest Digest
        claim None              receipt Receipt    begin LoadSpec       stage RecordBatch    staged SliceReceipt
        digest Digest           results Results    commit Receipt       committed Receipt    abort None
    """

    def __init__(self) -> None:
        self._acts: dict[str, list[tuple[int | None, Act]]] = {}
        self.seen: Counter[str] = Counter()

    def on(self, point: str, act: Act, *, nth: int | None = None) -> None:
        """Pass what comes by `point` through `act`: always, or only the n-th time, counted from 1."""
        self._acts.setdefault(point, []).append((nth, act))

    def dies(self, point: str, *, nth: int = 1) -> None:
        """Die when the point is reached for the n-th time."""
        self.fails(point, Death(f"at {point} {nth}"), nth=nth)

    def fails(self, point: str, error: Exception, *, nth: int = 1) -> None:
        """Raise an error when the point is reached for the n-th time."""

        def act(_: Any) -> Any:
            raise error

        self.on(point, act, nth=nth)

    def __call__(self, point: str, value: Any = None) -> Any:
        """Reach a point; what passes there, as the script would have it."""
        self.seen[point] += 1
        for nth, act in self._acts.get(point, ()):
            if nth is None or nth == self.seen[point]:
                value = act(value)
        return value


@dataclass
class Kept:
    """What a place remembers of one stream."""

    fence: int = 0
    holder: str = ""
    receipts: list[Receipt] = field(default_factory=list)
    open: OpenLoad | None = None
    staged: dict[int, pa.Table] = field(default_factory=dict)
    runs: dict[str, tuple[str, str]] = field(default_factory=dict)
    damaged: str = ""
    missing: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Held:
    """A table. The batches stay as they were put: sliced, empty or of any Arrow form of the column's type."""

    columns: tuple[Column, ...]
    batches: tuple[pa.RecordBatch, ...]
    primary_key: tuple[str, ...] = ()

    @property
    def table(self) -> pa.Table:
        """All rows, in the canonical types."""
        schema = arrow_schema(self.columns)
        batches = [batch.cast(schema) for batch in self.batches]
        return pa.Table.from_batches(batches, schema) if batches else schema.empty_table()


class Place:
    """Tables by name, the state of the streams that were loaded into them, and a script."""

    def __init__(self) -> None:
        self.tables: dict[str, Held] = {}
        self.states: dict[str, Kept] = {}
        self.script = Script()
        self.version = 0  # grows with every change of a table
        self.guard = threading.RLock()

    def put(
        self,
        name: str,
        columns: Mapping[str, str] | Sequence[Column],
        batches: Sequence[pa.RecordBatch],
        primary_key: Sequence[str] = (),
    ) -> None:
        """Make the table hold these rows; columns as type names, or as they are described."""
        made = tuple(_columns(columns) if isinstance(columns, Mapping) else columns)
        with self.guard:
            self.tables[name] = Held(made, tuple(batches), tuple(primary_key))
            self.version += 1

    def state(self, key: str) -> Kept:
        """The state of a stream, made when it is first asked for."""
        with self.guard:
            return self.states.setdefault(key, Kept())


def _columns(types: Mapping[str, str]) -> list[Column]:
    columns = []
    for name, type_ in types.items():
        arrow, logical = parse_type(type_)
        columns.append(Column(name, arrow, logical=logical, native=type_))
    return columns


_places: dict[str, Place] = {}


def place(name: str) -> Place:
    """The place of a name, made when it is first asked for."""
    return _places.setdefault(name, Place())


def forget(name: str) -> None:
    """Drop a place and all that it holds."""
    _places.pop(name, None)


class MemoryConfig(BaseModel):
    """The settings of the memory connector."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    place: str = Field(min_length=1, title="Place", description="Name of the place that holds the tables.")

    @property
    def identity(self) -> str:
        """Which place it is."""
        return f"memory://{self.place}"

    @classmethod
    def from_url(cls, url: str) -> dict[str, Any]:
        """The settings in `memory://NAME`. Raises ConfigError for anything more."""
        name = unquote(url.partition("://")[2])
        if not name or any(mark in name for mark in "/?#"):
            raise ConfigError("a place in memory is memory://NAME", remedy="write memory://NAME")
        return {"place": name}
