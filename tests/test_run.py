"""What a run promises, one promise a test: resuming, locking, the ledger, the plan, the record."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import dpone
from dpone.api import RunResult
from dpone.connectors.duckdb.session import DuckDBSession
from dpone.engine.record import StreamRecord
from dpone.errors import ConfigError, ConflictError
from dpone.events import Event


class Shop:
    """A Postgres source and a sink, with a manifest to run."""

    def __init__(self, folder: Path, source: str, sink: str) -> None:
        self.folder, self.source, self.sink = folder, source, sink

    def sql(self, *statements: str) -> list[Any]:
        """Run statements at the source; the rows of the last."""
        return ask(self.source, *statements)

    def manifest(self, streams: dict[str, Any], pipeline: str = "shop") -> Path:
        """Write the manifest; the default stream is public.orders."""
        path = self.folder / f"{pipeline}.yaml"
        document = {"version": 1, "pipeline": pipeline, "source": self.source, "sink": self.sink}
        path.write_text(json.dumps(document | {"streams": streams}))
        return path

    def run(self, settings: dict[str, Any] | None = None, **options: Any) -> StreamRecord:
        """Run public.orders with these settings."""
        return self.result(settings, **options).streams[0]

    def result(self, settings: dict[str, Any] | None = None, **options: Any) -> RunResult:
        """The same, whole."""
        return dpone.run(self.manifest({"public.orders": settings or {}}), **options)


def ask(url: str, *statements: str) -> list[Any]:
    """Run statements in one transaction; the rows of the last one, if it gives rows."""
    with psycopg.connect(url) as connection:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


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


MERGE = {"write": "merge", "cursor": "updated_at"}


def dies_at(name: str, **fields: Any) -> Any:
    """A listener that raises when an event with these fields comes: a death that the engine does not expect."""

    def listen(event: Event) -> None:
        if event.name == name and fields.items() <= event.fields.items():
            raise RuntimeError(name)

    return listen


def failure(record: StreamRecord) -> dict[str, Any]:
    """The failure of a stream that must have failed."""
    assert record.failure is not None
    return record.failure


# -- resuming --------------------------------------------------------------------------------------------------------


def test_a_rerun_continues_from_the_durable_slices(shop: Shop) -> None:
    """Slices staged before a death are not read again; the target is equal to the source."""
    settings = MERGE | {"slices": {"rows": 100}}
    total = shop.run(settings, on_event=dies_at("slice.started", slice=2)).slices["total"]
    assert total > 3
    again = shop.run(settings)
    assert {"total": total, "done": total, "resumed": 2} == again.slices
    assert (1000, 1000) == (again.rows["extracted"], again.changes["inserted"])
    query = "SELECT * FROM orders ORDER BY id"
    assert shop.sql(query) == ask(shop.sink, query)


def test_durable_slices_that_changed_are_staged_again(shop: Shop) -> None:
    """A row that changed at the source after its slice was staged is read again; no slice is merely trusted."""
    settings = {"write": "replace", "slices": {"rows": 100}, "proof": "digest"}
    shop.run(settings, on_event=dies_at("load.committing"))
    shop.sql("UPDATE orders SET note = 'changed' WHERE id = 1")
    again = shop.run(settings)
    assert 0 < again.slices["resumed"] < again.slices["total"]
    assert "proven" == again.proof["verdict"]
    query = "SELECT * FROM orders ORDER BY id"
    assert shop.sql(query) == ask(shop.sink, query)


def test_a_changed_plan_aborts_the_open_load_and_says_so(shop: Shop) -> None:
    """When the manifest changed since the open load was begun, its staging is dropped and the record says it."""
    shop.run(MERGE | {"slices": {"rows": 100}}, on_event=dies_at("slice.started", slice=2))
    again = shop.run(MERGE | {"slices": {"rows": 100}, "columns": {"exclude": ["note"]}})
    assert 0 == again.slices["resumed"]
    assert "the plan changed" in again.notes[0]
    assert [("aborted",), ("committed",)] == ask(shop.sink, "SELECT status FROM _dpone_loads ORDER BY opened_at")
    assert [] == ask(shop.sink, "SELECT relname FROM pg_class WHERE relname LIKE '\\_dpone\\_stage%'")


def test_the_source_grows_after_a_death_at_the_commit_boundary(shop: Shop) -> None:
    """A death right after COMMIT, then new rows at the source: the next run moves exactly the new rows."""
    died = shop.run(MERGE, on_event=dies_at("load.committed"))
    assert "failed" == died.status
    shop.sql("INSERT INTO orders VALUES (2000, 'new', 1, '2030-01-01')")
    again = shop.run(MERGE)
    assert (1, 1001) == (again.changes["inserted"], again.rows["final"])


def test_no_local_state_is_needed(shop: Shop, tmp_path: Path) -> None:
    """With every local file lost, the next run still moves only what is new."""
    shop.run(MERGE)
    for path in sorted((tmp_path / ".dpone").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert 0 == shop.run(MERGE).rows["extracted"]
    shop.sql("INSERT INTO orders VALUES (2000, 'new', 1, '2030-01-01')")
    assert 1 == shop.run(MERGE).rows["extracted"]


# -- one writer ------------------------------------------------------------------------------------------------------


@contextmanager
def running(shop: Shop, settings: dict[str, Any]) -> Iterator[threading.Event]:
    """A run that stands still after its first slice until the event is set."""
    reached, go = threading.Event(), threading.Event()

    def listen(event: Event) -> None:
        if event.name == "slice.staged" and event.fields["slice"] == 0:
            reached.set()
            assert go.wait(30)

    path = shop.manifest({"public.orders": settings})
    thread = threading.Thread(target=dpone.run, args=(path,), kwargs={"on_event": listen})
    thread.start()
    try:
        assert reached.wait(30)
        yield go
    finally:
        go.set()
        thread.join(30)


def test_a_second_run_is_refused_with_the_holder_named(shop: Shop) -> None:
    """While a run holds the stream, another one is refused, names the holder, and changes nothing."""
    with running(shop, MERGE) as go:
        result = shop.result(MERGE)
        found = failure(result.streams[0])
        assert ("conflict", "DP701", 75) == (found["category"], found["code"], result.exit_code)
        assert "pid" in found["message"]
        go.set()
    assert 0 == shop.run(MERGE).rows["extracted"]


def test_a_second_run_waits_when_asked(shop: Shop) -> None:
    """With `wait`, the second run starts when the first one ends, and finds nothing left to do."""
    with running(shop, MERGE) as go:
        threading.Timer(0.5, go.set).start()
        waited = shop.run(MERGE, wait=20)
    assert ("succeeded", 0) == (waited.status, waited.rows["extracted"])


def test_two_pipelines_do_not_share_progress(shop: Shop) -> None:
    """Two pipelines that read one source into one sink schema each have their own state and target."""
    first = shop.manifest({"public.orders": MERGE | {"target": "orders_a"}}, "a")
    second = shop.manifest({"public.orders": MERGE | {"target": "orders_b"}}, "b")
    assert 1000 == dpone.run(first).streams[0].changes["inserted"]
    assert 1000 == dpone.run(second).streams[0].changes["inserted"]
    shop.sql("INSERT INTO orders VALUES (2000, 'new', 1, '2030-01-01')")
    assert 1 == dpone.run(first).streams[0].rows["extracted"]
    assert 1 == dpone.run(second).streams[0].rows["extracted"]
    dpone.reset(first, select=["public.orders"])
    assert 0 == dpone.run(second).streams[0].rows["extracted"]


def test_a_run_that_lost_its_lock_cannot_commit(shop: Shop) -> None:
    """A zombie whose fencing token was overtaken fails at its next transaction; nothing of it becomes visible."""

    def overtake(event: Event) -> None:
        if event.name == "load.committing":
            ask(shop.sink, "UPDATE _dpone_locks SET fence = fence + 1, run_id = 'other', holder = 'elsewhere'")

    found = failure(shop.run(MERGE, on_event=overtake))
    assert "conflict" == found["category"]
    assert [(0,)] == ask(shop.sink, "SELECT count(*) FROM pg_class WHERE relname = 'orders'")


# -- the ledger ------------------------------------------------------------------------------------------------------


def to_duckdb(shop: Shop) -> None:
    """Let the shop write to DuckDB, whose session runs in this process."""
    shop.sink = f"duckdb:///{shop.folder}/lake.duckdb"


@pytest.mark.parametrize("fault", ["drop", "duplicate", "alter"])
def test_one_wrong_row_stops_the_commit(shop: Shop, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """One row dropped, doubled or altered between source and sink: the run fails and nothing is visible."""
    to_duckdb(shop)
    original = DuckDBSession.ingest

    def faulty(self: DuckDBSession, table: Any, columns: Any, batches: Any, ordinal: int) -> int:
        taken = original(self, table, columns, batches, ordinal)
        name = self.dialect.table(table)
        if fault == "drop":
            self.execute(f"DELETE FROM {name} WHERE id = 500")
        elif fault == "duplicate":
            self.execute(f"INSERT INTO {name} SELECT * FROM {name} WHERE id = 500")
        else:
            self.execute(f"UPDATE {name} SET note = 'x' WHERE id = 500")
        return taken

    monkeypatch.setattr(DuckDBSession, "ingest", faulty)
    found = failure(shop.run({"write": "replace", "proof": "digest"}))
    assert ("internal", "DP902" if fault == "alter" else "DP901") == (found["category"], found["code"])
    monkeypatch.undo()
    assert 1000 == shop.run({"write": "replace", "proof": "digest"}).changes["inserted"]


def test_counts_equal_the_truth(shop: Shop) -> None:
    """Inserted, updated, unchanged, stale and collapsed are what SQL counts, over several batches and slices."""
    settings = MERGE | {"primary_key": "id", "slices": {"rows": 100}, "proof": "digest"}
    shop.sql("ALTER TABLE orders DROP CONSTRAINT orders_pkey")
    shop.run(settings)
    ask(shop.sink, "UPDATE orders SET updated_at = '2040-01-01' WHERE id = 7")  # newer than anything to come
    shop.sql(
        "INSERT INTO orders SELECT id, 'new version', total, '2030-01-01' FROM orders WHERE id <= 10",
        "INSERT INTO orders SELECT id, 'newest version', total, '2030-01-02' FROM orders WHERE id <= 4 "
        "AND note LIKE 'note%'",
        "INSERT INTO orders SELECT n, 'added', 0, '2030-01-01' FROM generate_series(5001, 5003) AS n",
    )
    record = shop.run(settings)
    expected = {"inserted": 3, "updated": 9, "unchanged": 0, "stale": 1, "collapsed": 4}
    assert expected | dict.fromkeys(("deleted", "soft_deleted", "reactivated"), 0) == record.changes
    assert (17, 17, 1003) == (record.rows["extracted"], record.rows["staged"], record.rows["final"])
    assert "proven" == record.proof["verdict"]
    newest = "SELECT note FROM orders WHERE id = 3 ORDER BY updated_at DESC LIMIT 1"
    assert [("newest version",)] == ask(shop.sink, newest)
    assert [(7, "note 7")] == ask(shop.sink, "SELECT id, note FROM orders WHERE updated_at = '2040-01-01'")


def test_an_empty_source_does_not_empty_the_target(shop: Shop) -> None:
    """Replacing by nothing is refused unless the manifest allows it; an empty target stays empty without a word."""
    shop.run({"write": "replace"})
    shop.sql("DELETE FROM orders")
    found = failure(shop.run({"write": "replace"}))
    assert ("DP412", "if that is meant, set allow_empty: true on the stream") == (found["code"], found["remedy"])
    assert [(1000,)] == ask(shop.sink, "SELECT count(*) FROM orders")
    assert 1000 == shop.run({"write": "replace", "allow_empty": True}).changes["deleted"]
    assert shop.run({"write": "replace"}).status == "succeeded"


def test_null_cursors_are_refused_or_loaded(shop: Shop) -> None:
    """Rows without a cursor value stop the load by default; with nulls: load they are loaded and kept current."""
    shop.sql("ALTER TABLE orders ALTER updated_at DROP NOT NULL", "UPDATE orders SET updated_at = NULL WHERE id <= 5")
    assert "DP411" == failure(shop.run(MERGE))["code"]
    settings = {"write": "merge", "cursor": {"column": "updated_at", "nulls": "load"}}
    assert 1000 == shop.run(settings).changes["inserted"]
    again = shop.run(settings)
    assert (0, 0, 0, 0) == tuple(  # the server says that they were not written again
        {**again.rows, **again.changes}[name] for name in ("extracted", "unchanged", "inserted", "updated")
    )
    shop.sql("UPDATE orders SET note = 'moved' WHERE id = 2")
    assert 1 == shop.run(settings).changes["updated"]


def test_null_keys_are_refused(shop: Shop) -> None:
    """A merge whose key is NULL in a row fails by name; nothing is written."""
    shop.sql("ALTER TABLE orders ADD COLUMN code text")
    found = failure(shop.run({"write": "merge", "primary_key": "code"}))
    assert ("data", "DP413") == (found["category"], found["code"])


# -- the plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "code", "remedy"),
    [
        ({"write": "append"}, "DP132", "append_snapshot"),
        ({"write": "replace", "cursor": "updated_at"}, "DP133", "merge"),
        ({"write": "append_snapshot", "cursor": "updated_at"}, "DP133", "drop the cursor"),
        ({"write": "append", "cursor": {"column": "updated_at", "nulls": "load"}}, "DP134", "nulls: refuse"),
        ({"cursor": "update_at"}, "DP403", "did you mean updated_at?"),
        ({"columns": {"exclude": ["id"]}, "write": "merge"}, "DP131", "primary_key"),
        ({"columns": {"cast": {"totl": "text"}}}, "DP403", "did you mean total?"),
    ],
)
def test_refused_in_the_plan(shop: Shop, settings: dict[str, Any], code: str, remedy: str) -> None:
    """What a route cannot do is refused with the position and the alternative; the sink is not touched."""
    path = shop.manifest({"public.orders": settings})
    [preview] = dpone.plan(path).refusals
    assert preview.refusal is not None
    assert code == preview.refusal.code
    assert remedy in preview.refusal.remedy
    assert "shop.yaml:1:" in preview.refusal.where
    assert 3 == dpone.run(path).exit_code
    assert [] == ask(shop.sink, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")


def test_two_streams_with_one_target_are_refused(shop: Shop) -> None:
    """Tables of the same name in two schemas would overwrite each other; the manifest is refused."""
    shop.sql("CREATE SCHEMA other", "CREATE TABLE other.orders AS SELECT 1 AS id")
    path = shop.manifest({"public.orders": {}, "other.orders": {}})
    with pytest.raises(ConfigError, match="would both write") as caught:
        dpone.run(path)
    assert "DP135" == caught.value.code
    assert dpone.run(shop.manifest({"public.orders": {}, "other.orders": {"target": "other_orders"}})).ok


def test_a_cast_says_what_it_does_to_the_values(shop: Shop) -> None:
    """A cast to text is widened, one to a float lossy and acknowledged by being written, one that rounds fails."""
    casts = {"total": "float64", "id": "text", "note": "text"}
    path = shop.manifest({"public.orders": {"write": "replace", "columns": {"cast": casts}}})
    [stream] = dpone.plan(path).as_dict()["streams"]
    found = {column["name"]: column["fidelity"] for column in stream["columns"]}
    assert {"id": "widened", "note": "widened", "total": "lossy", "updated_at": "exact"} == found
    assert dpone.run(path).ok
    rounding = shop.run({"write": "replace", "target": "t2", "columns": {"cast": {"total": "int64"}}})
    assert "data" == failure(rounding)["category"]


def test_merge_without_a_key_is_refused(shop: Shop) -> None:
    """A table without a primary key cannot be merged unless the manifest names a key."""
    shop.sql("ALTER TABLE orders DROP CONSTRAINT orders_pkey")
    assert "DP131" == failure(shop.run({"write": "merge"}))["code"]
    assert "succeeded" == shop.run({"write": "merge", "primary_key": "id"}).status


def test_the_plan_is_deterministic_and_its_digest_guards_the_run(shop: Shop) -> None:
    """Two plans are equal; new rows do not change the digest; a new column or a commit does, and the run is refused."""
    path = shop.manifest({"public.orders": MERGE})
    digest = dpone.plan(path).digest
    assert digest == dpone.plan(path).digest
    first, second = (dpone.plan(path).as_dict() for _ in range(2))
    for found in (first["streams"][0], second["streams"][0]):  # the server's transactions go on in between
        del found["window"]["seen"], found["read"]
    assert first == second
    shop.sql("INSERT INTO orders VALUES (2000, 'new', 1, '2030-01-01')")
    assert dpone.run(path, plan_digest=digest).ok
    with pytest.raises(ConflictError, match="the plan is now"):
        dpone.run(path, plan_digest=digest)
    digest = dpone.plan(path).digest
    shop.sql("ALTER TABLE orders ADD COLUMN extra int")
    with pytest.raises(ConflictError):
        dpone.run(path, plan_digest=digest)


def test_a_new_column_is_added_and_a_lost_one_is_refused(shop: Shop) -> None:
    """A column that is new at the source is added to the target; one that vanished stops the run until excluded."""
    shop.run(MERGE)
    shop.sql(
        "ALTER TABLE orders ADD COLUMN extra int DEFAULT 5", "UPDATE orders SET updated_at = '2030-01-01' WHERE id = 1"
    )
    record = shop.run(MERGE)
    assert ["add column"] == [drift["decision"] for drift in record.drift]
    assert [(5,)] == ask(shop.sink, "SELECT extra FROM orders WHERE id = 1")
    shop.sql("ALTER TABLE orders DROP COLUMN note")
    found = failure(shop.run(MERGE))
    assert ("schema", "DP406") == (found["category"], found["code"])
    assert "note" in found["message"]
    assert "succeeded" == shop.run(MERGE | {"columns": {"exclude": ["note"]}}).status
    assert [("note 1",)] == ask(shop.sink, "SELECT note FROM orders WHERE id = 1")


def test_an_existing_target_that_is_too_narrow_is_refused(shop: Shop) -> None:
    """A target column that cannot hold the source's values is refused by name, a wider one is kept."""
    ask(
        shop.sink,
        "CREATE TABLE orders (id bigint PRIMARY KEY, note varchar(3), total numeric(10,2), updated_at timestamp)",
    )
    assert "note" in failure(shop.run(MERGE))["message"]
    ask(shop.sink, "ALTER TABLE orders ALTER note TYPE text")
    record = shop.run(MERGE)
    assert 1000 == record.changes["inserted"]
    assert ["keep"] == [drift["decision"] for drift in record.drift]


# -- what must not be lost by surprise ------------------------------------------------------------------------------


def test_a_table_is_not_written_onto_itself(shop: Shop) -> None:
    """A stream whose target is its own source is refused: a filter would delete rows of the source."""
    shop.sink = shop.source
    assert "DP137" == failure(shop.run({"filter": "id < 10"}))["code"]
    assert [(1000,)] == shop.sql("SELECT count(*) FROM orders")


def test_replace_is_refused_where_a_foreign_key_cascades(shop: Shop) -> None:
    """Deleting and inserting the rows of a table that others reference with ON DELETE CASCADE would empty those."""
    shop.run({"write": "replace"})
    ask(
        shop.sink,
        "ALTER TABLE orders ADD PRIMARY KEY (id)",
        "CREATE TABLE invoices (order_id int REFERENCES orders ON DELETE CASCADE)",
        "INSERT INTO invoices SELECT id FROM orders",
    )
    shop.sql("INSERT INTO orders VALUES (2000, 'new', 1, '2030-01-01')")
    found = failure(shop.run({"write": "replace"}))
    assert "DP408" == found["code"]
    assert "invoices" in found["message"]
    assert [(1000,)] == ask(shop.sink, "SELECT count(*) FROM invoices")


def test_a_cursor_that_would_change_its_order_is_refused(shop: Shop) -> None:
    """A numeric without precision travels to DuckDB as text, where 9 is after 10: it cannot be the cursor there."""
    shop.sql("ALTER TABLE orders ADD COLUMN version numeric NOT NULL DEFAULT 9")
    assert "succeeded" == shop.run({"write": "merge", "cursor": "version"}).status
    to_duckdb(shop)
    assert "DP404" == failure(shop.run({"write": "merge", "cursor": "version"}))["code"]
    cast = {"columns": {"cast": {"id": "text"}}, "cursor": "id"}
    assert "DP404" == failure(shop.run(cast))["code"]


def test_a_dropped_target_is_loaded_from_the_beginning(shop: Shop) -> None:
    """When the target is gone the checkpoint is not used, and the record says so."""
    shop.run(MERGE)
    ask(shop.sink, "DROP TABLE orders")
    shop.sql("INSERT INTO orders VALUES (2000, 'new', 1, '2030-01-01')")
    record = shop.run(MERGE)
    assert 1001 == record.changes["inserted"]
    assert "is gone" in " ".join(record.notes)


@pytest.mark.parametrize("changed", [{"cursor": "id"}, {"filter": "id > 5"}])
def test_a_checkpoint_is_not_used_for_another_cursor_or_filter(shop: Shop, changed: dict[str, Any]) -> None:
    """A changed cursor or filter makes the old position meaningless; reset starts again and nothing is lost."""
    shop.run(MERGE | {"filter": "id > 100"})
    settings = MERGE | {"filter": "id > 100"} | changed
    assert "DP136" == failure(shop.run(settings))["code"]
    dpone.reset(shop.manifest({"public.orders": settings}), select=["public.orders"])
    assert "succeeded" == shop.run(settings).status
    [(expected,)] = shop.sql(f"SELECT count(*) FROM orders WHERE {settings['filter']}")
    assert [(expected,)] == ask(shop.sink, "SELECT count(*) FROM orders")


@pytest.mark.parametrize("status", ["open", "committed"])
def test_damaged_state_is_refused_until_it_is_reset(shop: Shop, status: str) -> None:
    """A damaged receipt or open load stops the run and names the way out; reset works, and drops the staging."""
    settings = MERGE | {"slices": {"rows": 100}}
    shop.run(settings)
    shop.sql("UPDATE orders SET updated_at = '2030-01-01'")
    shop.run(settings, on_event=dies_at("load.committing"))
    ask(shop.sink, f"UPDATE _dpone_loads SET document = left(document, 20) WHERE status = '{status}'")
    found = failure(shop.run(settings))
    assert ("state", "DP502") == (found["category"], found["code"])
    assert "dpone reset" in found["remedy"]
    dpone.reset(shop.manifest({"public.orders": settings}), select=["public.orders"])
    assert [] == ask(shop.sink, "SELECT relname FROM pg_class WHERE relname LIKE '\\_dpone\\_stage%'")
    record = shop.run(settings)
    assert (0, 1000) == (record.changes["inserted"], record.changes["updated"]), record


def test_state_of_a_newer_version_is_refused(shop: Shop) -> None:
    """Tables that a newer dpone wrote are not touched."""
    shop.run(MERGE)
    ask(shop.sink, "UPDATE _dpone_meta SET value = '99' WHERE name = 'layout'")
    found = failure(shop.run(MERGE))
    assert ("state", "DP501") == (found["category"], found["code"])


def test_the_last_receipt_does_not_depend_on_clocks(shop: Shop) -> None:
    """A receipt written with a clock in the future is not taken for the last one for ever."""
    append = {"write": "append", "cursor": "updated_at"}
    shop.run(append)
    ask(shop.sink, "UPDATE _dpone_loads SET opened_at = '2999-01-01'")
    shop.sql("INSERT INTO orders VALUES (2000, 'new', 1, '2030-01-01')")
    assert 1 == shop.run(append).changes["inserted"]
    assert 0 == shop.run(append).rows["extracted"]


def test_failed_loads_do_not_push_out_the_receipt(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many loads are aborted, the last committed one is remembered: the next append adds only what is new."""
    monkeypatch.setattr("dpone.sql.state.KEPT_LOADS", 2)
    append = {"write": "append", "cursor": "updated_at"}
    shop.run(append)
    shop.sql("INSERT INTO orders VALUES (2000, 'new', 1, '2030-01-01')")
    for name in ("note", "total", "note", "total", "note"):  # each changes the plan, so the open load is aborted
        cast = {"columns": {"cast": {name: "text"}}, "target": "orders"}
        shop.run(append | cast, on_event=dies_at("load.committing"))
        shop.run(append | {"slices": {"rows": 7}}, on_event=dies_at("load.committing"))
    aborted = ask(shop.sink, "SELECT count(*) FROM _dpone_loads WHERE status = 'aborted'")[0][0]
    assert aborted > 0
    assert 1 == shop.run(append).changes["inserted"]
    assert [(1001,)] == ask(shop.sink, "SELECT count(*) FROM orders")


def test_a_stream_has_one_state_however_it_is_spelled(shop: Shop) -> None:
    """`orders` and `public.orders` are one stream: respelling it does not append everything again."""
    append = {"write": "append", "cursor": "updated_at"}
    assert 1000 == dpone.run(shop.manifest({"public.orders": append})).streams[0].changes["inserted"]
    assert 0 == dpone.run(shop.manifest({"orders": append})).streams[0].changes["inserted"]


def test_what_hangs_on_a_replaced_table_survives(shop: Shop) -> None:
    """Grants, indexes, constraints, comments and views of an existing target are there after a replace."""
    shop.run({"write": "replace"})
    ask(
        shop.sink,
        "ALTER TABLE orders ADD CONSTRAINT positive CHECK (total >= 0)",
        "CREATE UNIQUE INDEX by_id ON orders (id)",
        "CREATE VIEW big AS SELECT count(*) AS n FROM orders WHERE total > 100",
        "COMMENT ON TABLE orders IS 'kept'",
        "GRANT SELECT ON orders TO public",
    )
    hanging = (
        "SELECT relacl::text, obj_description(oid), ARRAY(SELECT indexrelid::regclass::text FROM pg_index "
        "WHERE indrelid = c.oid), ARRAY(SELECT conname::text FROM pg_constraint WHERE conrelid = c.oid) "
        "FROM pg_class c WHERE oid = 'orders'::regclass"
    )
    before = ask(shop.sink, hanging)
    shop.sql("UPDATE orders SET total = 1000 WHERE id <= 300")
    assert 1000 == shop.run({"write": "replace"}).changes["inserted"]
    assert before == ask(shop.sink, hanging)
    assert shop.sql("SELECT count(*) FROM orders WHERE total > 100") == ask(shop.sink, "SELECT n FROM big")


@pytest.mark.parametrize("settings", [{"write": "replace"}, MERGE])
def test_readers_never_see_a_part(shop: Shop, settings: dict[str, Any]) -> None:
    """While runs replace or merge a table of changing size, a reader sees one whole version after another."""
    settings = settings | {"slices": {"rows": 100}}
    shop.run(settings)
    seen: set[tuple[int, int]] = set()
    done = threading.Event()

    def read() -> None:
        with psycopg.connect(shop.sink, autocommit=True) as connection:
            while not done.is_set():
                query = "SELECT count(*), count(*) FILTER (WHERE note LIKE 'version%') FROM orders"
                seen.update(connection.execute(query).fetchall())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for version in range(1, 4):
            shop.sql(
                f"UPDATE orders SET note = 'version {version}', updated_at = '2030-01-0{version}'",
                f"INSERT INTO orders SELECT n, 'version', 1, '2030-01-0{version}' "
                f"FROM generate_series({version * 10_000}, {version * 10_000 + 499}) AS n",
            )
            assert "succeeded" == shop.run(settings).status
    finally:
        done.set()
        reader.join(30)
    assert seen <= {(1000, 0), (1500, 1500), (2000, 2000), (2500, 2500)}
    assert len(seen) > 1


def test_replace_does_not_empty_an_excluded_column(shop: Shop) -> None:
    """A column that only the target has cannot survive a replace of every row, so that is refused."""
    shop.run({"write": "replace"})
    shop.sql("UPDATE orders SET total = 0 WHERE id = 1")
    found = failure(shop.run({"write": "replace", "columns": {"exclude": ["note"]}}))
    assert ("DP406", True) == (found["code"], "note" in found["message"])
    assert [(1000,)] == ask(shop.sink, "SELECT count(note) FROM orders")


def test_a_new_column_does_not_double_the_rows_at_the_checkpoint(shop: Shop) -> None:
    """The rows at the checkpoint are read again when a column came, and are found in the target without it."""
    append = {"write": "append", "cursor": "updated_at"}
    shop.run(append)
    shop.sql("ALTER TABLE orders ADD COLUMN extra int DEFAULT 5")
    assert 0 == shop.run(append).changes["inserted"]
    assert [(1000,)] == ask(shop.sink, "SELECT count(*) FROM orders")


def test_rows_hidden_by_row_security_are_an_error(shop: Shop) -> None:
    """A role that sees only some rows does not load some rows as if they were all."""
    shop.sql(
        "CREATE ROLE seer LOGIN",
        "GRANT SELECT ON orders TO seer",
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY few ON orders FOR SELECT USING (id < 10)",
    )
    try:
        made = Shop(shop.folder, shop.source.replace("postgres@", "seer@"), shop.sink)
        found = failure(made.run({"write": "replace"}))
        assert "permission" == found["category"]
        assert "row-level security" in found["message"]
    finally:
        shop.sql("DROP OWNED BY seer", "DROP ROLE seer")


# -- the record ------------------------------------------------------------------------------------------------------


def test_the_record_is_in_the_store_and_in_the_sink(shop: Shop) -> None:
    """The document is written beside the manifest and, per stream, in the sink; failed runs are there too."""
    result = shop.result(MERGE)
    assert result.path is not None
    document = json.loads(result.path.read_text())
    assert ("dpone.run/1", "succeeded", 1000) == (
        document["schema"],
        document["status"],
        document["streams"][0]["rows"]["loaded"],
    )
    events = [json.loads(line)["event"] for line in result.path.with_name("events.ndjson").read_text().splitlines()]
    assert ("run.started", "run.finished") == (events[0], events[-1])
    shop.run(MERGE, on_event=dies_at("load.committing"))
    rows = ask(shop.sink, "SELECT status, document FROM _dpone_runs ORDER BY started_at")
    assert ["succeeded", "failed"] == [status for status, _ in rows]
    assert 1000 == json.loads(rows[0][1])["changes"]["inserted"]


def test_secrets_and_values_appear_nowhere(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password given by reference and the values of rows are in no record, event, state row or error."""
    password = "s3cret-p4ss"
    user = "secretive"
    shop.sql(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'", f"GRANT SELECT ON orders TO {user}")
    try:
        monkeypatch.setenv("SHOP_PASSWORD", password)
        reference = shop.source.replace("postgres@", f"{user}:${{env:SHOP_PASSWORD}}@")
        made = Shop(tmp_path, reference, shop.sink)
        assert made.run(MERGE).status == "succeeded"
        shop.sql(
            "ALTER TABLE orders ALTER total TYPE numeric",
            "UPDATE orders SET total = 'NaN', note = 'zzz-private' WHERE id = 1",
        )
        made.run({"write": "replace", "target": "t2", "columns": {"cast": {"note": "int64"}}})
        plan = json.dumps(dpone.plan(made.manifest({"public.orders": MERGE})).as_dict())
        state = str(ask(shop.sink, "SELECT * FROM _dpone_runs, _dpone_loads"))
        written = "".join(path.read_text() for path in (tmp_path / ".dpone").rglob("*") if path.is_file())
        for text in (plan, state, written):
            assert password not in text
            assert "zzz-private" not in text
            assert "note 17" not in text
    finally:
        shop.sql(f"DROP OWNED BY {user}", f"DROP ROLE {user}")


def test_one_of_three_streams_fails_and_the_others_commit(shop: Shop) -> None:
    """Independent streams go on when one fails; the exit code says that something failed."""
    shop.sql("CREATE TABLE a AS SELECT 1 AS n", "CREATE TABLE b AS SELECT 2 AS n")
    path = shop.manifest({"public.a": {}, "public.missing": {}, "public.b": {}})
    result = dpone.run(path)
    assert ["succeeded", "failed", "succeeded"] == [stream.status for stream in result.streams]
    assert 1 == result.exit_code
    assert [(1,)] == ask(shop.sink, "SELECT n FROM a")


def test_globs_and_selection(shop: Shop) -> None:
    """A glob is every stream it matches at the source; an exact name keeps its own settings; select narrows."""
    shop.sql("CREATE TABLE events_1 AS SELECT 1 AS n", "CREATE TABLE events_2 AS SELECT 2 AS n")
    path = shop.manifest({"public.events_*": {"tags": ["big"]}, "public.events_2": {}, "public.orders": MERGE})
    assert ["public.events_1"] == [stream.stream for stream in dpone.run(path, select=["tag:big"]).streams]
    names = {stream.stream for stream in dpone.run(path).streams}
    assert {"public.events_1", "public.events_2", "public.orders"} == names
    with pytest.raises(ConfigError):
        dpone.run(path, select=["public.order"])


def test_a_cancelled_run_keeps_what_is_durable(shop: Shop) -> None:
    """A cancelled run ends with status cancelled and exit 130; the rerun continues from its slices."""
    settings = MERGE | {"slices": {"rows": 100}}
    stop = threading.Event()

    def listen(event: Event) -> None:
        if event.name == "slice.staged" and event.fields["slice"] == 1:
            stop.set()

    result = shop.result(settings, stop=stop, on_event=listen)
    assert ("cancelled", 130) == (result.record.status, result.exit_code)
    assert 2 == shop.run(settings).slices["resumed"]


def test_verify_finds_what_differs(shop: Shop) -> None:
    """Verify proves an equal target, counts rows past the checkpoint as pending, and sees one altered row."""
    path = shop.manifest({"public.orders": MERGE})
    dpone.run(path)
    [found] = dpone.verify(path)
    assert not isinstance(found, dpone.DponeError)
    assert ("proven", 0) == (found.verdict, found.pending)
    shop.sql("UPDATE orders SET note = 'later', updated_at = '2030-01-01' WHERE id = 3")
    shop.sql("INSERT INTO orders VALUES (2000, 'new', 1, '2030-01-02')")
    [found] = dpone.verify(path)
    assert not isinstance(found, dpone.DponeError)
    assert ("proven", 2) == (found.verdict, found.pending)
    ask(shop.sink, "UPDATE orders SET total = total + 0.01 WHERE id = 900")
    [found] = dpone.verify(path)
    assert not isinstance(found, dpone.DponeError)
    assert "different" == found.verdict
