"""Too little memory, too little disk."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dpone.errors import ConfigError

_WATCH_S = 0.002


@dataclass(frozen=True, slots=True)
class Limited:
    """How a command ended. `peak` is the most memory it had resident, in bytes; `exceeded`: it was killed for that."""

    exit_code: int
    peak: int
    exceeded: bool
    output: str


def run_limited(command: Sequence[str], *, memory: int, timeout: float = 120.0) -> Limited:
    """Run a command, and kill it within milliseconds of having more than `memory` bytes resident, as a cluster does.

    It counts what is resident, by the kernel's own high-water mark, of the command itself and not of what it starts.
    RLIMIT_AS would count addresses: DuckDB and Arrow reserve 2 GiB of them for a load that uses 140 MiB, and fewer in
    a lower limit, so that which limit they fail in means nothing. Some 120 MiB are the interpreter and its libraries.
    Raises ConfigError on a system without /proc, and TimeoutError, having killed the command.
    """
    if sys.platform != "linux":
        raise ConfigError(
            f"limiting the memory of a command: {sys.platform} has no /proc", remedy="run it on Linux", code="DP110"
        )
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(  # noqa: S603 - the command under test, from the caller
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            peak, exceeded = _watched(process, memory, time.monotonic() + timeout)
            process.wait()
            output.seek(0)
            return Limited(process.returncode, peak, exceeded, output.read().decode(errors="replace"))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _watched(process: subprocess.Popen[bytes], memory: int, deadline: float) -> tuple[int, bool]:
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident(process.pid))
        if peak > memory:
            os.killpg(process.pid, signal.SIGKILL)
            return peak, True
        if time.monotonic() > deadline:
            raise TimeoutError("the command did not end in time")
        time.sleep(_WATCH_S)
    return peak, False


def _resident(pid: int) -> int:
    """The high-water mark: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html, VmHWM."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0  # none: it has ended, and waits to be collected


@contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """A folder on a disk of its own, of `size` bytes (whole pages). It is gone afterwards with all that is in it.

    Everybody may write to it. Raises ConfigError where file systems cannot be mounted: it takes root on Linux.
    """
    with tempfile.TemporaryDirectory(prefix="dpone-disk-") as parent:
        folder = Path(parent, "disk")
        folder.mkdir()
        Path(parent).chmod(0o755)  # a server runs as another user
        try:
            _mount("mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "dpone-test", str(folder))
        except (OSError, subprocess.CalledProcessError) as error:
            said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
            raise ConfigError(
                f"mounting a small disk: {said}", remedy="run these tests as root on Linux", code="DP110"
            ) from error
        try:
            yield folder
        finally:
            _mount("umount", "--lazy", str(folder))  # also when a process that was not ours to end still has a file


def _mount(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own arguments
