"""What runs out ends in one clear error, or in a warning where no data depends on it; the rerun works."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import dpone
from dpone.connectors.postgres.errors import translate
from dpone.connectors.postgres.server import Server
from dpone.engine import retry
from dpone.errors import ConfigError, ResourceError
from dpone.events import Event
from dpone.sql.state import State
from dpone.testing.faults import Proxy, small_disk
from dpone.testing.harness import sample_rows
from dpone.testing.kit import Route, unavailable
from dpone.testing.memory.harness import MemoryHarness
from tests.places import place, read


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are short."""
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.02)


@pytest.fixture
def route(tmp_path: Path) -> Iterator[Route]:
    """From memory into DuckDB."""
    with (
        contextlib.closing(MemoryHarness(tmp_path)) as source,
        contextlib.closing(place("duckdb", tmp_path / "sink")) as sink,
    ):
        source.put("t", sample_rows(range(100)))
        yield Route(tmp_path, source, sink)


def run(route: Route, store: Path) -> tuple[dpone.RunResult, list[Event]]:
    """Run with its records in a folder; the result and the warnings."""
    warnings: list[Event] = []

    def listen(event: Event) -> None:
        if event.level == "warning":
            warnings.append(event)

    return dpone.run(route.manifest(write="replace"), store=store, on_event=listen), warnings


# -- the local records -------------------------------------------------------------------------------------------------


def test_a_full_disk_of_the_local_records_fails_nothing(route: Route) -> None:
    """The data is committed and the run succeeded; that there is no record is said, once, and leaves no rubbish."""
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(64 * 1024))
        except ConfigError as error:
            unavailable(f"{error.message}: {error.remedy}")
        with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(1024)):
                pass
        result, warnings = run(route, disk / "store")
        assert (True, 0, None) == (result.ok, result.exit_code, result.path)
        assert [("record.not_stored", "No space left on device")] == [(w.name, w.fields["reason"]) for w in warnings]
        assert [] == list(disk.rglob("*.tmp"))
        (disk / "ballast").unlink()
        again, warnings = run(route, disk / "store")
        assert (True, []) == (again.ok, warnings)
        assert again.path is not None
    route.check_equal(sample_rows(range(100)))


def test_local_records_that_cannot_be_made_fail_nothing(route: Route, tmp_path: Path) -> None:
    """A file stands where the folder should be, as on a read-only disk."""
    (tmp_path / "file").write_text("")
    result, warnings = run(route, tmp_path / "file" / "store")
    assert (True, 1) == (result.ok, len(warnings))
    route.check_equal(sample_rows(range(100)))


def test_records_that_vanish_during_a_run_fail_nothing(route: Route, tmp_path: Path) -> None:
    """Somebody cleans up: the run ends well, and writes its record anew."""

    def listen(event: Event) -> None:
        if event.name == "load.opened":
            shutil.rmtree(tmp_path / "store")

    result = dpone.run(route.manifest(write="replace"), store=tmp_path / "store", on_event=listen)
    assert result.ok
    assert result.path is not None
    assert "succeeded" == json.loads(result.path.read_text())["status"]


def test_a_sink_that_cannot_store_the_record_has_stored_the_rows(
    route: Route, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the commit the disk is full: the load is there, so the run has not failed; what is missing is said."""

    def full(*_: Any) -> None:
        raise ResourceError("storing the run record: the disk is full", remedy="free space")

    monkeypatch.setattr(State, "run_finished", full)
    result, warnings = run(route, tmp_path / "store")
    assert (True, "proven") == (result.ok, result.streams[0].proof["verdict"])
    assert ["record.not_stored"] == [warning.name for warning in warnings]
    route.check_equal(sample_rows(range(100)))


# -- connections -------------------------------------------------------------------------------------------------------


def limited(postgres: Server, url: str, connections: int) -> str:
    """The URL for a role that may have so many connections."""
    name = f"few_{url.rpartition('/')[2]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT {connections}".encode())
        connection.execute("CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 100) AS r(i)")
        connection.execute(f"GRANT SELECT ON t TO {name}".encode())
    return f"postgres://{name}@{postgres.host}:{postgres.port}/{url.rpartition('/')[2]}"


def one_stream(source: str, sink: str) -> dict[str, Any]:
    """A manifest of the table t."""
    return {"version": 1, "pipeline": "few", "source": source, "sink": sink, "streams": {"public.t": None}}


def test_too_many_connections_of_a_role(postgres: Server, pg: str, tmp_path: Path) -> None:
    """Tried again, then one error with the category resource that points at the connection; a free one is enough."""
    url = limited(postgres, pg, 1)
    manifest = one_stream(url, f"duckdb:///{tmp_path}/lake.duckdb")
    with psycopg.connect(url):
        [stream] = dpone.run(manifest, store=tmp_path / "store").streams
        failure = stream.failure
        assert failure is not None
        assert ("resource", 4, {"resource": 4}) == (
            failure["category"],
            stream.retries["total"],
            stream.retries["by_category"],
        )
        assert "too many connections" in failure["message"]
        assert "source" == failure["where"]
        assert failure["remedy"]
    assert dpone.run(manifest, store=tmp_path / "store").ok


def test_a_connection_that_is_free_again_is_taken(postgres: Server, pg: str, tmp_path: Path) -> None:
    """The first attempt finds none, a later one does: the run succeeds with its retries counted."""
    url = limited(postgres, pg, 1)
    with psycopg.connect(url) as other:

        def listen(event: Event) -> None:
            if event.name == "stream.retry":
                other.close()

        result = dpone.run(
            one_stream(url, f"duckdb:///{tmp_path}/lake.duckdb"), store=tmp_path / "store", on_event=listen
        )
    assert result.ok
    assert 1 <= result.streams[0].retries["by_category"]["resource"]


def test_a_wrong_login_points_at_the_connection(postgres: Server, pg: str, tmp_path: Path) -> None:
    """Not at the stream: the line to correct is the source's, or the sink's."""
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int)")
    wrong = f"postgres://nobody_here@{postgres.host}:{postgres.port}/{pg.rpartition('/')[2]}"
    path = tmp_path / "dpone.yaml"
    for line, source, sink in ((3, wrong, "duckdb:///lake.duckdb?create_schema=true"), (4, pg, wrong)):
        path.write_text(
            f"version: 1\npipeline: p\nsource: {source}\nsink: {sink}\nstreams:\n  public.t: {{target: public.other}}\n"
        )
        failure = dpone.run(path).streams[0].failure
        assert failure is not None
        assert "auth" == failure["category"]
        assert failure["where"].startswith(f"{path}:{line}:"), failure["where"]


@pytest.mark.parametrize(
    ("sqlstate", "category", "retryable"),
    [
        ("08006", "source_unavailable", True),
        ("57P01", "source_unavailable", True),
        ("53300", "resource", True),
        ("53100", "resource", False),
        ("53400", "resource", False),
        ("40001", "conflict", True),
        ("40P01", "conflict", True),
        ("55P03", "conflict", True),
        ("55006", "conflict", True),
        ("55000", "conflict", False),
        ("57014", "timeout", False),
        ("25P04", "timeout", False),
        ("57P04", "config", False),
        ("28P01", "auth", False),
        ("42501", "permission", False),
        ("42703", "schema", False),
        ("22003", "data", False),
    ],
)
def test_what_an_sqlstate_means(sqlstate: str, category: str, *, retryable: bool) -> None:
    """The category, and whether it may pass by itself."""
    error = psycopg.Error()
    error.sqlstate = sqlstate
    found = translate(error, "doing", "source")
    assert (category, retryable) == (found.category, found.retryable)


# -- resuming ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["source", "sink"])
def test_every_cut_costs_only_the_slice_in_flight(tmp_path: Path, side: str) -> None:
    """Cut after every second slice: the bytes of the rows pass hardly more than once, though the link never holds."""
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(contextlib.closing(place("postgres", tmp_path / "source")))
        sink = stack.enter_context(contextlib.closing(place("postgres", tmp_path / "sink")))
        source.put("t", sample_rows(range(1, 4001)))
        end = source if side == "source" else sink
        assert end.address is not None
        proxy = stack.enter_context(Proxy(end.address))
        route = Route(tmp_path, source, sink)
        manifest: dict[str, Any] = route.manifest(write="replace", proof="counts", slices={"rows": 400})
        manifest |= {side: end.endpoint(side, address=proxy.address), "retries": {"attempts": 2}}  # type: ignore[arg-type]
        staged: list[int] = []
        rows: list[int] = []

        def listen(event: Event) -> None:
            if event.name == "slice.staged":
                staged.append(event.fields["slice"])
                rows.append(event.fields["rows"])
                if len(staged) % 2 == 0:
                    proxy.cut_after(0, "up")

        [stream] = dpone.run(manifest, store=tmp_path / "store", on_event=listen).streams
        assert stream.failure is None, stream.failure
        assert stream.retries["total"] == proxy.cuts >= 3
        assert sorted(set(staged)) == staged == list(range(stream.slices["total"]))
        assert 4000 == sum(rows)
        assert read(source) == read(sink)
