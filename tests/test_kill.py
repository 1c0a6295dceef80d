"""kill -9 at any protocol event: readers see all or nothing, the rerun ends exact, nothing is left behind."""

from __future__ import annotations

import json
import os
import random
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from dpone.testing.faults import Outcome, Points, run_child
from dpone.testing.harness import Row, sample_rows
from dpone.testing.kit import values
from tests.places import SINKS_THAT_MERGE, Make, make, manifest, read

__all__ = ["make"]

SEED = int(os.environ.get("DPONE_TEST_SEED", "20261122"))
POINTS = int(os.environ.get("DPONE_TEST_KILL_POINTS", "30"))  # per route, on seven routes
ROUTES = (
    ("postgres", "postgres", "merge"),
    ("postgres", "duckdb", "merge"),
    ("duckdb", "duckdb", "replace"),
    ("sqlite", "sqlite", "merge"),
    ("csv", "postgres", "append"),
    ("postgres", "parquet", "append"),
    ("duckdb", "csv", "replace"),
)
METHODS = tuple(
    f"dpone.connectors.{session}.{method}"
    for session in ("duckdb.session:DuckDBSession", "postgres.session:PostgresSession", "sqlite.session:SqliteSession")
    for method in ("execute", "ingest", "begin", "commit", "digest")
)


@pytest.mark.parametrize(("source_name", "sink_name", "write"), ROUTES)
def test_killed_anywhere(make: Make, tmp_path: Path, source_name: str, sink_name: str, write: str) -> None:
    """Die at a seeded event, half of the time with a source that changes meanwhile; run again; compare row by row.

    Right after the death the target is what it was or what it was to be. After the rerun (and one more, for rows that
    came after the pinned window) target and source are equal, no staging is left, and the dead run is `abandoned`.
    """
    chance = random.Random(f"{SEED} {source_name} {sink_name} {write}")
    source, sink = make(source_name, "source"), make(sink_name, "sink")
    settings: dict[str, object] = {"write": write, "slices": {"rows": 60}}
    if write == "merge":
        settings |= {"primary_key": "id", "cursor": "at"}
    elif write == "append":
        settings |= {"cursor": "at"}
    state: list[Row] = sample_rows(range(1, 181))
    source.put("t", state)
    path = manifest(tmp_path, source, sink, **settings)

    def execute(deadly: int) -> Outcome:
        return run_child(path, die_at=deadly, points=Points(below=tmp_path, methods=METHODS))

    whole = execute(0)
    assert 0 == whole.exit_code
    total = len(whole.points)
    before = read(sink)
    assert values(state) == before

    number, killed_runs, left_running = 1000, 0, 0
    for _ in range(POINTS):
        state = _grown(state, number, sink_name, write, chance)
        number += 200
        source.put("t", state)
        deadly = chance.randrange(1, total)
        outcome = execute(deadly)
        seen = read(sink)
        assert seen in (before, values(state)), f"a part was visible after death at event {deadly}"
        assert outcome.exit_code in (0, -signal.SIGKILL), outcome.failures
        killed = outcome.exit_code != 0
        killed_runs += killed
        running = _statuses(tmp_path).count("running")
        assert running == int(killed) or "run.started" not in outcome.points  # it may die before it has a record
        left_running += running
        if killed and chance.random() < 0.5:
            state = _grown(state, number, sink_name, write, chance)
            number += 200
            source.put("t", state)
        for _attempt in range(2):
            outcome = execute(0)
            assert (0, []) == (outcome.exit_code, outcome.failures)
        before = read(sink)
        assert values(state) == before, f"killed at event {deadly} of {total}, seed {SEED}"
        assert [] == sink.debris()
    assert killed_runs > POINTS / 2  # the others finished before the event came, with fewer slices to stage
    assert left_running == _statuses(tmp_path).count("abandoned")


def _grown(state: list[Row], number: int, sink_name: str, write: str, chance: random.Random) -> list[Row]:
    """The source later: new rows with a higher cursor, or sometimes the same; old ones change unless appending."""
    ties = sink_name in SINKS_THAT_MERGE and chance.random() < 0.5
    start = max(row[5] for row in state) + timedelta(seconds=0 if ties else 1)
    fresh = [
        (*row[:5], start + timedelta(seconds=index // 4), row[6])
        for index, row in enumerate(sample_rows(range(number, number + 40)))
    ]
    if write == "append":
        return [*state, *fresh]
    if write == "replace":
        state = state[-140:]  # rows vanish as well
    changed = {row[0] for row in chance.sample(state, 40)}
    later = [(row[0], "changed", *row[2:5], fresh[-1][5], row[6]) for row in state if row[0] in changed]
    return [*(row for row in state if row[0] not in changed), *later, *fresh]


def _statuses(folder: Path) -> list[str]:
    return [json.loads(path.read_text())["status"] for path in folder.glob(".dpone/runs/*/run.json")]
