"""The type and drift decisions of one stream: each column of the source against the target, if there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dpone.arrow.types import type_name
from dpone.errors import SchemaError
from dpone.sdk import Fidelity, StreamSchema, Table, TargetSchema, Types

if TYPE_CHECKING:
    from dpone.manifest.load import StreamConfig

Write = Literal["replace", "append", "merge"]
_ORDER: tuple[Fidelity, ...] = ("exact", "widened", "lossy", "refused")


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """The type decision of one column."""

    name: str
    source_type: str
    type: str
    sink_type: str
    fidelity: Fidelity
    note: str = ""


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
) -> tuple[tuple[ColumnPlan, ...], tuple[Drift, ...], tuple[str, ...]]:
    """Type and drift decisions. Raises SchemaError listing every column that cannot be moved as asked."""
    plans, drift, added, wrong = [], [], [], []
    _check_case(schema, target, folds=folds)
    there = {fold(name, folds=folds): native for name, native in existing.columns.items()} if existing else {}
    for column in schema.columns:
        native = types.native(column, target.schema)
        fidelity = max(column.fidelity, native.fidelity, key=_ORDER.index)
        note = "; ".join(filter(None, (column.note, native.note)))
        plans.append(
            ColumnPlan(column.name, column.native, type_name(column.type, column.logical), native.sql, fidelity, note)
        )
        acknowledged = fidelity == "lossy" and column.name in config.casts  # whoever writes a cast knows what it does
        if fidelity in ("lossy", "refused") and not acknowledged:
            wrong.append(f"{column.name}: {note or fidelity}")
            continue
        have = there.pop(fold(column.name, folds=folds), None)
        if existing is not None and have is None:
            drift.append(Drift(column.name, f"new at the source ({native.sql})", "add column"))
            added.append(column.name)
        elif have is not None and not types.accepts(have, native):
            wrong.append(f"{column.name}: the target has {have}, the source needs {native.sql}")
        elif have is not None and have.lower() != native.sql.lower():
            drift.append(Drift(column.name, f"the target has {have}, wide enough for {native.sql}", "keep"))
    for name in there:
        problem = _only_in_target(name, existing, config, write, folds=folds)
        if problem:
            wrong.append(f"{name}: {problem}")
        else:
            drift.append(Drift(name, "only in the target", "keep, as excluded"))
    if wrong:
        raise SchemaError(
            "columns that cannot be moved as asked: " + "; ".join(wrong),
            remedy="cast a column (columns: {cast: {name: type}}), leave it out (columns: {exclude: [name]}), "
            "or change the target",
            code="DP406",
            where=config.at("columns"),
        )
    return tuple(plans), tuple(drift), tuple(added)


def _only_in_target(
    name: str, existing: TargetSchema | None, config: StreamConfig, write: Write, *, folds: bool
) -> str:
    """Why a column that only the target has stands in the way, or nothing when it may stay as it is."""
    if name not in {fold(left, folds=folds) for left in config.exclude}:
        return "is in the target but no longer at the source"
    if write == "replace":
        return "replacing every row would empty this column of the target"
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
