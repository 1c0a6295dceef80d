"""The only retry loop. Connectors say what can be retried; it is done here, counted, and never twice over.

A stream is tried again as a whole: its durable slices stay, so a new attempt goes on where the last one stopped.
Waits grow exponentially with full jitter, as in https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event as Flag
from typing import TypeVar

from dpone.errors import Cancelled, DponeError

T = TypeVar("T")

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0


@dataclass
class Retries:
    """How often to try again, and what was done so far."""

    attempts: int = 3
    total: int = 0
    by_category: dict[str, int] = field(default_factory=dict)
    waited_s: float = 0.0

    def run(self, act: Callable[[], T], stop: Flag, on_retry: Callable[[DponeError, float], None]) -> T:
        """Do `act`; after a retryable error, wait and do it again. Raises the last error, or Cancelled."""
        while True:
            try:
                return act()
            except DponeError as error:
                # DP701: a lock that is held has its own wait (`--wait`).
                if not error.retryable or error.code == "DP701" or self.total + 1 >= self.attempts:
                    raise
                self.total += 1
                self.by_category[error.category] = self.by_category.get(error.category, 0) + 1
                ceiling = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**self.total)
                wait = error.wait if error.wait is not None else random.uniform(0, ceiling)  # noqa: S311 - jitter
                self.waited_s += wait
                on_retry(error, wait)
                if stop.wait(wait):
                    raise Cancelled("cancelled while waiting to retry", remedy="run again to continue") from error
