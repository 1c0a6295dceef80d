"""What every check of the kit stands on: a connector's ends, a route between them, the marks that are counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import pytest

import dpone
from dpone.api import RunResult
from dpone.engine.record import StreamRecord
from dpone.errors import ConfigError
from dpone.events import Event
from dpone.sdk import Capability, Connector
from dpone.sdk.registry import connector_for
from dpone.strategy.base import DELETED_AT
from dpone.strategy.scd2 import IS_CURRENT
from dpone.testing import texts
from dpone.testing.found import harness_of
from dpone.testing.harness import SAMPLE, Harness, Role, Row
from dpone.testing.memory.harness import MemoryHarness

Test = TypeVar("Test", bound=Callable[..., Any])
SEED = int(os.environ.get("DPONE_TEST_SEED", "20261125"))
"""What everything random in the kit starts from; it is printed with the results."""

WRITES: Mapping[str, Mapping[str, Any]] = {
    "replace": {"write": "replace"},
    "append": {"write": "append", "cursor": "at"},
    "merge": {"write": "merge", "cursor": "at", "primary_key": ["id"]},
    "delete_insert": {"write": "delete_insert", "partition_by": ["id"]},
    "scd2": {"write": "scd2", "cursor": "at", "primary_key": ["id"]},
}
"""The ways to write, with the settings that each of them needs on the sample table."""

NOT_APPLICABLE = "not applicable: "


def certifies(check: str) -> Callable[[Test], Test]:
    """Mark a test as a part of a check, `C1` to `C21`."""

    def mark(test: Test) -> Test:
        marked: Test = pytest.mark.certifies(check)(test)
        return marked

    return mark


def inapplicable(reason: str) -> NoReturn:
    """End a test that says nothing about this connector. The kit decides this from facts, never the connector."""
    pytest.skip(NOT_APPLICABLE + reason)


def unavailable(reason: str) -> NoReturn:
    """Skip a test whose system or tool is not here; where DPONE_TEST_REQUIRE_SERVICES=1 this is a failure."""
    if os.environ.get("DPONE_TEST_REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Route:
    """One stream between two harnesses. Settings of a run are those of the stream in a manifest."""

    def __init__(self, folder: Path, source: Harness, sink: Harness, table: str = "t") -> None:
        self.folder = folder
        self.source = source
        self.sink = sink
        self.table = table

    def manifest(self, *, pipeline: str = "certify", **settings: Any) -> dict[str, Any]:
        """The manifest; slices are small, so that a load has many, and contents are proven."""
        ends = {"source": self.source.endpoint("source"), "sink": self.sink.endpoint("sink")}
        stream = {"proof": "digest", "slices": {"rows": 40}, "target": self.table} | settings
        source, sink = (connector_for(str(ends[role]["connector"])) for role in ("source", "sink"))
        late = source.supports(Capability.READ_LATE_COMMITS).level == "full"
        # Harnesses write whole tables anew, and a sink that cannot match rows would refuse those that it has.
        late = late and (stream.get("write") != "append" or sink.supports(Capability.WRITE_TIES).level == "full")
        cursor = stream.get("cursor")
        if not late and cursor:
            stream["cursor"] = {"lookback": "0s"} | ({"column": cursor} if isinstance(cursor, str) else dict(cursor))
        return {"version": 1, "pipeline": pipeline, **ends, "streams": {self.source.stream(self.table): stream}}

    def result(self, *, options: Mapping[str, Any] | None = None, **settings: Any) -> RunResult:
        """Run, whatever happens. `options` are those of `dpone.run`."""
        return dpone.run(self.manifest(**settings), store=self.folder / "store", **(options or {}))

    def run(self, **settings: Any) -> StreamRecord:
        """Run, whatever happens."""
        return self.result(**settings).streams[0]

    def load(self, **settings: Any) -> StreamRecord:
        """Run, which must succeed, be proven, and balance."""
        record = self.run(**settings)
        assert record.failure is None, record.failure
        assert ("succeeded", True) == (record.status, record.balance["holds"])
        assert "proven" == record.proof["verdict"], record.proof
        return record

    def refusal(self, **settings: Any) -> dict[str, Any]:
        """Run, which must fail by one clear error and leave the target as it was. The failure."""
        before = self.raw()
        record = self.run(**settings)
        assert record.failure is not None, "it must be refused"
        assert "internal" != record.failure["category"], record.failure
        assert record.failure["remedy"], record.failure
        assert before == self.raw(), "a refused run changed the target"
        return record.failure

    def raw(self) -> list[tuple[Any, ...]] | None:
        """The target's rows as the harness gives them, sorted; None when there is no target."""
        try:
            return sorted(self.sink.rows(self.table), key=repr)
        except Exception:  # noqa: BLE001 - each system has its own error for a table that is not there
            return None

    def check_equal(self, rows: Sequence[Row]) -> None:
        """The target holds exactly these rows of the sample table, and nothing of dpone's is left beside it.

        No rows may be no target: an append of nothing to nothing makes none of some.
        """
        if rows or self.raw() is not None:
            assert values(rows) == values(live(self.sink, self.table, list(SAMPLE)))
        assert [] == self.sink.debris()


def values(rows: Sequence[Row], columns: Mapping[str, str] = SAMPLE) -> list[tuple[Any, ...]]:
    """Rows as values that compare exactly, sorted."""
    types = list(columns.values())
    exact = [
        tuple(None if v is None else texts.normal(type_, v) for type_, v in zip(types, row, strict=True))
        for row in rows
    ]
    return sorted(exact, key=repr)


def live(sink: Harness, table: str, columns: Sequence[str]) -> list[Row]:
    """What a target holds of its source: all of its rows, but no versions of before and no marked ones."""
    types = sink.types(table)
    if IS_CURRENT in types:
        return [row[:-1] for row in sink.rows(table, [*columns, IS_CURRENT]) if texts.normal("boolean", row[-1])]
    if DELETED_AT in types:
        return [row[:-1] for row in sink.rows(table, [*columns, DELETED_AT]) if row[-1] is None]
    return sink.rows(table, columns)


def dies_at(name: str, **fields: Any) -> Callable[[Event], None]:
    """A listener that raises at an event with these fields: the end of a run that the engine does not expect."""

    def listen(event: Event) -> None:
        if event.name == name and fields.items() <= event.fields.items():
            raise RuntimeError(f"died at {name}")

    return listen


class Checks:
    """The base of every class of checks. A subclass of the author's sets `connector`.

    Each test gets what it asks for by name: `harness` (the connector's own), `memory` (the other end), `route` (from
    one to the other), `variant` (the form that is judged), `role`.
    """

    connector: ClassVar[str]

    @classmethod
    def described(cls) -> Connector:
        """The connector, from the registry."""
        return connector_for(cls.connector)

    @classmethod
    def harness_class(cls) -> type[Harness]:
        """The harness that the connector names."""
        return harness_of(cls.described())

    @classmethod
    def roles(cls) -> list[Role]:
        """What the connector can be."""
        found = cls.described()
        roles: list[tuple[Role, str]] = [("source", found.source), ("sink", found.sink)]
        return [role for role, reference in roles if reference]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One run of a test for each variant of the system, and for each role where the test asks for it."""
        variants = self.harness_class().variants
        if "variant" in metafunc.fixturenames and variants != ("",):
            metafunc.parametrize("variant", variants)
        if "role" in metafunc.fixturenames:
            metafunc.parametrize("role", self.roles())

    @pytest.fixture
    def variant(self) -> str:
        """The only variant of a system that has no others."""
        return ""

    @pytest.fixture
    def harness(self, tmp_path: Path, variant: str, request: pytest.FixtureRequest) -> Iterator[Harness]:
        """A place of the connector's system; what it was is noted with the test."""
        for made in opened(self.harness_class(), tmp_path / "place", variant):
            request.node.user_properties += [("dpone.system", made.version), ("dpone.served", made.served)]
            yield made

    @pytest.fixture
    def memory(self, tmp_path: Path) -> Iterator[MemoryHarness]:
        """The other end."""
        yield from opened(MemoryHarness, tmp_path / "memory")

    def need(self, capability: Capability) -> None:
        """End the test when the connector does not claim what it is about; that it refuses is tested under C20."""
        support = self.described().supports(capability)
        if support.level != "full":
            inapplicable(f"{capability} is {support.level.replace('_', ' ')}: {support.why}")


Made = TypeVar("Made", bound=Harness)


def opened(kind: type[Made], folder: Path, variant: str = "") -> Iterator[Made]:
    """A harness, closed at the end; a system that is not installed ends the test."""
    folder.mkdir(exist_ok=True)
    try:
        made = kind(folder, variant)
    except ConfigError as error:
        unavailable(f"{error.message}: {error.remedy}")
    try:
        yield made
    finally:
        made.close()
