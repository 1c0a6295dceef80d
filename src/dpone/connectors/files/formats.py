"""Reading and writing the three formats in bounded memory, with nothing altered and nothing skipped.

Text is cut into blocks of whole records here, not by the parsers: so a record of any length up to `RECORD_BYTES` fits,
quotes are checked (parsers take `"a"b` and an unclosed quote without a word), and errors have a line number.
Functions that take apart values raise DataError, naming file and column, never a value.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from dpone.arrow.types import arrow_schema, type_name
from dpone.connectors.files import values
from dpone.errors import DataError, SchemaError
from dpone.sdk import Column

if TYPE_CHECKING:
    from pathlib import Path

    from dpone.connectors.files.config import Layout

BLOCK_BYTES = 8 << 20
PART_BYTES = 1 << 20
RECORD_BYTES = 256 << 20
GROUP_ROWS, GROUP_BYTES = 1 << 20, 64 << 20  # what one Parquet row group gathers
_MARK = b"\xef\xbb\xbf"
_HEADERLESS = "write a header line, or leave the file out"
_CAST_REMEDY = "declare it: columns: {{cast: {{{name}: {type}}}}}, or types: of the connection"


def open_bytes(path: Path, layout: Layout) -> Any:
    """The decompressed bytes of a file."""
    raw = pa.OSFile(str(path), "rb")
    return raw if layout.compression == "none" else pa.CompressedInputStream(raw, layout.compression)


# -- blocks of whole records -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records, and the number of lines before them."""

    data: bytes
    line: int


def blocks(stream: Any, where: str, quote: str = "", delimiter: str = ",") -> Iterator[Block]:
    """Cut a byte stream after line ends that no quote encloses. Checks quotes and the byte order mark."""
    rest, line, size, first = b"", 0, BLOCK_BYTES, True
    while True:
        more = _read(stream, size)
        data = rest + more if rest else more
        if first:
            data, first = _without_mark(data, where), False
        done = len(more) < size
        quotes = _positions(data, quote) if quote and quote.encode() in data else None
        cut = len(data) if done else _cut(data, quotes)
        if quotes is not None:
            _check_quotes(data[:cut], quotes.filter(pc.less(quotes, cut)), quote, delimiter, (where, line))
        if cut:
            yield Block(data[:cut], line)
            line += data.count(b"\n", 0, cut)
        if done:
            return
        rest = data[cut:]
        if len(rest) > RECORD_BYTES:
            raise DataError(
                f"{where}: after line {line} a record is over {RECORD_BYTES >> 20} MiB long, or a quote is not closed",
                where=where,
                remedy="check the quotes, and that lines end in a line feed",
            )
        size = max(BLOCK_BYTES, len(rest))  # doubling, so that one long record costs linear time


def _read(stream: Any, size: int) -> bytes:
    """Exactly `size` bytes, less only at the end."""
    parts, missing = [], size
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _without_mark(data: bytes, where: str) -> bytes:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{where}: the file is UTF-16, dpone reads UTF-8", where=where, remedy="convert it with iconv")
    return data.removeprefix(_MARK)


def _bytes(data: bytes) -> pa.Array:
    return pa.Array.from_buffers(pa.uint8(), len(data), [None, pa.py_buffer(data)])


def _positions(data: bytes, character: str) -> pa.Array:
    return pc.indices_nonzero(pc.equal(_bytes(data), pa.scalar(ord(character), pa.uint8())))


def _cut(data: bytes, quotes: pa.Array | None) -> int:
    """The end of the last whole record: after a line feed with an even number of quotes before it."""
    end = data.rfind(b"\n")
    while quotes is not None and end >= 0:
        before = pc.sum(pc.less(quotes, end)).as_py() or 0
        if before % 2 == 0:
            break
        end = data.rfind(b"\n", 0, quotes[before - 1].as_py())
    return end + 1


def _check_quotes(data: bytes, quotes: pa.Array, quote: str, delimiter: str, place: tuple[str, int]) -> None:
    """RFC 4180: a quote opens at the start of a value, closes at its end, or is doubled inside."""
    where, line = place
    bad = None
    if len(quotes) % 2:
        bad = quotes[-1].as_py()
    else:
        pairs = pa.FixedSizeListArray.from_arrays(quotes.cast(pa.int64()), 2)
        around = _bytes(data)
        neighbours = pa.array([*b"\r\n", ord(delimiter), ord(quote)], pa.uint8())
        opening, closing = pc.list_element(pairs, 0), pc.list_element(pairs, 1)
        inner = opening.filter(pc.greater(opening, 0))
        wrong = inner.filter(pc.invert(pc.is_in(around.take(pc.subtract(inner, 1)), neighbours)))
        inner = closing.filter(pc.less(closing, len(data) - 1))
        wrong = wrong if len(wrong) else inner.filter(pc.invert(pc.is_in(around.take(pc.add(inner, 1)), neighbours)))
        bad = wrong[0].as_py() if len(wrong) else None
    if bad is not None:
        number = line + data.count(b"\n", 0, bad) + 1
        raise DataError(
            f"{where}: line {number} has a quote inside a value, or one that is not closed",
            where=where,
            remedy='values with quotes are written in quotes, with "" for each; set quote: "" when nothing is quoted',
        )


# -- CSV -------------------------------------------------------------------------------------------------------


def csv_blocks(path: Path, layout: Layout, where: str) -> tuple[tuple[str, ...], Generator[Block]]:
    """The column names of a CSV file, and the blocks of its records. The file is closed at the end of the blocks."""
    stream = open_bytes(path, layout)
    found = blocks(stream, where, layout.quote, layout.delimiter)
    first = next(found, Block(b"", 0))
    record, size = _first_record(first.data, layout, where)
    names = tuple(record) if layout.header else tuple(f"c{index + 1}" for index in range(len(record)))
    if not names:
        raise SchemaError(f"{where}: the file is empty, it has no header", where=where, remedy=_HEADERLESS)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or "" in names:
        raise SchemaError(
            f"{where}: " + (f"the column {twice[0]!r} is there twice" if twice else "a column has no name"),
            where=where,
            remedy="give every column its own name in the header",
        )
    head = Block(first.data[size:], 1) if layout.header else first

    def records() -> Generator[Block]:
        with stream:
            yield from (block for block in (head,) if block.data)
            yield from found

    return names, records()


def _first_record(data: bytes, layout: Layout, where: str) -> tuple[list[str], int]:
    """The values of the first record, and the bytes it has with its line end."""
    quote = layout.quote.encode()
    end = data.find(b"\n")
    while quote and end >= 0 and data.count(quote, 0, end) % 2:
        end = data.find(b"\n", end + 1)
    size = len(data) if end < 0 else end + 1
    rows = _rows(_utf8(Block(data[:size], 0), where), layout)
    try:
        first: list[str] = next(rows, [])
        alone = not layout.header or next(rows, None) is None
    except csv.Error as error:
        raise DataError(
            f"{where}: the first line has a value over {csv.field_size_limit() >> 10} KiB",
            where=where,
            remedy="check the line ends, and the settings header, delimiter and quote",
        ) from error
    if not alone:  # csv takes a lone CR as a line end; those rows would go with the header
        raise DataError(
            f"{where}: the header line ends in a lone CR", where=where, remedy="convert the line ends to line feeds"
        )
    return first, size


def _rows(text: str, layout: Layout) -> Any:
    return csv.reader(
        io.StringIO(text, newline=""),
        delimiter=layout.delimiter,
        quotechar=layout.quote or None,
        quoting=csv.QUOTE_MINIMAL if layout.quote else csv.QUOTE_NONE,
    )


def csv_texts(
    block: Block, names: Sequence[str], wanted: Sequence[str], layout: Layout, where: str
) -> dict[str, pa.Array]:
    """The texts of the wanted columns. NULL is an unquoted NULL text; in a file of one column, an empty line too."""
    parse = pacsv.ParseOptions(
        delimiter=layout.delimiter,
        quote_char=layout.quote or False,
        newlines_in_values=bool(layout.quote) and layout.quote.encode() in block.data,
        ignore_empty_lines=len(names) > 1,
    )
    convert = pacsv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        include_columns=list(wanted),
        null_values=list(layout.null),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    try:
        table = _in_parts(
            block.data,
            lambda data, size: pacsv.read_csv(
                data, pacsv.ReadOptions(column_names=list(names), block_size=size), parse, convert
            ),
            layout.quote.encode(),
        )
    except pa.ArrowInvalid as error:
        _utf8(block, where)
        raise DataError(
            f"{where}: {_ragged(block, len(names), layout)}; the file has {len(names)} columns",
            where=where,
            remedy="correct the line, or the settings delimiter and quote",
        ) from error
    return {name: values.one(table[name]) for name in wanted}


def _in_parts(data: bytes, parse: Callable[[Any, int], pa.Table], quote: bytes = b"") -> pa.Table:
    """Parse in parts, which pyarrow does side by side; in one, when a record is longer than a part or wrong.

    Also in one when values may hold line ends: pyarrow.csv loses the line feed of a quoted CR LF between two parts
    (https://github.com/apache/arrow/issues/51368). It takes a byte order mark off the start of whatever it is given;
    the file's own is gone already, so one that stands there now is text, and is doubled.
    """
    data = _MARK + data if data.startswith(_MARK) else data
    if len(data) > PART_BYTES and b"\r" not in data and not (quote and quote in data):
        try:
            return parse(pa.BufferReader(data), PART_BYTES)
        except pa.ArrowInvalid:
            pass
    return parse(pa.BufferReader(data), len(data) + 1)


def _ragged(block: Block, width: int, layout: Layout) -> str:
    """Where the first record of another width is. Only for errors: the parser knows no line of the file."""
    rows = _rows(block.data.decode("utf-8", "replace"), layout)
    try:
        found = next((count_ for count_ in map(len, rows) if count_ not in (0, width)), 0)
    except csv.Error:  # a value over 128 KiB
        found = 0
    if found:
        return f"line {block.line + rows.line_num} has {found} values"
    return f"a line after line {block.line} has another number of values"


def typed(texts: dict[str, pa.Array], columns: Sequence[Column], where: str) -> pa.RecordBatch:
    """The batch of these columns from their texts."""
    arrays = [_exact(column, where, partial(values.read_text, texts[column.name], column)) for column in columns]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(tuple(columns)))


def _exact(column: Column, where: str, convert: Callable[[], pa.Array]) -> pa.Array:
    try:
        return values.one(convert())
    except ValueError as error:  # pyarrow.ArrowInvalid is one
        kind = type_name(column.type, column.logical)
        wide = "json" if column.native.startswith("json") else "text"
        raise DataError(
            f"{where}: column {column.name} has a value that is not exactly {kind}",
            where=f"{where}, column {column.name}",
            remedy=_CAST_REMEDY.format(name=column.name, type=wide),
        ) from error


def read_csv(path: Path, layout: Layout, columns: Sequence[Column], where: str) -> Iterator[pa.RecordBatch]:
    """The columns of a CSV file, found by name."""
    names, found = csv_blocks(path, layout, where)
    wanted = [column.name for column in columns]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise SchemaError(f"{where}: there is no column {missing[0]}", where=where, remedy="write the file again")
    for block in found:
        yield typed(csv_texts(block, names, wanted or names[:1], layout, where), columns, where)


# -- JSONL -----------------------------------------------------------------------------------------------------
# pyarrow.json parses numbers of an explicit decimal type from their digits, never through a float, and refuses
# integers that do not fit. What it cannot do is hand over a nested value as text; that is what DuckDB is for.

NESTED = "json value"  # Column.native: the JSON text of whatever stands there


class Literal(str):
    """A number as it is written."""

    __slots__ = ()


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_float=Literal, parse_constant=_no_constant)
# Every number as it is written, and objects as tuples of pairs: a key that comes twice inside a value stays.
_WRITTEN = json.JSONDecoder(
    parse_float=Literal, parse_int=Literal, parse_constant=_no_constant, object_pairs_hook=tuple
)


def sample_json(stream: Any, rows: int, size: int, where: str) -> tuple[list[dict[str, Any]], int]:
    """The first objects of a JSONL stream, at most `rows` from about `size` bytes, and the bytes they have."""
    objects: list[dict[str, Any]] = []
    taken = 0
    for block in blocks(stream, where):
        lines = list(islice(filter(None, map(str.strip, _utf8(block, where).split("\n"))), rows - len(objects)))
        taken += sum(map(len, lines)) + len(lines)
        try:
            objects += map(_DECODER.decode, lines)
        except ValueError as error:
            raise _not_json(where, block.line + 1) from error
        if len(objects) >= rows or taken >= size:
            break
    if any(type(value) is not dict for value in objects):
        raise DataError(f"{where}: a line is not a JSON object", where=where, remedy="write one object per line")
    return objects, taken


def _not_json(where: str, line: int) -> DataError:
    return DataError(
        f"{where}: a line at or after line {line} is not one JSON object",
        where=where,
        remedy="write one object per line",
    )


def _utf8(block: Block, where: str) -> str:
    try:
        return block.data.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: the text after line {block.line} is not UTF-8", where=where, remedy="convert it with iconv"
        ) from error


def read_jsonl(
    path: Path, layout: Layout, columns: Sequence[Column], known: Sequence[Column], where: str
) -> Iterator[pa.RecordBatch]:
    """The columns of a JSONL file. `known` are all its keys; any other key is an error, a missing one is NULL."""
    nested = [column for column in columns if column.native == NESTED]
    opaque = any(column.native == NESTED for column in known)
    scalars = [column for column in known if column.native != NESTED]
    schema = pa.schema([pa.field(column.name, _read_type(column)) for column in scalars])
    with open_bytes(path, layout) as stream:
        for block in blocks(stream, where):
            lines = _utf8(block, where)
            if not lines.strip():
                continue
            table = _parse_json(block, schema, "ignore" if opaque else "error", where)
            arrays = {column.name: values.one(table[column.name]) for column in scalars}
            rows = _lines(block, where) if opaque else None
            if rows is not None:
                _check_keys(rows, [column.name for column in known], table.num_rows, block, where)
            for column in scalars:
                if column.native == "json number" and f'"{column.name}"' in lines:
                    _refuse_strings(lines, column, block, where)
            if nested and rows is not None:
                arrays |= _nested(rows, nested, block, where)
            out = [
                arrays[column.name] if column.native == NESTED else _json_values(arrays[column.name], column, where)
                for column in columns
            ]
            yield pa.RecordBatch.from_arrays(out, schema=arrow_schema(tuple(columns)))


def _read_type(column: Column) -> pa.DataType:
    type_ = column.type
    numeric = pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)
    return type_ if numeric or pa.types.is_boolean(type_) else pa.string()


def _json_values(array: pa.Array, column: Column, where: str) -> pa.Array:
    if array.type == column.type and not column.logical:
        return array
    return _exact(column, where, lambda: values.parse(array, column.type, column.logical))


_NULL_LINE = re.compile(rb"\n[ \t\r]*null")
_BLANK_LINE = re.compile(rb"\n[ \t\r]*(?=\n|\Z)")


def _parse_json(block: Block, schema: pa.Schema, unexpected: str, where: str) -> pa.Table:
    """The rows of a block, one of each line that is not blank."""
    strict = unexpected == "error"
    try:
        table = _pyarrow_json(block.data, schema, unexpected)
    except pa.ArrowInvalid as error:
        raise _json_problem(block, schema, where, strict=strict) from error
    # pyarrow takes null as an object without keys, and several objects of one line as several rows.
    data = b"\n" + block.data
    lines = data.count(b"\n") - sum(1 for _ in _BLANK_LINE.finditer(data))
    if table.num_rows != lines or _NULL_LINE.search(data):
        raise _json_problem(block, schema, where, strict=strict)
    return table


def _json_problem(block: Block, schema: pa.Schema, where: str, *, strict: bool) -> DataError:
    """The line and the column that pyarrow meant: its own text may hold the value, and knows no line of the file."""
    for number, line in enumerate(block.data.decode().split("\n"), block.line + 1):
        if not line.strip():
            continue
        try:
            row = _DECODER.decode(line.strip())
        except ValueError:
            row = None
        if type(row) is not dict:
            break
        new = [key for key in row if strict and key not in schema.names]
        if new:
            return _new_key(new[0], f"line {number}", where)
        if not _readable(line, pa.schema([])):
            return _unreadable(line, number, where)
        if not _readable(line, schema):
            wrong = [field for field in schema if field.name in row and not _readable(line, pa.schema([field]))]
            if not wrong:
                break
            name = wrong[0].name
            return DataError(
                f"{where}: line {number}, column {name} has a value that is not exactly one {wrong[0].type}",
                where=f"{where}, column {name}",
                remedy=_CAST_REMEDY.format(name=name, type="json"),
            )
    else:
        number = block.line + 1
    return _not_json(where, number)


def _unreadable(line: str, number: int, where: str) -> DataError:
    """Valid JSON that pyarrow has no way to read, whatever the schema: the parser gives up on the whole line."""
    pairs = _WRITTEN.decode(line.strip())
    names = [key for key, value in pairs if not _readable("{" + f"{_dump(key)}:{_dump(value)}" + "}", pa.schema([]))]
    if not names:
        return _not_json(where, number)
    return DataError(
        f"{where}: line {number}, column {names[0]} has a number beyond the range of doubles, or a broken escape",
        where=f"{where}, column {names[0]}",
        remedy="write it as a string in the file, or leave the line out",
    )


def _readable(line: str, schema: pa.Schema) -> bool:
    data = line.encode(errors="backslashreplace")  # half a surrogate pair, as the escape that it was
    try:
        _pyarrow_json(data, schema, "ignore")
    except pa.ArrowInvalid:
        return False
    return True


def _pyarrow_json(data: bytes, schema: pa.Schema, unexpected: str) -> pa.Table:
    options = pajson.ParseOptions(
        explicit_schema=schema, newlines_in_values=False, unexpected_field_behavior=unexpected
    )
    return _in_parts(data, lambda part, size: pajson.read_json(part, pajson.ReadOptions(block_size=size), options))


def _new_key(name: str, place: str, where: str) -> DataError:
    return DataError(
        f"{where}: {place} has the key {name}, which no sampled row has",
        where=where,
        remedy=_CAST_REMEDY.format(name=name, type="text") + ", or raise sample_rows",
    )


# A real number goes through a double in DuckDB, which keeps 15 digits and exponents of two digits.
_MANY_DIGITS = r"[0-9.]{17,}|[0-9]{16,}[eE]|[eE][+-]?[0-9]{3}"


def _lines(block: Block, where: str) -> pa.Array:
    """The lines of a block that are not blank."""
    one_value = pacsv.ParseOptions(delimiter="\x01", quote_char=False)  # a raw \x01 is no JSON
    convert = pacsv.ConvertOptions(column_types={"line": pa.string()})
    try:
        table = _in_parts(
            block.data,
            lambda data, size: pacsv.read_csv(
                data, pacsv.ReadOptions(column_names=["line"], block_size=size), one_value, convert
            ),
        )
    except pa.ArrowInvalid as error:
        raise _not_json(where, block.line + 1) from error
    lines = values.one(table["line"])
    return lines.filter(pc.invert(pc.match_substring_regex(lines, r"^[ \t\r]*$")))


def _check_keys(lines: pa.Array, known: list[str], rows: int, block: Block, where: str) -> None:
    try:
        found = values.sql("SELECT keys FROM (SELECT json_keys(line) AS keys FROM t) GROUP BY ALL", {"line": lines})
    except ValueError as error:
        raise _not_json(where, block.line + 1) from error
    kinds: list[list[str] | None] = found["keys"].to_pylist()
    if len(lines) != rows or any(keys is None or len(keys) != len(set(keys)) for keys in kinds):
        raise _not_json(where, block.line + 1)
    new = sorted({key for keys in kinds for key in keys or ()} - set(known))
    if new:
        raise _new_key(new[0], f"a line after line {block.line}", where)


def _refuse_strings(lines: str, column: Column, block: Block, where: str) -> None:
    """Refuse what pyarrow would take: it reads the string "1.50" as the decimal 1.5, which is another value."""
    if not pc.match_substring_regex(pa.array([lines]), _escaped(column.name) + r'\s*:\s*"')[0].as_py():
        return
    pointer = _pointer(column.name)
    query = f"SELECT bool_or(json_type(line, '{pointer}') = 'VARCHAR') AS v FROM t"
    if values.sql(query, {"line": _lines(block, where)})["v"][0].as_py():
        raise DataError(
            f"{where}: after line {block.line} column {column.name} has a string among its numbers",
            where=f"{where}, column {column.name}",
            remedy=_CAST_REMEDY.format(name=column.name, type="json"),
        )


def _escaped(name: str) -> str:
    return re.escape(json.dumps(name, ensure_ascii=False))


def _pointer(name: str) -> str:
    """RFC 6901, as https://duckdb.org/docs/stable/data/json/json_functions takes it, inside a SQL literal."""
    return "/" + name.replace("~", "~0").replace("/", "~1").replace("'", "''")


def _nested(lines: pa.Array, columns: Sequence[Column], block: Block, where: str) -> dict[str, pa.Array]:
    """The JSON texts of nested values. JSON null is NULL."""
    pointers = ", ".join(f"'{_pointer(column.name)}'" for column in columns)
    names = [f"v{index}" for index in range(len(columns))]
    parts = ", ".join(f"nullif(found[{index + 1}]::VARCHAR, 'null') AS v{index}" for index in range(len(columns)))
    query = (
        f"SELECT {parts}, CASE WHEN regexp_matches(line, '{_MANY_DIGITS}') THEN line END AS line_ "
        f"FROM (SELECT line, json_extract(line, [{pointers}]) AS found FROM t)"
    )
    try:
        table = values.sql(query, {"line": lines})
    except ValueError as error:
        raise _not_json(where, block.line + 1) from error
    arrays = {column.name: values.one(table[name]) for column, name in zip(columns, names, strict=True)}
    doubtful = values.one(table["line_"])
    if doubtful.null_count < len(doubtful):
        mask = pc.is_valid(doubtful)
        rows = [dict(_WRITTEN.decode(line.strip())) for line in doubtful.filter(mask).to_pylist()]
        for name, array in arrays.items():
            texts = [None if row.get(name) is None else _dump(row[name]) for row in rows]
            arrays[name] = pc.replace_with_mask(array, mask, pa.array(texts, pa.string()))
    return arrays


# As DuckDB writes strings, so that a text does not depend on the way it was read.
_ESCAPES = {code: f"\\u{code:04X}" for code in range(32)} | {
    ord(character): "\\" + escape for character, escape in zip('\b\t\n\f\r"\\', 'btnfr"\\', strict=True)
}


def _dump(value: Any) -> str:
    """JSON text with numbers as they were written; only for the rare rows whose numbers DuckDB might shorten."""
    if type(value) is Literal:
        return str(value)
    if type(value) is tuple:
        return "{" + ",".join(f"{_dump(key)}:{_dump(item)}" for key, item in value) + "}"
    if type(value) is list:
        return "[" + ",".join(map(_dump, value)) + "]"
    if type(value) is str:
        return '"' + value.translate(_ESCAPES) + '"'
    return json.dumps(value)  # true, false, null


def count_jsonl(path: Path, layout: Layout, where: str) -> int:
    """The rows of a JSONL file, whatever they hold."""
    rows = 0
    with open_bytes(path, layout) as stream:
        for block in blocks(stream, where):
            if block.data.strip():
                rows += _parse_json(block, pa.schema([]), "ignore", where).num_rows
    return rows


# -- Parquet ---------------------------------------------------------------------------------------------------


def parquet_schema(path: Path, where: str, unit: str = "") -> tuple[pa.Schema, pq.FileMetaData]:
    """Schema and footer of a Parquet file; INT96 timestamps in this unit, or in the one that `int96_unit` finds."""
    with _parquet(path, unit or int96_unit({where: path})) as file:
        schema: pa.Schema = file.schema_arrow
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if twice:
            raise SchemaError(f"{where}: the column {twice[0]} is there twice", where=where, remedy="rename one")
        return _with_meaning(schema, file), file.metadata


# What pyarrow shows as mere bytes: https://parquet.apache.org/docs/file-format/types/logicaltypes/
_BYTES_WITH_MEANING = ("Interval", "Geometry", "Geography")


def _with_meaning(schema: pa.Schema, file: pq.ParquetFile) -> pa.Schema:
    """The schema, its columns of such types marked as extensions that nobody here knows."""
    leaves = [file.schema.column(index) for index in range(len(file.schema))]
    for leaf in leaves:
        kind = json.loads(leaf.logical_type.to_json())["Type"] if leaf.physical_type.endswith("BYTE_ARRAY") else ""
        if kind in _BYTES_WITH_MEANING:
            name = next(name for name in schema.names if f"{leaf.path}.".startswith(f"{name}."))
            place = schema.get_field_index(name)
            mark = {values.EXTENSION_NAME: f"type {kind.upper()} of Parquet"}
            schema = schema.set(place, schema.field(place).with_metadata(mark))
    return schema


def _parquet(path: Path, unit: str) -> pq.ParquetFile:
    return pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False, coerce_int96_timestamp_unit=unit)


def int96_unit(files: Mapping[str, Path]) -> str:
    """The unit in which the INT96 timestamps of these files are exact: us if it does, else ns.

    They are a day and nanoseconds (https://parquet.apache.org/docs/file-format/types/#primitive-types); pyarrow reads
    nanoseconds unless told otherwise, in which years outside 1677 to 2262 wrap around without an error. Only the
    values say which unit they need, so such columns are read here. Raises DataError when neither holds them all.
    """
    fine = far = False
    for where, path in files.items():
        with _parquet(path, "us") as file:
            names = _int96(file)
            batches = file.iter_batches(columns=names) if names else iter(())
            for left, right in zip(batches, _twins(path, "ns", names), strict=False):
                for us, ns in _pairs(left.to_struct_array(), right.to_struct_array()):
                    fine, far = fine or not _whole(us, ns), far or not _near(us)
        if fine and far:
            raise DataError(
                f"{where}: INT96 timestamps need nanoseconds, and others lie outside the years 1677 to 2262",
                where=where,
                remedy="write the file again with timestamps of 64 bits",
            )
    return "ns" if fine else "us"


def _int96(file: pq.ParquetFile) -> list[str]:
    """The columns with INT96 timestamps, also inside of nested values."""
    leaves = [file.schema.column(index) for index in range(len(file.schema))]
    old = {leaf.path for leaf in leaves if leaf.physical_type == "INT96"}
    return [name for name in file.schema_arrow.names if any(f"{path}.".startswith(f"{name}.") for path in old)]


def _stamps(array: pa.Array) -> Iterator[pa.Array]:
    """All timestamps inside of an array."""
    types, type_ = pa.types, array.type
    if types.is_struct(type_):
        for child in array.flatten():
            yield from _stamps(child)
    elif types.is_map(type_):
        yield from _stamps(array.keys)
        yield from _stamps(array.items)
    elif types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        yield from _stamps(array.flatten())
    elif types.is_timestamp(type_):
        yield array


def _twins(path: Path, unit: str, names: list[str], *batches: Any) -> Iterator[Any]:
    """These columns in another unit, in the same batches; when there are none, as many None as one asks for."""
    if not names:
        yield from repeat(None)
    with _parquet(path, unit) as file:
        yield from file.iter_batches(*batches, columns=names)


def _pairs(left: pa.Array, right: pa.Array) -> Iterator[tuple[pa.Array, pa.Array]]:
    """The timestamps that differ in their unit: those of INT96."""
    both = zip(_stamps(left), _stamps(right), strict=True)
    return ((one, other) for one, other in both if one.type != other.type)


def _whole(us: pa.Array, ns: pa.Array) -> bool:
    """Whether the nanoseconds, which may have wrapped around as the product does, are whole microseconds."""
    same = pc.equal(pc.multiply(us.cast(pa.int64()), 1000), ns.cast(pa.int64()))
    return bool(pc.all(same, min_count=0).as_py())


def _near(us: pa.Array) -> bool:
    """Whether these microseconds are nanoseconds of 64 bits."""
    bounds = pc.min_max(us.cast(pa.int64())).as_py()
    last = 2**63 // 1000
    return bounds["min"] is None or -last < bounds["min"] <= bounds["max"] < last


def _need_exact(batch: pa.RecordBatch, other: pa.RecordBatch, unit: str, where: str) -> None:
    """Refuse INT96 timestamps that the unit of this batch does not hold; `other` has the other unit."""
    for name in other.schema.names:
        pairs = _pairs(batch.column(name), other.column(name))
        if not all(_whole(have, twin) if unit == "us" else _near(twin) for have, twin in pairs):
            raise DataError(
                f"{where}: column {name} has an INT96 timestamp that is not exactly one in {unit}",
                where=f"{where}, column {name}",
                remedy="run again; if it persists, write the file again with timestamps of 64 bits",
            )


def read_parquet(
    path: Path, columns: Sequence[Column], where: str, groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Columns and row groups of a Parquet file, in batches of about BLOCK_BYTES."""
    fine = any("[ns" in f"{column.native} {column.type}" for column in columns)
    unit, other = ("ns", "us") if fine else ("us", "ns")
    with _parquet(path, unit) as file:
        there = frozenset(file.schema_arrow.names)  # asking for the schema makes it anew, which wide files feel
        missing = [column.name for column in columns if column.name not in there]
        if missing:
            raise SchemaError(f"{where}: there is no column {missing[0]}", where=where, remedy="write the file again")
        picked = list(range(file.num_row_groups)) if groups is None else list(groups)
        sizes = [file.metadata.row_group(index) for index in picked]
        rows = sum(group.num_rows for group in sizes)
        size = sum(group.total_byte_size for group in sizes)
        step = max(1, min(131_072, BLOCK_BYTES * rows // max(size, 1)))
        fields = {field.name: values.canonical(field) for field in file.schema_arrow}
        names = [column.name for column in columns]
        old = [name for name in _int96(file) if name in names]
        twins = _twins(path, other, old, step, picked)
        for batch, twin in zip(file.iter_batches(step, picked, columns=names), twins, strict=False):
            if twin is not None:
                _need_exact(batch, twin, unit, where)
            arrays = [
                _exact(column, where, partial(_from_parquet, batch.column(column.name), fields[column.name], column))
                for column in columns
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(tuple(columns)))


def _from_parquet(array: pa.Array, plain: Column, column: Column) -> pa.Array:
    """The canonical array, then the cast the stream asks for."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
        if plain.logical == "uuid":
            array = pc.replace_substring_regex(
                values.to_text(array.cast(pa.binary())), "(.{8})(.{4})(.{4})(.{4})(.{12})", r"\1-\2-\3-\4-\5"
            )
    if plain.logical == "json" and pa.types.is_nested(array.type):
        array = values.as_json(array)
    elif pa.types.is_timestamp(array.type) and pa.types.is_timestamp(column.type):
        pass  # straight to the type asked for: years that milliseconds reach are not all in microseconds
    elif array.type != plain.type:
        decimal = pa.types.is_decimal(array.type) and pa.types.is_string(plain.type)
        array = _wide_decimal(array) if decimal else array.cast(plain.type)
    return values.cast(array, column.type, "" if plain.logical == column.logical else column.logical)


def _wide_decimal(array: pa.Array) -> pa.Array:
    """Text of decimals of more than 38 digits; Arrow's own text has an exponent where that is shorter."""
    return pa.array([None if value is None else f"{value:f}" for value in array.to_pylist()], pa.string())


# -- writing ---------------------------------------------------------------------------------------------------


def write_slice(path: Path, layout: Layout, columns: Sequence[Column], batches: Iterable[pa.RecordBatch]) -> int:
    """Write one staged slice; the number of rows. CSV and JSONL as they will be published, Parquet as Arrow IPC."""
    if layout.format == "parquet":
        return _write_ipc(path, columns, batches)
    encode = _csv_bytes if layout.format == "csv" else _json_bytes
    rows = 0
    with _writer(path, layout) as stream:
        for batch in batches:
            if batch.num_rows:
                stream.write(encode(batch, columns, layout))
                rows += batch.num_rows
    if not rows:
        path.write_bytes(b"")  # no empty member among the others
    return rows


def _writer(path: Path, layout: Layout) -> Any:
    raw = pa.OSFile(str(path), "wb")
    return raw if layout.compression == "none" else pa.CompressedOutputStream(raw, layout.compression)


def _write_ipc(path: Path, columns: Sequence[Column], batches: Iterable[pa.RecordBatch]) -> int:
    schema = arrow_schema(tuple(columns))
    rows = 0
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(path), "wb") as raw, pa.ipc.new_stream(raw, schema, options=options) as stream:
        for batch in batches:
            stream.write_batch(batch.cast(schema) if batch.schema != schema else batch)
            rows += batch.num_rows
    return rows


def read_slice(path: Path, layout: Layout, columns: Sequence[Column], where: str) -> Iterator[pa.RecordBatch]:
    """Read a staged slice back, in the columns of `proof_columns`."""
    if layout.format == "parquet":
        with pa.OSFile(str(path), "rb") as raw, pa.ipc.open_stream(raw) as stream:
            yield from stream
    elif path.stat().st_size:
        yield from read_known(path, layout.model_copy(update={"header": False}), columns, where)


def assemble(pieces: Iterable[Path], path: Path, layout: Layout, columns: Sequence[Column]) -> None:
    """Make the file to publish out of the staged slices.

    Compressed slices are only put together: gzip members (https://www.rfc-editor.org/rfc/rfc1952#page-5) and zstd
    frames (https://www.rfc-editor.org/rfc/rfc8878#section-3) may follow one another.
    """
    if layout.format == "parquet":
        _assemble_parquet(pieces, path, layout, columns)
        return
    with path.open("wb") as out:
        header = layout.format == "csv" and layout.header
        if header or layout.compression != "none":
            out.write(_packed(_header(columns, layout) if header else b"", layout))
        for piece in pieces:
            with piece.open("rb") as part:
                while data := part.read(BLOCK_BYTES):
                    out.write(data)


def _packed(data: bytes, layout: Layout) -> bytes:
    if layout.compression == "none":
        return data
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, layout.compression) as stream:
        stream.write(data)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _header(columns: Sequence[Column], layout: Layout) -> bytes:
    names = ('"' + column.name.replace('"', '""') + '"' for column in columns)
    return (layout.delimiter.join(names) + "\n").encode()


def _assemble_parquet(pieces: Iterable[Path], path: Path, layout: Layout, columns: Sequence[Column]) -> None:
    # In the units that Parquet has, so that the schema in the file says the same as its columns.
    schema = arrow_schema(tuple(replace(column, type=values.stored(column.type)) for column in columns))
    codec = {"gzip": "gzip", "zstd": "zstd"}.get(layout.compression, "none")
    with pq.ParquetWriter(path, schema, compression=codec) as writer:
        for group in _groups(pieces, layout, columns):
            made = pa.Table.from_batches(group)
            arrays = [_stored(column, made.column(index)) for index, column in enumerate(columns)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=GROUP_ROWS)


def _stored(column: Column, array: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return array.cast(values.stored(column.type))
    except pa.ArrowInvalid as error:
        raise _unwritable(column, "a time that 64 bits of milliseconds do not reach") from error


def _groups(pieces: Iterable[Path], layout: Layout, columns: Sequence[Column]) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for piece in pieces:
        for batch in read_slice(piece, layout, columns, piece.name):
            group.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows >= GROUP_ROWS or size >= GROUP_BYTES:
                yield group
                group, rows, size = [], 0, 0
    if rows:
        yield group


def _written(column: Column, array: pa.Array, text: Callable[[pa.Array], pa.Array]) -> pa.Array:
    try:
        return text(array)
    except ValueError as error:
        raise _unwritable(column, "a date or time outside the years 1 to 9999") from error


def _unwritable(column: Column, what: str) -> DataError:
    return DataError(
        f"column {column.name} has {what}, which this file format cannot hold",
        where=f"column {column.name}",
        remedy="write Parquet, or leave the column out",
    )


def _csv_bytes(batch: pa.RecordBatch, columns: Sequence[Column], layout: Layout) -> Any:
    arrays = [_written(column, array, _csv_array) for column, array in zip(columns, batch.columns, strict=True)]
    sink = pa.BufferOutputStream()
    pacsv.write_csv(
        pa.RecordBatch.from_arrays(arrays, names=[f"c{index}" for index in range(len(arrays))]),
        sink,
        pacsv.WriteOptions(include_header=False, delimiter=layout.delimiter, quoting_style="needed"),
    )
    return sink.getvalue()  # a buffer, written without a copy


def _csv_array(array: pa.Array) -> pa.Array:
    """What write_csv puts down exactly and, but for text, without quotes; the rest as text."""
    type_ = array.type
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        values.check_years(array)
        return array
    exponents = pa.types.is_decimal(type_) and type_.scale > 6  # noqa: PLR2004 - from there Arrow writes 1E-7
    if exponents or pa.types.is_binary(type_) or pa.types.is_nested(type_):
        return values.to_text(array)
    return array


def _json_bytes(batch: pa.RecordBatch, columns: Sequence[Column], layout: Layout) -> Any:
    """One JSON object per row, written by one DuckDB expression; columns are c0, c1, ... there."""
    del layout
    arrays, parts = {}, []
    for index, (column, array) in enumerate(zip(columns, batch.columns, strict=True)):
        name, key = f"c{index}", json.dumps(column.name, ensure_ascii=False).replace("'", "''")
        text, shape = _json_array(column, array)
        arrays[name] = text
        parts.append(f"'{',' if index else ''}{key}:', coalesce({shape.format(name)}, 'null')")
    # Not a chain of ||, which is as deep as it is long: DuckDB bounds the depth of an expression.
    lines = values.one(values.sql(f"SELECT concat('{{', {', '.join(parts)}, '}}', chr(10)) AS v FROM t", arrays)["v"])
    lines = lines.cast(pa.string())
    _, offsets, data = lines.buffers()
    bounds = memoryview(offsets).cast("i")
    start, end = bounds[lines.offset], bounds[lines.offset + len(lines)]
    return data.slice(start, end - start)


def _json_array(column: Column, array: pa.Array) -> tuple[pa.Array, str]:
    type_ = array.type
    if pa.types.is_string(type_):
        return array, "to_json({})::VARCHAR"
    if pa.types.is_floating(type_) and pc.all(pc.is_finite(array), min_count=0).as_py() is False:
        raise _unwritable(column, "a NaN or an infinity")
    text = _written(column, array, values.to_text)
    bare = (
        pa.types.is_boolean(type_)
        or pa.types.is_integer(type_)
        or pa.types.is_floating(type_)
        or pa.types.is_decimal(type_)
        or pa.types.is_nested(type_)
    )
    return text, "{}" if bare else "'\"' || {} || '\"'"


# -- reading back what was written -----------------------------------------------------------------------------


def proof_columns(columns: Sequence[Column], layout: Layout) -> tuple[Column, ...]:
    """The columns to read a written file back with.

    Where a text format holds the very text of the canonical encoding (hexadecimal, the JSON of a list), that text is
    read: it has the same digest.
    """
    if layout.format == "parquet":
        return tuple(columns)
    return tuple(_proof_column(column, layout) for column in columns)


def _proof_column(column: Column, layout: Layout) -> Column:
    nested = pa.types.is_nested(column.type)
    if nested or pa.types.is_binary(column.type) or column.logical:
        native = NESTED if nested and layout.format == "jsonl" else "declared"
        return replace(column, type=pa.string(), logical="", native=native)
    return replace(column, native="declared")


def read_known(path: Path, layout: Layout, columns: Sequence[Column], where: str) -> Iterator[pa.RecordBatch]:
    """A file that dpone wrote, with the columns of `proof_columns`."""
    if layout.format == "parquet":
        return read_parquet(path, columns, where)
    if layout.format == "jsonl":
        return read_jsonl(path, layout, columns, columns, where)
    if layout.header:
        return read_csv(path, layout, columns, where)
    renamed = [replace(column, name=f"c{index + 1}") for index, column in enumerate(columns)]
    return read_csv(path, layout, renamed, where)


def count(path: Path, layout: Layout, where: str) -> int:
    """The rows of a file, counted in the file."""
    if layout.format == "parquet":
        return int(pq.read_metadata(path).num_rows)
    if layout.format == "jsonl":
        return count_jsonl(path, layout, where)
    names, found = csv_blocks(path, layout, where)
    return sum(len(csv_texts(block, names, names[:1], layout, where)[names[0]]) for block in found)
