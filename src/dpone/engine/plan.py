"""The plan: the manifest against what the source and the sink say, before any byte moves.

`decide` makes every decision of one stream (types, drift, write strategy, DDL) or refuses with the remedy. Its
result is a frozen value whose `intent` digest covers everything that was decided; the window and the slices are not
in it, they are pinned in the open load. `preview` adds what a run would read now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from dpone.arrow.digest import undigestible
from dpone.arrow.types import type_name
from dpone.engine.columns import ColumnPlan, Drift, Write, check_width, decide_columns, fold
from dpone.errors import ConfigError, DponeError, SchemaError, SinkUnavailable, SourceUnavailable
from dpone.sdk import (
    Capability,
    Connector,
    Discover,
    Receipt,
    Sink,
    Source,
    Step,
    Stream,
    StreamKey,
    StreamSchema,
    Table,
    TargetSchema,
    Window,
)
from dpone.sql.dialect import Dialect
from dpone.sql.sink import stage_table
from dpone.sql.source import split_name
from dpone.strategy import STRATEGIES, Publication

if TYPE_CHECKING:
    from dpone.manifest.load import Endpoint, Manifest, StreamConfig

_SHOWN_QUERIES = 3


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """Every decision of one stream. `stream` is its name in the manifest, the key's is that of the object.

    `gaps` says which columns a digest cannot cover, `notes` what the user should know.
    """

    stream: str
    key: StreamKey
    source: Stream
    schema: StreamSchema
    target: Table
    existing: TargetSchema | None
    write: Write
    columns: tuple[ColumnPlan, ...]
    added: tuple[str, ...]
    drift: tuple[Drift, ...]
    primary_key: tuple[str, ...]
    proof: Literal["none", "counts", "digest"]
    origin: Mapping[str, str]
    allow_empty: bool = False
    gaps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        """`full` or `incremental`."""
        return "incremental" if self.source.cursor else "full"

    @property
    def intent(self) -> str:
        """The digest of everything decided; equal intents may continue each other's open load."""
        decided = {
            "key": str(self.key),
            "source": {**asdict(self.source), "casts": dict(self.source.casts)},
            "columns": [asdict(column) for column in self.columns],
            "existing": dict(self.existing.columns) if self.existing else None,
            "write": self.write,
            "primary_key": self.primary_key,
            "proof": self.proof,
            "origin": dict(self.origin),
        }
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()[:32]

    def steps(self, dialect: Dialect, load_id: str, window: Window) -> tuple[Step, ...]:
        """The publication of a load as SQL."""
        columns = dialect.stored(self.schema.columns, self.target.schema)
        publication = Publication(
            dialect=dialect,
            target=self.target,
            stage=stage_table(self.target, load_id),
            columns=columns,
            exists=self.existing is not None,
            added=tuple(column for column in columns if column.name in self.added),
            primary_key=self.primary_key if self.write == "merge" else (),
            cursor=self.source.cursor,
            inclusive=window.inclusive,
            digest=self.proof == "digest",
        )
        return tuple(STRATEGIES[self.write].steps(publication))


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do with one stream now: a plan and its window, or the refusal."""

    stream: str
    plan: StreamPlan | None = None
    window: Window | None = None
    slices: int = 0
    queries: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    last: Receipt | None = None
    refusal: DponeError | None = None

    def as_dict(self) -> dict[str, Any]:
        """The preview as `plan --json` prints it."""
        if self.plan is None:
            failure = self.refusal.as_dict() if self.refusal else {}
            return {"stream": self.stream, "refused": failure}
        plan, window = self.plan, self.window
        return {
            "stream": self.stream,
            "target": str(plan.target),
            "mode": plan.mode,
            "write": plan.write,
            "guarantee": "exactly_once",
            "primary_key": list(plan.primary_key),
            "cursor": plan.source.cursor or None,
            "estimated_rows": plan.schema.estimated_rows,
            "window": asdict(window) if window else None,
            "slices": self.slices,
            "read": list(self.queries),
            "columns": [asdict(column) for column in plan.columns],
            "drift": [asdict(drift) for drift in plan.drift],
            "not_in_the_proof": list(plan.gaps),
            "notes": list(plan.notes),
            "steps": [step.sql for step in self.steps],
            "proof": plan.proof,
            "intent": plan.intent,
            "last_load": self.last.load_id if self.last else None,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a whole run. `digest` changes when anything decided, or the state it starts from, changes."""

    pipeline: str
    source: str
    sink: str
    streams: tuple[Preview, ...]

    @property
    def digest(self) -> str:
        """Over the intents and the positions they start from; rows that arrived at the source since do not count."""
        parts = [
            [
                preview.stream,
                preview.plan.intent if preview.plan else None,
                preview.last.load_id if preview.last else None,
            ]
            for preview in self.streams
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @property
    def refusals(self) -> tuple[Preview, ...]:
        """The streams that cannot run."""
        return tuple(preview for preview in self.streams if preview.refusal is not None)

    def as_dict(self) -> dict[str, Any]:
        """The plan as `plan --json` prints it."""
        return {
            "schema": "dpone.plan/1",
            "pipeline": self.pipeline,
            "source": self.source,
            "sink": self.sink,
            "digest": self.digest,
            "streams": [preview.as_dict() for preview in self.streams],
        }


def expand(configs: Sequence[StreamConfig], source: Source, connector: Connector) -> list[StreamConfig]:
    """Globs replaced by the streams they match at the source; an exact name wins over a glob, the first glob wins.

    Raises SchemaError when a glob matches nothing.
    """
    exact = {config.name for config in configs if not config.is_glob}
    found: dict[str, StreamConfig] = {}
    listed: Sequence[str] | None = None
    for config in configs:
        if not config.is_glob:
            found[config.name] = config
            continue
        _need(connector, Capability.DISCOVER, f"the glob {config.name}", config.at())
        if listed is None:
            listed = source.discover() if isinstance(source, Discover) else ()
        matches = [name for name in listed if PurePosixPath(name).match(config.name) and name not in exact]
        if not matches:
            raise SchemaError(
                f"{config.name} matches no stream at the source",
                where=config.at(),
                remedy=f"the source has {', '.join(listed[:10]) or 'no streams'}",
                code="DP401",
            )
        for name in matches:
            found.setdefault(name, replace(config, name=name, is_glob=False))
    return list(found.values())


def check_targets(manifest: Manifest, configs: Sequence[StreamConfig]) -> None:
    """Raise ConfigError when two streams would write one table: each would undo the other's rows."""
    folds = manifest.sink.connector.folds_case
    owners: dict[str, StreamConfig] = {}
    for config in configs:
        target = _target(manifest, config)
        if getattr(manifest.sink.config(), "is_one_file", False):
            target = Table("", manifest.sink.config().identity)
        owner = owners.setdefault(fold(str(target), folds=folds), config)
        if owner is not config:
            raise ConfigError(
                f"{owner.name} and {config.name} would both write {target}",
                where=config.at("target"),
                remedy="give one of them another target: NAME",
                code="DP135",
            )


def decide(manifest: Manifest, config: StreamConfig, source: Source, sink: Sink) -> StreamPlan:
    """Every decision of one stream. Raises the refusal, with the position in the manifest and the remedy."""
    try:
        return _decide(manifest, config, source, sink)
    except DponeError as error:
        raise placed(error, manifest, config) from error.__cause__


def open_source(manifest: Manifest) -> Source:
    """The source; what goes wrong here is about that end of the manifest."""
    with _about(manifest.source):
        return manifest.source.connector.open_source(manifest.source.config())


def open_sink(manifest: Manifest) -> Sink:
    """The same for the sink."""
    with _about(manifest.sink):
        return manifest.sink.connector.open_sink(manifest.sink.config())


@contextmanager
def _about(end: Endpoint) -> Iterator[None]:
    try:
        yield
    except DponeError as error:
        error.where = error.where or end.where
        raise


def placed(error: DponeError, manifest: Manifest, config: StreamConfig) -> DponeError:
    """The error with a position in the manifest: the end that it says it is about, else the stream."""
    sides = {SourceUnavailable: "source", SinkUnavailable: "sink"}
    ends = {"source": manifest.source.where, "sink": manifest.sink.where}
    error.where = error.where or ends.get(error.side or sides.get(type(error), ""), config.at())
    return error


def preview(plan: StreamPlan, source: Source, sink: Sink) -> Preview:
    """What a run would read and write now. Reads the source and the sink, changes nothing."""
    last = sink.last_receipt(plan.key)
    reading = source.open(plan.source, plan.schema, start_window(plan, last))
    try:
        slices = reading.slices
        queries = tuple(reading.query(piece) for piece in slices[:_SHOWN_QUERIES])
        window = reading.window
    finally:
        reading.close()
    dialect = sink.dialect
    steps = plan.steps(dialect, "LOAD", window) if isinstance(dialect, Dialect) else ()
    return Preview(plan.stream, plan, window, len(slices), queries, steps, last=last)


def start_window(plan: StreamPlan, receipt: Receipt | None) -> Window:
    """Where a new load starts: after the last receipt, with what it remembers of the rows at its end."""
    if not plan.source.cursor:
        return Window(full=True)
    if receipt is None or receipt.window.full or plan.existing is None:
        return Window(full=False)  # a target that was dropped is loaded from the beginning
    _check_origin(plan, receipt)
    return Window(full=False, after=receipt.window.until, ties=receipt.window.ties)


def _check_origin(plan: StreamPlan, receipt: Receipt) -> None:
    """A checkpoint is a position in one cursor over one set of rows; of others it says nothing."""
    for name, what in (("cursor", "cursor"), ("cursor_type", "type of the cursor"), ("filter", "filter")):
        if name in receipt.extra and receipt.extra[name] != plan.origin[name]:
            raise ConfigError(
                f"the {what} of {plan.stream} has changed since its last load, whose checkpoint means nothing now",
                remedy=f"change it back, or forget the checkpoint: dpone reset -s {plan.stream}",
                code="DP136",
            )


def _origin(manifest: Manifest, stream: Stream, schema: StreamSchema) -> dict[str, str]:
    """What the position in a receipt belongs to. The filter may hold a secret, so only its digest is kept."""
    column = schema.column(stream.cursor)
    name = type_name(column.type) if column is not None and not column.kept else ""
    numbers = name.startswith(("int", "uint", "decimal"))  # a wider number still sorts as before
    return {
        "source": manifest.source.config().identity,
        "cursor": stream.cursor,
        "cursor_type": "number" if numbers else name.partition("[")[0],
        "filter": hashlib.sha256(stream.filter.encode()).hexdigest()[:16] if stream.filter else "",
    }


def _decide(manifest: Manifest, config: StreamConfig, source: Source, sink: Sink) -> StreamPlan:
    origin, destination = manifest.source.connector, manifest.sink.connector
    stream = _stream(manifest, config)
    _check_reading(config, origin)
    schema = source.describe(stream)
    whole = all(schema.column(name) is not None for name in schema.primary_key)  # half a key is no key
    primary_key = config.primary_key or (schema.primary_key if whole else ())
    stream = replace(stream, primary_key=primary_key)
    write, snapshot = _write(config, primary_key)
    _check_writing(config, destination, write)
    _check_modes(config, write, schema, snapshot=snapshot)

    target = _target(manifest, config)
    _check_cursor(config, schema)
    _check_not_itself(manifest, config, stream, target)
    existing = sink.describe(target)
    _check_replaceable(config, target, existing, write)
    columns, drift, added = decide_columns(
        schema, existing, target, config, sink.dialect, write, folds=destination.folds_case
    )
    check_width(schema, existing, added, sink.dialect)
    decided = zip(schema.columns, columns, strict=True)
    schema = replace(schema, columns=tuple(replace(column, altered=plan.altered) for column, plan in decided))
    proof = config.proof
    gaps = tuple(filter(None, (undigestible(column) for column in schema.columns))) if proof == "digest" else ()
    notes = (
        [f"{config.cursor} is part of the key: new rows are seen, changed ones are not"]
        if (write == "merge" and config.cursor in primary_key)
        else []
    )
    late = origin.supports(Capability.READ_LATE_COMMITS)
    if config.cursor and late.level != "full":
        notes.append(f"{late.why}; {late.instead}")
    return StreamPlan(
        stream=config.name,
        key=StreamKey(manifest.pipeline, stream.name, target),
        origin=_origin(manifest, stream, schema),
        source=stream,
        schema=schema,
        target=target,
        existing=existing,
        write=write,
        columns=columns,
        added=added,
        drift=drift,
        primary_key=primary_key if write == "merge" else (),
        proof=proof,
        allow_empty=config.allow_empty,
        gaps=gaps,
        notes=tuple(notes),
    )


def _stream(manifest: Manifest, config: StreamConfig) -> Stream:
    origin, destination = manifest.source.connector, manifest.sink.connector
    name = config.name
    if origin.default_schema:
        # One name for one table, however the manifest spells it: it is part of the identity of the state.
        schema, table = split_name(name, manifest.source.schema or origin.default_schema)
        name = f"{_part(schema)}.{_part(table)}"
    return Stream(
        name=name,
        primary_key=config.primary_key,
        cursor=config.cursor,
        null_cursor=config.null_cursor,
        include=config.include,
        exclude=config.exclude,
        casts=config.casts,
        filter=config.filter,
        slice_rows=config.slice_rows,
        keep_native=origin.name == destination.name and bool(origin.default_schema),
    )


def _part(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if "." in name or '"' in name else name


def _target(manifest: Manifest, config: StreamConfig) -> Table:
    default = manifest.sink.schema or manifest.sink.connector.default_schema
    if config.target:
        schema, name = split_name(config.target, default)
        return Table(schema, name)
    if manifest.source.connector.default_schema:
        return Table(default, split_name(config.name, "")[1])
    return Table(default, PurePosixPath(config.name).name.split(".")[0])


def _write(config: StreamConfig, primary_key: tuple[str, ...]) -> tuple[Write, bool]:
    """The strategy: as the manifest says, else merge or append with a cursor, replace without."""
    if config.write == "append_snapshot":
        return "append", True
    if config.write:
        return config.write, False
    if not config.cursor:
        return "replace", False
    return ("merge" if primary_key else "append"), False


def _check_reading(config: StreamConfig, origin: Connector) -> None:
    _need(origin, Capability.READ_CURSOR if config.cursor else Capability.READ_FULL, "reading", config.at("cursor"))
    if config.filter:
        _need(origin, Capability.READ_FILTER, "filter", config.at("filter"))
    if config.casts:
        _need(origin, Capability.READ_CAST, "columns.cast", config.at("columns"))


def _check_writing(config: StreamConfig, destination: Connector, write: Write) -> None:
    _need(destination, Capability(f"write.{write}"), f"write: {write}", config.at("write"))
    if config.proof == "digest":
        _need(destination, Capability.PROOF_DIGEST, "proof: digest", config.at("proof"))


def _need(connector: Connector, capability: Capability, what: str, where: str) -> None:
    support = connector.supports(capability)
    if support.level != "full":
        raise ConfigError(
            f"{what} is not possible with {connector.name}: {support.why}",
            where=where,
            remedy=support.instead or "choose another way",
            code="DP130",
        )


def _check_modes(config: StreamConfig, write: Write, schema: StreamSchema, *, snapshot: bool) -> None:
    if write == "merge" and not (config.primary_key or schema.primary_key):
        raise ConfigError(
            f"write: merge needs a primary key, and {config.name} has none at the source",
            where=config.at("write"),
            remedy="set primary_key: [column, ...], or write: replace",
            code="DP131",
        )
    if write == "append" and not config.cursor and not snapshot:
        raise ConfigError(
            "write: append without a cursor would add every row again in every run",
            where=config.at("write"),
            remedy="set a cursor; or write: replace; or write: append_snapshot if each run is to add a full copy",
            code="DP132",
        )
    if snapshot and config.cursor:
        raise ConfigError(
            "write: append_snapshot adds the whole stream in every run and has no use for a cursor",
            where=config.at("cursor"),
            remedy="use write: append with the cursor, or drop the cursor",
            code="DP133",
        )
    if write == "replace" and config.cursor:
        raise ConfigError(
            "write: replace rewrites the whole target, so it cannot be fed from a cursor",
            where=config.at("cursor"),
            remedy="use write: merge (or append) with the cursor, or drop the cursor",
            code="DP133",
        )
    if write == "append" and config.null_cursor == "load":
        raise ConfigError(
            "rows without a cursor value would be appended again in every run",
            where=config.at("cursor"),
            remedy="use write: merge with a primary key, or nulls: refuse",
            code="DP134",
        )


def _check_cursor(config: StreamConfig, schema: StreamSchema) -> None:
    """Raise SchemaError when the sink would order the cursor in another way than the source does."""
    column = schema.column(config.cursor)
    if column is None or column.kept:
        return
    if config.cursor in config.casts or (type_name(column.type) == "text" and column.fidelity != "exact"):
        raise SchemaError(
            f"the cursor {config.cursor} would travel as {type_name(column.type, column.logical)}, in another order",
            where=config.at("cursor"),
            remedy="use a cursor that is not cast, of an integer, decimal, date or timestamp type",
            code="DP404",
        )


def _check_not_itself(manifest: Manifest, config: StreamConfig, stream: Stream, target: Table) -> None:
    origin, destination = manifest.source, manifest.sink
    same_system = origin.connector.name == destination.connector.name
    if not same_system or origin.config().identity != destination.config().identity:
        return
    if not origin.connector.default_schema:
        raise ConfigError(
            f"{config.name} would be written to where it is read: {destination.config().identity}",
            where=config.at(),
            remedy="give the sink a folder or file of its own",
            code="DP137",
        )
    read = Table(*split_name(stream.name, origin.connector.default_schema))
    folds = destination.connector.folds_case
    if fold(str(read), folds=folds) == fold(str(target), folds=folds):
        raise ConfigError(
            f"{config.name} would be written onto itself",
            where=config.at("target"),
            remedy="give another target: NAME, or another schema to the sink",
            code="DP137",
        )


def _check_replaceable(config: StreamConfig, target: Table, existing: TargetSchema | None, write: Write) -> None:
    if write == "replace" and existing is not None and existing.not_replaceable:
        raise SchemaError(
            f"replacing {target} would change other tables: {existing.not_replaceable}",
            where=config.at("write"),
            remedy="use write: merge with a primary key, or give another target",
            code="DP408",
        )
