"""The fidelity of a column: what happens to its values on the way, as one lattice.

    exact < widened < lossy < refused

    exact     each value arrives as the same value of the same type, or of a type with the same values. One that has
              no place in a narrower type that was asked for stops the run by name; it is never altered.
    widened   no value is altered, but the type is another one: a wider number, JSON, or the source's own text
    lossy     some values arrive as other values. The plan stops until the manifest says of this column that it may
    refused   the values have no form to travel in, or none that is known. The plan stops, and says what to write

Reading a column has a fidelity and storing it has one. That of the column is the worst of them: what one step has
lost no later one brings back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import get_args

import pyarrow as pa

from dpone.sdk import Fidelity

LATTICE: Sequence[Fidelity] = get_args(Fidelity)

_DOUBLE_BITS = 32  # the widest integer type whose values a double holds, every one
_SINGLE_BITS = 16  # likewise for a float of 32 bits
_UNITS = ("s", "ms", "us", "ns")
# A name that needs no quotes inside of a YAML flow mapping, and is no number, boolean or null.
_PLAIN = re.compile(r"(?!(?i:true|false|null|yes|no|on|off|y|n)$)[A-Za-z_][A-Za-z0-9_]*")


def worst(*fidelities: Fidelity) -> Fidelity:
    """The greatest of these in the lattice; `exact` of none."""
    return max(fidelities, key=LATTICE.index, default="exact")


def of_cast(have: pa.DataType, want: pa.DataType) -> Fidelity:
    """What a cast that the source computes does to the values.

    Casts to text keep every value. Casts to integers and decimals are checked by each source: a value that does not
    fit stops the run. Those to floats, dates and times may round or cut, unless the type has room for every value.
    """
    if pa.types.is_string(want):
        return "widened"
    if have == want or not (pa.types.is_floating(want) or pa.types.is_temporal(want)):
        return "exact"
    return "widened" if _has_room(have, want) else "lossy"


def _has_room(have: pa.DataType, want: pa.DataType) -> bool:
    types = pa.types
    if types.is_integer(have) and types.is_floating(want):
        return bool(have.bit_width <= (_DOUBLE_BITS if types.is_float64(want) else _SINGLE_BITS))
    if types.is_timestamp(have) and types.is_timestamp(want):
        return have.tz == want.tz and _UNITS.index(have.unit) <= _UNITS.index(want.unit)
    if types.is_date(have) and types.is_timestamp(want):
        return want.tz is None
    return bool(types.is_float32(have) and types.is_float64(want))


def manifest_line(
    *, cast: Mapping[str, str] | None = None, exclude: Sequence[str] = (), allow_lossy: Sequence[str] = ()
) -> str:
    """The line of a stream in a manifest that says this, as YAML: `columns: {cast: {at: text}}`."""
    parts = []
    if cast:
        parts.append("cast: {" + ", ".join(f"{_name(name)}: {type_}" for name, type_ in cast.items()) + "}")
    for key, names in (("exclude", exclude), ("allow_lossy", allow_lossy)):
        if names:
            parts.append(f"{key}: [{', '.join(map(_name, names))}]")
    return "columns: {" + ", ".join(parts) + "}"


def _name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)
