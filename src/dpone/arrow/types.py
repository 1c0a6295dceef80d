"""The canonical types: which Arrow types cross the boundary, and their names in manifests, plans and records.

Arrow types outside this list never reach a sink: a source maps them here, or refuses the column by name.
Decimals are exact and never pass through floats; precision is at most 38, so that every engine can hold it.
Instants are timestamps with the zone UTC. Timestamps keep their unit; nothing is coarser than microseconds
except where the source itself is.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Literal

import pyarrow as pa

from dpone.errors import ConfigError
from dpone.sdk import Column

UTC = "UTC"
NATIVE = b"dpone.native"
"""Metadata of an Arrow field: the type of the column in the system that it was read from."""
LOGICAL = b"dpone.logical"
"""Metadata of an Arrow field: the logical type, where the Arrow type does not say it all."""

Logical = Literal["", "json", "uuid"]

_SIMPLE: dict[str, tuple[pa.DataType, Logical]] = {
    "boolean": (pa.bool_(), ""),
    "int8": (pa.int8(), ""),
    "int16": (pa.int16(), ""),
    "int32": (pa.int32(), ""),
    "int64": (pa.int64(), ""),
    "uint8": (pa.uint8(), ""),
    "uint16": (pa.uint16(), ""),
    "uint32": (pa.uint32(), ""),
    "uint64": (pa.uint64(), ""),
    "float32": (pa.float32(), ""),
    "float64": (pa.float64(), ""),
    "text": (pa.string(), ""),
    "json": (pa.string(), "json"),
    "uuid": (pa.string(), "uuid"),
    "binary": (pa.binary(), ""),
    "date": (pa.date32(), ""),
    "time": (pa.time64("us"), ""),
    "timestamp": (pa.timestamp("us"), ""),
    "timestamptz": (pa.timestamp("us", UTC), ""),
}
MAX_PRECISION = 38
_DECIMAL = re.compile(r"decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)")


def parse_type(name: str) -> tuple[pa.DataType, Logical]:
    """The Arrow type and logical name of a type name such as `int64`, `decimal(10,2)`, `timestamptz`.

    Raises ConfigError with a suggestion for an unknown name.
    """
    key = name.strip().lower()
    if key in _SIMPLE:
        return _SIMPLE[key]
    if match := _DECIMAL.fullmatch(key):
        precision, scale = int(match[1]), int(match[2])
        if 1 <= precision <= MAX_PRECISION and scale <= precision:
            return pa.decimal128(precision, scale), ""
        raise ConfigError(f"{name} is not a decimal dpone can hold", remedy="use a precision of 1 to 38", code="DP105")
    close = get_close_matches(key, [*_SIMPLE, "decimal(p,s)"], n=1)
    remedy = f"did you mean {close[0]}?" if close else f"use one of {', '.join(_SIMPLE)}, decimal(p,s)"
    raise ConfigError(f"unknown type {name!r}", remedy=remedy, code="DP105")


def type_name(type_: pa.DataType, logical: str = "") -> str:  # noqa: PLR0911 - one answer per family
    """The name of a canonical type, as `parse_type` reads it; lists as `list<int64>`."""
    if logical:
        return logical
    if pa.types.is_decimal(type_):
        return f"decimal({type_.precision},{type_.scale})"
    if pa.types.is_timestamp(type_):
        name = "timestamptz" if type_.tz else "timestamp"
        return name if type_.unit == "us" else f"{name}[{type_.unit}]"
    if pa.types.is_time(type_):
        return "time" if type_.unit == "us" else f"time[{type_.unit}]"
    if pa.types.is_list(type_):
        return f"list<{type_name(type_.value_type)}>"
    for name, (candidate, logical_name) in _SIMPLE.items():
        if candidate == type_ and not logical_name:
            return name
    return str(type_)


def arrow_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """The schema of the record batches of these columns.

    Fields carry `NATIVE` and `LOGICAL`, so that whoever gets the batches, or a file of them, knows what they were.
    Metadata says nothing on the values: schemas are compared without it.
    """
    return pa.schema([pa.field(column.name, column.type, metadata=_metadata(column)) for column in columns])


def _metadata(column: Column) -> dict[bytes, bytes] | None:
    said = {NATIVE: column.native.encode(), LOGICAL: column.logical.encode()}
    return {key: value for key, value in said.items() if value} or None


def is_canonical(type_: pa.DataType) -> bool:
    """Whether values of this Arrow type cross the boundary."""
    types = pa.types
    if types.is_decimal128(type_) or types.is_timestamp(type_):
        return types.is_decimal(type_) or type_.tz in (None, UTC)
    if types.is_list(type_):
        return is_canonical(type_.value_type) and not types.is_list(type_.value_type)
    return types.is_time64(type_) or any(type_ == known for known, _ in _SIMPLE.values())
