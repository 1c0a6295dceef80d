"""Arrow arrays from texts and texts from them, for the harness: without dpone's own conversions, and for any year.

A type is the name of a canonical type, or a form that Arrow or Parquet has of one: `large_string`, `string_view`,
`large_binary`, `binary_view`, `fixed_size_binary(n)`, `float16`, `date64`, `int96`, `decimal256(p,s)`,
`dictionary<text>`, `large_list<...>`, `list_view<...>`, `fixed_size_list<...>(n)`, `decimal32(p,s)`, `decimal64(p,s)`,
`duration` in microseconds; `struct` has an integer n and a text s, `map` integers by texts.

A text is what `dpone.testing.texts.parse` reads; `NULL` is no value. Lists, structs and maps are JSON text.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

_SIMPLE: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    **{f"int{bits}": getattr(pa, f"int{bits}")() for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": getattr(pa, f"uint{bits}")() for bits in (8, 16, 32, 64)},
    **{f"float{bits}": getattr(pa, f"float{bits}")() for bits in (16, 32, 64)},
    "text": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "json": pa.json_(pa.string()),
    "uuid": pa.uuid(),
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "binary_view": pa.binary_view(),
    "date": pa.date32(),
    "date64": pa.date64(),
    "int96": pa.timestamp("ns"),
    "dictionary<text>": pa.dictionary(pa.int32(), pa.string()),
    "struct": pa.struct([("n", pa.int64()), ("s", pa.string())]),
    "map": pa.map_(pa.string(), pa.int64()),
    "duration": pa.duration("us"),
}
_DECIMAL = re.compile(r"decimal(32|64|256)?\((\d+),(\d+)\)")
_FIXED = re.compile(r"fixed_size_binary\((\d+)\)")
_TEMPORAL = re.compile(r"(time|timestamp|timestamptz)(?:\[(s|ms|us|ns)\])?")
_LIST = re.compile(r"(large_)?list(_view)?<(.+)>")
_FIXED_LIST = re.compile(r"fixed_size_list<(.+)>\((\d+)\)")
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}  # after the point of a second
_DAY = 86_400


# -- types -----------------------------------------------------------------------------------------------------


def arrow_type(name: str) -> pa.DataType:  # noqa: PLR0911 - one answer per family
    """The Arrow type of a name. Raises ValueError for one that is not known."""
    if name in _SIMPLE:
        return _SIMPLE[name]
    if match := _DECIMAL.fullmatch(name):
        made: pa.DataType = getattr(pa, f"decimal{match[1] or 128}")(int(match[2]), int(match[3]))
        return made
    if match := _FIXED.fullmatch(name):
        return pa.binary(int(match[1]))
    if match := _TEMPORAL.fullmatch(name):
        kind, unit = match[1], match[2] or "us"
        if kind == "time":
            return pa.time64(unit) if unit in ("us", "ns") else pa.time32(unit)
        return pa.timestamp(unit, "UTC" if kind == "timestamptz" else None)
    if match := _LIST.fullmatch(name):
        makes = {(None, None): pa.list_, ("large_", None): pa.large_list, (None, "_view"): pa.list_view}
        return makes[match[1], match[2]](arrow_type(match[3]))
    if match := _FIXED_LIST.fullmatch(name):
        return pa.list_(arrow_type(match[1]), int(match[2]))
    raise ValueError(f"{name} is no type of Arrow that is known here")


def type_name(type_: pa.DataType) -> str:
    """The name of an Arrow type, as `arrow_type` reads it; of others, Arrow's own."""
    if pa.types.is_decimal(type_):
        return f"decimal{'256' if pa.types.is_decimal256(type_) else ''}({type_.precision},{type_.scale})"
    if pa.types.is_fixed_size_binary(type_):
        return f"fixed_size_binary({type_.byte_width})"
    if pa.types.is_timestamp(type_) or pa.types.is_time(type_):
        name = "time" if pa.types.is_time(type_) else "timestamptz" if type_.tz else "timestamp"
        return name if type_.unit == "us" else f"{name}[{type_.unit}]"
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return f"{'large_' if pa.types.is_large_list(type_) else ''}list<{type_name(type_.value_type)}>"
    return next((name for name, known in _SIMPLE.items() if known == type_ and name != "int96"), str(type_))


# -- texts to values -------------------------------------------------------------------------------------------


def array(name: str, texts: Sequence[str]) -> pa.Array:
    """The values of these texts."""
    type_ = arrow_type(name)
    held = type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_
    read = _reader(type_)
    made = pa.array([None if text == "NULL" else read(text) for text in texts], held)
    return made if held == type_ else type_.wrap_array(made)


def _reader(type_: pa.DataType) -> Callable[[str], Any]:  # noqa: C901, PLR0911, PLR0912 - one answer per family
    """What makes a value that `pa.array` takes, of a text."""
    types = pa.types
    if types.is_boolean(type_):
        return {"true": True, "false": False}.__getitem__
    if types.is_integer(type_) or types.is_duration(type_):
        return int
    if types.is_floating(type_):
        return float
    if types.is_decimal(type_):
        return Decimal
    if isinstance(type_, pa.UuidType):
        return lambda text: uuid.UUID(text).bytes
    if types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_):
        return bytes.fromhex
    if types.is_fixed_size_binary(type_):
        return bytes.fromhex
    if types.is_date(type_):
        scale = _DAY * 1000 if types.is_date64(type_) else 1
        return lambda text: _days(text) * scale
    if types.is_time(type_):
        return lambda text: _clock(text, _DIGITS[type_.unit])
    if types.is_timestamp(type_):
        return lambda text: _stamp(text, _DIGITS[type_.unit])
    if (
        types.is_list(type_)
        or types.is_large_list(type_)
        or types.is_list_view(type_)
        or types.is_fixed_size_list(type_)
    ):
        return lambda text: _elements(type_, json.loads(text, parse_int=str, parse_float=str))
    if types.is_struct(type_):
        return json.loads
    if types.is_map(type_):
        return lambda text: list(json.loads(text).items())
    return str


def _elements(type_: pa.DataType, found: Any) -> list[Any]:
    """The elements of a list: numbers are texts by now, and so are all values but booleans and lists."""
    inner = type_.value_type
    if pa.types.is_list(inner) or pa.types.is_large_list(inner):
        return [None if element is None else _elements(inner, element) for element in found]
    read = _reader(inner)
    return [element if element is None or isinstance(element, bool) else read(element) for element in found]


def _days(text: str) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar, the year 0 being 1 BC.

    The year is taken to begin in March, so that the leap day is its last:
    https://howardhinnant.github.io/date_algorithms.html#days_from_civil
    """
    before, digits = text.startswith("-"), text.removeprefix("-").split("-")
    year, month, day = map(int, digits)
    year = (-year if before else year) - (1 if month <= 2 else 0)  # noqa: PLR2004 - February
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return 365 * year + year // 4 - year // 100 + year // 400 + of_year - 719_468


def _clock(text: str, digits: int) -> int:
    whole, _, fraction = text.partition(".")
    hour, minute, second = map(int, whole.split(":"))
    return (hour * 3600 + minute * 60 + second) * int(10**digits) + int(fraction.ljust(digits, "0") or 0)


def _stamp(text: str, digits: int) -> int:
    match = re.fullmatch(r"(.+?)[ T]([\d:.]+)(Z|[+-]\d\d:\d\d)?", text)
    if match is None:
        raise ValueError(f"{text} is no date with a time")
    offset = 0
    if match[3] and match[3] != "Z":
        offset = (int(match[3][1:3]) * 60 + int(match[3][4:])) * (-60 if match[3].startswith("-") else 60)
    return (_days(match[1]) * _DAY - offset) * int(10**digits) + _clock(match[2], digits)


# -- values to texts -------------------------------------------------------------------------------------------


def values(array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Booleans, integers, floats and text as Python values; everything else as text."""
    return [_value(array.type, value) for value in _counts(array).to_pylist()]


def _counts(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The array with every date and time as a count of its unit: Python's own end at the year 9999."""
    counted = _counted(array.type)
    if isinstance(array.type, pa.BaseExtensionType):
        chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        return pa.chunked_array([chunk.storage for chunk in chunks], array.type.storage_type)
    return array if counted == array.type else array.cast(counted)


def _counted(type_: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_date32(type_) or types.is_time32(type_):
        return pa.int32()
    if types.is_date64(type_) or types.is_time64(type_) or types.is_timestamp(type_):
        return pa.int64()
    if types.is_list(type_):
        return pa.list_(_counted(type_.value_type))
    if types.is_large_list(type_):
        return pa.large_list(_counted(type_.value_type))
    return type_


def _value(type_: pa.DataType, value: Any) -> Any:  # noqa: PLR0911 - one answer per family
    types = pa.types
    if value is None:
        return None
    if types.is_list(type_) or types.is_large_list(type_):
        return json.dumps(_plain(type_, value), ensure_ascii=False, separators=(",", ":"))
    if isinstance(type_, pa.UuidType):
        return str(uuid.UUID(bytes=value))
    if types.is_date(type_):
        return _day_text(value if types.is_date32(type_) else value // (_DAY * 1000))
    if types.is_time(type_):
        return _clock_text(value, _DIGITS[type_.unit])
    if types.is_timestamp(type_):
        digits = _DIGITS[type_.unit]
        days, clock = divmod(value, _DAY * 10**digits)
        return f"{_day_text(days)} {_clock_text(clock, digits)}{'Z' if type_.tz else ''}"
    if types.is_decimal(type_):
        return format(value, "f")
    if isinstance(value, bytes):
        return value.hex()
    if types.is_struct(type_) or types.is_map(type_):
        return json.dumps(dict(value), ensure_ascii=False, separators=(",", ":"))
    return value


def _plain(type_: pa.DataType, value: Any) -> Any:
    """What a list holds, for JSON."""
    if value is not None and (pa.types.is_list(type_) or pa.types.is_large_list(type_)):
        return [_plain(type_.value_type, element) for element in value]
    return _value(type_, value)


def _day_text(days: int) -> str:
    """The inverse of `_days`: https://howardhinnant.github.io/date_algorithms.html#civil_from_days."""
    era, of_era = divmod(days + 719_468, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9  # noqa: PLR2004 - March is the first
    year += era * 400 + (1 if month <= 2 else 0)  # noqa: PLR2004 - February
    return f"{'-' if year < 0 else ''}{abs(year):04d}-{month:02d}-{day:02d}"


def _clock_text(count: int, digits: int) -> str:
    seconds, fraction = divmod(count, 10**digits)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{text}.{fraction:0{digits}d}".rstrip("0") if fraction else text
