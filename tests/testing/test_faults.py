"""The fault tools do what they say, at exactly the place they say, and leave nothing behind."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import dpone
from dpone import clock
from dpone.connectors.sqlite.harness import SqliteHarness
from dpone.errors import ConfigError
from dpone.events import Event
from dpone.testing.faults import (
    Calls,
    Death,
    Direction,
    DponeCommand,
    Points,
    Proxy,
    count,
    killed_at,
    moved_clock,
    run_child,
    run_limited,
    sampled,
    small_disk,
    trap,
    walk,
)
from dpone.testing.harness import Harness, Row, sample_rows
from dpone.testing.kit import unavailable, values
from tests.places import place, read

SEED = int(os.environ.get("DPONE_TEST_SEED", "20261125"))
DIRECTIONS: tuple[Direction, ...] = ("up", "down")


@contextlib.contextmanager
def required(what: str) -> Iterator[None]:
    """A fault that this machine cannot make is a skip, or a failure where services are required."""
    try:
        yield
    except ConfigError as error:
        unavailable(f"{what}: {error.message}; {error.remedy}")


def processes(word: str) -> list[int]:
    """The living processes with this word in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (folder / "stat").read_text()
            if word in (folder / "cmdline").read_text() and stat.rpartition(")")[2].split()[0] != "Z":
                found.append(int(folder.name))
    return found


def descriptors() -> int:
    """How many files and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


# -- the proxy ---------------------------------------------------------------------------------------------------


class Peer:
    """A server that answers each connection with `answer` bytes and counts what it was sent, by connection."""

    def __init__(self, answer: int) -> None:
        self.answer = answer
        self.received: list[int] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()[:2]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self.listener:
            while True:
                end, _ = self.listener.accept()
                with end, contextlib.suppress(OSError):
                    greeting = end.recv(1)
                    if greeting == b"q":
                        return
                    if greeting:
                        self.received.append(1)
                        with contextlib.suppress(OSError):  # reset: what came before is read all the same
                            end.sendall(b"a" * self.answer)
                        while piece := end.recv(65536):
                            self.received[-1] += len(piece)

    def stop(self) -> None:
        """End the thread."""
        with socket.create_connection(self.address) as last:
            last.sendall(b"q")
        self._thread.join()


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A server that answers with 300,000 bytes."""
    made = Peer(300_000)
    yield made
    made.stop()


def talk(proxy: Proxy, size: int) -> tuple[int, bool]:
    """Send so many bytes, end, and read the answer: how many bytes came, and whether the connection was reset."""
    got = 0
    try:
        with socket.create_connection(proxy.address, timeout=20) as client:
            with contextlib.suppress(OSError):  # reset already; what came before can still be read
                client.sendall(b"b" * size)
                client.shutdown(socket.SHUT_WR)
            while piece := client.recv(65536):
                got += len(piece)
    except ConnectionError:
        return got, True
    return got, False


def settled(value: Callable[[], int], expected: int) -> int:
    """The value once it is what is expected, or what it is after five seconds."""
    deadline = time.monotonic() + 5
    while value() != expected and time.monotonic() < deadline:
        time.sleep(0.005)
    return value()


def test_a_proxy_passes_everything(peer: Peer) -> None:
    """Bytes arrive as they are in both directions, an end stays an end, and all is counted."""
    with Proxy(peer.address) as proxy:
        assert (300_000, False) == talk(proxy, 200_000)
        assert (300_000, False) == talk(proxy, 1)
        assert {"up": 200_001, "down": 600_000} == proxy.passed
        assert (2, 0, 0) == (proxy.connections, proxy.refused, proxy.cuts)
    assert [200_000, 1] == peer.received


@pytest.mark.parametrize("size", [1, 2, 1000, 65_535, 65_536, 65_537, 250_000, 299_999])
def test_a_cut_downwards_is_at_the_byte(peer: Peer, size: int) -> None:
    """The client gets exactly so many bytes and then a reset; once, then all is well."""
    with Proxy(peer.address) as proxy:
        proxy.cut_after(size, "down")
        assert (size, True) == talk(proxy, 1)
        assert (size, 1) == (proxy.passed["down"], proxy.cuts)
        assert (300_000, False) == talk(proxy, 1)


@pytest.mark.parametrize("size", [1, 2, 1000, 65_535, 65_536, 65_537, 250_000])
def test_a_cut_upwards_is_at_the_byte(peer: Peer, size: int) -> None:
    """The server gets exactly so many bytes."""
    with Proxy(peer.address) as proxy:
        proxy.cut_after(size, "up")
        assert talk(proxy, 300_000)[1]
        assert size == proxy.passed["up"]
        assert size == settled(lambda: sum(peer.received), size)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_cut_before_the_first_byte(peer: Peer, direction: Direction) -> None:
    """0 passes nothing."""
    with Proxy(peer.address) as proxy:
        proxy.cut_after(0, direction)
        assert talk(proxy, 10)[1]
        assert 0 == proxy.passed[direction]


def test_a_cut_counts_over_connections_and_may_come_again(peer: Peer) -> None:
    """Three answers of 300,000 bytes, cut after 400,000: in the second; then again 400,000 later; then no more."""
    with Proxy(peer.address) as proxy:
        proxy.cut_after(400_000, "down", times=2)
        assert [(300_000, False), (100_000, True), (300_000, False), (100_000, True), (300_000, False)] == [
            talk(proxy, 1) for _ in range(5)
        ]
        proxy.cut_after(10, "down", times=None)
        assert [(10, True)] * 4 == [talk(proxy, 1) for _ in range(4)]
        proxy.clear()
        assert (300_000, False) == talk(proxy, 1)


def test_refused_so_often(peer: Peer) -> None:
    """The next two connections are reset, the third is served."""
    with Proxy(peer.address) as proxy:
        proxy.refuse(2)
        assert [(0, True), (0, True), (300_000, False)] == [talk(proxy, 1) for _ in range(3)]
        assert (3, 2) == (proxy.connections, proxy.refused)
    assert [1] == peer.received


def test_a_black_hole_answers_nothing(peer: Peer) -> None:
    """It takes bytes and is silent; new connections after `clear` are served."""
    with Proxy(peer.address) as proxy:
        proxy.black_hole()
        with socket.create_connection(proxy.address, timeout=0.2) as client:
            client.sendall(b"b" * 100_000)
            with pytest.raises(TimeoutError):
                client.recv(1)
        proxy.clear()
        assert (300_000, False) == talk(proxy, 1)
    assert [1] == peer.received


@pytest.mark.parametrize("size", [0, 1, 65_536, 100_000])
def test_a_stall_loses_nothing(peer: Peer, size: int) -> None:
    """So many bytes come, then none, until the fault is cleared; then the rest."""
    with Proxy(peer.address) as proxy:
        proxy.stall_after(size, "down")
        with socket.create_connection(proxy.address, timeout=0.3) as client:
            client.sendall(b"b")
            got = 0
            while got < size:
                got += len(client.recv(65536))
            with pytest.raises(TimeoutError):
                client.recv(1)
            proxy.clear()
            client.settimeout(20)
            while got < 300_000:
                got += len(client.recv(65536))
            assert 300_000 == got == proxy.passed["down"]


def test_a_slow_link(peer: Peer) -> None:
    """300,000 bytes at 600,000 bytes/s take half a second; a latency holds back each piece."""
    with Proxy(peer.address) as proxy:
        proxy.slow(rate=600_000)
        start = time.monotonic()
        assert (300_000, False) == talk(proxy, 1)
        assert 0.5 <= time.monotonic() - start < 5
        proxy.slow(latency=0.2)
        start = time.monotonic()
        assert (300_000, False) == talk(proxy, 1)
        assert 0.4 <= time.monotonic() - start  # at least one piece each way


def test_a_server_that_is_down_is_a_reset() -> None:
    """Nobody listens behind the proxy."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = probe.getsockname()[:2]
    with Proxy(address) as proxy:
        assert (0, True) == talk(proxy, 1)


def test_a_proxy_leaves_nothing_behind(peer: Peer) -> None:
    """Threads and descriptors are gone at the end, though one client hangs, one is in a hole and one is stalled."""
    threads, files = threading.active_count(), descriptors()
    with contextlib.ExitStack() as stack:
        with Proxy(peer.address) as proxy:
            proxy.stall_after(1000, "down")
            hanging = [stack.enter_context(socket.create_connection(proxy.address, timeout=5)) for _ in range(2)]
            hanging[0].sendall(b"b")
            assert 1000 == settled(lambda: proxy.passed["down"], 1000)
            proxy.black_hole()
            hanging.append(stack.enter_context(socket.create_connection(proxy.address, timeout=5)))
            assert 3 == settled(lambda: proxy.connections, 3)
        assert 1000 == len(hanging[0].recv(65536))
        for client in hanging:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    assert threads == threading.active_count()
    assert files == settled(descriptors, files)  # the server's end closes in its own time


# -- a run through the proxy -------------------------------------------------------------------------------------


class Link:
    """A replace from Postgres to Postgres; one end of it is behind a proxy."""

    def __init__(self, folder: Path, source: Harness, sink: Harness, proxy: Proxy, side: str) -> None:
        self.source, self.sink = source, sink
        self.proxy, self.side = proxy, side
        ends = {"source": source.endpoint("source"), "sink": sink.endpoint("sink")}
        ends[side] |= {"host": proxy.address[0], "port": proxy.address[1], "connect_timeout": 2}
        stream = {"write": "replace", "proof": "digest", "slices": {"rows": 300}}
        self.manifest = folder / "dpone.yaml"
        document = {"version": 1, "pipeline": "link", **ends, "streams": {"public.t": stream}}
        self.manifest.write_text(json.dumps(document))

    def failure(self, **options: Any) -> dict[str, Any]:
        """Run, and give the failure of the stream."""
        result = dpone.run(self.manifest, **options)
        failure = result.streams[0].failure
        assert failure is not None
        return failure

    def exact(self) -> None:
        """Run without a fault: the target is the source, proven, and no staging is left."""
        self.proxy.clear()
        stream = dpone.run(self.manifest).streams[0]
        assert (None, "proven") == (stream.failure, stream.proof["verdict"])
        assert read(self.source) == read(self.sink)
        assert [] == self.sink.debris()


@pytest.fixture
def link(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Link]:
    """A loaded target, and a source that has changed since; the side behind the proxy is the parameter."""
    monkeypatch.setattr("dpone.engine.retry.FIRST_WAIT_S", 0.01)
    source, sink = place("postgres", tmp_path), place("postgres", tmp_path)
    assert source.address is not None
    with contextlib.closing(source), contextlib.closing(sink), Proxy(source.address) as proxy:
        made = Link(tmp_path, source, sink, proxy, request.param)
        made.source.put("t", sample_rows(range(1, 1201)))
        made.exact()
        made.source.put("t", sample_rows(range(301, 1501), version=1))
        yield made


both = pytest.mark.parametrize("link", ["source", "sink"], indirect=True)


@both
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_run_that_is_cut(link: Link, direction: Direction) -> None:
    """Cut at seeded bytes of the whole conversation, at every attempt: an error that names the side, and no part seen.

    The rerun is exact. Where most bytes are rows, some of the cuts are inside a COPY.
    """
    start = link.proxy.passed[direction]
    link.exact()
    total = link.proxy.passed[direction] - start
    messages = []
    for number, size in enumerate([*sampled(total, 6, SEED), total // 3, total // 2, total * 2 // 3]):
        old, new = read(link.sink), sample_rows(range(301, 1501), version=number + 2)
        link.source.put("t", new)
        link.proxy.cut_after(size, direction, times=None)
        failure = dpone.run(link.manifest).streams[0].failure
        seen = read(link.sink)
        assert seen in (old, values(new)), f"cut after {size} of {total} bytes {direction}"
        if failure is None:
            assert values(new) == seen
        else:
            assert f"{link.side}_unavailable" == failure["category"]
            messages.append(failure["message"])
        link.exact()
    assert len(messages) >= 2
    if (link.side, direction) in (("source", "down"), ("sink", "up")):
        copying = {"source": "reading from", "sink": "writing to"}[link.side]
        assert any(message.startswith(copying) for message in messages)


@both
def test_a_run_that_is_cut_once_goes_on_by_itself(link: Link) -> None:
    """The engine tries again, counts it, and is exact."""
    link.proxy.cut_after(30_000, "down" if link.side == "source" else "up")
    stream = dpone.run(link.manifest).streams[0]
    assert (None, {f"{link.side}_unavailable": 1}) == (stream.failure, stream.retries["by_category"])
    assert 1 == link.proxy.cuts
    assert read(link.source) == read(link.sink)


@both
def test_a_run_that_is_refused(link: Link) -> None:
    """Refused twice and then accepted: two retries. Refused for good: an error of that side."""
    link.proxy.refuse(2)
    stream = dpone.run(link.manifest).streams[0]
    assert (None, {f"{link.side}_unavailable": 2}) == (stream.failure, stream.retries["by_category"])
    assert read(link.source) == read(link.sink)
    link.proxy.refuse(1000)
    assert f"{link.side}_unavailable" == link.failure()["category"]
    link.exact()


@both
def test_a_run_into_a_black_hole(link: Link) -> None:
    """The connect_timeout ends it, after one attempt."""
    link.proxy.black_hole()
    start = time.monotonic()
    failure = link.failure()
    assert (f"{link.side}_unavailable", False) == (failure["category"], failure["retryable"])
    assert "timeout" in failure["message"]
    assert 2 <= time.monotonic() - start < 6
    link.exact()


@both
def test_a_run_that_stalls(link: Link) -> None:
    """It waits inside a COPY; when the network gives the connection up, it ends with an error of that side."""
    direction: Direction = "down" if link.side == "source" else "up"
    link.proxy.stall_after(40_000, direction)
    found: list[dict[str, Any]] = []
    running = threading.Thread(target=lambda: found.append(link.failure()))
    running.start()
    running.join(1)
    assert running.is_alive()
    link.proxy.cut_after(0, direction, times=None)
    running.join(20)
    assert [f"{link.side}_unavailable"] == [failure["category"] for failure in found]
    link.exact()


# -- death at a system call --------------------------------------------------------------------------------------

WRITER = """
import os, signal, sys, threading
out = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
def write():
    for _ in range(3):
        os.write(out, b"x")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
write()
other = threading.Thread(target=write)
other.start()
other.join()
if not os.fork():
    write()
    os._exit(0)
os.wait()
os.fsync(out)
os.rename(sys.argv[1], sys.argv[1] + ".done")
print("end")
"""


@pytest.fixture(scope="module")
def trapping() -> None:
    """System calls can be trapped here."""
    with required("trapping system calls"):
        count([sys.executable, "-c", ""])


@pytest.mark.usefixtures("trapping")
def test_killed_at_every_call_and_never_one_later(tmp_path: Path) -> None:
    """A file is made, written nine times by two threads and a child, synced and renamed: twelve points, one sequence.

    Killed at the N-th, the N-1 before it were made and nothing after them.
    """
    out = tmp_path / "out"
    done = tmp_path / "out.done"
    calls = Calls(below=tmp_path)
    command = [sys.executable, "-c", WRITER, str(out)]

    def prepare() -> None:
        out.unlink(missing_ok=True)
        done.unlink(missing_ok=True)

    def check(n: int, death: Death) -> None:
        assert (-signal.SIGKILL, n, "") == (death.exit_code, len(death.calls), death.output)
        assert (n > 1, False) == (out.exists(), done.exists())
        assert n == 1 or min(n - 2, 9) == out.stat().st_size

    assert 12 == walk(command, prepare, check, calls)
    assert 9 == done.stat().st_size
    prepare()
    assert 12 == count(command, calls)
    prepare()
    whole = killed_at(command, 13, calls)
    assert (0, False, "end\n") == (whole.exit_code, whole.died, whole.output)
    assert ["openat", *["write"] * 9, "fsync", "rename"] == [call.split()[0] for call in whole.calls]


@pytest.mark.usefixtures("trapping")
def test_a_signal_that_is_handled(tmp_path: Path) -> None:
    """SIGTERM at the third call: that call is made, then the handler ends the program."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "out")]
    death = killed_at(command, 3, Calls(below=tmp_path), signal=signal.SIGTERM)
    assert (7, True) == (death.exit_code, death.died)
    assert 2 == (tmp_path / "out").stat().st_size


@pytest.mark.usefixtures("trapping")
def test_sockets_and_relative_paths_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sending on a socket is a point unless it is not asked for; so is a path below the folder, however it is named."""
    monkeypatch.chdir(tmp_path)
    program = (
        "import os, socket\na, b = socket.socketpair()\na.sendall(b'x')\nos.mkdir('d')\n"
        "f = os.open('d', os.O_RDONLY)\nos.mkdir('e', dir_fd=f)\nopen('/dev/null', 'w').write('x')"
    )
    command = [sys.executable, "-c", program]
    found = killed_at(command, 0, Calls(below=tmp_path)).calls
    assert ("sendto socket", f"mkdir {tmp_path}/d", f"mkdirat {tmp_path}/d/e") == found
    shutil.rmtree(tmp_path / "d")
    assert found[1:] == killed_at(command, 0, Calls(below=tmp_path, sockets=False)).calls


@pytest.mark.usefixtures("trapping")
@pytest.mark.parametrize("n", [0, 1])
def test_a_killed_command_leaves_nothing_behind(tmp_path: Path, n: int) -> None:
    """What it had started dies with it, also when it ends by itself; descriptors and folders are gone."""
    before = descriptors()
    word = f"nap-{tmp_path.name}-{os.getpid()}"
    nap = f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)', {word!r}])"
    program = f"import subprocess, sys\n{nap}\nopen({str(tmp_path / 'out')!r}, 'w').close()"
    death = killed_at([sys.executable, "-c", program], n, Calls(below=tmp_path))
    assert (n == 1, 1) == (death.died, len(death.calls))
    assert [] == processes(word)
    assert before == descriptors()


@pytest.mark.usefixtures("trapping")
def test_a_command_that_hangs_is_killed() -> None:
    """TimeoutError, and no process is left."""
    word = f"hang-{os.getpid()}"
    with pytest.raises(TimeoutError):
        killed_at([sys.executable, "-c", "import time; time.sleep(99)", word], 0, timeout=0.5)
    assert [] == processes(word)


def test_a_trap_that_cannot_be_set_is_a_config_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the launcher said; on other machines, with their name."""
    launcher = tmp_path / "launcher.py"
    launcher.write_text("raise SystemExit('no seccomp here')")
    monkeypatch.setattr(trap, "__file__", str(launcher))
    with pytest.raises(ConfigError) as caught:
        killed_at([sys.executable, "-c", ""], 1)
    assert ("DP110", "no seccomp here") == (caught.value.code, caught.value.remedy)
    monkeypatch.setattr("platform.machine", lambda: "sparc64")
    with socket.socket() as channel, pytest.raises(trap.TrapUnavailable, match="sparc64"):
        trap.set_trap(["write"], channel)


def test_sampled_places(capsys: pytest.CaptureFixture[str]) -> None:
    """Few places are all taken; of many the first, the last and seeded ones, which are printed with the seed."""
    assert [1, 2, 3] == sampled(3, 5, 1)
    assert "" == capsys.readouterr().out
    chosen = sampled(1000, 6, 7)
    assert (6, 1, 1000) == (len(set(chosen)), chosen[0], chosen[-1])
    assert chosen == sampled(1000, 6, 7)
    assert f"kill points {chosen} of 1000, seed 7\n" * 2 == capsys.readouterr().out


@pytest.mark.usefixtures("trapping")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("sink_name", ["duckdb", "sqlite", "csv", "postgres"])
def test_a_run_killed_at_its_system_calls(
    tmp_path: Path, request: pytest.FixtureRequest, sink_name: str, number: signal.Signals
) -> None:
    """A second load dies at a system call: nothing in part is seen, the rerun is exact and leaves no debris.

    Ten seeded calls of the files and sockets of the run, five for SIGTERM; all of them with DPONE_TEST_WIDE=1.
    """
    world = tmp_path / "world"
    world.mkdir()
    source, sink = place("sqlite", world / "source"), place(sink_name, world / "sink")
    request.addfinalizer(sink.close)
    old, new = sample_rows(range(1, 61)), sample_rows(range(31, 91), version=1)
    stream = {"write": "replace", "proof": "digest", "slices": {"rows": 40}}
    ends = {"source": source.endpoint("source"), "sink": sink.endpoint("sink")}
    document = {"version": 1, "pipeline": "dying", **ends}
    manifest = world / "dpone.yaml"
    manifest.write_text(json.dumps(document | {"streams": {"t": stream}}))
    source.put("t", old)
    assert 0 == dpone.run(manifest).exit_code
    source.put("t", new)
    saved = shutil.copytree(world, tmp_path / "saved")

    def prepare() -> None:
        shutil.rmtree(world)
        shutil.copytree(saved, world)
        if sink_name == "postgres":  # its state is not in the folder
            sink.setup(["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"])
            source.put("t", old)
            assert 0 == dpone.run(manifest).exit_code
            source.put("t", new)

    def check(n: int, death: Death) -> None:
        where = f"{number.name} at call {n}, {death.calls[n - 1]}"
        if number == signal.SIGTERM:
            assert death.exit_code in (0, 143), where
        assert read(sink) in (values(old), values(new)), where
        result = dpone.run(manifest)
        assert (0, []) == (result.exit_code, [stream.failure for stream in result.streams if stream.failure]), where
        assert values(new) == read(sink), where
        assert [] == sink.debris(), where

    sample = None if os.environ.get("DPONE_TEST_WIDE") == "1" else 10 if number == signal.SIGKILL else 5
    command = DponeCommand(["run", "-f", str(manifest)])
    assert walk(command, prepare, check, Calls(below=world), sample=sample, seed=SEED, signal=number) >= 4


# -- death at a point of the protocol ----------------------------------------------------------------------------


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    """A manifest from SQLite to SQLite, in two slices."""
    source, sink = place("sqlite", tmp_path / "source"), place("sqlite", tmp_path / "sink")
    source.put("t", sample_rows(range(1, 61)))
    document = {
        "version": 1,
        "pipeline": "embedded",
        "source": source.endpoint("source"),
        "sink": sink.endpoint("sink"),
        "streams": {"t": {"write": "replace", "slices": {"rows": 40}}},
    }
    manifest = tmp_path / "dpone.yaml"
    manifest.write_text(json.dumps(document))
    return manifest


def test_a_child_runs_to_its_end(embedded: Path) -> None:
    """The exit code of the command, the record, the events in their order."""
    outcome = run_child(embedded)
    assert (0, [], "") == (outcome.exit_code, outcome.failures, outcome.error)
    assert outcome.record is not None
    assert "succeeded" == outcome.record["status"]
    assert ("run.started", "run.finished") == (outcome.points[0], outcome.points[-1])


def test_a_child_dies_at_every_point_and_never_one_later(embedded: Path) -> None:
    """Killed at point N it came to N points, the same as a whole run up to there; past the last it ends by itself."""
    points = run_child(embedded).points
    for n in range(1, len(points) + 1):
        (embedded.parent / "sink" / "place.sqlite").unlink()
        outcome = run_child(embedded, die_at=n)
        assert (-signal.SIGKILL, points[:n], None) == (outcome.exit_code, outcome.points, outcome.record)
        (embedded.parent / "sink" / "place.sqlite").touch()
    assert 0 == run_child(embedded, die_at=1000).exit_code


def test_a_child_is_asked_to_stop(embedded: Path) -> None:
    """SIGTERM while a slice is read: the record says cancelled, the exit code 130, and the next run ends well."""
    die_at = run_child(embedded).points.index("slice.started") + 1
    outcome = run_child(embedded, die_at=die_at, signal=signal.SIGTERM)
    assert 130 == outcome.exit_code
    assert ["DP800"] == [failure["code"] for failure in outcome.failures]
    assert 0 == run_child(embedded).exit_code


def test_points_are_files_and_methods_too(embedded: Path) -> None:
    """What is written below the folder, and before and after each call of a method; elsewhere nothing counts."""
    method = "dpone.connectors.sqlite.session:SqliteSession.commit"
    points = run_child(embedded, points=Points(below=embedded.parent, methods=[method])).points
    assert "open .dpone/runs" in {re.sub(r"(/runs)/.*", r"\1", point) for point in points}
    assert [] == [point for point in points if point.startswith("os.") and ".." in point]
    commits = [point for point in points if "SqliteSession.commit" in point]
    assert len(commits) >= 4
    assert ["before SqliteSession.commit", "after SqliteSession.commit"] * (len(commits) // 2) == commits
    events = [point for point in points if "." in point and " " not in point]
    elsewhere = embedded.parent / "elsewhere"
    elsewhere.mkdir()
    assert events == list(run_child(embedded, points=Points(below=elsewhere)).points)


def heard(event: Event) -> None:
    """Write each event beside the manifest of the test."""
    with Path(os.environ["HEARD"]).open("a") as file:
        file.write(f"{event.name}\n")


def test_a_listener_hears_each_event_first(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found by its name in the child, which has the environment of this process; so it hears the deadly event."""
    monkeypatch.setenv("HEARD", str(embedded.with_name("heard")))
    outcome = run_child(embedded, die_at=3, listener="tests.testing.test_faults:heard")
    assert list(outcome.points) == embedded.with_name("heard").read_text().splitlines()
    assert 3 == len(outcome.points)


def test_a_manifest_that_is_wrong(embedded: Path) -> None:
    """What was raised comes back."""
    embedded.write_text("version: 1\n")
    outcome = run_child(embedded)
    assert (1, None) == (outcome.exit_code, outcome.record)
    assert outcome.error.startswith("ManifestError: ")


def sleep(_: Event) -> None:
    """Hang."""
    time.sleep(99)


def test_a_child_that_hangs_is_killed(embedded: Path) -> None:
    """TimeoutError; the run it was is recorded as abandoned by the next one, so its process is gone."""
    with pytest.raises(TimeoutError):
        run_child(embedded, listener="tests.testing.test_faults:sleep", timeout=1)
    record = run_child(embedded).record
    assert record is not None
    assert 1 == len(record["abandoned"])


# -- the clock ---------------------------------------------------------------------------------------------------

YEAR = 365 * 86400


def test_a_moved_clock_and_back() -> None:
    """The wall clock is off inside the block, by what is set; durations are not. Afterwards it is right again."""
    now, monotonic = datetime.now(UTC), time.monotonic()
    with moved_clock(-YEAR) as moved:
        assert abs(clock.now() - now + timedelta(seconds=YEAR)) < timedelta(seconds=60)
        moved.seconds = YEAR
        assert abs(clock.time() - now.timestamp() - YEAR) < 60
        assert clock.monotonic() - monotonic < 60
    assert abs(clock.now() - now) < timedelta(seconds=60)


@pytest.mark.parametrize("sink_name", ["duckdb", "sqlite", "csv", "postgres"])
def test_no_run_goes_wrong_by_the_clock(tmp_path: Path, request: pytest.FixtureRequest, sink_name: str) -> None:
    """Set back, set forward, set while a run goes on: each run starts from the newest receipt and moves what is new.

    Run ids sort by the clock that each run had, so the history shows the run of next year first, and a run under the
    clock set back last: that order is not promised. What a stream remembers is never ordered by time.
    """
    source, sink = place("sqlite", tmp_path / "source"), place(sink_name, tmp_path / "sink")
    request.addfinalizer(sink.close)
    stream = {"write": "append", "cursor": "at", "slices": {"rows": 40}, "proof": "digest"}
    ends = {"source": source.endpoint("source"), "sink": sink.endpoint("sink")}
    document = {"version": 1, "pipeline": "late", **ends}
    manifest = tmp_path / "dpone.yaml"
    manifest.write_text(json.dumps(document | {"streams": {"t": stream}}))
    ids: list[str] = []
    state: list[Row] = []
    with moved_clock(0) as moved:

        def turn(event: Event) -> None:
            if event.name == "slice.staged":
                moved.seconds = -moved.seconds

        for number, seconds in enumerate([0, -YEAR, YEAR, -YEAR, YEAR, 0]):
            moved.seconds = seconds
            state += sample_rows(range(60 * number, 60 * number + 60), minute=number)
            source.put("t", state)
            result = dpone.run(manifest, on_event=turn)
            found = result.streams[0]
            assert (None, 60, "proven") == (found.failure, found.rows["extracted"], found.proof["verdict"])
            assert result.record.time["duration_s"] < 60
            [status] = dpone.status(manifest)
            assert status.receipt is not None
            assert result.record.run_id == status.receipt.run_id
            ids.append(result.record.run_id)
    assert read(source) == read(sink)
    past, present, future = {ids[1], ids[3]}, {ids[0], ids[5]}, {ids[2], ids[4]}
    assert max(past) < min(present) <= max(present) < min(future)


@pytest.mark.parametrize("seconds", [-YEAR, YEAR])
def test_a_run_that_died_under_a_wrong_clock_is_found(embedded: Path, seconds: float) -> None:
    """Whether it died in the past or in the future, the next run records it as abandoned and is exact."""
    die_at = run_child(embedded).points.index("load.opened") + 1
    assert -signal.SIGKILL == run_child(embedded, die_at=die_at, clock=seconds).exit_code
    result = dpone.run(embedded)
    assert ("succeeded", 1) == (result.record.status, len(result.record.abandoned))
    folder = embedded.parent
    assert read(SqliteHarness(folder / "source")) == read(SqliteHarness(folder / "sink"))


# -- memory and disk ---------------------------------------------------------------------------------------------

MIB = 1 << 20


def test_a_command_with_little_memory() -> None:
    """It is killed when it takes more; its peak is told. One that stays below ends as it would."""
    with required("limiting memory"):
        greedy = run_limited(
            [sys.executable, "-c", "import time\nheld = b'x' * 300_000_000\ntime.sleep(99)"], memory=200 * MIB
        )
    assert (-signal.SIGKILL, True) == (greedy.exit_code, greedy.exceeded)
    assert greedy.peak > 200 * MIB
    modest = run_limited(
        [
            sys.executable,
            "-c",
            "import time\nheld = b'x' * 50_000_000\ntime.sleep(0.1)\nprint('end')\nraise SystemExit(3)",
        ],
        memory=200 * MIB,
    )
    assert (3, False, "end\n") == (modest.exit_code, modest.exceeded, modest.output)
    assert 50_000_000 < modest.peak < 200 * MIB
    with pytest.raises(TimeoutError):
        run_limited([sys.executable, "-c", "import time; time.sleep(99)"], memory=200 * MIB, timeout=0.3)


def test_a_small_disk_is_full() -> None:
    """So many bytes fit and not one more; afterwards the mount and the folder are gone, with all that was in it."""
    with required("a small disk"), small_disk(MIB) as folder:
        assert str(folder) in Path("/proc/mounts").read_text()
        with (folder / "big").open("wb", buffering=0) as file:
            assert MIB == sum(file.write(b"x" * 4096) for _ in range(256))
            with pytest.raises(OSError, match="No space left") as caught:
                file.write(b"x")
        assert errno.ENOSPC == caught.value.errno
        kept = (folder / "big").open("rb")  # somebody who still has a file does not keep the disk
    kept.close()
    assert not folder.parent.exists()
    assert str(folder) not in Path("/proc/mounts").read_text()


@pytest.mark.parametrize("sink_name", ["duckdb", "sqlite", "csv"])
def test_a_run_onto_a_full_disk(tmp_path: Path, sink_name: str) -> None:
    """It ends with a resource error and shows no part; once there is room, the same manifest is exact."""
    connection = sqlite3.connect(tmp_path / "source.sqlite")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) "
        "INSERT INTO t SELECT i, hex(randomblob(50)) FROM n"
    )
    connection.commit()
    connection.close()
    with required("a small disk"), small_disk(3 * MIB) as folder:
        sinks: dict[str, Any] = {
            "duckdb": f"duckdb:///{folder}/sink.duckdb",
            "sqlite": f"sqlite:///{folder}/sink.sqlite",
            "csv": {"connector": "files", "path": str(folder), "format": "csv"},
        }
        manifest = tmp_path / "dpone.yaml"
        document = {"version": 1, "pipeline": "full", "source": f"sqlite:///{tmp_path / 'source.sqlite'}"}
        stream = {"write": "replace", "proof": "digest", "slices": {"rows": 10000}}
        manifest.write_text(json.dumps(document | {"sink": sinks[sink_name], "streams": {"t": stream}}))
        failure = dpone.run(manifest).streams[0].failure
        assert failure is not None
        assert "resource" == failure["category"], failure
        shutil.copytree(folder, tmp_path / "roomy")
        manifest.write_text(manifest.read_text().replace(str(folder), str(tmp_path / "roomy")))
        stream_record = dpone.run(manifest).streams[0]
        assert (None, 40000) == (stream_record.failure, stream_record.rows["final"])
