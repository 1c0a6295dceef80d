"""Rows that are gone at the source: found by comparing keys, counted, guarded, and gone or marked in the target."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dpone
from dpone.arrow.batches import conform
from dpone.arrow.digest import digest, digest_parts, rows_of_parts, without
from dpone.arrow.types import arrow_schema, parse_type
from dpone.connectors.postgres.session import PostgresSession
from dpone.engine.record import StreamRecord
from dpone.events import Event
from dpone.manifest.load import manifest_from_dict
from dpone.reconcile import parts as reconcile_parts
from dpone.sdk import Column, Compares, Digest, Stream, Window
from dpone.testing.faults import moved_clock
from dpone.testing.kit import SEED, dies_at
from tests.test_run import ask


class Pair:
    """A table of two databases."""

    def __init__(self, folder: Path, source: str, sink: str) -> None:
        self.folder, self.source, self.sink = folder, source, sink
        ask(
            source,
            "CREATE TABLE t (id int PRIMARY KEY, v text, at timestamptz DEFAULT now())",
            "INSERT INTO t SELECT n, 'v' || n FROM generate_series(1, 20000) AS n",
            "ANALYZE t",
        )

    def manifest(self, deletes: Any = "hard", **settings: Any) -> dict[str, Any]:
        """The stream."""
        stream = {"cursor": "at", "write": "merge", "proof": "digest", "deletes": deletes} | settings
        ends = {"source": self.source, "sink": self.sink}
        return {"version": 1, "pipeline": "pair", **ends, "streams": {"public.t": stream}}

    def run(self, deletes: Any = "hard", options: Any = None, **settings: Any) -> StreamRecord:
        """Run once."""
        manifest = self.manifest(deletes, **settings)
        return dpone.run(manifest, store=self.folder / "store", **(options or {})).streams[0]

    def check_equal(self) -> None:
        """The target holds what the source holds."""
        query = "SELECT id, v FROM t ORDER BY id"
        assert ask(self.source, query) == ask(self.sink, query)


@pytest.fixture
def pair(tmp_path: Path, pg: str, pg2: str) -> Pair:
    """Twenty thousand rows, and an empty target."""
    return Pair(tmp_path, pg, pg2)


def test_an_unchanged_table_moves_no_row(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two aggregate scans say that nothing is gone; one row that is gone moves the keys of its part only."""
    pair.run()
    moved: list[int] = []
    original = PostgresSession.batches

    def counted(self: PostgresSession, sql: str, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        for batch in original(self, sql, columns):
            moved.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(PostgresSession, "batches", counted)
    record = pair.run()
    assert (0, 0) == (record.changes["deleted"], sum(moved))
    ask(pair.source, "DELETE FROM t WHERE id = 777")
    record = pair.run()
    assert 1 == record.changes["deleted"]
    assert 0 < sum(moved) < 3000  # a part of both sides
    pair.check_equal()


@pytest.mark.parametrize("at", ["deletes.found", "load.committing", "load.balanced"])
def test_a_death_between_finding_and_deleting(pair: Pair, at: str) -> None:
    """What was found by a run that died is found anew: a row that is there again by then is not deleted."""
    pair.run()
    ask(pair.source, "DELETE FROM t WHERE id <= 10")
    assert pair.run(options={"on_event": dies_at(at)}).failure is not None
    assert [(20000,)] == ask(pair.sink, "SELECT count(*) FROM t")
    ask(pair.source, "INSERT INTO t SELECT n, 'again' FROM generate_series(1, 5) AS n")
    record = pair.run()
    assert (5, "proven") == (record.changes["deleted"], record.proof["verdict"])
    record = pair.run()
    assert 0 == record.changes["deleted"]
    pair.check_equal()


def test_rows_that_come_while_it_looks_stay(pair: Pair) -> None:
    """A row that is inserted, and one that is deleted, after the snapshot was taken belong to the next run."""
    pair.run()
    ask(pair.source, "DELETE FROM t WHERE id = 1")

    def meddle(event: Event) -> None:
        if event.name == "load.opened":
            ask(pair.source, "INSERT INTO t VALUES (90001, 'new')", "DELETE FROM t WHERE id = 2")

    record = pair.run(options={"on_event": meddle})
    assert (1, 0) == (record.changes["deleted"], record.changes["inserted"])
    record = pair.run()
    assert (1, 1) == (record.changes["deleted"], record.changes["inserted"])
    pair.check_equal()


def test_a_row_that_no_longer_passes_is_gone(pair: Pair) -> None:
    """The filter of the stream and the condition of a transform decide what the source has."""
    hidden: dict[str, dict[str, Any]] = {
        "where": {"transform": {"where": "v <> 'hidden'"}},
        "filter": {"filter": "v <> 'hidden'"},
    }
    for target, part in hidden.items():
        pair.run(target=target, **part)
    ask(pair.source, "UPDATE t SET v = 'hidden' WHERE id IN (7, 8)")
    for target, part in hidden.items():
        record = pair.run(target=target, **part)
        assert (2, "proven") == (record.changes["deleted"], record.proof["verdict"])
        assert [] == ask(pair.sink, f'SELECT * FROM "{target}" WHERE id IN (7, 8)')


def test_every_so_often(pair: Pair) -> None:
    """With an interval a run looks only when it is over; the time of the last look is kept by the target."""
    policy = {"mode": "soft", "every": "1h"}
    pair.run(policy)
    pair.run(policy)  # the first that has something to compare
    ask(pair.source, "DELETE FROM t WHERE id = 1")
    assert 0 == pair.run(policy).changes["soft_deleted"]
    assert 0 == pair.run(policy).changes["soft_deleted"]
    with moved_clock(3700):
        assert 1 == pair.run(policy).changes["soft_deleted"]


def test_a_repair_writes_what_differs(pair: Pair) -> None:
    """What differs is written as the source has it, in one run; the checkpoint stays, and verify agrees."""
    pair.run()
    ask(pair.sink, "UPDATE t SET v = 'x' WHERE id = 3", "DELETE FROM t WHERE id = 4", "INSERT INTO t VALUES (-1, 'y')")
    [seen] = dpone.verify(pair.manifest())
    assert not isinstance(seen, Exception)
    assert "different" == seen.verdict
    record = pair.run(options={"repair": True})
    assert (1, 1, 1) == tuple(record.changes[name] for name in ("inserted", "updated", "deleted"))
    assert record.rows["extracted"] is not None
    assert record.rows["extracted"] < 4000
    pair.check_equal()
    [seen] = dpone.verify(pair.manifest())
    assert not isinstance(seen, Exception)
    assert "proven" == seen.verdict
    assert 0 == pair.run().rows["extracted"]


def test_a_repair_that_dies_is_no_checkpoint(pair: Pair) -> None:
    """The next ordinary run drops what a repair had staged, and goes on from its own checkpoint."""
    pair.run()
    ask(pair.sink, "UPDATE t SET v = 'x' WHERE id = 3")
    assert pair.run(options={"repair": True, "on_event": dies_at("load.committing")}).failure is not None
    ask(pair.source, "INSERT INTO t VALUES (90001, 'new')")
    assert 1 == pair.run().changes["inserted"]
    assert 1 == pair.run(options={"repair": True}).changes["updated"]
    pair.check_equal()


def test_what_cannot_be_repaired_says_so(pair: Pair) -> None:
    """A stream without a key, and one that was never loaded."""
    failure = pair.run(options={"repair": True}).failure
    assert failure is not None
    assert "DP165" == failure["code"]


# -- parts -----------------------------------------------------------------------------------------------------------

TYPES = ("int64", "text", "decimal(12,3)", "timestamptz", "date", "boolean", "float64", "uuid", "binary")


def _column(name: str, type_: str) -> Column:
    arrow, logical = parse_type(type_)
    return Column(name, arrow, logical=logical)


@st.composite
def tables(draw: st.DrawFn) -> tuple[tuple[Column, ...], tuple[Column, ...], list[pa.RecordBatch]]:
    """Columns, those of the key, and rows with distinct keys."""
    types = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))
    columns = tuple(_column(f"c{index}", type_) for index, type_ in enumerate(types))
    dice = random.Random(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(0, 200))
    id_ = Column("id", pa.int64(), nullable=False)
    arrays = [pa.array(range(rows), pa.int64())]
    for column in columns:
        texts = [None if dice.random() < 0.1 else str(dice.randrange(10**6)) for _ in range(rows)]
        cast = pa.array(texts, pa.string())
        plain = pa.int64() if pa.types.is_temporal(column.type) else column.type
        if pa.types.is_date32(column.type):
            plain = pa.int32()
        if pa.types.is_boolean(column.type):
            arrays.append(pa.array([None if text is None else text.endswith("1") for text in texts]))
            continue
        arrays.append(cast.cast(plain).cast(column.type))
    all_columns = (id_, *columns)
    batch = pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(all_columns))
    return all_columns, (id_, *columns[: draw(st.integers(0, len(columns)))]), [batch]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(made=tables(), count=st.sampled_from([1, 2, 16, 256]))
def test_parts_add_up_and_hold_their_rows(
    made: tuple[tuple[Column, ...], tuple[Column, ...], list[pa.RecordBatch]], count: int
) -> None:
    """The digests of all parts are that of the table; the rows of a part have its digest; every row is in one part."""
    columns, key, batches = made
    found = digest_parts(columns, key, count, batches)
    assert digest(columns, batches) == sum(found.values(), Digest())
    assert all(0 <= part < count for part in found)
    seen = 0
    for part, expected in found.items():
        rows = list(conform(rows_of_parts(key, count, [part], batches), columns))
        assert expected == digest(columns, rows)
        seen += sum(batch.num_rows for batch in rows)
    assert sum(batch.num_rows for batch in batches) == seen


@settings(max_examples=40)
@given(made=tables(), dice=st.randoms(use_true_random=False))
def test_without_is_the_difference_of_keys(
    made: tuple[tuple[Column, ...], tuple[Column, ...], list[pa.RecordBatch]], dice: random.Random
) -> None:
    """Exactly the rows whose key the other side lacks."""
    columns, _, [batch] = made
    key = columns[:1]
    keys = batch.select(["id"])
    kept = [index for index in range(keys.num_rows) if dice.random() < 0.5]
    other = keys.take(pa.array(kept, pa.int64()))
    left = [value for found in without(key, [keys], [other]) for value in found["id"].to_pylist()]
    assert sorted(set(range(keys.num_rows)) - set(kept)) == sorted(left)


def test_postgres_has_the_same_parts(pg: str) -> None:
    """The server gives a row the part, and a part the digest, that dpone computes from what it reads."""
    print(f"seed {SEED}")  # noqa: T201 - shown when it fails
    ask(
        pg,
        "CREATE TABLE t (id bigint, name text, price numeric(12,3), at timestamptz, ok boolean, ratio float8, u uuid)",
        "SELECT setseed(0.5)",
        "INSERT INTO t SELECT n, CASE WHEN n % 7 = 0 THEN NULL ELSE 'Żółć ' || n END, random() * 1000, "
        "now() + n * interval '1 microsecond', n % 2 = 0, random(), gen_random_uuid() "
        "FROM generate_series(1, 3000) AS n",
    )
    manifest = {
        "version": 1,
        "pipeline": "parts",
        "source": pg,
        "sink": "duckdb:///:never:",
        "streams": {"public.t": None},
    }
    loaded = manifest_from_dict(manifest)
    source = loaded.source.connector.open_source(loaded.source.config())
    try:
        stream = Stream("public.t")
        schema = source.describe(stream)
        reading = source.open(stream, schema, Window())
        columns, key = schema.columns, (schema.columns[0], schema.columns[1], schema.columns[3])
        batches = list(conform(reading.read(reading.slices[0]), columns))
        assert isinstance(reading, Compares)
        rows = reading.compared()
        here, there = digest_parts(columns, key, 64, batches), rows.digests(columns, key, 64)
        assert here == dict(there)
        wanted = sorted(here)[:5]
        mine = digest(columns, rows_of_parts(key, 64, wanted, batches))
        assert mine == digest(columns, conform(rows.rows(columns, key, 64, wanted), columns))
    finally:
        source.close()


def test_groups_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that differ are compared some at a time."""
    monkeypatch.setattr(reconcile_parts, "_AT_ONCE", 100)
    left = {part: Digest(30, part) for part in range(10)}
    right = {part: Digest(30, part + 1) for part in range(10)} | {3: Digest(30, 3)}
    groups = list(reconcile_parts._groups(left, right))
    assert [0, 1, 2, 4, 5, 6, 7, 8, 9] == [part for group in groups for part in group]
    assert all(len(group) == 1 for group in groups)
