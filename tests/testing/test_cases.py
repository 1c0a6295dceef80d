"""The type cases: the format of their files, the values in them, and the matrix that executes them."""

from __future__ import annotations

import datetime as dt
import json
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpone.arrow.types import parse_type, type_name
from dpone.errors import ConfigError
from dpone.sdk.connector import load_object
from dpone.sdk.registry import connector_for
from dpone.testing.cases import FOLDER, Case, Cases, Stored, load
from dpone.testing.harness import Harness
from dpone.testing.matrix import Cell, End, expected, run_matrix
from dpone.testing.texts import coarser, normal, parse

FILES = sorted(path.stem for path in FOLDER.glob("*.toml"))
TYPES = [
    "boolean",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float32",
    "float64",
    "decimal(10,2)",
    "decimal(38,38)",
    "text",
    "json",
    "uuid",
    "binary",
    "date",
    *(f"{kind}{unit}" for kind in ("time", "timestamp", "timestamptz") for unit in ("", "[s]", "[ms]", "[ns]")),
]


def split(name: str) -> tuple[str, str]:
    """Connector and variant of a case file."""
    connector, _, variant = name.partition("-")
    return connector, variant


@contextmanager
def opened(name: str, folder: Path) -> Iterator[End]:
    """One end of a route, with the connector's own harness."""
    connector, variant = split(name)
    kind = load_object(connector_for(connector).harness)
    folder.mkdir()
    harness: Harness = kind(folder, variant)
    try:
        yield End(connector, harness, load(connector, variant), variant)
    finally:
        harness.close()


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_every_file_loads_and_says_what_becomes_of_every_type(name: str) -> None:
    """Values are readable, and each sink has a word for every canonical type that a case of any file reads as."""
    found = load(*split(name))
    assert len(found.cases) >= 12
    known = {case.canonical for other in FILES for case in load(*split(other)).cases}
    for canonical in sorted(
        known | set(TYPES) | {f"list<{type_}>" for type_ in TYPES if type_ not in ("json", "uuid")}
    ):
        stored = found.stored(canonical)
        assert bool(stored.type) == (stored.fidelity != "refused"), canonical
        assert bool(stored.keeps) == (stored.fidelity == "lossy"), canonical


def test_the_files_cover_their_systems() -> None:
    """Numbers of cases that only grow."""
    least = {"postgres": 145, "duckdb": 82, "sqlite": 58, "files-csv": 29, "files-jsonl": 12, "files-parquet": 52}
    assert {} == {name: count for name, count in least.items() if len(load(*split(name)).cases) < count}


VALID = """
[[case]]
id = "int"
type = "integer"
canonical = "int32"
fidelity = "exact"
values = [["1", "1"]]
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case = ", "is not TOML"),
        ("cases = []", "unknown key 'cases'"),
        ("setup = 'CREATE'", "setup is a list"),
        ("setup = [1]", "setup is not a list of texts"),
        ("keeps = 'some'", "keeps is one of all, values, nothing"),
        ("case = [1]", "case number 1 is not a table"),
        ("[[case]]\nid = 'a'", "case 'a' lacks type"),
        (VALID + "od = ['x']", "case 'int' has the unknown key 'od'"),
        (VALID + VALID, "two cases 'int'"),
        (VALID.replace('[["1", "1"]]', "[]"), "case 'int' has no values"),
        (VALID.replace('[["1", "1"]]', '[["1"]]'), "a literal and a text"),
        (VALID.replace('"1"]]', '"one"]]'), "'one' is no value of int32"),
        (VALID.replace('"1"]]', '"2147483648"]]'), "2147483648 is no value of int32"),
        (VALID.replace("int32", "int33"), "'int33' is not a canonical type"),
        (VALID.replace("exact", "perfect"), "fidelity is one of exact, widened, lossy, refused"),
        (VALID + "kept = 'maybe'", "kept is one of yes, no, refused"),
        (VALID + "[stores]\nint8 = 'smallint'", "[stores] 'int8' is not a table"),
        (VALID + "[stores]\nint8 = {type = 'smallint'}", "[stores] 'int8' lacks fidelity"),
        (VALID + "[stores]\nint8 = {type = 'a', fidelity = 'exact', most = 'x'}", "'x' is no value of int8"),
        (VALID + "[stores]\nint8 = {type = 'a', fidelity = 'exact', never = '('}", "never is no regular expression"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """One ConfigError that names the file and the place in it."""
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load("mine", path=tmp_path)
    assert words in caught.value.message
    assert "mine.toml" in caught.value.message


def test_a_connector_may_bring_its_own_files(tmp_path: Path) -> None:
    """A folder, or a file of any name; a connector without one is told what to write."""
    (tmp_path / "mine-wide.toml").write_text(VALID, encoding="utf-8")
    case = Case("int", "integer", "int32", "exact", (("1", "1"),))
    assert Cases((), (case,)) == load("mine", "wide", tmp_path) == load("x", path=tmp_path / "mine-wide.toml")
    with pytest.raises(ConfigError, match="no type cases of mine") as caught:
        load("mine", path=tmp_path)
    assert "mine.toml" in caught.value.remedy


def test_versions_are_compared_as_numbers() -> None:
    """15 is older than 15.8 and newer than 9.6, whatever stands around the numbers."""
    case = Case("c", "t", "int8", "exact", (("1", "1"),), since="14")
    assert [False, True, True, True] == [case.known_to(v) for v in ("9.6", "14", "15.8 (Debian 15.8-0)", "v16")]


# -- values ------------------------------------------------------------------------------------------------------------


def test_every_canonical_type_has_texts() -> None:
    """`parse` knows each name that `type_name` gives, and lists of it."""
    arrow: list[tuple[pa.DataType, str]] = [parse_type(name) for name in TYPES if "[" not in name]
    for unit in ("s", "ms", "us", "ns"):
        arrow += [(pa.timestamp(unit), ""), (pa.timestamp(unit, "UTC"), "")]
        arrow += [((pa.time64 if unit in ("us", "ns") else pa.time32)(unit), "")]
    for type_, logical in arrow:
        name = type_name(type_, logical)
        assert () == parse(f"list<{name}>", "[]"), name
        assert (None,) == parse(f"list<{name}>", "[null]"), name
        with pytest.raises(ValueError, match=r"is not a canonical type|no value"):
            parse(f"{name}?", "nonsense")


@given(st.dates())
def test_dates_are_counted_as_python_counts(day: dt.date) -> None:
    """In the years that Python has."""
    count = (day - dt.date(1970, 1, 1)).days
    assert count == parse("date", day.isoformat()) == normal("date", day)


@given(st.integers(-5_877_640, 5_881_579), st.integers(1, 12), st.integers(1, 28))
def test_the_calendar_repeats_itself_after_400_years(year: int, month: int, day: int) -> None:
    """146,097 days later everything is the same, in the years that Python does not have as well."""
    shift = year // 400 - 5
    same = dt.date(year - shift * 400, month, day)
    text = f"{'-' if year < 0 else ''}{abs(year):04d}-{month:02d}-{day:02d}"
    assert (same - dt.date(1970, 1, 1)).days + shift * 146_097 == parse("date", text)


@given(st.datetimes(), st.sampled_from([("", 1), ("[ns]", 1000)]))
def test_timestamps_are_counted_as_python_counts(at: dt.datetime, unit: tuple[str, int]) -> None:
    """In microseconds, and in nanoseconds within their range."""
    name, factor = unit
    count = (at - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1) * factor
    if not -(2**63) <= count < 2**63:
        with pytest.raises(ValueError, match="out of range"):
            parse(f"timestamp{name}", str(at))
        return
    for text in (
        at.isoformat(),
        at.isoformat(" "),
        at.strftime("%Y").rjust(4, "0") + at.strftime("-%m-%d %H:%M:%S.%f"),
    ):
        assert count == parse(f"timestamp{name}", text)
    assert count == normal(f"timestamp{name}", at)


@given(st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 1, 1)), st.integers(-86_399, 86_399))
def test_instants_are_compared_in_utc(at: dt.datetime, offset: int) -> None:
    """Whatever offset they are written with."""
    there = at.replace(tzinfo=dt.timezone(dt.timedelta(seconds=offset)))
    count = (there - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    assert count == parse("timestamptz", there.isoformat()) == normal("timestamptz", there)
    assert count == parse("timestamptz", there.astimezone(dt.UTC).isoformat().replace("+00:00", "Z"))


@given(st.times())
def test_times_are_counted_as_python_counts(time: dt.time) -> None:
    """From midnight."""
    since = dt.timedelta(hours=time.hour, minutes=time.minute, seconds=time.second, microseconds=time.microsecond)
    count = since // dt.timedelta(microseconds=1)
    assert count == parse("time", time.isoformat()) == normal("time", time)
    assert count * 1000 == parse("time[ns]", time.isoformat())


@given(st.floats())
def test_floats_are_compared_by_their_bits(value: float) -> None:
    """-0.0 is not 0.0; there is one NaN."""
    bits = 0x7FF8000000000000 if math.isnan(value) else struct.unpack("<Q", struct.pack("<d", value))[0]
    assert bits == parse("float64", repr(value)) == normal("float64", value)


@given(st.floats(width=32))
def test_singles_have_the_shortest_text_of_their_own(value: float) -> None:
    """The text of the double, and the nine digits that tell every single from its neighbours."""
    bits = 0x7FC00000 if math.isnan(value) else struct.unpack("<I", struct.pack("<f", value))[0]
    assert bits == parse("float32", repr(value)) == normal("float32", value)
    if math.isfinite(value):
        assert bits == parse("float32", f"{value:.9g}")


def test_a_text_is_rounded_to_a_single_once() -> None:
    """By way of the double it would be rounded twice, to another neighbour."""
    halfway_up = "1.00000017881393432617187499"  # just below the middle of two singles; as a double it is the middle
    assert normal("float32", 1 + 2**-23) == parse("float32", halfway_up)
    (twice,) = struct.unpack("<f", struct.pack("<f", float(halfway_up)))
    assert normal("float32", 1 + 2**-22) == normal("float32", twice)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**7), max_value=10**7, places=2))
def test_decimals_are_compared_as_numbers(value: Decimal) -> None:
    """1.5 is 1.50, in text and as a value."""
    text = f"{value:f}"
    assert parse("decimal(10,2)", text) == normal("decimal(10,2)", value) == value
    assert parse("decimal(38,20)", text + "000") == value


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)), st.lists(st.none() | st.text()), st.lists(st.booleans()))
def test_lists_are_json(numbers: list[Any], texts: list[Any], booleans: list[Any]) -> None:
    """Element by element; texts as values, and values as they are."""
    for type_, elements in (("int64", numbers), ("text", texts), ("boolean", booleans)):
        assert tuple(elements) == parse(f"list<{type_}>", json.dumps(elements)) == normal(f"list<{type_}>", elements)
        nested = [elements, None, []]
        assert (tuple(elements), None, ()) == parse(f"list<list<{type_}>>", json.dumps(nested))


@given(st.binary())
def test_bytes_are_hexadecimal(value: bytes) -> None:
    """In either case."""
    assert value == parse("binary", value.hex()) == parse("binary", value.hex().upper()) == normal("binary", value)


@pytest.mark.parametrize(
    ("canonical", "text", "value"),
    [
        ("date", "0000-02-29", -719_469),
        ("date", "-0001-12-31", -719_529),
        ("date", "5881580-07-11", 2**31 - 1),
        ("date", "-5877641-06-23", -(2**31)),
        ("timestamp", "294247-01-10 04:00:54.775807", 2**63 - 1),
        ("timestamp", "-290308-12-21T19:59:05.224192", -(2**63)),
        ("timestamp[ns]", "2262-04-11 23:47:16.854775807", 2**63 - 1),
        ("timestamp[s]", "1969-12-31 23:59:59", -1),
        ("timestamp[ms]", "1970-01-01 00:00:00.1000", 100),
        ("timestamptz[s]", "1970-01-01 00:00:00-01:00:01", 3601),
        ("time", "24:00:00", 86_400_000_000),
        ("time[ns]", "00:00:00.000000001", 1),
        ("float32", "16777217", 0x4B800000),
        ("float64", "-0", 1 << 63),
        ("list<float64>", '["NaN", -0.0, 1]', (0x7FF8 << 48, 1 << 63, 0x3FF0 << 48)),
        ("list<decimal(5,2)>", '[1.50, "1.5"]', (Decimal("1.5"), Decimal("1.5"))),
        ("list<date>", '["1970-01-02"]', (1,)),
    ],
)
def test_values_at_the_edges(canonical: str, text: str, value: Any) -> None:
    """Known counts, beyond the years of Python."""
    assert value == parse(canonical, text)


@pytest.mark.parametrize(
    ("canonical", "text"),
    [
        ("boolean", "True"),
        ("int8", "128"),
        ("int8", "+1"),
        ("int64", "1.0"),
        ("int64", "١"),
        ("uint64", "-1"),
        ("float32", "3.5e38"),
        ("float64", "1e400"),
        ("float64", "1_0"),
        ("float64", "infinity"),
        ("decimal(5,2)", "1.234"),
        ("decimal(5,2)", "1000"),
        ("decimal(5,2)", "1e1"),
        ("decimal(5,2)", "NaN"),
        ("uuid", "a0eebc99"),
        ("binary", "0"),
        ("binary", "0x00"),
        ("date", "2023-02-29"),
        ("date", "1900-02-29"),
        ("date", "24-01-01"),
        ("date", "5881580-07-12"),
        ("time", "24:00:00.1"),
        ("time", "00:60:00"),
        ("time", "00:00:00.1234567"),
        ("time", "1:00:00"),
        ("timestamp", "2024-01-01"),
        ("timestamp", "2024-01-01 00:00:00Z"),
        ("timestamp", "infinity"),
        ("timestamp[ns]", "2262-04-11 23:47:16.854775808"),
        ("timestamptz", "2024-01-01 00:00:00"),
        ("list<int32>", "{1}"),
        ("list<int32>", "[1.5]"),
        ("list<int32>", "[true]"),
        ("list<boolean>", "[1]"),
        ("list<text>", "[1]"),
        ("list<list<int32>>", "[1]"),
        ("list<int32", "[]"),
        ("struct", "{}"),
    ],
)
def test_what_is_no_value_is_refused(canonical: str, text: str) -> None:
    """By a ValueError, never by a value that is close."""
    with pytest.raises(ValueError, match=r"."):
        parse(canonical, text)


@pytest.mark.parametrize(
    ("canonical", "value"),
    [
        ("boolean", 2),
        ("boolean", 1.0),
        ("int32", True),
        ("int32", 1.0),
        ("int32", 2**31),
        ("float32", 0.1),
        ("float64", 1),
        ("decimal(5,2)", 1.5),
        ("decimal(5,2)", Decimal("1.005")),
        ("text", 1),
        ("text", b"a"),
        ("json", {}),
        ("binary", [1]),
        ("date", dt.datetime(2024, 1, 1)),
        ("time", dt.time(0, 0, tzinfo=dt.UTC)),
        ("timestamp", dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),
        ("timestamptz", dt.datetime(2024, 1, 1)),
        ("timestamp[s]", dt.datetime(2024, 1, 1, 0, 0, 0, 1)),
        ("list<int32>", {1: 2}),
        ("list<int32>", [1.0]),
    ],
)
def test_what_a_driver_may_not_give_is_refused(canonical: str, value: object) -> None:
    """A value of another kind is another value, also where Python calls them equal."""
    with pytest.raises(ValueError, match=r"."):
        normal(canonical, value)


def test_a_coarser_unit_cuts_off() -> None:
    """Towards the past, also before 1970, and element by element."""
    assert [1, -1, None] == [coarser("timestamp[ns]", "timestamp", value) for value in (1999, -1, None)]
    assert (1, None) == coarser("list<time[ns]>", "list<time>", (1000, None))


def test_a_sink_says_what_it_has_no_room_for() -> None:
    """By bounds, which are values, and by a pattern of the text."""
    day = Stored("DATE", "exact", least="0001-01-01", most="9999-12-31")
    assert [False, True, True, False] == [
        day.holds("date", text) for text in ("0000-12-31", "0001-01-01", "9999-12-31", "10000-01-01")
    ]
    assert [False, True] == [Stored("REAL", "exact", never="(?i)nan").holds("float64", text) for text in ("NaN", "1")]


# -- the matrix --------------------------------------------------------------------------------------------------------


def test_what_is_expected_of_a_route() -> None:
    """A kept type is exact; else the worst of reading and storing; what is refused stays refused."""
    stores = {"decimal(p,s)": Stored("numeric(p,s)", "exact"), "text": Stored("text", "lossy", keeps="text")}
    sink = Cases((), (), stores)
    case = Case("c", "t", "decimal(10,2)", "widened", (("1", "1"),))
    assert "exact" == expected(case, "a", "a", sink)
    assert "widened" == expected(case, "a", "b", sink)
    assert "widened" == expected(case, "a", "a", replace(sink, keeps="nothing"))
    assert "widened" == expected(replace(case, kept="no"), "a", "a", sink)
    assert "refused" == expected(replace(case, kept="refused"), "a", "a", sink)
    assert "lossy" == expected(replace(case, canonical="text"), "a", "b", sink)
    assert "refused" == expected(replace(case, fidelity="refused"), "a", "b", sink)
    assert "numeric(10,2)" == sink.stored("decimal(10,2)").type
    with pytest.raises(ConfigError, match="int8"):
        sink.stored("int8")


def table(end: End, name: str, cases: Sequence[Case], literals: Sequence[Sequence[str]]) -> dict[str, str]:
    """Make a table with a column for each case, and a row for each literal of the case that has most."""
    columns = {f"c{number}": case.type for number, case in enumerate(cases)}
    count = max(map(len, literals))
    rows = [
        [str(row), *(found[row] if row < len(found) else end.cases.null for found in literals)] for row in range(count)
    ]
    end.harness.create(name, {"id": end.harness.native["id"], **columns}, rows, ["id"])
    return columns


def held(end: End, name: str, columns: Iterable[str], *, texts: bool = False) -> list[tuple[Any, ...]]:
    """The rows of a table in the order of `id`."""
    read = end.harness.texts if texts else end.harness.rows
    return sorted(read(name, ["id", *columns]), key=lambda row: int(row[0] or 0))


@pytest.mark.parametrize("name", ["postgres", "duckdb", "sqlite"])
def test_every_literal_is_what_the_file_says(tmp_path: Path, name: str) -> None:
    """The system itself takes every literal, odd ones too, and holds the value or the text that stands beside it."""
    with opened(name, tmp_path / "place") as end:
        end.harness.setup(end.cases.setup)
        known = [case for case in end.cases.cases if case.known_to(end.harness.version)]
        table(end, "odd", known, [case.odd for case in known])
        columns = table(end, "t", known, [[literal for literal, _ in case.values] for case in known])
        values, texts = held(end, "t", columns), held(end, "t", columns, texts=True)
        for place, case in enumerate(known, 1):
            for row, (literal, text) in enumerate(case.values):
                said = (case.id, literal)
                found = values[row][place]
                if case.canonical == "text" and name != "sqlite":
                    assert text == texts[row][place], said
                elif case.canonical == "json" and case.type != "JSON" and name == "duckdb":
                    if case.fidelity != "refused":  # a list or a structure
                        assert json.loads(text) == json.loads(found), said
                else:
                    assert parse(case.canonical, text) == normal(case.canonical, declared(case, found)), said


def declared(case: Case, value: Any) -> Any:
    """What SQLite stores in another form than the declared type's own, in the form that `parse` reads."""
    if case.canonical in ("text", "json") and not isinstance(value, str):
        return str(value)
    if case.canonical == "time" and isinstance(value, str):
        return f"{value}:00" if value.count(":") == 1 else value
    return f"{Decimal(repr(value)):f}" if case.canonical.startswith("decimal") and isinstance(value, float) else value


EVERY = ("postgres", "duckdb", "sqlite", "files-csv", "files-jsonl", "files-parquet")
QUICK = {
    ("duckdb", "sqlite"),
    ("postgres", "duckdb"),
    ("postgres", "postgres"),
    ("files-csv", "files-parquet"),
    ("files-jsonl", "files-csv"),
    ("files-parquet", "postgres"),
}


def executed(source: str, sink: str, folder: Path, **changed: Case) -> tuple[Cell, ...]:
    """The cells of a route; `changed` are cases that say something else than the file does, by id."""
    with opened(source, folder / "source") as left, opened(sink, folder / "sink") as right:
        cases = tuple(changed.get(case.id, case) for case in left.cases.cases)
        return run_matrix(replace(left, cases=replace(left.cases, cases=cases)), right, folder / "records")


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        pytest.param(source, sink, marks=[] if (source, sink) in QUICK else pytest.mark.wide)
        for source in EVERY
        for sink in EVERY
    ],
)
def test_the_matrix(tmp_path: Path, source: str, sink: str) -> None:
    """Every case of the file is executed, and every cell is as the files say."""
    cells = executed(source, sink, tmp_path)
    assert [] == [(cell.case, problem) for cell in cells for problem in cell.problems]
    for cell in cells:
        assert (source, sink) == (cell.source, cell.sink)
        assert cell.expected == cell.fidelity, cell
        assert (cell.fidelity == "refused") == (cell.arrived == 0), cell
    assert len(cells) > 10
    by_case = {cell.case: cell for cell in cells}
    if (source, sink) == ("files-parquet", "postgres"):
        assert ("lossy", "timestamp without time zone") == (
            by_case["timestamp[ns]"].fidelity,
            by_case["timestamp[ns]"].stored,
        )
    if source == "postgres":
        assert ("refused" if sink != "postgres" else "exact") == by_case["cube"].fidelity
    if (source, sink) == ("postgres", "duckdb"):
        assert (8, 6) == (by_case["date"].arrived, by_case["date"].stopped)


WRONGLY: list[tuple[str, dict[str, Any], str]] = [
    ("INTEGER", {"values": (("1", "2"),)}, "1 arrived as 1, altered without an error"),
    ("INTEGER", {"fidelity": "widened"}, "the plan says exact, and the case files say widened"),
    ("INTEGER", {"fidelity": "lossy"}, "the plan takes a column that is lossy"),
    ("INTEGER", {"fidelity": "refused"}, "the plan takes a column that is refused"),
    ("INTEGER", {"canonical": "int64"}, "it is read as int32, and the case files say int64"),
    ("INTEGER", {"odd": ("7",)}, "7 arrived as 7, altered without an error"),
    ("UNION", {"fidelity": "exact"}, "the plan does not take it"),
    ("UBIGINT", {"values": (("18446744073709551615", "1"),)}, "the run stopped: "),
    ("DOUBLE", {"values": (("'-0.0'", "0"),)}, "the run stopped: "),
    ("VARCHAR", {"values": (("NULL", "NULL"),)}, "NULL arrived as None, altered without an error"),
]


@pytest.mark.parametrize(("id_", "changes", "problem"), WRONGLY)
def test_a_wrong_expectation_is_noticed(tmp_path: Path, id_: str, changes: dict[str, Any], problem: str) -> None:
    """Whatever a case file says falsely of a type becomes a problem of that cell, and of no other."""
    with opened("duckdb", tmp_path / "source") as left, opened("sqlite", tmp_path / "sink") as right:
        cases = {case.id: case for case in left.cases.cases}
        few = (replace(cases[id_], **changes), cases["BOOLEAN"])
        cells = run_matrix(replace(left, cases=replace(left.cases, cases=few)), right, tmp_path / "records")
    assert [False, True] == [cell.ok for cell in cells]
    assert problem in " ".join(cells[0].problems)
    assert (3, 0) == (cells[1].arrived, cells[1].stopped)
    assert cells[0].as_dict()["problems"] == list(cells[0].problems)


def test_a_wrong_sink_is_noticed(tmp_path: Path) -> None:
    """A bound that is not there, one that is missing, another stored type, a text that is never held."""
    with opened("duckdb", tmp_path / "source") as left, opened("sqlite", tmp_path / "sink") as right:
        cases = {case.id: case for case in left.cases.cases}
        few = tuple(cases[id_] for id_ in ("INTEGER", "UBIGINT", "DATE", "UUID"))
        stores = {
            **right.cases.stores,
            "int32": Stored("INTEGER_32", "exact", most="0"),
            "uint64": Stored("INTEGER_U64", "exact"),
            "date": replace(right.cases.stores["date"], type="TEXT"),
            "uuid": Stored("UUID_TEXT", "exact", never="^ffff"),
        }
        cells = run_matrix(
            replace(left, cases=replace(left.cases, cases=few)),
            replace(right, cases=replace(right.cases, stores=stores)),
            tmp_path / "records",
        )
    problems = [" ".join(cell.problems) for cell in cells]
    assert "2147483647 arrived as it was, and the case files say that it stops the run" in problems[0]
    assert "the run stopped: " in problems[1]
    assert "it is stored as DATE, and the case files say TEXT" in problems[2]
    assert "arrived as it was, and the case files say that it stops the run" in problems[3]
