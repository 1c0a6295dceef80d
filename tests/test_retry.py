"""The one retry loop: its ladder, its budget, its counts, and what it never tries again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dpone
from dpone.engine import retry
from dpone.engine.retry import Budget, Retries
from dpone.errors import (
    AuthError,
    Cancelled,
    Category,
    ConflictError,
    DponeError,
    RateLimited,
    ResourceError,
    SourceUnavailable,
)
from dpone.testing.harness import sample_rows
from dpone.testing.kit import Route
from dpone.testing.memory.harness import MemoryHarness


class Stopwatch:
    """Waits no time, and remembers how long it should have been; from the `stops`-th wait on it says stop."""

    def __init__(self, stops: int = 0) -> None:
        self.waits: list[float] = []
        self._stops = stops

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Event`."""
        self.waits.append(timeout or 0.0)
        return self._stops == len(self.waits)


def gone(wait: float | None = None) -> SourceUnavailable:
    """An error that passes."""
    return SourceUnavailable("connecting: refused", remedy="check it", retryable=True, wait=wait)


def longest(_low: float, high: float) -> float:
    """No chance: always the longest wait."""
    return high


def failing(*errors: DponeError) -> Callable[[], str]:
    """An act that fails with these errors, one after the other, and then succeeds."""
    left = iter(errors)

    def act() -> str:
        error = next(left, None)
        if error is not None:
            raise error
        return "done"

    return act


def quiet(_error: DponeError, _wait: float) -> None:
    """Nobody is told."""


def test_the_ladder_grows_to_its_ceiling() -> None:
    """Half a second, 1, 2, 4, ... and never more than a minute; each wait is drawn between nothing and that."""
    assert [0.5, 1, 2, 4, 8, 16, 32, 60, 60] == [retry.longest_wait(number) for number in range(1, 10)]
    retries, stop = Retries(10, Budget(1000), jitter=longest), Stopwatch()
    assert "done" == retries.run(failing(*[gone()] * 9), stop, quiet)
    assert [0.5, 1, 2, 4, 8, 16, 32, 60, 60] == stop.waits
    assert {"total": 9, "by_category": {"source_unavailable": 9}} == {
        key: retries.as_dict()[key] for key in ("total", "by_category")
    }


@given(st.integers(1, 100_000))
def test_a_wait_is_never_longer_than_the_ceiling(number: int) -> None:
    """However many attempts there are."""
    assert 0 < retry.longest_wait(number) <= retry.LONGEST_WAIT_S


def test_the_last_error_says_how_often_and_why_no_more() -> None:
    """Five attempts are four retries; the error keeps its own words, category and remedy."""
    retries, stop = Retries(5, Budget(600)), Stopwatch()
    with pytest.raises(SourceUnavailable) as raised:
        retries.run(failing(*[gone() for _ in range(9)]), stop, quiet)
    assert "connecting: refused (tried 5 times: no attempt is left)" == raised.value.message == str(raised.value)
    assert (4, 4) == (retries.total, len(stop.waits))


def test_one_attempt_is_no_retry() -> None:
    """attempts: 1 never waits, and says so."""
    retries, stop = Retries(1, Budget(600)), Stopwatch()
    with pytest.raises(SourceUnavailable, match=r"tried once: no attempt is left"):
        retries.run(failing(gone()), stop, quiet)
    assert ([], 0) == (stop.waits, retries.total)


def test_a_named_wait_is_honoured_exactly() -> None:
    """Longer than the ladder's ceiling too, as long as the budget has room; it is counted."""
    retries, stop = Retries(5, Budget(600)), Stopwatch()
    limited = RateLimited("asking: 429", retryable=True, wait=90.0)
    assert "done" == retries.run(failing(limited), stop, quiet)
    assert ([90.0], 1) == (stop.waits, retries.retry_after_honoured)


def test_a_wait_that_does_not_fit_into_the_budget_is_not_begun() -> None:
    """It fails at once and names both numbers, instead of waiting for nothing."""
    retries, stop = Retries(5, Budget(600)), Stopwatch()
    with pytest.raises(RateLimited, match=r"a wait of 3,600.0 s does not fit into the 600.0 s that are left"):
        retries.run(failing(RateLimited("asking: 429", retryable=True, wait=3600.0)), stop, quiet)
    assert [] == stop.waits


def test_the_budget_is_shared_by_all_streams() -> None:
    """What one stream has waited, another one cannot."""
    budget = Budget(100)
    first, second = Retries(5, budget), Retries(5, budget)
    assert "done" == first.run(failing(gone(60.0)), Stopwatch(), quiet)
    with pytest.raises(SourceUnavailable, match=r"60\.0 s does not fit into the 40\.0 s"):
        second.run(failing(gone(60.0)), Stopwatch(), quiet)


def test_threads_cannot_overdraw_the_budget() -> None:
    """Many at once get exactly what there is."""
    budget = Budget(1_000_000)
    with ThreadPoolExecutor(8) as pool:
        granted = [not refused for refused in pool.map(lambda _: budget.spend(0.5), range(1000))]
    assert retry.RETRIES_OF_A_RUN == sum(granted)
    assert "has used its" in budget.spend(0)


def test_progress_gives_the_attempts_back_but_not_the_budget() -> None:
    """A long load over a bad link goes on as long as it gets further, until the budget is spent."""
    durable = iter(range(1_000_000))
    act = failing(*[gone(1.0) for _ in range(50)])
    assert "done" == Retries(2, Budget(50), lambda: next(durable)).run(act, Stopwatch(), quiet)
    durable = iter(range(1_000_000))
    act = failing(*[gone(1.0) for _ in range(50)])
    with pytest.raises(SourceUnavailable, match=r"tried 31 times: a wait of 1\.0 s does not fit into the 0\.0 s"):
        Retries(2, Budget(30), lambda: next(durable)).run(act, Stopwatch(), quiet)


def test_the_ladder_starts_anew_after_progress() -> None:
    """Waits grow only while nothing moves."""
    counts = iter([0, 0, 0, 0, 0, 3, 3, 3, 3])
    stop = Stopwatch()
    retries = Retries(9, Budget(600), lambda: next(counts), longest)
    retries.run(failing(*[gone() for _ in range(4)]), stop, quiet)
    assert [0.5, 1, 0.5, 1] == stop.waits


@pytest.mark.parametrize("category", get_args(Category))
def test_only_what_may_pass_by_itself_is_tried_again(category: Category) -> None:
    """Credentials, rights, schemas, data, configuration and bugs never, whatever a connector says of its error."""
    kinds = {kind.category: kind for kind in DponeError.__subclasses__()}
    stop = Stopwatch()
    retries = Retries(3, Budget(600))
    act = failing(kinds[category]("no", retryable=True))
    if category in retry.RETRIED:
        assert "done" == retries.run(act, stop, quiet)
        return
    with pytest.raises(kinds[category], match=r"^no$"):
        retries.run(act, stop, quiet)
    assert (0, []) == (retries.total, stop.waits)


def test_a_held_lock_is_not_a_retry() -> None:
    """It has a wait of its own, `--wait`."""
    with pytest.raises(ConflictError):
        Retries(5, Budget(600)).run(failing(ConflictError("held", code="DP701", retryable=True)), Stopwatch(), quiet)


def test_an_error_that_is_not_retryable_is_raised_as_it_is() -> None:
    """A category that may pass does not mean that every error of it does: a full disk stays full."""
    with pytest.raises(ResourceError, match=r"^the disk is full$"):
        Retries(5, Budget(600)).run(failing(ResourceError("the disk is full")), Stopwatch(), quiet)


def test_a_stop_ends_the_wait() -> None:
    """The run is cancelled; the seconds that were not waited are not counted."""
    retries = Retries(5, Budget(600))
    with pytest.raises(Cancelled):
        retries.run(failing(gone(500.0)), Stopwatch(stops=1), quiet)
    assert retries.waited_s < 5


# -- in a run --------------------------------------------------------------------------------------------------------


@pytest.fixture
def route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Route]:
    """From memory to memory, 100 rows in slices of 40; waits are short."""
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)
    source, sink = MemoryHarness(tmp_path), MemoryHarness(tmp_path)
    source.put("t", sample_rows(range(100)))
    yield Route(tmp_path, source, sink)
    source.close()
    sink.close()


def script(end: Any) -> Any:
    """What happens in a place."""
    return end.place.script


def with_retries(route: Route, **settings: Any) -> dict[str, Any]:
    """The manifest of the route with settings for retries."""
    return route.manifest(write="replace") | {"retries": settings}


def test_a_retry_goes_on_after_the_durable_slices(route: Route) -> None:
    """The source fails after the second slice: no row of the first two is read again, and all of it is counted."""
    script(route.source).fails("read", gone(), nth=3)
    record = route.load(write="replace")
    assert {"total": 1, "by_category": {"source_unavailable": 1}, "retry_after_honoured": 0} == {
        key: value for key, value in record.retries.items() if key != "waited_s"
    }
    assert 0 <= record.retries["waited_s"] < 1
    assert {"total": 3, "done": 3, "resumed": 2} == record.slices
    assert 4 == script(route.source).seen["read"]  # two slices, the one that failed, and that one again
    route.check_equal(sample_rows(range(100)))


def test_a_load_that_moves_on_survives_more_failures_than_attempts(route: Route) -> None:
    """With two attempts, two failures, each after another durable slice."""
    for nth in (2, 4):
        script(route.source).fails("read", gone(), nth=nth)
    result = dpone.run(with_retries(route, attempts=2), store=route.folder / "store")
    assert (True, 2) == (result.ok, result.streams[0].retries["total"])
    route.check_equal(sample_rows(range(100)))


def test_a_load_that_stands_still_ends(route: Route) -> None:
    """The third slice always fails: the attempts without a new slice are used up, and the durable ones stay."""

    def fail(batch: Any) -> Any:
        if script(route.source).seen["read"] > 2:
            raise gone()
        return batch

    script(route.source).on("read", fail)
    [stream] = dpone.run(with_retries(route, attempts=3), store=route.folder / "store").streams
    assert stream.failure is not None
    assert stream.failure["message"].endswith("(tried 3 times: no attempt is left)")
    assert (2, True) == (stream.retries["total"], stream.failure["retryable"])
    script(route.source).on("read", lambda batch: batch)


def test_the_manifest_sets_attempts_and_budget(route: Route) -> None:
    """A wait that the system names and the budget has no room for ends the run at once."""
    script(route.source).fails("read", RateLimited("reading: 429", retryable=True, wait=60.0))
    [stream] = dpone.run(with_retries(route, budget="30s"), store=route.folder / "store").streams
    assert stream.failure is not None
    assert "does not fit into the 30.0 s" in stream.failure["message"]
    assert ("rate_limited", 0) == (stream.failure["category"], stream.retries["total"])


def test_a_named_wait_is_in_the_record(route: Route) -> None:
    """Honoured, and counted as such."""
    script(route.source).fails("read", RateLimited("reading: 429", retryable=True, wait=0.2))
    record = route.load(write="replace")
    assert (1, {"rate_limited": 1}) == (record.retries["retry_after_honoured"], record.retries["by_category"])
    assert 0.2 <= record.retries["waited_s"] < 2


def test_a_wrong_login_is_not_tried_again(route: Route) -> None:
    """Not even when the connector says that it could help: accounts are locked by that."""
    script(route.source).fails("describe", AuthError("connecting: no", remedy="check it", retryable=True))
    failure = route.run(write="replace").failure
    assert failure is not None
    assert ("auth", "connecting: no") == (failure["category"], failure["message"])


def test_stopping_while_a_retry_waits(route: Route) -> None:
    """The wait ends at once, the record says cancelled."""
    script(route.source).fails("read", RateLimited("reading: 429", retryable=True, wait=500.0))
    stop = threading.Event()

    def listen(event: Any) -> None:
        if event.name == "stream.retry":
            threading.Timer(0.1, stop.set).start()

    result = dpone.run(with_retries(route), store=route.folder / "store", on_event=listen, stop=stop)
    assert ("cancelled", 130) == (result.record.status, result.exit_code)
    assert result.record.time["duration_s"] < 10
