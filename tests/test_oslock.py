"""The operating system's lock with a sidecar."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import dpone
from dpone.errors import ConfigError, ConflictError
from dpone.sdk.oslock import OsLock

_HOLD = """
import sys, time
from dpone.sdk.oslock import OsLock
OsLock(sys.argv[1], "the other pipeline", run_id="r1").acquire()
print("held", flush=True)
time.sleep(60)
"""


def _holding(path: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(dpone.__path__[0]).parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_named_and_its_death_frees_the_lock(tmp_path: Path) -> None:
    """A held lock raises DP701 naming run, holder and process; kill -9 of the holder frees it at once."""
    path = tmp_path / "db.lock"
    process = _holding(path)
    try:
        with pytest.raises(ConflictError) as caught:
            OsLock(path, "me").acquire()
        assert caught.value.code == "DP701"
        assert caught.value.retryable
        assert f"run r1 of the other pipeline (process {process.pid} on " in caught.value.message
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    lock = OsLock(path, "me", "r2")
    lock.acquire()
    assert json.loads(path.read_text())["run_id"] == "r2"
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.release()
    assert not path.exists()


def test_a_waiter_gets_the_lock_when_it_is_released(tmp_path: Path) -> None:
    """Two holders in one process exclude each other; one that waits takes over, one that cannot wait is refused."""
    first, second = OsLock(tmp_path / "l", "first"), OsLock(tmp_path / "l", "second")
    first.acquire()
    with pytest.raises(ConflictError, match="first"):
        second.acquire(0.2)
    threading.Timer(0.3, first.release).start()
    started = time.monotonic()
    second.acquire(10)
    assert time.monotonic() - started < 5
    second.release()
    second.release()


def test_the_lock_is_not_reentrant(tmp_path: Path) -> None:
    """One instance has one holder: a second acquire is refused, not granted twice."""
    lock = OsLock(tmp_path / "l", "me")
    lock.acquire()
    with pytest.raises(ConflictError):
        lock.acquire()
    lock.release()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The sidecar's folder is never created silently."""
    with pytest.raises(ConfigError, match="missing"):
        OsLock(tmp_path / "missing" / "l", "me").acquire()


def test_many_threads_never_hold_it_together(tmp_path: Path) -> None:
    """Removing the sidecar at release lets no two holders in, however the openings interleave."""
    inside, worst, guard = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, worst
        for _ in range(20):
            lock = OsLock(tmp_path / "l", "worker")
            lock.acquire(60)
            with guard:
                inside += 1
                worst = max(worst, inside)
            with guard:
                inside -= 1
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == 1
    assert list(tmp_path.iterdir()) == []
