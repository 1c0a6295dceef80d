"""A lock that dies with its process, for targets that are local files.

It is an exclusive `flock` on a sidecar file, which holds a JSON document naming the holder. The operating system
drops the lock when the last descriptor of that open file is closed, so also when the process is killed
(https://man7.org/linux/man-pages/man2/flock.2.html); no lease and no clean-up is needed. Two openings of the file
conflict even within one process, so two threads exclude each other. POSIX only; on a network file system the lock
is as good as that file system's `flock`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from dpone import clock
from dpone.errors import ConfigError, ConflictError, DponeError, PermissionDenied, ResourceError
from dpone.sdk.values import Holder

_POLL = 0.1  # seconds between two attempts while waiting


class OsLock:
    """The lock whose sidecar is `path`. `holder` says who takes it, in words; `run_id` which run it is.

    One instance serves one holder at a time. The folder of `path` must exist.
    """

    def __init__(self, path: str | os.PathLike[str], holder: str, run_id: str = "") -> None:
        self._path = Path(path)
        self._holder = holder
        self._run_id = run_id
        self._descriptor: int | None = None

    def acquire(self, wait: float = 0.0) -> None:
        """Take the lock, trying for at most `wait` seconds.

        Raises ConflictError (DP701, retryable) naming the holder when another one keeps it; ConfigError,
        PermissionDenied or ResourceError when the sidecar cannot be written.
        """
        deadline = clock.monotonic() + wait
        while not self._try():
            if clock.monotonic() >= deadline:
                raise ConflictError(
                    f"taking the lock {self._path}: {self._who()} has it",
                    remedy="wait for that run to end (--wait), or stop it; the lock of a dead process is free at once",
                    code="DP701",
                    retryable=True,
                )
            time.sleep(_POLL)

    def release(self) -> None:
        """Give the lock back and remove the sidecar. Safe to call twice, and without having the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        # Removed while still locked: who opened the file before finds, once it has the lock, that it is gone.
        with contextlib.suppress(OSError):
            if _same_file(descriptor, self._path):
                self._path.unlink()
        os.close(descriptor)

    def held_by(self) -> Holder | None:
        """Who has the lock now, without taking it for longer than a look."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            found = self._document()
            return Holder(str(found.get("run_id", "")), str(found.get("holder") or self._who()))
        finally:
            os.close(descriptor)
        return None

    def _try(self) -> bool:
        """Whether the lock could be taken now."""
        if self._descriptor is not None:
            return False
        while True:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A holder that let go meanwhile has unlinked the file we locked: that lock excludes nobody.
                if _same_file(descriptor, self._path):
                    self._write(descriptor)
                    self._descriptor = descriptor
                    return True
            except BlockingIOError:
                return False
            except OSError as error:
                raise _translate(self._path, error) from error
            finally:
                if self._descriptor != descriptor:
                    os.close(descriptor)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _translate(self._path, error) from error

    def _write(self, descriptor: int) -> None:
        document = {
            "run_id": self._run_id,
            "holder": self._holder,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": clock.now().isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(document).encode(), 0)

    def _who(self) -> str:
        """The holder as the sidecar names it, or a plain phrase while it is just being written."""
        found = self._document()
        if not {"run_id", "holder", "pid", "host", "since"} <= set(found):
            return "another process"
        run = f"run {found['run_id']} of " if found["run_id"] else ""
        return f"{run}{found['holder']} (process {found['pid']} on {found['host']}, since {found['since']})"

    def _document(self) -> dict[str, Any]:
        """What the sidecar says; nothing while it is just being written."""
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _same_file(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to the opened file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _translate(path: Path, error: OSError) -> DponeError:
    act = f"taking the lock {path}: {error.strerror}"
    if isinstance(error, PermissionError):
        return PermissionDenied(act, remedy="the lock file stands beside the target; allow writing to that folder")
    if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
        return ConfigError(act, remedy="check that the folder of the target exists")
    return ResourceError(act, remedy="check the disk and the file system of the target")
