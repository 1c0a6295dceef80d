"""Reading files: which files a stream is, what columns they have, one snapshot of a window of them.

A cursor window is a full scan with a filter: files have no index, so every run reads all of them.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dpone.arrow.digest import Digester, undigestible
from dpone.arrow.fidelity import manifest_line
from dpone.arrow.parts import ReadParts
from dpone.arrow.types import parse_type, type_name
from dpone.connectors.files import formats, values
from dpone.connectors.files.config import is_pattern, parse_name, stem, visible
from dpone.connectors.files.errors import mapped
from dpone.errors import ConfigError, DataError, SchemaError
from dpone.sdk import Column, Digest, Slice, Stream, StreamSchema, Window
from dpone.sql.source import choose_columns, no_lookback

if TYPE_CHECKING:
    from dpone.connectors.files.config import FilesConfig, Layout

_SAMPLE_BYTES = 32 << 20
_LEAST_SAMPLE = 1_000  # rows of each file, however many files there are


@dataclass(frozen=True, slots=True)
class File:
    """One file of a stream, as it was when the stream was looked at."""

    name: str
    path: Path
    layout: Layout
    size: int
    changed: int

    def same(self) -> bool:
        """Whether size and time of change are still those."""
        stat = self.path.stat()
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.changed)


@dataclass(frozen=True, slots=True)
class Found:
    """What one look at a stream gave: its files, all columns, and the rows where they are known or can be guessed."""

    files: tuple[File, ...]
    columns: tuple[Column, ...]
    rows: int | None
    groups: tuple[tuple[int, ...], ...] = ()  # rows of each row group of each Parquet file


class FilesSource:
    """A folder, a file, or the files of a pattern."""

    def __init__(self, config: FilesConfig) -> None:
        self._config = config
        self._found: dict[str, Found] = {}

    def describe(self, stream: Stream) -> StreamSchema:
        """The columns: of Parquet as written, of text as `dpone.connectors.files.values.infer` finds them."""
        found = self._look(stream)
        columns = tuple(
            _declared(column, stream.casts[column.name], found.files[0]) if column.name in stream.casts else column
            for column in choose_columns(replace(stream, casts={}), found.columns)
        )
        unknown = replace(stream, include=tuple(stream.casts), cursor="", primary_key=(), exclude=(), casts={})
        choose_columns(unknown, found.columns)
        return StreamSchema(columns, estimated_rows=found.rows)

    def open(self, stream: Stream, schema: StreamSchema, window: Window) -> FilesReading:
        """A reading of the files as they are now."""
        found = self._look(stream)
        return FilesReading(stream, schema, window, found)

    def discover(self) -> Sequence[str]:
        """Files without their extensions, and folders of files, directly in the path."""
        root = Path(self._config.path)
        if self._config.is_glob or root.is_file():
            return (stem(root.name),)
        with mapped(f"listing {root}", "source"):
            entries = visible(root.iterdir())
            names = {stem(entry.name) for entry in entries if entry.is_file() and self._is_data(entry)}
            names |= {entry.name for entry in entries if entry.is_dir() and any(map(self._is_data, entry.iterdir()))}
        return tuple(sorted(names))

    def close(self) -> None:
        """Nothing is held open between two calls."""

    # -- which files -------------------------------------------------------------------------------------------

    def _is_data(self, path: Path) -> bool:
        return parse_name(path.name)[1] is not None and not path.name.startswith((".", "_"))

    def _files(self, stream: Stream) -> tuple[File, ...]:
        with mapped(f"listing {self._config.path}", "source"):
            root, paths = self._resolve(stream)
            files = []
            for path in paths:
                stat = path.stat()
                name = path.relative_to(root).as_posix()
                files.append(File(name, path, self._config.layout(path.name), stat.st_size, stat.st_mtime_ns))
        formats_ = sorted({file.layout.format for file in files})
        if len(formats_) > 1:
            raise SchemaError(
                f"stream {stream.name} has files of several formats: {', '.join(formats_)}",
                remedy="read them as streams of their own, for example path: data/*.csv",
            )
        return tuple(sorted(files, key=lambda file: file.name))

    def _resolve(self, stream: Stream) -> tuple[Path, list[Path]]:
        path = Path(self._config.path)
        if self._config.is_glob and not path.exists():
            parts = path.parts
            first = next(index for index, part in enumerate(parts) if is_pattern(part))
            root = Path(*parts[:first])
            found = sorted(
                entry
                for entry in root.glob(str(Path(*parts[first:])))
                if entry.is_file() and not any(part.startswith((".", "_")) for part in entry.relative_to(root).parts)
            )
            if not found:
                raise SchemaError(f"no file matches {path}", remedy="check the pattern", code="DP401")
            return root, found
        if path.is_file():
            return path.parent, [path]
        if not path.is_dir():
            raise SchemaError(
                f"there is no file or folder {path}",
                remedy="check path; a relative one starts at the folder of the manifest",
                code="DP401",
            )
        return path, self._in_folder(path, stream.name)

    def _in_folder(self, root: Path, name: str) -> list[Path]:
        exact = root / name
        candidates = [exact] if exact.exists() and not exact.name.startswith((".", "_")) else []
        if exact.parent.is_dir():
            candidates += [
                entry
                for entry in visible(exact.parent.iterdir())
                if entry != exact and entry.is_file() and self._is_data(entry) and stem(entry.name) == exact.name
            ]
        if not candidates:
            known = self.discover()
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known[:10]) or 'no data files'}"
            raise SchemaError(f"{root} has no stream {name}", remedy=hint, code="DP401")
        if len(candidates) > 1:
            raise SchemaError(
                f"stream {name} could be {' or '.join(entry.name for entry in candidates)} in {root}",
                remedy="name the file with its extension, or remove one",
                code="DP401",
            )
        return self._folder_files(candidates[0]) if candidates[0].is_dir() else candidates

    def _folder_files(self, folder: Path) -> list[Path]:
        entries = visible(folder.iterdir())
        nested = [entry.name for entry in entries if entry.is_dir()]
        if nested:
            raise SchemaError(
                f"{folder} has the folder {nested[0]}; values in folder names would be lost",
                remedy=f"set path to a pattern if they are not needed: {folder}/**/*.parquet",
            )
        files = [entry for entry in entries if self._is_data(entry) or self._config.format is not None]
        if not files:
            raise SchemaError(f"{folder} has no data files", remedy="check path, or set format", code="DP401")
        if len(files) < len(entries):
            odd = next(entry.name for entry in entries if entry not in files)
            raise SchemaError(
                f"{folder} has the file {odd}, whose extension does not say what it is",
                remedy="set format, set path to a pattern, or move it away",
                code="DP401",
            )
        return files

    # -- which columns -----------------------------------------------------------------------------------------

    def _look(self, stream: Stream) -> Found:
        files = self._files(stream)
        known = self._found.get(stream.name)
        if known is not None and known.files == files:
            return known
        look = {"csv": self._look_csv, "jsonl": self._look_jsonl, "parquet": self._look_parquet}[files[0].layout.format]
        found = look(files)
        columns = tuple(
            _declared(column, self._config.types[column.name], files[0])
            if column.name in self._config.types
            else column
            for column in found.columns
        )
        self._found[stream.name] = found = replace(found, columns=columns)
        return found

    def _sample_rows(self, files: Sequence[File]) -> int:
        return max(_LEAST_SAMPLE, self._config.sample_rows // len(files))

    def _look_csv(self, files: tuple[File, ...]) -> Found:
        names: tuple[str, ...] = ()
        texts: dict[str, list[pa.Array]] = {}
        rows = size = 0
        for file in files:
            with _looking(file):
                here, blocks = formats.csv_blocks(file.path, file.layout, file.name)
                if names and set(here) != set(names):
                    odd = sorted(set(here) ^ set(names))
                    raise _other_columns(file, files[0], odd[0])
                names = names or here
                left, left_bytes = self._sample_rows(files), _SAMPLE_BYTES
                for block in blocks:
                    found = formats.csv_texts(block, here, here, file.layout, file.name)
                    count = len(found[here[0]])
                    rows, size = rows + count, size + len(block.data)
                    for name, array in found.items():
                        texts.setdefault(name, []).append(array.slice(0, left))
                    left, left_bytes = left - count, left_bytes - len(block.data)
                    if left <= 0 or left_bytes <= 0:
                        break
        columns = tuple(
            values.infer(name, pa.concat_arrays(texts[name]) if name in texts else pa.array([], pa.string()))
            for name in names
        )
        return Found(files, columns, _guess(files, rows, size))

    def _look_jsonl(self, files: tuple[File, ...]) -> Found:
        objects: list[dict[str, Any]] = []
        size = 0
        for file in files:
            with _looking(file), formats.open_bytes(file.path, file.layout) as stream:
                sampled, taken = formats.sample_json(stream, self._sample_rows(files), _SAMPLE_BYTES, file.name)
            objects += sampled
            size += taken
        columns = _infer_json(objects)
        if not columns:
            raise SchemaError(
                f"{files[0].name}: there is no row to take the columns from", remedy="load it when it has rows"
            )
        return Found(files, columns, _guess(files, len(objects), size))

    def _look_parquet(self, files: tuple[File, ...]) -> Found:
        columns: tuple[Column, ...] = ()
        groups = []
        units = set()
        for file in files:
            with _looking(file):
                units.add(formats.int96_unit({file.name: file.path}))
        unit = "ns" if "ns" in units else "us"
        for file in files:
            with _looking(file):
                schema, footer = formats.parquet_schema(file.path, file.name, unit)
            here = tuple(values.canonical(field) for field in schema)
            if columns:
                _same_columns(columns, here, file, files[0], self._config.types)
            nullable = {column.name for column in (*columns, *here) if column.nullable}
            columns = tuple(replace(column, nullable=column.name in nullable) for column in columns or here)
            groups.append(tuple(footer.row_group(index).num_rows for index in range(footer.num_row_groups)))
        return Found(files, columns, sum(map(sum, groups)), tuple(groups))


def _looking(file: File) -> AbstractContextManager[None]:
    return mapped(f"reading the columns of {file.name}", "source")


def _infer_json(objects: Iterable[dict[str, Any]]) -> tuple[Column, ...]:
    """The columns of sampled JSON objects, in order of first appearance."""
    found: dict[str, list[Any]] = {}
    for row in objects:
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return tuple(_json_column(name, sample) for name, sample in found.items())


def _json_column(name: str, sample: list[Any]) -> Column:
    kinds = set(map(type, sample)) - {type(None)}
    if kinds <= {str}:
        return Column(name, pa.string(), native="json string")
    if kinds == {bool}:
        return Column(name, pa.bool_(), native="json boolean")
    if kinds == {int} and all(-(2**63) <= value < 2**63 for value in sample if value is not None):
        return Column(name, pa.int64(), native="json integer")
    if kinds <= {int, formats.Literal}:
        places, digits = _decimal_size([str(value) for value in sample if value is not None])
        scale = 0 if kinds == {int} else values.decimal_scale(places)
        if scale is not None and digits + scale <= 38:  # noqa: PLR2004 - the widest decimal
            return Column(name, pa.decimal128(38, scale), native="json number")
    return Column(
        name, pa.string(), logical="json", native=formats.NESTED, fidelity="widened", note="the JSON text of the value"
    )


def _decimal_size(literals: list[str]) -> tuple[int, int]:
    """The most digits after and before the point."""
    parts = [Decimal(literal).as_tuple() for literal in literals]
    exponents = [(len(part.digits), int(part.exponent)) for part in parts]
    return max(-min(e, 0) for _, e in exponents), max(max(n + e, 0) for n, e in exponents)


def _other_columns(file: File, first: File, column: str) -> SchemaError:
    return SchemaError(
        f"{file.name} and {first.name} differ in the column {column}",
        where=file.name,
        remedy="the files of one stream need the same columns with the same types; read them as two streams",
        code="DP403",
    )


def _same_columns(
    columns: Sequence[Column], here: Sequence[Column], file: File, first: File, types: dict[str, str]
) -> None:
    kinds = {column.name: (column.type, column.logical) for column in columns}
    others = {column.name: (column.type, column.logical) for column in here}
    for name in sorted({*kinds, *others}):
        if kinds.get(name) != others.get(name) and not (name in kinds and name in others and name in types):
            raise _other_columns(file, first, name)


def _declared(column: Column, name: str, file: File) -> Column:
    """The column with the type that the settings or the stream say."""
    type_, logical = parse_type(name)
    if file.layout.format == "parquet":
        closed = column.fidelity == "refused" and not column.native.startswith(values.EXTENSION)
        if closed or not values.castable(column.type, type_):
            other = "" if closed else f"cast it to text, {manifest_line(cast={column.name: 'text'})}, or "
            raise ConfigError(
                f"column {column.name}: {column.native} cannot be cast to {name} exactly",
                where=f"column {column.name}",
                remedy=f"{other}leave it out: {manifest_line(exclude=[column.name])}",
                code="DP105",
            )
        note = f"{column.native} cast to {name}"
        return replace(column, type=type_, logical=logical, fidelity="exact", note=note)
    native = formats.NESTED if file.layout.format == "jsonl" and logical == "json" else "declared"
    return Column(column.name, type_, logical=logical, native=native, note=f"declared {name}")


def _guess(files: Sequence[File], rows: int, size: int) -> int | None:
    """The rows of all files, when bytes were sampled and no compression hides how many there are."""
    if not size or any(file.layout.compression != "none" for file in files):
        return None
    total = sum(file.size for file in files)
    return rows if size >= total else round(rows * total / size)


class FilesReading:
    """The files of a stream as they were at one moment, filtered by one window.

    A file that is not the same before and after a slice was read fails that slice. A change that keeps size and
    time of change (nanoseconds) is not seen; writers that publish by renaming are always safe.
    """

    def __init__(self, stream: Stream, schema: StreamSchema, window: Window, found: Found) -> None:
        self._stream = stream
        self._columns = schema.columns
        self._found = found
        self._cursor = _cursor(stream, found)
        hidden = self._cursor is not None and schema.column(stream.cursor) is None
        self._scanned = (*schema.columns, self._cursor) if hidden and self._cursor else schema.columns
        self.snapshot = _token(found.files)
        self.slices = _slices(found, stream.slice_rows)
        self.window = self._fix(window)
        if stream.apart and self.window.again is not None:
            count = len(self.slices)
            self.slices += tuple(replace(piece, ordinal=piece.ordinal + count, holds="again") for piece in self.slices)

    def query(self, piece: Slice) -> str:
        """What is read and kept, in words."""
        window = self.window
        parts = [f"read {piece.label}"]
        if not window.full:
            name = self._stream.cursor
            low, high = self._limits(piece)
            ends = [f"{name} {sign} {value}" for sign, value in (low, high) if value is not None]
            parts.append(f"keep {' and '.join(ends)}" if ends else "keep none")
            parts += [f"and those without {name}"] if window.null_rows else []
        return " ".join(parts)

    def read(self, piece: Slice) -> Iterator[pa.RecordBatch]:
        """The rows of one slice."""
        for batch in self._scan(piece, self._scanned):
            kept = self._keep(batch, piece)
            if kept.num_rows:
                yield kept if self._scanned is self._columns else kept.select(range(len(self._columns)))

    def digest(self, piece: Slice) -> Digest:
        """The digest of one slice, by reading it."""
        digester, kept = self._digester()
        for batch in self.read(piece):
            digester.add(batch.select(kept))
        return digester.total

    def compared(self) -> ReadParts:
        """See `dpone.sdk.Compares`."""

        def read(columns: tuple[Column, ...]) -> Iterator[pa.RecordBatch]:
            for piece in self.slices:
                if not piece.again:
                    yield from self._scan(piece, columns)

        return ReadParts(read)

    def close(self) -> None:
        """Nothing is held open."""

    # -- files -------------------------------------------------------------------------------------------------

    def _scan(self, piece: Slice, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        """All rows of a slice, and the certainty that each file was the same throughout."""
        for index, file in enumerate(self._found.files):
            parts = range(len(self._found.groups[index]) if self._found.groups else 1)
            inside = [part for part in parts if _within(piece, (file.name, part))]
            if not inside:
                continue
            with mapped(f"reading {file.name}", "source"):
                _need_same(file)
                yield from self._batches(file, inside, columns)
                _need_same(file)

    def _batches(self, file: File, groups: Sequence[int], columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        if file.layout.format == "csv":
            return formats.read_csv(file.path, file.layout, columns, file.name)
        if file.layout.format == "jsonl":
            # A column of this stream may be cast; as a key of the file it is known either way.
            mine = {column.name: column for column in columns}
            known = [mine.get(column.name, column) for column in self._found.columns]
            return formats.read_jsonl(file.path, file.layout, columns, known, file.name)
        return formats.read_parquet(file.path, columns, file.name, groups)

    # -- windows, with the semantics of dpone.sql.source.SqlReading --------------------------------------------

    def _limits(self, piece: Slice) -> tuple[tuple[str, str | None], tuple[str, str | None]]:
        """How the cursor values of a slice begin and end."""
        window = self.window
        again = window.again is not None and (piece.again or not self._stream.apart)
        low = (">=", window.again) if again else (">", window.after)
        return low, ("<=", window.after if piece.again else window.until)

    def _keep(self, batch: pa.RecordBatch, piece: Slice) -> pa.RecordBatch:
        window, cursor = self.window, self._cursor
        if window.full or cursor is None:
            return batch
        have = batch.column(cursor.name)
        compare = {">=": pc.greater_equal, ">": pc.greater, "<=": pc.less_equal}
        limits = [
            compare[sign](have, _value(value, cursor)) for sign, value in self._limits(piece) if value is not None
        ]
        # Without any, no row has a cursor value.
        mask = functools.reduce(pc.and_, limits) if limits else pc.not_equal(have, have)
        mask = pc.fill_null(mask, False)  # noqa: FBT003 - pyarrow's own signature
        if window.null_rows:
            mask = pc.or_(mask, pc.is_null(have))
        return batch.filter(mask)

    def _fix(self, window: Window) -> Window:
        if window.fixed:
            return window  # pinned by the open load
        if self._cursor is None:
            return replace(window, full=True, fixed=True)
        bounds = self._bounds(self._cursor, window.after)
        if bounds.null_rows and self._stream.null_cursor == "refuse":
            raise DataError(
                f"{bounds.null_rows} rows of {self._stream.name} have no value in the cursor {self._stream.cursor}",
                remedy="set cursor: {column: ..., nulls: load} to load them in every run, or give them a value",
                code="DP411",
            )
        until, ties = bounds.until, str(bounds.at_until)
        behind = until is not None and window.after is not None and bounds.top is not None
        if until is None or (behind and _less(bounds.top, _value(window.after or "", self._cursor))):
            until, ties = window.after, str(bounds.at_after)
        again = window.after if window.ties and window.ties != str(bounds.at_after) else None
        if until == window.after and again is None:
            ties = window.ties
        if self._stream.lookback and window.after is not None:
            again, ties = _back(window.after, self._stream, self._cursor), ""
        return replace(
            window,
            full=False,
            null_rows=bounds.null_rows,
            until_rule="max",
            until=until,
            again=again,
            ties=ties if until is not None else "",
            fixed=True,
        )

    def _bounds(self, cursor: Column, after: str | None) -> _Bounds:
        """One scan: NULL cursors, the highest value, and the digests of the rows there and of those at `after`."""
        low = None if after is None else _value(after, cursor)
        at_after, kept = self._digester()
        at_top, _ = self._digester()
        top, null_rows = None, 0
        for piece in self.slices:
            for batch in self._scan(piece, self._scanned):
                have = batch.column(cursor.name)
                null_rows += have.null_count
                here = pc.max(have)
                if not here.is_valid:
                    continue
                if low is not None:
                    at_after.add(_equal(batch, have, low).select(kept))
                if top is None or _less(top, here):
                    top = here
                    at_top, _ = self._digester()
                at_top.add(_equal(batch, have, top).select(kept))
        until = None if top is None else values.to_text(pa.repeat(top, 1))[0].as_py()
        return _Bounds(top, until, null_rows, at_top.total, at_after.total)

    def _digester(self) -> tuple[Digester, list[int]]:
        kept = [index for index, column in enumerate(self._columns) if not undigestible(column)]
        return Digester(tuple(self._columns[index] for index in kept)), kept


@dataclass(frozen=True, slots=True)
class _Bounds:
    top: pa.Scalar | None
    until: str | None
    null_rows: int
    at_until: Digest
    at_after: Digest


def _cursor(stream: Stream, found: Found) -> Column | None:
    """The cursor column. Raises SchemaError for types without an order that text keeps exactly."""
    if not stream.cursor:
        return None
    column = next(column for column in found.columns if column.name == stream.cursor)
    if stream.cursor in stream.casts:
        column = _declared(column, stream.casts[stream.cursor], found.files[0])
    types, type_ = pa.types, column.type
    ordered = types.is_integer(type_) or types.is_decimal(type_) or types.is_date(type_) or types.is_timestamp(type_)
    if not (ordered or (types.is_string(type_) and column.logical != "json")):
        raise SchemaError(
            f"{stream.cursor} is {type_name(type_, column.logical)}, which is no cursor",
            remedy="use an integer, decimal, date, timestamp or text column",
            code="DP404",
        )
    return column


def _value(text: str, cursor: Column) -> pa.Scalar:
    return values.one(values.parse(pa.array([text], pa.string()), cursor.type))[0]


def _back(text: str, stream: Stream, cursor: Column) -> str:
    """A cursor value, less the look-back. Raises SchemaError when the type has no such step."""
    types, type_, lookback = pa.types, cursor.type, stream.lookback
    timed = types.is_date(type_) or types.is_timestamp(type_)
    if timed != isinstance(lookback, timedelta) or types.is_string(type_):
        raise no_lookback(stream.name, stream.cursor, lookback)
    value = _value(text, cursor)
    if types.is_date(type_):
        value = value.cast(pa.timestamp("us"))
    low = pc.subtract(value, pa.scalar(lookback)).cast(type_, safe=False)
    return str(values.to_text(pa.repeat(low, 1))[0].as_py())


def _less(left: pa.Scalar, right: pa.Scalar) -> bool:
    return bool(pc.less(left, right).as_py())


def _equal(batch: pa.RecordBatch, have: pa.Array, value: pa.Scalar) -> pa.RecordBatch:
    return batch.filter(pc.equal(have, value), null_selection_behavior="drop")


def _need_same(file: File) -> None:
    if not file.path.exists() or not file.same():
        raise DataError(
            f"reading {file.name}: the file was changed or removed while it was read",
            where=file.name,
            remedy="run again; writers should write under another name and rename",
        )


def _token(files: Sequence[File]) -> str:
    facts = [(file.name, file.size, file.changed) for file in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _slices(found: Found, wanted: int) -> tuple[Slice, ...]:
    """One slice per file; Parquet files in runs of row groups of about `wanted` rows.

    A slice is the interval between two places (file name, row group), the first and the last open to the outside. So
    the slices of a load that died are every file once, also when files came or went before it goes on.
    """
    starts: list[tuple[str, int]] = []
    for index, file in enumerate(found.files):
        rows = 0
        for group, count in enumerate(found.groups[index] if found.groups else (0,)):
            if group == 0 or (rows and rows + count > wanted):
                starts.append((file.name, group))
                rows = 0
            rows += count
    borders = ["", *map(json.dumps, starts[1:]), ""]
    return tuple(
        Slice(ordinal, lower, upper, f"{start[0]} row group {start[1]}" if start[1] else start[0])
        for ordinal, (start, lower, upper) in enumerate(zip(starts, borders, borders[1:], strict=False))
    ) or (Slice(0, label="no rows"),)


def _within(piece: Slice, place: tuple[str, int]) -> bool:
    lower, upper = (tuple(json.loads(border)) if border else None for border in (piece.lower, piece.upper))
    return (lower is None or lower <= place) and (upper is None or place < upper)
