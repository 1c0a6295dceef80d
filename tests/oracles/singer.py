"""The message files of the Singer SDK's target tests, loaded by dpone and judged by the SDK and by their own words.

    python -m tests.oracles.singer        # in an environment with singer-sdk[testing]; tools/oracles makes one

A small bridge plays the Singer target: it writes the records of each stream to a JSONL file, declares the types of the
JSON Schema, and calls `dpone.run` whenever the target would drain: at a STATE, at a changed SCHEMA, at the end. Streams
with key_properties are merged, those without are appended. Two judges look at the result: the SDK's own test class runs
with the bridge in the place of its target runner, and the table is compared row by row with the messages.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import dpone
from dpone.connectors.postgres.server import Server, server
from tests.oracles.places import Place, comparable, place
from tests.oracles.verdicts import Report, Row, Verdict, explanations

SYSTEMS = ("duckdb", "postgres")
AFTER = {"user_location_upsert_data": "user_location_data", "no_primary_keys_append": "no_primary_keys"}
"""Files whose target holds the rows of another file already."""

NATIVE = {
    "duckdb": {
        "text": "VARCHAR",
        "int64": "BIGINT",
        "decimal(38,9)": "DECIMAL(38,9)",
        "boolean": "BOOLEAN",
        "timestamptz": "TIMESTAMP WITH TIME ZONE",
        "date": "DATE",
        "time": "TIME",
        "json": "JSON",
    },
    "postgres": {
        "text": "text",
        "int64": "bigint",
        "decimal(38,9)": "numeric(38,9)",
        "boolean": "boolean",
        "timestamptz": "timestamp with time zone",
        "date": "date",
        "time": "time without time zone",
        "json": "json",
    },
}
_ARROW: Mapping[str, pa.DataType] = {
    "text": pa.string(),
    "int64": pa.int64(),
    "decimal(38,9)": pa.decimal128(38, 9),
    "boolean": pa.bool_(),
    "timestamptz": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
    "time": pa.time64("us"),
}
_FORMATS = {"date-time": "timestamptz", "date": "date", "time": "time"}
_TYPES = {"string": "text", "integer": "int64", "number": "decimal(38,9)", "boolean": "boolean"}
NULL_KEY = "DP413"
NUL = "DP415"
NO_ROW = "DP400"


class Refused(Exception):
    """A stream that dpone, or the bridge before it, refused to load."""

    def __init__(self, stream: str, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.stream = stream
        self.code = code


def declared(schema: Mapping[str, Any]) -> str:
    """The type name of a JSON Schema property; what is no scalar of one type is json."""
    variants = [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    for variant in variants:
        if variant.get("format") in _FORMATS:
            return _FORMATS[variant["format"]]
    types: set[str] = set()
    for variant in variants:
        found = variant.get("type", ())
        types |= {found} if isinstance(found, str) else set(found)
    types.discard("null")
    return _TYPES.get(types.pop(), "json") if len(types) == 1 else "json"


@dataclass(slots=True)
class Stream:
    """One Singer stream: what its last SCHEMA said, what waits to be loaded, and what the target must hold."""

    number: int
    properties: dict[str, Any]
    key: tuple[str, ...]
    loaded: bool = False
    waiting: list[dict[str, Any]] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)
    refusal: Refused | None = None

    @property
    def types(self) -> dict[str, str]:
        """The type name of each column."""
        return {name: declared(schema) for name, schema in self.properties.items()}


class Bridge:
    """A Singer target on dpone. Raises `Refused` for the first stream that was refused, after loading the others.

    `form` is jsonl; parquet is for files without any record, since only Parquet has columns then.
    """

    def __init__(self, folder: Path, target: Place, form: str = "jsonl") -> None:
        self.folder = folder
        self.target = target
        self.form = form
        self.streams: dict[str, Stream] = {}
        self.states: list[str] = []

    def feed(self, lines: Iterable[str]) -> None:
        """Process messages, one a line, to their end."""
        for line in lines:
            message = json.loads(line)
            kind = message["type"]
            if kind == "SCHEMA":
                self._schema(message["stream"], message["schema"], tuple(message.get("key_properties") or ()))
            elif kind == "RECORD":
                name = message["stream"]
                if name not in self.streams:
                    raise Refused(name, "SINGER", f"a record of {name} before its schema")
                self.streams[name].waiting.append(message["record"])
            elif kind == "STATE":
                self._drain()
                self.states.append(json.dumps(message["value"]))
            else:
                raise NotImplementedError(f"no file had the message {kind} when this was written")
        self._drain(created=True)

    def _schema(self, name: str, schema: Mapping[str, Any], key: tuple[str, ...]) -> None:
        properties = dict(schema.get("properties", {}))
        known = self.streams.get(name)
        if known is None:
            self.streams[name] = Stream(len(self.streams), properties, key)
        elif (known.properties, known.key) != (properties, key):
            self._drain(created=True)
            known.properties, known.key, known.loaded = properties, key, False

    def _drain(self, *, created: bool = False) -> None:
        """Load what waits. `created` makes the tables of streams without a record too."""
        ready = {name: one for name, one in self.streams.items() if one.waiting or (created and not one.loaded)}
        for name, stream in ready.items():
            stream.said += stream.waiting
            self._write(stream)
            stream.waiting, stream.loaded = [], True
            result = dpone.run(self._manifest(name, stream), store=self.folder / "store", threads=1)
            failure = result.streams[0].failure
            if failure and stream.refusal is None:
                stream.refusal = Refused(name, failure["code"], failure["message"])
        for stream in ready.values():
            if stream.refusal:
                raise stream.refusal

    def _write(self, stream: Stream) -> None:
        """The records as they came; the first line names every column of the schema."""
        path = self.folder / f"stream{stream.number}.{self.form}"
        lines = [dict(record) for record in stream.waiting]
        if self.form == "parquet":
            if lines:
                raise NotImplementedError("records go through JSONL")
            columns = [pa.field(name, _ARROW.get(type_, pa.string())) for name, type_ in stream.types.items()]
            pq.write_table(pa.schema(columns).empty_table(), path)
            return
        if lines:
            lines[0] = dict.fromkeys(stream.properties) | lines[0]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")

    def _manifest(self, name: str, stream: Stream) -> dict[str, Any]:
        quoted = '"' + name.replace('"', '""') + '"'
        settings: dict[str, Any] = {"target": quoted, "write": "append_snapshot"}
        if stream.key:
            settings |= {"write": "merge", "primary_key": list(stream.key)}
        source: dict[str, Any] = {"connector": "files", "path": str(self.folder)}
        if self.form == "jsonl":
            source["types"] = stream.types
        return {
            "version": 1,
            "pipeline": "singer",
            "source": source,
            "sink": self.target.endpoint,
            "streams": {f"stream{stream.number}.{self.form}": settings},
        }


class Runner:
    """What an SDK target test asks of its runner, answered by the bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.input_filepath: Any = None
        self.state_messages: list[str] = []
        self.refusal: Refused | None = None

    def new_target(self) -> None:
        """The SDK keeps it and asks nothing of it here."""

    def sync_all(self) -> None:
        """Load the file; a refusal is raised as the SDK's own exception of that kind."""
        problems = importlib.import_module("singer_sdk.exceptions")
        try:
            self.bridge.feed(_lines(self.input_filepath))
        except Refused as refused:
            self.refusal = refused
            kinds = {
                "SINGER": problems.RecordsWithoutSchemaException,
                NULL_KEY: problems.MissingKeyPropertiesError,
            }
            if refused.code not in kinds:
                raise
            raise kinds[refused.code](str(refused)) from refused
        finally:
            self.state_messages = list(self.bridge.states)


def expected_rows(stream: Stream) -> list[dict[str, Any]]:
    """The rows that the messages ask for: the last version of each key, or every record without a key."""
    complete = [dict.fromkeys(stream.properties) | record for record in stream.said]
    if not stream.key:
        return complete
    return list({tuple(row[name] for name in stream.key): row for row in complete}.values())


def _plain(value: Any, type_: str) -> Any:
    """A value of a message, or of the target, in a form that compares exactly."""
    if value is None:
        return None
    if type_ == "json":
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    return comparable(value, _ARROW[type_], texts=True)


def found_rows(target: Place, table: str, types: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the target holds, json as objects."""
    found = [dict(zip(types, row, strict=True)) for row in target.rows(table, list(types))]
    for row in found:
        for name, type_ in types.items():
            if type_ == "json" and isinstance(row[name], str) and target.name == "duckdb":
                row[name] = json.loads(row[name])
    return found


def compare(target: Place, name: str, stream: Stream) -> tuple[str, str, Verdict]:
    """Expectation, finding and verdict of one stream: columns, their types, and every row."""
    types = stream.types
    rows = expected_rows(stream)
    if stream.refusal:
        return _told(rows), str(stream.refusal), "refused"
    native = {column: NATIVE[target.name][type_] for column, type_ in types.items()}
    actual = target.types(name)
    if not types or native != actual:
        return f"columns {native}", f"columns {actual}", "differs"
    want = sorted(repr([_plain(row[column], types[column]) for column in types]) for row in rows)
    have_rows = found_rows(target, name, types)
    have = sorted(repr([_plain(row[column], types[column]) for column in types]) for row in have_rows)
    return _told(rows), _told(have_rows), "agrees" if want == have else "differs"


def _told(rows: list[dict[str, Any]]) -> str:
    shown = "; ".join(sorted(json.dumps(row, ensure_ascii=False, default=str) for row in rows))
    return f"{len(rows)} rows: {shown}"


def _tests() -> dict[str, Any]:
    """The SDK's target test classes by the name of their file."""
    module = importlib.import_module("singer_sdk.testing.target_tests")
    base = importlib.import_module("singer_sdk.testing.templates").TargetFileTestTemplate
    tests: list[Any] = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, base)]
    return {one.name: one for one in tests if one is not base}


def judge(name: str, path: Any, system: str, database: Server) -> Iterator[Row]:
    """The lines of one file on one system."""
    test = _tests().get(name)
    with _bridge(system, database) as bridge:
        if name in AFTER:
            bridge.feed(_lines(path.parent / f"{AFTER[name]}.singer"))
        runner = Runner(bridge)
        runner.input_filepath = path
        wants = "loads; the SDK has no test of it" if test is None else f"{test.__name__} passes"
        said = ""
        verdict: Verdict = "agrees"
        try:
            if test is None:
                runner.sync_all()
            else:
                test().run(None, None, runner)
        except Refused:
            verdict = "refused"
        except Exception as error:  # noqa: BLE001 - an SDK test says its verdict by whatever it raises
            said = f"{type(error).__name__} {error}; states {runner.state_messages}; "
            verdict = "differs"
        said += f"refused, {runner.refusal}" if runner.refusal else "loaded"
        yield Row(f"{name}@{system}", wants, said, verdict)
        wanted = verdict == "agrees" and runner.refusal is not None  # the SDK's test asks for this refusal
        yield from [] if wanted else _streams(name, bridge)
    if verdict == "refused" and runner.refusal and runner.refusal.code == NO_ROW:
        with _bridge(system, database, "parquet") as bridge:
            bridge.feed(_lines(path))
            yield from _streams(f"{name}, as Parquet", bridge)
    if runner.refusal and runner.refusal.code == NUL:
        # The rest of the file, so that one character does not hide what happens to the others.
        with _bridge(system, database) as bridge:
            bridge.feed(line for line in _lines(path) if "\\u0000" not in line.replace("\\\\", ""))
            yield from _streams(f"{name}, records without NUL", bridge)


@contextmanager
def _bridge(system: str, database: Server, form: str = "jsonl") -> Iterator[Bridge]:
    with tempfile.TemporaryDirectory(prefix="dpone-singer-") as folder, place(system, Path(folder), database) as target:
        yield Bridge(Path(folder), target, form)


def _lines(path: Any) -> list[str]:
    return list(path.read_text(encoding="utf-8").splitlines())


def _streams(name: str, bridge: Bridge) -> Iterator[Row]:
    for stream_name, stream in bridge.streams.items():
        yield Row(f"{name}/{stream_name}@{bridge.target.name}", *compare(bridge.target, stream_name, stream))


def main() -> int:
    """Print the table; 0 when every difference is explained."""
    report = Report(explanations("singer"))
    database = server()
    for path in sorted(files("singer_sdk.testing.target_test_streams").iterdir(), key=lambda one: one.name):
        if path.name.endswith(".singer"):
            for system in SYSTEMS:
                report.rows += judge(path.name.removesuffix(".singer"), path, system, database)
    print(f"singer-sdk {version('singer-sdk')}, dpone {dpone.__version__}\n")
    print(report.text())
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
