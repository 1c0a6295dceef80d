"""Runs a manifest and dies at the N-th protocol event: an event of the engine, or a statement or file of a sink.

Lives in a module of its own, so that a fork server can start it many times a second without importing anything anew.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401 - imported once, in the fork server
import psycopg  # noqa: F401
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet  # noqa: F401

import dpone
import dpone.api
from dpone.connectors.duckdb.session import DuckDBSession
from dpone.connectors.postgres.session import PostgresSession
from dpone.connectors.sqlite.session import SqliteSession

_AUDITED = ("os.rename", "os.remove", "os.mkdir", "open")


class Countdown:
    """Kills the process at the N-th event; counts all of them when N is 0."""

    def __init__(self, deadly: int) -> None:
        self.deadly = deadly
        self.seen = 0

    def __call__(self, *_: object) -> None:
        """Note one event."""
        self.seen += 1
        if self.seen == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)


def run(path: str, deadly: int, report: str) -> None:
    """Run `path`, die at event `deadly` (0: never), and write how many events there were to `report`."""
    countdown = Countdown(deadly)
    for session in (DuckDBSession, PostgresSession, SqliteSession):
        for method in ("execute", "ingest", "begin", "commit", "digest"):
            _counted(session, method, countdown)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _AUDITED and "/sink" in str(arguments[0]):
            countdown()

    sys.addaudithook(audit)
    result = dpone.run(path, on_event=countdown)
    lines = [str(stream.failure) for stream in result.streams if stream.failure]
    Path(report).write_text("\n".join([str(countdown.seen), *lines]))


def _counted(session: type, method: str, countdown: Countdown) -> None:
    """Count before and after: a death after the statement, before anyone is told, is a case of its own."""
    original = getattr(session, method)

    def counted(*arguments: Any, **named: Any) -> Any:
        countdown()
        result = original(*arguments, **named)
        countdown()
        return result

    setattr(session, method, counted)
