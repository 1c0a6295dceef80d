"""One stream of several fails: the others commit, the record says so, and only what failed is done again."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import dpone
from dpone.api import RunResult
from dpone.errors import ConfigError
from dpone.events import Event
from dpone.testing.faults import run_child
from tests.cli.conftest import Call, document, sql
from tests.cli.conftest import dpone as command
from tests.cli.conftest import folder as working_folder

__all__ = ["command", "working_folder"]

NAMES = [f"t{number}" for number in range(5)]


@pytest.fixture
def five(folder: Path) -> Path:
    """Five tables, of which the third cannot be loaded: its target has a column that is too narrow."""
    for number, name in enumerate(NAMES):
        sql("shop.duckdb", f"CREATE TABLE {name} AS SELECT i AS id, 'x' || i AS t FROM range({10 + number}) AS r(i)")
    sql("lake.duckdb", "CREATE TABLE t2 (id SMALLINT, t VARCHAR)")
    streams = {name: {"tags": ["odd" if number % 2 else "even"]} for number, name in enumerate(NAMES)}
    ends = {"source": "duckdb:///shop.duckdb", "sink": "duckdb:///lake.duckdb"}
    (folder / "dpone.yaml").write_text(json.dumps({"version": 1, "pipeline": "five", **ends, "streams": streams}))
    return folder


@pytest.fixture
def folder(working_folder: Path) -> Path:
    """The working directory of the command line's tests."""
    return working_folder


def statuses(result: RunResult) -> dict[str, str]:
    """How each stream ended."""
    return {stream.stream: stream.status for stream in result.streams}


def loaded(name: str) -> list[Any]:
    """The rows of a target."""
    return sorted(sql("lake.duckdb", f"FROM {name}"))


def wanted(name: str) -> list[Any]:
    """The rows of a source."""
    return sorted(sql("shop.duckdb", f"FROM {name}"))


@pytest.mark.usefixtures("five")
def test_four_of_five_commit_and_the_rest_is_done_again(command: Call) -> None:
    """Exit 1 and a record of all five; the last line is the command that redoes the one when it is fixed."""
    ran = command("run")
    assert 1 == ran.exit_code
    assert "fix it, then: dpone run -s result:error" == ran.stdout.splitlines()[-1]
    [record] = dpone.history("dpone.yaml")
    assert {"failed"} == {record["status"], record["streams"][2]["status"]}
    assert [name for name in NAMES if name != "t2"] == [
        stream["stream"] for stream in record["streams"] if stream["status"] == "succeeded"
    ]
    for name in ("t0", "t1", "t3", "t4"):
        assert wanted(name) == loaded(name)
    assert [] == loaded("t2")
    sql("lake.duckdb", "DROP TABLE t2")
    again = document(command("run", "-s", "result:error", "--json"))
    assert ([("t2", "succeeded")], 0) == ([(s["stream"], s["status"]) for s in again["streams"]], again["exit_code"])
    assert wanted("t2") == loaded("t2")
    nothing = command("run", "-s", "result:error")
    assert (3, True) == (nothing.exit_code, "nothing is left to do again" in nothing.stderr)


@pytest.mark.usefixtures("five")
def test_every_command_selects_by_results(command: Call) -> None:
    """plan, check, verify and status know it too, together with other selectors."""
    command("run")
    streams = {
        "plan": document(command("plan", "-s", "result:error", "--json"))["streams"],
        "check": document(command("check", "-s", "result:error,tag:even", "--json"))["streams"],
        "status": document(command("status", "-s", "tag:even", "--exclude", "result:success", "--json"))["streams"],
    }
    assert {name: ["t2"] for name in streams} == {
        name: [stream["stream"] for stream in found] for name, found in streams.items()
    }
    verified = document(command("verify", "-s", "result:success", "--json"))
    assert (4, 0) == (len(verified["streams"]), verified["exit_code"])
    assert 3 == command("run", "-s", "result:error,tag:odd").exit_code


@pytest.mark.usefixtures("five")
def test_no_record_is_a_clear_error(command: Call) -> None:
    """Exit 3, the folder that was looked into, and what to do."""
    ran = command("run", "-s", "result:error")
    assert 3 == ran.exit_code
    assert "[DP122] no run of five is recorded in .dpone/runs" in ran.stderr


def test_from_python_with_a_store_of_its_own(five: Path) -> None:
    """`dpone.run(select=["result:error"], store=...)` looks into that store, and at this pipeline only."""
    first = dpone.run("dpone.yaml", store=five / "history")
    assert ("failed", 1) == (first.record.status, first.exit_code)
    other = json.loads(Path("dpone.yaml").read_text()) | {"pipeline": "other"}
    assert dpone.run(other, select=["t0"], store=five / "history").ok
    assert {"t2": "failed"} == statuses(dpone.run("dpone.yaml", select=["result:error"], store=five / "history"))
    with pytest.raises(ConfigError, match="no run of five is recorded"):
        dpone.run("dpone.yaml", select=["result:error"])


@pytest.mark.usefixtures("five")
def test_fail_fast_is_a_failure_and_what_was_not_started_is_done_again() -> None:
    """The run failed, exit 1; the failed and the cancelled streams are redone, the finished ones are not."""
    first = dpone.run("dpone.yaml", fail_fast=True, threads=1)
    assert ["succeeded", "succeeded", "failed", "cancelled", "cancelled"] == list(statuses(first).values())
    assert ("failed", 1) == (first.record.status, first.exit_code)
    sql("lake.duckdb", "DROP TABLE t2")
    assert ["t2", "t3", "t4"] == list(statuses(dpone.run("dpone.yaml", select=["result:error"])))


@pytest.mark.usefixtures("five")
def test_a_killed_run_is_done_again_without_what_it_had_finished() -> None:
    """The record on disk knew which streams were over; the killed one and those not begun are redone."""
    sql("lake.duckdb", "DROP TABLE t2")
    outcome = run_child("dpone.yaml", listener="tests.test_partial:dies_in_the_fourth")
    assert -signal.SIGKILL == outcome.exit_code
    done = [s["stream"] for s in dpone.history("dpone.yaml")[0]["streams"] if s["status"] == "succeeded"]
    assert {"t0", "t1"} <= set(done) < set(NAMES)
    again = dpone.run("dpone.yaml", select=["result:error"])
    assert again.ok
    assert [name for name in NAMES if name not in done] == list(statuses(again))
    for name in NAMES:
        assert wanted(name) == loaded(name)


def dies_in_the_fourth(event: Event) -> None:
    """Let the second pass that the record is written in at most once, and die."""
    if event.name == "stream.started" and event.stream == "t3":
        time.sleep(1.5)
        os.kill(os.getpid(), signal.SIGKILL)
