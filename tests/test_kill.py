"""kill -9 at any protocol event: readers see all or nothing, the rerun ends exact, nothing is left behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from tests import killable
from tests.systems import Row, rows
from tests.test_routes import SINKS_THAT_MERGE, Make, make, manifest

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
_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["tests.killable"])


def execute(path: Path, deadly: int) -> tuple[int | None, str]:
    """Run in a process of its own; its exit code and what it reported."""
    report = path.with_name("report")
    report.unlink(missing_ok=True)
    process = _fork.Process(target=killable.run, args=(str(path), deadly, str(report)))
    process.start()
    process.join(120)
    return process.exitcode, report.read_text() if report.exists() else ""


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
    path = manifest(tmp_path, source, sink, **settings)
    state: list[Row] = rows(range(1, 181))
    source.write(state)
    code, report = execute(path, 0)
    assert 0 == code
    total = int(report.splitlines()[0])
    before = sink.read()
    assert sorted(state) == before

    number, killed_runs = 1000, 0
    for _ in range(POINTS):
        state = _grown(state, number, sink_name, write, chance)
        number += 200
        source.write(state)
        deadly = chance.randrange(1, total)
        code, report = execute(path, deadly)
        seen = sink.read()
        assert seen in (before, sorted(state)), f"a part was visible after death at event {deadly}"
        if code == 0:
            assert [] == report.splitlines()[1:]
        killed = code == -signal.SIGKILL
        killed_runs += killed
        if killed and chance.random() < 0.5:
            state = _grown(state, number, sink_name, write, chance)
            number += 200
            source.write(state)
        for _attempt in range(2):
            code, report = execute(path, 0)
            assert (0, []) == (code, report.splitlines()[1:])
        before = sink.read()
        assert sorted(state) == before, f"killed at event {deadly} of {total}, seed {SEED}"
        assert [] == sink.debris()
    assert killed_runs > POINTS / 2  # the others finished before the event came, with fewer slices to stage
    assert killed_runs == sum(status == "abandoned" for status in _statuses(tmp_path))


def _grown(state: list[Row], number: int, sink_name: str, write: str, chance: random.Random) -> list[Row]:
    """The source later: new rows with a higher cursor, or sometimes the same; old ones change unless appending."""
    ties = sink_name in SINKS_THAT_MERGE and chance.random() < 0.5
    start = max(row[5] for row in state) + timedelta(seconds=0 if ties else 1)
    fresh = [
        (*row[:5], start + timedelta(seconds=index // 4), row[6])
        for index, row in enumerate(rows(range(number, number + 40)))
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
