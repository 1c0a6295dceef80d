"""The progress of a run on stderr: bars on a terminal, else a few quiet lines, or JSON lines.

Listeners are called from the threads of the engine, and `stopping` and `restore` from a signal handler, which must
not print through a buffered stream that the interrupted code may be using: they write to the descriptor.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dpone.cli.render import event_line, number
from dpone.cli.terminal import Terminal, write
from dpone.events import redacted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from dpone.events import Event

_DRAWN = ("stream.planned", "stream.finished", "run.finished")
STOPPING = "stopping after the current batch; what is durable is kept (once more to exit at once)"


class JsonLines:
    """Every event but the progress ones, one JSON document a line."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._guard = threading.RLock()

    def __call__(self, event: Event) -> None:
        """Write the event."""
        if event.name == "rows.read":
            return
        line = json.dumps(redacted(event.as_dict(), self._terminal.redact), default=str)
        with self._guard:
            write(sys.stderr, line)

    def stopping(self) -> None:
        """Say that the run is about to stop."""
        os.write(2, (json.dumps({"v": 1, "level": "warning", "event": "run.stopping"}) + "\n").encode())

    def restore(self) -> None:
        """Nothing to restore."""


class Lines:
    """At most three lines per healthy stream; failures whole."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._guard = threading.RLock()

    def __call__(self, event: Event) -> None:
        """Write a line, if the event is worth one."""
        if self._terminal.quiet and event.level not in ("warning", "error"):
            return
        line = self._terminal.redact(event_line(event, verbose=self._terminal.verbose))
        if line:
            stamp = datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            with self._guard:
                write(sys.stderr, f"{stamp} {line}")

    def stopping(self) -> None:
        """Say that the run is about to stop."""
        os.write(2, (STOPPING + "\n").encode())

    def restore(self) -> None:
        """Nothing to restore."""


class Bars:
    """One line per stream, redrawn in place. A bar only where the number of rows is known, else count and rate."""

    def __init__(self, terminal: Terminal, progress: Progress) -> None:
        self._terminal = terminal
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._guard = threading.RLock()

    def __call__(self, event: Event) -> None:
        """Draw the event."""
        if event.stream:
            with self._guard:
                self._stream(event)
        # What went well is in the bars and in the table that follows them.
        drawn = event.name in _DRAWN and event.level in ("debug", "info")
        line = "" if drawn else self._terminal.redact(event_line(event, verbose=self._terminal.verbose))
        if line:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _stream(self, event: Event) -> None:
        found = event.fields
        task = self._tasks.get(event.stream)
        if task is None:
            task = self._progress.add_task(event.stream, total=None, counted="", state="connecting", estimate=False)
            self._tasks[event.stream] = task
        match event.name:
            case "stream.planned":
                # The estimate is of the whole table: it says nothing about a window of it.
                self._progress.update(task, state="reading", estimate=found["mode"] == "full")
            case "rows.read":
                self._read(task, int(found["rows"]), found.get("estimated"))
            case "load.committing":
                self._progress.update(task, state="publishing")
            case "stream.retry":
                self._progress.update(task, state=f"{found['category']}; again in {found['wait_s']:.0f} s")
            case "stream.finished":
                self._progress.update(task, state=str(found["status"]))
                self._progress.stop_task(task)

    def _read(self, task: TaskID, rows: int, estimated: int | None) -> None:
        shown = next(item for item in self._progress.tasks if item.id == task)
        total = estimated if shown.fields["estimate"] and estimated else None
        rate = f"{rows / shown.elapsed:,.0f} rows/s" if shown.elapsed else ""
        counted = f"{number(rows)} of about {number(total)}" if total and rows <= total else f"{number(rows)} rows"
        self._progress.update(task, completed=min(rows, total or rows), total=total, counted=f"{counted}  {rate}")

    def stopping(self) -> None:
        """Say that the run is about to stop, at the next redraw."""
        for task in list(self._tasks.values()):
            self._progress.update(task, state="stopping; once more to exit at once")

    def restore(self) -> None:
        """Show the cursor again, which the bars hide."""
        os.write(2, b"\x1b[?25h\n")


Shown = JsonLines | Lines | Bars


@contextmanager
def progress(terminal: Terminal) -> Iterator[Shown]:
    """What listens to a run, for this terminal."""
    if terminal.json_log:
        yield JsonLines(terminal)
    elif terminal.log_format == "auto" and not terminal.quiet and lively():
        with _rich() as drawn:
            yield Bars(terminal, drawn)
    else:
        yield Lines(terminal)


def lively() -> bool:
    """Whether stderr may be redrawn: a terminal, outside of CI, with colours welcome."""
    unwanted = any(os.environ.get(name) for name in ("NO_COLOR", "CI")) or os.environ.get("TERM") == "dumb"
    return sys.stderr.isatty() and not unwanted


def _rich() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class KnownBar(ProgressColumn):
        bar = BarColumn(bar_width=24)

        def render(self, task: Task) -> Any:
            return self.bar.render(task) if task.total else Text("")

    return Progress(
        TextColumn(" {task.description}", markup=False),
        KnownBar(),
        TextColumn("{task.fields[counted]}", markup=False),
        TextColumn("{task.fields[state]}", markup=False),
        console=Console(stderr=True),
        transient=True,  # the table that follows says it all again
    )
