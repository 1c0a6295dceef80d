"""C4 discovery, C5 reading, C6 incremental loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import dpone
from dpone.events import Event
from dpone.manifest.load import manifest_from_dict
from dpone.sdk import Capability, Stream
from dpone.testing.harness import SAMPLE, Harness, Transactional, sample_rows
from dpone.testing.kit import Checks, Route, certifies, dies_at, inapplicable
from dpone.testing.memory.harness import MemoryHarness

ODD_TABLES = ("order", "Ürläu 東京", "two words", 'a"b', "semi;colon", "9lives", "SELECT", "x" * 60)
CURSOR: Mapping[str, Any] = {"write": "merge", "cursor": "at", "primary_key": ["id"]}


class ReadingChecks(Checks):
    """What a source must do. The other end is memory."""

    @pytest.fixture
    def route(self, tmp_path: Path, harness: Harness, memory: MemoryHarness) -> Route:
        """From the connector to memory."""
        return Route(tmp_path, harness, memory)

    # -- C4: discovery --------------------------------------------------------------------------------------------

    @certifies("C4")
    def test_what_is_there_is_found(self, route: Route) -> None:
        """Tables with and without a key, empty ones, and those with odd names are listed and can be described."""
        self.need(Capability.DISCOVER)
        harness, column = route.source, {"id": route.source.native["id"]}
        names = ["keyed", "keyless", "empty"]
        harness.create("keyed", column, [["1"]], key=["id"])
        harness.create("keyless", column, [["1"]])
        harness.create("empty", column)
        for name in ODD_TABLES:
            try:
                harness.create(name, column, [["1"]])
            except Exception:  # noqa: BLE001, S112 - a name that the system itself cannot hold
                continue
            names.append(name)
        assert len(names) > len(ODD_TABLES) / 2
        manifest = route.manifest()
        assert sorted(map(harness.stream, names)) == sorted(dpone.discover(manifest))
        for name in names:
            route.table, manifest = name, route.manifest(proof="counts") | {"pipeline": f"p{names.index(name)}"}
            manifest["streams"] = {harness.stream(name): {"write": "replace", "target": f"t{names.index(name)}"}}
            if name != "empty" or not self._without_columns(route):
                assert dpone.run(manifest, store=route.folder / "store").ok, name

    @certifies("C4")
    def test_columns_and_keys_are_described(self, route: Route) -> None:
        """The columns come in their order, the canonical types of the sample table, and the key if there is one."""
        route.source.put("t", sample_rows(range(30)))
        with self._source(route) as source:
            schema = source.describe(Stream(self._name(route)))
        assert list(SAMPLE) == [column.name for column in schema.columns]
        assert {"exact"} == {column.fidelity for column in schema.columns}
        assert tuple(schema.primary_key) in ((), ("id",))

    @certifies("C4")
    def test_a_missing_stream_is_named_with_a_suggestion(self, route: Route) -> None:
        """A misspelt stream is refused, and the one that was meant is named."""
        route.source.put("orders", sample_rows(range(3)))
        route.table = "ordesr"
        failure = route.refusal()
        assert "schema" == failure["category"]
        assert "orders" in failure["remedy"]

    # -- C5: reading ----------------------------------------------------------------------------------------------

    @certifies("C5")
    @pytest.mark.parametrize("count", [0, 1, 2, 41, 3000])
    def test_every_row_is_read_once(self, route: Route, count: int) -> None:
        """No rows, one row, rows of several slices and several batches: all of them arrive, exactly."""
        rows = sample_rows(range(1, count + 1))
        route.source.put("t", rows)
        if not count and self._without_columns(route):
            return
        record = route.load(write="replace", slices={"rows": 1000 if count > 100 else 40}, **self._typed(count))
        assert (count, count) == (record.rows["extracted"], record.rows["final"])
        route.check_equal(rows)

    @certifies("C5")
    def test_every_slice_boundary(self, route: Route) -> None:
        """However a table is cut, each row is in exactly one slice."""
        rows = sample_rows(range(1, 14))
        route.source.put("t", rows)
        for size in range(1, 15):
            route.load(write="replace", slices={"rows": size}, pipeline=f"p{size}")
            route.check_equal(rows)

    @certifies("C5")
    def test_a_load_is_one_state_of_the_source(self, route: Route) -> None:
        """Rows that change while a load runs are wholly in it or wholly out.

        Where they cannot be, the run fails and the next one is exact.
        """
        old, new = sample_rows(range(1, 201)), sample_rows(range(51, 251), version=1)
        route.source.put("t", old)

        def meddle(event: Event) -> None:
            if event.name == "slice.staged" and event.fields["slice"] == 0:
                with suppress(Exception):  # the system may let nobody write while somebody reads
                    route.source.put("t", new)

        record = route.run(write="replace", options={"on_event": meddle})
        if record.failure is None:
            found = sorted(route.sink.rows("t"), key=repr)
            assert found in [self._as_memory(route, rows) for rows in (old, new)]
        else:
            assert "internal" != record.failure["category"], record.failure
            assert route.raw() is None
        route.source.put("t", new)
        route.load(write="replace")
        route.check_equal(new)

    @certifies("C5")
    def test_durable_slices_are_compared_and_not_trusted(self, route: Route) -> None:
        """A slice that was staged before a death and has changed at the source since is read again."""
        rows = sample_rows(range(1, 121))
        route.source.put("t", rows)
        died = route.run(write="replace", options={"on_event": dies_at("load.committing")})
        assert "failed" == died.status
        rows = [*rows[:5], (6, "changed", *rows[5][2:]), *rows[6:]]
        route.source.put("t", rows)
        route.load(write="replace")
        route.check_equal(rows)

    # -- C6: incremental ------------------------------------------------------------------------------------------

    @certifies("C6")
    def test_ties_at_the_checkpoint_are_neither_lost_nor_doubled(self, route: Route) -> None:
        """Rows that come late with the checkpoint's own cursor value are loaded, and an unchanged run moves nothing."""
        self.need(Capability.READ_CURSOR)
        rows = sample_rows(range(1, 61))
        route.source.put("t", rows)
        for settings in (CURSOR, {"write": "append", "cursor": "at"}):
            route.table = "t"
            found = rows
            route.source.put("t", rows)
            assert (
                60
                == route.load(**settings, pipeline=str(settings["write"]), target=settings["write"]).changes["inserted"]
            )
            found = [*rows, (900, "twin", None, True, None, max(row[5] for row in rows), 1.5)]
            route.source.put("t", found)
            again = route.load(**settings, pipeline=str(settings["write"]), target=settings["write"])
            assert 1 == again.changes["inserted"]
            last = route.load(**settings, pipeline=str(settings["write"]), target=settings["write"])
            assert 0 == last.rows["extracted"]
            assert len(found) == last.rows["final"]

    @certifies("C6")
    def test_rows_without_a_cursor_value_are_refused_or_loaded(self, route: Route) -> None:
        """NULL cursors stop the load unless the manifest says that they are loaded in every run; never dropped."""
        self.need(Capability.READ_CURSOR)
        rows = [*sample_rows(range(1, 21)), (100, "no time", None, None, None, None, None)]
        route.source.put("t", rows)
        assert "data" == route.refusal(**CURSOR)["category"]
        settings = {**CURSOR, "cursor": {"column": "at", "nulls": "load"}}
        assert len(rows) == route.load(**settings).changes["inserted"]
        again = route.load(**settings)
        assert again.rows["extracted"] == again.changes["unchanged"] <= 1
        route.check_equal(rows)

    @certifies("C6")
    def test_late_commits_are_read_or_the_stream_is_refused(self, route: Route) -> None:
        """A row that is committed after a run with a cursor value below its checkpoint is read by the next run.

        A source that cannot do it refuses a cursor without a look-back.
        """
        self.need(Capability.READ_CURSOR)
        support = self.described().supports(Capability.READ_LATE_COMMITS)
        route.source.put("t", sample_rows(range(1, 21)))
        if support.level != "full":
            manifest = route.manifest(**CURSOR)
            next(iter(manifest["streams"].values()))["cursor"] = "at"
            [preview] = dpone.plan(manifest).streams
            assert preview.refusal is not None
            assert "DP138" == preview.refusal.code
            assert support.why in preview.refusal.message
            return
        if not isinstance(route.source, Transactional):
            inapplicable("its transactions come one after the other")
        late = [(500, "late", None, None, None, datetime(2024, 3, 10, 1, 0, 0, 1, tzinfo=UTC), None)]
        with route.source.late("t", late):
            route.load(**CURSOR)
        route.load(**CURSOR)
        route.check_equal([*sample_rows(range(1, 21)), *late])

    @certifies("C6")
    def test_a_lookback_finds_what_came_late(self, route: Route) -> None:
        """Rows that appear less than the look-back behind the checkpoint are loaded, and nothing is loaded twice."""
        self.need(Capability.READ_CURSOR)
        for write in ("merge", "append"):
            settings = {**CURSOR, "write": write, "target": write, "cursor": {"column": "at", "lookback": "5m"}}
            rows = sample_rows([*range(1, 50), *range(53, 61)])
            route.source.put("t", rows)
            assert len(rows) == route.load(**settings).changes["inserted"]
            rows = [*rows, *sample_rows(range(50, 53))]
            route.source.put("t", rows)
            record = route.load(**settings)
            assert (3, 0) == (record.changes["inserted"], record.changes["updated"])
            again = route.load(**settings)
            assert (0, again.rows["extracted"]) == (again.changes["inserted"], again.changes["unchanged"])
            assert len(rows) == again.rows["final"]

    @certifies("C6")
    @pytest.mark.parametrize("key", [["id"], ["name", "id"], ["at", "active", "id"]], ids="-".join)
    def test_deleted_rows_are_found_by_their_key(self, route: Route, key: list[str]) -> None:
        """Every row that is gone is found, and no other one, whatever types the key has."""
        self.need(Capability.READ_COMPARE)
        rows = [row for row in sample_rows(range(1, 2001)) if row[1] is not None and row[3] is not None]
        settings = {"write": "merge", "primary_key": key, "deletes": "hard"}
        route.source.put("t", rows)
        route.load(**settings)
        kept = [*rows[:500], *rows[501:900], *rows[1000:]]
        route.source.put("t", kept)
        record = route.load(**settings)
        found = tuple(record.changes[name] for name in ("inserted", "updated", "deleted"))
        assert (0, 0, len(rows) - len(kept)) == found
        route.check_equal(kept)

    @certifies("C6")
    def test_a_cursor_in_the_future_hides_nothing_in_silence(self, route: Route) -> None:
        """Rows behind a checkpoint in the future are loaded, or `dpone verify` tells that they are missing."""
        self.need(Capability.READ_CURSOR)
        rows = sample_rows(range(1, 21))
        future = (300, "future", None, None, None, datetime(2999, 1, 1, tzinfo=UTC), None)
        route.source.put("t", [*rows, future])
        route.load(**CURSOR)
        assert 0 == route.load(**CURSOR).changes["inserted"]
        behind = (301, "behind", None, None, None, datetime(2025, 1, 1, tzinfo=UTC), None)
        route.source.put("t", [*rows, future, behind])
        if route.load(**CURSOR).changes["inserted"] == 0:
            [compared] = dpone.verify(route.manifest(**CURSOR))
            assert "different" == getattr(compared, "verdict", compared)

    @certifies("C6")
    def test_a_restart_from_anywhere_gives_the_same_table(self, route: Route) -> None:
        """A run that ends at any event of the engine is continued by the next one, and the table is equal."""
        self.need(Capability.READ_CURSOR)
        rows = sample_rows(range(1, 101))
        route.source.put("t", rows)
        events: list[str] = []
        route.load(**CURSOR, options={"on_event": lambda event: events.append(event.name)})
        for number in range(1, len(events) + 1):
            fresh = sample_rows(range(number * 1000, number * 1000 + 50))
            start = max(row[5] for row in rows)
            rows = [*rows, *((*row[:5], _after(start, index), row[6]) for index, row in enumerate(fresh))]
            route.source.put("t", rows)
            with suppress(RuntimeError):  # before the run has a record to end in
                route.run(**CURSOR, options={"on_event": _dies_at_number(number)})
            route.load(**CURSOR)
            route.check_equal(rows)

    @certifies("C6")
    def test_the_source_grows_after_a_death_at_the_commit_boundary(self, route: Route) -> None:
        """A death right after the commit, then new rows: the next run moves exactly these."""
        self.need(Capability.READ_CURSOR)
        rows = sample_rows(range(1, 21))
        route.source.put("t", rows)
        died = route.run(**CURSOR, options={"on_event": dies_at("load.committed")})
        assert "failed" == died.status
        new = (900, "new", None, None, None, datetime(2025, 1, 1, tzinfo=UTC), None)
        route.source.put("t", [*rows, new])
        assert 1 == route.load(**CURSOR).changes["inserted"]
        route.check_equal([*rows, new])

    # -- what the checks share ------------------------------------------------------------------------------------

    def _without_columns(self, route: Route) -> bool:
        """Whether an empty table has no columns either, as a file of lines without lines; that is refused by name."""
        failure = route.run(write="replace").failure
        return failure is not None and failure["category"] == "schema" and route.table in failure["message"]

    def _typed(self, count: int) -> dict[str, Any]:
        return {"allow_empty": True} if not count else {}

    def _name(self, route: Route) -> str:
        return manifest_from_dict(route.manifest()).streams[0].name

    def _source(self, route: Route) -> Any:
        loaded = manifest_from_dict(route.manifest())
        return closing(loaded.source.connector.open_source(loaded.source.config()))

    def _as_memory(self, route: Route, rows: list[Any]) -> list[tuple[Any, ...]]:
        other = type(route.sink)(route.folder)
        other.put("t", rows)
        found = sorted(other.rows("t"), key=repr)
        other.close()
        return found


def _after(start: datetime, index: int) -> datetime:
    return start + timedelta(microseconds=1 + index // 3)


def _dies_at_number(number: int) -> Callable[[Event], None]:
    seen = 0

    def listen(event: Event) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            raise RuntimeError(f"died at {event.name}")

    return listen
