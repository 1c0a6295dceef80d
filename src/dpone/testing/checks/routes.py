"""What must hold between two connectors, whatever each of them is: every way to write, the second run, every type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from dpone.sdk import Capability, Connector
from dpone.sdk.registry import connector_for
from dpone.testing.found import case_file, harness_of
from dpone.testing.harness import Harness, sample_rows
from dpone.testing.kit import WRITES, Route, inapplicable, opened
from dpone.testing.matrix import End, run_matrix

MOVED = ("inserted", "updated", "deleted")


class RouteChecks:
    """A subclass sets `source` and `sink`, each as `connector` or `connector:variant`."""

    source: ClassVar[str]
    sink: ClassVar[str]

    @pytest.fixture
    def origin(self, tmp_path: Path) -> Iterator[Harness]:
        """A place to read from."""
        yield from _place(self.source, tmp_path / "source")

    @pytest.fixture
    def destination(self, tmp_path: Path) -> Iterator[Harness]:
        """A place to write to."""
        yield from _place(self.sink, tmp_path / "sink")

    @pytest.fixture
    def route(self, tmp_path: Path, origin: Harness, destination: Harness) -> Route:
        """From one to the other."""
        return Route(tmp_path, origin, destination)

    @pytest.mark.parametrize("write", WRITES)
    def test_the_target_holds_what_the_source_held(self, route: Route, write: str) -> None:
        """A load makes the target equal, row by row, and proves it; unchanged, the next run changes nothing."""
        self._need(Capability(f"write.{write}"))
        first, settings = sample_rows(range(1, 131)), WRITES[write]
        route.source.put("t", first)
        assert len(first) == route.load(**settings).changes["inserted"]
        again = route.load(**settings)
        assert [0, 0, 0] == [again.changes[name] for name in MOVED]
        assert (0 if "cursor" in settings else len(first)) == again.rows["extracted"]
        route.check_equal(first)

        later, changed = sample_rows(range(200, 221), minute=58), sample_rows(range(100, 111), version=2, minute=58)
        now = {
            "replace": [*first[30:], *changed, *later],
            "append": [*first, *later],
        }.get(write, [*first, *changed, *later])
        now = list({row[0]: row for row in now}.values())
        route.source.put("t", now)
        record = route.load(**settings)
        expected = {
            "replace": (len(now), 0, len(first)),
            "append": (21, 0, 0),
            "merge": (21, 11, 0),
            "delete_insert": (len(now), 0, len(first)),
            "scd2": (32, 11, 0),
        }[write]
        assert expected == tuple(record.changes[name] for name in MOVED)
        route.check_equal(now)

    @pytest.mark.parametrize("write", ["append", "merge"])
    def test_late_ties_are_seen_once(self, route: Route, write: str) -> None:
        """Rows that come late with the cursor value of the checkpoint arrive once, the others there not again."""
        self._need(Capability(f"write.{write}"))
        self._need(Capability.WRITE_TIES)
        rows = sample_rows(range(1, 61))
        route.source.put("t", rows)
        route.load(**WRITES[write])
        rows = [*rows, (900, "twin", None, True, None, max(row[5] for row in rows), 1.5)]
        route.source.put("t", rows)
        assert 1 == route.load(**WRITES[write]).changes["inserted"]
        assert 0 == route.load(**WRITES[write]).rows["extracted"]
        route.check_equal(rows)

    def test_every_type(self, origin: Harness, destination: Harness, tmp_path: Path) -> None:
        """Each type of the source is what the case files say, and each value arrives or stops the run by its name."""
        found = run_matrix(_end(self.source, origin), _end(self.sink, destination), tmp_path / "store")
        assert [] == [f"{cell.case}: {problem}" for cell in found for problem in cell.problems]

    def _need(self, capability: Capability) -> None:
        support = _connector(self.sink).supports(capability)
        if support.level != "full":
            inapplicable(f"{capability} is {support.level.replace('_', ' ')}: {support.why}")


def _connector(name: str) -> Connector:
    return connector_for(_split(name)[0])


def _split(name: str) -> tuple[str, str]:
    connector, _, variant = name.partition(":")
    return connector, variant


def _end(name: str, harness: Harness) -> End:
    connector, variant = _split(name)
    return End(connector, harness, case_file(connector, variant), variant)


def _place(name: str, folder: Path) -> Iterator[Harness]:
    connector, variant = _split(name)
    yield from opened(harness_of(connector_for(connector)), folder, variant)
