"""The strategies that keep history, replace partitions, or add each key once: what they do to a target, row by row.

Every load goes into two sinks at once: the one that is judged, and memory, whose strategies are a few lines over rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dpone
from dpone.engine.record import StreamRecord
from dpone.errors import DponeError
from dpone.events import Event
from dpone.sdk import Column
from dpone.strategy.scd2 import IS_CURRENT, VALID_FROM, VALID_TO
from dpone.testing.memory.place import Place, place

Row = tuple[int, str | None, int | None, int | None]
"""Key, part, minutes of the cursor, value."""

START = datetime(2024, 1, 1, tzinfo=UTC)
TYPES = {"id": "int32", "part": "text", "at": "timestamptz", "v": "int32"}
OPENED = datetime(2030, 1, 1, tzinfo=UTC)  # when the clock of a test begins
_numbers = count()


class Ends:
    """Tables in memory as the source, and one sink, with a clock that only the test moves."""

    def __init__(self, folder: Path, kind: str, url: str = "") -> None:
        name = f"{kind} {next(_numbers)}"
        self.folder, self.kind, self.url, self.name = folder / name, kind, url, name
        self.folder.mkdir()
        self.place: Place = place(name)
        self.held: Place = place(f"{name} sink")
        self.table = f"x{next(_numbers)}"
        self.clock = OPENED

    def put(self, rows: Sequence[Row]) -> None:
        """Make the source hold these rows, in this order."""
        ids, parts, at, v = zip(*rows, strict=True) if rows else ((),) * 4
        times = [None if minutes is None else START + timedelta(minutes=minutes) for minutes in at]
        arrays = [
            pa.array(ids, pa.int32()),
            pa.array(parts, pa.string()),
            pa.array(times, pa.timestamp("us", "UTC")),
            pa.array(v, pa.int32()),
        ]
        self.place.put("t", TYPES, [pa.record_batch(arrays, list(TYPES))])

    def manifest(self, **stream: Any) -> dict[str, Any]:
        """One stream with these settings."""
        sinks: Mapping[str, Any] = {
            "memory": {"connector": "memory", "place": f"{self.name} sink"},
            "sqlite": f"sqlite:///{self.folder}/x.db",
            "duckdb": f"duckdb:///{self.folder}/x.duckdb",
            "postgres": self.url,
        }
        ends = {"source": {"connector": "memory", "place": self.name}, "sink": sinks[self.kind]}
        settings = {"target": self.table, "proof": "digest", "slices": {"rows": 2}} | stream
        return {"version": 1, "pipeline": "writes", **ends, "streams": {"t": settings}}

    def run(self, rows: Sequence[Row] | None = None, *, on_event: Any = None, **stream: Any) -> StreamRecord:
        """Put rows, and load them one minute after the last load."""
        if rows is not None:
            self.put(rows)
        self.clock += timedelta(minutes=1)
        with clock_at(self.clock):
            return dpone.run(self.manifest(**stream), store=self.folder / "store", on_event=on_event).streams[0]

    def load(self, rows: Sequence[Row] | None = None, **stream: Any) -> dict[str, int]:
        """The same; it must succeed and be proven. What it changed."""
        record = self.run(rows, **stream)
        assert record.failure is None, record.failure
        assert ("proven", True) == (record.proof["verdict"], record.balance["holds"])
        return record.changes

    def refused(self, rows: Sequence[Row] | None = None, **stream: Any) -> dict[str, Any]:
        """The same; it must fail."""
        record = self.run(rows, **stream)
        assert record.failure is not None
        return record.failure

    def reset(self, **stream: Any) -> None:
        """Forget the checkpoint."""
        dpone.reset(self.manifest(**stream), select=["*"])

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Run SQL in the sink, without dpone."""
        if self.kind == "sqlite":
            with sqlite3.connect(self.folder / "x.db") as lite:
                return lite.execute(sql).fetchall()
        if self.kind == "duckdb":
            with duckdb.connect(str(self.folder / "x.duckdb")) as duck:
                duck.execute("SET TimeZone = 'UTC'")
                return [tuple(row.values()) for row in duck.sql(sql).to_arrow_table().to_pylist()]
        with psycopg.connect(self.url) as server:
            cursor = server.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        """The target, times as minutes since START (with microseconds as a fraction), sorted."""
        names = columns or tuple(TYPES)
        if self.kind == "memory":
            held = self.held.tables.get(self.table)
            found = list(zip(*held.table.select(names).to_pydict().values(), strict=True)) if held else []
        else:
            try:
                found = self.ask(f"SELECT {', '.join(map(quoted, names))} FROM {self.table}")
            except (sqlite3.OperationalError, duckdb.CatalogException, psycopg.errors.UndefinedTable):
                found = []
        return sorted((tuple(map(_plain, names, row)) for row in found), key=repr)

    def versions(self) -> dict[int, list[tuple[Any, ...]]]:
        """The versions of each key: from, to, current, part, minutes, value; oldest first."""
        found: dict[int, list[tuple[Any, ...]]] = {}
        for key, *rest in self.rows("id", VALID_FROM, VALID_TO, IS_CURRENT, "part", "at", "v"):
            found.setdefault(key, []).append(tuple(rest))
        return {key: sorted(versions, key=lambda version: version[0]) for key, versions in found.items()}


def quoted(name: str) -> str:
    """A name in standard SQL."""
    return f'"{name}"'


def _plain(name: str, value: Any) -> Any:
    if value is not None and name in ("at", VALID_FROM, VALID_TO):
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
        return (at.astimezone(UTC) - START) // timedelta(microseconds=1)
    return bool(value) if name == IS_CURRENT else value


@contextmanager
def clock_at(moment: datetime) -> Iterator[None]:
    """Inside the block the clock of dpone stands."""
    real, dpone.clock.wall = dpone.clock.wall, moment.timestamp
    try:
        yield
    finally:
        dpone.clock.wall = real


KINDS = ("memory", "sqlite", "duckdb", "postgres")
Make = Callable[[], Ends]


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Fresh ends, whenever it is called."""
    url = request.getfixturevalue("pg") if request.param == "postgres" else ""
    return lambda: Ends(tmp_path, request.param, url)


@pytest.fixture
def ends(make: Make) -> Ends:
    """The ends of most tests."""
    return make()


def minute(number: float) -> int:
    """Minutes since START in microseconds."""
    return round(number * 60_000_000)


# -- against the model -----------------------------------------------------------------------------------------------

_AT = {"column": "at", "lookback": "0s"}
_MINUTES = st.integers(0, 4)
_ROWS = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from([None, "a", "A", ""]), _MINUTES, st.sampled_from([None, 0, 1])),
    max_size=6,
)
_LOADS = st.lists(st.tuples(_ROWS, st.booleans()), min_size=1, max_size=3)
MODES: Mapping[str, dict[str, Any]] = {
    "scd2": {"write": "scd2", "primary_key": "id", "cursor": "at"},
    "scd2 of everything": {"write": "scd2", "primary_key": "id"},
    "partitions": {"write": "delete_insert", "partition_by": ["part", "v"]},
    "partitions of the cursor": {"write": "delete_insert", "partition_by": ["at", "part"], "cursor": _AT},
    "window": {"write": "delete_insert", "cursor": _AT},
    "each key once": {"write": "append", "deduplicate": True, "primary_key": ["id", "v"], "cursor": "at"},
    "each key once of everything": {"write": "append", "deduplicate": True, "primary_key": "id"},
}


@pytest.mark.parametrize("make", KINDS[1:], indirect=True)
@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(loads=_LOADS)
def test_every_sink_does_what_the_model_does(
    make: Make, tmp_path: Path, mode: str, loads: list[tuple[list[Row], bool]]
) -> None:
    """Any tables, loaded one after the other, with the checkpoint forgotten or not: counts and rows are the model's."""
    one, model, stream = make(), Ends(tmp_path, "memory"), MODES[mode]
    for rows, forget in loads:
        if stream["write"] != "delete_insert" and "v" in str(stream["primary_key"]):
            rows = [(key, part, at, 0 if v is None else v) for key, part, at, v in rows]  # noqa: PLW2901
        one.put(rows)
        model.put(rows)
        if forget:
            one.reset(**stream)
            model.reset(**stream)
        assert model.load(**stream) == one.load(**stream)
        names = [*TYPES, *((VALID_FROM, VALID_TO, IS_CURRENT) if stream["write"] == "scd2" else ())]
        assert model.rows(*names) == one.rows(*names)
        before = one.rows(*names)
        again = one.load(**stream)
        assert (0, 0, 0) == (again["inserted"], again["updated"], again["deleted"])
        assert before == one.rows(*names)
        if stream["write"] == "scd2":
            check_versions(one)
            model.clock = one.clock


def check_versions(ends: Ends) -> None:
    """One current version for each key, the last; each begins where the one before it ends, and lasts some time."""
    for versions in ends.versions().values():
        assert [False] * (len(versions) - 1) + [True] == [version[2] for version in versions]
        for earlier, later in pairwise(versions):
            assert earlier[0] < earlier[1] == later[0]
        assert versions[-1][1] is None


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=st.lists(st.dictionaries(st.integers(1, 4), st.tuples(_MINUTES, st.integers(0, 2))), max_size=3))
def test_current_versions_are_the_source(make: Make, tables: list[dict[int, tuple[int, int]]]) -> None:
    """However a table changes, the current version of each key that it holds is its row, and `verify` agrees."""
    ends, stream = make(), MODES["scd2 of everything"]
    held: dict[int, Row] = {}
    for table in tables:
        held |= {key: (key, None, at, v) for key, (at, v) in table.items()}
        ends.load(list(held.values()), **stream)
        check_versions(ends)
        current = {key: versions[-1][4:] for key, versions in ends.versions().items()}
        assert {key: (minute(row[2] or 0), row[3]) for key, row in held.items()} == current
        [found] = dpone.verify(ends.manifest(**stream))
        assert not isinstance(found, DponeError)
        assert ("proven", len(held)) == (found.verdict, found.sink.rows)


# -- scd2 ------------------------------------------------------------------------------------------------------------

SCD2 = MODES["scd2"]


def test_a_version_begins_at_its_cursor(ends: Ends) -> None:
    """A change closes the current version at its own cursor value; the target says when each state was true."""
    assert 2 == ends.load([(1, "a", 1, 10), (2, "b", 2, 20)], **SCD2)["inserted"]
    changes = ends.load([(1, "a", 5, 11), (2, "b", 2, 20), (3, "c", 6, 30)], **SCD2)
    assert (2, 1, 0) == (changes["inserted"], changes["updated"], changes["unchanged"])
    assert {
        1: [(minute(1), minute(5), False, "a", minute(1), 10), (minute(5), None, True, "a", minute(5), 11)],
        2: [(minute(2), None, True, "b", minute(2), 20)],
        3: [(minute(6), None, True, "c", minute(6), 30)],
    } == ends.versions()


def test_without_a_time_in_the_cursor_a_version_begins_with_its_load(ends: Ends) -> None:
    """A stream without a cursor, or with one that is a number, is as of when its load was opened."""
    for stream in ({"write": "scd2", "primary_key": "id"}, {"write": "scd2", "primary_key": "id", "cursor": "v"}):
        ends.table = f"y{next(_numbers)}"
        opened = []
        for value in (1, 2):
            ends.load([(1, None, None, value)], **stream)
            opened.append((ends.clock - START) // timedelta(microseconds=1))
        first, second = ends.versions()[1]
        assert ((opened[0], opened[1]), (opened[1], None)) == (first[:2], second[:2])


def test_a_resumed_load_keeps_the_time_it_was_opened(ends: Ends) -> None:
    """A load that died and goes on an hour later publishes what it would have published."""
    stream: dict[str, Any] = {"write": "scd2", "primary_key": "id"}

    def die(event: Event) -> None:
        if event.name == "load.committing":
            raise RuntimeError(event.name)

    assert "failed" == ends.run([(1, "a", 1, 1)], on_event=die, **stream).status
    opened = ends.clock
    ends.clock += timedelta(hours=1)
    assert 1 == ends.load(**stream)["inserted"]
    assert (opened - START) // timedelta(microseconds=1) == ends.versions()[1][0][0]


def test_a_version_never_begins_before_its_predecessor(ends: Ends) -> None:
    """A row that changes without its cursor, and a clock that is set back, make versions one microsecond apart.

    None is lost, and none overlaps.
    """
    ends.load([(1, "a", 1, 1)], **SCD2)
    for value in (2, 3):
        assert 1 == ends.load([(1, "a", 1, value)], **SCD2)["inserted"]
    found = ends.versions()[1]
    assert [minute(1), minute(1) + 1, minute(1) + 2] == [version[0] for version in found]
    assert [1, 2, 3] == [version[-1] for version in found]
    check_versions(ends)

    ends.table, stream = f"y{next(_numbers)}", MODES["scd2 of everything"]
    for hours, value in ((0, 1), (-5, 2), (-9, 3)):
        ends.clock = OPENED + timedelta(hours=hours)
        ends.load([(1, "a", 1, value)], **stream)
    found = ends.versions()[1]
    assert [1, 2, 3] == [version[-1] for version in found]
    assert [1, 1] == [later[0] - earlier[0] for earlier, later in pairwise(found)]
    check_versions(ends)


def test_the_microsecond_after_carries(ends: Ends) -> None:
    """A version that begins in the last microsecond of a year is followed by one in the next year."""
    stream: dict[str, Any] = {"write": "scd2", "primary_key": "id"}
    ends.clock = datetime(2031, 12, 31, 23, 58, 59, 999999, tzinfo=UTC)
    ends.load([(1, "a", 1, 1)], **stream)
    ends.clock -= timedelta(hours=1)
    ends.load([(1, "a", 1, 2)], **stream)
    first, second = ends.versions()[1]
    assert second[0] == first[1] == (datetime(2032, 1, 1, tzinfo=UTC) - START) // timedelta(microseconds=1)


def test_rows_behind_the_current_version_are_stale(ends: Ends) -> None:
    """A backfill of an older state is counted and changes nothing; its replay neither."""
    ends.load([(1, "a", 5, 2)], **SCD2)
    before = ends.versions()
    for _ in range(2):
        ends.reset(**SCD2)
        changes = ends.load([(1, "a", 1, 1)], **SCD2)
        assert (0, 0, 1) == (changes["inserted"], changes["updated"], changes["stale"])
        assert before == ends.versions()


def test_rows_without_a_cursor_value_begin_with_their_load(ends: Ends) -> None:
    """With `nulls: load` a row without a cursor is a version too, and it is not closed by itself."""
    stream = SCD2 | {"cursor": {"column": "at", "nulls": "load"}}
    ends.load([(1, "a", None, 1), (2, "b", 1, 1)], **stream)
    opened = (ends.clock - START) // timedelta(microseconds=1)
    assert (1, 0) == (ends.load(**stream)["unchanged"], ends.load(**stream)["inserted"])
    assert opened == ends.versions()[1][0][0]
    ends.load([(1, "a", None, 2), (2, "b", 1, 1)], **stream)
    assert [1, 2] == [version[-1] for version in ends.versions()[1]]
    check_versions(ends)


@pytest.mark.parametrize(
    ("type_", "value", "begins"),
    [
        (pa.date32(), 19723, 0),
        (pa.timestamp("us"), 1_704_067_200_000_001, 1),
        (pa.timestamp("ms"), 1_704_067_200_002, 2000),
        (pa.timestamp("s"), 1_704_067_203, 3_000_000),
        (pa.timestamp("us", "UTC"), 1_704_067_200_000_001, 1),
        (pa.timestamp("ns", "UTC"), 1_704_067_200_000_001_999, 1),
    ],
    ids=str,
)
def test_every_cursor_that_is_a_time_is_a_beginning(ends: Ends, type_: pa.DataType, value: int, begins: int) -> None:
    """Dates and timestamps without a zone are taken as UTC; what is finer than a microsecond is cut off."""
    counted = pa.int32() if type_ == pa.date32() else pa.int64()
    arrays = [pa.array([1], pa.int32()), pa.array([value], counted).cast(type_)]
    columns = [Column("id", pa.int32()), Column("at", type_)]
    ends.place.put("t", columns, [pa.record_batch(arrays, ["id", "at"])])
    lossy: dict[str, Any] = {}
    if ends.kind == "postgres" and "ns" in str(type_):
        lossy = {"columns": {"allow_lossy": ["at"]}, "proof": "counts"}
    assert 1 == ends.load(**SCD2, **lossy)["inserted"]
    assert [(1, begins)] == ends.rows("id", VALID_FROM)


def test_a_target_without_versions_is_refused(ends: Ends) -> None:
    """A table that another strategy made holds rows of which nobody knows since when; the plan says so."""
    ends.load([(1, "a", 1, 1)], write="replace")
    before = ends.rows()
    failure = ends.refused(**SCD2)
    assert ("DP406", True, True) == (failure["code"], VALID_FROM in failure["message"], bool(failure["where"]))
    assert before == ends.rows()


def test_a_key_without_a_value_is_refused(ends: Ends) -> None:
    """NULL in the key stops the load before anything is visible, in every strategy that works by it."""
    for write in ("scd2", "append"):
        stream = {"write": write, "deduplicate": write == "append"}
        failure = ends.refused([(1, "a", 1, 1), (2, None, 2, 2)], primary_key=["id", "part"], **stream)
        assert "data" == failure["category"]
        assert [] == ends.rows()


# -- delete_insert ---------------------------------------------------------------------------------------------------

PARTS: dict[str, Any] = {"write": "delete_insert", "partition_by": "part"}


def test_partitions_are_replaced_as_a_whole(ends: Ends) -> None:
    """Partitions of the staged rows hold exactly these afterwards, that of NULL too; the others stay as they are."""
    ends.load(
        [(1, "a", 1, 1), (2, "a", 1, 2), (3, "b", 1, 3), (4, None, 1, 4), (5, None, 1, 5), (6, "", 1, 6)], **PARTS
    )
    changes = ends.load([(1, "a", 1, 10), (4, None, 1, 4), (7, "new", 1, 7)], **PARTS)
    assert (3, 4) == (changes["inserted"], changes["deleted"])
    left = [(3, "b", 1, 3), (6, "", 1, 6), (1, "a", 1, 10), (4, None, 1, 4), (7, "new", 1, 7)]
    assert sorted(((k, p, minute(at), v) for k, p, at, v in left), key=repr) == ends.rows()


def test_nothing_staged_deletes_nothing(ends: Ends) -> None:
    """An empty source has no partitions, so none is emptied."""
    ends.load([(1, "a", 1, 1)], **PARTS)
    before = ends.rows()
    changes = ends.load([], **PARTS)
    assert (0, 0) == (changes["inserted"], changes["deleted"])
    assert before == ends.rows()


def test_unchanged_partitions_are_not_written(ends: Ends) -> None:
    """When the partitions hold the same rows already, in any order, nothing is published."""
    ends.load([(1, "a", 1, 1), (2, "a", 1, 2), (3, "b", 1, 3)], **PARTS)
    changes = ends.load([(2, "a", 1, 2), (1, "a", 1, 1)], **PARTS)
    assert (2, 0, 0) == (changes["unchanged"], changes["inserted"], changes["deleted"])


def test_the_same_number_of_other_rows_is_written(ends: Ends) -> None:
    """Equal counts are no proof of equal contents."""
    ends.load([(1, "a", 1, 1), (2, "a", 1, 2)], **PARTS)
    changes = ends.load([(1, "a", 1, 1), (1, "a", 1, 1)], **PARTS)
    assert (2, 2) == (changes["inserted"], changes["deleted"])
    assert [1, 1] == [row[0] for row in ends.rows()]


def test_the_window_of_the_cursor_is_replaced(ends: Ends) -> None:
    """Rows between the lowest and the highest cursor that was read are replaced, both ends included."""
    stream: dict[str, Any] = {"write": "delete_insert", "cursor": _AT}
    ends.load([(1, "a", 1, 1), (2, "a", 2, 2), (3, "a", 3, 3), (4, "a", 9, 4)], **stream)
    ends.reset(**stream)
    changes = ends.load([(20, "a", 2, 2), (30, "a", 4, 3)], **stream)
    assert (2, 2) == (changes["inserted"], changes["deleted"])
    assert [1, 20, 30, 4] == [row[0] for row in ends.rows()]
    # The rows at the checkpoint changed: they alone are read again, and replaced.
    changes = ends.load([(20, "a", 2, 2), (31, "a", 4, 3), (32, "a", 4, 3)], **stream)
    assert (2, 1) == (changes["inserted"], changes["deleted"])
    assert [1, 20, 31, 32, 4] == [row[0] for row in ends.rows()]


def test_an_expression_makes_partitions(ends: Ends) -> None:
    """An expression of the sink over its columns; one that is none is refused before anything is read."""
    stream: dict[str, Any] = {"write": "delete_insert", "partition_by": ["id % 10", "part"]}
    rows: list[Row] = [(1, "a", 1, 1), (11, "a", 1, 2), (11, "b", 1, 3), (2, "a", 1, 4)]
    if ends.kind == "memory":
        assert "DP130" == ends.refused(rows, **stream)["code"]
        return
    ends.load(rows, **stream)
    changes = ends.load([(21, "a", 1, 9)], **stream)
    assert (1, 2) == (changes["inserted"], changes["deleted"])
    assert [(11, "b"), (2, "a"), (21, "a")] == ends.rows("id", "part")
    seen: list[str] = []
    for wrong in ("nothing_of_it + 1", "id +", "count(*)"):
        seen.clear()
        stream["partition_by"] = [wrong]
        record = ends.run(on_event=lambda event: seen.append(event.name), **stream)
        assert record.failure is not None
        assert ("config", "DP163") == (record.failure["category"], record.failure["code"])
        assert "partition_by" in record.failure["where"]
        assert "slice.started" not in seen


# -- append, each key once -------------------------------------------------------------------------------------------


def test_each_key_is_added_once(ends: Ends) -> None:
    """The latest row of a key in a load is added; keys that the target holds are left out, changed or not."""
    stream: dict[str, Any] = {"write": "append", "deduplicate": True, "primary_key": "id"}
    changes = ends.load([(1, "a", 5, 1), (1, "a", 3, 2), (2, "b", 1, 3), (2, "b", 1, 4), (3, "c", 1, 5)], **stream)
    assert (3, 0, 2) == (changes["inserted"], changes["unchanged"], changes["collapsed"])
    assert [2, 4, 5] == [row[3] for row in ends.rows()]  # without a cursor the row that arrived last
    changes = ends.load([(1, "a", 9, 9), (4, "d", 9, 9), (4, "d", 9, 8)], **stream)
    assert (1, 1, 1) == (changes["inserted"], changes["unchanged"], changes["collapsed"])
    assert [2, 4, 5, 8] == [row[3] for row in ends.rows()]


# -- what the plan refuses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "code", "key"),
    [
        ({"write": "replace", "partition_by": "part"}, "DP160", "partition_by"),
        ({"cursor": "at", "partition_by": "part"}, "DP160", "partition_by"),
        ({"write": "merge", "primary_key": "id", "deduplicate": True}, "DP160", "deduplicate"),
        ({"write": "append_snapshot", "primary_key": "id", "deduplicate": True}, "DP160", "deduplicate"),
        ({"write": "delete_insert"}, "DP161", "write"),
        ({"write": "delete_insert", "partition_by": "part", "cursor": _AT}, "DP162", "partition_by"),
        ({"write": "delete_insert", "partition_by": "prat"}, "DP403", "partition_by"),
        ({"write": "scd2"}, "DP131", "write"),
        ({"write": "append", "cursor": "at", "deduplicate": True}, "DP131", "deduplicate"),
    ],
    ids=str,
)
def test_contradictions_are_refused_in_the_plan(tmp_path: Path, stream: dict[str, Any], code: str, key: str) -> None:
    """Settings that the chosen strategy would ignore, or that do not say enough, are refused where they stand."""
    ends = Ends(tmp_path, "memory")
    failure = ends.refused([(1, "a", 1, 1)], **stream)
    assert (code, f"streams.t.{key}") == (failure["code"], failure["where"])
    assert failure["remedy"]


def test_a_false_deduplicate_says_nothing(tmp_path: Path) -> None:
    """`deduplicate: false` may stand anywhere."""
    Ends(tmp_path, "memory").load([(1, "a", 1, 1)], write="replace", deduplicate=False)


def test_columns_of_the_target_alone_would_be_emptied(tmp_path: Path) -> None:
    """Replacing a partition would lose the values of columns that the stream leaves out, so it is refused."""
    ends = Ends(tmp_path, "sqlite")
    ends.load([(1, "a", 1, 1)], **PARTS)
    failure = ends.refused(**PARTS, columns={"exclude": ["v"]})
    assert ("DP406", True) == (failure["code"], "v: " in failure["message"])


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stream", [SCD2, PARTS, {"write": "append", "deduplicate": True, "primary_key": "id"}], ids=lambda s: s["write"]
)
def test_files_cannot(tmp_path: Path, stream: dict[str, Any]) -> None:
    """A sink that declares none of this refuses it in the plan, with an alternative."""
    ends = Ends(tmp_path, "memory")
    ends.put([(1, "a", 1, 1)])
    manifest = ends.manifest(**stream) | {"sink": f"parquet://{tmp_path}/out"}
    [found] = dpone.plan(manifest).streams
    assert found.refusal is not None
    assert ("DP130", True) == (found.refusal.code, bool(found.refusal.remedy))
