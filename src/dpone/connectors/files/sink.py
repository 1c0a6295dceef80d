"""Writing files: staged slices, one assembled file, one rename.

Readers see the old file or the new one. Replace publishes `<path>/<target>.<extension>`; append publishes one file per
load, `<path>/<target>/<load id>.<extension>`. Before the rename the intent (place, size, SHA-256, receipt) is durable;
whoever finds it finishes the rename, or recognises the published file by its hash, so a death at any point neither
loses nor doubles a row.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from dpone import stopping
from dpone.arrow.digest import digest, undigestible
from dpone.arrow.fidelity import manifest_line
from dpone.arrow.types import type_name
from dpone.connectors.files import formats, values
from dpone.connectors.files.config import STATE, FilesConfig, Layout, is_pattern, visible
from dpone.connectors.files.errors import mapped
from dpone.connectors.files.state import State, sync, sync_folder
from dpone.errors import ConfigError, ConflictError, DataError, SchemaError, StateError
from dpone.sdk import (
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
    StreamKey,
    StreamState,
    Table,
    TargetSchema,
)
from dpone.sdk.oslock import OsLock

if TYPE_CHECKING:
    from dpone.connectors.files.config import Format

_PART = re.compile(r"[0-9a-f]{32}\.(parquet|(csv|jsonl)(\.gz|\.zst)?)")  # what `Places.part` gives
_ANY = "any"  # what a column of an existing text file is: every value has a text


class FilesTypes:
    """What each format does to a canonical type. Nothing is lossy: a type without an exact form is refused."""

    def __init__(self, format_: Format) -> None:
        self._format = format_

    def native(self, column: Column, schema: str = "") -> NativeType:
        """The type's name, with what a reader has to know."""
        del schema
        type_ = values.stored(column.type) if self._format == "parquet" else column.type
        name = type_name(type_, column.logical)
        if pa.types.is_nested(column.type):
            return self._list(column, name)
        if self._format == "parquet":
            return NativeType(name)
        if pa.types.is_string(column.type) and not (column.logical == "json" and self._format == "jsonl"):
            return NativeType(name)
        return self._text(column, name)

    def accepts(self, existing: str, wanted: NativeType) -> bool:
        """Files of one target have one type per column; text files hold what any type writes."""
        return existing in (_ANY, wanted.sql)

    def _text(self, column: Column, name: str) -> NativeType:
        type_ = column.type
        if self._format == "csv":
            note = "in hexadecimal" if pa.types.is_binary(type_) else "as text; a reader needs the type"
            return NativeType(name, "widened", note)
        if column.logical == "json":
            return NativeType(name, "widened", "the JSON text, as a string")
        if pa.types.is_binary(type_):
            return NativeType(name, "widened", "a string in hexadecimal")
        if pa.types.is_temporal(type_):
            return NativeType(name, "widened", "an ISO 8601 string")
        if pa.types.is_floating(type_):
            return NativeType(name, "exact", "NaN and infinities are an error: JSON has none")
        return NativeType(name)

    def _list(self, column: Column, name: str) -> NativeType:
        item = getattr(column.type, "value_type", None)
        if item is not None and not pa.types.is_nested(item) and self._format == "parquet":
            return NativeType(name)
        if not undigestible(column):
            return NativeType(name, "exact" if self._format == "jsonl" else "widened", "a JSON array")
        way_out = manifest_line(cast={column.name: "text"})
        return NativeType(name, "refused", f"{self._format} has no exact form of {name}; read it as text: {way_out}")


class FilesSink:
    """A folder of targets, or one file."""

    def __init__(self, config: FilesConfig) -> None:
        path = Path(config.path)
        if is_pattern(config.path) and not path.exists():
            raise ConfigError(f"{config.path} is a pattern", remedy="name the folder or the file to write")
        self._file = path if config.is_one_file else None
        self._root = path.parent if self._file is not None else path
        self._layout = _written_layout(config, path.name if self._file is not None else "")
        self._locks: list[OsLock] = []

    @property
    def dialect(self) -> FilesTypes:
        """How this format stores canonical types."""
        return FilesTypes(self._layout.format)

    def describe(self, target: Table) -> TargetSchema | None:
        """The columns of what is there; types where the format knows them."""
        places = Places(self._root, self._file, self._layout, target)
        with mapped(f"looking at the target {target}", "sink"):
            found = [path for path in (places.file, *places.parts()[-1:]) if path.is_file()]
            if not found:
                return None
            return TargetSchema(_columns(found[0], self._layout))

    def last_receipt(self, key: StreamKey) -> Receipt | None:
        """The receipt beside the target."""
        with mapped(f"reading the receipt of {key.stream}", "sink"):
            return State(self._root, key).receipt()

    def standing(self, key: StreamKey, receipt: Receipt | None) -> Standing:
        """How many rows the appended files have, and whether the file of the last load is one of them."""
        places = Places(self._root, self._file, self._layout, key.target)
        with mapped(f"looking at the target {key.target}", "sink"):
            parts = places.parts()
            if not parts or (receipt is not None and receipt.extra.get("write", "append") != "append"):
                return Standing()
            rows = sum(formats.count(path, self._layout, f"the target {path}") for path in parts)
            high = receipt.extra.get("high", "") if receipt is not None else ""
            if receipt is None or not high:
                return Standing(rows)
            return Standing(rows, places.part(high) in parts, rows > receipt.rows["final"])

    def inspect(self, key: StreamKey) -> StreamState:
        """See `Inspects.inspect`."""
        state = State(self._root, key)
        holder = OsLock(state.lock, "").held_by()
        receipts: tuple[Receipt, ...] = ()
        faults: tuple[str, ...] = ()
        damaged, pending = 0, None
        with mapped(f"reading the state of {key.stream}", "sink"):
            try:
                receipt = state.receipt()
                receipts = (receipt,) if receipt is not None else ()
            except StateError as error:
                if error.code == "DP501":
                    raise
                damaged = 1
            try:
                state.intent()
                pending = state.pending(self._layout.extension)
            except StateError:
                faults = ("the open load is damaged: it is closed, and its rows are read again",)
        return StreamState(receipts, damaged, pending, holder, faults)

    def claim(self, key: StreamKey, *, run_id: str, holder: str) -> FilesClaim:
        """Take the stream's lock, and finish what a dead run had begun to publish."""
        state = State(self._root, key)
        with mapped(f"preparing {state.folder}", "sink"):
            if self._file is None:
                _need_receipts(self._root)
            state.lock.parent.mkdir(parents=True, exist_ok=True)
        lock = OsLock(state.lock, holder, run_id)
        lock.acquire()
        self._locks.append(lock)
        with mapped(f"preparing {state.folder}", "sink"):
            return FilesClaim(state, Places(self._root, self._file, self._layout, key.target), run_id, lock)

    def digest(
        self,
        target: Table,
        columns: tuple[Column, ...],
        *,
        without: tuple[tuple[Column, ...], Iterator[pa.RecordBatch]] | None = None,
        live: Mapping[str, bool | None] | None = None,
    ) -> Digest:
        """The digest of a target, for `dpone verify`; the keys of `without` are held in memory.

        Every row of a file is live: no strategy that files take keeps others.
        """
        del live
        places = Places(self._root, self._file, self._layout, target)
        with mapped(f"reading back {target}", "sink"):
            found = [path for path in (places.file, *places.parts()) if path.is_file()]
            if without is None:
                return _digest(found, self._layout, columns)
            names = [column.name for column in without[0]]
            keys = pa.Table.from_batches(without[1])
            return _digest(found, self._layout, columns, lambda batch: values.without(batch, names, keys))

    def close(self) -> None:
        """Give the locks back."""
        for lock in self._locks:
            lock.release()


class Places:
    """Where the files of a target are."""

    def __init__(self, root: Path, file: Path | None, layout: Layout, target: Table) -> None:
        for part in (target.schema, target.name):
            if "/" in part or "\0" in part or part.startswith((".", "_")) or len(part.encode()) > 200:  # noqa: PLR2004
                raise SchemaError(
                    f"{part!r} cannot be the name of a file of dpone",
                    remedy="set target: a name of at most 200 bytes without / that does not begin with . or _",
                    code="DP405",
                )
        self.root = root
        self.layout = layout
        self.single = file is not None
        self.folder = root / target.schema / target.name
        self.file = file or self.folder.with_name(target.name + layout.extension)

    def parts(self) -> list[Path]:
        """The files of an appended target, in no particular order of loading."""
        if self.single or not self.folder.is_dir():
            return []
        return [path for path in visible(self.folder.iterdir()) if path.name.endswith(self.layout.extension)]

    def part(self, load_id: str) -> Path:
        """The file of one appended load."""
        return self.folder / (load_id + self.layout.extension)


class FilesClaim:
    """The lock on one stream. Damaged state raises when it is asked for, so that `reset` is still possible."""

    def __init__(self, state: State, places: Places, run_id: str, lock: OsLock) -> None:
        self._state = state
        self._places = places
        self._lock = lock
        self._run_id = run_id
        self._problem: StateError | None = None
        self._receipt: Receipt | None = None
        self._pending: OpenLoad | None = None
        self.abandoned: tuple[str, ...] = ()
        self.notes: list[str] = []
        state.prepare()
        try:
            self.abandoned = state.run_started(run_id)
            _recover(state, places.root)
            self._receipt = state.receipt()
            self._pending = state.pending(places.layout.extension)
        except StateError as error:
            self._problem = error

    @property
    def receipt(self) -> Receipt | None:
        """The last committed load."""
        self._need_state()
        return self._receipt

    @property
    def pending(self) -> OpenLoad | None:
        """The open load that a run left behind."""
        self._need_state()
        return self._pending

    def begin(self, spec: LoadSpec) -> FilesLoad:
        """Attach to the pending load, or remove it and open `spec.load`."""
        self._need_state()
        _refuse(spec, self._places)
        _refuse_other_kinds(spec, self._receipt)
        with mapped(f"opening the load of {spec.key.stream}", "sink"):
            if self._pending is None or self._pending.load_id != spec.load.load_id:
                self._state.clear()
                self._state.open(spec.load, self._places.layout.extension)
                self._pending = spec.load
        return FilesLoad(self._state, self._places, spec)

    def record(self, run_id: str, status: str, document: str) -> None:
        """Store the run record of this stream."""
        with mapped("storing the run record", "sink"):
            self._state.run_finished(run_id, status, document)

    def reset(self) -> None:
        """Forget receipt, open load and staging."""
        with mapped("forgetting the stream", "sink"):
            self._state.forget(self._run_id)
            self._state.prepare()
        self._receipt = self._pending = self._problem = None

    def repair(self, keep: Receipt | None, *, accept: bool = False) -> None:
        """See `Claim.repair`."""
        with mapped("repairing the state of the stream", "sink"):
            if accept and keep is not None:  # no file is missed from now on
                rows = sum(formats.count(path, self._places.layout, str(path)) for path in self._places.parts())
                extra = {**keep.extra, "high": ""}
                keep = replace(keep, rows={**keep.rows, "final": rows}, extra=extra)
            if self._problem is not None or keep != self._receipt:
                self._state.clear()
                self._pending = None
            self._state.keep(keep)
        self._receipt, self._problem = keep, None

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def _need_state(self) -> None:
        if self._problem is not None:
            raise self._problem


class FilesLoad:
    """One open load."""

    def __init__(self, state: State, places: Places, spec: LoadSpec) -> None:
        self._state = state
        self._places = places
        self._layout = places.layout
        self._spec = spec
        self._proof = formats.proof_columns(spec.columns, places.layout)
        self._final = state.folder / "final"

    def stage(self, piece: Slice, batches: Iterable[pa.RecordBatch]) -> SliceReceipt:
        """Write the slice and sync it, then its receipt."""
        path = self._state.piece(piece.ordinal)
        with mapped(f"staging slice {piece.ordinal} of {self._spec.key.stream}", "sink"):
            self._state.slice_undone(piece.ordinal)
            rows = formats.write_slice(path, self._layout, self._spec.columns, batches)
            if piece.again and rows:
                path.unlink()
                raise ConflictError(
                    f"rows of {self._spec.key.stream} at or before the last checkpoint changed or came late; appending "
                    "would double the others",
                    remedy="use a database as the sink, or write: replace",
                )
            sync(path)
            receipt = SliceReceipt(piece.ordinal, rows)
            self._state.slice_done(receipt)
        return receipt

    def digest(self, piece: Slice) -> Digest:
        """The digest of a staged slice, read back from its file."""
        path = self._state.piece(piece.ordinal)
        with mapped(f"reading back slice {piece.ordinal}", "sink"):
            return _sum(formats.read_slice(path, self._layout, self._proof, path.name), self._proof)

    def commit(self, check: Callable[[Results], Receipt]) -> Receipt:
        """Assemble, read back, check, and publish by one rename."""
        with mapped(f"publishing {self._spec.key.target}", "sink"):
            stored = self._state.receipt()
        if stored is not None and stored.load_id == self._spec.load.load_id:
            return stored
        with mapped(f"publishing {self._spec.key.target}", "sink"):
            pieces = (self._state.piece(piece.ordinal) for piece in self._spec.load.slices)
            formats.assemble(self._unless_stopped(pieces), self._final, self._layout, self._spec.columns)
            results = self._results()
        receipt = check(results)
        before = stored.extra.get("high", "") if stored is not None else ""
        last = receipt.load_id if results["inserted"] else before  # the load whose file must be there from now on
        high = {"high": last} if self._spec.write == "append" else {}
        kinds = {"kinds": json.dumps(_kinds(self._spec.columns))} if self._layout.format == "jsonl" else {}
        receipt = replace(receipt, extra={**receipt.extra, "write": self._spec.write, **high, **kinds})
        with mapped(f"publishing {self._spec.key.target}", "sink"):
            self._publish(receipt, publish=bool(results["inserted"]) or self._must_exist(results))
        return receipt

    def _unless_stopped(self, pieces: Iterable[Path]) -> Iterator[Path]:
        stop = stopping.current()
        for path in pieces:
            stop.check(f"publishing {self._spec.key.target}")
            yield path

    def abort(self) -> None:
        """Drop the staging and close the load; a publication that has happened is completed instead."""
        with mapped(f"dropping the load of {self._spec.key.stream}", "sink"):
            if self._state.intent() is not None and self._final.exists():
                self._state.withdraw()
            _recover(self._state, self._places.root)
            self._state.clear()

    def _must_exist(self, results: Results) -> bool:
        """An empty replacement is published too, unless it changes nothing."""
        return self._spec.write == "replace" and results["inserted"] is not None

    def _results(self) -> Results:
        """What the strategies' steps count, by the same names."""
        known = tuple(column for column in self._spec.columns if not undigestible(column))
        whole = len(known) == len(self._spec.columns)
        before = sum(map(self._count, self._there()))
        made = None
        if self._spec.proof == "digest":
            made = _digest([self._final], self._layout, known)
        staged = formats.count(self._final, self._layout, "the staged file") if made is None else made.rows
        results: dict[str, int | Digest | None] = {"staged": staged, "before": before, "inserted": staged}
        if self._spec.write == "append":
            results |= {"final": before + staged}
        else:
            same = whole and before == staged and self._places.file.is_file() and self._unchanged(known, made)
            results |= {"inserted": None, "deleted": None} if same else {"deleted": before}
            results |= {"final": staged}
        return results if made is None else results | {"final_digest": made}

    def _there(self) -> list[Path]:
        if self._spec.write == "append":
            return self._places.parts()
        return [self._places.file] if self._places.file.is_file() else []

    def _count(self, path: Path) -> int:
        with mapped(f"counting the rows of the target {path}", "sink"):
            return formats.count(path, self._layout, f"the target {path}")

    def _unchanged(self, known: tuple[Column, ...], made: Digest | None) -> bool:
        """Whether the file that is there has the same columns and the same rows."""
        if _columns(self._places.file, self._layout) != _columns(self._final, self._layout):
            return False
        new = made if made is not None else _digest([self._final], self._layout, known)
        try:
            return new == _digest([self._places.file], self._layout, known)
        except DataError:  # it holds values of other types than the new one
            return False

    def _publish(self, receipt: Receipt, *, publish: bool) -> None:
        target = ""
        size, sha256 = 0, ""
        if publish:
            place = self._places.part(receipt.load_id) if self._spec.write == "append" else self._places.file
            place.parent.mkdir(parents=True, exist_ok=True)
            target = os.path.relpath(place, self._places.root)
            sync(self._final)
            size, sha256 = self._final.stat().st_size, _sha256(self._final)
        self._state.intend(target, size, sha256, receipt)
        _recover(self._state, self._places.root)


def _need_receipts(root: Path) -> None:
    """Refuse appended files of dpone without its own folder: without receipts all rows would be loaded once more.

    The files of every target count, for the folder is made with the first claim, whichever stream it is of.
    """
    if (root / STATE).exists():
        return
    for path in (*root.glob("*/*"), *root.glob("*/*/*")):
        if _PART.fullmatch(path.name) and path.is_file():
            raise StateError(
                f"the receipts of {path.parent} are gone: it has files of dpone, and {root} has no folder {STATE}",
                remedy=f"restore the folder {STATE}, or empty the target folder",
                code="DP502",
            )


def _recover(state: State, root: Path) -> None:
    """Finish the publication whose intent is stored, from wherever it stopped."""
    intent = state.intent()
    if intent is None:
        last, load = state.receipt(), state.pending("")
        if load is None or (last is not None and last.load_id == load.load_id):
            state.clear()
        return
    receipt: Receipt = intent["receipt"]
    target, final = intent["target"], state.folder / "final"
    last = state.receipt()
    if target and not (last is not None and last.load_id == receipt.load_id):
        place = root / target
        fingerprint = (intent["size"], intent["sha256"])
        if final.exists() and _fingerprint(final) == fingerprint:
            final.replace(place)
            sync_folder(place.parent)
        elif not place.exists() or _fingerprint(place) != fingerprint:
            raise StateError(
                f"a publication of {place} was interrupted, and what is there is not what was to be published",
                remedy="compare the file with the source; then `dpone reset`; the next run is full",
                code="DP502",
            )
    state.settle(receipt)


def _refuse(spec: LoadSpec, places: Places) -> None:
    """What this sink cannot do exactly."""
    if spec.write not in ("replace", "append") or spec.primary_key:
        what = f"write: {spec.write}" + (" by key" if spec.write == "append" else "")
        raise ConfigError(f"{what} is nothing for files", remedy="use write: replace or a database", code="DP130")
    if spec.write == "append" and places.single:
        raise ConfigError(
            f"path is the one file {places.file}, and append writes one file per load",
            remedy="set path to a folder",
            code="DP130",
        )
    other = places.folder if spec.write == "replace" else places.file
    if not places.single and (any(places.parts()) if spec.write == "replace" else other.exists()):
        raise SchemaError(
            f"the target is there as {other}, which write: {spec.write} does not write",
            remedy="give another target, or move it away",
            code="DP407",
        )
    if spec.write == "append" and (parts := places.parts()):
        have = set(_columns(parts[-1], places.layout))
        odd = sorted(have ^ {column.name for column in spec.columns})
        if odd:
            raise SchemaError(
                f"the files of {spec.key.target} and the stream differ in the column {odd[0]}",
                remedy="give another target; files of one folder have the same columns",
                code="DP406",
            )


def _refuse_other_kinds(spec: LoadSpec, last: Receipt | None) -> None:
    """Refuse to append JSONL of another kind than before: nothing but the receipt says what the files hold."""
    before = json.loads(last.extra.get("kinds", "{}")) if last is not None and spec.write == "append" else {}
    now = _kinds(spec.columns)
    odd = [
        f"{name}: was {before[name]}, would be {now[name]}" for name in now if before.get(name, now[name]) != now[name]
    ]
    if odd:
        raise SchemaError(
            f"appending to {spec.key.target} would mix kinds of values: {'; '.join(odd)}",
            remedy="cast the column to what it was (columns: {cast: {name: type}}), or give another target",
            code="DP406",
        )


def _kinds(columns: Sequence[Column]) -> dict[str, str]:
    """How JSON writes each column."""
    return {column.name: _kind(column) for column in columns}


def _kind(column: Column) -> str:
    types = pa.types
    if types.is_boolean(column.type):
        return "boolean"
    if types.is_integer(column.type) or types.is_decimal(column.type) or types.is_floating(column.type):
        return "number"
    return "json" if column.logical == "json" or types.is_nested(column.type) else "text"


def _written_layout(config: FilesConfig, name: str) -> Layout:
    """How the files are written: Parquet with zstd unless the settings or the file's name say otherwise."""
    layout = config.layout(name) if name else config.layout(f"x.{config.format or 'parquet'}")
    if layout.format == "parquet":
        return layout.model_copy(update={"compression": config.compression or "zstd"})
    if layout.format == "csv" and (layout.quote != '"' or layout.null != ("",) or not layout.header):
        raise ConfigError(
            "dpone writes CSV with a header and double quotes, and NULL as nothing at all",
            remedy="remove header, quote and null from the sink",
        )
    return layout


def _columns(path: Path, layout: Layout) -> dict[str, str]:
    """The columns of a file: name to type, or to `any` where only a reader knows."""
    if layout.format == "parquet":
        schema, _ = formats.parquet_schema(path, path.name)
        found = [(field.type, values.canonical(field)) for field in schema]
        return {column.name: type_name(values.with_unit(type_, column.type), column.logical) for type_, column in found}
    if layout.format == "csv":
        names, blocks = formats.csv_blocks(path, layout, path.name)
        blocks.close()
        return dict.fromkeys(names, _ANY)
    with formats.open_bytes(path, layout) as stream:
        objects, _ = formats.sample_json(stream, 1, 1, path.name)
    return dict.fromkeys(objects[0] if objects else (), _ANY)


def _digest(
    paths: Sequence[Path],
    layout: Layout,
    columns: tuple[Column, ...],
    keep: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda batch: batch,
) -> Digest:
    """The digest of files that dpone wrote, read back."""
    known = formats.proof_columns(columns, layout)
    return sum((_sum(map(keep, formats.read_known(path, layout, known, path.name)), known) for path in paths), Digest())


def _sum(batches: Iterable[pa.RecordBatch], columns: tuple[Column, ...]) -> Digest:
    kept = [index for index, column in enumerate(columns) if not undigestible(column)]
    return digest(tuple(columns[index] for index in kept), (batch.select(kept) for batch in batches))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fingerprint(path: Path) -> tuple[int, str]:
    return path.stat().st_size, _sha256(path)
