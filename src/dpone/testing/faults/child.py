"""A run in a process of its own that dies at its N-th point: an event of the engine, an act on files, a method called.

Points are places in dpone's own code, so they are few, have names, and are the same in every run; `killed_at` with
`DponeCommand` walks the system calls in between.
"""

from __future__ import annotations

import json
import os
import signal as signals
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from dpone.sdk import load_object
from dpone.testing.faults.clock import moved_clock
from dpone.testing.faults.fork import Forked

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_ACTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")


@dataclass(frozen=True, slots=True)
class Points:
    """What is counted beside the events of the engine.

    below:   acts on files in this folder: opening to write, rename, remove, mkdir, rmdir, truncate, link
    network: connecting a Python socket (drivers in C connect unseen; count their methods)
    methods: `"module:Class.method"` references. Before and after the call are two points: a death after the
             statement, before anyone is told, is a case of its own
    """

    below: Path | None = None
    network: bool = True
    methods: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `exit_code` is that of `dpone run`, or minus the number of the signal that ended it.

    `points` are the names of the points it came to; at the last of them it died, if it died. `record` is the run
    record when the run came to its end, `error` what was raised instead.
    """

    exit_code: int
    points: tuple[str, ...]
    record: dict[str, Any] | None
    error: str = ""

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The failures of the streams, as in the record."""
        streams = self.record["streams"] if self.record else []
        return [stream["failure"] for stream in streams if stream["failure"]]


_EVENTS_ONLY = Points(network=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """A run in a process that stands still."""

    _child: Forked
    _report: Path

    def wake(self, timeout: float = 120.0) -> Outcome:
        """Let it go on, and wait for its end. Raises TimeoutError, having killed it."""
        os.killpg(self._child.pid, signals.SIGCONT)
        return _outcome(self._child.wait(timeout), self._report)


def run_child(
    manifest: str | os.PathLike[str],
    *,
    die_at: int = 0,
    signal: int = signals.SIGKILL,
    points: Points = _EVENTS_ONLY,
    listener: str = "",
    clock: float = 0.0,
    timeout: float = 120.0,
) -> Outcome:
    """Run a manifest in a child that sends itself the signal at point `die_at`, from 1; 0 is never.

    After SIGTERM the run stops as the command line does: durable slices stay, the record says cancelled. `listener` is
    a `"module:function"` reference that gets each event in the child, before the event counts as a point.
    dpone's clock is `clock` seconds off in it.
    Raises TimeoutError, having killed the child.
    """
    with _started(manifest, die_at, signal, points, listener, clock) as (child, report):
        return _outcome(child.wait(timeout), report)


@contextmanager
def standing_child(
    manifest: str | os.PathLike[str],
    *,
    stop_at: int | str,
    points: Points = _EVENTS_ONLY,
    listener: str = "",
    timeout: float = 120.0,
) -> Iterator[Standing]:
    """Run a manifest in a child that stands still at point `stop_at`, as by SIGSTOP or on a machine that is paused.

    That is a number, or the name of the point, the first time that it comes. The block begins when it stands; at its
    end the child is killed. Raises TimeoutError when it does not come there.
    """
    deadline = monotonic() + timeout
    with _started(manifest, stop_at, signals.SIGSTOP, points, listener, 0.0) as (child, report):
        while not _stands(child.pid):
            if monotonic() > deadline or child.poll() is not None:
                raise TimeoutError(f"the child did not come to point {stop_at}: {_outcome(0, report).points}")
            sleep(0.02)
        yield Standing(child, report)


def _stands(pid: int) -> bool:
    """Whether a process is stopped by a signal."""
    found = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return found.stdout.strip().startswith("T")


@contextmanager
def _started(
    manifest: str | os.PathLike[str], at: int | str, signal: int, points: Points, listener: str, clock: float
) -> Iterator[tuple[Forked, Path]]:
    with tempfile.TemporaryDirectory(prefix="dpone-child-") as folder:
        report = Path(folder, "report")
        child = Forked.start(_run, os.fspath(manifest), at, int(signal), points, listener, clock, str(report))
        try:
            yield child, report
        finally:
            child.close()


def _outcome(exit_code: int, report: Path) -> Outcome:
    lines = report.read_text().splitlines() if report.exists() else []
    names = tuple(line[1:] for line in lines if line.startswith("+"))
    ends = {line[0]: json.loads(line[1:]) for line in lines if line[0] in "=!"}
    return Outcome(exit_code, names, ends.get("="), ends.get("!", ""))


class _Countdown:
    """Sends the signal at the N-th point, and reports each before it can be deadly."""

    def __init__(self, deadly: int | str, signal: int, report: int) -> None:
        self._deadly, self._signal, self._report = deadly, signal, report
        self._seen = 0
        self._guard = threading.RLock()  # a point may come while one is being reported, in the same thread

    def __call__(self, name: str) -> None:
        with self._guard:
            self._seen += 1
            self.tell("+", name)
            if self._deadly in (self._seen, name):
                self._deadly = 0
                if self._signal == signals.SIGSTOP:  # at once: it is for this thread, others stand a moment later
                    signals.pthread_kill(threading.get_ident(), self._signal)
                else:
                    os.kill(os.getpid(), self._signal)

    def tell(self, kind: str, text: str) -> None:
        """Write one line to the report, at once: what a killed process had in memory is lost."""
        os.write(self._report, f"{kind}{text}\n".encode())


def _run(
    manifest: str, die_at: int | str, signal: int, points: Points, listener: str, moved: float, report: str
) -> None:
    """Runs in the fork."""
    run = load_object("dpone.api:run")  # above the kit in the order of imports
    countdown = _Countdown(die_at, signal, os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    stop = threading.Event()
    signals.signal(signals.SIGTERM, lambda *_: stop.set())
    for reference in points.methods:
        _count_calls(reference, countdown)
    hear = load_object(listener) if listener else None
    sys.addaudithook(_audit(points, countdown))

    def on_event(event: Any) -> None:
        if hear is not None:
            hear(event)
        countdown(event.name)

    try:
        with moved_clock(moved):
            result = run(manifest, on_event=on_event, stop=stop)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told
        countdown.tell("!", json.dumps(f"{type(error).__name__}: {error}"))
        sys.exit(1)
    countdown.tell("=", json.dumps(result.record.as_dict()))
    sys.exit(result.exit_code)


def _count_calls(reference: str, countdown: Callable[[str], None]) -> None:
    module, _, path = reference.partition(":")
    owner, _, name = path.rpartition(".")
    holder = load_object(f"{module}:{owner}")
    original = getattr(holder, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        countdown(f"before {path}")
        result = original(*arguments, **named)
        countdown(f"after {path}")
        return result

    setattr(holder, name, counted)


def _audit(points: Points, countdown: Callable[[str], None]) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook (https://docs.python.org/3/library/audit_events.html): it is called before the act."""
    below = None if points.below is None else os.path.realpath(points.below)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and points.network:
            countdown(event)
        elif below is not None and (event in _ACTS or (event == "open" and arguments[2] & _WRITES)):
            place = arguments[0]
            if not isinstance(place, int):
                found = os.path.realpath(os.fsdecode(place))
                if found == below or found.startswith(below + os.sep):
                    countdown(f"{event} {os.path.relpath(found, below)}")

    return audit
