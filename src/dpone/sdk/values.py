"""The frozen values that cross the boundary between the engine and a connector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

Write = Literal["replace", "append", "merge", "delete_insert", "scd2"]
"""The strategies: what a publication does with the target."""

Fidelity = Literal["exact", "widened", "lossy", "refused"]
"""What happens to the values of a column: kept exactly, kept in a wider type, altered, or not moved at all."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column as it travels.

    `type` is the Arrow type of the values in the record batches. `logical` tells two uses of one Arrow type apart:
    `"json"` and `"uuid"` travel as strings. `native` is the type in the system at hand: the source's own type when
    it comes from `describe`, the sink's own in what a sink stores. `kept` says that source and sink are the same
    system and the sink creates `native` itself; the values then travel in whatever Arrow form that connector chose
    for it (Postgres: its text output). `enum` holds the labels of an enumerated type, in order.
    `fidelity` and `note` say what reading did to the type; `refused` columns never reach `read`.
    `altered` says what storing does to the values, where the manifest allows a loss: what was read and what is stored
    then have no digest in common, and the column is left out of the proof.
    """

    name: str
    type: pa.DataType
    nullable: bool = True
    logical: Literal["", "json", "uuid"] = ""
    native: str = ""
    kept: bool = False
    enum: tuple[str, ...] = ()
    fidelity: Fidelity = "exact"
    note: str = ""
    altered: str = ""


@dataclass(frozen=True, slots=True)
class NativeType:
    """A type of a sink, and what storing a canonical type in it does to the values."""

    sql: str
    fidelity: Fidelity = "exact"
    note: str = ""


@dataclass(frozen=True, slots=True)
class StreamSchema:
    """What a source says of one stream. `estimated_rows` is the system's own estimate, or None.

    `instance` names the server that holds the rows, in one of its lives: marks like `Window.since` mean nothing on
    another one, or on one that was restored.
    """

    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    estimated_rows: int | None = None
    server_version: str = ""
    instance: str = ""

    def column(self, name: str) -> Column | None:
        """The column of exactly this name, or None."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True, slots=True)
class Stream:
    """What to read: one object of the source, with what the manifest says of it.

    `casts` maps a column to one of the type names of `dpone.arrow.types.parse_type` and is applied by the source.
    `filter` is a predicate in the source's own SQL. `slice_rows` is the wished number of rows per slice.
    `keep_native` is set when the sink is the same system (see `Column.native`); the columns of `canonical` travel in
    their canonical types even so, because something on the way looks at their values. `apart` asks that rows which an
    earlier load may have read come in slices of their own, marked `again`, and there every cursor value with all of
    its rows: a sink that cannot tell rows by their key compares them with those it has.

    `cursor` may also be a name that the source itself gives to an order of its rows (PostgreSQL: `xmin`). `clock` of
    "transaction" says that the cursor's values are the start of the transaction that wrote the row, by the database's
    clock. `lookback` is how far behind the last checkpoint rows may still appear: a time for cursors that are times,
    a number for numbers.
    """

    name: str
    primary_key: tuple[str, ...] = ()
    cursor: str = ""
    null_cursor: Literal["refuse", "load"] = "refuse"
    clock: Literal["", "transaction"] = ""
    lookback: timedelta | int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    casts: Mapping[str, str] = field(default_factory=dict)
    filter: str = ""
    slice_rows: int = 1_000_000
    keep_native: bool = False
    apart: bool = False
    canonical: tuple[str, ...] = ()

    def keeps(self, name: str) -> bool:
        """Whether a column may keep its native type."""
        return self.keep_native and name not in self.canonical


@dataclass(frozen=True, slots=True)
class Digest:
    """An order-independent content digest: number of rows, and the sum modulo 2**64 of the row hashes.

    Additive: the digest of two disjoint sets of rows is the sum of their digests. A sum, never XOR, so that a
    duplicated pair of rows cannot cancel itself out. The canonical encoding is in `dpone.arrow.digest`.
    """

    rows: int = 0
    sum: int = 0

    def __add__(self, other: Digest) -> Digest:
        return Digest(self.rows + other.rows, (self.sum + other.sum) % 2**64)

    def __sub__(self, other: Digest) -> Digest:
        return Digest(self.rows - other.rows, (self.sum - other.sum) % 2**64)

    def __str__(self) -> str:
        return f"{self.rows}:{self.sum:016x}"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The inverse of `str()`."""
        rows, _, total = text.partition(":")
        return cls(int(rows), int(total, 16))


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a stream that one load moves: cursor values in `(after, until]`, or everything.

    Values are the source's own text form of the cursor. With `again` the rows in `[again, after]` are read once
    more: those at `after` have changed since they were loaded (`ties` of the last receipt differ), or the stream looks
    back. `ties` is the digest of the source rows whose cursor equals `until`; empty, nothing is known of them and the
    bound is strict. `null_rows` counts the rows with a NULL cursor, which are read in addition. `full` marks a load of
    the whole stream.

    A source that knows when a row was written puts into `seen` what its snapshot has seen to its end, in a form of
    its own. The next load gets it as `since` and holds what was written after that and is `seen` now, whatever its
    cursor: a row that was committed late is in the next window. `after` and `until` then only say how far the cursor
    came. `fixed` says that the bounds are set. `until_rule` says how the upper one was found.
    """

    full: bool = True
    after: str | None = None
    until: str | None = None
    again: str | None = None
    ties: str = ""
    null_rows: int = 0
    until_rule: str = ""
    since: str = ""
    seen: str = ""
    fixed: bool = False

    @property
    def empty(self) -> bool:
        """Whether the bounds alone say that a cursor window holds no row."""
        if self.full or self.null_rows or self.again is not None:
            return False
        return self.since == self.seen if self.seen else self.until == self.after


@dataclass(frozen=True, slots=True)
class Slice:
    """One independent piece of a window. `lower` and `upper` are bounds that only its source interprets.

    `holds` says what it brings: rows that are `new` to the target; rows that an earlier load may have read (`again`,
    see `Stream.apart`); rows that have a key and nothing else, because they are `gone` at the source, or are `back`.
    """

    ordinal: int
    lower: str = ""
    upper: str = ""
    label: str = ""
    holds: Literal["new", "again", "gone", "back"] = "new"

    @property
    def again(self) -> bool:
        """Whether an earlier load may have read its rows."""
        return self.holds == "again"


@dataclass(frozen=True, slots=True)
class SliceReceipt:
    """What the sink remembers of one durable slice."""

    ordinal: int
    rows: int


@dataclass(frozen=True, slots=True)
class StreamKey:
    """The identity of state: two pipelines never share or consume each other's progress."""

    pipeline: str
    stream: str
    target: Table

    def __str__(self) -> str:
        return f"{self.pipeline}|{self.stream}|{self.target}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table in a sink."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class TargetSchema:
    """What a sink says of an existing target: native type per column, in order; columns that refuse NULL; rows.

    `required` are the columns a row cannot leave out: not nullable and without a default. `not_replaceable` says
    what else would change if all rows were deleted and inserted again (a foreign key that cascades), or is empty.
    """

    columns: Mapping[str, str]
    required: frozenset[str] = frozenset()
    not_replaceable: str = ""


Results = Mapping[str, "int | Digest | None"]
"""What the steps of a publication counted, by the steps' names; None for a step that was skipped."""


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a publication. `kind` says what its result is.

    run: nothing; rows: rows affected; scalar: one number; digest: the digest of the rows that the query selects,
    in the columns `of` the stream (empty: all of them). probe: nothing; it reads the empty staging table when the load
    is opened, so that a mistake in SQL of the manifest is found before anything is read.
    A step with `unless_equal=(a, b)` is skipped when the results named a and b are equal, one with
    `only_if_equal=(a, b)` when they are not. The result of a skipped step is None, which equals nothing.
    `hook` says of a statement that the user wrote what it is and where it stands in the manifest.
    """

    kind: Literal["run", "rows", "scalar", "digest", "probe"]
    sql: str
    name: str = ""
    unless_equal: tuple[str, str] | None = None
    only_if_equal: tuple[str, str] | None = None
    hook: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the target itself remembers of the last committed load: it *is* the state of the stream.

    `extra` holds what the position in `window` belongs to: `source`, `cursor`, and a digest of the `filter`; and how
    the sink left the target: `write`, and `high`, the mark that `Stands.standing` looks for.
    """

    load_id: str
    run_id: str
    window: Window
    rows: Mapping[str, int]
    committed_at: str
    digest: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenLoad:
    """A load that was begun and not yet committed. `intent` must match for a rerun to continue it.

    `opened_at` (UTC, ISO 8601, microseconds) is kept when a rerun continues it, so that what it publishes is the same.
    """

    load_id: str
    run_id: str
    intent: str
    window: Window
    slices: tuple[Slice, ...]
    snapshot: str
    progress: Mapping[int, SliceReceipt] = field(default_factory=dict)
    opened_at: str = ""


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """Everything a sink needs for one load.

    `columns` are the columns of the stream in order, `managed` those that dpone fills itself beside them.
    `primary_key` is the key that the strategy works by, if it does. `steps` is the publication for a SQL sink,
    rendered by the strategy; a sink without SQL acts on `write` and returns results of the same names. `version` are
    the columns that tell versions of rows apart (key and cursor), none if only all of their values do. `deletes` says
    what is done with the rows of slices that hold what is gone.
    """

    load: OpenLoad
    key: StreamKey
    columns: tuple[Column, ...]
    write: Write
    primary_key: tuple[str, ...] = ()
    cursor: str = ""
    version: tuple[str, ...] = ()
    deletes: Literal["ignore", "soft", "hard"] = "ignore"
    proof: Literal["none", "counts", "digest"] = "counts"
    steps: tuple[Step, ...] = ()
    managed: tuple[Column, ...] = ()
    partition_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """How a target stands to the last receipt of a stream.

    `rows` are those it holds now, None where there is nothing to compare. `newest` says whether the last rows that the
    load left are still there, `newer` whether there are rows beyond them; None where the receipt does not say which
    those were. `missing` says that a receipt is known to be gone. `neighbours` are the keys of streams of other
    pipelines that write the same target.
    """

    rows: int | None = None
    newest: bool | None = None
    newer: bool | None = None
    missing: bool = False
    neighbours: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lock of a stream. `lease` is how many seconds its lease is still good for, None without one."""

    run_id: str = ""
    name: str = ""
    lease: float | None = None


@dataclass(frozen=True, slots=True)
class StreamState:
    """All that a sink remembers of one stream, as far as it can be read.

    `receipts` are the committed loads, newest first; `damaged` counts those that cannot be read, and is at least one
    when the newest is among them. `holder` is who has the lock now. `faults` say what is wrong besides, each with
    what `Claim.repair` does about it.
    """

    receipts: tuple[Receipt, ...] = ()
    damaged: int = 0
    pending: OpenLoad | None = None
    holder: Holder | None = None
    faults: tuple[str, ...] = ()
