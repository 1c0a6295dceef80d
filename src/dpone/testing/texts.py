"""The texts of values: what a case file says of a value and what a harness reads back, in a form that compares exactly.

    boolean              true, false
    int8 ... uint64      decimal digits
    float32, float64     digits, point and exponent of the nearest float; nan, inf, -inf; -0 is not 0
    decimal(p,s)         digits and point; 1.5 is 1.50
    text, json, uuid     the text itself
    binary               hexadecimal
    date                 YYYY-MM-DD; the year has more digits after 9999 and a minus sign before the year 0000 (1 BC)
    time                 HH:MM:SS and up to as many digits after a point as the unit has; 24:00:00 is the latest
    timestamp            date, T or a blank, time
    timestamptz          the same with Z or an offset, +05:45; values are compared in UTC
    list<...>            a JSON array of null and elements: numbers and booleans, arrays, or strings with their text

A unit other than microseconds follows the name: time[ns], timestamp[s], timestamptz[ms].
Nothing here uses the product's own conversions, nor datetime, whose years end at 9999: this is what they are held to.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

_UNITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}  # digits after the point of a second
DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")
_INTEGER = re.compile(r"(u?)int(8|16|32|64)")
_TEMPORAL = re.compile(r"(time|timestamp|timestamptz)(?:\[(s|ms|ns)\])?")
_NUMBER = re.compile(r"-?\d+", re.ASCII)
_FIXED = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_FLOAT = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = ("nan", "NaN", "inf", "-inf", "Infinity", "-Infinity")
_UUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DATE = re.compile(r"(-?\d{4,})-(\d\d)-(\d\d)", re.ASCII)
_TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.(\d+))?", re.ASCII)
_ZONE = re.compile(r"Z|([+-])(\d\d)(?::?(\d\d)(?::?(\d\d))?)?", re.ASCII)
_STAMP = re.compile(r"(?P<date>[^ T]+)[ T](?P<time>[\d:.]+)(?P<zone>.*)", re.ASCII)
_FLOATS = {"float32": ("<I", "<f", 0x7FC00000), "float64": ("<Q", "<d", 0x7FF8000000000000)}
_DAY = 86_400  # seconds
_EPOCH = 719_468  # days from 0000-03-01 to 1970-01-01


def parse(canonical: str, text: str) -> Any:
    """A text of a case file or of a harness as a value of the canonical type that compares exactly.

    Floats compare by their bits (one NaN), times as counts of their unit, decimals as numbers, lists element by
    element, json and text as their text. Raises ValueError when the text is not a value of the type.
    """
    if canonical in ("text", "json"):
        return text
    if canonical.startswith("list<"):
        return _list(canonical, text)
    return _scalar(canonical)[0](text)


def normal(canonical: str, value: Any) -> Any:
    """What a harness read back, brought to the form that `parse` gives: a Python value, or a text of one.

    A date or a time may also be a whole number, the count of its unit since 1970 or midnight.
    Raises ValueError for what is no value of the type: a float that is no float32, an instant without a zone.
    """
    if value is None:
        return None
    if canonical.startswith("list<"):
        if isinstance(value, str):
            return parse(canonical, value)
        if isinstance(value, list | tuple):
            return tuple(normal(_element(canonical), element) for element in value)
        raise _no_value(canonical, value)
    if isinstance(value, uuid.UUID) and canonical == "uuid":
        return str(value)
    if isinstance(value, str):
        return parse(canonical, value)
    if canonical in ("text", "json", "uuid"):
        raise _no_value(canonical, value)
    counted = canonical.startswith(("date", "time")) and isinstance(value, int) and not isinstance(value, bool)
    return value if counted else _scalar(canonical)[1](value)


def coarser(canonical: str, kept: str, value: Any) -> Any:
    """A time as a count of `canonical`, in the coarser unit of `kept`; what is below that unit is cut off."""
    digits = [_UNITS[match[2] or "us"] for match in map(_TEMPORAL.fullmatch, (canonical, kept)) if match]
    if value is None:
        return None
    if canonical.startswith("list<"):
        return tuple(coarser(_element(canonical), _element(kept), element) for element in value)
    if len(digits) != 2:
        raise ValueError(f"{canonical} and {kept} are not times")
    return value // 10 ** (digits[0] - digits[1])


_Reader = tuple[Callable[[str], Any], Callable[[Any], Any]]


def _scalar(canonical: str) -> _Reader:  # noqa: PLR0911 - one answer per family
    """How a type reads a text, and how it takes a Python value."""
    if canonical == "boolean":
        return _boolean, _boolean_value
    if match := _INTEGER.fullmatch(canonical):
        bits = int(match[2])
        bounds = (0, 2**bits) if match[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        return lambda text: _integer(canonical, bounds, text), lambda value: _integer_value(canonical, bounds, value)
    if canonical in _FLOATS:
        return lambda text: _float(canonical, text), lambda value: _float_value(canonical, value)
    if match := DECIMAL.fullmatch(canonical):
        precision, scale = int(match[1]), int(match[2])
        return (
            lambda text: _decimal(canonical, precision, scale, text),
            lambda value: _decimal_value(canonical, precision, scale, value),
        )
    if canonical == "uuid":
        return _uuid, lambda value: _refuse(canonical, value)
    if canonical == "binary":
        return _binary, _binary_value
    if canonical == "date":
        return _date, _date_value
    if match := _TEMPORAL.fullmatch(canonical):
        kind, digits = match[1], _UNITS[match[2] or "us"]
        if kind == "time":
            return lambda text: _time(canonical, digits, text), lambda value: _time_value(canonical, digits, value)
        return lambda text: _stamp(canonical, digits, text), lambda value: _stamp_value(canonical, digits, value)
    raise ValueError(f"{canonical!r} is not a canonical type")


def _no_value(canonical: str, value: Any) -> ValueError:
    return ValueError(f"{value!r} is no value of {canonical}")


def _refuse(canonical: str, value: Any) -> Any:
    raise _no_value(canonical, value)


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise _no_value("boolean", text)
    return text == "true"


def _boolean_value(value: Any) -> bool:
    """0 and 1 too: what a system without booleans stores."""
    if not isinstance(value, int) or value not in (0, 1):
        raise _no_value("boolean", value)
    return bool(value)


def _integer(canonical: str, bounds: tuple[int, int], text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise _no_value(canonical, text)
    return _integer_value(canonical, bounds, int(text))


def _integer_value(canonical: str, bounds: tuple[int, int], value: Any) -> int:
    whole = isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value()
    number = int(value) if whole else value
    if not isinstance(number, int) or isinstance(value, bool) or not bounds[0] <= number < bounds[1]:
        raise _no_value(canonical, value)
    return number


def _float(canonical: str, text: str) -> int:
    """The bits of the nearest float, ties to even."""
    if text in _NOT_FINITE:
        return _float_value(canonical, float(text))
    if not _FLOAT.fullmatch(text):
        raise _no_value(canonical, text)
    double = float(text)
    integer, real, _ = _FLOATS[canonical]
    try:
        (bits,) = struct.unpack(integer, struct.pack(real, double))
    except OverflowError:
        raise _no_value(canonical, text) from None
    if double in (float("inf"), float("-inf")):
        raise _no_value(canonical, text)
    if canonical == "float64" or double == 0:
        return int(bits)
    # By way of the double, the text was rounded twice; one of the neighbours may be nearer to it.
    exact = Fraction(Decimal(text))
    near = [near for near in (bits - 1, bits, bits + 1) if near >> 23 & 0xFF != 0xFF and (near ^ bits) >> 31 == 0]
    return int(min(near, key=lambda near: (abs(_value_of(near) - exact), near & 1)))


def _value_of(bits: int) -> Fraction:
    return Fraction(struct.unpack("<f", struct.pack("<I", bits))[0])


def _float_value(canonical: str, value: Any) -> int:
    integer, real, nan = _FLOATS[canonical]
    if not isinstance(value, float):
        raise _no_value(canonical, value)
    if value != value:  # noqa: PLR0124 - only NaN is not itself
        return nan
    try:
        packed = struct.pack(real, value)
    except OverflowError:
        raise _no_value(canonical, value) from None
    if struct.unpack(real, packed)[0] != value:
        raise _no_value(canonical, value)
    return int(struct.unpack(integer, packed)[0])


def _decimal(canonical: str, precision: int, scale: int, text: str) -> Decimal:
    if not _FIXED.fullmatch(text):
        raise _no_value(canonical, text)
    return _decimal_value(canonical, precision, scale, Decimal(text))


def _decimal_value(canonical: str, precision: int, scale: int, value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _no_value(canonical, value)
    number = Decimal(value)
    if not number.is_finite():
        raise _no_value(canonical, value)
    unscaled = Fraction(number) * 10**scale
    if unscaled.denominator != 1 or abs(unscaled) >= 10**precision:
        raise _no_value(canonical, value)
    return number


def _uuid(text: str) -> str:
    if not _UUID.fullmatch(text):
        raise _no_value("uuid", text)
    return text


def _binary(text: str) -> bytes:
    if not re.fullmatch("([0-9a-fA-F]{2})*", text):
        raise _no_value("binary", text)
    return bytes.fromhex(text)


def _binary_value(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise _no_value("binary", value)
    return bytes(value)


def _date(text: str) -> int:
    match = _DATE.fullmatch(text)
    if match is None:
        raise _no_value("date", text)
    year, month, day = map(int, match.groups())
    if not 1 <= month <= 12 or not 1 <= day <= _days_in(year, month):
        raise _no_value("date", text)
    return _fits("date", _days(year, month, day), 32)


def _date_value(value: Any) -> int:
    if not isinstance(value, dt.date) or isinstance(value, dt.datetime):
        raise _no_value("date", value)
    return _days(value.year, value.month, value.day)


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar, the year 0 being 1 BC.

    The year is taken to begin in March, so that the leap day is its last:
    https://howardhinnant.github.io/date_algorithms.html#days_from_civil
    """
    year -= month <= 2
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return 365 * year + year // 4 - year // 100 + year // 400 + of_year - _EPOCH


def _days_in(year: int, month: int) -> int:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if month == 2 and leap else (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]


def _fits(canonical: str, count: int, bits: int) -> int:
    if not -(2 ** (bits - 1)) <= count < 2 ** (bits - 1):
        raise ValueError(f"a value of {canonical} is out of range")
    return count


def _time(canonical: str, digits: int, text: str) -> int:
    match = _TIME.fullmatch(text)
    fraction = (match[4] or "") if match else ""
    if match is None or len(fraction.rstrip("0")) > digits:
        raise _no_value(canonical, text)
    hour, minute, second = map(int, match.groups()[:3])
    count: int = (hour * 3600 + minute * 60 + second) * 10**digits + int(fraction[:digits].ljust(digits, "0") or 0)
    if minute > 59 or second > 59 or count > _DAY * 10**digits:
        raise _no_value(canonical, text)
    return count


def _time_value(canonical: str, digits: int, value: Any) -> int:
    if not isinstance(value, dt.time) or value.tzinfo is not None:
        raise _no_value(canonical, value)
    return _count(canonical, digits, value.hour * 3600 + value.minute * 60 + value.second, value.microsecond)


def _count(canonical: str, digits: int, seconds: int, micros: int) -> int:
    count = Fraction(seconds * 10**6 + micros, 10**6) * 10**digits
    if count.denominator != 1:
        raise ValueError(f"a value of {canonical} is finer than its unit")
    return int(count)


def _stamp(canonical: str, digits: int, text: str) -> int:
    match = _STAMP.fullmatch(text)
    if match is None:
        raise _no_value(canonical, text)
    offset = 0
    if canonical.startswith("timestamptz"):
        zone = _ZONE.fullmatch(match["zone"])
        if zone is None:
            raise _no_value(canonical, text)
        hours, minutes, seconds = (int(part or 0) for part in zone.groups()[1:])
        offset = (hours * 3600 + minutes * 60 + seconds) * (-1 if zone[1] == "-" else 1)
    elif match["zone"]:
        raise _no_value(canonical, text)
    unit = 10**digits
    count = (_date(match["date"]) * _DAY - offset) * unit + _time(canonical, digits, match["time"])
    return _fits(canonical, count, 64)


def _stamp_value(canonical: str, digits: int, value: Any) -> int:
    if not isinstance(value, dt.datetime):
        raise _no_value(canonical, value)
    offset = value.utcoffset()
    if (offset is not None) != canonical.startswith("timestamptz"):
        raise _no_value(canonical, value)
    days = _days(value.year, value.month, value.day)
    seconds = days * _DAY + value.hour * 3600 + value.minute * 60 + value.second
    shift = offset or dt.timedelta()
    micros = value.microsecond - shift.microseconds
    return _fits(canonical, _count(canonical, digits, seconds - shift.days * _DAY - shift.seconds, micros), 64)


def _element(canonical: str) -> str:
    return canonical.removeprefix("list<").removesuffix(">")


def _list(canonical: str, text: str) -> tuple[Any, ...]:
    if not canonical.endswith(">"):
        raise ValueError(f"{canonical!r} is not a canonical type")
    try:
        found = json.loads(text, parse_int=_Digits, parse_float=_Digits, parse_constant=_Digits)
    except json.JSONDecodeError:
        raise _no_value(canonical, text) from None
    return _elements(canonical, found)


class _Digits(str):
    """A number of a JSON array, as it is written."""

    __slots__ = ()


def _elements(canonical: str, found: Any) -> tuple[Any, ...]:
    if not isinstance(found, list):
        raise _no_value(canonical, found)
    inner = _element(canonical)
    return tuple(None if element is None else _json(inner, element) for element in found)


def _json(canonical: str, element: Any) -> Any:
    """An element of a JSON array. Numbers and booleans are written bare or in quotes, everything else in quotes."""
    if canonical.startswith("list<"):
        return _elements(canonical, element)
    if isinstance(element, bool):
        if canonical != "boolean":
            raise _no_value(canonical, element)
        return element
    if isinstance(element, _Digits):
        if not (_INTEGER.fullmatch(canonical) or DECIMAL.fullmatch(canonical) or canonical in _FLOATS):
            raise _no_value(canonical, element)
        return parse(canonical, str(element))
    if isinstance(element, str):
        return parse(canonical, element)
    raise _no_value(canonical, element)
