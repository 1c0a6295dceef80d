"""Values to text. Every function takes a value of the API and returns what a person reads; nothing is printed here.

Counts have thousands separators, times are UTC, durations are in seconds. Signs that are not ASCII are replaced by
`terminal.write` where the terminal cannot show them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from dpone.api import StreamStatus
    from dpone.engine.plan import Plan, Preview, StreamPlan
    from dpone.engine.record import RunRecord, StreamRecord
    from dpone.errors import DponeError
    from dpone.events import Event
    from dpone.reconcile import Comparison
    from dpone.sdk import Connector, Window
    from dpone.testing.certify import Certificate

WIDTH = 100
_MESSAGE_LINES, _REMEDY_LINES = 4, 2  # with the place and a margin, a failure has at most 8 lines


def failure(found: Mapping[str, Any], subject: str = "") -> str:
    """What went wrong, where, and what to do, from `DponeError.as_dict()`; at most 8 lines."""
    subject = f"{subject}: " if subject and not str(found["message"]).startswith(f"{subject}:") else ""
    kind = f"✗ {found['category']} [{found.get('code', 'DP900')}]"
    lines = _wrapped(f"{kind} {subject}{found['message']}", _MESSAGE_LINES)
    if found.get("where"):
        lines.append(f"  at {found['where']}")
    if found.get("remedy"):
        lines += ["  " + line for line in _wrapped(f"fix: {found['remedy']}", _REMEDY_LINES)]
    return "\n".join(lines)


def event_line(event: Event, *, verbose: bool = False) -> str:
    """An event as one line, empty when it is not worth one. A healthy stream has at most three."""
    if event.name in _LINES:
        return _LINES[event.name](event, event.fields)
    if event.name == "rows.read" or not (verbose or event.level in ("warning", "error")):
        return ""
    details = " ".join(f"{key}={value}" for key, value in event.fields.items())
    return " ".join(part for part in (f"{event.stream}:" if event.stream else "", event.name, details) if part)


def _started(event: Event, found: Mapping[str, Any]) -> str:
    return f"run {event.run_id} started: pipeline {event.pipeline}, {_many(len(found['streams']), 'stream')}"


def _finished(event: Event, found: Mapping[str, Any]) -> str:
    if found.get("failure"):
        return failure(found["failure"], event.stream)
    return f"{event.stream}: {_outcome(found) if found['status'] == 'succeeded' else found['status']}"


def _retry(event: Event, found: Mapping[str, Any]) -> str:
    problem = f"{found['category']} [{found['code']}] {found['message']}"
    return f"{event.stream}: {problem}; trying again in {seconds(found['wait_s'])}"


def _not_stored(event: Event, found: Mapping[str, Any]) -> str:
    if event.stream:
        return f"{event.stream}: the sink could not store the record of this run"
    return f"the record of this run cannot be kept in {found['place']}: {found['reason']}; the run goes on without it"


_LINES: dict[str, Callable[[Event, Mapping[str, Any]], str]] = {
    "run.started": _started,
    "run.finished": lambda event, found: f"run {event.run_id} {found['status']}, {seconds(found['duration_s'])}",
    "run.abandoned": lambda _, found: (
        f"run {found['abandoned_run_id']} was found unfinished and is recorded as abandoned"
    ),
    "stream.planned": lambda event, found: f"{event.stream}: {found['write']}, {found['mode']} load",
    "stream.finished": _finished,
    "stream.retry": _retry,
    "record.not_stored": _not_stored,
    "load.resumed": lambda event, _: f"{event.stream}: continuing the load that an earlier run left open",
    "load.aborted": lambda event, found: (
        f"{event.stream}: the open load of an earlier run is dropped: {found['reason']}"
    ),
}


def _outcome(found: Mapping[str, Any]) -> str:
    changes: Mapping[str, int] = found.get("changes") or {}
    parts = [f"{number(found['rows'].get('extracted'))} read"]
    parts += [f"{number(count)} {name}" for name, count in changes.items() if count]
    proof = {"proven": "proven"}.get(str(found.get("proof")), "not proven")
    return f"{', '.join(parts)}; {proof}; {seconds(sum(found['phases'].values()))}"


# dpone run


def run_table(record: RunRecord) -> str:
    """The end of a run: the route, one line a stream, and what a reader should know besides."""
    left = f"{record.pipeline}: {record.source} → {record.sink}"
    right = f"run {record.run_id}  {seconds(record.time.get('duration_s'))}"
    lines = [f"{left:<{WIDTH - len(right) - 2}}  {right}"] if len(left) + len(right) + 2 <= WIDTH else [left, right]
    head = ("stream", "read", "staged", "ins", "upd", "same", "del", "final", "proof", "time")
    lines += table(head, [_run_row(stream) for stream in record.streams], left=("stream", "proof"))
    for stream in record.streams:
        lines += [f"  {line}" for line in _remarks(stream)]
    return "\n".join(lines)


def _run_row(stream: StreamRecord) -> list[str]:
    elapsed = seconds(sum(stream.phases.values()))
    if stream.status != "succeeded":
        why = f": {stream.failure['category']}" if stream.failure and stream.status == "failed" else ""
        return [stream.stream, *["—"] * 7, f"{stream.status}{why}", elapsed]
    changes = stream.changes
    counts = [stream.rows.get("extracted"), stream.rows.get("staged")]
    counts += [changes.get(name) for name in ("inserted", "updated", "unchanged", "deleted")]
    counts += [stream.rows.get("final")]
    return [stream.stream, *map(number, counts), _proof(stream), elapsed]


def _proof(stream: StreamRecord) -> str:
    level = stream.proof.get("level", "none")
    if level == "none":
        return "not asked"
    return f"{stream.proof.get('verdict', 'unproven')} ({level})"


def _remarks(stream: StreamRecord) -> list[str]:
    name, lines = stream.stream, []
    resumed = stream.slices.get("resumed", 0)
    if resumed:
        lines.append(f"{name}: {resumed} of {_many(stream.slices['total'], 'slice')} were durable from an earlier run")
    for kind, why in (("stale", "older than the target's row"), ("collapsed", "an earlier version of the same key")):
        if stream.changes.get(kind):
            lines.append(f"{name}: {_many(stream.changes[kind], 'row')} {kind} ({why})")
    lines += [f"{name}: column {drift['column']}: {drift['change']}: {drift['decision']}" for drift in stream.drift]
    lines += [f"{name}: {note}" for note in stream.notes]
    if stream.status == "succeeded" and stream.proof.get("level", "none") != "none" and not stream.proven:
        lines.append(f"{name}: not proven: {stream.proof.get('reason')}")
    return lines


def run_totals(record: RunRecord, path: Path | str | None) -> str:
    """The last line of a run."""
    done = [stream for stream in record.streams if stream.status == "succeeded"]
    rows = sum(stream.rows.get("extracted") or 0 for stream in done)
    size = sum(stream.rows.get("bytes_extracted") or 0 for stream in done)
    retries = sum(stream.retries.get("total", 0) for stream in record.streams)
    parts = [_many(len(record.streams), "stream")]
    for status in ("failed", "cancelled"):
        count = sum(stream.status == status for stream in record.streams)
        parts += [f"{count} {status}"] if count else []
    parts += [_many(rows, "row"), f"{size / 1e6:,.1f} MB", "1 retry" if retries == 1 else f"{retries} retries"]
    return f"{', '.join(parts)}. " + (f"Record: {path}" if path else f"Run {record.run_id}")


def chosen_mode(stream: StreamRecord, *, write: str = "", cursor: str = "") -> str:
    """How a copy was made and why, from the options that were given."""
    chosen = stream.sink.get("write_mode", "")
    if write:
        why = "as asked"
    elif not cursor:
        why = "no cursor given, so the target holds exactly what the source held"
    elif chosen == "merge":
        why = f"cursor {cursor} and a primary key, so rows are inserted or updated by key"
    else:
        why = f"cursor {cursor} and no primary key, so new rows are added"
    return f"mode: {stream.source.get('read_mode', '')}, {chosen} ({why})"


# dpone plan, dpone check


def plan_text(plan: Plan, *, verbose: bool = False) -> str:
    """What a run would do: `+` a new table, `~` an existing one, `=` nothing to do, `!` refused."""
    lines = [f"plan {plan.pipeline}: {plan.source} → {plan.sink}"]
    for preview in plan.streams:
        lines += _preview(preview, verbose=verbose)
    refused = len(plan.refusals)
    idle = sum(1 for preview in plan.streams if _sign(preview) == "=")
    parts = [f"{len(plan.streams) - refused - idle} to apply"]
    parts += [f"{idle} with nothing to do"] if idle else []
    parts += [f"{refused} refused"] if refused else []
    return "\n".join([*lines, f"{', '.join(parts)}; nothing was written. Plan digest {plan.digest}"])


def has_changes(plan: Plan) -> bool:
    """Whether a run would read or write anything. A full load always does: only reading tells what it finds."""
    return any(_sign(preview) in "+~" for preview in plan.streams)


def _sign(preview: Preview) -> str:
    if preview.refusal is not None or preview.plan is None:
        return "!"
    if preview.window is not None and preview.window.empty:
        return "="
    return "+" if preview.plan.existing is None else "~"


def _preview(preview: Preview, *, verbose: bool) -> list[str]:
    plan = preview.plan
    if preview.refusal is not None or plan is None:
        found = preview.refusal.as_dict() if preview.refusal else {"category": "internal", "message": "no decision"}
        return [f" ! {preview.stream}: refused", *(f"     {line}" for line in failure(found).splitlines())]
    facts = [how(plan)]
    if preview.window is not None:
        facts.append(_window(preview.window, plan.source.cursor))
        if not preview.window.empty:
            facts.append(_many(preview.slices, "slice"))
    if plan.schema.estimated_rows is not None:
        facts.append(f"about {number(plan.schema.estimated_rows)} rows at the source")
    lines = [f" {_sign(preview)} {preview.stream} → {plan.target}", *_flowing(", ".join(facts))]
    if preview.last is not None:
        lines.append(f"     last load {preview.last.committed_at}, {number(preview.last.rows.get('read'))} rows read")
    lines.append(f"     {_types(plan)}; proof: {plan.proof}")
    lines += _columns(plan, verbose=verbose)
    lines += [f"     + column {drift.column}: {drift.change}: {drift.decision}" for drift in plan.drift]
    lines += [f"     not in the proof: {gap}" for gap in plan.gaps]
    lines += [f"     note: {note}" for note in plan.notes]
    return lines + _statements(preview, verbose=verbose)


def how(plan: StreamPlan) -> str:
    """The write mode and the key."""
    return f"{plan.write} on {', '.join(plan.primary_key)}" if plan.primary_key else plan.write


def _window(window: Window, cursor: str) -> str:
    if window.full:
        return "full load"
    if window.empty:
        return f"nothing new: {cursor} is still {window.after}" if window.after is not None else "nothing to read"
    nulls = f" and {_many(window.null_rows, 'row')} without {cursor}" if window.null_rows else ""
    if window.after is None:
        return f"{cursor} up to {window.until}{nulls}, first load"
    return f"{cursor} {'from' if window.inclusive else 'after'} {window.after} up to {window.until}{nulls}"


def _types(plan: StreamPlan) -> str:
    counts: dict[str, int] = {}
    for column in plan.columns:
        counts[column.fidelity] = counts.get(column.fidelity, 0) + 1
    details = ", ".join(f"{count} {fidelity}" for fidelity, count in counts.items())
    return f"{_many(len(plan.columns), 'column')}: {details}"


def _columns(plan: StreamPlan, *, verbose: bool) -> list[str]:
    shown = [column for column in plan.columns if verbose or column.fidelity != "exact"]
    rows = [[c.name, f"{c.source_type} → {c.type} → {c.sink_type}", c.fidelity, c.note] for c in shown]
    return [f"       {line}" for line in table(None, rows, left=(0, 1, 2, 3))]


def _statements(preview: Preview, *, verbose: bool) -> list[str]:
    lines = []
    queries = preview.queries if verbose else preview.queries[:1]
    nothing = preview.window is not None and preview.window.empty
    if not nothing:
        lines += [f"     read   {_cut(query, verbose=verbose)}" for query in queries]
        if preview.slices > len(queries):
            lines.append(f"            and {_many(preview.slices - len(queries), 'more slice')} like it")
    steps = [step for step in preview.steps if verbose or step.kind in ("run", "rows")]
    for step in steps:
        lines.append(f"     {'write' if step.kind in ('run', 'rows') else 'check'}  {_cut(step.sql, verbose=verbose)}")
    return lines


def _cut(sql: str, *, verbose: bool) -> str:
    flat = " ".join(sql.split())
    room = WIDTH - len("     write  ")
    return flat if verbose or len(flat) <= room else flat[: room - 1] + "…"


def check_line(preview: Preview) -> str:
    """One stream of `dpone check`."""
    if preview.plan is None or preview.refusal is not None:
        found = preview.refusal.as_dict() if preview.refusal else {"category": "internal", "message": "no decision"}
        return failure(found, preview.stream)
    plan = preview.plan
    state = "exists" if plan.existing is not None else "new"
    mode = f"{how(plan)}, {plan.mode}"
    return f"✓ {preview.stream} → {plan.target} ({state}): {mode}; {_types(plan)}; proof: {plan.proof}"


# dpone verify, dpone status, dpone connectors


def verify_text(found: Sequence[Comparison | DponeError]) -> str:
    """One line per compared stream, then what was left out."""
    rows, remarks = [], []
    for item in found:
        if isinstance(item, Exception):
            continue
        verdict = item.verdict
        if not item.equal:
            verdict += " (rows)" if item.source.rows != item.sink.rows else " (contents)"
        rows.append([item.stream, item.target, *map(number, (item.source.rows, item.sink.rows, item.pending)), verdict])
        remarks += [f"  {item.stream}: not compared: {item.skipped}"] if item.skipped else []
    head = ("stream", "target", "source", "sink", "pending", "verdict")
    return "\n".join([*(table(head, rows, left=("stream", "target", "verdict")) if rows else []), *remarks])


def status_text(streams: Sequence[StreamStatus], runs: Sequence[Mapping[str, Any]]) -> str:
    """What every target remembers, and the last runs on this machine."""
    rows = []
    for stream in streams:
        receipt = stream.receipt
        if stream.failure:
            rows.append([stream.stream, stream.target, f"unknown: {stream.failure['category']}", "", "", ""])
        elif receipt is None:
            rows.append([stream.stream, stream.target, "never loaded", "", "", ""])
        else:
            until = receipt.window.until
            checkpoint = "full" if receipt.window.full else until if until is not None else "—"
            counts = [number(receipt.rows.get("read")), number(receipt.rows.get("final"))]
            rows.append([stream.stream, stream.target, receipt.committed_at, *counts, checkpoint])
    head = ("stream", "target", "last load", "read", "final", "checkpoint")
    lines = table(head, rows, left=("stream", "target", "last load", "checkpoint"))
    lines += [failure(stream.failure, stream.stream) for stream in streams if stream.failure]
    if runs:
        first = "last runs here"
        past = [
            [
                str(run["run_id"]),
                str(run["time"].get("started")),
                seconds(run["time"].get("duration_s")),
                number(len(run.get("streams", ()))),
                str(run["status"]),
            ]
            for run in runs
        ]
        lines += ["", *table((first, "started", "time", "streams", "status"), past, left=(first, "started", "status"))]
    return "\n".join(lines)


def connectors_text(connectors: Mapping[str, Connector]) -> str:
    """What is installed, what each can do, and why not where it cannot."""
    head = ("connector", "system", "URL schemes", "driver")
    rows = [
        [c.name, c.title, ", ".join(c.schemes), f'pip install "dpone[{c.extra}]"' if c.extra else "included"]
        for c in connectors.values()
    ]
    lines = [*table(head, rows, left=head), ""]
    from dpone.sdk import Capability

    matrix = [
        [capability.value, *(_LEVELS[c.supports(capability).level] for c in connectors.values())]
        for capability in Capability
    ]
    names = ("capability", *connectors)
    lines += table(names, matrix, left=names)
    gaps = []
    for connector in connectors.values():
        for capability in Capability:
            support = connector.supports(capability)
            if support.level != "full":
                level = support.level.replace("_", " ")
                instead = f" Instead: {support.instead}" if support.instead else ""
                gaps += _wrapped(f"{connector.name} {capability.value}: {level}: {support.why}.{instead}", 8)
    return "\n".join([*lines, *(["", *gaps] if gaps else [])])


def certificates_text(certificates: Sequence[Certificate]) -> str:
    """What was executed for each connector, its level, and what stands between it and the next one."""
    lines: list[str] = []
    for certificate in certificates:
        from dpone.testing.levels import CHECKS

        evidence = certificate.evidence
        rows = []
        for check, found in evidence["checks"].items():
            seconds = sum(test["seconds"] for test in found["tests"].values())
            outcome = found["outcome"].replace("_", " ")
            rows.append([check, CHECKS[check], outcome, str(len(found["tests"])), f"{seconds:.1f} s"])
        system = evidence["system"]
        lines += [f"{certificate.connector} {system['version']} ({system['served']}): {certificate.level}", ""]
        lines += table(("check", "about", "outcome", "tests", "time"), rows, left=("check", "about", "outcome"))
        for reason in certificate.short_of_next:
            lines.append(f"next level: {reason}")
        lines.append("")
    return "\n".join(lines).rstrip()


def types_text(document: Mapping[str, Any]) -> str:
    """How many cases of each source are exact, widened, lossy or refused in each sink; and what was not as it must."""
    words = ("exact", "widened", "lossy", "refused", "failed")
    rows = []
    for source, cases in document["sources"].items():
        sinks = next(iter(cases.values()))["sinks"]
        for sink in sinks:
            found = [case["sinks"][sink] for case in cases.values()]
            rows.append([source, sink, str(len(found)), *(str(found.count(word)) for word in words)])
    lines = table(("source", "sink", "cases", *words), rows, left=("source", "sink"))
    return "\n".join([*lines, "", *document["problems"]]).rstrip()


_LEVELS = {"full": "yes", "not_implemented": "not yet", "impossible": "no"}


# Pieces


def table(head: Sequence[str] | None, rows: Sequence[Sequence[str]], *, left: Sequence[str | int] = ()) -> list[str]:
    """Aligned columns; those in `left`, by name or number, to the left. Without rows, only the head."""
    lines = [list(head)] if head else []
    lines += [list(row) for row in rows]
    if not lines:
        return []
    names: Sequence[str | int] = head or range(len(lines[0]))
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    shown = []
    for line in lines:
        cells = [
            f"{cell:<{width}}" if name in left else f"{cell:>{width}}"
            for cell, width, name in zip(line, widths, names, strict=True)
        ]
        shown.append("  ".join(cells).rstrip())
    return shown


def number(count: int | None) -> str:
    """A count with thousands separators; a dash when there is none."""
    return "—" if count is None else f"{count:,}"


def seconds(duration: float | None) -> str:
    """A duration."""
    return "—" if duration is None else f"{duration:,.1f} s"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _flowing(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="     ", subsequent_indent="     ", break_long_words=False)


def _wrapped(text: str, most: int) -> list[str]:
    """The text in lines of a terminal's width, at most so many."""
    lines = textwrap.wrap(
        " ".join(text.split()), WIDTH - 4, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1] + " …"]
