"""State that is damaged, half missing, or no longer of its target: healed by itself, or refused until repaired."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import dpone
from dpone.testing.harness import SAMPLE, Harness, Row, sample_rows
from dpone.testing.kit import WRITES, Route, dies_at, values
from dpone.testing.memory.harness import MemoryHarness
from tests.places import SINKS_THAT_MERGE, place

ALL = ["*"]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryHarness]:
    """The source."""
    (tmp_path / "memory").mkdir()
    made = MemoryHarness(tmp_path / "memory")
    yield made
    made.close()


@pytest.fixture(params=SINKS_THAT_MERGE)
def route(request: pytest.FixtureRequest, tmp_path: Path, memory: MemoryHarness) -> Iterator[Route]:
    """From memory to each SQL sink."""
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    sink = place(request.param, tmp_path / "sink")
    yield Route(tmp_path, memory, sink)
    sink.close()


def rows_at(number: int) -> list[Row]:
    """The source after so many rounds: each adds twenty rows, with a later cursor."""
    first = sample_rows(range(1, 101))
    start = max(row[5] for row in first)
    later = sample_rows(range(1000, 1000 + 20 * number))
    return [*first, *((*row[:5], start + timedelta(minutes=n + 1), row[6]) for n, row in enumerate(later))]


def ask(sink: Harness, table: str, *columns: str) -> list[tuple[Any, ...]]:
    """Rows of one of dpone's own tables."""
    return sorted(sink.rows(table, columns), key=repr)


# -- what is half missing --------------------------------------------------------------------------------------------

LAST = "status = 'committed' AND fence = (SELECT max(fence) FROM _dpone_loads WHERE status = 'committed')"


@dataclass(frozen=True)
class Damage:
    """Statements that damage a state with committed loads and an open one, and what must come of it.

    `code` is the error of the next run, empty when it heals by itself. `{stage}` is the staging table.
    """

    name: str
    statements: tuple[str, ...]
    code: str = ""
    note: str = ""
    append: str = "repaired"


COPY_OPEN = (
    "INSERT INTO _dpone_loads (load_id, stream_key, run_id, status, fence, opened_at, document) "
    "SELECT 'ffff' || load_id, stream_key, run_id, status, fence + {by}, opened_at, document FROM _dpone_loads "
    "WHERE status = '{status}' AND fence = (SELECT max(fence) FROM _dpone_loads WHERE status = '{status}')"
)
DAMAGES = [
    Damage("no slices table", ("DROP TABLE _dpone_slices",)),
    Damage("no slice receipts", ("DELETE FROM _dpone_slices",)),
    Damage("slices of no load", ("INSERT INTO _dpone_slices (load_id, slice, rows) VALUES ('nobody', 0, 5)",)),
    Damage("no run records", ("DROP TABLE _dpone_runs",)),
    Damage("no lock rows", ("DELETE FROM _dpone_locks",)),
    Damage("no lock table", ("DROP TABLE _dpone_locks",)),
    Damage("no leases", ("DROP TABLE _dpone_leases",)),
    Damage("no layout row", ("DELETE FROM _dpone_meta",)),
    Damage("no layout table", ("DROP TABLE _dpone_meta",)),
    Damage("an older lock table", ("ALTER TABLE _dpone_locks DROP COLUMN committed",)),
    Damage("no staging table", ("DROP TABLE {stage}",), note="its staging table is gone"),
    Damage("another staging table", ("ALTER TABLE {stage} ADD COLUMN odd integer",), note="other columns now"),
    Damage("staged rows lost", ("DELETE FROM {stage} WHERE id % 3 = 0",), note="they are read again"),
    Damage("all staged rows lost", ("DELETE FROM {stage}",), note="they are read again"),
    Damage(
        "staged rows of no slice", ("UPDATE {stage} SET _dpone_slice = 77 WHERE id % 3 = 0",), note="are read again"
    ),
    Damage("two open loads", (COPY_OPEN.format(by=1, status="open"),), note="its staging table is gone"),
    Damage("an open load nobody can read", ("UPDATE _dpone_loads SET document = '{{' WHERE status = 'open'",), "DP502"),
    Damage(
        "a receipt nobody can read",
        (f"UPDATE _dpone_loads SET document = '{{{{' WHERE {LAST}",),
        "DP502",
        append="refused",
    ),
    Damage(
        "every receipt unreadable",
        ("UPDATE _dpone_loads SET document = 'null' WHERE status = 'committed'",),
        "DP502",
        append="refused",
    ),
    Damage("two last receipts", (COPY_OPEN.format(by=0, status="committed"),), "DP502", append="refused"),
    Damage("no loads table", ("DROP TABLE _dpone_loads",), "DP503", append="refused"),
    Damage("no loads", ("DELETE FROM _dpone_loads",), "DP503", append="refused"),
    Damage(
        "the last receipt is gone",
        (f"DELETE FROM _dpone_loads WHERE {LAST}",),
        "DP503",
        append="refused",
    ),
]


@pytest.mark.parametrize("write", ["append", "merge"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_what_is_half_missing_is_healed_or_refused(route: Route, damage: Damage, write: str) -> None:
    """The next run heals it, or stops with the command that does; then the target is exact, and nothing is left over.

    Where nothing says what an append has already added, the repair refuses too, and names the way out, which works.
    """
    settings = WRITES[write]
    for number in (0, 1):
        route.source.put("t", rows_at(number))
        route.load(**settings)
    route.source.put("t", rows_at(8))
    assert route.run(**settings, options={"on_event": dies_at("slice.staged", slice=0)}).failure is not None
    stage = min(route.sink.debris(), key=len)  # beside the table itself, a sequence of its own
    route.sink.setup([statement.format(stage=stage) for statement in damage.statements])
    route.source.put("t", rows_at(9))

    if damage.code:
        manifest = route.manifest(**settings)
        assert damage.code == route.refusal(**settings)["code"]
        [status] = dpone.status(manifest)
        assert (True, None) == (bool(status.faults), status.failure)
        [shown] = dpone.repair(manifest, dry_run=True)
        [done] = dpone.repair(manifest)
        assert (shown.faults, shown.acts) == (done.faults, done.acts)
        if write == "append" and damage.append == "refused":
            assert ("dpone reset" in done.refusal, done.done) == (True, False)
            assert damage.code == route.refusal(**settings)["code"]
            route.sink.setup(["DELETE FROM t"])
            dpone.reset(manifest, select=ALL)
        else:
            assert ("", True) == (done.refusal, done.done)
            [again] = dpone.repair(manifest)
            assert () == again.faults
    record = route.load(**settings)
    assert damage.note in " ".join(record.notes)
    route.load(**settings)
    route.check_equal(rows_at(9))
    assert 0 == route.load(**settings).changes["inserted"]
    [status] = dpone.status(route.manifest(**settings))
    assert ((), None) == (status.faults, status.pending)


# -- state and target that do not belong together ----------------------------------------------------------------------


def keep(sink: Harness, *tables: str) -> Callable[[], None]:
    """Copy tables, as a backup does; the function puts the copies back."""
    for table in tables:
        sink.setup([f"DROP TABLE IF EXISTS kept_{table}", f"CREATE TABLE kept_{table} AS SELECT * FROM {table}"])

    def restore() -> None:
        for table in tables:
            sink.setup([f"DELETE FROM {table}", f"INSERT INTO {table} SELECT * FROM kept_{table}"])

    return restore


STATE = ("_dpone_loads", "_dpone_locks", "_dpone_slices")


@pytest.mark.parametrize("write", ["append", "merge", "replace"])
@pytest.mark.parametrize("what", ["the target", "the state", "the receipts", "both", "emptied", "dropped"])
def test_what_was_restored_alone_never_loses_or_doubles_a_row(route: Route, write: str, what: str) -> None:
    """Target, state or both from a backup, two loads old, or the target emptied or dropped.

    Both together just go on. Of the others a load that would lose or double rows is refused (DP503); the repair that
    it names makes the next run exact, or says why it cannot, and what to do.
    """
    settings = WRITES[write]
    for number in (0, 1):
        route.source.put("t", rows_at(number))
        route.load(**settings)
    tables = {
        "the target": ("t",),
        "the state": STATE,
        "the receipts": ("_dpone_loads",),
        "both": ("t", *STATE),
    }.get(what, ())
    restore = keep(route.sink, *tables)
    for number in (2, 3):
        route.source.put("t", rows_at(number))
        route.load(**settings)
    restore()
    if what in ("emptied", "dropped"):
        route.sink.setup(["DELETE FROM t" if what == "emptied" else "DROP TABLE t"])
    route.source.put("t", rows_at(4))

    harmless = {"replace": ALL, "merge": ["the state"], "append": []}[write]
    if what in ("both", "dropped") or what in harmless or harmless == ALL:
        route.load(**settings)
        route.check_equal(rows_at(4))
        return
    failure = route.refusal(**settings)
    assert ("DP503", "state") == (failure["code"], failure["category"])
    assert f"dpone repair -s {route.source.stream('t')}" in failure["remedy"]
    manifest = route.manifest(**settings)
    plan = dpone.plan(manifest)
    assert ["DP503"] == [preview.refusal.code for preview in plan.refusals if preview.refusal]
    [done] = dpone.repair(manifest)
    if write == "append" and what in ("the state", "the receipts"):
        assert (False, True) == (done.done, "dpone reset" in done.refusal)
        route.sink.setup(["DELETE FROM t"])
        dpone.reset(manifest, select=ALL)
    else:
        assert (True, "") == (done.done, done.refusal)
        assert ("went back" if what == "the target" else "") in " ".join(done.acts).replace("go back", "went back")
    record = route.load(**settings)
    route.check_equal(rows_at(4))
    if what == "the target":
        assert 60 == record.changes["inserted"]
    assert 0 == route.load(**settings).changes["inserted"]


@pytest.mark.parametrize("write", ["append", "merge"])
def test_a_retention_job_is_only_noted(route: Route, write: str) -> None:
    """Old rows that somebody deletes in the target do not stop the stream, and do not come back."""
    route.source.put("t", rows_at(1))
    route.load(**WRITES[write])
    route.sink.setup(["DELETE FROM t WHERE id < 50"])
    route.source.put("t", rows_at(2))
    record = route.load(**WRITES[write])
    assert ["49 rows were deleted from the target since the last load"] == record.notes
    assert values([row for row in rows_at(2) if row[0] >= 50]) == values(route.sink.rows("t", list(SAMPLE)))
    assert [] == route.load(**WRITES[write]).notes


@pytest.mark.parametrize("write", ["append", "merge"])
def test_a_target_can_be_accepted_as_it_is(route: Route, write: str) -> None:
    """The newest rows were deleted on purpose: refused once; accepted, the checkpoint stays, and they stay away."""
    route.source.put("t", rows_at(1))
    route.load(**WRITES[write])
    route.sink.setup(["DELETE FROM t WHERE id >= 1000"])
    route.source.put("t", rows_at(2))
    assert "DP503" == route.refusal(**WRITES[write])["code"]
    [done] = dpone.repair(route.manifest(**WRITES[write]), accept=True)
    assert (True, "") == (done.done, done.refusal)
    assert 20 == route.load(**WRITES[write]).changes["inserted"]
    expected = [row for row in rows_at(2) if row[0] not in range(1000, 1020)]
    assert values(expected) == values(route.sink.rows("t", list(SAMPLE)))
    route.load(**WRITES[write])


def test_a_target_of_two_pipelines_is_not_judged(route: Route) -> None:
    """Two pipelines that append into one table do not stop each other; the record says what was not compared."""
    append = WRITES["append"]
    route.source.put("t", rows_at(0))
    route.load(**append, pipeline="a")
    route.load(**append, pipeline="b")
    for number in (1, 2):
        route.source.put("t", rows_at(number))
        for pipeline in ("a", "b"):
            record = route.load(**append, pipeline=pipeline)
            assert (20, True) == (record.changes["inserted"], "another pipeline" in " ".join(record.notes))
    assert values([*rows_at(2), *rows_at(2)]) == values(route.sink.rows("t", list(SAMPLE)))


# -- status, repair and reset without help -----------------------------------------------------------------------------


def test_status_and_reset_need_the_sink_alone(route: Route, tmp_path: Path) -> None:
    """With the source out of reach, and with its table gone, the state is shown and can be forgotten."""
    settings = WRITES["merge"]
    route.source.put("t", rows_at(8))
    route.run(**settings, options={"on_event": dies_at("slice.staged", slice=1)})
    manifest = route.manifest(**settings) | {"source": {"connector": "files", "path": str(tmp_path / "nowhere")}}
    manifest["streams"] = {"t": manifest["streams"].popitem()[1]}
    [status] = dpone.status(manifest)
    assert (None, None) == (status.failure, status.receipt)
    assert status.pending is not None
    assert (2, True) == (len(status.pending.progress), len(status.pending.slices) > 2)
    assert ["t"] == dpone.reset(manifest, select=ALL)
    [status] = dpone.status(manifest)
    assert (None, []) == (status.pending, route.sink.debris())
    route.load(**settings)
    route.check_equal(rows_at(8))


def test_status_names_the_holder(route: Route) -> None:
    """While a run is at work, the status says which one it is, of which process, and how long its lease is good."""
    seen: list[Any] = []
    route.source.put("t", rows_at(0))
    manifest = route.manifest(**WRITES["merge"])

    def look(event: Any) -> None:
        if event.name == "load.committing" and not seen:
            seen.extend(dpone.status(manifest))

    record = route.result(**WRITES["merge"], options={"on_event": look})
    [status] = seen
    assert status.failure is None, status.failure
    assert (record.record.run_id, True) == (status.holder.run_id, "pid" in status.holder.name)
    assert route.sink.address is None or 0 < (status.holder.lease or 0) <= 60
    assert () == status.faults
    [status] = dpone.status(manifest)
    assert (None, True) == (status.holder, 0 <= (status.age_s or 0) < 60)


def test_one_damaged_stream_does_not_hide_the_others(route: Route) -> None:
    """The status shows what can be read of each stream; the repair mends the one and leaves the other."""
    route.source.put("t", rows_at(0))
    route.source.put("u", rows_at(0))
    manifest = route.manifest()
    manifest["streams"] = {route.source.stream(name): {"target": name, **WRITES["merge"]} for name in ("t", "u")}
    dpone.run(manifest, store=route.folder / "store").raise_for_status()
    route.sink.setup(["UPDATE _dpone_loads SET document = 'x' WHERE stream_key LIKE '%|t|%'"])
    first, second = dpone.status(manifest)
    assert (["1 receipt cannot be read"], ()) == (list(first.faults), second.faults)
    assert (None, 100) == (first.receipt, second.receipt.rows["final"] if second.receipt else 0)
    assert [True, False] == [found.done for found in dpone.repair(manifest)]
    dpone.run(manifest, store=route.folder / "store").raise_for_status()
    assert [values(rows_at(0))] * 2 == [values(route.sink.rows(name, list(SAMPLE))) for name in ("t", "u")]


def test_orphaned_staging_is_dropped_and_that_of_open_loads_kept(route: Route) -> None:
    """A staging table that no open load names goes; another stream's open load keeps its own."""
    route.source.put("t", rows_at(0))
    route.source.put("u", rows_at(8))
    route.load(**WRITES["merge"])
    other = Route(route.folder, route.source, route.sink, "u")
    other.run(**WRITES["merge"], options={"on_event": dies_at("slice.staged", slice=1)})
    kept = sorted(route.sink.debris())
    route.sink.setup(["CREATE TABLE _dpone_stage_0123456789abcdef (id integer)"])
    [done] = dpone.repair(route.manifest(**WRITES["merge"]))
    assert (True, True) == (done.done, "_dpone_stage_0123456789abcdef" in done.faults[0])
    assert kept == sorted(route.sink.debris())
    assert 2 == other.load(**WRITES["merge"]).slices["resumed"]
    assert [] == route.sink.debris()


# -- layouts -----------------------------------------------------------------------------------------------------------

FIRST = Path(__file__).with_name("layouts")
"""What the first layout was, as each system was told to make it: `1.SYSTEM.sql`."""
EXTRA_1 = {"source", "cursor", "cursor_type", "filter"}  # of a receipt; `high` and `write` came later


def to_layout_1(sink: Harness, system: str) -> None:
    """Put the rows of the present tables into tables of the first layout."""
    tables = {
        "_dpone_locks": ("stream_key", "fence", "run_id", "holder"),
        "_dpone_loads": ("load_id", "stream_key", "run_id", "status", "fence", "opened_at", "document"),
        "_dpone_slices": ("load_id", "slice", "rows"),
        "_dpone_runs": ("run_id", "stream_key", "status", "started_at", "document"),
    }
    rows = {name: sink.rows(name, columns) for name, columns in tables.items()}
    sink.setup([f"DROP TABLE {name}" for name in ("_dpone_meta", "_dpone_leases", *tables)])
    text = (FIRST / f"1.{system}.sql").read_text().partition("\n")[2]
    sink.setup([statement for statement in text.split(";\n") if statement])
    sink.setup(["INSERT INTO _dpone_meta (name, value) VALUES ('layout', '1')"])
    for name, columns in tables.items():
        for row in rows[name]:
            cells = [
                _as_layout_1(cell) if column == "document" else cell for column, cell in zip(columns, row, strict=True)
            ]
            literals = ", ".join("'" + str(cell).replace("'", "''") + "'" for cell in cells)
            sink.setup([f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({literals})"])


def _as_layout_1(text: str) -> str:
    document = json.loads(text)
    document.pop("columns", None)
    if "extra" in document:
        document["extra"] = {name: value for name, value in document["extra"].items() if name in EXTRA_1}
    return json.dumps(document)


@pytest.mark.parametrize("write", ["append", "merge"])
def test_the_first_layout_is_migrated_and_goes_on(route: Route, write: str, request: pytest.FixtureRequest) -> None:
    """A receipt and a half-staged open load of layout 1: read as they are by plan and status, migrated by the next run.

    It continues the open load with its durable slices, and every row is there once.
    """
    system = request.node.callspec.params["route"]
    settings = WRITES[write]
    route.source.put("t", rows_at(0))
    route.load(**settings)
    route.source.put("t", rows_at(8))
    route.run(**settings, options={"on_event": dies_at("slice.staged", slice=0)})
    to_layout_1(route.sink, system)

    manifest = route.manifest(**settings)
    [status] = dpone.status(manifest)
    assert status.receipt is not None
    assert status.pending is not None
    assert (None, 100, 1) == (status.failure, status.receipt.rows["final"], len(status.pending.progress))
    assert () == dpone.plan(manifest).refusals
    assert [("layout", "1")] == ask(route.sink, "_dpone_meta", "name", "value")

    record = route.load(**settings)
    assert (1, 160) == (record.slices["resumed"], record.changes["inserted"])
    assert [("layout", "2")] == ask(route.sink, "_dpone_meta", "name", "value")
    route.check_equal(rows_at(8))
    assert 0 == route.load(**settings).changes["inserted"]
    route.sink.setup(["DELETE FROM _dpone_loads"])  # what layout 2 remembers since
    assert "DP503" == route.refusal(**settings)["code"]


def test_a_newer_layout_is_left_alone(route: Route) -> None:
    """Whatever a newer dpone wrote, also where only its columns tell: no command touches it."""
    route.source.put("t", rows_at(0))
    route.load(**WRITES["merge"])
    manifest = route.manifest(**WRITES["merge"])
    for statements in (
        ["UPDATE _dpone_meta SET value = '3'"],
        ["DELETE FROM _dpone_meta", "ALTER TABLE _dpone_locks ADD COLUMN later integer"],
    ):
        route.sink.setup(statements)
        assert "DP501" == route.refusal(**WRITES["merge"])["code"]
        [status], [repaired] = dpone.status(manifest), dpone.repair(manifest)
        for failure in (status.failure, repaired.failure):
            assert failure is not None
            assert "DP501" == failure["code"]
