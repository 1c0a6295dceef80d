"""New processes at a tenth of the usual price: forks of a server that has dpone and the drivers imported."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["dpone.testing.faults.preloaded"])


@dataclass(frozen=True, slots=True)
class Forked:
    """A process, the leader of its own session, with the environment and the folder of the one that started it."""

    process: ForkServerProcess

    @classmethod
    def start(cls, function: Callable[..., object], *arguments: Any) -> Forked:
        """Call a function in a new process; it is found by its name there, the arguments are pickled.

        Its exit code is 0, or that of sys.exit, or 1 after an exception.
        """
        process = _fork.Process(target=_main, args=(dict(os.environ), str(Path.cwd()), function, arguments))
        process.start()
        return cls(process)

    @property
    def pid(self) -> int:
        """Its process id, which is also its process group."""
        if self.process.pid is None:
            raise AssertionError  # pragma: no cover - it was started
        return self.process.pid

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, or None while it runs."""
        return self.process.exitcode

    def wait(self, timeout: float) -> int:
        """Its exit code once it has ended. Raises TimeoutError after so many seconds, having killed it."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.close()
            raise TimeoutError(f"the process did not end within {timeout:g} s")
        return self.process.exitcode

    def close(self) -> None:
        """Kill what is left of it and of what it started. Safe to call twice."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.kill()  # it may not have its own group yet
        self.process.join()


def _main(
    environment: dict[str, str], folder: str, function: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - not a path of ours
        os.dup2(nothing.fileno(), 0)
    function(*arguments)
    sys.stdout.flush()
