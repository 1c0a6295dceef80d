"""C7 writing, C10 drift, C15 concurrency, C16 state, C17 the record."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest

import dpone
from dpone.arrow.types import parse_type
from dpone.engine.record import StreamRecord
from dpone.errors import DponeError
from dpone.events import Event
from dpone.sdk import Capability
from dpone.strategy.scd2 import IS_CURRENT, VALID_FROM, VALID_TO
from dpone.testing import texts
from dpone.testing.harness import SAMPLE, Harness, KeepsState, Row, sample_rows
from dpone.testing.kit import WRITES, Checks, Route, certifies, dies_at, inapplicable, live, values
from dpone.testing.memory.harness import MemoryHarness

MOVED = ("inserted", "updated", "deleted")
MERGE = WRITES["merge"]


class WritingChecks(Checks):
    """What a sink must do. The other end is memory."""

    @pytest.fixture
    def target(self, tmp_path: Path, harness: Harness, memory: MemoryHarness) -> Route:
        """From memory to the connector."""
        return Route(tmp_path, memory, harness)

    # -- C7: writing ----------------------------------------------------------------------------------------------

    @certifies("C7")
    @pytest.mark.parametrize("write", WRITES)
    def test_the_target_holds_what_the_source_held(self, target: Route, write: str) -> None:
        """After a load the target is equal, row by row; unchanged, the next run changes nothing; then the changes."""
        self.need(Capability(f"write.{write}"))
        first = sample_rows(range(1, 131))
        target.source.put("t", first)
        assert len(first) == target.load(**WRITES[write]).changes["inserted"]
        target.check_equal(first)
        again = target.load(**WRITES[write])
        assert [0, 0, 0] == [again.changes[name] for name in MOVED]
        target.check_equal(first)

        later = sample_rows(range(200, 221), minute=58)
        changed = sample_rows(range(100, 111), version=2, minute=58)
        now = {
            "replace": [*first[:60], *changed, *later],
            "append": [*first, *later],
        }.get(write, list({row[0]: row for row in [*first, *changed, *later]}.values()))
        target.source.put("t", now)
        record = target.load(**WRITES[write])
        expected = {
            "replace": (len(now), 0, len(first)),
            "append": (21, 0, 0),
            "merge": (21, 11, 0),
            "delete_insert": (len(now), 0, len(first)),
            "scd2": (32, 11, 0),
        }[write]
        assert expected == tuple(record.changes[name] for name in MOVED)
        target.check_equal(now)

    @certifies("C7")
    @pytest.mark.parametrize("write", WRITES)
    def test_an_empty_source(self, target: Route, write: str) -> None:
        """Nothing to load makes an empty target; a full target is not emptied unless the manifest allows it."""
        self.need(Capability(f"write.{write}"))
        target.source.put("t", [])
        target.load(**WRITES[write])
        target.check_equal([])
        rows = sample_rows(range(1, 4))
        target.source.put("t", rows)
        target.load(**WRITES[write])
        target.source.put("t", [])
        if write == "replace":
            assert "DP412" == target.refusal(**WRITES[write])["code"]
            target.load(**WRITES[write], allow_empty=True)
            target.check_equal([])
            return
        record = target.run(**WRITES[write])
        # Rows at the checkpoint are gone; a sink that cannot match rows one by one may refuse to go on from there.
        assert record.failure is None or record.failure["category"] == "conflict", record.failure
        target.check_equal(rows)

    @certifies("C7")
    def test_the_latest_version_of_a_key_wins(self, target: Route) -> None:
        """Of several versions in one load the one with the greatest cursor stays, then the one that came last.

        The others are counted as collapsed. A version older than the target's is stale: counted, and not applied.
        """
        self.need(Capability.WRITE_MERGE)
        at = datetime(2024, 1, 1, tzinfo=UTC)

        def version(number: int, name: str, minutes: int) -> Row:
            return (number, name, None, None, None, at + timedelta(minutes=minutes), None)

        target.source.put(
            "t",
            [
                version(1, "new", 9),
                version(1, "old", 1),
                version(2, "first", 5),
                version(2, "last", 5),
                *(version(n, "filler", 3) for n in range(10, 60)),
                version(3, "one", 7),
                version(1, "older", 2),
            ],
        )
        record = target.load(**MERGE, slices={"rows": 3})
        assert (53, 3) == (record.changes["inserted"], record.changes["collapsed"])
        kept = [version(1, "new", 9), version(2, "last", 5), version(3, "one", 7)]
        kept += [version(n, "filler", 3) for n in range(10, 60)]
        target.check_equal(kept)

        target.source.put("t", [version(1, "older", 2), version(4, "four", 1)])
        dpone.reset(target.manifest(**MERGE), select=["*"])
        record = target.load(**MERGE)
        assert (1, 1) == (record.changes["inserted"], record.changes["stale"])
        target.check_equal([*kept, version(4, "four", 1)])

    @certifies("C7")
    def test_partitions_are_replaced_as_a_whole(self, target: Route) -> None:
        """The partitions of what was read hold exactly that, that of NULL too; others stay; nothing deletes nothing."""
        self.need(Capability.WRITE_DELETE_INSERT)
        settings = {"write": "delete_insert", "partition_by": ["active"]}
        first = sample_rows(range(1, 61))
        target.source.put("t", first)
        target.load(**settings)
        parts = {part: [row for row in first if row[3] is part] for part in (None, True, False)}
        now = [
            *sample_rows((row[0] for row in parts[True][:5]), version=1),
            *parts[None],
            (900, "", None, None, *first[0][4:]),
        ]
        target.source.put("t", now)
        record = target.load(**settings)
        gone = len(parts[True]) + len(parts[None])
        assert (len(now), gone) == (record.changes["inserted"], record.changes["deleted"])
        target.check_equal([*now, *parts[False]])
        for rows in (now, []):
            target.source.put("t", rows)
            record = target.load(**settings)
            assert [0, 0, 0] == [record.changes[name] for name in MOVED]
            target.check_equal([*now, *parts[False]])

    @certifies("C7")
    def test_the_window_of_a_cursor_is_replaced(self, target: Route) -> None:
        """What lies between the lowest and the highest cursor that was read is replaced, the rest stays."""
        self.need(Capability.WRITE_DELETE_INSERT)
        settings: dict[str, Any] = {"write": "delete_insert", "cursor": {"column": "at", "lookback": "0s"}}
        first = sample_rows(range(1, 61))
        target.source.put("t", first)
        target.load(**settings)
        dpone.reset(target.manifest(**settings), select=["*"])
        now = sample_rows((*range(21, 25), *range(38, 42)), version=1)
        target.source.put("t", now)
        low, high = min(row[5] for row in now), max(row[5] for row in now)
        kept = [row for row in first if not low <= row[5] <= high]
        record = target.load(**settings)
        assert (len(now), 60 - len(kept)) == (record.changes["inserted"], record.changes["deleted"])
        target.check_equal([*kept, *now])

    @certifies("C7")
    def test_every_version_of_a_row_is_kept(self, target: Route) -> None:
        """The versions of a key follow each other without gap or overlap, also where the cursor stands still.

        A row behind the current version is stale, the same rows again change nothing, and `verify` sees the current.
        """
        self.need(Capability.WRITE_SCD2)
        settings = WRITES["scd2"]
        at = datetime(2024, 1, 1, tzinfo=UTC)

        def version(number: int, name: str, minutes: int) -> Row:
            return (number, name, None, None, None, at + timedelta(minutes=minutes), None)

        tables = [
            [version(1, "first", 1), version(2, "first", 1), version(1, "collapsed", 0)],
            [version(1, "second", 4), version(2, "first", 1)],
            [version(1, "third", 4), version(2, "second", 5)],
            [version(1, "stale", 2), version(2, "second", 5)],
        ]
        counts = [(2, 0, 0, 1), (1, 1, 0, 0), (2, 2, 0, 0), (0, 0, 1, 0)]
        for rows, expected in zip(tables, counts, strict=True):
            target.source.put("t", rows)
            if expected[2]:
                dpone.reset(target.manifest(**settings), select=["*"])
            record = target.load(**settings)
            found = [record.changes[name] for name in ("inserted", "updated", "stale", "collapsed")]
            assert expected == tuple(found)
            again = target.load(**settings)
            assert [0, 0, 0] == [again.changes[name] for name in MOVED]
        start = int(at.timestamp()) * 1_000_000
        minutes = {"first": 1, "second": 4, "third": 4}
        one = [start + minutes[name] * 60_000_000 + (name == "third") for name in minutes]
        two = [start + 60_000_000, start + 300_000_000]
        assert sorted(
            [
                (1, "first", one[0], one[1], False),
                (1, "second", one[1], one[2], False),
                (1, "third", one[2], None, True),
                (2, "first", two[0], two[1], False),
                (2, "second", two[1], None, True),
            ]
        ) == sorted(_versions(target.sink))
        target.check_equal([version(1, "third", 4), version(2, "second", 5)])
        target.source.put("t", [version(1, "third", 4), version(2, "second", 5)])
        [seen] = dpone.verify(target.manifest(**settings))
        assert not isinstance(seen, DponeError), seen
        assert ("proven", 2) == (seen.verdict, seen.sink.rows)

    @certifies("C7")
    def test_each_key_is_added_once(self, target: Route) -> None:
        """Keys that the target holds are left out, changed or not; of several rows with one key the latest is added."""
        self.need(Capability.WRITE_DEDUPLICATE)
        settings: dict[str, Any] = {"write": "append", "deduplicate": True, "primary_key": ["id"], "cursor": "at"}
        first = sample_rows(range(1, 61))
        target.source.put("t", [*sample_rows(range(1, 11), version=1), *first])
        record = target.load(**settings)
        assert (60, 10) == (record.changes["inserted"], record.changes["collapsed"])
        later = sample_rows(range(100, 111), minute=58)
        target.source.put("t", [*first, *sample_rows(range(1, 31), version=2, minute=59), *later])
        for inserted, unchanged in ((11, 30), (0, 0)):
            record = target.load(**settings)
            assert (inserted, unchanged) == (record.changes["inserted"], record.changes["unchanged"])
            target.check_equal([*first, *later])
        dpone.reset(target.manifest(**settings), select=["*"])
        assert 0 == target.load(**settings).changes["inserted"]
        target.check_equal([*first, *later])

    @certifies("C7")
    def test_hooks_are_published_with_the_rows(self, target: Route) -> None:
        """A hook takes effect together with the load; one that fails is named, and nothing of the load is visible."""
        self.need(Capability.WRITE_HOOKS)
        rows = sample_rows(range(1, 31))
        schema = self.described().default_schema
        table = f"{schema}.t" if schema else "t"
        target.source.put("t", rows)
        target.load(write="replace", hooks={"after": [f"DELETE FROM {table} WHERE id = 1"]})
        target.check_equal(rows[1:])
        later = sample_rows(range(50, 60))
        target.source.put("t", later)
        hooks = {"before": [f"DELETE FROM {table}"], "after": [f"SELECT nothing FROM {table}"]}
        failure = target.refusal(write="replace", hooks=hooks)
        assert "hooks.after, statement 1" in failure["message"]
        target.load(write="replace")
        target.check_equal(later)

    @certifies("C7")
    def test_deleted_rows_are_deleted(self, target: Route) -> None:
        """With `deletes: hard` the target loses the rows that the source has lost, however few or many."""
        self.need(Capability.WRITE_DELETES)
        settings = {**MERGE, "deletes": {"mode": "hard", "max": "100%"}}
        rows = sample_rows(range(1, 131))
        target.source.put("t", rows)
        target.load(**settings)
        for kept in (rows[:-1], rows[1:-1:2], [*rows[1:-1:2], *sample_rows([500], minute=58)], []):
            target.source.put("t", kept)
            before = len(target.sink.rows("t", list(SAMPLE)))
            record = target.load(**settings)
            assert before + record.changes["inserted"] - record.changes["deleted"] == len(kept)
            target.check_equal(kept)
            assert [0, 0, 0] == [target.load(**settings).changes[name] for name in MOVED]

    @certifies("C7")
    def test_deleted_rows_are_marked_and_marks_are_cleared(self, target: Route) -> None:
        """Soft: a row that is gone is marked once; there again, also with a cursor of before, it is like any other."""
        self.need(Capability.WRITE_DELETES)
        settings = {**MERGE, "deletes": "soft"}
        rows = sample_rows(range(1, 61))
        target.source.put("t", rows)
        target.load(**settings)
        for table, counts in (
            ([*rows[:5], *rows[6:]], (1, 0)),
            ([*rows[:5], *rows[6:]], (0, 0)),
            (rows, (0, 1)),
            ([*rows[:5], *rows[6:]], (1, 0)),
            (rows[:-1], (1, 1)),
        ):
            target.source.put("t", table)
            record = target.load(**settings)
            assert counts == (record.changes["soft_deleted"], record.changes["reactivated"])
            assert 60 == record.rows["final"]
            target.check_equal(table)

    @certifies("C7")
    def test_too_many_deletes_are_refused(self, target: Route) -> None:
        """A source that lost more than the guard allows changes nothing, and the error says how much is gone."""
        self.need(Capability.WRITE_DELETES)
        rows = sample_rows(range(1, 101))
        target.source.put("t", rows)
        for mode in ("hard", "soft"):
            target.load(**MERGE, deletes=mode, target=mode)
        for kept, policy, refused in (
            ([], {}, True),
            (rows[:49], {}, True),
            (rows[:90], {"max": "9%"}, True),
            (rows[:90], {"max": 9}, True),
            (rows[:90], {"max": 10}, False),
        ):
            target.source.put("t", kept)
            for mode in ("hard", "soft"):
                record = target.run(**MERGE, deletes={"mode": mode, **policy}, target=mode)
                assert refused == (record.failure is not None)
                if record.failure is not None:
                    assert ("data", "DP417") == (record.failure["category"], record.failure["code"])
                    assert str(100 - len(kept)) in record.failure["message"]

    @certifies("C7")
    def test_versions_end_with_the_row(self, target: Route) -> None:
        """SCD2 with deletes: the current version of a row that is gone ends; there again, a new one begins."""
        self.need(Capability.WRITE_DELETES)
        self.need(Capability.WRITE_SCD2)
        settings = {**WRITES["scd2"], "deletes": "soft"}
        rows = sample_rows(range(1, 21))
        later = [(*rows[0][:5], rows[-1][5] + timedelta(days=1), *rows[0][6:]), *rows[1:]]
        for table, counts in (
            (rows, (20, 0)),
            (rows[1:], (0, 1)),
            (rows[1:], (0, 0)),
            (later, (1, 0)),
            (rows[1:], (0, 1)),
        ):
            target.source.put("t", table)
            record = target.load(**settings)
            assert counts == (record.changes["inserted"], record.changes["soft_deleted"])
            target.check_equal(table)
        versions = [version for version in _versions(target.sink) if version[0] == 1]
        first, second = sorted(versions, key=lambda version: version[2])
        assert [False, False] == [first[4], second[4]]
        assert first[2] < first[3] <= second[2] < second[3]

    @certifies("C7")
    def test_a_repair_writes_what_differs_and_nothing_else(self, target: Route) -> None:
        """Rows that were altered or lost in the target are written as the source has them; the checkpoint stays."""
        self.need(Capability.WRITE_DELETES)
        if isinstance(target.sink, KeepsState):
            inapplicable("its rows are not in tables")
        settings = {**MERGE, "deletes": "hard"}
        rows = sample_rows(range(1, 101))
        target.source.put("t", rows)
        target.load(**settings)
        target.sink.setup(
            [
                """UPDATE t SET "name" = 'meddled' WHERE "id" = 7""",
                'DELETE FROM t WHERE "id" = 8',
                """UPDATE t SET "id" = 1009 WHERE "id" = 9""",
            ]
        )
        [seen] = dpone.verify(target.manifest(**settings))
        assert not isinstance(seen, DponeError), seen
        assert not seen.equal
        record = target.load(**settings, options={"repair": True})
        assert (2, 1, 1) == tuple(record.changes[name] for name in MOVED)
        target.check_equal(rows)
        assert 0 == target.load(**settings).rows["extracted"]

    @certifies("C7")
    def test_keys_of_several_columns_and_keys_that_change(self, target: Route) -> None:
        """A key is all of its columns; a row whose key changed at the source is a new row."""
        self.need(Capability.WRITE_MERGE)
        settings = {"write": "merge", "primary_key": ["id", "active"]}
        rows = [(n // 2, f"row {n}", None, n % 2 == 0, None, None, n / 2) for n in range(40)]
        target.source.put("t", rows)
        assert 40 == target.load(**settings).changes["inserted"]
        again = target.load(**settings)
        assert (40, 0) == (again.changes["unchanged"], again.changes["updated"])
        moved = (500, *rows[0][1:])
        changed = (*rows[1][:1], "other", *rows[1][2:])
        target.source.put("t", [moved, changed, *rows[2:]])
        record = target.load(**settings)
        assert (1, 1) == (record.changes["inserted"], record.changes["updated"])
        target.check_equal([rows[0], moved, changed, *rows[2:]])

    @certifies("C7")
    def test_a_key_without_a_value_is_refused(self, target: Route) -> None:
        """NULL in a key column stops the load before anything is visible."""
        self.need(Capability.WRITE_MERGE)
        rows = [(1, None, None, None, None, None, None), (2, "two", None, None, None, None, None)]
        target.source.put("t", rows)
        for settings in ({"write": "merge"}, {"write": "scd2"}, {"write": "append", "deduplicate": True}):
            named = Capability.WRITE_DEDUPLICATE if "deduplicate" in settings else f"write.{settings['write']}"
            if self.described().supports(Capability(named)).level == "full":
                assert "data" == target.refusal(**settings, primary_key=["id", "name"])["category"]

    @certifies("C7")
    @pytest.mark.parametrize("column", ["name", "amount", "active", "day", "at", "score"])
    def test_a_change_of_any_column_is_an_update(self, target: Route, column: str) -> None:
        """NULL to a value, a value to NULL, '' to NULL, 0.0 to -0.0, and a change in the last digit are all seen."""
        self.need(Capability.WRITE_MERGE)
        pairs: Mapping[str, Sequence[Any]] = {
            "name": ["", None, "a", "A", "a "],
            "amount": [None, "0.00", "0.01", "-0.01", "9999999999.99"],
            "active": [None, True, False],
            "day": [None, "0001-01-01", "9999-12-31"],
            "at": [None, "2024-01-01 00:00:00.000000Z", "2024-01-01 00:00:00.000001Z"],
            "score": [None, "0.0", "1.0", "1.0000000000000002"],
        }
        type_, _ = parse_type(SAMPLE[column])
        found = pairs[column]
        both = [(left, right) for left in found for right in found]
        records = []
        for side in (0, 1):
            cells = pa.array([pair[side] for pair in both]).cast(type_)
            batch = pa.record_batch([pa.array(range(len(both)), pa.int32()), cells], ["id", column])
            self._memory(target).place.put("t", {"id": "int32", column: SAMPLE[column]}, [batch], ["id"])
            records.append(target.load(write="merge", primary_key=["id"]))
        same = sum(left == right for left, right in both)
        assert (same, len(both) - same) == (records[1].changes["unchanged"], records[1].changes["updated"])
        types = {"id": "int32", column: SAMPLE[column]}
        expected = list(zip(range(len(both)), self._memory(target).rows("t", [column]), strict=True))
        assert values([(n, v[0]) for n, v in expected], types) == values(target.sink.rows("t", list(types)), types)

    @certifies("C7")
    @pytest.mark.parametrize("write", WRITES)
    def test_readers_see_all_or_nothing(self, target: Route, write: str) -> None:
        """At every step of a load a reader sees the target as it was, or as it is to be."""
        self.need(Capability(f"write.{write}"))
        old, new = sample_rows(range(1, 101)), sample_rows(range(1, 161), version=1, minute=59)
        if write == "append":
            new = [*old, *sample_rows(range(200, 261), minute=59)]
        target.source.put("t", old)
        target.load(**WRITES[write])
        target.source.put("t", new)
        steps = ("slice.staged", "load.committing", "load.balanced", "load.committed")
        seen: list[tuple[str, list[Any]]] = []

        def look(event: Event) -> None:
            if event.name in steps:
                seen.append((event.name, values(live(target.sink, "t", list(SAMPLE)))))

        target.load(**WRITES[write], options={"on_event": look})
        assert len(seen) >= len(steps)
        for name, found in seen:
            allowed = [values(new)] if name == "load.committed" else [values(old)]
            assert found in allowed, f"a reader saw {len(found)} rows at {name}"

    @certifies("C7")
    def test_late_ties_are_appended_once(self, target: Route) -> None:
        """Rows that come late with the checkpoint's cursor value are added, and those that are there not again."""
        self.need(Capability.WRITE_TIES)
        rows = sample_rows(range(1, 61))
        for number in range(3):
            target.source.put("t", rows)
            target.load(**WRITES["append"])
            target.check_equal(rows)
            last = max(row[5] for row in rows)
            rows = [*rows, (900 + number, "twin", None, True, None, last, 1.5)]
            target.source.put("t", rows)
            assert 1 == target.load(**WRITES["append"]).changes["inserted"]
            target.check_equal(rows)
            rows = [*rows, (950 + number, "later", None, True, None, last + timedelta(seconds=1), 1.5)]

    @certifies("C7")
    @pytest.mark.parametrize("fault", ["altered", "lost", "doubled"])
    def test_the_proof_is_read_back_from_the_sink(self, target: Route, fault: str) -> None:
        """One staged row that is altered, lost or doubled before the commit stops it: nothing is merely assumed."""
        if isinstance(target.sink, KeepsState):
            inapplicable("its staging is not in tables")
        rows = sample_rows(range(1, 101))
        target.source.put("t", rows)

        def meddle(event: Event) -> None:
            if event.name == "load.committing":
                stage = next(name for name in target.sink.debris() if "stage" in name)
                target.sink.setup(
                    [
                        _MEDDLE[fault].format(
                            stage=stage, columns=", ".join(f'"{name}"' for name in [*SAMPLE, "_dpone_slice"])
                        )
                    ]
                )

        proof = "digest" if fault == "altered" else "counts"  # the equations alone must find what they can find
        record = target.run(write="replace", proof=proof, options={"on_event": meddle})
        assert record.failure is not None, f"a row that was {fault} was committed"
        assert ("internal", "nothing was committed") == (
            record.failure["category"],
            record.failure["remedy"].partition(";")[0].partition(".")[0],
        )
        assert target.raw() is None
        target.load(write="replace")
        target.check_equal(rows)

    @certifies("C7")
    def test_signs_and_not_a_number_are_values(self, target: Route) -> None:
        """0.0, -0.0, NaN and the infinities are told apart, or refused by the name of the column."""
        self.need(Capability.WRITE_MERGE)
        texts = ["0.0", "-0.0", "nan", "inf", "-inf"]
        types = {"id": "int32", "score": "float64"}
        pairs = [(left, right) for left in texts for right in texts]
        records = []
        for side in (0, 1):
            cells = pa.array([float(pair[side]) for pair in pairs])
            batch = pa.record_batch([pa.array(range(len(pairs)), pa.int32()), cells], ["id", "score"])
            self._memory(target).place.put("t", types, [batch], ["id"])
            record = target.run(write="merge", primary_key=["id"])
            records.append(record)
            if record.failure is not None:
                assert ("data", True) == (record.failure["category"], "score" in record.failure["message"]), (
                    record.failure
                )
                return
            expected = [(n, pair[side]) for n, pair in enumerate(pairs)]
            assert values(expected, types) == values(target.sink.rows("t", list(types)), types)
        assert (5, 20) == (records[1].changes["unchanged"], records[1].changes["updated"])

    # -- C10: drift -----------------------------------------------------------------------------------------------

    @certifies("C10")
    @pytest.mark.parametrize("write", WRITES)
    def test_a_target_that_dpone_made_is_accepted(self, target: Route, write: str) -> None:
        """Every canonical type that the sink stores: the second run finds the table it made itself and goes on."""
        self.need(Capability(f"write.{write}"))
        types = {f"c{n}": name for n, name in enumerate(_ALL)}
        arrays = [pa.nulls(3, parse_type(name)[0]) for name in types.values()]
        ids, at = pa.array([1, 2, 3], pa.int32()), pa.array([1, 2, 3]).cast(pa.timestamp("us", "UTC"))
        columns = {"id": "int32", "at": "timestamptz"} | types
        batch = pa.RecordBatch.from_arrays([ids, at, *arrays], list(columns))
        self._memory(target).place.put("t", columns, [batch], ["id"])
        assert 3 == target.load(**WRITES[write]).changes["inserted"]
        again = target.load(**WRITES[write])
        assert [0, 0, 0] == [again.changes[name] for name in MOVED]

    @certifies("C10")
    @pytest.mark.parametrize("write", WRITES)
    @pytest.mark.parametrize("change", ["add", "drop", "rename", "widen", "narrow", "retype"])
    def test_a_change_of_the_columns_is_followed_or_refused(self, target: Route, write: str, change: str) -> None:
        """A new, lost or renamed column, a wider, a narrower, another type.

        It is named in plan and record and followed with all values, or refused by the column's name with the target
        as it was.
        """
        self.need(Capability(f"write.{write}"))
        before = {"id": "int32", "at": "timestamptz", "x": "int32"}
        after = {
            "add": before | {"y": "text"},
            "drop": {"id": "int32", "at": "timestamptz"},
            "rename": {"id": "int32", "at": "timestamptz", "z": "int32"},
            "widen": before | {"x": "int64"},
            "narrow": before | {"x": "int16"},
            "retype": before | {"x": "text"},
        }[change]
        settings = {name: value for name, value in WRITES[write].items() if name != "cursor" or write == "append"}
        self._table(target, before, range(1, 4))
        target.load(**settings)
        self._table(target, after, range(1 if write != "append" else 4, 7))
        record = target.run(**settings)
        if record.failure is not None:
            assert record.failure["category"] in ("schema", "conflict"), record.failure
            assert record.failure["remedy"]
            if record.failure["category"] == "conflict":  # the rows at the checkpoint are others, and cannot be matched
                assert 3 == len(target.sink.rows("t"))
                return
            named = {"add": "y", "drop": "x", "rename": "x", "widen": "x", "narrow": "x", "retype": "x"}[change]
            assert f"{named}:" in record.failure["message"] or f"column {named}" in record.failure["message"]
            assert 3 == len(target.sink.rows("t"))
            return
        assert "proven" == record.proof["verdict"]
        if change in ("add", "rename"):
            assert record.drift or write == "replace", "the record must name the change"
        found = live(target.sink, "t", list(after))
        new = self._memory(target).rows("t")
        old = (
            [] if write != "append" else [(*row, None) if change == "add" else row for row in _rows(before, (1, 2, 3))]
        )
        if change == "retype":
            old = [(*row[:2], str(row[2])) for row in old]
        if change in ("rename", "drop"):
            old = [row[:2] + (None,) * (len(after) - 2) for row in old]
        assert values([*new, *old], after) == values(found, after)

    # -- C15: concurrency -----------------------------------------------------------------------------------------

    @certifies("C15")
    def test_two_runs_of_one_stream_never_mix(self, target: Route) -> None:
        """While one run holds the stream, another is refused with the holder named, or waits when it is asked to."""
        rows = sample_rows(range(1, 101))
        target.source.put("t", rows)
        with self._standing(target, **WRITES["replace"]) as go:
            failure = target.run(**WRITES["replace"]).failure
            assert failure is not None
            assert ("DP701", "conflict") == (failure["code"], failure["category"])
            assert "pid" in failure["message"]
            threading.Timer(0.3, go.set).start()
            waited = target.run(**WRITES["replace"], options={"wait": 30})
        assert ("succeeded", len(rows)) == (waited.status, waited.changes["unchanged"])
        target.check_equal(rows)

    @certifies("C15")
    def test_two_pipelines_have_their_own_state(self, target: Route) -> None:
        """What one pipeline has loaded into its target says nothing to another one beside it."""
        rows = sample_rows(range(1, 21))
        target.source.put("t", rows)
        append = WRITES["append"]
        assert 20 == target.load(**append, pipeline="a", target="t").changes["inserted"]
        assert 20 == target.load(**append, pipeline="b", target="u").changes["inserted"]
        dpone.reset(target.manifest(**append, pipeline="b") | {}, select=["*"])
        assert 0 == target.load(**append, pipeline="a", target="t").changes["inserted"]
        target.check_equal(rows)

    @certifies("C15")
    def test_a_run_that_lost_its_lock_cannot_write(self, target: Route) -> None:
        """A zombie that wakes up after another run took over stages and commits nothing."""
        if isinstance(target.sink, KeepsState):
            inapplicable("its lock is one of the operating system, which a living process cannot lose")
        rows = sample_rows(range(1, 101))
        target.source.put("t", rows)
        took: list[str] = []

        def steal(event: Event) -> None:
            if event.name == "load.committing" and not took:
                took.append(event.run_id)
                target.sink.setup(["UPDATE _dpone_locks SET fence = fence + 1, run_id = 'another'"])

        record = target.run(**WRITES["replace"], options={"on_event": steal})
        assert record.failure is not None, "a run without its lock committed"
        assert record.failure["category"] in ("conflict", "sink_unavailable"), record.failure
        target.load(**WRITES["replace"])
        target.check_equal(rows)

    # -- C16: state -----------------------------------------------------------------------------------------------

    @certifies("C16")
    @pytest.mark.parametrize("how", ["garbage", "truncated", "newer"])
    def test_damaged_state_is_refused_with_the_repair_named(self, target: Route, how: str) -> None:
        """State that is damaged, or was written by a newer version, is never guessed at; `dpone reset` repairs it."""
        rows = sample_rows(range(1, 21))
        target.source.put("t", rows)
        target.load(**WRITES["append"])
        _damage(target.sink, how)
        more = [*rows, *sample_rows(range(100, 105), minute=59)]
        target.source.put("t", more)
        failure = target.refusal(**WRITES["append"])
        assert ("state", "DP501" if how == "newer" else "DP502") == (failure["category"], failure["code"])
        assert ("version" if how == "newer" else "dpone reset") in failure["remedy"]
        if how != "newer":
            dpone.reset(target.manifest(**WRITES["append"]), select=["*"])
            target.load(write="replace", pipeline="other", target="u")

    @certifies("C16")
    @pytest.mark.parametrize("write", WRITES)
    @pytest.mark.parametrize("what", ["target", "state"])
    def test_what_was_restored_alone_loses_and_doubles_nothing(
        self, target: Route, write: str, what: Literal["target", "state"]
    ) -> None:
        """Target or state from a backup that is two loads old: the run goes on where that costs nothing.

        Where rows would be lost or doubled it is refused (DP503). Then the repair that it names makes the next run
        exact; or it says that nothing safe can be done, and the way out that it names is exact.
        """
        self.need(Capability(f"write.{write}"))
        rounds = [sample_rows(range(1, 41), minute=1)]
        for number in (1, 2, 3):
            fresh = sample_rows(range(100 * number, 100 * number + 10), minute=10 * number)
            rounds.append([*rounds[-1], *fresh])
        restore = None
        for rows in rounds[:3]:
            target.source.put("t", rows)
            target.load(**WRITES[write])
            restore = restore or _backup(target.sink, what)
        assert restore is not None
        restore()
        target.source.put("t", rounds[3])
        manifest = target.manifest(**WRITES[write])
        record = target.run(**WRITES[write])
        if record.failure is not None:
            assert ("DP503", "state") == (record.failure["code"], record.failure["category"]), record.failure
            assert "dpone repair" in record.failure["remedy"]
            assert "replace" != write, "a replace depends on no state"
            [status], [repaired] = dpone.status(manifest), dpone.repair(manifest)
            assert (True, True) == (bool(status.faults), bool(repaired.faults))
            if repaired.refusal:
                assert "append" == write
                assert "dpone reset" in repaired.refusal
                self._empty(target)
                dpone.reset(manifest, select=["*"])
            else:
                assert repaired.done
                assert () == dpone.repair(manifest)[0].faults
            record = target.load(**WRITES[write])
        assert values(rounds[3]) == values(target.sink.rows("t", list(SAMPLE)))
        assert 0 == target.load(**WRITES[write]).changes["inserted"] or write == "replace"

    @certifies("C16")
    def test_a_repair_of_damaged_receipts_makes_the_next_run_exact(self, target: Route) -> None:
        """`dpone repair` removes what cannot be read; the next run is exact, and a second repair finds nothing."""
        write = "merge" if self.described().supports(Capability.WRITE_MERGE).level == "full" else "replace"
        target.source.put("t", sample_rows(range(1, 21), minute=1))
        target.load(**WRITES[write])
        _damage(target.sink, "garbage")
        rows = [*sample_rows(range(1, 21), minute=1), *sample_rows(range(100, 105), minute=59)]
        target.source.put("t", rows)
        manifest = target.manifest(**WRITES[write])
        assert "dpone repair" in target.refusal(**WRITES[write])["remedy"]
        [repaired] = dpone.repair(manifest)
        assert (True, "") == (repaired.done, repaired.refusal)
        assert () == dpone.repair(manifest)[0].faults
        target.load(**WRITES[write])
        target.check_equal(rows)

    # -- C17: the record ------------------------------------------------------------------------------------------

    @certifies("C17")
    @pytest.mark.parametrize("write", WRITES)
    def test_every_count_is_the_truth(self, target: Route, write: str) -> None:
        """The counts of the record are those that one finds by counting rows at both ends."""
        self.need(Capability(f"write.{write}"))
        first = sample_rows(range(1, 101))
        target.source.put("t", first)
        target.load(**WRITES[write])
        now = [*sample_rows(range(1, 31), version=1, minute=59), *first[30:], *sample_rows(range(200, 211), minute=59)]
        if write == "append":
            now = [*first, *sample_rows(range(200, 211), minute=59)]
        target.source.put("t", now)
        old = {row[0]: row for row in values(live(target.sink, "t", list(SAMPLE)))}
        record = target.load(**WRITES[write])
        new = {row[0]: row for row in values(live(target.sink, "t", list(SAMPLE)))}
        inserted = len(new.keys() - old.keys())
        updated = sum(old[key] != new[key] for key in new.keys() & old.keys())
        assert len(target.sink.rows("t", ["id"])) == record.rows["final"]
        assert len(old) == record.rows["final_before"]
        if write in ("replace", "delete_insert"):
            assert (len(now), len(old)) == (record.changes["inserted"], record.changes["deleted"])
        else:
            versions = updated if write == "scd2" else 0  # a row that changed is a version more
            assert (inserted + versions, updated) == (record.changes["inserted"], record.changes["updated"])
        counted = sum(record.changes[name] for name in ("inserted", "updated", "unchanged", "stale", "collapsed"))
        counted -= updated if write == "scd2" else 0
        assert record.rows["staged"] == record.rows["extracted"] == counted

    @certifies("C17")
    def test_the_record_is_complete(self, target: Route) -> None:
        """A run that works and one that fails leave a record with every field, in the store and as JSON."""
        target.source.put("t", sample_rows(range(1, 21)))
        good = target.result(**WRITES["replace"])
        bad = target.result(options={"on_event": dies_at("load.committing")}, **WRITES["replace"], pipeline="bad")
        for result, status in ((good, "succeeded"), (bad, "failed")):
            assert result.path is not None
            document = json.loads(result.path.read_text())
            assert (status, result.record.run_id) == (document["status"], document["run_id"])
            assert document == json.loads(result.to_json())
            [stream] = document["streams"]
            assert (self.connector, "memory") == (stream["sink"]["connector"], stream["source"]["connector"])
            assert set(StreamRecord("t").__dict__) == set(stream)
            assert (stream["failure"] is None) == (status == "succeeded")

    # -- what the checks share ------------------------------------------------------------------------------------

    def _empty(self, target: Route) -> None:
        """Take every row out of the target, as the message of a refused repair says."""
        if isinstance(target.sink, KeepsState):
            target.sink.empty("t")
        else:
            target.sink.setup(["DELETE FROM t"])

    def _memory(self, target: Route) -> MemoryHarness:
        assert isinstance(target.source, MemoryHarness)
        return target.source

    def _table(self, target: Route, types: Mapping[str, str], numbers: Sequence[int]) -> None:
        rows = _rows(types, numbers)
        arrays = [
            pa.array([row[index] for row in rows]).cast(parse_type(type_)[0])
            for index, type_ in enumerate(types.values())
        ]
        self._memory(target).place.put("t", types, [pa.RecordBatch.from_arrays(arrays, list(types))], ["id"])

    @contextmanager
    def _standing(self, target: Route, **settings: Any) -> Iterator[threading.Event]:
        """A run that stands still after its first slice until the event is set."""
        reached, go = threading.Event(), threading.Event()

        def listen(event: Event) -> None:
            if event.name == "slice.staged" and event.fields["slice"] == 0:
                reached.set()
                assert go.wait(30)

        thread = threading.Thread(target=target.run, kwargs={**settings, "options": {"on_event": listen}})
        thread.start()
        try:
            assert reached.wait(30)
            yield go
        finally:
            go.set()
            thread.join(30)


_MEDDLE = {
    "altered": "UPDATE {stage} SET name = 'another' WHERE id = 7",
    "lost": "DELETE FROM {stage} WHERE id = 7",
    "doubled": "INSERT INTO {stage} ({columns}) SELECT {columns} FROM {stage} WHERE id = 7",
}
_ALL = (
    "boolean", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "text",
    "json", "uuid", "binary", "date", "time", "timestamp", "timestamptz", "decimal(38,0)", "decimal(10,10)",
)  # fmt: skip


def _rows(types: Mapping[str, str], numbers: Sequence[int]) -> list[Row]:
    """Rows that differ in every column; `at` grows with the number."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    made: dict[str, Any] = {"text": "v{}".format, "timestamptz": lambda n: start + timedelta(minutes=n)}
    return [tuple(made.get(type_, int)(n) for type_ in types.values()) for n in numbers]


def _backup(harness: Harness, what: Literal["target", "state"]) -> Callable[[], None]:
    """Copy the target `t`, or dpone's state; the function puts the copy back."""
    if isinstance(harness, KeepsState):
        return harness.backup(what, "t")
    tables = ("t",) if what == "target" else ("_dpone_loads", "_dpone_locks", "_dpone_slices")
    for table in tables:
        harness.setup([f"CREATE TABLE kept_{table} AS SELECT * FROM {table}"])

    def restore() -> None:
        for table in tables:
            harness.setup([f"DELETE FROM {table}", f"INSERT INTO {table} SELECT * FROM kept_{table}"])

    return restore


def _damage(harness: Harness, how: str) -> None:
    """Damage the state that dpone keeps beside the target."""
    if isinstance(harness, KeepsState):
        harness.damage(how)
        return
    harness.setup(
        {
            "garbage": ["UPDATE _dpone_loads SET document = 'garbage'"],
            "truncated": ["UPDATE _dpone_loads SET document = substr(document, 1, 20)"],
            "newer": ["UPDATE _dpone_meta SET value = '99' WHERE name = 'layout'"],
        }[how]
    )


def _versions(sink: Harness) -> list[tuple[Any, ...]]:
    """Key, name, from, to and whether it is current, of every version; times as counts of microseconds."""
    types = {"id": "int32", "name": "text", VALID_FROM: "timestamptz", VALID_TO: "timestamptz", IS_CURRENT: "boolean"}
    return [
        tuple(
            None if cell is None else texts.normal(type_, cell) for type_, cell in zip(types.values(), row, strict=True)
        )
        for row in sink.rows("t", list(types))
    ]
