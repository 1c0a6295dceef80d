"""Drives the streams: claim, read, stage, commit, record.

One stream is one function, `run_stream`, which can be called again after any failure and goes on where the sink
says it stopped. Streams run side by side on a thread pool; each has its own connections.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from dpone import clock, stopping
from dpone.arrow.digest import undigestible
from dpone.engine.ledger import Ledger
from dpone.engine.plan import StreamPlan, decide, open_sink, open_source, placed, start_window
from dpone.engine.record import RunRecord, Status, StreamRecord, utc_now
from dpone.engine.retry import Budget, Retries
from dpone.errors import Cancelled, ConflictError, DponeError, InternalError
from dpone.events import redacted
from dpone.sdk import Claim, Load, LoadSpec, OpenLoad, Reading, Receipt, Results, Sink, Slice, Source
from dpone.sql.dialect import Dialect
from dpone.sql.source import BEHIND
from dpone.stopping import stopped_by
from dpone.strategy import Balance

if TYPE_CHECKING:
    import pyarrow as pa

    from dpone.events import Emitter
    from dpone.manifest.load import Manifest, StreamConfig

T = TypeVar("T")
_POLL_S = 0.2
_GRACE_S = 1.0
_KEEP_S = 1.0
_LAST_S = 3.0  # what the sink has to store the record of a run that is to stop


@dataclass
class Context:
    """What all streams of one run share."""

    manifest: Manifest
    record: RunRecord
    emit: Emitter
    wait: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)
    fail_fast: bool = False
    keep: Callable[[RunRecord], object] = field(default=lambda record: record)


def run_streams(context: Context, configs: Sequence[StreamConfig], threads: int) -> None:
    """Run every stream and fill its record. Independent streams go on when one fails, unless `fail_fast`."""
    records = context.record.streams
    budget = Budget(context.manifest.retries.budget)
    with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="dpone") as pool:
        futures = [
            pool.submit(_guarded, context, config, record, budget)
            for config, record in zip(configs, records, strict=True)
        ]
        _wait(context, futures)


def _wait(context: Context, futures: Sequence[Future[None]]) -> None:
    """Wait for the streams. The record is kept up to date meanwhile, so that a death leaves what was known by then.

    When the run is told to stop it is kept at once, as cancelled: whoever asks a second time does not wait for its end.
    """
    pending, changed, kept, cancelled = set(futures), False, clock.monotonic(), False
    while pending:
        done, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        changed = changed or bool(done)
        told = context.stop.is_set() and not cancelled and not context.fail_fast
        if pending and (told or (changed and clock.monotonic() - kept >= _KEEP_S)):
            cancelled, changed, kept = cancelled or told, False, clock.monotonic()
            context.keep(_so_far(context, futures, "cancelled" if cancelled else "running"))
    for future in futures:
        future.result()


def _so_far(context: Context, futures: Sequence[Future[None]], status: Status) -> RunRecord:
    """The record without what other threads are still writing."""
    streams = [
        record if future.done() else StreamRecord(record.stream, status)
        for record, future in zip(context.record.streams, futures, strict=True)
    ]
    return replace(context.record, status=status, streams=streams)


def _guarded(context: Context, config: StreamConfig, record: StreamRecord, budget: Budget) -> None:
    """Run one stream; a failure ends in its record, never in the pool."""
    emit = context.emit.bind(pipeline=context.manifest.pipeline, stream=config.name)
    retries = Retries(context.manifest.retries.attempts, budget, lambda: record.slices.get("done", 0))
    try:
        emit("stream.started", "info")
        with stopped_by(context.stop):
            retries.run(
                lambda: run_stream(context, config, record, emit),
                context.stop,
                lambda error, wait: emit("stream.retry", "warning", wait_s=round(wait, 3), **error.as_dict()),
            )
        record.status = "succeeded"
    except DponeError as error:
        if record.status == "succeeded":  # the load is committed, and only its record could not be stored in the sink
            emit("record.not_stored", "warning")
        else:
            _fail(context, record, placed(error, context.manifest, config))
    except Exception as error:
        if os.environ.get("DPONE_DEBUG", "0") not in ("", "0"):
            raise
        unexpected = InternalError(
            f"{type(error).__name__} in {config.name}", remedy="run with --debug for the traceback, and report it"
        )
        unexpected.__cause__ = error
        _fail(context, record, unexpected)
    finally:
        record.retries = retries.as_dict()
        emit("stream.finished", "info" if record.status == "succeeded" else "error", **_summary(record))


def _fail(context: Context, record: StreamRecord, error: DponeError) -> None:
    record.failure = redacted(error.as_dict(), context.manifest.redact)
    record.status = "cancelled" if isinstance(error, Cancelled) else "failed"
    record.changes, record.balance, record.proof = {}, {}, {"verdict": "unproven", "reason": "not committed"}
    if context.fail_fast:
        context.stop.set()


def _summary(record: StreamRecord) -> dict[str, Any]:
    return {
        "status": record.status,
        "rows": record.rows,
        "changes": record.changes,
        "proof": record.proof.get("verdict"),
        "failure": record.failure,
        "phases": record.phases,
    }


def run_stream(context: Context, config: StreamConfig, record: StreamRecord, emit: Emitter) -> None:
    """Move one window of one stream, exactly once. Safe to call again after any failure."""
    if context.stop.is_set():
        raise Cancelled("not started: the run was cancelled", remedy="run again")
    manifest = context.manifest
    timed = Clock(record.phases)
    with ExitStack() as stack:
        # The sink first: when source and sink are one DuckDB file, it must be opened for writing.
        sink = _until_free(context, lambda: open_sink(manifest))
        stack.callback(sink.close)
        source = open_source(manifest)
        stack.callback(source.close)
        with timed("describe_s"):
            plan = decide(manifest, config, source, sink)
        _describe(record, manifest, plan)
        emit("stream.planned", write=plan.write, mode=plan.mode, intent=plan.intent)

        holder = f"{socket.gethostname()} pid {os.getpid()}"
        claim = _until_free(context, lambda: sink.claim(plan.key, run_id=context.record.run_id, holder=holder))
        stack.callback(claim.release)
        emit("stream.claimed")
        for run_id in claim.abandoned:
            emit("run.abandoned", "warning", abandoned_run_id=run_id)
            if run_id not in context.record.abandoned:
                context.record.abandoned.append(run_id)
        if record.load_id is not None and claim.receipt is not None and claim.receipt.load_id == record.load_id:
            # The last attempt lost the connection in COMMIT, and the commit had landed.
            record.status = "succeeded"
            _record_in_sink(context, claim, record, None)
            return
        try:
            if sink.describe(plan.target) != plan.existing:  # another run changed it before this one had the lock
                plan = decide(manifest, config, source, sink)
            _load(context, plan, source, sink, claim, record, timed, emit)
        except BaseException as error:
            _record_in_sink(context, claim, record, error)
            raise
        record.status = "succeeded"
        _record_in_sink(context, claim, record, None)


def _load(
    context: Context,
    plan: StreamPlan,
    source: Source,
    sink: Sink,
    claim: Claim,
    record: StreamRecord,
    timed: Clock,
    emit: Emitter,
) -> None:
    """Continue the open load, or open a new one; stage what is missing; commit."""
    ledger = Ledger(plan)
    pending = claim.pending
    record.notes = _remarks(plan, claim.receipt)
    if pending is not None and pending.intent != plan.intent:
        emit("load.aborted", "warning", load_id=pending.load_id, reason="the plan changed since it was begun")
        record.notes.append(f"aborted the open load {pending.load_id[:8]} of run {pending.run_id}: the plan changed")
        pending = None

    with timed("read_s"):
        reading = source.open(
            plan.source, plan.schema, pending.window if pending else start_window(plan, claim.receipt)
        )
    try:
        load_value = pending or OpenLoad(
            load_id=secrets.token_hex(16),
            run_id=context.record.run_id,
            intent=plan.intent,
            window=reading.window,
            slices=() if reading.window.empty else reading.slices,
            snapshot=reading.snapshot,
        )
        spec = _spec(plan, sink, load_value)
        load = claim.begin(spec)
        emit("load.resumed" if pending else "load.opened", load_id=load_value.load_id, slices=len(load_value.slices))
        record.load_id = load_value.load_id
        if load_value.window.until_rule == BEHIND:
            record.notes.append(BEHIND)
        record.window = asdict(load_value.window) | {"cursor": plan.source.cursor or None}

        resumed = _still_valid(load_value, reading, load, ledger, emit) if pending else set()
        record.slices = {"total": len(load_value.slices), "done": len(resumed), "resumed": len(resumed)}
        for piece in load_value.slices:
            if piece.ordinal in resumed:
                continue
            with timed("stage_s"):
                emit("slice.started", slice=piece.ordinal, total=len(load_value.slices))
                batches = _observed(context, ledger.watch(piece, reading.read(piece)), plan, ledger, emit)
                receipt = load.stage(piece, batches)
            if ledger.flows[piece.ordinal].rows != receipt.rows:
                load.abort()  # nobody must build on a slice that is not what was read
                raise _unequal(plan, piece, ledger.flows[piece.ordinal].rows, receipt.rows)
            record.slices["done"] += 1
            emit("slice.staged", slice=piece.ordinal, rows=receipt.rows)
    finally:
        reading.close()

    if context.stop.is_set():
        raise Cancelled("cancelled before the commit", remedy="run again: the staged slices are kept")

    def check(results: Results) -> Receipt:
        balance = ledger.check(results)
        _fill(record, ledger, balance)
        emit("load.balanced", equations=[str(equation) for equation in balance.equations])
        return Receipt(
            load_id=load_value.load_id,
            run_id=context.record.run_id,
            window=load_value.window,
            rows={"read": ledger.rows, "staged": balance.staged, "final": balance.final},
            committed_at=utc_now(),
            digest=str(ledger.source) if plan.proof == "digest" else "",
            extra=plan.origin,
        )

    with timed("commit_s"):
        emit("load.committing", load_id=load_value.load_id)
        try:
            load.commit(check)
        except InternalError:
            load.abort()  # what was staged is not what was read: nobody must build on it
            raise
        emit("load.committed", load_id=load_value.load_id)


def _remarks(plan: StreamPlan, last: Receipt | None) -> list[str]:
    """What the state says that the user should know."""
    remarks = []
    if last is not None and plan.existing is None:
        remarks.append(f"the target {plan.target} is gone, so the load starts from the beginning")
    if last is not None and last.extra.get("source", plan.origin["source"]) != plan.origin["source"]:
        remarks.append(f"the last load came from {last.extra['source']}")
    return remarks


def _spec(plan: StreamPlan, sink: Sink, load: OpenLoad) -> LoadSpec:
    dialect = sink.dialect
    return LoadSpec(
        load=load,
        key=plan.key,
        columns=plan.schema.columns,
        write=plan.write,
        primary_key=plan.primary_key,
        cursor=plan.source.cursor,
        proof=plan.proof,
        steps=plan.steps(dialect, load.load_id, load.window) if isinstance(dialect, Dialect) else (),
    )


def _still_valid(pending: OpenLoad, reading: Reading, load: Load, ledger: Ledger, emit: Emitter) -> set[int]:
    """The durable slices that hold what the source holds now.

    The dead run's snapshot is gone. Where the source says that nothing changed (equal tokens) the slices stay as
    they are; otherwise each is compared with the source by digest, so that all slices agree with one snapshot again.
    """
    valid: set[int] = set()
    if any(undigestible(column) for column in ledger.plan.schema.columns) and pending.snapshot != reading.snapshot:
        return valid  # a digest would not see a change in those columns
    same = bool(pending.snapshot) and pending.snapshot == reading.snapshot
    for piece in pending.slices:
        receipt = pending.progress.get(piece.ordinal)
        if receipt is None:
            continue
        digest = None if same and ledger.plan.proof != "digest" else reading.digest(piece)
        if not same and load.digest(piece) != digest:
            emit("slice.stale", "info", slice=piece.ordinal)
            continue
        ledger.resumed(piece, receipt.rows, digest)
        valid.add(piece.ordinal)
        emit("slice.resumed", slice=piece.ordinal, rows=receipt.rows)
    return valid


def _observed(
    context: Context, batches: Iterator[pa.RecordBatch], plan: StreamPlan, ledger: Ledger, emit: Emitter
) -> Iterator[pa.RecordBatch]:
    """The batches, with progress events, until the run is cancelled."""
    for batch in batches:
        if context.stop.is_set():
            raise Cancelled("cancelled while reading", remedy="run again: durable slices are kept")
        yield batch
        emit("rows.read", rows=ledger.rows, estimated=plan.schema.estimated_rows)


def _unequal(plan: StreamPlan, piece: Slice, read: int, staged: int) -> InternalError:
    return InternalError(
        f"slice {piece.ordinal} of {plan.stream}: read {read:,} rows, the sink took {staged:,}",
        remedy="nothing was committed; report it",
        code="DP903",
    )


def _until_free(context: Context, act: Callable[[], T]) -> T:
    """Do `act`; while another run holds the lock, try again until `wait` seconds are over.

    At least for a moment: a server may take one to notice that a run was killed.
    """
    deadline = clock.monotonic() + max(context.wait, _GRACE_S)
    while True:
        try:
            return act()
        except ConflictError as error:
            if not error.retryable or clock.monotonic() >= deadline:
                raise
            if context.stop.wait(_POLL_S):
                raise Cancelled("cancelled while waiting for the lock", remedy="run again") from error


def _describe(record: StreamRecord, manifest: Manifest, plan: StreamPlan) -> None:
    record.source = {
        "connector": manifest.source.connector.name,
        "id": manifest.source.config().identity,
        "object": plan.source.name,
        "server_version": plan.schema.server_version,
        "read_mode": plan.mode,
    }
    record.sink = {
        "connector": manifest.sink.connector.name,
        "id": manifest.sink.config().identity,
        "object": str(plan.target),
        "write_mode": plan.write,
        "guarantee": "exactly_once",
    }
    record.drift = [asdict(drift) for drift in plan.drift]
    record.value_changes = [
        {"column": column.name, "reason": column.note} for column in plan.columns if column.fidelity == "lossy"
    ]
    record.rows = record.rows or {"estimated": plan.schema.estimated_rows}


def _fill(record: StreamRecord, ledger: Ledger, balance: Balance) -> None:
    flows = ledger.flows.values()
    record.rows |= {
        "extracted": ledger.rows,
        "filtered": 0,
        "quarantined": 0,
        "staged": balance.staged,
        "loaded": balance.inserted + balance.updated,
        "final_before": balance.before,
        "final": balance.final,
        "bytes_extracted": sum(flow.bytes for flow in flows),
        "batches": sum(flow.batches for flow in flows),
    }
    record.changes = {
        name: getattr(balance, name) for name in ("inserted", "updated", "unchanged", "stale", "deleted", "collapsed")
    }
    record.balance = {"holds": balance.holds, "equations": [str(equation) for equation in balance.equations]}
    record.proof = ledger.proof()


def _record_in_sink(context: Context, claim: Claim, record: StreamRecord, error: BaseException | None) -> None:
    """Best effort after a failure: the sink may be the thing that failed."""
    stopping.current().spare(_LAST_S)
    if error is None:
        claim.record(context.record.run_id, "succeeded", json.dumps(asdict(record)))
        return
    status: Status = "cancelled" if isinstance(error, Cancelled) else "failed"
    failure = error.as_dict() if isinstance(error, DponeError) else {"category": "internal"}
    ended = asdict(replace(record, status=status, failure=failure))
    document = json.dumps(redacted(ended, context.manifest.redact))
    try:
        claim.record(context.record.run_id, status, document)
    except DponeError:
        emit = context.emit.bind(pipeline=context.manifest.pipeline, stream=record.stream)
        emit("record.not_stored", "warning")


@dataclass
class Clock:
    """Adds up the seconds of each phase."""

    phases: dict[str, float]

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = clock.monotonic()
        try:
            yield
        finally:
            self.phases[name] = round(self.phases.get(name, 0.0) + clock.monotonic() - start, 6)
