"""What every command shares: its common options, where its output goes, and how errors become words and exit codes.

Results go to stdout, progress, logs and errors to stderr. Nothing here asks a question without a terminal.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import IO, TYPE_CHECKING, Any, Protocol

import click

import dpone
from dpone.cli import render
from dpone.errors import Cancelled, ConfigError, ConflictError, DponeError, InternalError, SchemaError
from dpone.events import redacted

if TYPE_CHECKING:
    from types import FrameType

    from dpone.manifest.load import Manifest

OK, FAILED, WRONG, REFUSED, UNPROVEN, CHANGES, LOCKED, INTERRUPTED = 0, 1, 2, 3, 4, 10, 75, 130
EXIT_CODES = (
    (OK, "done, and proven where a proof was asked for"),
    (FAILED, "at least one stream failed"),
    (WRONG, "a wrong option or manifest; nothing was touched"),
    (REFUSED, "the plan refuses, or nothing was selected"),
    (UNPROVEN, "done but unproven, or verify found differences"),
    (CHANGES, "plan --detailed-exitcode: there is something to do"),
    (LOCKED, "another run holds the stream; try again later"),
    (INTERRUPTED, "interrupted (Ctrl-C)"),
    (128 + signal.SIGTERM, "terminated"),
)

LAST_S = 9.0
"""Seconds from a signal to the end of the process, whatever it does; ten is what container platforms give."""

option = partial(click.option, show_envvar=True)
# Every option is also a variable DPONE_<OPTION>, the same in every command.
ENVIRONMENT = {"auto_envvar_prefix": "DPONE", "show_default": True, "help_option_names": ["-h", "--help"]}


def exit_code(error: DponeError) -> int:
    """The exit code of a command that ended with this error."""
    if isinstance(error, Cancelled):
        return INTERRUPTED
    if isinstance(error, ConflictError):
        return {"DP701": LOCKED, "DP702": REFUSED}.get(error.code, FAILED)
    if isinstance(error, SchemaError):
        return REFUSED
    if isinstance(error, ConfigError):
        # DP12x: nothing was selected. DP13x: the manifest is fine, and the route cannot do what it asks.
        return REFUSED if error.code.startswith(("DP12", "DP13")) else WRONG
    return FAILED


def worst(errors: Sequence[DponeError]) -> int:
    """The exit code of a command that looked at several streams, of which these could not be handled."""
    codes = {exit_code(error) for error in errors}
    if len(codes) == 1:
        return codes.pop()
    return OK if not codes else REFUSED if codes <= {REFUSED, WRONG} else FAILED


class Stoppable(Protocol):
    """What shows the progress of a run, and can say that it is about to stop."""

    def stopping(self) -> None:
        """Say so. Called from a signal handler."""

    def restore(self) -> None:
        """Leave the terminal usable. Called from a signal handler."""


@dataclass
class Terminal:
    """The output of one command. `redact` takes secrets out of a text, once a manifest is known."""

    command: str = ""
    log_format: str = "auto"
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    as_json: bool = False
    redact: Callable[[str], str] = field(default=str)
    stopped: Stop | None = None

    @property
    def json_log(self) -> bool:
        """Whether stderr is JSON lines and nothing else."""
        return self.log_format == "json"

    def load(self, path: str) -> Manifest:
        """The manifest, remembered for its secrets."""
        return self.use(dpone.load_manifest(path))

    def use(self, manifest: Manifest) -> Manifest:
        """Take this manifest's secrets out of every error from now on."""
        self.redact = manifest.redact
        return manifest

    def result(self, text: str) -> None:
        """Print a result."""
        write(sys.stdout, text)

    def document(self, value: Any) -> None:
        """Print a result as JSON."""
        write(sys.stdout, json.dumps(value, indent=2, default=str))

    def note(self, text: str) -> None:
        """Say something that is not a result."""
        if self.json_log:
            self._json_line("info", "note", message=text)
        elif not self.quiet:
            write(sys.stderr, text)

    def error(self, error: DponeError) -> None:
        """Say what went wrong, where, and what to do."""
        found = redacted(error.as_dict(), self.redact)
        if self.as_json:
            self.document({"error": found, "exit_code": exit_code(error)})
        if self.json_log:
            self._json_line("error", "error", **found)
            return
        drawn = getattr(error, "render", None)  # a ManifestError draws every problem of the file
        if drawn is not None:
            count = len(found.get("problems", ())) or 1
            text = f"{drawn()}\n\n{count} error{'' if count == 1 else 's'}; nothing was run."
        else:
            text = render.failure(found)
        write(sys.stderr, self.redact(text))

    def _json_line(self, level: str, event: str, **fields: Any) -> None:
        write(sys.stderr, json.dumps({"v": 1, "level": level, "event": event, "command": self.command, **fields}))

    @contextmanager
    def stop(self, shown: Stoppable) -> Iterator[Stop]:
        """SIGINT or SIGTERM once: stop, what is durable is kept. Twice, or when that takes too long: exit at once."""
        stop = self.stopped = Stop(shown)
        if threading.current_thread() is not threading.main_thread():
            yield stop
            return
        over = threading.Event()
        threading.Thread(target=stop.watch, args=(over,), name="dpone-last", daemon=True).start()
        before = {number: signal.signal(number, stop.received) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield stop
        finally:
            over.set()
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass
class Stop:
    """Whether the run was asked to stop, and by which signal."""

    shown: Stoppable
    event: threading.Event = field(default_factory=threading.Event)
    signal: int = 0

    def received(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        if self.signal:
            self._exit(number)
        self.signal = number
        self.event.set()
        self.shown.stopping()

    def watch(self, over: threading.Event) -> None:
        """Exit when the run is not over some seconds after the signal: a library may be in a call without an end."""
        self.event.wait()
        if not over.wait(LAST_S):
            self._exit(self.signal)

    def code(self, finished: int) -> int:
        """The exit code: that of the run, or of the signal when the run was cut short by it."""
        return 128 + self.signal if self.signal and finished == INTERRUPTED else finished

    def _exit(self, number: int) -> None:
        """Leave at once. The record that is kept when a run is told to stop says that it was cancelled."""
        self.shown.restore()
        os._exit(128 + number)


def common(function: Callable[..., int | None]) -> Callable[..., None]:
    """Add the options that every command has, and handle everything that may go wrong in it."""

    @click.pass_context
    @wraps(function)
    def guarded(
        context: click.Context,
        /,
        log_format: str,
        quiet: bool,  # noqa: FBT001 - click passes it by name
        verbose: bool,  # noqa: FBT001
        debug: bool,  # noqa: FBT001
        **options: Any,
    ) -> None:
        as_json = bool(options.pop("json", False))
        terminal = Terminal(context.info_name or "", log_format, quiet, verbose, debug, as_json)
        if debug:
            os.environ["DPONE_DEBUG"] = "1"  # the engine then lets unexpected exceptions through
        context.exit(_ended(terminal, partial(function, terminal, **options)))

    decorated: Callable[..., None] = guarded
    for decorate in (
        option("--debug", is_flag=True, help="Show the traceback of an unexpected error."),
        option("-v", "--verbose", is_flag=True, help="Show every step, every column, whole statements."),
        option("-q", "--quiet", is_flag=True, help="Show failures only."),
        option(
            "--log-format",
            type=click.Choice(["auto", "text", "json"]),
            default="auto",
            help="On stderr: bars on a terminal and else lines, always lines, or JSON lines.",
        ),
    ):
        decorated = decorate(decorated)
    return decorated


def _ended(terminal: Terminal, act: Callable[[], int | None]) -> int:
    """The exit code of a command; its errors are printed here and nowhere else."""
    try:
        return act() or OK
    except DponeError as error:
        if terminal.debug:
            _traceback(terminal)
        terminal.error(error)
        code = exit_code(error)
        return terminal.stopped.code(code) if terminal.stopped else code
    except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
        raise
    except (KeyboardInterrupt, click.Abort):
        terminal.note("interrupted")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the user gets one sentence, not a traceback
        if terminal.debug:
            _traceback(terminal)
        terminal.error(
            InternalError(
                f"{type(error).__name__} in dpone {terminal.command}",
                remedy="run again with --debug for the traceback, and report it",
            )
        )
        return FAILED


def _traceback(terminal: Terminal) -> None:
    write(sys.stderr, terminal.redact(traceback.format_exc()))


_ASCII = str.maketrans({"✓": "ok", "✗": "x", "→": "->", "…": "...", "—": "-"})


def write(stream: IO[str], text: str) -> None:
    """Write a text and a line break; plain signs where the stream is not UTF-8, and never an encoding error."""
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower()
    if not encoding.startswith("utf"):
        text = text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    else:
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")  # a name may hold a lone surrogate
    click.echo(text, file=stream)
