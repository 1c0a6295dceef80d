"""A function of the user over record batches: found, tried on no rows, and held to what it gave then."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from dpone.arrow.types import LOGICAL, is_canonical
from dpone.errors import ConfigError, DataError

_importing = threading.Lock()

Function = Callable[[pa.RecordBatch], pa.RecordBatch]


def find(reference: str, folder: Path) -> Function:
    """The function `package.module:name`, from the folder of the manifest or what is installed.

    The folder is put at the end of `sys.path` and stays there, for what the function imports later. Raises ConfigError.
    """
    module_name, _, name = reference.partition(":")
    home = folder.resolve()
    with _importing:
        if str(home) not in sys.path:
            sys.path.append(str(home))
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            missing = isinstance(error, ModuleNotFoundError) and module_name.startswith(error.name or "")
            raise ConfigError(
                f"importing {module_name}: " + ("there is no such module" if missing else type(error).__name__),
                remedy=f"put it beside the manifest or install it; python -c 'import {module_name}' shows the error",
                code="DP150",
            ) from error
    top = module_name.partition(".")[0]
    here = (home / f"{top}.py").exists() or (home / top).is_dir()
    origin = Path(getattr(module, "__file__", None) or home).resolve()
    if here and not origin.is_relative_to(home):
        raise ConfigError(
            f"{module_name} is {origin}, not the one beside the manifest",
            remedy="give the module beside the manifest another name",
            code="DP150",
        )
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)  # type: ignore[assignment]
    if not callable(found):
        raise ConfigError(
            f"{module_name} has no function {name}", remedy="write module:name of a function", code="DP150"
        )
    return found


def output_of(function: Function, reference: str, schema: pa.Schema) -> pa.Schema:
    """The schema that a function gives, asked by calling it once with no rows. Raises ConfigError."""
    empty = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
    try:
        found = _called(function, reference, empty)
    except DataError as error:
        raise ConfigError(
            f"{error.message}, when it was called with no rows", remedy=error.remedy, code="DP150"
        ) from error.__cause__
    names = found.schema.names
    doubled = sorted({name for name in names if names.count(name) > 1})
    unknown = [field.name for field in found.schema if not is_canonical(field.type)]
    if doubled or unknown or not names:
        what = f"two columns {doubled[0]}" if doubled else f"{unknown[0]} as {found.schema.field(unknown[0]).type}"
        raise ConfigError(
            f"{reference} gives {what if names else 'no column'}",
            remedy="give each column once, in a type that travels: int64, string, decimal128, timestamp('us'), ...",
            code="DP150",
        )
    return found.schema


def logical_of(field: pa.Field) -> str:
    """The logical type that a field of a function's output says it has."""
    said = (field.metadata or {}).get(LOGICAL, b"").decode()
    return said if pa.types.is_string(field.type) and said in ("json", "uuid") else ""


def call(function: Function, reference: str, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The function's answer to a batch, which must have this schema and at most as many rows. Raises DataError."""
    found = _called(function, reference, batch)
    if found.schema.names != schema.names:
        missing = [name for name in schema.names if name not in found.schema.names]
        more = [name for name in found.schema.names if name not in schema.names]
        what = f"no column {missing[0]}" if missing else f"a column {more[0]}" if more else "another order of columns"
        raise _broken(reference, f"gave {what}, unlike for no rows")
    for have, want in zip(found.schema, schema, strict=True):
        if have.type != want.type:
            raise _broken(reference, f"gave {have.name} as {have.type}, and as {want.type} for no rows")
    if found.num_rows > batch.num_rows:
        raise _broken(reference, f"gave {found.num_rows:,} rows for {batch.num_rows:,}: it may leave out rows, not add")
    return found


def _called(function: Function, reference: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    try:
        found = function(batch)
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises
        # Neither its message nor its traceback: they may hold values of the row.
        raise _broken(reference, f"raised {type(error).__name__}") from None
    if not isinstance(found, pa.RecordBatch):
        raise _broken(reference, f"gave a {type(found).__name__}, not a pyarrow.RecordBatch")
    return found


def _broken(reference: str, what: str) -> DataError:
    return DataError(
        f"the function {reference} {what}",
        remedy="correct the function; it must give the same columns and types for every batch",
        code="DP416",
    )
