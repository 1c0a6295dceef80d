"""A holder that stands still loses its lock after its lease, and can do no harm when it wakes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dpone
from dpone.errors import SinkUnavailable
from dpone.events import Event
from dpone.sql import lease
from dpone.testing.faults import Points, run_child, standing_child
from tests.test_run import Shop, ask, failure

COPIED = "SELECT * FROM orders ORDER BY id"
SETTINGS = {"write": "merge", "cursor": "updated_at", "slices": {"rows": 100}}
LENGTH_S = 2.0
COMMIT = Points(network=False, methods=["dpone.connectors.postgres.session:PostgresSession.commit"])
NOTHING = Points(network=False)


def short(_event: Event) -> None:
    """A listener for a child process, in which leases are short from the first event on."""
    lease.LENGTH_S = LENGTH_S


@pytest.fixture(autouse=True)
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of two seconds."""
    monkeypatch.setattr(lease, "LENGTH_S", LENGTH_S)


@pytest.fixture
def shop(tmp_path: Path, pg: str, pg2: str) -> Shop:
    """One thousand orders, Postgres to Postgres."""
    made = Shop(tmp_path, pg, pg2)
    made.sql(
        "CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric(10,2), updated_at timestamp NOT NULL)",
        "INSERT INTO orders SELECT n, 'note ' || n, n / 4.0, timestamp '2024-01-01' + n / 3 * interval '1 minute' "
        "FROM generate_series(1, 1000) AS n",
        "ANALYZE orders",
    )
    return made


def places(shop: Shop, points: Points, name: str) -> list[int]:
    """The numbers of the points of this name in a whole run, on a sink of its own that is emptied afterwards."""
    found = run_child(shop.manifest({"public.orders": SETTINGS}), points=points, listener="tests.test_lease:short")
    assert 0 == found.exit_code, found
    ask(shop.sink, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    return [number for number, point in enumerate(found.points, 1) if point == name]


@pytest.mark.parametrize(
    ("points", "name", "nth"),
    [
        (NOTHING, "stream.claimed", 0),
        (NOTHING, "slice.started", 1),
        (NOTHING, "rows.read", 2),
        (NOTHING, "load.balanced", 0),
        (COMMIT, "before PostgresSession.commit", -2),
        (COMMIT, "after PostgresSession.commit", -2),
    ],
)
def test_a_run_that_stands_still_is_taken_over(shop: Shop, points: Points, name: str, nth: int) -> None:
    """It stops in claim, staging, publication, or on either side of COMMIT; its lease runs out; the next run goes on.

    When it wakes it ends with a conflict, or with the commit that had landed before it stopped. Every row is there
    exactly once.
    """
    at = places(shop, points, name)[nth]
    path = shop.manifest({"public.orders": SETTINGS})
    with standing_child(path, stop_at=at, points=points, listener="tests.test_lease:short") as zombie:
        early = failure(shop.run(SETTINGS))
        assert ("DP701", True) == (early["code"], "pid" in early["message"])
        shop.sql("INSERT INTO orders VALUES (2000, 'new', 1, '2030-01-01')")
        record = shop.run(SETTINGS, wait=30)
        assert record.failure is None, record.failure
        assert "took over" in " ".join(record.notes)
        shop.run(SETTINGS)  # what came after the window of an open load
        assert shop.sql(COPIED) == ask(shop.sink, COPIED)
        woken = zombie.wake()
    if name.startswith("after"):  # only its record could not be stored any more
        assert [] == woken.failures
    else:
        assert ["conflict"] == [found["category"] for found in woken.failures], woken
        assert "taken over" in woken.failures[0]["message"]
    assert shop.sql(COPIED) == ask(shop.sink, COPIED)
    statuses = [status for (status,) in ask(shop.sink, "SELECT status FROM _dpone_runs ORDER BY run_id")]
    assert ["abandoned", "succeeded"] == [status for status in statuses if status != "failed"][:2]
    again = shop.run(SETTINGS)
    assert (None, 0) == (again.failure, again.changes["inserted"])


def test_a_run_that_wakes_while_the_next_one_works_cannot_take_the_lock_back(shop: Shop) -> None:
    """The next run stands in the middle of its load; the one that woke ends with a conflict, and disturbs nothing."""
    at = places(shop, NOTHING, "slice.started")[2]
    path = shop.manifest({"public.orders": SETTINGS})
    with standing_child(path, stop_at=at, listener="tests.test_lease:short") as zombie:
        woken: list[Any] = []

        def wake(event: Event) -> None:
            if event.name == "slice.staged" and not woken:
                woken.append(zombie.wake())

        record = shop.run(SETTINGS, wait=30, on_event=wake)
    assert (None, 1000, 2) == (record.failure, record.rows["final"], record.slices["resumed"])
    assert ["conflict"] == [found["category"] for found in woken[0].failures], woken
    assert shop.sql(COPIED) == ask(shop.sink, COPIED)


def test_slow_work_keeps_its_lease(shop: Shop) -> None:
    """A load that is slower than three leases, in staging and in its commit, is not taken over."""
    refused: list[Any] = []

    def slow(event: Event) -> None:
        if event.name in ("slice.started", "load.balanced") and len(refused) < 2:
            time.sleep(3 * LENGTH_S)
            refused.append(failure(shop.run(SETTINGS))["code"])

    record = shop.run(SETTINGS, on_event=slow)
    assert (None, ["DP701", "DP701"]) == (record.failure, refused)
    assert shop.sql(COPIED) == ask(shop.sink, COPIED)


def test_a_lease_that_cannot_be_renewed_ends_the_run_before_it_commits(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a second connection a long load stops itself; with one again, the next attempt continues its slices."""
    lost = threading.Event()

    def unreachable(*_: object) -> bool:
        lost.set()
        raise SinkUnavailable("no connection left")

    monkeypatch.setattr(lease, "renew", unreachable)
    attempts: list[str] = []

    def slow(event: Event) -> None:
        if event.name == "load.committing":
            attempts.append(event.name)
            if len(attempts) == 1:
                time.sleep(LENGTH_S + 0.5)
        if event.name == "stream.retry":
            attempts.append(event.fields["message"])

    record = shop.run(SETTINGS, on_event=slow)
    assert lost.is_set()
    assert (None, {"conflict": 1}) == (record.failure, record.retries["by_category"])
    assert "could not be renewed" in attempts[1]
    assert record.slices["resumed"] == record.slices["total"]
    assert shop.sql(COPIED) == ask(shop.sink, COPIED)


def test_a_broken_connection_of_the_lease_is_opened_again(shop: Shop) -> None:
    """Ending the session that renews, again and again, does not cost the lease."""
    ended: list[Any] = []

    def cut(event: Event) -> None:
        if event.name == "load.committing":
            deadline = time.monotonic() + 3 * LENGTH_S
            while time.monotonic() < deadline:
                ended.extend(
                    ask(
                        shop.sink,
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dpone' "
                        "AND datname = current_database() AND query LIKE '%until_ms%' AND state = 'idle' "
                        "AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')",
                    )
                )
                time.sleep(LENGTH_S / 2)

    record = shop.run(SETTINGS, on_event=cut)
    assert (None, 0) == (record.failure, record.retries["total"])
    assert len(ended) > 1


def test_a_short_load_needs_one_connection(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection that renews is opened when the first renewal is due, not before."""
    monkeypatch.setattr(lease, "LENGTH_S", 600.0)
    ask(shop.sink, "CREATE ROLE one_only LOGIN CONNECTION LIMIT 1", "GRANT ALL ON SCHEMA public TO one_only")
    try:
        manifest = {
            "version": 1,
            "pipeline": "one",
            "source": shop.source,
            "sink": shop.sink.replace("//", "//one_only@", 1)
            if "@" not in shop.sink
            else as_role(shop.sink, "one_only"),
            "streams": {"public.orders": SETTINGS},
        }
        [stream] = dpone.run(manifest, store=shop.folder / "store").streams
        assert stream.failure is None
    finally:
        ask(shop.sink, "DROP OWNED BY one_only", "DROP ROLE one_only")


def as_role(url: str, role: str) -> str:
    """The URL with another user and no password."""
    return f"postgres://{role}@{url.rpartition('@')[2]}"


@pytest.fixture
def roles(shop: Shop) -> Iterator[tuple[str, str]]:
    """Two roles that may write, and may not end each other's sessions."""
    names = ("first_writer", "second_writer")
    ask(
        shop.sink,
        *(f"CREATE ROLE {name} LOGIN" for name in names),
        *(f"GRANT ALL ON SCHEMA public TO {name}" for name in names),
        *(
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {name} IN SCHEMA public GRANT ALL ON TABLES TO {other}"
            for name, other in (names, names[::-1])
        ),
    )
    yield names
    ask(shop.sink, *(f"DROP OWNED BY {name}" for name in names), *(f"DROP ROLE {name}" for name in names))


def test_without_the_right_to_end_a_session_the_error_says_what_to_run(shop: Shop, roles: tuple[str, str]) -> None:
    """One error names the process, the statement and the GRANT; after the GRANT the next run goes on."""
    paths = []
    for role in roles:
        document = {"version": 1, "pipeline": "shop", "source": shop.source, "sink": as_role(shop.sink, role)}
        paths.append(shop.folder / f"{role}.yaml")
        paths[-1].write_text(json.dumps(document | {"streams": {"public.orders": {"write": "replace"}}}))
    found = run_child(paths[0], listener="tests.test_lease:short")
    assert 0 == found.exit_code, found
    at = 1 + found.points.index("stream.claimed")
    with standing_child(paths[0], stop_at=at, listener="tests.test_lease:short") as zombie:
        time.sleep(LENGTH_S + 0.1)
        [stream] = dpone.run(paths[1]).streams
        error = failure(stream)
        assert ("permission", "DP211") == (error["category"], error["code"]), error
        assert "first_writer" in error["message"]
        [(pid,)] = ask(shop.sink, "SELECT pid FROM pg_stat_activity WHERE usename = 'first_writer'")
        assert f"SELECT pg_terminate_backend({pid});" in error["remedy"]
        assert 'GRANT pg_signal_backend TO "second_writer";' in error["remedy"]
        ask(shop.sink, 'GRANT pg_signal_backend TO "second_writer"')
        [stream] = dpone.run(paths[1]).streams
        assert stream.failure is None, stream.failure
        assert ["conflict"] == [found["category"] for found in zombie.wake().failures]
    assert shop.sql(COPIED) == ask(shop.sink, COPIED)


def test_two_that_find_the_lease_run_out_do_not_end_each_other(shop: Shop) -> None:
    """Several runs wait for a lock whose holder stands still: one takes over, the others are refused or come after."""
    at = places(shop, NOTHING, "slice.started")[1]
    path = shop.manifest({"public.orders": SETTINGS})
    with standing_child(path, stop_at=at, listener="tests.test_lease:short"):
        records: list[Any] = []
        threads = [
            threading.Thread(target=lambda: records.append(dpone.run(path, wait=30).streams[0])) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [None] * 3 == [record.failure for record in records]
    assert 1000 == sum(record.changes["inserted"] for record in records)
    assert [0] * 3 == [record.retries["total"] for record in records]
    assert shop.sql(COPIED) == ask(shop.sink, COPIED)
