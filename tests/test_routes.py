"""Every source to every sink, full and incremental, with every way to write; the second run changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import dpone
from tests.systems import DuckDBSystem, FilesSystem, PostgresSystem, Row, SQLiteSystem, System, rows

SYSTEMS = ("postgres", "duckdb", "sqlite", "csv", "jsonl", "parquet")
SINKS_THAT_MERGE = ("postgres", "duckdb", "sqlite")
MOVED = ("inserted", "updated", "deleted")

Make = Callable[[str, str], System]


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Make:
    """Make a system by its name, for a role."""

    def build(name: str, role: str) -> System:
        if name == "postgres":
            return PostgresSystem(request.getfixturevalue("pg" if role == "source" else "pg2"))
        if name == "duckdb":
            return DuckDBSystem(tmp_path / f"{role}.duckdb")
        if name == "sqlite":
            return SQLiteSystem(tmp_path / f"{role}.sqlite")
        return FilesSystem(tmp_path / role, name)

    return build


def manifest(folder: Path, source: System, sink: System, **stream: object) -> Path:
    """A manifest of one stream; slices are small so that every load has many."""
    settings = {"proof": "digest", "slices": {"rows": 40}} | stream
    path = folder / "dpone.yaml"
    endpoint = (
        {key: value for key, value in sink.endpoint.items() if key != "types"}
        if isinstance(sink.endpoint, dict)
        else sink.endpoint
    )
    document = {
        "version": 1,
        "pipeline": "routes",
        "source": source.endpoint,
        "sink": endpoint,
        "streams": {source.stream: settings},
    }
    path.write_text(json.dumps(document))
    return path


def run(path: Path) -> dict[str, int]:
    """Run, expect success and a proof, and return the changes; counts must say what the ledger says."""
    result = dpone.run(path)
    stream = result.streams[0]
    assert stream.failure is None
    assert stream.proof["verdict"] == "proven"
    assert result.exit_code == 0
    return {**stream.changes, "extracted": stream.rows["extracted"] or 0, "final": stream.rows["final"] or 0}


@pytest.mark.parametrize("sink_name", SYSTEMS)
@pytest.mark.parametrize("source_name", SYSTEMS)
def test_replace(make: Make, tmp_path: Path, source_name: str, sink_name: str) -> None:
    """A full load makes the target equal to the source, row by row; unchanged, the next run publishes nothing."""
    source, sink = make(source_name, "source"), make(sink_name, "sink")
    first, second = rows(range(1, 131)), rows(range(31, 151), version=1)
    path = manifest(tmp_path, source, sink, write="replace")

    source.write(first)
    assert run(path)["final"] == len(first)
    assert sorted(first) == sink.read()
    again = run(path)
    assert [0, 0, 0] == [again[name] for name in MOVED]
    assert len(first) == again["unchanged"]

    source.write(second)
    changed = run(path)
    assert sorted(second) == sink.read()
    assert (len(second), len(first)) == (changed["inserted"], changed["deleted"])
    assert [] == sink.debris()


@pytest.mark.parametrize("sink_name", SINKS_THAT_MERGE)
@pytest.mark.parametrize("source_name", SYSTEMS)
def test_incremental_merge(make: Make, tmp_path: Path, source_name: str, sink_name: str) -> None:
    """A cursor load upserts by key; unchanged, it moves nothing; ties at the checkpoint that changed are seen."""
    source, sink = make(source_name, "source"), make(sink_name, "sink")
    first = rows(range(1, 131))
    newer = [*rows(range(100, 111), version=2, minute=58), *rows(range(200, 221), minute=58)]
    path = manifest(tmp_path, source, sink, write="merge", primary_key="id", cursor="at")

    source.write(first)
    assert run(path)["inserted"] == len(first)
    assert sorted(first) == sink.read()
    again = run(path)
    assert (0, 0, 0, 0) == (*[again[name] for name in MOVED], again["extracted"])

    expected = sorted({row[0]: row for row in [*first, *newer]}.values())
    source.write(expected)
    changed = run(path)
    assert (21, 11) == (changed["inserted"], changed["updated"])
    assert expected == sink.read()

    late_tie = [(*expected[-1][:1], "late", *expected[-1][2:])]
    expected = sorted({row[0]: row for row in [*expected, *late_tie]}.values())
    source.write(expected)
    assert run(path)["updated"] == 1
    assert expected == sink.read()
    assert run(path)["extracted"] == 0
    assert [] == sink.debris()


@pytest.mark.parametrize("sink_name", SYSTEMS)
@pytest.mark.parametrize("source_name", SYSTEMS)
def test_incremental_append(make: Make, tmp_path: Path, source_name: str, sink_name: str) -> None:
    """A cursor load appends each row once; unchanged, it appends nothing."""
    source, sink = make(source_name, "source"), make(sink_name, "sink")
    first, newer = rows(range(1, 131)), rows(range(200, 221), minute=58)
    path = manifest(tmp_path, source, sink, write="append", cursor="at")

    source.write(first)
    assert run(path)["inserted"] == len(first)
    again = run(path)
    assert (0, 0) == (again["inserted"], again["extracted"])
    assert sorted(first) == sink.read()

    everything: list[Row] = sorted([*first, *newer])
    source.write(everything)
    assert run(path)["inserted"] == len(newer)
    assert everything == sink.read()
    assert run(path)["inserted"] == 0
    assert [] == sink.debris()


@pytest.mark.parametrize("sink_name", SINKS_THAT_MERGE)
@pytest.mark.parametrize("source_name", SYSTEMS)
def test_append_sees_late_ties(make: Make, tmp_path: Path, source_name: str, sink_name: str) -> None:
    """Rows that come late with the cursor value of the checkpoint are appended once, the others there not again."""
    source, sink = make(source_name, "source"), make(sink_name, "sink")
    first = rows(range(1, 61))
    last = max(row[5] for row in first)
    twin = (900, "twin", None, True, None, last, 1.5)
    path = manifest(tmp_path, source, sink, write="append", cursor="at")

    source.write(first)
    run(path)
    source.write([*first, twin])
    changed = run(path)
    assert 1 == changed["inserted"]
    assert sorted([*first, twin]) == sink.read()
    assert 0 == run(path)["extracted"]
