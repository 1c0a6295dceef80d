"""The Python API: what the command line does, as functions with values. No global state, no printing."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from dpone import clock
from dpone.engine.plan import (
    Plan,
    Preview,
    StreamPlan,
    check_targets,
    decide,
    expand,
    key_of,
    open_sink,
    open_source,
    placed,
    preview,
    reader,
)
from dpone.engine.record import RunRecord, Store, StreamRecord, new_run_id, utc_now
from dpone.engine.repair import examine
from dpone.engine.run import Context, run_streams
from dpone.errors import ConfigError, ConflictError, DponeError, SchemaError
from dpone.events import Emitter, Event, Listener, redacted
from dpone.manifest.load import Manifest, StreamConfig, load_manifest, manifest_from_dict
from dpone.manifest.select import LastRun, Results
from dpone.manifest.select import select as choose
from dpone.reconcile import Comparison, compare
from dpone.sdk import Holder, Inspects, OpenLoad, Receipt, Sink, Source
from dpone.stopping import stopped_by
from dpone.version import __version__

ManifestLike: TypeAlias = Manifest | str | os.PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `record` is the whole document."""

    record: RunRecord
    path: Path | None = None

    @property
    def ok(self) -> bool:
        """Whether every stream succeeded."""
        return self.record.status == "succeeded"

    @property
    def streams(self) -> list[StreamRecord]:
        """The streams, in the order of the manifest."""
        return self.record.streams

    @property
    def exit_code(self) -> int:
        """The exit code of `dpone run`: 0, 1, 2, 3, 4, 75 or 130."""
        if self.ok:
            wanted = [stream for stream in self.streams if stream.proof.get("level") != "none"]
            return 0 if all(stream.proven for stream in wanted) else 4
        if self.record.status == "cancelled":
            return 130
        failures = [stream.failure for stream in self.streams if stream.failure]
        if failures and all(failure["code"] == "DP701" for failure in failures):
            return 75
        refused = all(failure["category"] in ("config", "schema") for failure in failures)
        if not refused or len(failures) < len(self.streams):
            return 1
        # As in `dpone plan`: DP12x, DP13x and DP15x are refusals of a manifest that is fine in itself.
        fine = any(
            failure["category"] == "schema" or failure["code"][:4] in ("DP12", "DP13", "DP15") for failure in failures
        )
        return 3 if fine else 2

    def to_json(self) -> str:
        """The run record."""
        return json.dumps(self.record.as_dict(), indent=1)

    def raise_for_status(self) -> RunResult:
        """Raise the first failure, or return this result."""
        for stream in self.streams:
            if stream.failure:
                failure = stream.failure
                raise DponeError(
                    f"{stream.stream}: {failure['message']}",
                    remedy=failure["remedy"],
                    where=failure["where"],
                    code=failure["code"],
                )
        return self


@dataclass(frozen=True)
class StreamStatus:
    """The state of one stream, as its target remembers it.

    `receipt` is the last load that can be read, `pending` the open one. `faults` say what is wrong; `dpone repair`
    mends it, unless `failure` says why the state could not be read at all.
    """

    stream: str
    target: str
    receipt: Receipt | None
    failure: dict[str, Any] | None = None
    pending: OpenLoad | None = None
    holder: Holder | None = None
    age_s: float | None = None
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class StreamRepair:
    """What was wrong with one stream, and what was done, or would be. `refusal` says why something is left."""

    stream: str
    faults: tuple[str, ...] = ()
    acts: tuple[str, ...] = ()
    refusal: str = ""
    done: bool = False
    failure: dict[str, Any] | None = None


def plan(manifest: ManifestLike, *, select: Sequence[str] = (), exclude: Sequence[str] = ()) -> Plan:
    """What a run would do now. Reads source and sink, writes nothing. A refused stream is in the plan, with its remedy.

    Raises ConfigError for a manifest or a selection that is wrong, and the connection errors of `dpone.errors`.
    """
    loaded = _loaded(manifest)
    with _opened(loaded) as (source, sink):
        configs = _selected(loaded, source, select, exclude)
        previews = tuple(_preview(loaded, config, source, sink) for config in configs)
    return Plan(loaded.pipeline, loaded.source.display, loaded.sink.display, previews)


def check(manifest: ManifestLike, *, select: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Preview]:
    """Connect to both ends and make every decision, without reading data: one entry per stream, refused or not."""
    loaded = _loaded(manifest)
    found = []
    with _opened(loaded) as (source, sink):
        for config in _selected(loaded, source, select, exclude):
            try:
                found.append(Preview(config.name, decide(loaded, config, source, sink)))
            except DponeError as error:
                found.append(Preview(config.name, refusal=error))
    return found


def run(
    manifest: ManifestLike,
    *,
    select: Sequence[str] = (),
    exclude: Sequence[str] = (),
    plan_digest: str | None = None,
    threads: int = 2,
    wait: float = 0.0,
    fail_fast: bool = False,
    on_event: Callable[[Event], None] | None = None,
    store: str | os.PathLike[str] | None = None,
    stop: threading.Event | None = None,
    repair: bool = False,
) -> RunResult:
    """Move every selected stream, exactly once, and return the record.

    `threads` streams run side by side. `wait` is how many seconds to wait for a lock that another run holds.
    `plan_digest` refuses (ConflictError, DP702) when the plan is no longer the one with this digest. `store` is the
    folder of local records (default: `.dpone` beside the manifest). Setting `stop` cancels the run at the next batch.
    With `repair` a run moves what differs between source and target instead of what is new; checkpoints stay.
    A stream that fails does not raise: see `RunResult.ok` and `raise_for_status`. Nor does a local store that cannot be
    written, which no run needs: the event `record.not_stored` says so, and the result has no path.
    Raises ConfigError for a manifest or a selection that is wrong.
    """
    loaded = _loaded(manifest)
    history = Store(Path(store)) if store is not None else _store(loaded)
    started = clock.monotonic()
    stop = stop or threading.Event()
    with stopped_by(stop):
        configs = _planned(loaded, select, exclude, plan_digest, _results(loaded, history))
    record = RunRecord(
        run_id=new_run_id(),
        pipeline=loaded.pipeline,
        manifest={
            "path": loaded.path,
            "sha256": loaded.sha256,
            "selector": list(select),
            "git_commit": _git_commit(_folder(loaded)),
        },
        versions={"dpone": __version__, "python": sys.version.split()[0]},
        plan={"digest": plan_digest},
        source=loaded.source.display,
        sink=loaded.sink.display,
    )
    record.streams = [StreamRecord(config.name) for config in configs]
    with ExitStack() as stack:
        listeners: list[Listener] = [on_event] if on_event else []
        emit = Emitter(tuple(listeners), record.run_id, loaded.pipeline)
        keep = _Keeper(history, emit)
        with contextlib.suppress(OSError):  # `keep` is about to say so
            record.abandoned = history.close_abandoned()
        path = keep(record)
        if path is not None:
            listeners.append(stack.enter_context(_event_file(path.with_name("events.ndjson"), loaded)))
            emit = Emitter(tuple(listeners), record.run_id, loaded.pipeline)
        emit("run.started", "info", streams=[config.name for config in configs])
        context = Context(loaded, record, emit, wait, stop, fail_fast, keep, repair)
        run_streams(context, configs, threads)
        _finish(record, started, fail_fast=fail_fast)
        emit(
            "run.finished",
            "info" if record.status == "succeeded" else "error",
            status=record.status,
            duration_s=record.time["duration_s"],
        )
    return RunResult(record, keep(record))


def verify(
    manifest: ManifestLike, *, select: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Comparison | DponeError]:
    """Compare source and sink now, stream by stream, by digest. A stream that cannot be compared yields its error."""
    loaded = _loaded(manifest)
    found: list[Comparison | DponeError] = []
    with _opened(loaded) as (source, sink):
        for config in _selected(loaded, source, select, exclude):
            try:
                decided = decide(loaded, config, source, sink)
                if decided.existing is None:
                    raise SchemaError(
                        f"{decided.target} does not exist: {config.name} was not loaded yet",
                        where=config.at(),
                        remedy="dpone run loads it",
                        code="DP409",
                    )
                receipt = sink.last_receipt(decided.key)
                found.append(
                    compare(
                        reader(decided, source),
                        sink,
                        decided.source,
                        decided.schema,
                        decided.target,
                        receipt,
                        decided.live,
                    )
                )
            except DponeError as error:
                error.stream = config.name
                found.append(error)
    return found


def status(manifest: ManifestLike, *, select: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[StreamStatus]:
    """What the sink remembers of every stream, who is at work, and what is wrong.

    Reads the sink only; a source is asked for the streams that a glob stands for. A target is counted.
    """
    loaded = _loaded(manifest)
    found = []
    with _sink(loaded) as sink:
        for config, error in _named(loaded, select, exclude):
            if error is not None:
                found.append(StreamStatus(config.name, "", None, error.as_dict()))
                continue
            try:
                found.append(_status(loaded, config, sink))
            except DponeError as problem:
                placed(problem, loaded, config)
                found.append(StreamStatus(config.name, str(key_of(loaded, config).target), None, problem.as_dict()))
    return found


def _status(manifest: Manifest, config: StreamConfig, sink: Sink) -> StreamStatus:
    key = key_of(manifest, config)
    if not isinstance(sink, Inspects):
        return StreamStatus(config.name, str(key.target), sink.last_receipt(key))
    state = sink.inspect(key)
    found = examine(sink, key, cursor=config.cursor, write=_way(config))
    receipt = state.receipts[0] if state.receipts else None
    age = (clock.now() - datetime.fromisoformat(receipt.committed_at)).total_seconds() if receipt is not None else None
    return StreamStatus(
        config.name,
        str(key.target),
        receipt,
        pending=state.pending,
        holder=state.holder,
        age_s=age,
        faults=found.faults,
        notes=found.notes,
        remedy=f"dpone repair -s {config.name}" if found.faults else "",
    )


def repair(
    manifest: ManifestLike,
    *,
    select: Sequence[str] = (),
    exclude: Sequence[str] = (),
    accept: bool = False,
    dry_run: bool = False,
) -> list[StreamRepair]:
    """Find what is wrong with the state of streams, and mend it: one entry for each stream.

    Orphaned staging is dropped, damaged receipts and open loads are removed, and a stream whose state and target do
    not belong together goes back to where the next run makes it exact. Where nothing safe can be done, `refusal` says
    what to do instead. With `accept` the target is taken as it is, and the checkpoint stays. `dry_run` changes nothing.
    Rows of a target are never touched. A second call finds nothing left to do.
    """
    loaded = _loaded(manifest)
    done = []
    with _sink(loaded) as sink:
        for config, error in _named(loaded, select, exclude):
            if error is not None:
                done.append(StreamRepair(config.name, failure=error.as_dict()))
                continue
            try:
                done.append(_repair(loaded, config, sink, accept=accept, dry_run=dry_run))
            except DponeError as problem:
                done.append(StreamRepair(config.name, failure=placed(problem, loaded, config).as_dict()))
    return done


def _repair(manifest: Manifest, config: StreamConfig, sink: Sink, *, accept: bool, dry_run: bool) -> StreamRepair:
    key, write = key_of(manifest, config), _way(config)
    found = examine(sink, key, cursor=config.cursor, write=write, accept=accept)
    if not found.faults or dry_run:
        return StreamRepair(config.name, found.faults, found.acts, found.refusal)
    claim = sink.claim(key, run_id=new_run_id(), holder=_holder("repair"))
    try:
        found = examine(sink, key, cursor=config.cursor, write=write, accept=accept)  # as it is under the lock
        if not found.refusal:
            claim.repair(found.keep, accept=found.accept)
    finally:
        claim.release()
    return StreamRepair(config.name, found.faults, found.acts, found.refusal, done=not found.refusal)


def history(manifest: ManifestLike, *, limit: int = 10) -> list[dict[str, Any]]:
    """The newest run records of the local store."""
    loaded = _loaded(manifest)
    records = _store(loaded).runs()
    return [record for record, _ in zip(records, range(limit), strict=False)]


def reset(manifest: ManifestLike, *, select: Sequence[str], exclude: Sequence[str] = ()) -> list[str]:
    """Forget the state of the selected streams: receipts, open loads, staging. The target's rows stay.

    Returns the streams that were reset. Raises ConflictError when a run holds one of them.
    """
    loaded = _loaded(manifest)
    done = []
    with _sink(loaded) as sink:
        for config, error in _named(loaded, select, exclude):
            if error is not None:
                raise error
            claim = sink.claim(key_of(loaded, config), run_id=new_run_id(), holder=_holder("reset"))
            try:
                claim.reset()
            finally:
                claim.release()
            done.append(config.name)
    return done


def _holder(verb: str) -> str:
    return f"dpone {verb} on {socket.gethostname()} pid {os.getpid()}"


def _way(config: StreamConfig) -> str:
    """The way to write, as far as the manifest alone says; append is the careful guess."""
    if config.write:
        return "append" if config.write == "append_snapshot" else config.write
    return "replace" if not config.cursor else "merge" if config.primary_key else "append"


def discover(manifest: ManifestLike) -> list[str]:
    """The streams that the manifest's source holds."""
    loaded = _loaded(manifest)
    with _opened(loaded) as (source, _):
        return list(source.discover()) if hasattr(source, "discover") else []


def _loaded(manifest: ManifestLike) -> Manifest:
    if isinstance(manifest, Manifest):
        return manifest
    if isinstance(manifest, Mapping):
        return manifest_from_dict(manifest)
    return load_manifest(Path(manifest))


def _folder(manifest: Manifest) -> Path:
    """The folder of the manifest; the current one for a manifest that is not in a file."""
    return Path(manifest.path).parent


def _store(manifest: Manifest) -> Store:
    return Store(_folder(manifest) / ".dpone")


def _selected(
    manifest: Manifest,
    source: Source,
    wanted: Sequence[str],
    exclude: Sequence[str],
    results: Results | None = None,
) -> list[StreamConfig]:
    configs = expand(manifest.streams, source, manifest.source.connector)
    check_targets(manifest, configs)
    return list(choose(configs, wanted, exclude, results or _results(manifest, _store(manifest))))


def _results(manifest: Manifest, history: Store) -> Results:
    """What `result:` in a selector is about: the last run of this pipeline in the local store."""

    def last() -> LastRun:
        record = history.last(manifest.pipeline)
        if record is None:
            raise ConfigError(
                f"no run of {manifest.pipeline} is recorded in {history.folder / 'runs'}",
                remedy="select streams by name or tag; the local records are what 'result:' is about",
                code="DP122",
            )
        succeeded = {str(s["stream"]): str(s["status"]).startswith("succeeded") for s in record["streams"]}
        return LastRun(f"run {record['run_id']} of {record['time']['started']}", succeeded)

    return last


def _planned(
    manifest: Manifest, wanted: Sequence[str], exclude: Sequence[str], digest: str | None, results: Results
) -> list[StreamConfig]:
    """The streams to run. Connects only when a glob or a plan digest needs the source's word."""
    if digest is None and not any(config.is_glob for config in manifest.streams):
        check_targets(manifest, manifest.streams)
        return list(choose(manifest.streams, wanted, exclude, results))
    with _opened(manifest) as (source, sink):
        configs = _selected(manifest, source, wanted, exclude, results)
        if digest is not None:
            now = Plan("", "", "", tuple(_preview(manifest, config, source, sink) for config in configs)).digest
            if now != digest:
                raise ConflictError(
                    f"the plan is now {now}, not {digest}: the manifest, a schema or the state has changed",
                    remedy="look at `dpone plan` again",
                    code="DP702",
                )
        return configs


def _preview(manifest: Manifest, config: StreamConfig, source: Source, sink: Sink) -> Preview:
    decided: StreamPlan | None = None
    try:
        decided = decide(manifest, config, source, sink)
        found = preview(decided, source, sink)
        # A filter and a hook may hold a secret.
        steps = tuple(replace(step, sql=manifest.redact(step.sql)) for step in found.steps)
        return replace(found, queries=tuple(map(manifest.redact, found.queries)), steps=steps)
    except DponeError as error:
        return Preview(config.name, refusal=error)


def _named(
    manifest: Manifest, wanted: Sequence[str], exclude: Sequence[str]
) -> list[tuple[StreamConfig, DponeError | None]]:
    """The selected streams; the source is asked only for globs, and one that it cannot resolve comes with the error."""
    configs, results = list(manifest.streams), _results(manifest, _store(manifest))
    if not any(config.is_glob for config in configs):
        check_targets(manifest, configs)
        return [(config, None) for config in choose(configs, wanted, exclude, results)]
    try:
        with _source(manifest) as source:
            return [(config, None) for config in _selected(manifest, source, wanted, exclude)]
    except DponeError as error:
        if error.category == "config":
            raise
        failed = placed(error, manifest, configs[0])
        chosen = choose(configs, wanted, exclude, results)
        return [(config, failed if config.is_glob else None) for config in chosen]


@contextmanager
def _sink(manifest: Manifest) -> Iterator[Sink]:
    sink = manifest.sink.connector.open_sink(manifest.sink.config())
    try:
        yield sink
    finally:
        sink.close()


@contextmanager
def _source(manifest: Manifest) -> Iterator[Source]:
    source = manifest.source.connector.open_source(manifest.source.config())
    try:
        yield source
    finally:
        source.close()


@contextmanager
def _opened(manifest: Manifest) -> Iterator[tuple[Source, Sink]]:
    """Both ends, the sink first (see `run_stream`)."""
    with ExitStack() as stack:
        sink = open_sink(manifest)
        stack.callback(sink.close)
        source = open_source(manifest)
        stack.callback(source.close)
        yield source, sink


class _Keeper:
    """Saves the local record, if that is possible. What a run did is in the sink, with a record of its own."""

    def __init__(self, history: Store, emit: Emitter) -> None:
        self._history = history
        self._emit = emit
        self._told = False

    def __call__(self, record: RunRecord) -> Path | None:
        """Save it. When that fails it is said, once."""
        try:
            return self._history.save(record)
        except OSError as error:
            if not self._told:
                place, reason = str(self._history.folder), error.strerror or type(error).__name__
                self._emit("record.not_stored", "warning", place=place, reason=reason)
            self._told = True
            return None


@contextmanager
def _event_file(path: Path, manifest: Manifest) -> Iterator[Listener]:
    """Append every event but the progress ones to a file, one JSON document a line, as long as there is room."""
    guard = threading.Lock()
    with ExitStack() as stack:
        file = None
        with contextlib.suppress(OSError):
            file = stack.enter_context(path.open("ab", buffering=0))

        def write(event: Event) -> None:
            if file is not None and event.name != "rows.read":
                line = json.dumps(redacted(event.as_dict(), manifest.redact), default=str)
                with guard, contextlib.suppress(OSError):  # the record, beside it, is missed aloud
                    file.write(f"{line}\n".encode())

        yield write


def _finish(record: RunRecord, started: float, *, fail_fast: bool) -> None:
    states = {stream.status for stream in record.streams}
    # With fail_fast it is the failure that cancelled the others.
    cancelled = "cancelled" in states and not (fail_fast and "failed" in states)
    record.status = "cancelled" if cancelled else "failed" if "failed" in states else "succeeded"
    record.time |= {"finished": utc_now(), "duration_s": round(clock.monotonic() - started, 3)}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    record.resources = {
        "peak_rss_mb": round(usage.ru_maxrss / 1024, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
    }


def _git_commit(folder: Path) -> str | None:
    """The commit of the manifest's repository, when there is one."""
    try:
        found = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(folder), "rev-parse", "HEAD"],  # noqa: S607 - git from the user's PATH
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
