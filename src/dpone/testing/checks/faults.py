"""C11 crashes, C12 network, C14 resources: whatever breaks, nothing is lost, doubled or half there."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import dpone
from dpone.errors import ConfigError
from dpone.events import Event
from dpone.sdk import Capability, load_object
from dpone.sdk.registry import connector_for
from dpone.testing.faults import (
    Direction,
    DponeCommand,
    Points,
    Proxy,
    count,
    killed_at,
    run_child,
    run_limited,
    sampled,
    small_disk,
    standing_child,
)
from dpone.testing.harness import SAMPLE, Address, Confinable, Harness, KeepsState, Restartable, Role, Row, sample_rows
from dpone.testing.kit import SEED, WRITES, Checks, Route, certifies, inapplicable, live, opened, unavailable, values

WIDE = os.environ.get("DPONE_TEST_WIDE") == "1"
"""The wide lane walks every point; the quick one takes a few, by the seed."""
POINTS = 6
ROWS = 180
MIB = 1 << 20
BROKEN = ("source_unavailable", "sink_unavailable", "timeout", "conflict")


class FaultChecks(Checks):
    """What must hold when a process, a network, a server, a disk or the memory gives way."""

    # -- C11: crashes ---------------------------------------------------------------------------------------------

    @certifies("C11")
    @pytest.mark.parametrize("write", WRITES)
    def test_killed_at_any_point(self, ends: Route, role: Role, write: str, tmp_path: Path) -> None:
        """SIGKILL at an event of the engine or an act on files.

        Readers see the old table or the new one; the rerun is exact though the source has changed meanwhile; nothing
        is left behind; the run is recorded as abandoned.
        """
        self._need_write(role, write)
        life = _Life(ends, write, tmp_path)
        points = Points(below=tmp_path / "place")
        total = len(run_child(life.path, points=points).points)
        life.check()
        for place in sampled(total, total if WIDE else POINTS, SEED):
            life.grow()
            outcome = run_child(life.path, die_at=place, points=points)
            assert outcome.exit_code in (-signal.SIGKILL, 0), outcome
            life.check_all_or_nothing()
            if place % 2:
                life.grow()
            life.rerun()
            if outcome.exit_code:
                assert "abandoned" in life.statuses()[1:], "the killed run was not recorded as abandoned"

    @certifies("C11")
    def test_killed_at_any_system_call(self, ends: Route, role: Role, tmp_path: Path) -> None:
        """SIGKILL right before a write, a rename, a send or the like: the same holds."""
        write = "merge" if self._can(role, "merge") else "replace"
        life = _Life(ends, write, tmp_path)
        command = DponeCommand(["run", "-f", str(life.path), "--quiet"])
        try:
            total = count(command)
        except ConfigError as error:
            unavailable(f"{error.message}: {error.remedy}")
        life.check()
        deaths = 0
        for place in sampled(total, total if WIDE else POINTS, SEED):
            life.grow()
            deaths += killed_at(command, place).died
            life.check_all_or_nothing()
            life.rerun()
        assert deaths > POINTS / 2

    @certifies("C11")
    def test_sigterm_ends_the_run_with_a_record(self, ends: Route, role: Role, tmp_path: Path) -> None:
        """SIGTERM keeps what is durable, ends within ten seconds and leaves a record; the next run goes on."""
        del role
        life = _Life(ends, "replace", tmp_path)
        names = run_child(life.path).points
        life.check()
        life.grow()
        staged = next(n for n, name in enumerate(names, 1) if name == "slice.staged")
        outcome = run_child(life.path, die_at=staged, signal=signal.SIGTERM, timeout=10)
        assert outcome.record is not None
        assert outcome.record["status"] in ("cancelled", "succeeded")  # a load of one slice may be over by then
        life.check_all_or_nothing()
        life.rerun()

    @certifies("C11")
    def test_a_server_restarts_while_a_run_goes_on(self, ends: Route, role: Role, tmp_path: Path) -> None:
        """The run goes on with a retry, or ends in one error of the right category; the next one is exact."""
        end = ends.source if role == "source" else ends.sink
        if not isinstance(end, Restartable):
            inapplicable("it has no server")
        restartable: Restartable = end
        for moment in ("slice.started", "slice.staged", "load.committing"):
            life = _Life(ends, "replace", tmp_path, name=moment.replace(".", "_"))
            seen: list[str] = []

            def restart(event: Event, moment: str = moment, seen: list[str] = seen) -> None:
                if event.name == moment and not seen:
                    seen.append(moment)
                    restartable.restart()

            [stream] = dpone.run(life.path, on_event=restart).streams
            assert stream.failure is None or stream.failure["category"] in BROKEN, stream.failure
            life.rerun()

    # -- C15: concurrency ---------------------------------------------------------------------------------------

    @certifies("C15")
    @pytest.mark.parametrize("moment", ["stream.claimed", "slice.staged", "load.balanced"])
    def test_a_run_that_stands_still_is_taken_over(self, ends: Route, role: Role, moment: str, tmp_path: Path) -> None:
        """A holder that neither works nor ends: refused while its lease is good, taken over when it has run out.

        When it wakes it ends with a conflict. Every row is there once. Where a lock dies with its process, a holder
        that stands still keeps it, and the next run is refused until it goes on or is killed.
        """
        if role == "source":
            inapplicable("a source holds no lock")
        write = "merge" if self._can(role, "merge") else "replace"
        life = _Life(ends, write, tmp_path)
        assert life.run() is None
        life.check()
        life.grow()
        with standing_child(life.path, stop_at=moment) as zombie:
            refused = life.run()
            assert refused is not None
            assert refused["code"] in ("DP701", "DP700"), refused
            if ends.sink.address is None:
                assert 0 == zombie.wake().exit_code
                life.rerun()
                return
            assert not isinstance(ends.sink, KeepsState), "its lease cannot be judged: say how in this check"
            ends.sink.setup(["UPDATE _dpone_leases SET until_ms = 0"])  # as if the time had passed
            life.rerun()
            life.grow()
            woken = zombie.wake()
        assert ["conflict"] == [failure["category"] for failure in woken.failures], woken
        life.rerun()

    # -- C12: network ---------------------------------------------------------------------------------------------

    @certifies("C12")
    @pytest.mark.parametrize("direction", ["up", "down"])
    def test_the_connection_is_cut_at_any_byte(
        self, ends: Route, role: Role, direction: Direction, tmp_path: Path
    ) -> None:
        """A reset after so many bytes: retried from what is durable, or one error; the next run is exact."""
        with _through_proxy(ends, role, tmp_path) as (proxy, life):
            life.run()
            life.grow()
            before = proxy.passed[direction]
            assert life.run() is None
            size = proxy.passed[direction] - before
            life.check()
            chance = random.Random(SEED)
            for place in sorted(chance.sample(range(1, size), min(size - 1, 200 if WIDE else POINTS))):
                life.grow()
                proxy.cut_after(place, direction)
                failure = life.run()
                assert failure is None or failure["category"] in BROKEN, (place, failure)
                proxy.clear()
                life.check_all_or_nothing()
                life.rerun()

    @certifies("C12")
    def test_connections_are_refused_and_then_accepted(self, ends: Route, role: Role, tmp_path: Path) -> None:
        """One refused connection is retried and costs nothing; all of them refused are one error, not a hang."""
        with _through_proxy(ends, role, tmp_path) as (proxy, life):
            proxy.refuse(1)
            assert life.run() is None
            life.check()
            proxy.refuse(1000)
            life.grow()
            failure = life.run()
            assert failure is not None
            assert failure["category"] in BROKEN
            proxy.clear()
            life.rerun()

    @certifies("C12")
    def test_a_slow_link_is_only_slow(self, ends: Route, role: Role, tmp_path: Path) -> None:
        """With latency on every answer the load is the same."""
        with _through_proxy(ends, role, tmp_path) as (proxy, life):
            proxy.slow(latency=0.005)
            assert life.run() is None
            life.check()

    # -- C14: resources -------------------------------------------------------------------------------------------

    @certifies("C14")
    def test_wide_rows_in_little_memory(self, ends: Route, role: Role, tmp_path: Path) -> None:
        """400 rows of 1 MB, in a process that may have 800 MiB: memory is bounded by bytes, not by rows.

        They are moved, or the system itself has too little and the run ends in one clear error with the remedy.
        """
        del role
        wide = [(n, f"{n}" * (MIB // len(str(n))), None, None, None, None, None) for n in range(1, 401)]
        ends.source.put("t", wide)
        life = _Life(ends, "replace", tmp_path, fresh=False, proof="counts", slices={"rows": 50})
        limited = run_limited([sys.executable, "-m", "dpone", "run", "-f", str(life.path)], memory=800 * MIB)
        assert not limited.exceeded, f"{limited.peak // MIB} MiB"
        failure = dpone.history(life.path, limit=1)[0]["streams"][0]["failure"]
        if failure is None:
            assert values(wide) == values(ends.sink.rows("t", list(SAMPLE)))
        else:
            assert ("resource", True) == (failure["category"], bool(failure["remedy"])), failure

    @certifies("C14")
    def test_a_full_disk_is_one_clear_error(self, variant: str, tmp_path: Path) -> None:
        """A sink that runs out of disk ends the load with the category resource; with room again the rerun is exact."""
        if "sink" not in self.roles() or self.harness_class().served == "fake":
            inapplicable("it stores nothing on a disk")
        with ExitStack() as stack:
            try:
                disk = stack.enter_context(small_disk(24 * MIB))
            except ConfigError as error:
                unavailable(f"{error.message}: {error.remedy}")
            (disk / "ballast").write_bytes(bytes(4 * MIB))
            source = stack.enter_context(_place(files_harness(), tmp_path / "source", "parquet"))
            probe = self.harness_class()
            home = tmp_path / "home" if issubclass(probe, Confinable) else disk / "home"
            sink = stack.enter_context(_place(probe, home, variant))
            if isinstance(sink, Confinable):
                stack.enter_context(sink.confine(disk))
            chance = random.Random(SEED)
            noise = [chance.randbytes(500).hex() for _ in range(4000)]
            rows = [(n, noise[n % 4000] + str(n), None, None, None, None, None) for n in range(60_000)]
            source.put("t", rows)
            route = Route(tmp_path, source, sink)
            failure = route.run(write="replace", proof="counts", slices={"rows": 20_000}).failure
            assert failure is not None, "the disk was not full"
            assert "resource" == failure["category"], failure
            assert failure["remedy"]
            (disk / "ballast").unlink()
            dpone.reset(route.manifest(write="replace", proof="counts"), select=["*"])  # drops what was staged
            source.put("t", rows[:500])
            again = route.run(write="replace", proof="counts")
            assert again.failure is None, again.failure
            assert 500 == len(sink.rows("t"))

    @certifies("C14")
    def test_many_streams(self, ends: Route, role: Role, tmp_path: Path) -> None:
        """Forty streams of one manifest are all moved, with no more connections than streams at work."""
        del role
        names = [f"t{n}" for n in range(40)]
        for n, name in enumerate(names):
            ends.source.put(name, sample_rows(range(n + 1)))
        manifest = ends.manifest()
        manifest["streams"] = {ends.source.stream(name): {"target": name, "write": "replace"} for name in names}
        result = dpone.run(manifest, store=tmp_path / "store", threads=4)
        assert [] == [stream.failure for stream in result.streams if stream.failure]
        assert [n + 1 for n in range(40)] == [len(ends.sink.rows(name)) for name in names]

    # -- what the checks share ------------------------------------------------------------------------------------

    @pytest.fixture
    def ends(self, tmp_path: Path, harness: Harness, role: Role) -> Iterator[Route]:
        """The connector at one end, and at the other a file: both ends outlive a process."""
        if harness.served == "fake":
            inapplicable("a fake may die with the process")
        if role == "source":
            with _place(load_object(connector_for("sqlite").harness), tmp_path / "other", "") as other:
                yield Route(tmp_path, harness, other)
        else:
            with _place(files_harness(), tmp_path / "other", "parquet") as other:
                yield Route(tmp_path, other, harness)

    def _can(self, role: Role, write: str) -> bool:
        return role == "source" or self.described().supports(Capability(f"write.{write}")).level == "full"

    def _need_write(self, role: Role, write: str) -> None:
        if role == "source" and write != "merge":
            inapplicable("how a sink writes is not the source's business")
        if role == "sink":
            self.need(Capability(f"write.{write}"))


class _Life:
    """A stream whose source goes on changing; what the target was, and what it is to be."""

    def __init__(
        self,
        ends: Route,
        write: str,
        folder: Path,
        *,
        name: str = "life",
        fresh: bool = True,
        address: tuple[Role, Address] | None = None,
        **settings: Any,
    ) -> None:
        self._ends = ends
        self._write = write
        self._chance = random.Random(f"{SEED} {write} {name}")
        self._number = 1000
        self.rows: list[Row] = sample_rows(range(1, ROWS + 1))
        self.before: list[tuple[Any, ...]] = []
        if fresh:
            ends.source.put("t", self.rows)
        self.path = folder / f"{name}.yaml"
        manifest = ends.manifest(pipeline=name, **{**WRITES[write], "slices": {"rows": 60}} | settings)
        if address is not None:
            role, place = address
            end = ends.source if role == "source" else ends.sink
            manifest[role] = end.endpoint(role, address=place)
        self.path.write_text(json.dumps(manifest))

    def grow(self) -> None:
        """Change the source: new rows with a later cursor; others change, or vanish, as the way to write allows."""
        fresh = sample_rows(range(self._number, self._number + 40))
        self._number += 40
        start = max(row[5] for row in self.rows) + timedelta(seconds=1)
        fresh = [(*row[:5], start + timedelta(seconds=n // 4), row[6]) for n, row in enumerate(fresh)]
        if self._write != "append":
            rows = self.rows[-140:] if self._write == "replace" else self.rows
            changed = {row[0] for row in self._chance.sample(rows, 20)}
            later = [(row[0], "changed", *row[2:5], fresh[-1][5], row[6]) for row in rows if row[0] in changed]
            self.rows = [*(row for row in rows if row[0] not in changed), *later]
        self.rows = [*self.rows, *fresh]
        self._ends.source.put("t", self.rows)

    def run(self) -> dict[str, Any] | None:
        """Run in this process; the failure of the stream, if it failed."""
        [stream] = dpone.run(self.path).streams
        return stream.failure

    def rerun(self) -> None:
        """Run again: once for the window that was open, once for what came since; then all is equal."""
        for _ in range(2):
            assert self.run() is None
        self.check()

    def check(self) -> None:
        """The target is what the source is, and nothing is left beside it."""
        self.before = self._target()
        assert values(self.rows) == self.before
        assert [] == self._ends.sink.debris()

    def check_all_or_nothing(self) -> None:
        """The target is what it was, or what the source is now."""
        found = self._target()
        assert found in (self.before, values(self.rows)), f"a reader saw {len(found)} rows, a part"

    def statuses(self) -> list[str]:
        """How the runs ended, newest first."""
        return [record["status"] for record in dpone.history(self.path, limit=6)]

    def _target(self) -> list[tuple[Any, ...]]:
        return values(live(self._ends.sink, "t", list(SAMPLE)))


@contextmanager
def _through_proxy(ends: Route, role: Role, folder: Path) -> Iterator[tuple[Proxy, _Life]]:
    """A life whose end in this role is reached through a proxy."""
    end = ends.source if role == "source" else ends.sink
    if end.address is None:
        inapplicable("it has no network")
    with Proxy(end.address) as proxy:
        yield proxy, _Life(ends, "replace", folder, address=(role, proxy.address))


def files_harness() -> type[Harness]:
    """The harness of files, which are at the other end of a sink whose process dies."""
    found: type[Harness] = load_object(connector_for("files").harness)
    return found


def _place(kind: type[Harness], folder: Path, variant: str) -> Any:
    return contextmanager(opened)(kind, folder, variant)
