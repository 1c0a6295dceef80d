"""The only retry loop. Connectors say what can be retried; it is done here, counted, and never twice over.

A stream is tried again as a whole: its durable slices stay, so a new attempt goes on where the last one stopped. The
n-th wait is drawn from 0 to `longest_wait(n)` seconds (full jitter, so that many clients do not come back together:
https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/). Where the system itself named a
time (`DponeError.wait`), exactly that is waited. What may be spent is bounded twice:

    attempts   of a stream, in a row, without a new durable slice; one that made a slice durable starts the count anew
    budget     of a run, for all of its streams together: RETRIES_OF_A_RUN retries, and so many seconds of waiting

A wait that does not fit into what is left of the budget is not begun: the run fails at once and says so.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from dpone import clock
from dpone.errors import Cancelled, Category, DponeError

T = TypeVar("T")

FIRST_WAIT_S = 0.5
FACTOR = 2.0
LONGEST_WAIT_S = 60.0
RETRIES_OF_A_RUN = 100

RETRIED: frozenset[Category] = frozenset(
    {"source_unavailable", "sink_unavailable", "rate_limited", "timeout", "resource", "conflict"}
)
"""The categories of which some errors pass by themselves. No connector can have another one tried again."""


class Stop(Protocol):
    """What a `threading.Event` is: whether the run is to end, and a wait that ends early when it is."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, and say whether the run is to end."""


def longest_wait(number: int) -> float:
    """The longest wait, in seconds, before the `number`-th retry in a row, counted from 1."""
    return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * FACTOR ** min(number - 1, 60)))


class Budget:
    """What the retries of one run may spend, over all of its streams and threads."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waited = 0.0
        self._retries = 0
        self._guard = threading.Lock()

    def spend(self, wait: float) -> str:
        """Take one retry with its wait out of the budget. When it does not fit: why, and nothing is taken."""
        with self._guard:
            if self._retries >= RETRIES_OF_A_RUN:
                return f"the run has used its {RETRIES_OF_A_RUN} retries"
            if self._waited + wait > self.seconds:
                left = self.seconds - self._waited
                return f"a wait of {wait:,.1f} s does not fit into the {left:,.1f} s that are left of the run's budget"
            self._retries += 1
            self._waited += wait
            return ""


@dataclass
class Retries:
    """The retries of one stream: what is allowed, and what was done so far.

    `progress` gives the number of durable slices; `jitter(0, longest)` draws a wait.
    """

    attempts: int
    budget: Budget
    progress: Callable[[], int] = field(default=lambda: 0)
    jitter: Callable[[float, float], float] = random.uniform
    total: int = 0
    by_category: dict[str, int] = field(default_factory=dict)
    waited_s: float = 0.0
    retry_after_honoured: int = 0

    def run(self, act: Callable[[], T], stop: Stop, on_retry: Callable[[DponeError, float], None]) -> T:
        """Do `act`; after a retryable error, wait and do it again.

        Raises the last error, which then says how often it was tried and why no more; or Cancelled.
        """
        failed = 0  # attempts in a row that made no slice durable
        durable = self.progress()
        while True:
            try:
                return act()
            except DponeError as error:
                # DP701: a lock that is held has its own wait (`--wait`).
                if not error.retryable or error.category not in RETRIED or error.code == "DP701":
                    raise
                failed = 1 if self.progress() > durable else failed + 1
                durable = max(durable, self.progress())
                wait = self.jitter(0, longest_wait(failed)) if error.wait is None else error.wait
                refused = "no attempt is left" if failed >= self.attempts else self.budget.spend(wait)
                if refused:
                    self._say(error, refused)
                    raise
                self._retry(error, wait, stop, on_retry)

    def as_dict(self) -> dict[str, object]:
        """The counts as the run record holds them."""
        return {
            "total": self.total,
            "by_category": self.by_category,
            "waited_s": round(self.waited_s, 3),
            "retry_after_honoured": self.retry_after_honoured,
        }

    def _retry(self, error: DponeError, wait: float, stop: Stop, on_retry: Callable[[DponeError, float], None]) -> None:
        self.total += 1
        self.by_category[error.category] = self.by_category.get(error.category, 0) + 1
        self.retry_after_honoured += error.wait is not None
        on_retry(error, wait)
        start = clock.monotonic()
        stopped = stop.wait(wait)
        self.waited_s += clock.monotonic() - start
        if stopped:
            raise Cancelled("cancelled while waiting to retry", remedy="run again to continue") from error

    def _say(self, error: DponeError, refused: str) -> None:
        times = "once" if self.total == 0 else f"{self.total + 1} times"
        error.message = f"{error.message} (tried {times}: {refused})"
        error.args = (error.message,)
