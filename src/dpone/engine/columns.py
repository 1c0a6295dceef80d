"""The type and drift decisions of one stream: each column of the source against the target, if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from dpone.arrow.fidelity import manifest_line, worst
from dpone.arrow.types import type_name
from dpone.errors import SchemaError
from dpone.sdk import Column, Fidelity, NativeType, StreamSchema, Table, TargetSchema, Types, Write
from dpone.sql.dialect import Dialect

if TYPE_CHECKING:
    from dpone.manifest.load import StreamConfig


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """The type decision of one column. `allowed_by` is the key of the manifest that allows its loss.

    `altered` says what storing does to the values, when it is storing that loses.
    """

    name: str
    source_type: str
    type: str
    sink_type: str
    fidelity: Fidelity
    note: str = ""
    allowed_by: Literal["", "cast", "allow_lossy"] = ""
    altered: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """A difference between source and target, and what is done about it."""

    column: str
    change: str
    decision: str


def decide_columns(
    schema: StreamSchema,
    existing: TargetSchema | None,
    target: Table,
    config: StreamConfig,
    types: Types,
    write: Write,
    *,
    folds: bool,
    managed: Sequence[Column] = (),
) -> tuple[tuple[ColumnPlan, ...], tuple[Drift, ...], tuple[str, ...]]:
    """Type and drift decisions. Raises SchemaError listing every column that cannot be moved as asked.

    `managed` are the columns that dpone fills itself: a target that lacks one gets it, unless its rows need a value.
    """
    plans, drift, added, wrong, lossy = [], [], [], [], []
    _check_case(schema, target, folds=folds)
    there = {fold(name, folds=folds): native for name, native in existing.columns.items()} if existing else {}
    for column in schema.columns:
        native = types.native(column, target.schema)
        plan = _decide(column, native, config)
        plans.append(plan)
        have = there.pop(fold(column.name, folds=folds), None)
        if plan.fidelity == "refused" or (plan.fidelity == "lossy" and not plan.allowed_by):
            wrong.append(f"{column.name}: {plan.note or plan.fidelity}")
            lossy += [column.name] if plan.fidelity == "lossy" else []
            continue
        if existing is not None and have is None:
            drift.append(Drift(column.name, f"new at the source ({native.sql})", "add column"))
            added.append(column.name)
        elif have is not None and not types.accepts(have, native):
            wrong.append(f"{column.name}: the target has {have}, the source needs {native.sql}")
        elif have is not None and have.lower() != native.sql.lower():
            drift.append(Drift(column.name, f"the target has {have}, wide enough for {native.sql}", "keep"))
    for column in managed if existing is not None else ():
        have, native = there.pop(fold(column.name, folds=folds), None), types.native(column, target.schema)
        problem = _misfit(column, have, native, types, write)
        wrong += [problem] if problem else []
        made = Drift(column.name, f"dpone fills it itself ({native.sql})", "add column")
        drift += [made] if have is None else []
        added += [column.name] if have is None else []
    for name in there:
        problem = _only_in_target(name, existing, config, write, folds=folds)
        if problem:
            wrong.append(f"{name}: {problem}")
        else:
            drift.append(Drift(name, "only in the target", "keep, as excluded"))
    if wrong:
        # A cast is part of the remedy only as far as it is known to help: the notes of refused columns name theirs.
        allow = f"accept what is lost: {manifest_line(allow_lossy=[*config.allow_lossy, *lossy])}; or " if lossy else ""
        raise SchemaError(
            "columns that cannot be moved as asked: " + "; ".join(wrong),
            remedy=f"{allow}cast a column (columns: {{cast: {{name: type}}}}), leave it out (columns: {{exclude: "
            "[name]}), or change the target",
            code="DP406",
            where=config.at("columns"),
        )
    _check_allowed(plans, config)
    return tuple(plans), tuple(drift), tuple(added)


def _misfit(column: Column, have: str | None, native: NativeType, types: Types, write: Write) -> str:
    """Why a column that dpone fills itself cannot be in the target, or nothing when it is there or can be added."""
    if have is not None:
        return "" if types.accepts(have, native) else f"{column.name}: the target has {have}, dpone needs {native.sql}"
    nothing = f"{column.name}: the target was not made by write: {write}, its rows have no value for it"
    return "" if column.nullable else nothing


def _decide(column: Column, native: NativeType, config: StreamConfig) -> ColumnPlan:
    """The fidelity of one column, and what in the manifest allows a loss.

    A cast allows only what the cast itself loses: who writes `cast: {price: float32}` has named the type that rounds,
    and the loss is the effect of these very words. It does not allow what the sink loses afterwards. A Parquet
    timestamp[ns] loses its nanoseconds in PostgreSQL, and nothing in `cast: {at: timestamptz}` says so, while a cast
    that reads it in microseconds makes storing exact and leaves nothing to allow.
    """
    fidelity = worst(column.fidelity, native.fidelity)
    by_cast = native.fidelity != "lossy" and column.name in config.casts
    allowed_by: Literal["", "cast", "allow_lossy"] = ""
    if fidelity == "lossy":
        allowed_by = "allow_lossy" if column.name in config.allow_lossy else "cast" if by_cast else ""
    return ColumnPlan(
        name=column.name,
        source_type=column.native,
        type=type_name(column.type, column.logical),
        sink_type=native.sql,
        fidelity=fidelity,
        note="; ".join(filter(None, (column.note, native.note))),
        allowed_by=allowed_by,
        altered=(native.note or "storing alters it") if native.fidelity == "lossy" else "",
    )


def _check_allowed(plans: Sequence[ColumnPlan], config: StreamConfig) -> None:
    """Refuse permissions that mean nothing: of a column that is not there, or that loses nothing."""
    known = {plan.name: plan for plan in plans}
    for name in config.allow_lossy:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            raise SchemaError(
                f"allow_lossy names {name}, which is not a column of {config.name}",
                remedy=f"did you mean {close[0]}?" if close else f"it has {', '.join([*known][:20])}",
                code="DP403",
                where=config.at("columns", "allow_lossy"),
            )
        if known[name].fidelity != "lossy":
            raise SchemaError(
                f"allow_lossy names {name}, whose values arrive unaltered ({known[name].fidelity})",
                remedy=f"take {name} out of allow_lossy",
                code="DP406",
                where=config.at("columns", "allow_lossy"),
            )


def check_width(
    schema: StreamSchema,
    existing: TargetSchema | None,
    added: Sequence[str],
    types: Types,
    managed: Sequence[Column] = (),
) -> None:
    """Raise SchemaError when there are more columns than a table of the sink holds.

    The staging table has a few of its own beside those of the stream, and the target those that dpone manages.
    """
    if not isinstance(types, Dialect) or types.most_columns is None:
        return
    most, room = types.most_columns, types.most_columns - max(types.staging_columns, len(managed))
    staged = len(schema.columns) - room
    grown = len(existing.columns) + len(added) - most if existing is not None and added else 0
    if staged > 0 or grown > 0:
        what = (
            f"the stream has {len(schema.columns):,} columns, and a load has room for {room:,}"
            if staged > 0
            else f"the target would have {most + grown:,} columns"
        )
        raise SchemaError(
            f"{what}: a table of {types.name} holds at most {most:,}",
            remedy=f"leave {max(staged, grown):,} of them out: {manifest_line(exclude=['name'])}",
            code="DP406",
        )


def _only_in_target(
    name: str, existing: TargetSchema | None, config: StreamConfig, write: Write, *, folds: bool
) -> str:
    """Why a column that only the target has stands in the way, or nothing when it may stay as it is."""
    if name not in {fold(left, folds=folds) for left in config.exclude}:
        return "is in the target but no longer at the source"
    if write in ("replace", "delete_insert"):
        return "replacing the rows would empty this column of the target"
    if existing is not None and name in {fold(column, folds=folds) for column in existing.required}:
        return "the target needs a value in every row"
    return ""


def _check_case(schema: StreamSchema, target: Table, *, folds: bool) -> None:
    seen: dict[str, str] = {}
    for column in schema.columns:
        other = seen.setdefault(fold(column.name, folds=folds), column.name)
        if other != column.name:
            raise SchemaError(
                f"columns {other} and {column.name} differ only in case, and {target} cannot hold both",
                remedy="leave one out: columns: {exclude: [name]}",
                code="DP405",
            )
        if column.name.lower().startswith("_dpone_"):
            raise SchemaError(
                f"the column name {column.name} is reserved for dpone",
                remedy=f"leave it out: columns: {{exclude: [{column.name}]}}",
                code="DP405",
            )


def fold(name: str, *, folds: bool) -> str:
    """The name as a system compares it, where names that differ only in case may be one name."""
    return name.lower() if folds else name
