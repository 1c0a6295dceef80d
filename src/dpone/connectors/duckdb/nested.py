"""The names of DuckDB's nested types, taken apart: `STRUCT("a b" INTEGER, m MAP(VARCHAR, JSON)[])`."""

from __future__ import annotations

import re
from collections.abc import Iterator

_QUOTED = r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'"
_TOKEN = re.compile(rf"{_QUOTED}|[(),]")
_FIELD = re.compile(r"\"((?:[^\"]|\"\")*)\" (.+)|(\S+) (.+)", re.DOTALL)
_ARRAY = re.compile(r"(.+)\[\d*\]", re.DOTALL)
# A field of this name has its type after it.
_JSON = re.compile(rf"({_QUOTED})|\bJSON(?=[(),\[]|$)")


def is_nested(native: str) -> bool:
    """Whether values of the type have parts."""
    return native.endswith("]") or native.startswith(("STRUCT(", "MAP(", "TUPLE(", "UNION("))


def parts(native: str) -> list[tuple[str, str]]:
    """The name as SQL, and the type of each part; the name is empty where there is none."""
    if array := _ARRAY.fullmatch(native):
        return [("", array[1])]
    if not is_nested(native):
        return []
    kind, _, rest = native.partition("(")
    found, start, depth = [], 0, 0
    for token in _TOKEN.finditer(rest):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if (token[0] == "," and depth == 0) or depth < 0:
            found.append(rest[start : token.start()].strip())
            start = token.end()
    if kind in ("MAP", "TUPLE"):
        return [("", part) for part in found]
    matches = [match for match in map(_FIELD.fullmatch, found) if match]
    return [(f'"{match[1] or match[3]}"', match[2] or match[4]) for match in matches]


def leaves(native: str) -> Iterator[str]:
    """The types of the values that have no parts, and the words UNION and TUPLE for each of these."""
    if not native.endswith("]") and native.startswith(("UNION(", "TUPLE(")):
        yield native.partition("(")[0]
    inner = parts(native)
    for _, part in inner:
        yield from leaves(part)
    if not inner:
        yield re.sub(r"[(].*", "", native, flags=re.DOTALL)


def without_json(native: str) -> str:
    """The same type with VARCHAR in the place of JSON, which a list does not put in quotes when it is cast to text."""
    return _JSON.sub(lambda found: found[1] or "VARCHAR", native)
