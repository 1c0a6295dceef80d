"""Expressions of the manifest: scalar SQL of DuckDB over the columns of one row, and nothing else.

The same row must give the same values at any time: a rerun compares staged slices with what it computes again, and so
does `dpone verify`. So an expression is parsed and looked through before it is bound: what reads anything but the row
(a subquery, a file, a setting), or answers differently each time (`random()`, `now()`), is refused. The connection
that computes it has no access to files, the network or the caller's variables, and its settings are locked.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import duckdb
import pyarrow as pa

from dpone.arrow.types import Logical, parse_type
from dpone.arrow.types import arrow_schema as arrow_schema_of
from dpone.sdk import Column

_SETTINGS = (
    "SET threads = 1",  # streams run side by side already, and rows keep their order
    "SET TimeZone = 'UTC'",
    "SET preserve_insertion_order = true",
    "SET enable_external_access = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET python_enable_replacements = false",
    "SET lock_configuration = true",  # https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview
)
_PARTS = frozenset({"BETWEEN", "CASE", "CAST", "COLLATE", "COMPARISON", "CONJUNCTION", "CONSTANT", "OPERATOR", "TYPE"})
_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "DEFAULT": "DEFAULT",
    "POSITIONAL_REFERENCE": "a column number",
}
_TYPES = {
    "BOOLEAN": "boolean",
    "TINYINT": "int8",
    "SMALLINT": "int16",
    "INTEGER": "int32",
    "BIGINT": "int64",
    "UTINYINT": "uint8",
    "USMALLINT": "uint16",
    "UINTEGER": "uint32",
    "UBIGINT": "uint64",
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "VARCHAR": "text",
    "JSON": "json",
    "UUID": "uuid",
    "BLOB": "binary",
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
}
_LISTED = frozenset({"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "VARCHAR"})
_CLOCK = frozenset({"current_localtime", "current_localtimestamp"})  # declared CONSISTENT in DuckDB 2.0
_local = threading.local()


class Refusal(Exception):
    """Why an expression cannot be computed. Holds the expression's own words, never a value of a row."""


def connection() -> duckdb.DuckDBPyConnection:
    """The in-memory DuckDB, of this thread, shut off from all but what is registered with it."""
    found: Any = getattr(_local, "connection", None)
    if found is None:
        found = duckdb.connect(":memory:")
        for setting in _SETTINGS:
            found.execute(setting).fetchall()
        _local.connection = found
    return found  # type: ignore[no-any-return]


def references(expression: str) -> tuple[str, ...]:
    """The names of the columns that a scalar expression uses, as it writes them. Raises Refusal."""
    return tuple(_looked_through(_parsed(expression), frozenset()))


def type_of(expression: str, columns: Sequence[Column]) -> tuple[pa.DataType, Logical]:
    """The canonical type of an expression over these columns. Raises Refusal when DuckDB cannot bind it."""
    found = _bound_type(expression, columns)
    element = found.removesuffix("[]")
    if element in _LISTED and found != element:
        return pa.list_(parse_type(_TYPES[element])[0]), ""
    if match := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", found):
        return pa.decimal128(int(match[1]), int(match[2])), ""
    if found == '"NULL"':
        raise Refusal("it is always NULL and has no type: write CAST(NULL AS VARCHAR), or another type")
    if found not in _TYPES:
        raise Refusal(f"it is a {found}, which does not travel: cast it, as in CAST(... AS VARCHAR)")
    return parse_type(_TYPES[found])


def is_condition(expression: str, columns: Sequence[Column]) -> bool:
    """Whether an expression over these columns is true, false or NULL. Raises Refusal when DuckDB cannot bind it."""
    return _bound_type(expression, columns) == "BOOLEAN"


def quoted(name: str) -> str:
    """A name in DuckDB's SQL."""
    return '"' + name.replace('"', '""') + '"'


def enclosed(expression: str) -> str:
    """The expression in parentheses; a comment at its end ends before them."""
    return f"({expression}\n)"


def _bound_type(expression: str, columns: Sequence[Column]) -> str:
    session = connection()
    nothing = pa.field("_dpone_row", pa.bool_())  # for an expression that uses no column
    session.register("_dpone_rows", arrow_schema_of(tuple(columns)).append(nothing).empty_table())
    try:
        found = session.execute(f"DESCRIBE SELECT {enclosed(expression)} FROM _dpone_rows").fetchall()
    except duckdb.Error as error:
        raise Refusal(_said(error)) from None
    finally:
        session.unregister("_dpone_rows")
    return str(found[0][1])


def _said(error: duckdb.Error) -> str:
    """The first line of DuckDB's message, without the query that it repeats below."""
    return " ".join(str(error).partition("\n\nLINE ")[0].partition("\n")[0].split()).rstrip(".")


def _parsed(expression: str) -> Any:
    """The syntax tree of one expression. Raises Refusal when it is not exactly one."""
    shell, [_] = _tree("1")
    rest, found = _tree(expression)
    if rest != shell or len(found) != 1:
        raise Refusal("it is more than one expression")
    return found[0]


def _tree(expression: str) -> tuple[Any, list[Any]]:
    """A SELECT of the expression: what is around the select list, and the select list."""
    [(text,)] = (
        connection().execute("SELECT json_serialize_sql(?::VARCHAR)", [f"SELECT {enclosed(expression)}"]).fetchall()
    )
    document = json.loads(text)
    if document["error"]:
        raise Refusal(f"it does not parse: {document['error_message']}")
    if len(document["statements"]) != 1:
        raise Refusal("it is more than one expression")
    node = document["statements"][0]["node"]
    return node, node.pop("select_list", [])


def _looked_through(node: Any, bound: frozenset[str]) -> dict[str, None]:
    """The columns that a part of the tree uses, without `bound` names (parameters of lambdas). Raises Refusal."""
    if not isinstance(node, dict):
        return _of_all(node, bound) if isinstance(node, list) else {}
    part = node.get("class")
    if part == "COLUMN_REF":
        names = [str(name) for name in node["column_names"]]
        if len(names) > 1:
            raise Refusal(f"{'.'.join(names)} has two parts: write the column's name alone")
        return {} if names[0].lower() in bound else {names[0]: None}
    if part == "LAMBDA":
        parameters = frozenset(name.lower() for name in _looked_through(node["lhs"], frozenset()))
        return _looked_through(node["expr"], bound | parameters)
    if part in _REFUSED:
        raise Refusal(f"{_REFUSED[part]} is not part of an expression over one row")
    if part == "FUNCTION":
        _check_function(node)
    elif part is not None and part not in _PARTS:
        raise Refusal(f"{str(part).lower()} is not part of an expression over one row")
    return _of_all(node.values(), bound)


def _of_all(nodes: Iterable[Any], bound: frozenset[str]) -> dict[str, None]:
    found: dict[str, None] = {}
    for node in nodes:
        found |= _looked_through(node, bound)
    return found


def _check_function(node: Any) -> None:
    name = str(node["function_name"]).lower()
    if node.get("schema") or node.get("catalog"):
        raise Refusal(f"write {name}(...) with the column as its first argument")
    if name == "age" and len(node.get("arguments", ())) == 1:
        raise Refusal("age(...) of one value looks at the clock: give it two")
    problem = _function_problem(name)
    if problem:
        raise Refusal(problem)


@lru_cache(maxsize=1)
def _functions() -> dict[str, list[tuple[str, str, str, tuple[str, ...]]]]:
    """DuckDB's functions: kind, stability and, of a macro, the definition and the parameters."""
    found: dict[str, list[tuple[str, str, str, tuple[str, ...]]]] = {}
    rows = (
        connection()
        .execute("SELECT function_name, function_type, stability, macro_definition, parameters FROM duckdb_functions()")
        .fetchall()
    )
    for name, kind, stability, definition, parameters in rows:
        if not str(name).startswith("__internal"):
            entry = (kind, stability or "", definition or "", tuple(parameters or ()))
            found.setdefault(str(name).lower(), []).append(entry)
    return found


@lru_cache(maxsize=1024)
def _function_problem(name: str) -> str:
    """Why a function has no place in an expression, or an empty text."""
    overloads = _functions().get(name)
    if overloads is None:
        close = get_close_matches(name, _functions(), n=1)
        return f"there is no function {name}" + (f"; did you mean {close[0]}?" if close else "")
    for kind, stability, definition, parameters in overloads:
        if kind == "macro":
            try:  # what it uses besides its parameters is current_timestamp or the like
                free = _looked_through(_parsed(definition.replace("main.", "")), frozenset(map(str.lower, parameters)))
            except Refusal:
                free = {name: None}
            if free:
                return f"{name}() is not a function of one row alone"
        elif kind != "scalar":
            return f"{name}() is not a function of one row alone"
        elif stability != "CONSISTENT" or name in _CLOCK:
            return f"{name}() does not give the same answer each time, so nothing could be compared later"
    return ""
