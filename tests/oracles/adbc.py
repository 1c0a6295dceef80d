"""The value files of the ADBC driver validation, moved by dpone.

    DPONE_ORACLE_ADBC=FOLDER python -m tests.oracles.adbc       # FOLDER holds *.txtcase files, at any depth

    ingest         Arrow values, written to Parquet, loaded by dpone into a table that it makes, read by the driver
    type/bind      the same into a table that the case makes in the system's own types
    type/select    a table that the case makes and fills, moved by dpone to Parquet, read by pyarrow
    type/literal   the same for a query, made a table first

The cases are written in standard SQL. Where a system has another word for the same thing, `WORDS` replaces it, as the
project's own drivers do by files of theirs; nothing else of a case is touched.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

import dpone
from dpone.connectors.postgres.server import Server, server
from tests.oracles.places import Place, arrow_rows, comparable, place
from tests.oracles.verdicts import Report, Row, Verdict, explanations

FOLDER = "DPONE_ORACLE_ADBC"
SYSTEMS = ("postgres", "duckdb", "sqlite")
WORDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "postgres": (
        (r"\b(?:BLOB|VARBINARY\(\d+\))", "BYTEA"),
        (r"\bX'([0-9a-fA-F]*)'", r"'\\x\1'::bytea"),
        (r"\bfrom_hex\('([0-9a-fA-F]*)'\)", r"'\\x\1'::bytea"),
    ),
    "duckdb": (
        (r"\bVARBINARY\(\d+\)", "BLOB"),
        (r"\bX'([0-9a-fA-F]*)'", r"unhex('\1')"),
        (r"\bTIME\(9\)", "TIME_NS"),
        (r"\bTIME\(\d\)", "TIME"),
        (r"\bTIMESTAMP\([789]\) WITH TIME ZONE", "TIMESTAMPTZ_NS"),
        (r"\bTIMESTAMP\(\d\) WITH TIME ZONE", "TIMESTAMPTZ"),
        # A typed literal has microseconds: it would round before the value is stored.
        (r"(VALUES \(\d+, )TIMESTAMP(?: WITH TIME ZONE)? '", r"\1'"),
    ),
    "sqlite": (
        # No typed literals: https://www.sqlite.org/lang_expr.html#literal_values_constants_
        (r"\b(?:DATE|TIME|TIMESTAMP)(?: WITH TIME ZONE)? '", "'"),
        # A number in parentheses ends a type: https://www.sqlite.org/syntax/type-name.html
        (r"\bTIMESTAMP\(\d\) WITH TIME ZONE", "TIMESTAMP WITH TIME ZONE"),
        (r"\bfrom_hex\('([0-9a-fA-F]*)'\)", r"X'\1'"),
    ),
}
_LAST_MOMENT = re.compile(r"9223372036854775807|16\.854775807")  # in nanoseconds; DuckDB takes it for infinity
_PART = re.compile(r"//\s*part:\s*(\w+)[\s-]*")
_PLAIN: Mapping[str, pa.DataType] = {
    "b": pa.bool_(),
    "s": pa.int16(),
    "i": pa.int32(),
    "l": pa.int64(),
    "e": pa.float16(),
    "f": pa.float32(),
    "g": pa.float64(),
    "u": pa.string(),
    "U": pa.large_string(),
    "vu": pa.string_view(),
    "z": pa.binary(),
    "Z": pa.large_binary(),
    "vz": pa.binary_view(),
    "tdD": pa.date32(),
    "tts": pa.time32("s"),
    "ttm": pa.time32("ms"),
    "ttu": pa.time64("us"),
    "ttn": pa.time64("ns"),
}
_UNITS = {"s": "s", "m": "ms", "u": "us", "n": "ns"}


class NoParquet(Exception):
    """Values that Parquet has no type for, so that they cannot be handed to dpone."""


@dataclass(frozen=True, slots=True)
class Case:
    """One file, by its parts."""

    name: str
    parts: Mapping[str, str]

    @property
    def kind(self) -> str:
        """ingest, type/bind, type/select or type/literal."""
        return self.name.partition(",")[0].rpartition("/")[0]

    @property
    def table(self) -> str:
        """The table that the case makes."""
        setup = tomllib.loads(self.parts.get("metadata", "")).get("setup", {})
        return str(setup.get("drop", "oracle"))

    def schema(self, *parts: str) -> pa.Schema:
        """The Arrow schema in the first of these parts that is there."""
        text = next(self.parts[part] for part in parts if part in self.parts)
        return pa.schema([(child["name"], arrow_type(child["format"])) for child in json.loads(text)["children"]])

    def values(self, part: str, schema: pa.Schema) -> pa.Table:
        """The rows of a part, one JSON object a line."""
        rows = [json.loads(line) for line in self.parts[part].splitlines() if line.strip()]
        return pa.table([_array([row[one.name] for row in rows], one.type) for one in schema], schema=schema)


def arrow_type(code: str) -> pa.DataType:
    """The type of a format string of the Arrow C data interface. Raises KeyError for one that no case has had.

    https://arrow.apache.org/docs/format/CDataInterface.html#data-type-description-format-strings
    """
    head, _, tail = code.partition(":")
    if head == "d":
        precision, scale = tail.split(",")
        return pa.decimal128(int(precision), int(scale))
    if head == "w":
        return pa.binary(int(tail))
    if head.startswith("ts"):
        return pa.timestamp(_UNITS[head[2]], tail or None)
    return _PLAIN[code]


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    types = pa.types
    if types.is_fixed_size_binary(type_) or types.is_binary_view(type_):
        plain = pa.array([None if one is None else base64.b64decode(one) for one in values], pa.binary())
        return plain.cast(type_)
    if types.is_binary(type_) or types.is_large_binary(type_):
        return pa.array([None if one is None else base64.b64decode(one) for one in values], type_)
    if types.is_decimal(type_):
        return pa.array([None if one is None else _decimal(one) for one in values], type_)
    if types.is_temporal(type_):
        width = pa.int32() if types.is_date32(type_) or types.is_time32(type_) else pa.int64()
        return pa.array(values, width).cast(type_)
    return pa.array(values, type_)


def _decimal(text: str) -> Any:
    from decimal import Decimal

    return Decimal(text)


def load(path: Path, name: str) -> Case:
    """A case file: parts that begin with `// part: NAME`; other lines that begin with // are comments."""
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if match := _PART.fullmatch(line):
            lines = parts.setdefault(match[1], [])
        elif not line.startswith("//"):
            lines.append(line)
    return Case(name, {part: "".join(found) for part, found in parts.items()})


def judge(case: Case, system: str, database: Server) -> Row:
    """The line of one case on one system."""
    name = f"{case.name}@{system}"
    expected = _expected(case)
    told = _told(expected)
    with tempfile.TemporaryDirectory(prefix="dpone-adbc-") as folder, place(system, Path(folder), database) as target:
        try:
            if "setup_query" in case.parts:
                target.execute(in_words_of(system, case.parts["setup_query"]))
            elif case.kind == "type/literal":
                target.execute(in_words_of(system, _made_a_table(case, system)))
        except (psycopg.Error, duckdb.Error, sqlite3.Error) as error:
            return Row(name, told, f"the system refuses the case: {error}", "refused")
        held: list[Any] | None = None
        try:
            if case.kind in ("ingest", "type/bind"):
                got, native = _stored(case, target, Path(folder), expected)
            else:
                got, native = _read(case, target, Path(folder))
                held = _held(case, target, expected)
        except NoParquet as error:
            return Row(name, told, f"Parquet cannot hold it: {error}", "refused")
        except dpone.DponeError as error:
            return Row(name, told, f"{error.code}: {error}".replace(folder, ""), "refused")
    # Reading has to bring the family of the type too; in a sink its native type is shown.
    same = case.kind in ("ingest", "type/bind") or _families(expected.schema) == native
    want = _comparable(expected)
    if "idx" not in case.parts.get("setup_query", "idx"):  # a table without an order
        want, got = sorted(want, key=repr), sorted(got, key=repr)
    verdict: Verdict = "agrees" if same and got == want else "differs"
    if held is not None and held != want and held == got:
        verdict = "system"
    return Row(name, told, f"{native}: {got}", verdict)


def without_the_last_moment(case: Case) -> Case:
    """A case without the rows of 2262-04-11 23:47:16.854775807, so that they do not hide what happens to the others."""
    parts = {
        part: "".join(line for line in text.splitlines(keepends=True) if not _LAST_MOMENT.search(line))
        for part, text in case.parts.items()
    }
    return Case(f"{case.name}, without the last moment", parts)


def _made_a_table(case: Case, system: str) -> str:
    query = case.parts["query"]
    if system != "sqlite":
        return f"CREATE TABLE {case.table} AS {query}"
    # There, a table made of a query has no declared types.
    type_ = tomllib.loads(case.parts["metadata"])["tags"]["sql-type-name"]
    columns = ", ".join(f"{name} {type_}" for name in case.schema("expected_schema").names)
    return f"CREATE TABLE {case.table} ({columns}); INSERT INTO {case.table} {query}"


def in_words_of(system: str, text: str) -> str:
    """Standard SQL with the words that a system has instead."""
    for pattern, word in WORDS[system]:
        text = re.sub(pattern, word, text)
    return text


def _expected(case: Case) -> pa.Table:
    if case.kind == "ingest":
        schema = case.schema("input_schema")
        if "expected" in case.parts:
            return case.values("expected", case.schema("expected_schema", "input_schema"))
        return case.values("input", schema)
    return case.values("expected", case.schema("expected_schema"))


def _stored(case: Case, target: Place, folder: Path, expected: pa.Table) -> tuple[list[Any], dict[str, str]]:
    """What a table holds after dpone loaded the case's values into it, and its native types."""
    part = "input" if case.kind == "ingest" else "bind"
    source = folder / "in"
    source.mkdir()
    try:
        pq.write_table(case.values(part, case.schema(f"{part}_schema")), source / "values.parquet")
    except (OSError, pa.ArrowException) as error:
        raise NoParquet(str(error)) from error
    dpone.run(
        {
            "version": 1,
            "pipeline": "oracle",
            "source": {"connector": "files", "path": str(source)},
            "sink": target.endpoint,
            "streams": {"values.parquet": {"target": case.table, "write": "replace"}},
        },
        store=folder / "store",
    ).raise_for_status()
    native = target.types(case.table)
    return _held(case, target, expected), {name: native[name] for name in expected.column_names}


def _held(case: Case, target: Place, expected: pa.Table) -> list[Any]:
    """What the system's own driver reads from the table of a case."""
    order = "idx" if "idx" in target.types(case.table) else ""
    texts = target.name == "sqlite"
    return [
        tuple(comparable(value, type_, texts=texts) for value, type_ in zip(row, expected.schema.types, strict=True))
        for row in target.rows(case.table, expected.column_names, order=order)
    ]


def _read(case: Case, target: Place, folder: Path) -> tuple[list[Any], dict[str, str]]:
    """What dpone reads from a table, in Parquet, and the family of each column's type."""
    stream = f"{target.schema}.{case.table}" if target.schema else case.table
    sink = folder / "out"
    sink.mkdir()
    dpone.run(
        {
            "version": 1,
            "pipeline": "oracle",
            "source": target.endpoint,
            "sink": {"connector": "files", "path": str(sink), "format": "parquet"},
            "streams": {stream: {"target": "values", "write": "replace"}},
        },
        store=folder / "store",
    ).raise_for_status()
    found = pa.concat_tables([pq.read_table(path) for path in sorted(sink.rglob("*.parquet"))])
    if "idx" in found.column_names:
        found = found.sort_by("idx").drop(["idx"])
    return _comparable(found), _families(found.schema)


def _comparable(table: pa.Table) -> list[Any]:
    types = table.schema.types
    return [
        tuple(comparable(value, type_) for value, type_ in zip(row, types, strict=True)) for row in arrow_rows(table)
    ]


def _families(schema: pa.Schema) -> dict[str, str]:
    """What kind of value each column holds, whatever its width or unit."""
    types = pa.types
    found = {}
    for one in schema:
        tests = {
            "integer": types.is_integer(one.type),
            "decimal": types.is_decimal(one.type),
            str(one.type): types.is_floating(one.type),
            "instant": types.is_timestamp(one.type) and one.type.tz is not None,
            "timestamp": types.is_timestamp(one.type) and one.type.tz is None,
            "time": types.is_time(one.type),
        }
        found[one.name] = next((name for name, holds in tests.items() if holds), str(one.type))
    return found


def _told(table: pa.Table) -> str:
    types = {one.name: str(one.type) for one in table.schema}
    return f"{types}: {_comparable(table)}"


KINDS = ("ingest", "type/bind", "type/select", "type/literal")


def cases(folder: Path) -> Iterator[Case]:
    """All cases below a folder, by name."""
    for path in sorted(folder.rglob("*.txtcase")):
        kind = next(
            (one for one in ("ingest", "type/bind", "type/select", "type/literal") if f"/{one}/" in path.as_posix()), ""
        )
        if not kind:
            raise ValueError(f"{path.name} is in no folder of a kind of case that is known here")
        yield load(path, f"{kind}/{path.stem}")


def main() -> int:
    """Print the table; 0 when every difference is explained, 2 when there are no cases to run."""
    folder = os.environ.get(FOLDER, "")
    found = list(cases(Path(folder))) if folder else []
    if not found:
        print(f"{FOLDER} names no folder with *.txtcase files: see docs/certification-oracles.md", file=sys.stderr)
        return 2
    report = Report(explanations("adbc"))
    database = server()
    for case in found:
        report.rows += [judge(case, system, database) for system in SYSTEMS]
        if "_ns" in case.name or "timestamp9" in case.name:
            report.rows.append(judge(without_the_last_moment(case), "duckdb", database))
    print(f"{len(found)} cases of the ADBC driver validation, dpone {dpone.__version__}\n")
    print(report.text())
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
