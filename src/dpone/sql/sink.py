"""Writing to any SQL system with transactions: the claim, the open load, the publication.

A sink gives a session and says what a target looks like; everything that makes a load exactly once is here, once:
the lock and the fencing token, the open load stored before the first byte moves, slices staged together with their
receipts, and one transaction that publishes the data, checks the ledger and stores the receipt.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dpone.arrow.digest import undigestible
from dpone.errors import ConfigError, DponeError, InternalError, SchemaError, StateError
from dpone.sdk import (
    Column,
    Digest,
    LoadSpec,
    OpenLoad,
    Receipt,
    Results,
    Slice,
    SliceReceipt,
    Step,
    StreamKey,
    Table,
)
from dpone.sql.parts import SqlParts
from dpone.sql.state import State, receipt_to_json

if TYPE_CHECKING:
    import pyarrow as pa

    from dpone.sql.dialect import Dialect, Session

SLICE = "_dpone_slice"


def stage_table(target: Table, load_id: str) -> Table:
    """The staging table of a load, beside its target."""
    return Table(target.schema, f"_dpone_stage_{load_id[:16]}")


@contextlib.contextmanager
def transaction(session: Session) -> Iterator[None]:
    """Commit at the end, roll back on any exception."""
    try:
        session.begin()
        yield
        session.commit()
    except BaseException:
        session.rollback()
        raise


class SqlClaim:
    """The lock on one stream. `unlock` gives back the system's own lock, which the sink took before."""

    def __init__(self, session: Session, key: StreamKey, run_id: str, holder: str, unlock: Callable[[], None]) -> None:
        self._session = session
        self._state = State(session, key.target.schema)
        self._key = key
        self._unlock = unlock
        self._run_id = run_id
        with transaction(session):
            self._state.create()
            self._fence = self._state.take_fence(key, run_id, holder)
            self.abandoned = self._state.run_started(key, run_id)
            # Under the lock row: a COMMIT of a dead run that was still in flight has either landed or is fenced off.
            self._remembered = self._read()

    @property
    def receipt(self) -> Receipt | None:
        """The last committed load. Raises StateError when it is damaged."""
        return self._known()[0]

    @property
    def pending(self) -> OpenLoad | None:
        """The open load that was found. Raises StateError when it is damaged."""
        return self._known()[1]

    def begin(self, spec: LoadSpec) -> SqlLoad:
        """Attach to the pending load, or abort it and open `spec.load`."""
        load = SqlLoad(self._session, self._state, self._fence, spec)
        pending = self.pending
        if pending is not None and pending.load_id == spec.load.load_id:
            return load
        if pending is not None:
            SqlLoad(self._session, self._state, self._fence, replace(spec, load=pending)).abort()
        load.create()
        return load

    def record(self, run_id: str, status: str, document: str) -> None:
        """Store the run record of this stream."""
        with transaction(self._session):
            self._state.run_finished(self._key, run_id, status, document)

    def reset(self) -> None:
        """Forget receipts, open loads and staging of this stream, damaged ones too."""
        with transaction(self._session):
            self._state.check_fence(self._key, self._fence)
            for load_id in self._state.open_loads(self._key):
                stage = self._session.dialect.table(stage_table(self._key.target, load_id))
                self._session.execute(f"DROP TABLE IF EXISTS {stage}")
            self._state.forget(self._key, self._run_id)

    def release(self) -> None:
        """Give the lock back."""
        self._unlock()

    def _read(self) -> tuple[Receipt | None, OpenLoad | None] | StateError:
        try:
            return self._state.receipt(self._key), self._state.pending(self._key)
        except StateError as error:
            return error  # raised when it is needed: a reset needs none of it

    def _known(self) -> tuple[Receipt | None, OpenLoad | None]:
        if isinstance(self._remembered, StateError):
            raise self._remembered
        return self._remembered


class Arrived:
    """Batches on their way into the system, counted."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self.rows = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            self.rows += batch.num_rows
            yield batch


class SqlLoad:
    """One open load in a SQL sink."""

    def __init__(self, session: Session, state: State, fence: int, spec: LoadSpec) -> None:
        self._session = session
        self._dialect = session.dialect
        self._state = state
        self._fence = fence
        self._spec = spec
        self._load_id = spec.load.load_id
        self._columns = self._dialect.stored(spec.columns, spec.key.target.schema)
        self._digested = tuple(column for column in self._columns if not undigestible(column))
        self._stage = stage_table(spec.key.target, self._load_id)
        self._staged_before = set(spec.load.progress)

    def create(self) -> None:
        """Store the open load and create its staging table, in one transaction."""
        with transaction(self._session):
            self._guard()
            self._state.open(self._spec.load, self._spec.key, self._fence)
            parts = [f"{self._dialect.quote(column.name)} {column.native}" for column in self._columns]
            parts += [f"{SLICE} {self._dialect.bigint} NOT NULL"]
            parts += [self._dialect.arrival_ddl] if self._dialect.arrival_ddl else []
            self._session.execute(f"CREATE TABLE {self._dialect.table(self._stage)} ({', '.join(parts)})")
            for step in self._spec.steps:
                if step.kind == "probe":
                    self._probe(step)

    def stage(self, piece: Slice, batches: Iterable[pa.RecordBatch]) -> SliceReceipt:
        """Load a slice into the staging table, its receipt in the same transaction."""
        with transaction(self._session):
            self._guard()
            if piece.ordinal in self._staged_before:
                self._session.execute(f"DELETE FROM {self._dialect.table(self._stage)} WHERE {SLICE} = {piece.ordinal}")
            arrived = Arrived(batches)
            rows = self._session.ingest(self._stage, self._columns, iter(arrived), piece.ordinal)
            if rows != arrived.rows:  # before it is durable, so that no rerun can build on it
                raise InternalError(
                    f"slice {piece.ordinal} of {self._spec.key.stream}: {arrived.rows:,} rows came, {rows:,} are there",
                    remedy="nothing was committed; report it",
                    code="DP903",
                )
            receipt = SliceReceipt(piece.ordinal, rows)
            self._state.slice_done(self._load_id, receipt)
        self._staged_before.add(piece.ordinal)
        return receipt

    def digest(self, piece: Slice) -> Digest:
        """The digest of the staged rows of a slice."""
        names = self._dialect.names(self._digested)
        stage = self._dialect.table(self._stage)
        return self._session.digest(
            f"(SELECT {names} FROM {stage} WHERE {SLICE} = {piece.ordinal}) AS r", self._digested
        )

    def commit(self, check: Callable[[Results], Receipt]) -> Receipt:
        """Publish, check, store the receipt and drop the staging table, in one transaction."""
        stored = self._state.receipt_of(self._load_id)
        if stored is not None:
            return stored
        with transaction(self._session):
            self._guard()
            receipt = check(self._publish())
            self._session.execute(f"DROP TABLE {self._dialect.table(self._stage)}")
            self._state.close(self._load_id, self._spec.key, "committed", receipt_to_json(receipt))
        return receipt

    def abort(self) -> None:
        """Drop the staging table and close the load."""
        with transaction(self._session):
            self._guard()
            self._session.execute(f"DROP TABLE IF EXISTS {self._dialect.table(self._stage)}")
            self._state.close(self._load_id, self._spec.key, "aborted")

    def _guard(self) -> None:
        self._state.check_fence(self._spec.key, self._fence)

    def _probe(self, step: Step) -> None:
        """Run a query over the empty staging table. Raises ConfigError when it is not one for this system."""
        try:
            self._session.rows(step.sql)
        except DponeError as error:
            if error.retryable:
                raise
            raise ConfigError(
                f"{step.name} of {self._spec.key.stream}: {error.message}",
                remedy=f"name columns of the target, or write expressions over them as {self._dialect.name} has them",
                code="DP163",
            ) from error

    def _publish(self) -> Results:
        results: dict[str, int | Digest | None] = {}
        for step in self._spec.steps:
            if step.kind == "probe":
                continue
            results[step.name] = None
            if step.only_if_equal and not _equal(results, step.only_if_equal):
                continue
            if step.unless_equal and _equal(results, step.unless_equal):
                continue
            if step.kind == "scalar":
                results[step.name] = int(self._session.rows(step.sql)[0][0])
            elif step.kind == "digest":
                results[step.name] = self._session.digest(step.sql, self._digested)
            elif step.hook:
                _run_hook(self._session, step)
            else:
                results[step.name] = self._session.execute(step.sql)
        results.pop("", None)
        return results


def _run_hook(session: Session, step: Step) -> None:
    """Run a statement of the user; an error names it."""
    try:
        session.execute(step.sql)
    except DponeError as error:
        what, where = step.hook or ("", "")
        error.message = f"{what}: {error.message}"
        error.where = error.where or where
        if isinstance(error, SchemaError):
            error.remedy = "correct the statement; write a table with its schema, as in schema.table"
        raise


def _equal(results: Results, names: tuple[str, str]) -> bool:
    left, right = results.get(names[0]), results.get(names[1])
    return left is not None and left == right


@dataclass(frozen=True, slots=True)
class TargetParts:
    """The live rows of a target, see `dpone.sdk.Comparable`. Columns are canonical."""

    session: Session
    target: Table
    live: Mapping[str, bool | None]

    def digests(self, columns: tuple[Column, ...], key: tuple[Column, ...], count: int) -> Mapping[int, Digest]:
        """See `Comparable.digests`."""
        return self._parts().digests(self._stored(columns), self._stored(key), count)

    def rows(
        self, columns: tuple[Column, ...], key: tuple[Column, ...], count: int, wanted: Collection[int]
    ) -> Iterator[pa.RecordBatch]:
        """See `Comparable.rows`."""
        return self._parts().rows(self._stored(columns), self._stored(key), count, wanted)

    def _stored(self, columns: tuple[Column, ...]) -> tuple[Column, ...]:
        return self.session.dialect.stored(columns, self.target.schema)

    def _parts(self) -> SqlParts:
        holds = _live(self.session.dialect, self.live)
        where = f" WHERE {' AND '.join(holds)}" if holds else ""
        return SqlParts(self.session, f"(SELECT * FROM {self.session.dialect.table(self.target)} AS t{where}) AS r")


def _live(dialect: Dialect, live: Mapping[str, bool | None]) -> list[str]:
    return [dialect.holds(f"t.{dialect.quote(name)}", value) for name, value in live.items()]


def digest_target(
    session: Session,
    target: Table,
    columns: tuple[Column, ...],
    without: tuple[tuple[Column, ...], Iterator[pa.RecordBatch]] | None = None,
    live: Mapping[str, bool | None] | None = None,
) -> Digest:
    """The digest of a target in these canonical columns, without the rows whose keys are given.

    Of a target with rows that the source does not hold, only those that are `live`: with these values in these columns.
    The keys go through a staging table inside a transaction that is rolled back.
    """
    dialect = session.dialect
    stored = dialect.stored(columns, target.schema)
    names, into = dialect.names(stored), dialect.table(target)
    holds = _live(dialect, live or {})
    if without is None:
        where = f" WHERE {' AND '.join(holds)}" if holds else ""
        return session.digest(f"(SELECT {names} FROM {into} AS t{where}) AS r", stored)
    keys = dialect.stored(without[0], target.schema)
    scratch = Table(target.schema, f"_dpone_verify_{secrets.token_hex(6)}")
    session.begin()
    try:
        parts = [f"{dialect.quote(column.name)} {column.native}" for column in keys]
        parts += [f"{SLICE} {dialect.bigint}"] + ([dialect.arrival_ddl] if dialect.arrival_ddl else [])
        session.execute(f"CREATE TABLE {dialect.table(scratch)} ({', '.join(parts)})")
        session.ingest(scratch, keys, without[1], 0)
        joined = " AND ".join(f"k.{name} = t.{name}" for name in (dialect.quote(column.name) for column in keys))
        missing = f"NOT EXISTS (SELECT 1 FROM {dialect.table(scratch)} AS k WHERE {joined})"
        where = " AND ".join([missing, *holds])
        return session.digest(f"(SELECT {dialect.names(stored, 't.')} FROM {into} AS t WHERE {where}) AS r", stored)
    finally:
        session.rollback()
