"""C18 retries: what passes by itself is tried again on a published ladder, counted, and bounded; nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import dpone
from dpone.engine import retry
from dpone.errors import AuthError, DponeError, RateLimited, SinkUnavailable, SourceUnavailable
from dpone.events import Event
from dpone.testing.faults import Proxy
from dpone.testing.harness import Harness, Role, sample_rows
from dpone.testing.kit import Checks, Route, certifies, inapplicable, opened
from dpone.testing.memory.harness import MemoryHarness

ROWS = 180
SLICES = 3


class RetryChecks(Checks):
    """What must hold when something fails for a moment, in this connector or at the other end of its route."""

    @certifies("C18")
    def test_the_ladder_and_the_counts(self, halfway: _Halfway) -> None:
        """Two failures of the other end: two waits within the ladder, counted by category, and the load is exact."""
        halfway.fails(halfway.unavailable(), halfway.unavailable())
        stream, waits = halfway.run()
        assert stream.failure is None, stream.failure
        assert (2, {f"{halfway.side}_unavailable": 2}) == (stream.retries["total"], stream.retries["by_category"])
        assert all(wait <= retry.longest_wait(number) for number, wait in enumerate(waits, 1))
        assert 2 == len(waits)
        assert 0 <= stream.retries["waited_s"] <= sum(waits) + 1
        halfway.exact()

    @certifies("C18")
    def test_a_wait_that_the_system_names_is_honoured(self, halfway: _Halfway) -> None:
        """It is waited, and counted as such; one that does not fit into the budget ends the run at once."""
        halfway.fails(RateLimited("asked to wait", retryable=True, wait=0.3))
        stream, waits = halfway.run()
        assert (None, [0.3], 1) == (stream.failure, waits, stream.retries["retry_after_honoured"])
        halfway.exact()
        halfway.grow()
        halfway.fails(RateLimited("asked to wait", retryable=True, wait=3600.0))
        stream, waits = halfway.run(budget="30s")
        assert stream.failure is not None
        assert ("rate_limited", []) == (stream.failure["category"], waits)
        assert "does not fit into" in stream.failure["message"]
        stream, _ = halfway.run()
        assert stream.failure is None, stream.failure
        halfway.exact()

    @certifies("C18")
    def test_attempts_are_bounded_and_the_rerun_is_exact(self, halfway: _Halfway) -> None:
        """The last error says how often it was tried; the target is as it was."""
        halfway.fails(*(halfway.unavailable() for _ in range(2)))
        stream, waits = halfway.run(attempts=2)
        assert stream.failure is not None
        assert (f"{halfway.side}_unavailable", 1) == (stream.failure["category"], len(waits))
        assert "tried 2 times" in stream.failure["message"]
        stream, _ = halfway.run()
        assert stream.failure is None, stream.failure
        halfway.exact()

    @certifies("C18")
    def test_what_does_not_pass_is_not_tried_again(self, halfway: _Halfway) -> None:
        """Credentials above all: an account is locked by that. Not even when a connector says that it could help."""
        halfway.fails(AuthError("no", remedy="correct it", retryable=True))
        stream, waits = halfway.run()
        assert stream.failure is not None
        assert ("auth", []) == (stream.failure["category"], waits)

    @certifies("C18")
    def test_its_own_errors_that_do_not_pass(self, role: Role, tmp_path: Path, variant: str) -> None:
        """Every mistake in the settings ends at the first attempt, but for a system that is not there."""
        with _place(self.harness_class(), tmp_path / "own", variant) as own, _place(MemoryHarness, tmp_path) as other:
            source, sink = (own, other) if role == "source" else (other, own)
            source.put("t", sample_rows(range(3)))
            route = Route(tmp_path, source, sink)
            found = own.mistakes(role)
            assert found, "the harness knows no mistake"
            for what, (settings, category) in found.items():
                if category in retry.RETRIED:
                    continue
                waits: list[float] = []
                manifest = route.manifest(write="replace") | {role: settings}
                result = dpone.run(manifest, store=tmp_path / "store", on_event=_waits(waits))
                failure = result.streams[0].failure
                assert failure is not None, what
                assert (category, []) == (failure["category"], waits), what

    @certifies("C18")
    def test_a_dropped_connection_resumes_at_the_durable_slices(
        self, harness: Harness, memory: MemoryHarness, role: Role, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Cut after the second slice: one retry, and only what was not durable is staged again."""
        if harness.address is None:
            inapplicable("it has no network")
        monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.05)
        source, sink = (harness, memory) if role == "source" else (memory, harness)
        rows = sample_rows(range(1, 3001))
        source.put("t", rows)
        route = Route(tmp_path, source, sink)
        manifest = route.manifest(write="replace", slices={"rows": 200})
        staged: list[int] = []
        with Proxy(harness.address) as proxy:

            def listen(event: Event) -> None:
                if event.name == "slice.staged":
                    staged.append(event.fields["slice"])
                    if len(staged) == 2:
                        proxy.cut_after(0, "up")

            end = {role: harness.endpoint(role, address=proxy.address)}
            [stream] = dpone.run(manifest | end, store=tmp_path / "store", on_event=listen).streams
            assert stream.failure is None, stream.failure
            if stream.slices["total"] < 3:
                inapplicable("it reads such a table in one piece")
            assert (1, {f"{role}_unavailable": 1}) == (stream.retries["total"], stream.retries["by_category"])
            assert 1 == proxy.cuts
        assert 2 == stream.slices["resumed"]
        assert stream.slices["total"] == len(staged), "a durable slice was staged again"
        route.check_equal(rows)

    # -- what the checks share ------------------------------------------------------------------------------------

    @pytest.fixture
    def halfway(
        self, harness: Harness, memory: MemoryHarness, role: Role, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> _Halfway:
        """The connector in its role, and at the other end a memory that fails as it is told."""
        monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.05)
        source, sink = (harness, memory) if role == "source" else (memory, harness)
        return _Halfway(Route(tmp_path, source, sink), memory, role)


class _Halfway:
    """A load whose other end fails."""

    def __init__(self, route: Route, memory: MemoryHarness, role: Role) -> None:
        self.side: Role = "sink" if role == "source" else "source"
        self._route = route
        self._script = memory.place.script
        self._errors: list[DponeError] = []
        self._count = ROWS
        self._script.on("read" if self.side == "source" else "stage", self._strike)
        self.grow()

    def unavailable(self) -> DponeError:
        """An error of the other end that passes."""
        kind = SourceUnavailable if self.side == "source" else SinkUnavailable
        return kind("hung up", remedy="look", retryable=True)

    def fails(self, *errors: DponeError) -> None:
        """Fail so, at the next batches."""
        self._errors = list(errors)

    def grow(self) -> None:
        """More rows at the source."""
        self._count += 10
        self._route.source.put("t", sample_rows(range(self._count)))

    def run(self, **retries: Any) -> tuple[Any, list[float]]:
        """Run; the stream and the waits of its retries."""
        waits: list[float] = []
        manifest = self._route.manifest(write="replace", slices={"rows": ROWS // SLICES}) | {"retries": retries}
        result = dpone.run(manifest, store=self._route.folder / "store", on_event=_waits(waits))
        return result.streams[0], waits

    def exact(self) -> None:
        """The target is the source."""
        self._route.check_equal(sample_rows(range(self._count)))

    def _strike(self, batch: Any) -> Any:
        if self._errors:
            raise self._errors.pop(0)
        return batch


def _waits(found: list[float]) -> Callable[[Event], None]:
    """A listener that notes the wait before each retry."""

    def listen(event: Event) -> None:
        if event.name == "stream.retry":
            found.append(event.fields["wait_s"])

    return listen


@contextmanager
def _place(kind: type[Any], folder: Path, variant: str = "") -> Iterator[Any]:
    yield from opened(kind, folder, variant)
