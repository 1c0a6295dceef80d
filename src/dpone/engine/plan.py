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
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from dpone.arrow.digest import undigestible
from dpone.arrow.types import UTC, type_name
from dpone.engine.columns import ColumnPlan, Drift, check_width, decide_columns, fold
from dpone.engine.repair import belongs
from dpone.errors import ConfigError, ConflictError, DponeError, SchemaError, SinkUnavailable, SourceUnavailable
from dpone.manifest.load import DeletePolicy
from dpone.sdk import (
    Capability,
    Column,
    Connector,
    Discover,
    Receipt,
    Sink,
    Slice,
    Source,
    Step,
    Stream,
    StreamKey,
    StreamSchema,
    Table,
    TargetSchema,
    Types,
    Window,
    Write,
)
from dpone.sql.dialect import Dialect, breaks_transaction
from dpone.sql.sink import stage_table
from dpone.sql.source import no_lookback, split_name
from dpone.strategy import STRATEGIES, Publication
from dpone.strategy.base import DELETED_AT
from dpone.transform.compiled import Problems, Transform, refused, touched
from dpone.transform.reading import TransformedSource
from dpone.transform.rules import Rules

if TYPE_CHECKING:
    from dpone.manifest.load import Endpoint, Manifest, StreamConfig

_SHOWN_QUERIES = 3
_KEYED = ("merge", "scd2")  # the strategies that work by a primary key


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """Every decision of one stream. `stream` is its name in the manifest, the key's is that of the object.

    `primary_key` is the key that the strategy works by, empty for one that does not; `managed` are the columns of the
    target that dpone fills itself; `partition_by` is what `write: delete_insert` replaces at a time; `deletes` is what
    happens to rows that are gone at the source. `gaps` says which columns a digest cannot cover, `notes` what the user
    should know. With a `transform`, `source` and `schema` have the names and columns that come out of it: read through
    `reader`; `rules` are those of the manifest, to be shown. `before` and `after` are the hooks.
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
    managed: tuple[Column, ...] = ()
    partition_by: tuple[str, ...] = ()
    deletes: DeletePolicy = field(default_factory=DeletePolicy)
    transform: Transform | None = None
    rules: Mapping[str, Any] = field(default_factory=dict)
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """The columns of the key, in its order."""
        named = {column.name: column for column in self.schema.columns}
        return tuple(named[name] for name in self.primary_key)

    @property
    def live(self) -> Mapping[str, bool | None]:
        """Which rows of the target are what the source holds: those with these values in these managed columns."""
        marked = {DELETED_AT: None} if any(column.name == DELETED_AT for column in self.managed) else {}
        return {**STRATEGIES[self.write].live, **marked}

    @property
    def mode(self) -> str:
        """`full` or `incremental`."""
        return "incremental" if self.source.cursor else "full"

    @property
    def intent(self) -> str:
        """The digest of everything decided; equal intents may continue each other's open load."""
        decided = {
            "key": str(self.key),
            "source": {**asdict(self.source), "casts": dict(self.source.casts), "lookback": str(self.source.lookback)},
            "instance": self.schema.instance,
            "columns": [asdict(column) for column in self.columns],
            "existing": dict(self.existing.columns) if self.existing else None,
            "write": self.write,
            "primary_key": self.primary_key,
            "partition_by": self.partition_by,
            "deletes": asdict(self.deletes) | {"every": str(self.deletes.every)},
            "managed": [column.name for column in self.managed],
            "proof": self.proof,
            "origin": dict(self.origin),
            "transform": [asdict(column) | {"type": str(column.type)} for column in self.transform.read]
            if self.transform
            else None,
        }
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def cursor(self) -> str:
        """The column that orders versions of a row; none when the source's own order is read by."""
        return self.source.cursor if self.schema.column(self.source.cursor) else ""

    @property
    def version(self) -> tuple[str, ...]:
        """The columns that tell versions of a row apart, none where there is no key."""
        key = self.source.primary_key
        return tuple(dict.fromkeys((*key, self.cursor))) if key and self.cursor else ()

    @property
    def filters(self) -> bool:
        """Whether rows may be left out between source and sink."""
        return self.transform is not None and self.transform.rules.filters

    def steps(self, dialect: Dialect, load_id: str, slices: Sequence[Slice], opened_at: str) -> tuple[Step, ...]:
        """The publication of a load as SQL."""
        beside = {
            holds: tuple(piece.ordinal for piece in slices if piece.holds == holds)
            for holds in ("again", "gone", "back")
        }
        columns = dialect.stored(self.schema.columns, self.target.schema)
        managed = dialect.stored(self.managed, self.target.schema)
        publication = Publication(
            dialect=dialect,
            target=self.target,
            stage=stage_table(self.target, load_id),
            columns=columns,
            exists=self.existing is not None,
            added=tuple(column for column in (*columns, *managed) if column.name in self.added),
            primary_key=self.primary_key,
            cursor=self.cursor,
            **beside,
            deletes=self.deletes.mode,
            version=self.version,
            digest=self.proof == "digest",
            managed=managed,
            partition_by=self.partition_by,
            opened_at=opened_at,
        )
        return (*self.before, *STRATEGIES[self.write].steps(publication), *self.after)


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
            "partition_by": list(plan.partition_by),
            "cursor": plan.source.cursor or None,
            "estimated_rows": plan.schema.estimated_rows,
            "window": asdict(window) if window else None,
            "slices": self.slices,
            "read": list(self.queries),
            "transform": dict(plan.rules),
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
                # Not in the intent: a load whose hook failed goes on with the slices it has when the hook is mended.
                [[step.sql for step in steps] for steps in (preview.plan.before, preview.plan.after)]
                if preview.plan
                else None,
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


def key_of(manifest: Manifest, config: StreamConfig) -> StreamKey:
    """The identity of a stream's state. Asks neither the source nor the sink; the stream is no glob."""
    return StreamKey(manifest.pipeline, _stream(manifest, config).name, _target(manifest, config))


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
    """The error with a position in the manifest: the end that it says it is about, the setting, or the stream."""
    sides = {SourceUnavailable: "source", SinkUnavailable: "sink"}
    keys = ("partition_by",) if error.code == "DP163" else ()
    ends = {"source": manifest.source.where, "sink": manifest.sink.where}
    error.where = error.where or ends.get(error.side or sides.get(type(error), ""), config.at(*keys))
    # What a system says of an expression, a filter or a hook repeats parts of it.
    error.message, error.remedy = manifest.redact(error.message), manifest.redact(error.remedy)
    return error


def reader(plan: StreamPlan, source: Source) -> Source:
    """The source as the plan reads it: through its transform, if there is one."""
    return TransformedSource(source, plan.transform) if plan.transform is not None else source


def preview(plan: StreamPlan, source: Source, sink: Sink) -> Preview:
    """What a run would read and write now. Reads the source and the sink, changes nothing."""
    last = sink.last_receipt(plan.key)
    agreement(plan, sink, last)
    reading = reader(plan, source).open(plan.source, plan.schema, start_window(plan, last))
    try:
        slices = reading.slices
        queries = tuple(reading.query(piece) for piece in slices[:_SHOWN_QUERIES])
        window = reading.window
    finally:
        reading.close()
    dialect = sink.dialect
    steps = plan.steps(dialect, "LOAD", slices, "OPENED") if isinstance(dialect, Dialect) else ()
    return Preview(plan.stream, plan, window, len(slices), queries, steps, last=last)


def agreement(plan: StreamPlan, sink: Sink, receipt: Receipt | None) -> list[str]:
    """Notes on state and target. Raises StateError (DP503) where a load that goes on from the receipt must not."""
    if not plan.source.cursor or plan.existing is None:
        return []
    return belongs(sink, plan.key, receipt, stream=plan.stream, write=plan.write)


def start_window(plan: StreamPlan, receipt: Receipt | None) -> Window:
    """Where a new load starts: after the last receipt, with what it remembers of the rows at its end."""
    if not plan.source.cursor:
        return Window(full=True)
    if receipt is None or receipt.window.full or plan.existing is None:
        return Window(full=False)  # a target that was dropped is loaded from the beginning
    _check_origin(plan, receipt)
    if receipt.window.seen and receipt.extra.get("instance", "") != plan.schema.instance:
        if plan.write == "append":
            raise ConflictError(
                f"the server of {plan.stream} is another one than at its last load, or was restored, and does not know "
                "which rows were read; appending all of them would double those that were",
                remedy=f"use write: merge; or empty the target, then dpone reset -s {plan.stream}",
                code="DP703",
            )
        return Window(full=False)  # everything is read again, and what is there already is unchanged
    return Window(full=False, after=receipt.window.until, ties=receipt.window.ties, since=receipt.window.seen)


def _check_origin(plan: StreamPlan, receipt: Receipt) -> None:
    """A checkpoint is a position in one cursor over one set of rows; of others it says nothing."""
    parts = {"cursor": "cursor", "cursor_type": "type of the cursor", "filter": "filter", "transform": "transform"}
    if plan.source.lookback is None:  # which bounds what came late before it was set, too
        parts["late"] = "way to find late rows"
    for name, what in parts.items():
        if name in receipt.extra and receipt.extra[name] != plan.origin[name]:
            raise ConfigError(
                f"the {what} of {plan.stream} has changed since its last load, whose checkpoint means nothing now",
                remedy=f"change it back, or forget the checkpoint: dpone reset -s {plan.stream}",
                code="DP136",
            )


def _origin(manifest: Manifest, stream: Stream, schema: StreamSchema, transform: str) -> dict[str, str]:
    """What the position in a receipt belongs to. Filter and transform may hold a secret: only digests are kept."""
    column = schema.column(stream.cursor)
    name = type_name(column.type) if column is not None and not column.kept else ""
    numbers = name.startswith(("int", "uint", "decimal"))  # a wider number still sorts as before
    return {
        "source": manifest.source.config().identity,
        "cursor": stream.cursor,
        "cursor_type": "number" if numbers else name.partition("[")[0],
        "filter": hashlib.sha256(stream.filter.encode()).hexdigest()[:16] if stream.filter else "",
        "late": "lookback" if stream.lookback is not None else stream.clock or "default",
        "instance": schema.instance,
        "transform": transform,
    }


def _decide(manifest: Manifest, config: StreamConfig, source: Source, sink: Sink) -> StreamPlan:
    origin, destination = manifest.source.connector, manifest.sink.connector
    stream = _stream(manifest, config)
    _check_reading(config, origin)
    schema = source.describe(stream)
    looked_at = touched(config.transform, [column.name for column in schema.columns]) if stream.keep_native else ()
    if looked_at:
        stream = replace(stream, canonical=looked_at)
        schema = source.describe(stream)
    whole = all(schema.column(name) is not None for name in schema.primary_key)  # half a key is no key
    primary_key = config.primary_key or (schema.primary_key if whole else ())
    write, snapshot = _write(config, primary_key)
    stream = replace(
        stream, primary_key=primary_key, apart=bool(config.cursor) and write == "append" and not config.deduplicate
    )
    _check_writing(config, destination, write)
    _check_modes(config, write, schema, snapshot=snapshot)
    _check_late(config, origin, destination, write, schema)
    _check_deletes(config, origin, destination, write)

    target = _target(manifest, config)
    _check_cursor(config, schema)
    _check_partitions(config, schema, sink.dialect)
    _check_not_itself(manifest, config, stream, target)
    before = _hooks(config, "before", destination)
    after = _hooks(config, "after", destination)
    position = _origin(manifest, stream, schema, config.transform.fingerprint)
    renamed = f"{config.cursor} is part of the key: new rows are seen, changed ones are not"
    cursor_in_key = write == "merge" and config.cursor in primary_key
    transform = _transform(manifest, config, schema, primary_key)
    if transform is not None:
        config = _after(config, transform)
        primary_key = tuple(transform.names[name] for name in primary_key)
        stream = replace(stream, primary_key=primary_key, cursor=config.cursor)
        schema = replace(schema, columns=transform.columns, primary_key=primary_key)
    existing = sink.describe(target)
    _check_replaceable(config, target, existing, write)
    managed = STRATEGIES[write].managed
    if write == "merge" and (config.deletes.mode == "soft" or (existing and DELETED_AT in existing.columns)):
        managed = (Column(DELETED_AT, pa.timestamp("us", UTC)),)
    columns, drift, added = decide_columns(
        schema, existing, target, config, sink.dialect, write, folds=destination.folds_case, managed=managed
    )
    check_width(schema, existing, added, sink.dialect, managed)
    decided = zip(schema.columns, columns, strict=True)
    schema = replace(schema, columns=tuple(replace(column, altered=plan.altered) for column, plan in decided))
    proof = config.proof
    gaps = tuple(filter(None, (undigestible(column) for column in schema.columns))) if proof == "digest" else ()
    notes = [renamed] if cursor_in_key else []
    return StreamPlan(
        stream=config.name,
        key=StreamKey(manifest.pipeline, stream.name, target),
        origin=position,
        source=stream,
        schema=schema,
        target=target,
        existing=existing,
        write=write,
        columns=columns,
        added=added,
        drift=drift,
        primary_key=primary_key if write in _KEYED or config.deduplicate else (),
        proof=proof,
        allow_empty=config.allow_empty,
        gaps=gaps,
        notes=tuple(notes),
        managed=managed,
        partition_by=config.partition_by,
        deletes=config.deletes,
        transform=transform,
        rules=config.transform.shown(manifest.redact),
        before=before,
        after=after,
    )


def _transform(
    manifest: Manifest, config: StreamConfig, schema: StreamSchema, primary_key: tuple[str, ...]
) -> Transform | None:
    """The compiled transform, or None without rules. Raises ConfigError naming all that is wrong with them."""
    if config.transform == Rules():
        return None
    folder = Path(manifest.path).parent
    try:
        return Transform.of(
            config.transform, schema.columns, primary_key=primary_key, cursor=config.cursor, folder=folder
        )
    except Problems as problems:
        first, error = refused(problems)
        error.where = config.at("transform", *first.keys)
        raise error from None


def _after(config: StreamConfig, transform: Transform) -> StreamConfig:
    """The settings that name columns, under the names that come out of a transform. Dropped is like excluded."""
    names = transform.names
    return replace(
        config,
        cursor=names.get(config.cursor, config.cursor),
        casts={names.get(name, name): cast for name, cast in config.casts.items()},
        allow_lossy=tuple(names.get(name, name) for name in config.allow_lossy),
        exclude=(*config.exclude, *config.transform.drop),
    )


def _hooks(config: StreamConfig, when: Literal["before", "after"], destination: Connector) -> tuple[Step, ...]:
    """The hooks as steps of the publication. Raises ConfigError for what would break its transaction apart."""
    steps = []
    for number, sql in enumerate(config.hooks.get(when, ())):
        where = config.at("hooks", when, number)
        _need(destination, Capability.WRITE_HOOKS, "hooks", where)
        problem = breaks_transaction(sql)
        if problem:
            raise ConfigError(
                f"hooks.{when}, statement {number + 1}: {problem}",
                where=where,
                remedy="hooks run inside the transaction that publishes the load: give one statement an entry",
                code="DP151",
            )
        steps.append(Step("run", sql, hook=(f"hooks.{when}, statement {number + 1}", where)))
    return tuple(steps)


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
        clock=config.clock,
        lookback=config.lookback,
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
    if config.deduplicate and write == "append":
        _need(destination, Capability.WRITE_DEDUPLICATE, "deduplicate", config.at("deduplicate"))
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
    _check_settings(config, write, snapshot=snapshot)
    if (write in _KEYED or config.deduplicate) and not (config.primary_key or schema.primary_key):
        what = "deduplicate" if config.deduplicate else f"write: {write}"
        raise ConfigError(
            f"{what} needs a primary key, and {config.name} has none at the source",
            where=config.at("deduplicate" if config.deduplicate else "write"),
            remedy="set primary_key: [column, ...], or write: replace",
            code="DP131",
        )
    if write == "append" and not config.cursor and not snapshot and not config.deduplicate:
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
    if write == "append" and config.null_cursor == "load" and not config.deduplicate:
        raise ConfigError(
            "rows without a cursor value would be appended again in every run",
            where=config.at("cursor"),
            remedy="use write: merge with a primary key, or nulls: refuse",
            code="DP134",
        )


def _check_late(
    config: StreamConfig, origin: Connector, destination: Connector, write: Write, schema: StreamSchema
) -> None:
    """Rows with a cursor value of before the checkpoint are found, or looked back for, or the stream is refused."""
    if not config.cursor:
        return
    where = config.at("cursor")
    late, column = origin.supports(Capability.READ_LATE_COMMITS), schema.column(config.cursor)
    if late.level != "full" and config.lookback is None:
        raise ConfigError(
            f"{config.name}: rows that come late, with a {config.cursor} of before, would be missed: {late.why}",
            where=where,
            remedy=f"say how late they may be: cursor: {{column: {config.cursor}, lookback: 1h}} (0s: never); or load "
            "without a cursor",
            code="DP138",
        )
    if config.lookback and write == "append":
        _need(destination, Capability.WRITE_TIES, "append with a lookback", where)
    if column is None and (config.lookback is not None or config.null_cursor == "load"):
        raise ConfigError(
            f"{config.cursor} is no column, so there is nothing to look back by and no NULL",
            where=where,
            remedy=f"write cursor: {config.cursor}",
            code="DP139",
        )
    if column is None and write == "append":
        raise ConfigError(
            f"write: append by {config.cursor} would add every version of a row, also those that only moved",
            where=config.at("write"),
            remedy="use write: merge with a primary key, or a column as the cursor",
            code="DP133",
        )
    if config.lookback and column is not None and not column.kept:
        name = type_name(column.type)
        timed, numbered = name.startswith(("date", "timestamp")), name.startswith(("int", "uint", "decimal"))
        if not (timed if isinstance(config.lookback, timedelta) else numbered):
            raise no_lookback(config.name, config.cursor, config.lookback)


def _check_deletes(config: StreamConfig, origin: Connector, destination: Connector, write: Write) -> None:
    if config.deletes.mode == "ignore":
        return
    where = config.at("deletes")
    if write not in _KEYED or (write == "scd2" and config.deletes.mode == "hard"):
        why = {
            "replace": "it follows deletes by itself",
            "scd2": "it keeps what was; deletes: soft ends the current version",
        }.get(write, "it has no key to find them by")
        raise ConfigError(
            f"write: {write} has no use for deletes: {config.deletes.mode}: {why}",
            where=where,
            remedy="drop deletes" if write == "replace" else "use write: merge with a primary key",
            code="DP164",
        )
    _need(origin, Capability.READ_COMPARE, "finding deleted rows", where)
    _need(destination, Capability.WRITE_DELETES, f"deletes: {config.deletes.mode}", where)


def _check_settings(config: StreamConfig, write: Write, *, snapshot: bool) -> None:
    """Settings of one strategy that the chosen one would ignore, or that do not say enough."""
    asked = "append_snapshot" if snapshot else write
    for setting, given, wanted in (
        ("partition_by", bool(config.partition_by), "delete_insert"),
        ("deduplicate", config.deduplicate, "append"),
    ):
        if given and asked != wanted:
            said = f"write: {asked}" if config.write else f"write: {asked}, which is chosen here,"
            raise ConfigError(
                f"{said} has no use for {setting}",
                where=config.at(setting),
                remedy=f"use write: {wanted}, or drop {setting}",
                code="DP160",
            )
    if write != "delete_insert":
        return
    if not config.partition_by and not config.cursor:
        raise ConfigError(
            "write: delete_insert needs to know which rows are replaced together",
            where=config.at("write"),
            remedy="set partition_by: [column, ...]; or a cursor, whose window is then replaced; or write: replace",
            code="DP161",
        )
    if config.cursor and not config.clock and config.lookback is None:
        raise ConfigError(
            f"write: delete_insert replaces a range of {config.cursor}, and all rows of that range have to be read",
            where=config.at("cursor"),
            remedy=f"cursor: {{column: {config.cursor}, lookback: 1d}}; what lies less than this behind is read again "
            "and replaced (0s: only what is new)",
            code="DP162",
        )
    if config.partition_by and config.cursor and config.cursor not in config.partition_by:
        raise ConfigError(
            f"with cursor: {config.cursor} a run reads only the new rows of a partition, replacing it would lose the "
            "others",
            where=config.at("partition_by"),
            remedy="drop the cursor, so that whole partitions are read (choose them with a filter); or make a column "
            "of partition_by the cursor",
            code="DP162",
        )


def _check_partitions(config: StreamConfig, schema: StreamSchema, types: Types) -> None:
    """Raise when an item of `partition_by` is neither a column nor what may be an expression of the sink."""
    known = [column.name for column in schema.columns]
    for item in config.partition_by:
        if item in known:
            continue
        if item.isidentifier():
            close = get_close_matches(item, known, n=1)
            raise SchemaError(
                f"partition_by names {item}, which is not a column of {config.name} that is moved",
                where=config.at("partition_by"),
                remedy=f"did you mean {close[0]}?" if close else f"it has {', '.join(known[:20])}",
                code="DP403",
            )
        if not isinstance(types, Dialect):
            raise ConfigError(
                f"partition_by: {item} is an expression, and the sink has no SQL",
                where=config.at("partition_by"),
                remedy="name columns",
                code="DP130",
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
    if write in ("replace", "delete_insert") and existing is not None and existing.not_replaceable:
        raise SchemaError(
            f"replacing rows of {target} would change other tables: {existing.not_replaceable}",
            where=config.at("write"),
            remedy="use write: merge with a primary key, or give another target",
            code="DP408",
        )
