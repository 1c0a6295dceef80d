"""Writing to tables in memory: the interfaces of a sink, and each strategy as a few lines over rows.

A death leaves what was staged and open, as it would on a disk; the lock goes with its holder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dpone.arrow.digest import digest, undigestible
from dpone.arrow.parts import ReadParts
from dpone.arrow.types import UTC, arrow_schema, type_name
from dpone.errors import ConflictError, SchemaError, StateError
from dpone.sdk import (
    Column,
    Digest,
    Holder,
    LoadSpec,
    NativeType,
    OpenLoad,
    Receipt,
    Results,
    Slice,
    SliceReceipt,
    Standing,
    StreamKey,
    StreamState,
    Table,
    TargetSchema,
)
from dpone.testing.memory.place import Held, Kept, MemoryConfig, Place, place

_NULL: tuple[Any, ...] = (0,)  # a cursor that is NULL, before every other


class MemoryTypes:
    """Every canonical type is stored as it is."""

    def native(self, column: Column, schema: str = "") -> NativeType:
        """The canonical type's own name."""
        del schema
        return NativeType(type_name(column.type, column.logical))

    def accepts(self, existing: str, wanted: NativeType) -> bool:
        """Only the same type."""
        return existing == wanted.sql


class MemorySink:
    """The tables of one place."""

    def __init__(self, config: MemoryConfig) -> None:
        self._place = place(config.place)
        self._claims: list[MemoryClaim] = []
        self.dialect = MemoryTypes()

    def describe(self, target: Table) -> TargetSchema | None:
        """The columns of a table, or None."""
        held = self._place.tables.get(str(target))
        if held is None:
            return None
        return TargetSchema({column.name: type_name(column.type, column.logical) for column in held.columns})

    def compared(self, target: Table, live: Mapping[str, bool | None]) -> ReadParts:
        """See `dpone.sdk.ComparesTarget`."""
        table = self._place.tables[str(target)].table
        for name, value in live.items():
            table = table.filter(pc.is_null(table[name]) if value is None else pc.equal(table[name], value))
        return ReadParts(lambda columns: iter(table.select([column.name for column in columns]).to_batches()))

    def last_receipt(self, key: StreamKey) -> Receipt | None:
        """The newest receipt."""
        return _receipt(self._place, self._place.state(str(key)))

    def standing(self, key: StreamKey, receipt: Receipt | None) -> Standing:
        """How many rows there are, and whether the greatest cursor is the one that the receipt knows."""
        state, held = self._place.state(str(key)), self._place.tables.get(str(key.target))
        if held is None:
            return Standing()
        others = (
            other for other, found in self._place.states.items() if other.endswith(f"|{key.target}") and found.receipts
        )
        neighbours = tuple(sorted(set(others) - {str(key)}))
        extra = receipt.extra if receipt is not None else {}
        cursor, high = extra.get("cursor", ""), extra.get("high", "")
        if not cursor or not high:
            return Standing(len(held.table), missing=state.missing, neighbours=neighbours)
        values = [value for (_, *value) in _order(held.table, cursor) if value]
        known = json.loads(high)
        return Standing(len(held.table), known in values, any(v > known for v in values), state.missing, neighbours)

    def inspect(self, key: StreamKey) -> StreamState:
        """What there is; all of it or nothing is damaged."""
        state = self._place.state(str(key))
        if state.damaged == "newer":
            _check(state)
        holder = Holder("", state.holder) if state.lock.locked() else None
        if state.damaged:
            return StreamState(damaged=len(state.receipts), holder=holder)
        return StreamState(tuple(reversed(state.receipts)), 0, state.open, holder)

    def claim(self, key: StreamKey, *, run_id: str, holder: str) -> MemoryClaim:
        """Take the stream's lock."""
        self._place.script("claim")
        state = self._place.state(str(key))
        if not state.lock.acquire(blocking=False):
            raise ConflictError(
                f"stream {key.stream} is held by {state.holder}",
                remedy="wait for that run to end, or let this one wait for it (--wait)",
                code="DP701",
                retryable=True,
            )
        state.holder = f"run {run_id} ({holder})"
        claim = MemoryClaim(self._place, key, state, run_id)
        self._claims.append(claim)
        return claim

    def digest(
        self,
        target: Table,
        columns: tuple[Column, ...],
        *,
        without: tuple[tuple[Column, ...], Iterator[pa.RecordBatch]] | None = None,
        live: Mapping[str, bool | None] | None = None,
    ) -> Digest:
        """The digest of a table, of its live rows, without those of the given keys."""
        held = self._place.tables[str(target)]
        table = held.table
        for name, value in (live or {}).items():
            at = enumerate(table.column(name).to_pylist())
            table = _take(table, [index for index, found in at if found is value])
        if without is not None:
            names = [column.name for column in without[0]]
            gone = {row for batch in without[1] for row in _rows(pa.Table.from_batches([batch]))}
            keys = _rows(table.select(names))
            table = _take(table, [index for index, key in enumerate(keys) if key not in gone])
        return _digest(columns, table)

    def close(self) -> None:
        """Give the locks back."""
        for claim in self._claims:
            claim.release()


class MemoryClaim:
    """The lock on one stream."""

    def __init__(self, home: Place, key: StreamKey, state: Kept, run_id: str) -> None:
        self._place = home
        self._key = key
        self._state = state
        self._held = True
        self.notes: list[str] = []
        state.fence += 1
        self._fence = state.fence
        self.abandoned = tuple(run for run, (status, _) in state.runs.items() if status == "running" and run != run_id)
        for run in self.abandoned:
            state.runs[run] = ("abandoned", state.runs[run][1])
        state.runs[run_id] = ("running", "")

    @property
    def receipt(self) -> Receipt | None:
        """The last committed load."""
        return _receipt(self._place, self._state)

    @property
    def pending(self) -> OpenLoad | None:
        """The open load, with its durable slices."""
        _check(self._state)
        pending = self._state.open
        if pending is None:
            return None
        done = {number: SliceReceipt(number, table.num_rows) for number, table in self._state.staged.items()}
        return replace(pending, progress=done)

    def begin(self, spec: LoadSpec) -> MemoryLoad:
        """Attach to the open load, or open this one."""
        spec = self._place.script("begin", spec)
        held = self._place.tables.get(str(spec.key.target))
        filled = {c.name for c in (*spec.columns, *spec.managed)}
        extra = {c.name for c in held.columns} - filled if held else set()
        if extra and spec.write != "replace":
            raise SchemaError(
                f"{spec.key.target} has the column {min(extra)}, which the stream leaves out",
                remedy="give another target: a table in memory is written whole",
                code="DP406",
            )
        if self._state.open is None or self._state.open.load_id != spec.load.load_id:
            self._state.open, self._state.staged = spec.load, {}
        return MemoryLoad(self._place, self._state, self._fence, spec)

    def record(self, run_id: str, status: str, document: str) -> None:
        """Store the run record."""
        self._state.runs[run_id] = (status, document)

    def reset(self) -> None:
        """Forget the stream."""
        self._state.receipts, self._state.open, self._state.staged, self._state.damaged = [], None, {}, ""
        self._state.missing = False

    def repair(self, keep: Receipt | None, *, accept: bool = False) -> None:
        """Make a receipt the last one."""
        if accept and keep is not None:
            table = self._place.tables[str(self._key.target)].table
            rows = {**keep.rows, "final": len(table)}
            keep = replace(keep, rows=rows, extra={**keep.extra, **_mark(table, keep.extra.get("cursor", ""))})
        kept = [receipt.load_id for receipt in self._state.receipts]
        receipts = self._state.receipts[: kept.index(keep.load_id)] if keep is not None else []
        if self._state.damaged or [*receipts, keep] != self._state.receipts:
            self._state.open, self._state.staged = None, {}
        self._state.receipts = [*receipts, keep] if keep is not None else []
        self._state.damaged, self._state.missing = "", False

    def release(self) -> None:
        """Give the lock back."""
        if self._held:
            self._held = False
            self._state.lock.release()


class MemoryLoad:
    """One open load."""

    def __init__(self, home: Place, state: Kept, fence: int, spec: LoadSpec) -> None:
        self._place = home
        self._state = state
        self._fence = fence
        self._spec = spec

    def stage(self, piece: Slice, batches: Iterable[pa.RecordBatch]) -> SliceReceipt:
        """Keep the rows of a slice."""
        schema = arrow_schema(self._spec.columns)
        arrived = [self._place.script("stage", batch) for batch in batches]
        self._guard()
        table = pa.Table.from_batches(arrived, schema)
        self._state.staged[piece.ordinal] = table
        receipt: SliceReceipt = self._place.script("staged", SliceReceipt(piece.ordinal, table.num_rows))
        return receipt

    def digest(self, piece: Slice) -> Digest:
        """The digest of the rows of a slice."""
        found: Digest = self._place.script("digest", self._digest(self._state.staged[piece.ordinal]))
        return found

    def commit(self, check: Callable[[Results], Receipt]) -> Receipt:
        """Publish the table and the receipt in one act."""
        stored = _receipt(self._place, self._state)
        if stored is not None and stored.load_id == self._spec.load.load_id:
            return stored
        with self._place.guard:
            self._guard()
            target = str(self._spec.key.target)
            final, results = self._published(self._place.tables.get(target))
            receipt: Receipt = self._place.script("commit", check(self._place.script("results", results)))
            there = final if final is not None else self._place.tables[target].table
            extra = {**receipt.extra, "write": self._spec.write, **_mark(there, self._spec.cursor)}
            receipt = replace(receipt, extra=extra)
            if final is not None:
                columns = (*self._spec.columns, *self._spec.managed)
                self._place.put(target, columns, final.to_batches(), self._spec.primary_key)
            self._state.receipts.append(receipt)
            self._state.open, self._state.staged = None, {}
        self._place.script("committed", receipt)
        return receipt

    def abort(self) -> None:
        """Drop what was staged."""
        self._place.script("abort")
        self._guard()
        self._state.open, self._state.staged = None, {}

    def _guard(self) -> None:
        if self._state.fence != self._fence:
            raise ConflictError(
                f"stream {self._spec.key.stream} was taken over by {self._state.holder}",
                remedy="nothing was written; that run goes on",
            )

    def _digest(self, table: pa.Table) -> Digest:
        return _digest(self._spec.columns, table)

    def _published(self, held: Held | None) -> tuple[pa.Table | None, Results]:
        """The table after the publication, None for one that stays as it is, and what the strategies count."""
        schema = arrow_schema(self._spec.columns)
        beside = {piece.ordinal for piece in self._spec.load.slices if piece.holds in ("gone", "back")}
        arrived = [self._state.staged[n] for n in sorted(self._state.staged) if n not in beside]
        staged = pa.concat_tables([schema.empty_table(), *arrived])
        before = held.table if held is not None else schema.empty_table()
        whole = arrow_schema((*self._spec.columns, *self._spec.managed))
        old = pa.Table.from_arrays([_column(before, field) for field in whole], schema=whole)
        results: dict[str, int | Digest | None] = {"staged": len(staged), "before": len(old)}
        publish = {
            "replace": self._replace,
            "append": self._append_new if self._spec.primary_key else self._append,
            "merge": self._merge,
            "delete_insert": self._delete_insert,
            "scd2": self._scd2,
        }[self._spec.write]
        results |= {"deleted": 0, "soft_deleted": 0, "reactivated": 0}
        final, found = publish(self._after_deletes(old, staged, results), staged)
        unchanged = final is None
        final = old if final is None else final
        results |= {"final": len(final), "final_digest": self._digest(final)}
        results |= found
        return (None if unchanged and held is not None else final), results

    def _after_deletes(self, old: pa.Table, staged: pa.Table, results: dict[str, int | Digest | None]) -> pa.Table:
        """The target without the rows that are gone at the source, or with their marks."""
        key = list(self._spec.primary_key)
        pieces = self._spec.load.slices
        staged_keys = [(piece.holds, _rows(self._state.staged[piece.ordinal].select(key))) for piece in pieces]
        gone, back = (
            {row for held, rows in staged_keys if held == holds for row in rows} for holds in ("gone", "back")
        )
        if not gone | back:
            return old
        there, read = _rows(old.select(key)), set(_rows(staged.select(key)))
        if self._spec.deletes == "hard":
            kept = [index for index, row in enumerate(there) if row not in gone]
            results["deleted"] = len(there) - len(kept)
            return _take(old, kept)
        opened = datetime.fromisoformat(self._spec.load.opened_at)
        columns = {column.name: old.column(column.name).to_pylist() for column in self._spec.managed}
        if self._spec.write == "scd2":
            begins, ends, current = columns.values()
            ended = [index for index, row in enumerate(there) if row in gone and current[index]]
            for index in ended:
                current[index], ends[index] = False, max(opened, begins[index] + timedelta(microseconds=1))
            results["soft_deleted"] = len(ended)
        else:
            (marks,) = columns.values()
            marked = [index for index, row in enumerate(there) if row in gone and marks[index] is None]
            cleared = [index for index, row in enumerate(there) if row in back - read and marks[index] is not None]
            for indices, value in ((marked, opened), (cleared, None)):
                for index in indices:
                    marks[index] = value
            results |= {"soft_deleted": len(marked), "reactivated": len(cleared)}
        for column in self._spec.managed:
            place = old.schema.get_field_index(column.name)
            old = old.set_column(place, old.schema.field(place), pa.array(columns[column.name], column.type))
        return old

    def _replace(self, old: pa.Table, staged: pa.Table) -> tuple[pa.Table | None, dict[str, int | Digest | None]]:
        comparable = not any(undigestible(column) for column in self._spec.columns)
        if comparable and len(old) == len(staged) and self._digest(old) == self._digest(staged):
            return None, {"inserted": None, "deleted": None}
        return staged, {"inserted": len(staged), "deleted": len(old)}

    def _append(self, old: pa.Table, staged: pa.Table) -> tuple[pa.Table | None, dict[str, int | Digest | None]]:
        """Rows that were read again are matched with those that are there, one by one."""
        told = list(self._spec.version) or staged.column_names
        again = {piece.ordinal for piece in self._spec.load.slices if piece.again}
        sizes = [(number, len(self._state.staged[number])) for number in sorted(self._state.staged)]
        read_again = [number in again for number, size in sizes for _ in range(size)]
        known: list[int] = []
        there = _rows(old.select(told)) if again else []
        for index, row in enumerate(_rows(staged.select(told))):
            if read_again[index] and row in there:
                there.remove(row)
                known.append(index)
        new = _take(staged, [index for index in range(len(staged)) if index not in set(known)])
        return pa.concat_tables([old, new]), {
            "inserted": len(new),
            "unchanged": len(known),
            "before_digest": self._digest(old),
            "unchanged_digest": self._digest(_take(staged, known)),
        }

    def _latest(self, staged: pa.Table) -> tuple[dict[tuple[Any, ...], int], list[int]]:
        """Where the latest version of each key is: by cursor, then by arrival. And where the others are."""
        at = _order(staged, self._spec.cursor)
        latest: dict[tuple[Any, ...], int] = {}
        for index, row in enumerate(_rows(staged.select(list(self._spec.primary_key)))):
            if row not in latest or at[index] >= at[latest[row]]:
                latest[row] = index
        return latest, sorted(set(range(len(staged))) - set(latest.values()))

    def _append_new(self, old: pa.Table, staged: pa.Table) -> tuple[pa.Table | None, dict[str, int | Digest | None]]:
        """Keys that are there, or come a second time, are left out."""
        latest, collapsed = self._latest(staged)
        there = set(_rows(old.select(list(self._spec.primary_key))))
        known = [index for row, index in latest.items() if row in there]
        new = _take(staged, sorted(set(latest.values()) - set(known)))
        return pa.concat_tables([old, new]), {
            "keyed": sum(None not in row for row in latest) + len(collapsed),
            "inserted": len(new),
            "unchanged": len(known),
            "collapsed": len(collapsed),
            "before_digest": self._digest(old),
            "unchanged_digest": self._digest(_take(staged, known)),
            "collapsed_digest": self._digest(_take(staged, collapsed)),
        }

    def _delete_insert(self, old: pa.Table, staged: pa.Table) -> tuple[pa.Table | None, dict[str, int | Digest | None]]:
        """The rows that are in the partitions, or in the window of the cursor, of the staged ones."""
        if self._spec.partition_by:
            parts = list(self._spec.partition_by)
            found = set(_rows(staged.select(parts)))
            hit = [row in found for row in _rows(old.select(parts))]
        else:
            at = _order(staged, self._spec.cursor)
            known = [value for value in at if value != _NULL]
            low, high = min(known, default=_NULL), max(known, default=_NULL)
            there = _order(old, self._spec.cursor)
            hit = [value in at if value == _NULL else low <= value <= high for value in there]
        inside = _take(old, [index for index, is_hit in enumerate(hit) if is_hit])
        rows: dict[str, int | Digest | None] = {"inside": len(staged), "final_digest": self._digest(staged)}
        comparable = not any(undigestible(column) for column in self._spec.columns)
        if comparable and len(inside) == len(staged) and self._digest(inside) == self._digest(staged):
            return None, {"inserted": None, "deleted": None} | rows
        kept = _take(old, [index for index, is_hit in enumerate(hit) if not is_hit])
        return pa.concat_tables([kept, staged]), {"inserted": len(staged), "deleted": len(inside)} | rows

    def _scd2(self, old: pa.Table, staged: pa.Table) -> tuple[pa.Table | None, dict[str, int | Digest | None]]:
        """Versions as lists of values: those of the stream, then from, to, current; times in microseconds."""
        names = [column.name for column in self._spec.columns]
        keys, old_keys = (_rows(table.select(list(self._spec.primary_key))) for table in (staged, old))
        begin, end, current = (list(old.column(column.name)) for column in self._spec.managed)
        starts, ends = ([None if v.value is None else int(v.value) for v in column] for column in (begin, end))
        live = [bool(value.as_py()) for value in current]
        at, old_at = _order(staged, self._spec.cursor), _order(old, self._spec.cursor)
        new_rows, old_rows = _rows(staged), _rows(old.select(names))
        there = {row: index for index, row in enumerate(old_keys) if live[index]}
        latest, collapsed = self._latest(staged)
        began = self._begins(staged)
        stale, unchanged, inserted, closed = [], 0, [], 0
        for row, index in latest.items():
            held = there.get(row)
            if held is not None and old_at[held] > at[index]:
                stale.append(index)
                continue
            if held is not None and old_rows[held] == new_rows[index]:
                unchanged += 1
                continue
            if held is not None:
                last = starts[held] or 0
                ends[held], live[held] = began[index] if last < began[index] else last + 1, False
                closed += 1
            ended = [end for key, end in zip(old_keys, ends, strict=True) if key == row and end is not None]
            inserted.append(index)
            starts.append(max([began[index], *ended]))
        stream = pa.concat_tables([old.select(names), _take(staged, inserted)])
        new = len(inserted)
        final = stream
        for column, values in zip(
            self._spec.managed, (starts, [*ends, *[None] * new], [*live, *[True] * new]), strict=True
        ):
            final = final.append_column(column.name, pa.array(values, column.type))
        final_keys = _rows(final.select(list(self._spec.primary_key)))
        applied = {keys[index] for index in latest.values()} - {keys[index] for index in stale}
        is_applied = [row in applied and here for row, here in zip(final_keys, [*live, *[True] * new], strict=True)]
        return final.cast(arrow_schema((*self._spec.columns, *self._spec.managed))), {
            "keyed": sum(None not in row for row in keys),
            "inserted": new,
            "closed": closed,
            "unchanged": unchanged,
            "stale": len(stale),
            "collapsed": len(collapsed),
            "applied_digest": self._digest(_take(final, [index for index, hit in enumerate(is_applied) if hit])),
            "collapsed_digest": self._digest(_take(staged, collapsed)),
            "stale_digest": self._digest(_take(staged, stale)),
        }

    def _begins(self, staged: pa.Table) -> list[int]:
        """When the version of each row begins, in microseconds: at its cursor if that is a time, else with the load."""
        opened = int(pa.scalar(datetime.fromisoformat(self._spec.load.opened_at), pa.timestamp("us", UTC)).value)
        type_ = staged.schema.field(self._spec.cursor).type if self._spec.cursor else pa.null()
        if not (pa.types.is_timestamp(type_) or pa.types.is_date(type_)):
            return [opened] * len(staged)
        micros = staged.column(self._spec.cursor).cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        return [opened if value is None else value for value in micros.to_pylist()]

    def _merge(self, old: pa.Table, staged: pa.Table) -> tuple[pa.Table | None, dict[str, int | Digest | None]]:
        key = list(self._spec.primary_key)
        marks = old.select([column.name for column in self._spec.managed])
        marked = marks.column(0).is_valid().to_pylist() if marks.num_columns else [False] * len(old)
        old = old.select([column.name for column in self._spec.columns])
        keys, there = _rows(staged.select(key)), {row: index for index, row in enumerate(_rows(old.select(key)))}
        at = _order(staged, self._spec.cursor)
        latest, collapsed = self._latest(staged)
        old_at, old_rows, new_rows = _order(old, self._spec.cursor), _rows(old), _rows(staged)
        stale, unchanged, updated, inserted = [], 0, [], []
        for row, index in latest.items():
            if row not in there:
                inserted.append(index)
            elif old_at[there[row]] > at[index] and not marked[there[row]]:
                stale.append(index)
            elif old_rows[there[row]] == new_rows[index]:
                unchanged += 1
            else:
                updated.append(index)
        gone = {there[keys[index]] for index in updated}
        kept = _take(old, [index for index in range(len(old)) if index not in gone])
        final = pa.concat_tables([kept, _take(staged, sorted([*updated, *inserted]))])
        final_rows = _rows(final.select(key))
        applied = {keys[index] for index in latest.values()} - {keys[index] for index in stale}
        back = 0
        for column in marks.schema:
            held = dict(zip(there, marks.column(column.name).to_pylist(), strict=True))
            back = sum(held.get(row) is not None for row in applied)
            values = [None if row in applied else held.get(row) for row in final_rows]
            final = final.append_column(column, pa.array(values, column.type))
        return final, {
            "keyed": sum(None not in row for row in keys),
            "returned": back,
            "inserted": len(inserted),
            "updated": len(updated),
            "unchanged": unchanged,
            "stale": len(stale),
            "collapsed": len(collapsed),
            "applied_digest": self._digest(
                _take(final, [index for index, row in enumerate(final_rows) if row in applied])
            ),
            "collapsed_digest": self._digest(_take(staged, collapsed)),
            "stale_digest": self._digest(_take(staged, stale)),
        }


def _receipt(home: Place, state: Kept) -> Receipt | None:
    _check(state)
    receipt: Receipt | None = home.script("receipt", state.receipts[-1] if state.receipts else None)
    return receipt


def _mark(table: pa.Table, cursor: str) -> dict[str, str]:
    """What `standing` looks for: the greatest cursor value."""
    if not cursor:
        return {}
    highest: list[Any] = max((value for _, *value in _order(table, cursor)), default=[])
    return {"high": json.dumps(highest, default=float) if highest else ""}


def _check(state: Kept) -> None:
    if state.damaged:
        newer = state.damaged == "newer"
        raise StateError(
            f"the state in memory is {state.damaged}",
            remedy="use the dpone version that wrote it"
            if newer
            else "`dpone repair` mends it, `dpone reset` forgets this stream's state",
            code="DP501" if newer else "DP502",
        )


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name in table.column_names:
        return table.column(field.name)
    return pa.chunked_array([pa.nulls(len(table), field.type)], field.type)


def _take(table: pa.Table, indices: Sequence[int]) -> pa.Table:
    return table.take(pa.array(indices, pa.int64()))


def _digest(columns: Sequence[Column], table: pa.Table) -> Digest:
    known = tuple(column for column in columns if not undigestible(column))
    return digest(known, table.select([column.name for column in known]).to_batches())


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    """Every row as values that are equal exactly when they are the same: floats by their bits, times as numbers."""
    return list(zip(*(_plain(column) for column in table.columns), strict=True))


def _plain(column: pa.ChunkedArray) -> list[Any]:
    array, type_ = column.combine_chunks(), column.type
    if pa.types.is_float32(type_) or pa.types.is_date32(type_) or pa.types.is_time32(type_):
        return list(array.view(pa.int32()).to_pylist())
    if pa.types.is_floating(type_) or pa.types.is_temporal(type_):
        return list(array.view(pa.int64()).to_pylist())
    if pa.types.is_nested(type_):
        return [None if value is None else repr(value) for value in array.to_pylist()]
    return list(array.to_pylist())


def _order(table: pa.Table, cursor: str) -> list[Any]:
    """What sorts the rows by their cursor, NULL first; all alike without one."""
    if not cursor:
        return [_NULL] * len(table)
    return [_NULL if value is None else (1, value) for value in _plain(table.column(cursor))]
