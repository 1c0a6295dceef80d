"""Death at any system call: a command is killed when it is about to make its N-th call that leaves a mark."""

from __future__ import annotations

import contextlib
import os
import random
import signal as signals
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dpone.errors import ConfigError
from dpone.sdk import load_object
from dpone.testing.faults import trap
from dpone.testing.faults.fork import Forked
from dpone.testing.faults.trap import Calls, Supervisor, TrapUnavailable

TIMEOUT_S = 120.0
_EVERYTHING = Calls()


class _Process(Protocol):
    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class DponeCommand:
    """`dpone WORDS`, in a fork of an interpreter that has everything imported: as a command, many times as quick."""

    words: Sequence[str]


Command = Sequence[str] | DponeCommand


@dataclass(frozen=True, slots=True)
class Death:
    """How a command ended. `calls` were the points it came to; when `died`, the last of them was not made.

    `exit_code` is negative for a signal that was not handled. `died` says whether the signal was sent at all.
    """

    exit_code: int
    died: bool
    calls: tuple[str, ...]
    output: str


def killed_at(
    command: Command,
    n: int,
    calls: Calls = _EVERYTHING,
    *,
    signal: int = signals.SIGKILL,
    timeout: float = TIMEOUT_S,
) -> Death:
    """Run a command and send it the signal when it is about to make call number `n`, from 1; 0 is never.

    SIGKILL strikes every process of the command, and the call is not made. Another signal goes to the command itself,
    which then goes on. Calls of several threads are one sequence, in the order in which they were made.
    Raises ConfigError where system calls cannot be trapped, and TimeoutError, having killed the command.
    """
    with tempfile.TemporaryDirectory(prefix="dpone-kill-") as folder:
        output = Path(folder, "output")
        with _started(command, calls, output) as (process, channel):
            try:
                listener = trap.receive(channel)
            except TrapUnavailable as error:
                raise ConfigError(
                    f"trapping the system calls of a command: {error}",
                    remedy=output.read_text().strip() or "run these tests on Linux 5.5 or newer",
                    code="DP110",
                ) from error
            struck = []

            def strike(number: int) -> bool:
                if number != n:
                    return True
                struck.append(number)
                if signal != signals.SIGKILL:
                    os.kill(process.pid, signal)
                    return True
                os.killpg(process.pid, signal)
                return False

            supervisor = Supervisor(listener, calls, strike)
            try:
                exit_code = _supervised(process, supervisor, timeout)
            finally:
                os.close(listener)  # what is left and still calls is told that there is no such call
        return Death(exit_code, bool(struck), tuple(supervisor.seen), output.read_text(errors="replace"))


def count(command: Command, calls: Calls = _EVERYTHING, *, timeout: float = TIMEOUT_S) -> int:
    """The number of points of a whole run. Threads may make it differ a little from run to run."""
    return len(killed_at(command, 0, calls, timeout=timeout).calls)


def walk(
    command: Command,
    prepare: Callable[[], object],
    check: Callable[[int, Death], object],
    calls: Calls = _EVERYTHING,
    *,
    sample: int | None = None,
    seed: int = 0,
    signal: int = signals.SIGKILL,
    timeout: float = TIMEOUT_S,
) -> int:
    """Kill the command at its first call, at its second, and so on until it ends by itself. The number of deaths.

    `prepare` makes the world as it was before, `check` gets each position and its death. With `sample`, only so many
    positions are tried, chosen by `seed`, which is printed.
    """
    if sample is None:
        n = 0
        while True:
            prepare()
            death = killed_at(command, n + 1, calls, signal=signal, timeout=timeout)
            if not death.died:
                return n
            n += 1
            check(n, death)
    prepare()
    total = count(command, calls, timeout=timeout)
    places = sampled(total, sample, seed)
    deaths = 0
    for n in places:
        prepare()
        death = killed_at(command, n, calls, signal=signal, timeout=timeout)
        if death.died:  # threads may have made fewer calls this time
            deaths += 1
            check(n, death)
    return deaths


def sampled(total: int, size: int, seed: int) -> list[int]:
    """Positions 1 to `total`, or `size` of them, always with the first and the last. Prints how they were chosen."""
    if total <= size:
        return list(range(1, total + 1))
    inner = random.Random(seed).sample(range(2, total), max(0, size - 2))
    places = sorted([1, *inner, total])
    sys.stdout.write(f"kill points {places} of {total}, seed {seed}\n")
    return places


def _supervised(process: _Process, supervisor: Supervisor, timeout: float) -> int:
    """Serve until the command has ended; its exit code. Nothing of it is left afterwards."""
    deadline = time.monotonic() + timeout
    try:
        while supervisor.serve(0.02 if process.poll() is not None else 0.2):
            if process.poll() is not None:
                _end(process.pid)  # what the command started and left
            if time.monotonic() > deadline:
                raise TimeoutError(f"the command did not end within {timeout:g} s, at call {len(supervisor.seen)}")
        while (code := process.poll()) is None:  # its trap is gone with its last thread: only to be collected
            if time.monotonic() > deadline:
                raise TimeoutError(f"the command cannot be collected within {timeout:g} s")
            time.sleep(0.002)
        return code
    finally:
        _end(process.pid)


def _end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signals.SIGKILL)


@contextmanager
def _started(command: Command, calls: Calls, output: Path) -> Iterator[tuple[_Process, socket.socket]]:
    mine, theirs = socket.socketpair()
    with mine, theirs:
        if isinstance(command, DponeCommand):
            arguments = (theirs, list(calls.names), list(command.words), str(output))
            forked = Forked.start(_dpone, *arguments)
            theirs.close()
            yield forked, mine
            forked.close()
            return
        launcher = [sys.executable, "-I", "-S", trap.__file__, str(theirs.fileno()), ",".join(calls.names), "--"]
        with (
            output.open("wb") as file,
            subprocess.Popen(  # noqa: S603 - the command under test, from the caller
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            ) as process,
        ):
            theirs.close()
            try:
                yield process, mine
            finally:
                _end(process.pid)


def _dpone(channel: socket.socket, names: list[str], words: list[str], output: str) -> None:
    """Runs in the fork."""
    main = load_object("dpone.cli:main")
    with Path(output).open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["dpone", *words]
    trap.set_trap(names, channel)
    main()
