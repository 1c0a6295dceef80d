"""Values to text."""

from __future__ import annotations

import io

import pytest

from dpone.cli import render
from dpone.cli.terminal import exit_code, worst, write
from dpone.engine.record import RunRecord, StreamRecord
from dpone.errors import AuthError, Cancelled, ConfigError, ConflictError, DataError, DponeError, SchemaError
from dpone.events import Event

RUN = "0192f3aa-0000-7000-8000-000000000000"


def record(*streams: StreamRecord) -> RunRecord:
    """A run of these streams."""
    made = RunRecord(RUN, "shop", {}, {}, {}, "duckdb:///a", "duckdb:///b", streams=list(streams))
    made.time["duration_s"] = 12.44
    return made


def loaded() -> StreamRecord:
    """A stream that succeeded."""
    return StreamRecord(
        "main.orders",
        "succeeded",
        rows={"extracted": 60_000, "staged": 60_000, "final": 1_204_988, "bytes_extracted": 41_000_000},
        changes={"inserted": 5_000, "updated": 55_000, "unchanged": 0, "deleted": 12},
        proof={"level": "digest", "verdict": "proven"},
        phases={"read_s": 1.0, "commit_s": 0.94},
        retries={"total": 1},
    )


def broken() -> StreamRecord:
    """A stream that failed."""
    failure = {"category": "schema", "code": "DP401", "message": "gone", "where": "", "remedy": "", "retryable": False}
    return StreamRecord("main.x", "failed", failure=failure, phases={"describe_s": 0.1}, proof={"verdict": "unproven"})


def test_run_table() -> None:
    """The end of a run: the run id in the first line, counts with separators, a failure without counts."""
    expected = f"""\
shop: duckdb:///a → duckdb:///b                     run {RUN}  12.4 s
stream         read  staged    ins     upd  same  del      final  proof             time
main.orders  60,000  60,000  5,000  55,000     0   12  1,204,988  proven (digest)  1.9 s
main.x            —       —      —       —     —    —          —  failed: schema   0.1 s"""
    assert expected == render.run_table(record(loaded(), broken()))


def test_a_long_route_has_a_line_of_its_own() -> None:
    """No line is wider than 100 columns for the sake of the run id."""
    made = record(loaded())
    made.source = "postgres://reader@database.example.com:5432/shop"
    lines = render.run_table(made).splitlines()
    assert ["shop: postgres://reader@database.example.com:5432/shop → duckdb:///b", f"run {RUN}  12.4 s"] == lines[:2]


def test_run_totals() -> None:
    """The last line adds up the streams that succeeded and names the record."""
    expected = "2 streams, 1 failed, 60,000 rows, 41.0 MB, 1 retry. Record: run.json"
    assert expected == render.run_totals(record(loaded(), broken()), "run.json")


def test_remarks() -> None:
    """What a reader should know besides the counts: resumed slices, stale rows, drift, notes, a missing proof."""
    stream = loaded()
    stream.slices = {"total": 5, "done": 5, "resumed": 3}
    stream.changes |= {"stale": 2, "collapsed": 1}
    stream.drift = [{"column": "vat", "change": "new at the source (INTEGER)", "decision": "add column"}]
    stream.notes = ["a note"]
    stream.proof = {"level": "digest", "verdict": "unproven", "reason": "x: a nested type"}
    expected = [
        "  main.orders: 3 of 5 slices were durable from an earlier run",
        "  main.orders: 2 rows stale (older than the target's row)",
        "  main.orders: 1 row collapsed (an earlier version of the same key)",
        "  main.orders: column vat: new at the source (INTEGER): add column",
        "  main.orders: a note",
        "  main.orders: not proven: x: a nested type",
    ]
    assert expected == render.run_table(record(stream)).splitlines()[3:]


def test_failure() -> None:
    """Category and code, the stream once, the place, the remedy."""
    error = AuthError("connecting to db:5432/shop: the password is wrong", where="dpone.yaml:4:9", remedy="check it")
    expected = """\
✗ auth [DP200] orders: connecting to db:5432/shop: the password is wrong
  at dpone.yaml:4:9
  fix: check it"""
    assert expected == render.failure(error.as_dict(), "orders")
    assert "orders: orders:" not in render.failure({**error.as_dict(), "message": "orders: gone"}, "orders")


def test_a_failure_has_at_most_eight_lines() -> None:
    """However long the message."""
    error = SchemaError("column a: is gone; " * 500, where="dpone.yaml:4:9", remedy="leave it out; " * 100)
    text = render.failure(error.as_dict(), "orders")
    assert len(text.splitlines()) <= 8
    assert max(map(len, text.splitlines())) <= 102


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (2, ConfigError("wrong key", code="DP101")),
        (3, ConfigError("nothing matched", code="DP120")),
        (3, ConfigError("no merge", code="DP131")),
        (3, SchemaError("no table")),
        (75, ConflictError("held", code="DP701")),
        (3, ConflictError("another plan", code="DP702")),
        (1, ConflictError("moved")),
        (1, AuthError("no")),
        (1, DataError("no")),
        (130, Cancelled("stopped")),
    ],
)
def test_exit_code(code: int, error: DponeError) -> None:
    """Every kind of error has its exit code."""
    assert code == exit_code(error)


def test_the_worst_of_several() -> None:
    """Refusals stay refusals; a system that fails makes it a failure."""
    refused, failed, held = SchemaError("a"), AuthError("b"), ConflictError("c", code="DP701")
    assert 0 == worst([])
    assert 3 == worst([refused, ConfigError("d", code="DP130")])
    assert 1 == worst([refused, failed])
    assert 75 == worst([held, held])


def event(name: str, level: str = "debug", **fields: object) -> Event:
    """An event of a run, or of its stream."""
    return Event(name, level, RUN, "shop", "" if name.startswith("run") else "orders", dict(fields), 0.0)  # type: ignore[arg-type]


def healthy() -> list[Event]:
    """The events of a stream without trouble that continues an open load."""
    finished = {"status": "succeeded", "rows": {"extracted": 9}, "changes": {"inserted": 9, "updated": 0}}
    return [
        event("stream.started", "info"),
        event("stream.planned", write="merge", mode="incremental"),
        event("load.resumed", load_id="a", slices=2),
        *[event("rows.read", rows=n, estimated=9) for n in range(9)],
        event("slice.staged", slice=0, rows=9),
        event("load.committed", load_id="a"),
        event("stream.finished", "info", **finished, proof="proven", failure=None, phases={"read_s": 0.25}),
    ]


def test_event_lines() -> None:
    """A healthy stream has at most three lines, even when it continues an open load."""
    expected = [
        "orders: merge, incremental load",
        "orders: continuing the load that an earlier run left open",
        "orders: 9 read, 9 inserted; proven; 0.2 s",
    ]
    assert expected == [line for item in healthy() if (line := render.event_line(item))]


def test_event_lines_verbose() -> None:
    """With -v every step has a line; progress has none."""
    lines = [line for item in healthy() if (line := render.event_line(item, verbose=True))]
    assert "orders: slice.staged slice=0 rows=9" in lines
    assert not [line for line in lines if "rows.read" in line]


def test_event_lines_of_trouble() -> None:
    """Retries, abandoned runs and dropped loads are said; any other warning is shown as it is."""
    found = {"category": "timeout", "code": "DP330", "message": "no answer"}
    expected = [
        "orders: timeout [DP330] no answer; trying again in 1.5 s",
        "run abc was found unfinished and is recorded as abandoned",
        "orders: the open load of an earlier run is dropped: the plan changed",
        "orders: the sink could not store the record of this run",
        "orders: slice.odd reason=full",
    ]
    events = [
        event("stream.retry", "warning", wait_s=1.5, **found),
        event("run.abandoned", "warning", abandoned_run_id="abc"),
        event("load.aborted", "warning", reason="the plan changed"),
        event("record.not_stored", "warning"),
        event("slice.odd", "warning", reason="full"),
    ]
    assert expected == [render.event_line(item) for item in events]


def test_plain_signs_where_the_terminal_is_not_utf8() -> None:
    """ASCII instead of signs, and an escape for what a name holds, never an encoding error."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
    write(stream, "✗ a → b … — Zürich")
    stream.flush()
    assert b"x a -> b ... - Z\\xfcrich\n" == raw.getvalue()


def test_a_name_that_is_not_unicode_can_be_printed() -> None:
    """A lone surrogate, as file names may hold, is escaped."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")
    write(stream, "a\udc80b ✓")
    stream.flush()
    assert "a\\udc80b ✓\n" == raw.getvalue().decode()
