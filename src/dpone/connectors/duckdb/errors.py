"""DuckDB's exceptions as dpone's categories.

https://duckdb.org/docs/stable/clients/python/overview
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import duckdb

from dpone.arrow.fidelity import manifest_line
from dpone.errors import (
    Cancelled,
    ConflictError,
    DataError,
    DponeError,
    InternalError,
    PermissionDenied,
    ResourceError,
    SchemaError,
    StateError,
)

_TABLE: tuple[tuple[type[duckdb.Error], type[DponeError], str], ...] = (
    (duckdb.InterruptException, Cancelled, "run again"),
    (duckdb.OutOfMemoryException, ResourceError, "raise memory_limit of the connection, or free memory"),
    (
        duckdb.ConstraintException,
        DataError,
        "a constraint of the target refuses the rows; relax it or clean the source",
    ),
    (duckdb.ConversionException, DataError, "cast the column: columns: {cast: {NAME: text}}"),
    (duckdb.OutOfRangeException, DataError, "cast the column: columns: {cast: {NAME: text}}"),
    (duckdb.InvalidInputException, DataError, "cast the column: columns: {cast: {NAME: text}}"),
    (duckdb.CatalogException, SchemaError, "check the names in the manifest"),
    (duckdb.BinderException, SchemaError, "check the column names, casts and the filter in the manifest"),
    (duckdb.ParserException, SchemaError, "check the filter in the manifest"),
    (duckdb.PermissionException, PermissionDenied, "check the file's permissions"),
    (duckdb.SerializationException, StateError, "the file is damaged or was written by a newer DuckDB"),
    (duckdb.TransactionException, ConflictError, "another connection changed the same rows; run again"),
    (duckdb.ResourceInUseException, ConflictError, "this process has the file open under another path; run again"),
)
_NAMED = re.compile(r'(infinity in|inexact cast of|no JSON in) column "((?:[^"]|"")*)"')  # see the dialect's `_stop`
_HOLDER = re.compile(r"held in (.*?\(PID \d+\)|.*?PID \d+)")


@contextlib.contextmanager
def mapped(act: str) -> Iterator[None]:
    """Raise DuckDB's exceptions as dpone's. `act` says what was being done to what."""
    try:
        yield
    except duckdb.Error as error:
        raise translate(act, error) from error


def translate(act: str, error: duckdb.Error) -> DponeError:
    """The dpone error for a DuckDB exception."""
    text = str(error)
    if "No space left" in text:  # also inside the TransactionException of a COMMIT
        return ResourceError(f"{act}: the disk is full", remedy="free space; the rerun continues where this run ended")
    if isinstance(error, duckdb.FatalException) and "memory" in text.lower():
        # A checkpoint without room for it. What was committed is durable, and the rerun finds it.
        return ResourceError(
            f"{act}: too little memory", remedy="raise memory_limit of the connection; the rerun continues"
        )
    if isinstance(error, duckdb.IOException):
        return _io(act, text)
    if isinstance(error, duckdb.InvalidInputException) and (named := _NAMED.search(text)):
        line = manifest_line(cast={named[2].replace('""', '"'): "text"})
        return DataError(f"{act}: {named[0]}", remedy=f"{line} reads it as text", code="DP414")
    for kind, target, remedy in _TABLE:
        if isinstance(error, kind):
            # Conversion and constraint messages quote values; only the kind of failure is passed on.
            quoted = issubclass(target, DataError)
            detail = type(error).__name__ if quoted else text.splitlines()[0]
            return target(f"{act}: {detail}", remedy=remedy, retryable=target is ConflictError)
    return InternalError(f"{act}: {type(error).__name__}", remedy="run with --debug and report it")


def _io(act: str, text: str) -> DponeError:
    if "lock" in text.lower():
        holder = _HOLDER.search(text)
        who = holder[1] if holder else "another process"
        return ConflictError(
            f"{act}: the file is held by {who}",
            remedy="wait for it to end (dpone run --wait SECONDS waits)",
            code="DP701",
            retryable=True,
        )
    if "ermission denied" in text:
        return PermissionDenied(f"{act}: permission denied", remedy="check the permissions of the file and its folder")
    if "not a valid DuckDB database" in text:
        return StateError(f"{act}: not a DuckDB database file", remedy="check the path")
    return ResourceError(f"{act}: {text.splitlines()[0]}", remedy="check the path, the disk and the permissions")
