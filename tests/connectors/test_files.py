"""The files connector, on real files: what is read, what is refused, what is written, and what a death leaves."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import random
import string
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dpone.arrow.digest import Digester, digest
from dpone.arrow.types import arrow_schema, parse_type, type_name
from dpone.connectors.files import connector, formats
from dpone.connectors.files.config import FilesConfig, Layout
from dpone.connectors.files.errors import mapped
from dpone.connectors.files.sink import FilesLoad, FilesSink
from dpone.connectors.files.source import FilesSource
from dpone.connectors.files.state import State
from dpone.errors import (
    ConfigError,
    ConflictError,
    DataError,
    DponeError,
    PermissionDenied,
    ResourceError,
    SchemaError,
    SinkUnavailable,
    SourceUnavailable,
    StateError,
)
from dpone.sdk import (
    Capability,
    Column,
    Digest,
    LoadSpec,
    OpenLoad,
    Receipt,
    Results,
    Slice,
    Stream,
    StreamKey,
    StreamSchema,
    Table,
    Window,
)

# -- helpers ---------------------------------------------------------------------------------------------------


def source(path: Path | str, **config: Any) -> FilesSource:
    """A source with these settings."""
    return FilesSource(FilesConfig(path=str(path), **config))


def schema_of(path: Path | str, stream: str = "t", **config: Any) -> dict[str, str]:
    """The type names of a stream's columns."""
    described = source(path, **config).describe(Stream(stream))
    return {column.name: type_name(column.type, column.logical) for column in described.columns}


def read(path: Path | str, stream: Stream | str = "t", window: Window | None = None, **config: Any) -> list[Any]:
    """Describe, open, read every slice: the rows as tuples."""
    return read_with(source(path, **config), stream, window)[0]


def read_with(
    files: FilesSource, stream: Stream | str = "t", window: Window | None = None
) -> tuple[list[Any], Window, StreamSchema]:
    """The rows as tuples, the window with its bounds, the schema."""
    stream = Stream(stream) if isinstance(stream, str) else stream
    described = files.describe(stream)
    reading = files.open(stream, described, window or Window(full=not stream.cursor))
    rows: list[Any] = []
    total = Digest()
    for piece in reading.slices:
        assert piece.label in reading.query(piece)
        batches = list(reading.read(piece))
        assert all(batch.schema == arrow_schema(described.columns) for batch in batches)
        rows += [tuple(row.values()) for batch in batches for row in batch.to_pylist()]
        total += reading.digest(piece)
    assert len(rows) == total.rows
    return rows, reading.window, described


def failure(kind: type[DponeError], act: Callable[[], object]) -> DponeError:
    """The error of `act`, which must say where it is and what to do."""
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.remedy
    return caught.value


def csv_file(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    """Write a file."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def table_of(columns: dict[str, tuple[str, list[Any]]]) -> tuple[tuple[Column, ...], pa.RecordBatch]:
    """Columns and one batch from `name: (type name, values)`."""
    made, arrays = [], []
    for name, (kind, values_) in columns.items():
        if kind.startswith("list<"):
            type_: pa.DataType = pa.list_(parse_type(kind[5:-1])[0])
            logical: Any = ""
        elif kind.endswith("[ns]"):
            type_ = {
                "timestamp[ns]": pa.timestamp("ns"),
                "timestamptz[ns]": pa.timestamp("ns", "UTC"),
                "time[ns]": pa.time64("ns"),
            }[kind]
            logical = ""
        else:
            type_, logical = parse_type(kind)
        made.append(Column(name, type_, logical=logical))
        arrays.append(pa.array(values_, type_))
    return tuple(made), pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(tuple(made)))


KEY = StreamKey("pipeline", "stream", Table("", "out"))


@dataclass
class Outcome:
    """What a load gave."""

    receipt: Receipt
    results: Results


def put(
    config: FilesConfig,
    columns: tuple[Column, ...],
    slices: Sequence[pa.RecordBatch],
    *,
    write: Any = "replace",
    load_id: str = "a" * 32,
    again: bool = False,
    resume: bool = False,
    proof: Any = "digest",
    key: StreamKey = KEY,
) -> Outcome:
    """One load as the engine drives it: claim, begin, stage what is missing, commit, release."""
    sink = FilesSink(config)
    try:
        claim = sink.claim(key, run_id=f"run-{load_id}", holder="test")
        pieces = tuple(Slice(index, holds="again" if again else "new") for index in range(len(slices)))
        load = OpenLoad(load_id, "run", "intent", Window(), pieces, "snapshot")
        if resume and claim.receipt is not None and claim.receipt.load_id == load_id:
            return Outcome(claim.receipt, {})
        if resume and claim.pending is not None:
            load = claim.pending
        open_load = claim.begin(LoadSpec(load, key, columns, write, proof=proof))
        for piece, batch in zip(pieces, slices, strict=True):
            if piece.ordinal not in load.progress:
                receipt = open_load.stage(piece, [batch.slice(0, 1), batch.slice(1)])
                assert batch.num_rows == receipt.rows
            assert digest(columns, [batch]) == open_load.digest(piece)
        seen: list[Results] = []

        def check(results: Results) -> Receipt:
            seen.append(results)
            return Receipt(load.load_id, "run", load.window, {"staged": 1}, "now", extra={"n": "1"})

        receipt_ = open_load.commit(check)
        claim.record(f"run-{load_id}", "succeeded", '{"x": 1}')
        assert receipt_ == open_load.commit(check)
        return Outcome(receipt_, seen[0] if seen else {})
    finally:
        sink.close()


def debris(folder: Path) -> list[str]:
    """Everything of dpone that is not the receipt or a run record."""
    state = folder / "_dpone"
    return sorted(
        str(path.relative_to(state))
        for path in state.rglob("*")
        if path.is_file() and path.name != "receipt.json" and path.parent.name != "runs"
    )


# -- configuration ---------------------------------------------------------------------------------------------


def test_every_capability_is_declared_and_every_gap_explained() -> None:
    """The table is complete; a gap says why and what to do instead."""
    assert set(Capability) == set(connector.capabilities)
    gaps = [support for support in connector.capabilities.values() if support.level != "full"]
    assert all(gap.why and gap.instead for gap in gaps)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///data/x.csv", {"path": "/data/x.csv"}),
        ("file://rel/dir?format=csv", {"path": "rel/dir", "format": "csv"}),
        ("csv://in/%C3%A4.txt?delimiter=;&header=false",
         {"path": "in/ä.txt", "format": "csv", "delimiter": ";", "header": False}),
        ("jsonl:///d/*.log?sample_rows=5", {"path": "/d/*.log", "format": "jsonl", "sample_rows": 5}),
        ("parquet://p", {"path": "p", "format": "parquet"}),
        ("csv://x?null=NA&null=", {"path": "x", "format": "csv", "null": ("NA", "")}),
    ],
)  # fmt: skip
def test_urls(url: str, expected: dict[str, Any]) -> None:
    """A URL gives settings that the model takes."""
    assert expected == FilesConfig.from_url(url)
    assert expected["path"] == FilesConfig(**expected).identity


def test_settings_that_would_do_nothing_are_refused(tmp_path: Path) -> None:
    """CSV settings on another format, unknown query keys, impossible delimiters."""
    failure(ConfigError, lambda: FilesConfig.from_url("file://x?nope=1"))
    failure(ConfigError, lambda: FilesConfig.from_url("csv://x?format=jsonl"))
    for wrong in (
        {"format": "jsonl", "quote": "'"},
        {"delimiter": '"'},
        {"delimiter": ""},
        {"header": "yes"},
        {"a": 1},
    ):
        with pytest.raises(ValidationError):
            FilesConfig.model_validate({"path": "x", **wrong})
    pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
    failure(ConfigError, lambda: read(tmp_path, delimiter=";"))


# -- finding files ---------------------------------------------------------------------------------------------


def test_streams_of_a_folder(tmp_path: Path) -> None:
    """Files and folders of files are streams; hidden files, markers and dpone's own folder are not."""
    csv_file(tmp_path, "a\n1\n", "one.csv")
    csv_file(tmp_path, gzip.compress(b"a\n2\n"), "two.csv.gz")
    (tmp_path / "many").mkdir()
    pq.write_table(pa.table({"a": [3]}), tmp_path / "many" / "x.parquet")
    pq.write_table(pa.table({"a": [4]}), tmp_path / "many" / "y.parquet")
    csv_file(tmp_path / "many", "", "_SUCCESS")
    csv_file(tmp_path, "", ".hidden.csv")
    csv_file(tmp_path, "", "notes.txt")
    (tmp_path / "_dpone").mkdir()
    assert ("many", "one", "two") == source(tmp_path).discover()
    assert [(1,)] == read(tmp_path, "one")
    assert [(1,)] == read(tmp_path, "one.csv")
    assert [(2,)] == read(tmp_path, "two")
    assert [(3,), (4,)] == read(tmp_path, "many")
    assert [(1,)] == read(tmp_path / "one.csv", "anything")
    assert [(3,), (4,)] == read(tmp_path / "many" / "*.parquet", "anything")
    assert "did you mean one?" in failure(SchemaError, lambda: read(tmp_path, "onee")).remedy


def test_doubtful_streams_are_refused(tmp_path: Path) -> None:
    """Two files for one name, values in folder names, several formats, nothing there."""
    csv_file(tmp_path, "a\n1\n", "t.csv")
    csv_file(tmp_path, '{"a":1}\n', "t.jsonl")
    failure(SchemaError, lambda: read(tmp_path, "t"))
    (tmp_path / "hive" / "day=1").mkdir(parents=True)
    failure(SchemaError, lambda: read(tmp_path, "hive"))
    failure(SchemaError, lambda: read(tmp_path / "t.*", "t"))
    failure(SchemaError, lambda: read(tmp_path / "nowhere", "t"))
    failure(SchemaError, lambda: read(tmp_path / "nowhere*.csv", "t"))
    failure(ConfigError, lambda: read(csv_file(tmp_path, "a\n1\n", "t.dat")))


def test_files_of_one_stream_have_the_same_columns(tmp_path: Path) -> None:
    """By name, in any order, with types from all of them; otherwise the odd file is named."""
    folder = tmp_path / "t"
    folder.mkdir()
    csv_file(folder, "a,b\n1,x\n", "1.csv")
    csv_file(folder, "b,a\ny,two\n", "2.csv")
    assert [("1", "x"), ("two", "y")] == read(tmp_path)
    csv_file(folder, "a,c\n1,x\n", "3.csv")
    assert "3.csv" in failure(SchemaError, lambda: read(tmp_path)).message


# -- CSV -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "kind", "expected"),
    [
        (["1", "-20", "0"], "int64", [1, -20, 0]),
        (["007", "1"], "text", ["007", "1"]),
        (["+1"], "text", ["+1"]),
        (["-0"], "text", ["-0"]),
        (["9223372036854775807"], "int64", [2**63 - 1]),
        (["9223372036854775808"], "decimal(38,9)", [Decimal(2**63)]),
        (["0x10"], "text", ["0x10"]),
        (["1.50", "2.00"], "decimal(38,2)", [Decimal("1.50"), Decimal("2.00")]),
        (["1.5", "2", "-0.125"], "decimal(38,9)", [Decimal("1.5"), Decimal(2), Decimal("-0.125")]),
        (["1.10", "1.9"], "text", ["1.10", "1.9"]),
        (["-0.00"], "text", ["-0.00"]),
        ([".5"], "text", [".5"]),
        (["0.30000000000000004", "1.5"], "decimal(38,18)", [Decimal("0.30000000000000004"), Decimal("1.5")]),
        (["1e-07", "2.5"], "float64", [1e-7, 2.5]),
        (["5.0", "7.25"], "float64", [5.0, 7.25]),
        (["5.0", "7"], "text", ["5.0", "7"]),
        (["1e400", "1e5"], "text", ["1e400", "1e5"]),
        (["0.1000000000000000000001", "1e+16"], "text", ["0.1000000000000000000001", "1e+16"]),
        (["true", "false"], "boolean", [True, False]),
        (["True"], "text", ["True"]),
        (["t"], "text", ["t"]),
        (["2024-02-29"], "date", [date(2024, 2, 29)]),
        (["2023-02-29"], "text", ["2023-02-29"]),
        (["2024-1-2"], "text", ["2024-1-2"]),
        (["2024-01-02 03:04:05", "2024-01-02T03:04:05.123456"], "timestamp",
         [datetime(2024, 1, 2, 3, 4, 5), datetime(2024, 1, 2, 3, 4, 5, 123456)]),
        (["2024-01-02 03:04:05.1234567"], "text", ["2024-01-02 03:04:05.1234567"]),
        (["2024-01-02T03:04:05+05:30", "2024-01-02 03:04:05Z"], "timestamptz",
         [datetime(2024, 1, 1, 21, 34, 5, tzinfo=UTC), datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)]),
        (["2024-01-02 24:00:00"], "text", ["2024-01-02 24:00:00"]),
        (["x", " y ", "ż\u2028"], "text", ["x", " y ", "ż\u2028"]),
    ],
)  # fmt: skip
def test_inference_never_alters(tmp_path: Path, texts: list[str], kind: str, expected: list[Any]) -> None:
    """A type is inferred only when the texts could be written again from the values."""
    csv_file(tmp_path, "v,pad\n" + "".join(f"{text},\n" for text in texts) + ",x\n")
    assert {"v": kind, "pad": "text"} == schema_of(tmp_path)
    assert [*expected, None] == [row[0] for row in read(tmp_path)]


@pytest.mark.parametrize(
    ("first", "bad"),
    [
        ("1", "007"), ("1", "1.5"), ("1", "+2"), ("1", ""), ("1", "99999999999999999999"), ("1.50", "1.5"),
        ("1.50", "-0.00"), ("1.5", "1.10"), ("1.5", "1e3"), ("1.5", "0.1234567891"), ("1e-07", "0.10"),
        ("true", "TRUE"), ("2024-01-01", "2024-13-01"), ("2024-01-01 00:00:00", "2024-01-01"),
        ("2024-01-01 00:00:00", "2024-01-01 00:00:00Z"), ("2024-01-01 00:00:00Z", "2024-01-01 00:00:00"),
    ],
)  # fmt: skip
def test_a_late_misfit_is_an_error(tmp_path: Path, first: str, bad: str) -> None:
    """What does not fit the type found in the sample fails, naming file and column and not the value."""
    csv_file(tmp_path, "v,w\n" + f"{first},x\n" * 1000 + f'"{bad}",x\n')
    error = failure(DataError, lambda: read(tmp_path, sample_rows=1000))
    assert "t.csv" in error.message
    assert "column v" in error.message
    assert "columns: {cast: {v: text}}" in error.remedy
    assert not bad or bad not in error.message + error.remedy + error.where
    cast = Stream("t", casts={"v": "text"})
    assert [first] * 1000 + [bad] == [row[0] for row in read(tmp_path, cast, sample_rows=1000)]


@pytest.mark.parametrize(
    ("kind", "texts", "expected"),
    [
        ("int64", ["007", "+5", "-0"], [7, 5, 0]),
        ("uint64", ["18446744073709551615"], [2**64 - 1]),
        ("int8", ["-128"], [-128]),
        ("decimal(10,2)", ["1", "1.5", "+001.50", "1e2", ".5"], list(map(Decimal, ("1", "1.5", "1.5", "100", "0.5")))),
        ("float64", ["1", "1e-7", "inf", "-Infinity"], [1.0, 1e-7, math.inf, -math.inf]),
        ("float32", ["0.1"], [0.10000000149011612]),
        ("time", ["23:59:59.5", "00:00:00"], [time(23, 59, 59, 500000), time(0)]),
        ("uuid", ["0b7f7c4c-9f9c-4a57-8f2e-0a3a5c1f7a11"], ["0b7f7c4c-9f9c-4a57-8f2e-0a3a5c1f7a11"]),
        ("binary", ["00ff", "AB"], [b"\x00\xff", b"\xab"]),
        ("text", ["1"], ["1"]),
    ],
)  # fmt: skip
def test_declared_types_take_every_exact_text(tmp_path: Path, kind: str, texts: list[str], expected: list[Any]) -> None:
    """Declared in the settings or cast by the stream; the value must be exact, its text is free."""
    csv_file(tmp_path, "v,pad\n" + "".join(f"{text},x\n" for text in texts))
    assert expected == [row[0] for row in read(tmp_path, types={"v": kind})]
    assert expected == [row[0] for row in read(tmp_path, Stream("t", casts={"v": kind}), types={"v": "text"})]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int8", "128"), ("int64", "0x10"), ("int64", "1.0"), ("uint8", "-1"), ("decimal(4,2)", "1.234"),
        ("decimal(4,2)", "123.4"), ("float64", "1e400"), ("float64", "nope"), ("boolean", "1"), ("date", "2024-02-30"),
        ("time", "25:00:00"), ("timestamp", "2024-01-01T00:00:00.1234567"), ("timestamptz", "2024-01-01T00:00:00"),
        ("binary", "abc"), ("binary", "zz"), ("uuid", "x"), ("json", "{"),
    ],
)  # fmt: skip
def test_declared_types_refuse_what_is_not_exact(tmp_path: Path, kind: str, text: str) -> None:
    """A text without an exact value of the type is an error, never rounded and never NULL."""
    csv_file(tmp_path, f"v,pad\n{text},x\n")
    failure(DataError, lambda: read(tmp_path, types={"v": kind}))


def test_null_and_the_empty_string(tmp_path: Path) -> None:
    """Unquoted empty is NULL, quoted empty is ''; the null texts count only without quotes."""
    csv_file(tmp_path, 'a,b\n,1\n"",2\nNA,3\n"NA",4\nx,\n')
    assert [(None, 1), ("", 2), ("NA", 3), ("NA", 4), ("x", None)] == read(tmp_path)
    expected = [("", "1"), ("", "2"), (None, "3"), ("NA", "4"), ("x", "")]
    assert expected == read(tmp_path, null=("NA",), types={"b": "text"})


def test_one_column_with_empty_lines(tmp_path: Path) -> None:
    """In a file of one column an empty line is a NULL; in a wider file it is no row."""
    csv_file(tmp_path, 'a\nx\n\n""\n', "one.csv")
    assert [("x",), (None,), ("",)] == read(tmp_path, "one")
    csv_file(tmp_path, "a,b\nx,y\n\nz,w\n\n", "two.csv")
    assert [("x", "y"), ("z", "w")] == read(tmp_path, "two")


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.csv.zst"])
def test_awkward_text(tmp_path: Path, name: str) -> None:
    """Delimiters, quotes, line ends, NUL and a byte order mark survive, in every compression, across block borders."""
    texts = ['a"b', "x,y", "line\nbreak", "cr\rlf\r\n", "", '""', "ż東京🎈", "nul\0", " ", "'", "\\N", "\ufeff"]
    body = "\ufeffk,v\r\n" + "".join(
        f'{index},"{text.replace(chr(34), chr(34) * 2)}"\r\n' for index, text in enumerate(texts)
    )
    write_packed(tmp_path / name, body.encode())
    assert [(index, text) for index, text in enumerate(texts)] == read(tmp_path)


def write_packed(path: Path, data: bytes) -> None:
    """Write a file, compressed as its name says."""
    codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    if codec is None:
        path.write_bytes(data)
        return
    with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), codec) as stream:
        stream.write(data)


@pytest.mark.parametrize("size", [16, 200, 5000])
def test_records_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Blocks end after whole records, wherever the border falls and however long a record is."""
    monkeypatch.setattr(formats, "BLOCK_BYTES", size)
    monkeypatch.setattr(formats, "PART_BYTES", 200)
    chance = random.Random(size)
    rows = [
        ("".join(chance.choices('ab,"\n\r ż', k=chance.randrange(0, 90))), chance.choice([None, "", "x\ny", '"']))
        for _ in range(300)
    ]

    def cell(text: str | None) -> str:
        return "" if text is None else '"' + text.replace('"', '""') + '"'

    csv_file(tmp_path, "a,b\n" + "".join(f"{cell(a)},{cell(b)}\n" for a, b in rows))
    assert rows == read(tmp_path, types={"a": "text", "b": "text"})


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_empty_lines_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, ending: str) -> None:
    """The NULLs of a file of one column are counted right, also at the start and the end of a block."""
    monkeypatch.setattr(formats, "BLOCK_BYTES", size)
    monkeypatch.setattr(formats, "PART_BYTES", 3)
    texts = [None, None, "x", None, "", None, "yy", *[None] * 9]
    lines = ["" if text is None else f'"{text}"' for text in texts]
    csv_file(tmp_path, "".join(line + ending for line in ["a", *lines]))
    assert [(text,) for text in texts] == read(tmp_path)
    assert len(texts) == formats.count(tmp_path / "t.csv", Layout(format="csv"), "t.csv")


def test_a_byte_order_mark_inside_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the mark at the start of a file is one; a value that begins with that character keeps it."""
    monkeypatch.setattr(formats, "BLOCK_BYTES", 8)
    csv_file(tmp_path, "\ufeffa,b\n" + "\ufeffx,y\n" * 20 + '"\ufeff",\ufeff\n')
    assert [("\ufeffx", "y")] * 20 + [("\ufeff", "\ufeff")] == read(tmp_path)


def test_a_record_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One record cannot take all memory."""
    monkeypatch.setattr(formats, "BLOCK_BYTES", 64)
    monkeypatch.setattr(formats, "RECORD_BYTES", 1000)
    csv_file(tmp_path, 'a,b\n1,"' + "x\n" * 2000 + '"\n')
    failure(DataError, lambda: read(tmp_path))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('a,b\n1,2\n"x\ny",2\n3,4,5\n', 5),
        ("a,b\n1,2\n3\n", 3),
        ("a,b\n" + "1,2\n" * 9 + "x" * 200_000 + ",1,2\n", 1),
        ('a,b\n1,"x"y\n', 2),
        ('a,b\n1,x"y\n', 2),
        ('a,b\n1,2\n1,"open\n', 3),
        ('a,b\n1, "x"\n', 2),
    ],
)
def test_malformed_csv_is_an_error_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    """Ragged rows and quotes out of place are named with file and line; nothing is repaired."""
    csv_file(tmp_path, text)
    error = failure(DataError, lambda: read(tmp_path))
    assert "t.csv" in error.message
    assert f"line {line}" in error.message


def test_quotes_are_text_when_nothing_is_quoted(tmp_path: Path) -> None:
    """With quote: "" a quote is an ordinary character."""
    csv_file(tmp_path, 'a\tb\n5" pipe\t"x\n', "t.tsv")
    assert [('5" pipe', '"x')] == read(tmp_path, quote="")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"a,a\n1,2\n", SchemaError),
        (b"a,\n1,2\n", SchemaError),
        (b"", SchemaError),
        ("a,b\n1,2\n".encode("utf-16"), DataError),
        (b"a,b\n1,\xff\n", DataError),
    ],
)
def test_files_that_are_no_clean_csv(tmp_path: Path, text: bytes, kind: type[DponeError]) -> None:
    """Doubled or missing names, no header, another encoding."""
    csv_file(tmp_path, text)
    failure(kind, lambda: read(tmp_path))


def test_a_damaged_archive_is_an_error(tmp_path: Path) -> None:
    """A cut off gzip or zstd file is never read as a shorter one."""
    rows = "a\n" + "".join(f"{index}\n" for index in random.Random(1).choices(range(10**9), k=50_000))
    for name in ("x.csv.gz", "x.csv.zst"):
        write_packed(tmp_path / name, rows.encode())
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) - 7])
        failure(DataError, lambda name=name: read(tmp_path / name))  # type: ignore[misc]
    pq.write_table(pa.table({"a": list(range(1000))}), tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(whole[:-9])
    failure(DataError, lambda: read(tmp_path / "x.parquet"))


def test_errors_of_the_system_say_the_act_and_the_remedy() -> None:
    """The table: known numbers have their category, other numbers are an unavailable source or sink."""
    cases: list[tuple[BaseException, Any, type[DponeError]]] = [
        (OSError(errno.ENOSPC, "x"), "sink", ResourceError),
        (PermissionError(errno.EACCES, "x"), "source", PermissionDenied),
        (OSError(errno.EIO, "x"), "source", SourceUnavailable),
        (OSError(errno.EIO, "x"), "sink", SinkUnavailable),
        (OSError("a library's own"), "source", DataError),
        (MemoryError(), "sink", ResourceError),
        (pa.ArrowInvalid("value 17 is wrong"), "source", DataError),
    ]

    def act(error: BaseException, side: Any) -> None:
        with mapped("doing it", side):
            raise error

    for error, side, kind in cases:
        found = failure(kind, lambda error=error, side=side: act(error, side))  # type: ignore[misc]
        assert found.message.startswith("doing it: ")
        assert "17" not in found.message


def test_no_header(tmp_path: Path) -> None:
    """Columns are c1, c2, ... and the first line is a row."""
    csv_file(tmp_path, "1,x\n2,y\n")
    assert [(1, "x"), (2, "y")] == read(tmp_path, header=False)
    assert {"c1": "int64", "c2": "text"} == schema_of(tmp_path, header=False)


def test_selection(tmp_path: Path) -> None:
    """Include and exclude; a name that is not there is refused with a suggestion."""
    csv_file(tmp_path, "aa,bb,cc\n1,2,3\n")
    assert [(1, 3)] == read(tmp_path, Stream("t", exclude=("bb",)))
    assert [(2,)] == read(tmp_path, Stream("t", include=("bb",)))
    assert "aa" in failure(SchemaError, lambda: read(tmp_path, Stream("t", include=("aaa",)))).remedy
    failure(SchemaError, lambda: read(tmp_path, Stream("t", casts={"aaa": "text"})))


# -- JSONL -----------------------------------------------------------------------------------------------------


def test_json_values(tmp_path: Path) -> None:
    """Numbers are exact, strings stay strings, nested and mixed values are JSON text, missing keys are NULL."""
    lines = [
        '{"i":1,"d":1.10,"s":"2024-01-01","b":true,"n":{"x":1.10,"y":[1,{"z":null}]},"m":1,"o":"a\\u00e9\\n\\"q"}',
        '{"i":-9223372036854775808,"d":12345678901234567890.123456789,"m":"one","n":null,"s":""}',
        "",
        '{"d":3,"n":[0.10000000000000000000001,"0.10000000000000000000001"],"m":[1,2.5],"s":null,"b":false}',
        '{"d":1e-3,"n":1234567890123456789012345678901234567890}',
    ]
    csv_file(tmp_path, "\n".join(lines), "t.jsonl")
    kinds = {"i": "int64", "d": "decimal(38,9)", "s": "text", "b": "boolean", "n": "json", "m": "json", "o": "text"}
    assert kinds == schema_of(tmp_path)
    rows = read(tmp_path)
    assert [
        (1, -(2**63), None, None),
        (Decimal("1.1"), Decimal("12345678901234567890.123456789"), 3, Decimal("0.001")),
    ] == [tuple(row[column] for row in rows) for column in (0, 1)]
    assert [("2024-01-01", "", None, None), (True, None, False, None)] == [
        tuple(row[column] for row in rows) for column in (2, 3)
    ]

    def exact(text: str | None) -> Any:
        return None if text is None else json.loads(text, parse_float=Decimal)

    nested = [json.loads(line, parse_float=Decimal) for line in lines if line]
    assert [row.get("n") for row in nested] == [exact(row[4]) for row in rows]
    assert [row.get("m") for row in nested] == [exact(row[5]) for row in rows]
    assert ['aé\n"q', None, None, None] == [row[6] for row in rows]


def test_json_numbers_that_fit_no_decimal_stay_json(tmp_path: Path) -> None:
    """Bigger integers become decimal(38,0); what no decimal holds is its own text; never a float without asking."""
    csv_file(tmp_path, '{"a":12345678901234567890,"b":1e300,"c":1}\n{"a":1,"b":0.5,"c":2}\n', "t.jsonl")
    assert {"a": "decimal(38,0)", "b": "json", "c": "int64"} == schema_of(tmp_path)
    assert [Decimal(12345678901234567890), Decimal(1)] == [row[0] for row in read(tmp_path)]
    assert [1e300, 0.5] == [float(row[1]) for row in read(tmp_path)]
    assert [1e300, 0.5] == [row[1] for row in read(tmp_path, Stream("t", casts={"b": "float64"}))]


@pytest.mark.parametrize(
    ("first", "bad", "column"),
    [
        ('{"a":1}', '{"a":1.5}', "a"),
        ('{"a":1,"b":1e300}', '{"a":1,"b":1e400}', "column b"),
        ('{"a":1,"b":"x"}', '{"a":1,"b":-1e400}', "column b"),
        ('{"a":1,"b":{}}', '{"a":1,"b":{"c":[1e400]}}', "column b"),
        ('{"a":1,"b":"x"}', '{"a":1,"b":"\\ud800"}', "column b"),
        ('{"a":1}', '{"a":"1"}', "a"),
        ('{"a":1}', '{"a":9223372036854775808}', "a"),
        ('{"a":1}', '{"a":1,"late":2}', "late"),
        ('{"a":1,"n":{}}', '{"a":1,"late":2}', "late"),
        ('{"a":1.5}', '{"a":"1.50"}', "a"),
        ('{"a":1.5}', '{"a":0.1234567891}', "a"),
        ('{"a":"x"}', '{"a":1}', "a"),
        ('{"a":"x"}', '{"a":{"b":1}}', "a"),
        ('{"a":true}', '{"a":1}', "a"),
        ('{"a":1}', '{"a":1,"a":2}', ""),
        ('{"n":{}}', '{"n":1,"n":2}', ""),
        ('{"a":1}', "null", ""),
        ('{"a":1}', "[1]", ""),
        ('{"a":1}', '{"a":1', ""),
        ('{"n":{}}', '{"n":1} {"n":2}', ""),
        ('{"n":{}}', '{"n":1', ""),
        ('{"n":{}}', "[1]", ""),
        ('{"n":{}}', "5", ""),
    ],
)
def test_late_json_misfits_are_errors(tmp_path: Path, first: str, bad: str, column: str) -> None:
    """What the sample did not show is an error that names the column, never dropped and never converted."""
    csv_file(tmp_path, f"{first}\n" * 1000 + f"{bad}\n", "t.jsonl")
    error = failure(DataError, lambda: read(tmp_path, sample_rows=1000))
    assert "t.jsonl" in error.message
    assert column in error.message
    assert "line 1001" in error.message or "after line" in error.message


@pytest.mark.parametrize("line", ['{"a":', "[1]", "null", '{"a":NaN}', '{"a":1} {"a":2}'])
def test_sampled_lines_are_json_objects(tmp_path: Path, line: str) -> None:
    """One object per line, of JSON as it is standardised."""
    csv_file(tmp_path, f"{line}\n", "t.jsonl")
    failure(DataError, lambda: read(tmp_path))


def test_json_text_is_utf8(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are an error."""
    csv_file(tmp_path, b'{"a":"x"}\n' * 1000 + b'{"a":"\xff"}\n', "t.jsonl")
    failure(DataError, lambda: read(tmp_path, sample_rows=1000))


def test_json_keys_of_all_sorts(tmp_path: Path) -> None:
    """Dots, quotes, slashes and tildes in keys are just names."""
    row = {"a.b": 1, 'q"u': [1], "s/l": {"x": 1}, "t~i": [2], "o'k": {"y": 2}, "0": [3], "ż": "x"}
    csv_file(tmp_path, json.dumps(row) + "\n" + json.dumps(row, ensure_ascii=False) + "\n", "t.jsonl")
    found = read(tmp_path)
    assert [tuple(row.values())] * 2 == [
        tuple(json.loads(v) if isinstance(v, str) and v != "x" else v for v in values_) for values_ in found
    ]
    assert [(1, "x")] * 2 == read(tmp_path, Stream("t", include=("a.b", "ż")))


@pytest.mark.parametrize("size", [50, 3000])
def test_json_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Objects fall whole into blocks and their parts."""
    monkeypatch.setattr(formats, "BLOCK_BYTES", size)
    monkeypatch.setattr(formats, "PART_BYTES", 100)
    rows = [{"a": index, "s": "x" * (index % 70), "n": [index]} for index in range(200)]
    csv_file(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "t.jsonl")
    assert [(row["a"], row["s"], row["n"]) for row in rows] == [(a, s, json.loads(n)) for a, s, n in read(tmp_path)]


# -- Parquet ---------------------------------------------------------------------------------------------------


def test_parquet_types(tmp_path: Path) -> None:
    """Types come from the file; large and dictionary types become plain; the rest is widened or refused by name."""
    instant = datetime(2024, 1, 1, tzinfo=UTC)
    table = pa.table(
        {
            "a.b": pa.array([1], pa.uint64()), "a": pa.array([2], pa.int8()),
            "dict": pa.array(["x"]).dictionary_encode(), "view": pa.array(["v"], pa.string_view()),
            "large": pa.array(["l"], pa.large_string()), "half": pa.array([1.5], pa.float16()),
            "ns": pa.array([1], pa.timestamp("ns")), "ms": pa.array([1], pa.timestamp("ms")),
            "zone": pa.array([instant], pa.timestamp("us", "Europe/Warsaw")), "t32": pa.array([1], pa.time32("ms")),
            "list": pa.array([["x", None]], pa.large_list(pa.large_string())),
            "wide": pa.array([Decimal("1" * 40 + ".5")], pa.decimal256(45, 1)),
            "fixed": pa.array([b"ab"], pa.binary(2)),
            "uuid": pa.array([bytes(range(16))], pa.uuid()), "json": pa.array(['{"a": 1}'], pa.json_()),
            "struct": pa.array([{"x": 1, "y": [0.5, None], "z": "ż"}]),
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            "gap": pa.array([1], pa.duration("us")), "null": pa.nulls(1),
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    expected = {
        "a.b": ("uint64", 1), "a": ("int8", 2), "dict": ("text", "x"), "view": ("text", "v"), "large": ("text", "l"),
        "half": ("float32", 1.5), "ns": ("timestamp[ns]", None),
        "ms": ("timestamp", datetime(1970, 1, 1, 0, 0, 0, 1000)),
        "zone": ("timestamptz", instant), "t32": ("time", time(0, 0, 0, 1000)), "list": ("list<text>", ["x", None]),
        "wide": ("text", "1" * 40 + ".5"), "fixed": ("binary", b"ab"),
        "uuid": ("uuid", "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        "json": ("json", '{"a": 1}'), "struct": ("json", '{"x":1,"y":[0.5,null],"z":"ż"}'), "map": ("json", '{"k":1}'),
        "gap": ("text", None), "null": ("text", None),
    }  # fmt: skip
    assert {name: kind for name, (kind, _) in expected.items()} == schema_of(tmp_path)
    described = source(tmp_path).describe(Stream("t"))
    assert {"gap"} == {column.name for column in described.columns if column.fidelity == "refused"}
    assert {"wide", "struct", "map", "null"} == {c.name for c in described.columns if c.fidelity == "widened"}
    left = [name for name in expected if name not in ("gap", "ns")]
    assert [tuple(expected[name][1] for name in left)] == read(tmp_path, Stream("t", exclude=("gap", "ns")))
    assert [(2,)] == read(tmp_path, Stream("t", include=("a",)))


def test_parquet_casts(tmp_path: Path) -> None:
    """Exact casts are made, inexact values are errors, senseless casts are refused before reading."""
    pq.write_table(pa.table({"i": [1, 300], "f": [0.1, 2.0], "s": ["1.5", "2"]}), tmp_path / "t.parquet")
    casts = {"i": "decimal(5,1)", "f": "text", "s": "decimal(5,1)"}
    expected = [(Decimal(1), "0.1", Decimal("1.5")), (Decimal(300), "2", Decimal(2))]
    assert expected == read(tmp_path, Stream("t", casts=casts))
    failure(DataError, lambda: read(tmp_path, Stream("t", casts={"i": "int8"})))
    failure(ConfigError, lambda: read(tmp_path, Stream("t", casts={"f": "decimal(5,1)"})))


def test_nan_inside_a_struct_is_refused(tmp_path: Path) -> None:
    """JSON has no NaN, so there is no exact JSON text."""
    pq.write_table(pa.table({"s": pa.array([{"x": math.nan, "y": "nan"}])}), tmp_path / "t.parquet")
    failure(DataError, lambda: read(tmp_path))
    pq.write_table(pa.table({"s": pa.array([{"x": 1.0, "y": 'a "nan" b'}])}), tmp_path / "t.parquet")
    assert [('{"x":1.0,"y":"a \\"nan\\" b"}',)] == read(tmp_path)


class Wkb(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """The name under which Arrow writes the logical type GEOMETRY."""

    def __init__(self) -> None:
        super().__init__(pa.binary(), "geoarrow.wkb")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"{}"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Wkb:
        del storage, serialized
        return cls()


def test_bytes_with_a_meaning_are_refused_until_they_are_asked_for(tmp_path: Path) -> None:
    """INTERVAL and GEOMETRY are mere bytes to pyarrow: the plan says so, and a cast reads the bytes."""
    point = bytes.fromhex("0101000000000000000000f03f0000000000000040")
    pa.register_extension_type(Wkb())
    try:
        shapes = pa.ExtensionArray.from_storage(Wkb(), pa.array([point]))
        pq.write_table(pa.table({"g": shapes}), tmp_path / "g.parquet", store_schema=False)
    finally:
        pa.unregister_extension_type("geoarrow.wkb")
    with duckdb.connect() as connection:
        path = str(tmp_path / "i.parquet").replace("'", "''")
        connection.execute(f"COPY (SELECT INTERVAL '1 month 2 days' AS i, [INTERVAL '1 day'] AS l) TO '{path}'")
    [shape] = source(tmp_path).describe(Stream("g")).columns
    assert ("refused", "extension type GEOMETRY of Parquet") == (shape.fidelity, shape.native)
    assert "columns: {cast: {g: binary}}" in shape.note
    span, spans = source(tmp_path).describe(Stream("i")).columns
    assert ("refused", "refused") == (span.fidelity, spans.fidelity)
    assert "columns: {cast: {i: binary}}" in span.note
    assert "columns: {exclude: [l]}" in spans.note
    assert [(point,)] == read(tmp_path, Stream("g", casts={"g": "binary"}))
    days = bytes([1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0])
    assert [(days,)] == read(tmp_path, Stream("i", casts={"i": "binary"}, exclude=("l",)))


def test_a_column_of_the_null_type_is_text(tmp_path: Path) -> None:
    """It has no values, and no list of it has."""
    pq.write_table(
        pa.table({"n": pa.nulls(2), "l": pa.array([[None], []], pa.list_(pa.null()))}), tmp_path / "t.parquet"
    )
    null, list_ = source(tmp_path).describe(Stream("t")).columns
    assert ("widened", "text") == (null.fidelity, type_name(null.type))
    assert "refused" == list_.fidelity
    assert [(None,), (None,)] == read(tmp_path, Stream("t", exclude=("l",)))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_what_parquet_makes_of_a_unit_is_accepted_again(tmp_path: Path, unit: Any) -> None:
    """Seconds become milliseconds, and the plan says so; what stands in the file is what the next plan wants."""
    clock = pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    types: list[pa.DataType] = [clock, pa.timestamp(unit), pa.timestamp(unit, "UTC")]
    columns = tuple(Column(f"c{number}", type_) for number, type_ in enumerate([*types, *map(pa.list_, types)]))
    arrays = [pa.array([1, None], type_) for type_ in types]
    arrays += [pa.array([[1, None], None], pa.list_(type_)) for type_ in types]
    batch = pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(columns))
    sink = FilesSink(FilesConfig(path=str(tmp_path / "out.parquet")))
    layout = FilesConfig(path=str(tmp_path)).layout("x.parquet")
    formats.write_slice(tmp_path / "slice", layout, columns, [batch])
    formats.assemble([tmp_path / "slice"], tmp_path / "out.parquet", layout, columns)
    back = pa.Table.from_batches(formats.read_known(tmp_path / "out.parquet", layout, columns, "it"))
    assert pa.Table.from_batches([batch]).equals(back)
    target = sink.describe(KEY.target)
    assert target is not None
    for column in columns:
        wanted = sink.dialect.native(column)
        assert sink.dialect.accepts(target.columns[column.name], wanted), (target.columns[column.name], wanted)
        assert wanted.sql.endswith(("[ms]", "[ms]>")) == (unit in ("s", "ms"))


def test_seconds_beyond_milliseconds_stop_by_name(tmp_path: Path) -> None:
    """Parquet counts milliseconds in 64 bits."""
    columns = (Column("at", pa.timestamp("s")),)
    batch = pa.record_batch([pa.array([2**60]).cast(pa.timestamp("s"))], schema=arrow_schema(columns))
    layout = FilesConfig(path=str(tmp_path)).layout("x.parquet")
    formats.write_slice(tmp_path / "slice", layout, columns, [batch])
    error = failure(DataError, lambda: formats.assemble([tmp_path / "slice"], tmp_path / "x.parquet", layout, columns))
    assert "column at" in error.message


def test_parquet_slices(tmp_path: Path) -> None:
    """Row groups are gathered to the wished size; together the slices are the file."""
    pq.write_table(pa.table({"a": list(range(1000))}), tmp_path / "t.parquet", row_group_size=100)
    stream = Stream("t", slice_rows=250)
    reading = source(tmp_path).open(stream, source(tmp_path).describe(stream), Window())
    starts = ["t.parquet", *(f"t.parquet row group {group}" for group in (2, 4, 6, 8))]
    assert starts == [piece.label for piece in reading.slices]
    assert [(n,) for n in range(1000)] == read(tmp_path, stream)
    assert 1000 == source(tmp_path).describe(stream).estimated_rows


# -- snapshots and windows -------------------------------------------------------------------------------------


def test_the_snapshot_token_follows_the_files(tmp_path: Path) -> None:
    """Unchanged files give the same token; another size, time or set of files another one."""
    path = csv_file(tmp_path, "a\n1\n")

    def token() -> str:
        files = source(tmp_path)
        return files.open(Stream("t"), files.describe(Stream("t")), Window()).snapshot

    first = token()
    assert first == token()
    os.utime(path, ns=(1, 1))
    second = token()
    csv_file(tmp_path, "a\n1\n2\n")
    assert 3 == len({first, second, token()})


def test_pinned_slices_are_every_row_whatever_files_came_or_went(tmp_path: Path) -> None:
    """The slices of an interrupted load, read later: each file and row group once, new and rewritten ones too."""
    folder = tmp_path / "t"
    folder.mkdir()

    def write(name: str, numbers: range, group: int = 10) -> None:
        pq.write_table(pa.table({"a": list(numbers)}), folder / f"{name}.parquet", row_group_size=group)

    stream = Stream("t", slice_rows=20)
    write("b", range(50))
    write("d", range(100, 150))
    files = source(tmp_path)
    pinned = files.open(stream, files.describe(stream), Window()).slices
    assert 6 == len(pinned)
    changes: list[Callable[[], object]] = [
        lambda: write("a", range(200, 210)),
        lambda: write("c", range(300, 350)),
        lambda: write("e", range(400, 410)),
        lambda: write("b", range(5)),
        lambda: write("d", range(100, 200), group=3),
        (folder / "b.parquet").unlink,
    ]
    for change in changes:
        change()
        files = source(tmp_path)
        reading = files.open(stream, files.describe(stream), Window())
        rows = [row["a"] for piece in pinned for batch in reading.read(piece) for row in batch.to_pylist()]
        expected = [n for path in sorted(folder.iterdir()) for n in pq.read_table(path)["a"].to_pylist()]
        assert expected == rows


def test_a_file_that_changes_while_it_is_read_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, during and after: no slice is half of one version and half of another."""
    monkeypatch.setattr(formats, "BLOCK_BYTES", 1000)
    body = "a,b\n" + "1,x\n" * 5000
    path = csv_file(tmp_path, body)
    stream = Stream("t")
    files = source(tmp_path, sample_rows=10)
    described = files.describe(stream)
    reading = files.open(stream, described, Window())
    batches = reading.read(reading.slices[0])
    next(batches)
    with path.open("a") as more:
        more.write("2,y\n")
    failure(DataError, lambda: list(batches))
    failure(DataError, lambda: list(reading.read(reading.slices[0])))
    path.unlink()
    failure(DataError, lambda: list(reading.read(reading.slices[0])))


CURSORS: list[tuple[str, list[Any]]] = [
    ("int64", [1, 2, 2, 3]),
    ("date", [date(2024, 1, day) for day in (1, 2, 2, 3)]),
    ("timestamptz", [datetime(2024, 1, day, 1, 2, 3, 456789, tzinfo=UTC) for day in (1, 2, 2, 3)]),
    ("decimal(20,3)", [Decimal(text) for text in ("1.5", "20", "20", "100")]),
    ("text", ["a", "b", "b", "ż"]),
]


@pytest.mark.parametrize(("kind", "cursors"), CURSORS, ids=[kind for kind, _ in CURSORS])
@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_cursor_windows(tmp_path: Path, kind: str, cursors: list[Any], format_: Any) -> None:
    """Windows are (after, until]; ties that change are read again, NULL cursors as asked, nothing twice."""
    first, _, second, third = cursors
    config = {"types": {"c": kind, "v": "int64"}}

    def write(rows: list[tuple[Any, int]]) -> None:
        columns, batch = table_of({"c": (kind, [c for c, _ in rows]), "v": ("int64", [v for _, v in rows])})
        (tmp_path / f"out.{format_}").unlink(missing_ok=True)
        put(FilesConfig(path=str(tmp_path), format=format_), columns, [batch], load_id=f"{len(rows)}{rows[-1][1]}")

    def move(window: Window, **more: Any) -> tuple[list[int], Window]:
        rows, fixed, _ = read_with(source(tmp_path, **config), Stream("out", cursor="c", **more), window)
        return sorted(row[1] for row in rows), fixed

    write([(first, 1), (second, 2), (second, 3)])
    seen, window = move(Window(full=False))
    assert [1, 2, 3] == seen
    assert (False, "max", 0, False) == (window.full, window.until_rule, window.null_rows, window.again is not None)

    later = Window(full=False, after=window.until, ties=window.ties)
    seen, again = move(later)
    assert [] == seen
    assert again.empty
    assert (window.until, window.ties) == (again.until, again.ties)

    write([(first, 1), (second, 2), (second, 3), (second, 4)])
    seen, again = move(later)
    assert ([2, 3, 4], True) == (seen, again.again is not None)
    assert again.ties != window.ties

    write([(first, 1), (second, 2), (second, 3), (third, 5)])
    seen, again = move(later)
    assert ([5], False) == (seen, again.again is not None)
    seen, pinned = move(replace(again))
    assert ([5], again) == (seen, pinned)

    write([(first, 1)])
    seen, back = move(later)
    assert window.until == back.until
    assert ([], True) == (seen, back.again is not None)

    write([(first, 1), (second, 2), (second, 3), (None, 6)])
    error = failure(DataError, lambda: move(later))
    assert "1 rows" in error.message
    seen, loaded = move(later, null_cursor="load")
    assert ([6], 1) == (seen, loaded.null_rows)


def test_cursors_without_an_order_are_refused(tmp_path: Path) -> None:
    """Floats, booleans and JSON are no cursors."""
    pq.write_table(pa.table({"f": [0.1], "b": [True]}), tmp_path / "t.parquet")
    for name in ("f", "b"):
        failure(SchemaError, lambda name=name: read(tmp_path, Stream("t", cursor=name)))  # type: ignore[misc]


def test_an_empty_source_has_an_empty_window(tmp_path: Path) -> None:
    """No rows: nothing to read, and the position stays where it was."""
    csv_file(tmp_path, "a,b\n")
    rows, window, _ = read_with(source(tmp_path), Stream("t", cursor="a"), Window(full=False, after=None))
    assert ([], None) == (rows, window.until)
    rows, window, _ = read_with(
        source(tmp_path, types={"a": "int64"}), Stream("t", cursor="a"), Window(full=False, after="5")
    )
    assert ([], "5") == (rows, window.until)


# -- writing ---------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "int8": st.integers(-128, 127),
    "int16": st.integers(-(2**15), 2**15 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint8": st.integers(0, 255),
    "uint16": st.integers(0, 2**16 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "float32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "float64": st.floats(allow_nan=False, allow_infinity=False),
    "decimal(38,0)": st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal),
    "decimal(10,2)": st.decimals(-99999999, 99999999, places=2),
    "decimal(38,20)": st.decimals(-(10**17), 10**17, places=20),
    "decimal(5,5)": st.decimals(Decimal("-0.99999"), Decimal("0.99999"), places=5),
    "text": TEXT,
    "json": st.recursive(st.none() | st.integers() | TEXT, lambda inner: st.lists(inner, max_size=2)).map(
        lambda value: json.dumps(value, indent=1)
    ),
    "uuid": st.uuids().map(str),
    "binary": st.binary(max_size=8),
    "date": st.dates(),
    "time": st.times(),
    "timestamp": st.datetimes(),
    "timestamptz": st.datetimes(timezones=st.just(UTC)),
    "timestamp[ns]": st.integers(-(2**62), 2**62),
    "timestamptz[ns]": st.integers(-(2**62), 2**62),
    "time[ns]": st.integers(0, 86_400 * 10**9 - 1),
    "list<int64>": st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=3),
    "list<text>": st.lists(st.none() | TEXT, max_size=3),
    "list<boolean>": st.lists(st.none() | st.booleans(), max_size=3),
}
LAYOUTS = [
    Layout(format="csv"),
    Layout(format="csv", compression="gzip", delimiter=";"),
    Layout(format="jsonl"),
    Layout(format="jsonl", compression="zstd"),
    Layout(format="parquet", compression="zstd"),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.format}-{layout.compression}")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_type_reads_back_as_it_was_staged(tmp_path: Path, layout: Layout, data: st.DataObject) -> None:
    """For every canonical type and format, the digest of the written file is the digest of the rows."""
    rows = data.draw(st.integers(0, 4))
    columns, batch = table_of(
        {
            f"{index} {kind}": (kind, data.draw(st.lists(st.none() | values_, min_size=rows, max_size=rows)))
            for index, (kind, values_) in enumerate(KINDS.items())
        }
    )
    expected = digest(columns, [batch])
    known = formats.proof_columns(columns, layout)
    piece, path = tmp_path / "piece", tmp_path / "file"
    assert rows == formats.write_slice(piece, layout, columns, [batch.slice(0, 1), batch.slice(1)])
    assert expected == digest(known, formats.read_slice(piece, layout, known, "piece"))
    formats.assemble([piece, piece], path, layout, columns)
    assert expected + expected == digest(known, formats.read_known(path, layout, known, "file"))
    assert 2 * rows == formats.count(path, layout, "file")


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_values_outside_the_format_are_refused(tmp_path: Path, format_: Any) -> None:
    """Years beyond ISO 8601 in text, NaN in JSON: an error that names the column, never something else."""
    config = FilesConfig(path=str(tmp_path), format=format_)
    cases: dict[str, pa.Array] = {
        "date": pa.array([2932897], pa.int32()).cast(pa.date32()),
        "timestamp": pa.array([-62135596800000001], pa.int64()).cast(pa.timestamp("us")),
        "nan": pa.array([math.nan]),
        "inf": pa.array([-math.inf]),
    }
    for name, array in cases.items():
        columns = (Column(name, array.type),)
        batch = pa.RecordBatch.from_arrays([array], names=[name])
        if format_ == "parquet" or (format_ == "csv" and name in ("nan", "inf")):
            assert 1 == put(config, columns, [batch], load_id=name).results["staged"]
        else:
            error = failure(DataError, lambda c=columns, b=batch: put(config, c, [b]))  # type: ignore[misc]
            assert name in error.message


def test_fidelity_is_declared_per_format(tmp_path: Path) -> None:
    """Every canonical type is exact or widened with a note in every format; other lists are refused in text."""
    for format_ in ("csv", "jsonl", "parquet"):
        types = FilesSink(FilesConfig(path=str(tmp_path), format=format_)).dialect
        for kind in KINDS:
            column = table_of({"x": (kind, [])})[0][0]
            native = types.native(column)
            assert native.fidelity == "exact" or (native.fidelity == "widened" and native.note)
            assert types.accepts(native.sql, native)
            assert types.accepts("any", native)
    floats = Column("x", pa.list_(pa.float64()))
    refused = {
        name: FilesSink(FilesConfig(path=str(tmp_path), format=name)).dialect.native(floats).fidelity
        for name in ("csv", "jsonl", "parquet")
    }
    assert {"csv": "refused", "jsonl": "refused", "parquet": "exact"} == refused


SAMPLE: dict[str, tuple[str, list[Any]]] = {
    "id": ("int64", [1, 2, 3]),
    "name": ("text", ["", None, 'q"u\n,']),
    "amount": ("decimal(10,2)", [Decimal("1.50"), None, Decimal("-0.10")]),
}


@pytest.mark.parametrize("name", ["csv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_replace(tmp_path: Path, name: str) -> None:
    """The file holds exactly the rows; the same rows again publish nothing; other rows replace them."""
    format_, _, packed = name.partition(".")
    compression: Any = {"gz": "gzip", "zst": "zstd"}.get(packed)
    config = FilesConfig(path=str(tmp_path / "sink"), format=format_, compression=compression)  # type: ignore[arg-type]
    columns, batch = table_of(SAMPLE)
    slices = [batch.slice(0, 2), batch.slice(2), batch.slice(0, 0)]
    sink = FilesSink(config)
    assert sink.describe(KEY.target) is None
    assert sink.last_receipt(KEY) is None
    types = {column: kind for column, (kind, _) in SAMPLE.items()}
    whole = digest(columns, [batch])
    file = tmp_path / "sink" / f"out.{name}"

    done = put(config, columns, slices)
    assert {"staged": 3, "before": 0, "inserted": 3, "deleted": 0, "final": 3, "final_digest": whole} == dict(
        done.results
    )
    assert [tuple(row.values()) for row in batch.to_pylist()] == read(file, types=types if format_ != "parquet" else {})
    assert done.receipt == FilesSink(config).last_receipt(KEY)
    described = FilesSink(config).describe(KEY.target)
    assert described is not None
    assert list(SAMPLE) == list(described.columns)
    assert whole == FilesSink(config).digest(KEY.target, columns)

    before = file.stat()
    again = put(config, columns, slices, load_id="b" * 32)
    assert (None, None, 3, 3) == tuple(again.results[key] for key in ("inserted", "deleted", "before", "final"))
    assert before == file.stat()
    assert again.receipt == FilesSink(config).last_receipt(KEY)

    changed = put(config, columns, [batch.slice(1, 1)], load_id="c" * 32)
    assert (1, 3, 3, 1) == tuple(changed.results[key] for key in ("inserted", "deleted", "before", "final"))
    assert 1 == len(read(file))
    assert ([], [file.name]) == (
        debris(tmp_path / "sink"),
        [path.name for path in (tmp_path / "sink").iterdir() if path.is_file()],
    )

    empty = put(config, columns, [], load_id="d" * 32)
    assert (0, 1, 0) == tuple(empty.results[key] for key in ("inserted", "deleted", "final"))
    assert Digest() == FilesSink(config).digest(KEY.target, columns)


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_append(tmp_path: Path, format_: Any) -> None:
    """One file per load; a repeated load id returns the stored receipt; an empty load adds no file."""
    config = FilesConfig(path=str(tmp_path), format=format_)
    columns, batch = table_of(SAMPLE)
    first = put(config, columns, [batch], write="append", load_id="1" * 32)
    assert (3, 0, 3, 3) == tuple(first.results[key] for key in ("staged", "before", "inserted", "final"))
    repeated = put(config, columns, [batch], write="append", load_id="1" * 32)
    assert ({}, first.receipt) == (repeated.results, repeated.receipt)
    second = put(config, columns, [batch.slice(0, 1)], write="append", load_id="2" * 32)
    assert (1, 3, 1, 4) == tuple(second.results[key] for key in ("staged", "before", "inserted", "final"))
    assert digest(columns, [batch.slice(0, 1)]) == second.results["final_digest"]
    none = put(config, columns, [], write="append", load_id="3" * 32)
    assert (0, 4, 0, 4) == tuple(none.results[key] for key in ("staged", "before", "inserted", "final"))
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [f"{'1' * 32}.{format_}", f"{'2' * 32}.{format_}"] == files
    assert digest(columns, [batch, batch.slice(0, 1)]) == FilesSink(config).digest(KEY.target, columns)
    keys = (columns[:1], iter([batch.slice(1, 1).select([0])]))
    expected = digest(columns, [batch.slice(0, 1), batch.slice(2), batch.slice(0, 1)])
    assert expected == FilesSink(config).digest(KEY.target, columns, without=keys)
    assert [] == debris(tmp_path)


def test_what_files_cannot_do_is_refused(tmp_path: Path) -> None:
    """Appending to one file, merging, ties, other columns, a target of the other kind, odd names, patterns."""
    columns, batch = table_of(SAMPLE)
    folder, single = FilesConfig(path=str(tmp_path)), FilesConfig(path=str(tmp_path / "one.csv"))
    put(single, columns, [batch])
    assert 3 == len(read(tmp_path / "one.csv"))
    failure(ConfigError, lambda: put(single, columns, [batch], write="append", load_id="x"))
    failure(ConfigError, lambda: put(folder, columns, [batch], write="merge"))
    failure(ConflictError, lambda: put(folder, columns, [batch], write="append", again=True))
    put(folder, columns, [batch], write="append", load_id="y")
    failure(SchemaError, lambda: put(folder, columns, [batch], load_id="z"))
    failure(SchemaError, lambda: put(folder, columns[:2], [batch.select([0, 1])], write="append", load_id="z"))
    for name in ("../up", "a/b", ".hidden", "_dpone", "x" * 201):
        key = replace(KEY, target=Table("", name))
        failure(SchemaError, lambda key=key: put(folder, columns, [batch], key=key))  # type: ignore[misc]
    failure(ConfigError, lambda: FilesSink(FilesConfig(path=str(tmp_path / "*.csv"))))
    failure(ConfigError, lambda: FilesSink(FilesConfig(path=str(tmp_path), format="csv", quote="'")))


def test_a_target_with_a_schema_is_a_subfolder(tmp_path: Path) -> None:
    """`target: raw.out` is `<path>/raw/out.parquet`."""
    columns, batch = table_of(SAMPLE)
    put(FilesConfig(path=str(tmp_path)), columns, [batch], key=replace(KEY, target=Table("raw", "out")))
    assert 3 == pq.read_metadata(tmp_path / "raw" / "out.parquet").num_rows


def test_parquet_keeps_logical_types_and_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logical types come back as they were; slices are gathered into row groups."""
    monkeypatch.setattr(formats, "GROUP_ROWS", 3)
    columns, batch = table_of(
        {"j": ("json", ["{}", "[1]"]), "u": ("uuid", [None, None]), "ns": ("timestamp[ns]", [1, 2])}
    )
    put(FilesConfig(path=str(tmp_path)), columns, [batch, batch, batch])
    assert {"j": "json", "u": "uuid", "ns": "timestamp[ns]"} == schema_of(tmp_path, "out")
    assert 6 == pq.read_metadata(tmp_path / "out.parquet").num_rows
    assert "ZSTD" == pq.read_metadata(tmp_path / "out.parquet").row_group(0).column(0).compression


def test_a_refused_check_publishes_nothing_and_keeps_the_load(tmp_path: Path) -> None:
    """When the ledger does not balance the old file stays and the staged slices are still there."""
    config = FilesConfig(path=str(tmp_path), format="csv")
    columns, batch = table_of(SAMPLE)
    put(config, columns, [batch.slice(0, 1)])
    old = (tmp_path / "out.csv").read_bytes()
    sink = FilesSink(config)
    claim = sink.claim(KEY, run_id="r", holder="h")
    load = claim.begin(spec_of(columns, "n" * 32, 1))
    load.stage(Slice(0), [batch])

    def refuse(_: Results) -> Receipt:
        raise DataError("no", remedy="none")

    failure(DataError, lambda: load.commit(refuse))
    assert old == (tmp_path / "out.csv").read_bytes()
    sink.close()
    again = FilesSink(config).claim(KEY, run_id="s", holder="h")
    assert again.pending is not None
    assert ({0: 3}, ("r",)) == ({n: done.rows for n, done in again.pending.progress.items()}, again.abandoned)
    load = again.begin(replace(spec_of(columns, "n" * 32, 1), load=again.pending))
    load.abort()
    again.release()
    assert [] == debris(tmp_path)
    assert old == (tmp_path / "out.csv").read_bytes()


def spec_of(columns: tuple[Column, ...], load_id: str, slices: int, write: Any = "replace") -> LoadSpec:
    """A load of so many slices."""
    load = OpenLoad(load_id, "run", "intent", Window(), tuple(map(Slice, range(slices))), "snapshot")
    return LoadSpec(load, KEY, columns, write, proof="digest")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    """A second claim is refused, naming the holder, until the first is released."""
    config = FilesConfig(path=str(tmp_path))
    first = FilesSink(config).claim(KEY, run_id="r", holder="the first")
    error = failure(ConflictError, lambda: FilesSink(config).claim(KEY, run_id="s", holder="b"))
    assert "the first" in error.message
    first.release()
    FilesSink(config).claim(KEY, run_id="s", holder="b").release()


def test_another_load_or_format_starts_afresh(tmp_path: Path) -> None:
    """A pending load with another id is removed; slices of another format do not count as durable."""
    columns, batch = table_of(SAMPLE)
    cases: list[tuple[Any, set[int]]] = [("csv", set()), ("jsonl", {0})]
    for format_, expected in cases:
        sink = FilesSink(FilesConfig(path=str(tmp_path), format="jsonl"))
        claim = sink.claim(KEY, run_id="r", holder="h")
        claim.begin(spec_of(columns, "1" * 32, 2)).stage(Slice(0), [batch])
        sink.close()
        sink = FilesSink(FilesConfig(path=str(tmp_path), format=format_))
        claim = sink.claim(KEY, run_id="s", holder="h")
        assert claim.pending is not None
        assert expected == set(claim.pending.progress)
        claim.begin(spec_of(columns, "2" * 32, 1)).stage(Slice(0), [batch.slice(0, 1)])
        sink.close()
        found = FilesSink(FilesConfig(path=str(tmp_path), format=format_)).claim(KEY, run_id="t", holder="h")
        assert found.pending is not None
        assert ("2" * 32, {0: 1}) == (found.pending.load_id, {n: d.rows for n, d in found.pending.progress.items()})
        found.reset()
        found.release()


@pytest.mark.parametrize(("text", "code"), [('{"layout": 2}', "DP501"), ("{", "DP502"), ('{"layout": 1}', "DP502")])
def test_damaged_or_newer_state_is_refused_and_can_be_reset(tmp_path: Path, text: str, code: str) -> None:
    """Nothing is loaded over state that cannot be read; `reset` forgets it and leaves the target."""
    config = FilesConfig(path=str(tmp_path))
    columns, batch = table_of(SAMPLE)
    put(config, columns, [batch])
    [path] = (tmp_path / "_dpone").rglob("receipt.json")
    path.write_text(text)
    error = failure(StateError, lambda: FilesSink(config).last_receipt(KEY))
    assert code == error.code
    assert "dpone reset" in error.remedy
    claim = FilesSink(config).claim(KEY, run_id="r", holder="h")
    failure(StateError, lambda: claim.receipt)
    failure(StateError, lambda: claim.pending)
    failure(StateError, lambda: claim.begin(spec_of(columns, "n", 0)))
    claim.reset()
    assert (None, None) == (claim.receipt, claim.pending)
    claim.release()
    assert (tmp_path / "out.parquet").exists()
    put(config, columns, [batch], load_id="n" * 32)


# -- death -----------------------------------------------------------------------------------------------------


class Death(BaseException):
    """The process is gone."""


class Reaper:
    """Dies before the N-th change of the file system below a folder."""

    def __init__(self) -> None:
        self.folder, self.left, self.seen = "", 0, 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder or event not in ("os.rename", "os.remove", "os.mkdir", "open", "os.rmdir"):
            return
        if self.folder in str(arguments[0]):
            self.seen += 1
            if self.seen >= self.left > 0:
                raise Death

    @contextmanager
    def armed(self, folder: Path, left: int) -> Iterator[None]:
        """Count below `folder`; die at `left`, and at everything after it, as the dead do nothing."""
        self.folder, self.left, self.seen = str(folder), left, 0
        try:
            yield
        finally:
            self.folder = ""


REAPER = Reaper()


@pytest.mark.parametrize("write", ["replace", "append"])
@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_death_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, format_: Any) -> None:
    """Whatever the step, readers see the old rows or the new ones, and the rerun ends exact, without debris."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the machine stays on, and there are some hundred loads
    columns, old = table_of({"id": ("int64", [1, 2, 3]), "v": ("text", ["a", None, ""])})
    _, new = table_of({"id": ("int64", [4, 5, 6, 7]), "v": ("text", ["b", "c", None, ""])})
    slices = [new.slice(0, 2), new.slice(2)]

    def rows(*batches: pa.RecordBatch) -> list[int]:
        return sorted(row["id"] for batch in batches for row in batch.to_pylist())

    before, after = rows(old), rows(new) if write == "replace" else rows(old, new)

    def visible(folder: Path) -> list[int]:
        types = {} if format_ == "parquet" else {"id": "int64"}
        return sorted(row[0] for row in read(folder, "out", types=types))

    step, finished = 0, False
    while not finished:
        step += 1
        folder = tmp_path / str(step)
        config = FilesConfig(path=str(folder), format=format_)
        put(config, columns, [old], write=write, load_id="0" * 32)
        with REAPER.armed(folder, step):
            try:
                put(config, columns, slices, write=write, load_id="1" * 32)
                finished = True
            except Death:
                pass
        assert visible(folder) in (before, after), f"died at step {step}"
        for lock in (folder / "_dpone").glob("*.lock"):
            lock.unlink()  # a real death frees the lock; tests.test_kill has real ones
        done = put(config, columns, slices, write=write, load_id="1" * 32, resume=True)
        assert after == visible(folder), f"died at step {step}"
        assert "1" * 32 == done.receipt.load_id
        assert [] == debris(folder), f"died at step {step}"
        last = FilesSink(config).claim(KEY, run_id="last", holder="h")
        assert (done.receipt, None) == (last.receipt, last.pending)
        last.release()
    assert step > 20


def test_an_interrupted_publication_that_someone_changed_is_refused(tmp_path: Path) -> None:
    """When neither the staged nor the published file is what the intent says, no guess is made."""
    config = FilesConfig(path=str(tmp_path), format="csv")
    columns, batch = table_of(SAMPLE)
    put(config, columns, [batch])
    sink = FilesSink(config)
    load = sink.claim(KEY, run_id="r", holder="h").begin(spec_of(columns, "n" * 32, 0))
    assert isinstance(load, FilesLoad)
    receipt = Receipt("n" * 32, "r", Window(), {}, "now")
    load._state.intend("out.csv", 5, "not it", receipt)  # the state a death leaves
    sink.close()
    claim = FilesSink(config).claim(KEY, run_id="s", holder="h")
    failure(StateError, lambda: claim.pending)
    claim.release()


def test_run_records(tmp_path: Path) -> None:
    """Each run has one document; a run that never ended becomes abandoned."""
    config = FilesConfig(path=str(tmp_path))
    columns, batch = table_of(SAMPLE)
    FilesSink(config).claim(KEY, run_id="dead", holder="h").release()
    put(config, columns, [batch])
    rows = [json.loads(path.read_text()) for path in sorted((tmp_path / "_dpone" / "runs").iterdir())]
    assert {"dead": "abandoned", f"run-{'a' * 32}": "succeeded"} == {row["run_id"]: row["status"] for row in rows}
    assert {"x": 1} == next(row["document"] for row in rows if row["status"] == "succeeded")


def test_names_of_all_sorts(tmp_path: Path) -> None:
    """Column names with quotes, delimiters, line ends and other scripts survive in every format."""
    names = ['q"u', "a,b", "two\nlines", "ż", "a.b", " ", *string.punctuation]
    columns, batch = table_of({name: ("int64", [1]) for name in names})
    for format_ in ("csv", "jsonl", "parquet"):
        config = FilesConfig(path=str(tmp_path / format_), format=format_)
        put(config, columns, [batch])
        assert dict.fromkeys(names, "int64") == schema_of(tmp_path / format_, "out")
        assert [(1,) * len(names)] == read(tmp_path / format_, "out")
    assert pc.sum(batch.column(0)).as_py() == 1


# -- what a second look found ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"a,b\r1,2\r3,4\r", b"a,b\r1,2\r3,4\n5,6\n", b'"a\rb",c\r1,2\r'])
def test_a_header_that_ends_in_a_lone_cr_is_refused(tmp_path: Path, text: bytes) -> None:
    """Rows before the first line feed are never thrown away with the header."""
    csv_file(tmp_path, text)
    assert "lone CR" in failure(DataError, lambda: read(tmp_path)).message


def test_a_header_may_hold_cr_in_quotes_and_end_in_cr_lf(tmp_path: Path) -> None:
    """Only a CR that ends the line is refused."""
    csv_file(tmp_path, b'"a\rb","c\nd"\r\n1,2\r\n')
    assert [(1, 2)] == read(tmp_path)
    assert ["a\rb", "c\nd"] == list(schema_of(tmp_path))


def test_a_header_is_utf8(tmp_path: Path) -> None:
    """A Latin-1 header is an error, not a name with U+FFFD; an empty file says what to do."""
    csv_file(tmp_path, "a,größe\n1,2\n".encode("latin-1"))
    assert "not UTF-8" in failure(DataError, lambda: read(tmp_path)).message
    csv_file(tmp_path, b"")
    assert "write a header line" in failure(SchemaError, lambda: read(tmp_path)).remedy


def int96(folder: Path, values_: list[Any], unit: str = "us", name: str = "t.parquet") -> None:
    """Write INT96 timestamps, plain and in a list."""
    type_ = pa.timestamp(unit)
    table = pa.table({"a": pa.array(values_, type_), "l": pa.array([values_] * len(values_), pa.list_(type_))})
    pq.write_table(table, folder / name, use_deprecated_int96_timestamps=True)


def test_int96_timestamps_of_all_years(tmp_path: Path) -> None:
    """Years outside 1677 to 2262 do not wrap around; real nanoseconds stay; a file that needs both is refused."""
    far = [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), None]
    int96(tmp_path, far)
    assert [(value, far) for value in far] == read(tmp_path)
    fine = [1, 1_700_000_000_123_456_789, -1001, None]
    int96(tmp_path, fine, "ns")
    files = source(tmp_path)
    described = files.describe(Stream("t"))
    assert [pa.timestamp("ns"), pa.list_(pa.timestamp("ns"))] == [column.type for column in described.columns]
    reading = files.open(Stream("t"), described, Window(full=True))
    batches = [batch for piece in reading.slices for batch in reading.read(piece)]
    assert fine == [value for batch in batches for value in batch.column("a").cast(pa.int64()).to_pylist()]
    assert fine == batches[0].column("l")[0].values.cast(pa.int64()).to_pylist()
    (tmp_path / "t.parquet").unlink()
    (tmp_path / "t").mkdir()
    int96(tmp_path / "t", far, name="1.parquet")
    assert 3 == len(read(tmp_path))
    int96(tmp_path / "t", fine, "ns", name="2.parquet")
    assert "1.parquet" in failure(DataError, lambda: read(tmp_path)).message
    int96(tmp_path / "t", [datetime(2024, 1, 1)], name="1.parquet")
    files = source(tmp_path)
    assert pa.timestamp("ns") == files.describe(Stream("t")).columns[0].type


def test_int96_timestamps_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only INT96 is looked at, inside of maps and structs too, and what changed its unit after the plan is refused."""
    rows = [datetime(9999, 1, 1), None]
    made = pa.table({
        "s": pa.array([{"x": rows[0]}, None], pa.struct([("x", pa.timestamp("us"))])),
        "m": pa.array([[("k", rows[0])], []], pa.map_(pa.string(), pa.timestamp("us"))),
        "a": pa.array(rows, pa.timestamp("us")),
    })  # fmt: skip
    pq.write_table(made, tmp_path / "t.parquet", use_deprecated_int96_timestamps=True)
    assert [('{"x":"9999-01-01 00:00:00"}', '{"k":"9999-01-01 00:00:00"}', rows[0]), (None, "{}", None)] == read(
        tmp_path
    )
    monkeypatch.setattr(formats, "int96_unit", lambda _: "ns")
    files = source(tmp_path)
    failure(DataError, lambda: read_with(files))


@pytest.mark.parametrize(
    "text", ["9" * 39, "1" * 60, "9" * 39 + ".5", "1e39", "1" * 38 + "e99", "1e100", "0." + "1" * 39]
)
def test_a_decimal_beyond_38_digits_never_wraps(tmp_path: Path, text: str) -> None:
    """Declared or inferred, it is an error that names the column."""
    csv_file(tmp_path, "a,b\n1.5,1\n" + f"{text},1\n")
    error = failure(DataError, lambda: read(tmp_path, Stream("t", casts={"a": "decimal(38,1)"})))
    assert "column a" in error.where
    csv_file(tmp_path, "a,b\n" + "1.5,1\n" * 1000 + f"{text},1\n")
    failure(DataError, lambda: read(tmp_path, sample_rows=10))


def test_lost_receipts_never_double_the_rows(tmp_path: Path) -> None:
    """Files of dpone without its folder refuse every stream of that folder, again and again, until it is back."""
    config = FilesConfig(path=str(tmp_path / "out"), format="csv")
    columns, batch = table_of(SAMPLE)
    put(config, columns, [batch], write="append")
    state, aside = tmp_path / "out" / "_dpone", tmp_path / "aside"
    state.rename(aside)
    other = StreamKey("pipeline", "other", Table("", "other"))
    for key in (KEY, other, KEY):
        error = failure(StateError, lambda key=key: put(config, columns, [batch], load_id="b" * 32, key=key))  # type: ignore[misc]
        assert "DP502" == error.code
        assert not state.exists()
    aside.rename(state)
    put(config, columns, [batch], write="append", load_id="b" * 32)
    claim = FilesSink(config).claim(KEY, run_id="r", holder="h")
    claim.reset()
    claim.release()
    put(config, columns, [batch], write="append", load_id="c" * 32)
    assert 3 == len(list((tmp_path / "out" / "out").iterdir()))


def test_a_pattern_leaves_hidden_folders_alone(tmp_path: Path) -> None:
    """Files below `_temporary` or `.snap` are not read; folders before the pattern may have any name."""
    root = tmp_path / "_in"
    for place in ("a.csv", "sub/a.csv", "_temporary/0/a.csv", ".snap/a.csv", "sub/_x/a.csv", "_dpone/a.csv"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        csv_file(root, f"place\n{place}\n", place)
    assert [("a.csv",), ("sub/a.csv",)] == read(root / "**" / "*.csv")


def test_other_files_in_the_folder_of_a_stream_are_refused(tmp_path: Path) -> None:
    """A file of unknown extension is not left out in silence."""
    folder = tmp_path / "t"
    folder.mkdir()
    csv_file(folder, "a\n1\n", "a.csv")
    csv_file(folder, "a\n2\n", "b.txt")
    csv_file(folder, "x", "c.csv.bz2")
    assert "b.txt" in failure(SchemaError, lambda: read(tmp_path)).message
    (folder / "c.csv.bz2").unlink()
    assert [(1,), (2,)] == read(tmp_path, format="csv")


def test_json_columns_keep_every_digit(tmp_path: Path) -> None:
    """Numbers of json columns are the same numbers, wherever their digits also stand in the line."""
    texts = [
        '"s"', "1.00000000000000000001", '{"k":1.00000000000000000001}', "123456789012345678901234567890",
        "0.1000000000000000000012", "12345678901234567.5", "1e-400", "[1.5e300,1.10000000000000000000009]",
        '{"a":1,"a":12345678901234567.5,"b":-0}', "0.30000000000000000000000001", "5e-324",
    ]  # fmt: skip
    # The shortened number stands in the line too: a search for it in the line would find it.
    csv_file(tmp_path, "".join(f'{{"v":{text},"w":[1.0,1]}}\n' for text in texts), "t.jsonl")
    assert texts == [row[0] for row in read(tmp_path)]


def test_json_strings_do_not_depend_on_the_way_they_are_read(tmp_path: Path) -> None:
    """A row with a long number, which is read apart, has the same text as one without."""
    text = "".join(map(chr, (*range(300), 0x2028, 0xFFFD, 0x1F600)))
    rows = [{"v": [text, {text: True}, None, 5], "n": number} for number in ("x", "12345678901234567.5")]
    for ascii_ in (True, False):
        lines = (json.dumps(row, ensure_ascii=ascii_) + "\n" for row in rows)
        csv_file(tmp_path, "".join(lines), "t.jsonl")
        [(one, _), (other, _)] = read(tmp_path)
        assert one == other
        assert rows[0]["v"] == json.loads(one)


@pytest.mark.parametrize("line", [" null", "null", '{"a":2} null', '{"a":2}{"a":3}', '\t{"a":2} {"a":3}'])
@pytest.mark.parametrize("first", ['{"a":1}', '{"a":[1]}'])
def test_a_line_is_one_json_object(tmp_path: Path, first: str, line: str) -> None:
    """A null is no row of NULLs, and two objects in one line are refused with the line, blank lines or not."""
    csv_file(tmp_path, f"{first}\n\n" * 1000 + line + "\n", "t.jsonl")
    assert "line 2001 " in failure(DataError, lambda: read(tmp_path, sample_rows=10)).message
    csv_file(tmp_path, f'{first}\n \t\r\n\n{{"a":null}}\n \n', "t.jsonl")
    assert 2 == len(read(tmp_path))


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_a_replacement_may_change_the_type(tmp_path: Path, format_: Any) -> None:
    """The old file holds texts, the new one integers: it is not the same, and is replaced."""
    config = FilesConfig(path=str(tmp_path), format=format_)
    put(config, *_one(table_of({"a": ("text", ["abc"])})))
    put(config, *_one(table_of({"a": ("int64", [7])})), load_id="b" * 32)
    assert [(7,)] == read(tmp_path / f"out.{format_}")


def _one(made: tuple[tuple[Column, ...], pa.RecordBatch]) -> tuple[tuple[Column, ...], list[pa.RecordBatch]]:
    return made[0], [made[1]]


def test_a_target_that_cannot_be_counted_is_named(tmp_path: Path) -> None:
    """A damaged file in the target's place is called the target."""
    (tmp_path / "out.csv").write_text("x,y\n1,2,3\n")
    columns, batch = table_of({"x": ("int64", [1])})
    error = failure(DataError, lambda: put(FilesConfig(path=str(tmp_path), format="csv"), columns, [batch]))
    assert f"the target {tmp_path / 'out.csv'}" in error.message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is of Linux")
@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_a_full_disk_while_staging_is_a_resource_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: Any
) -> None:
    """DP600, with the act and the remedy."""
    monkeypatch.setattr(State, "piece", lambda *_: Path("/dev/full"))
    columns, batch = table_of({"a": ("text", ["x" * 100] * 100_000)})
    error = failure(ResourceError, lambda: put(FilesConfig(path=str(tmp_path), format=format_), columns, [batch]))
    assert "DP600" == error.code
    assert "staging slice 0" in error.message


@pytest.mark.parametrize("name", ["2.parquet", "2.csv.gz", "2.jsonl.gz"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    """Among the files of a stream, the error says which one is cut off."""
    folder = tmp_path / "t"
    folder.mkdir()
    if name.endswith("parquet"):
        for each in ("1.parquet", name):
            pq.write_table(pa.table({"a": [1]}), folder / each)
    else:
        for each in ("1" + name[1:], name):
            (folder / each).write_bytes(gzip.compress(b"a\n1\n" if "csv" in name else b'{"a":1}\n'))
    (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    assert name in failure(DataError, lambda: read(tmp_path)).message


def test_a_digest_holds_few_bytes() -> None:
    """Batches of few wide rows are not gathered by the thousand; the digest is the same."""
    columns, batch = table_of({"a": ("text", ["x" * (1 << 20)] * 3)})
    digester = Digester(columns)
    for _ in range(20):
        digester.add(batch)
        assert sum(waiting.nbytes for waiting in digester._waiting) < 8 << 20
    assert digester.total == sum((digest(columns, [batch]) for _ in range(20)), Digest())
