"""The interfaces between the engine and a connector. Every method may raise the errors of `dpone.errors`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import pyarrow as pa

    from dpone.sdk.values import (
        Column,
        Digest,
        LoadSpec,
        NativeType,
        OpenLoad,
        Receipt,
        Results,
        Slice,
        SliceReceipt,
        Standing,
        Stream,
        StreamKey,
        StreamSchema,
        StreamState,
        Table,
        TargetSchema,
        Window,
    )


class Source(Protocol):
    """A system to read from. One instance serves one stream of one run, in one thread."""

    def describe(self, stream: Stream) -> StreamSchema:
        """The columns to read (selection and casts applied), the primary key, an estimate of the rows.

        Raises SchemaError when the object, or a column that the stream names, does not exist.
        """

    def open(self, stream: Stream, schema: StreamSchema, window: Window) -> Reading:
        """A consistent snapshot of the window. An `until` of None is set here; a pinned window stays as it is.

        `window.ties` of the last receipt decides whether the rows at `after` are read again.
        Raises DataError when rows have a NULL cursor and the stream refuses them.
        """

    def close(self) -> None:
        """Release every connection. Safe to call twice."""


class Reading(Protocol):
    """One snapshot of one window. All slices of one Reading agree with each other."""

    @property
    def window(self) -> Window:
        """The window with its bounds fixed."""

    @property
    def slices(self) -> tuple[Slice, ...]:
        """Independent pieces that together are exactly the window; at least one."""

    @property
    def snapshot(self) -> str:
        """A token: two readings with the same non-empty token read the same rows."""

    def query(self, piece: Slice) -> str:
        """The statement or request that `read` sends for this slice, for the plan. Holds no secret."""

    def read(self, piece: Slice) -> Iterator[pa.RecordBatch]:
        """The rows of a slice. The batches' schema is exactly the described columns. Bounded memory."""

    def digest(self, piece: Slice) -> Digest:
        """The digest of a slice, computed by the source's server where it can, else by reading."""

    def close(self) -> None:
        """End the snapshot. Safe to call twice."""


class Types(Protocol):
    """How a sink stores canonical types. SQL sinks answer with their dialect."""

    def native(self, column: Column, schema: str = "") -> NativeType:
        """The sink's type for a column, and what storing it does to the values."""

    def accepts(self, existing: str, wanted: NativeType) -> bool:
        """Whether an existing column of type `existing` holds every value of the wanted type unaltered."""


class Sink(Protocol):
    """A system to write to. One instance serves one stream of one run, in one thread."""

    @property
    def dialect(self) -> Types:
        """How this sink stores canonical types."""

    def describe(self, target: Table) -> TargetSchema | None:
        """The existing target, or None. Raises SchemaError when the target's schema does not exist."""

    def last_receipt(self, key: StreamKey) -> Receipt | None:
        """What the sink itself remembers of this stream, read without the lock."""

    def claim(self, key: StreamKey, *, run_id: str, holder: str) -> Claim:
        """Take the stream's lock, without waiting. Creates dpone's own tables when missing.

        Raises ConflictError naming the holder when another run has it.
        """

    def close(self) -> None:
        """Release every connection and lock. Safe to call twice."""


class Claim(Protocol):
    """The lock on one stream, and what the sink remembered when it was taken."""

    @property
    def receipt(self) -> Receipt | None:
        """The last committed load."""

    @property
    def pending(self) -> OpenLoad | None:
        """The open load that a run left behind."""

    @property
    def abandoned(self) -> tuple[str, ...]:
        """Ids of runs found unfinished, recorded as abandoned by this claim."""

    @property
    def notes(self) -> Sequence[str]:
        """What this claim had to put right, in words for the run record."""

    def begin(self, spec: LoadSpec) -> Load:
        """Attach to the pending load when `spec.load.load_id` is its id; otherwise abort it and open a new one."""

    def record(self, run_id: str, status: str, document: str) -> None:
        """Store the run record (JSON) of this stream in the sink. A running one is stored by `claim`."""

    def reset(self) -> None:
        """Forget the stream: receipts, open loads, staging. The target's rows stay."""

    def repair(self, keep: Receipt | None, *, accept: bool = False) -> None:
        """Make `keep`, which is one of the stream's receipts, the last one; None forgets all of them.

        With `accept` it is noted in that receipt that the target is right as it is. Later and damaged receipts are
        removed, an open load that is damaged or began elsewhere is closed, and staging that no open load names is
        dropped. The target's rows stay.
        """

    def release(self) -> None:
        """Give the lock back. Safe to call twice."""


class Load(Protocol):
    """An open load."""

    def stage(self, piece: Slice, batches: Iterable[pa.RecordBatch]) -> SliceReceipt:
        """Make the slice durable, with its receipt, invisible to readers. A slice staged before is replaced."""

    def digest(self, piece: Slice) -> Digest:
        """The digest of a staged slice, read back from the sink."""

    def commit(self, check: Callable[[Results], Receipt]) -> Receipt:
        """Publish data and receipt together, and leave no staging behind.

        `check` gets the results read back from the sink, before anything is visible, and returns the receipt to
        store; when it raises, nothing is published and the load stays open.
        """

    def abort(self) -> None:
        """Drop what was staged and close the load. Always safe."""


@runtime_checkable
class Comparable(Protocol):
    """Rows that can be compared part by part: a row falls into a part by the hash of its key, in every system alike.

    `count` is a power of two. Both methods cover everything that the object holds, whatever the window.
    """

    def digests(self, columns: tuple[Column, ...], key: tuple[Column, ...], count: int) -> Mapping[int, Digest]:
        """The digest of each part that is not empty, over these columns."""

    def rows(
        self, columns: tuple[Column, ...], key: tuple[Column, ...], count: int, wanted: Collection[int]
    ) -> Iterator[pa.RecordBatch]:
        """These columns of the rows of some parts."""


@runtime_checkable
class Compares(Protocol):
    """A reading that can be compared: all rows of its stream, in its snapshot."""

    def compared(self) -> Comparable:
        """The rows of the stream."""


@runtime_checkable
class ComparesTarget(Protocol):
    """A sink whose targets can be compared."""

    def compared(self, target: Table, live: Mapping[str, bool | None]) -> Comparable:
        """The rows of a target that have these values in these columns."""


@runtime_checkable
class Discover(Protocol):
    """A source that can list what it holds."""

    def discover(self) -> Sequence[str]:
        """The names of all streams, sorted, in the form the manifest uses."""


@runtime_checkable
class Stands(Protocol):
    """A sink that can tell whether a target is the one that its last receipt speaks of."""

    def standing(self, key: StreamKey, receipt: Receipt | None) -> Standing:
        """How the target stands to the receipt. Costs no more than counting its rows. The target may be gone."""


@runtime_checkable
class Inspects(Protocol):
    """A sink that can show what it remembers, without the lock and however damaged it is."""

    def inspect(self, key: StreamKey) -> StreamState:
        """What is there, as far as it can be read. Changes nothing. Raises StateError for a newer layout."""
