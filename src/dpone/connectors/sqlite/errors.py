"""SQLite's result codes (https://www.sqlite.org/rescode.html) as dpone's categories.

SQLite's messages name tables, columns and files, with one exception: text that is not UTF-8 is quoted, and is left out.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from typing import Literal

from dpone.errors import (
    Cancelled,
    ConflictError,
    DataError,
    DponeError,
    InternalError,
    PermissionDenied,
    ResourceError,
    SchemaError,
    SinkUnavailable,
    SourceUnavailable,
    StateError,
)

Side = Literal["source", "sink"]

CAST = "read the values in their text form with columns: {cast: {COLUMN: text}}, or filter the rows out"

_UNAVAILABLE = "unavailable"  # SourceUnavailable or SinkUnavailable, by the side
_BUSY = (
    "wait for the other program to end its transaction; when source and sink are the same file, or readers are always "
    "there, run PRAGMA journal_mode=WAL on it once"
)
_NAMES = "check the names, casts and the filter in the manifest"
_IO = "check the disk and the file system"
_RIGHTS = "check the permissions of the file and its folder"

# Primary result codes; an extended one (SQLITE_BUSY_SNAPSHOT) is looked up by its start.
_TABLE: tuple[tuple[str, type[DponeError] | str, str], ...] = (
    ("SQLITE_BUSY", ConflictError, _BUSY),
    ("SQLITE_LOCKED", ConflictError, _BUSY),
    ("SQLITE_READONLY", PermissionDenied, _RIGHTS),
    ("SQLITE_PERM", PermissionDenied, _RIGHTS),
    ("SQLITE_AUTH", PermissionDenied, _RIGHTS),
    ("SQLITE_FULL", ResourceError, "free space on the disk; the rerun continues where this run ended"),
    ("SQLITE_NOMEM", ResourceError, "free memory"),
    ("SQLITE_NOTADB", StateError, "check the path: the file is not an SQLite database, or it is encrypted"),
    ("SQLITE_CORRUPT", StateError, "restore the file from a backup; PRAGMA integrity_check says what is damaged"),
    ("SQLITE_CANTOPEN", _UNAVAILABLE, "check the path, and the permissions of the file and its folder"),
    ("SQLITE_IOERR", _UNAVAILABLE, _IO),
    ("SQLITE_PROTOCOL", _UNAVAILABLE, _IO),
    ("SQLITE_CONSTRAINT", DataError, "a constraint of the target refuses the rows: relax it, or clean the source"),
    ("SQLITE_MISMATCH", DataError, "a column of the target does not take the type of the values"),
    ("SQLITE_TOOBIG", DataError, "SQLite holds values and rows of up to 1,000,000,000 bytes; leave the column out"),
    ("SQLITE_SCHEMA", ConflictError, "a table was changed meanwhile; run again"),
    ("SQLITE_INTERRUPT", Cancelled, "run again"),
    ("SQLITE_ERROR", SchemaError, _NAMES),
    ("SQLITE_RANGE", SchemaError, _NAMES),
)
_RETRYABLE = (ConflictError, SourceUnavailable, SinkUnavailable)
_NOT_UTF8 = re.compile(r"Could not decode to UTF-8 column '(.*?)' with text", re.DOTALL)


@contextlib.contextmanager
def mapped(act: str, side: Side) -> Iterator[None]:
    """Raise SQLite's exceptions as dpone's. `act` says what was being done to what."""
    try:
        yield
    except (sqlite3.Error, OverflowError) as error:
        # The cause is not chained: for text that is not UTF-8 its message quotes a value.
        raise translate(act, side, error) from None


def translate(act: str, side: Side, error: Exception) -> DponeError:
    """The dpone error for an exception of the driver."""
    text = str(error)
    if found := _NOT_UTF8.match(text):
        return DataError(
            f"{act}: column {found[1]} holds text that is not UTF-8",
            remedy=f"repair the text, or read its bytes with columns: {{cast: {{{found[1]}: binary}}}}",
        )
    name = getattr(error, "sqlite_errorname", None) or ""
    if isinstance(error, (sqlite3.DataError, OverflowError)):
        name = "SQLITE_TOOBIG"
    for start, kind, remedy in _TABLE:
        if name.startswith(start):
            if isinstance(kind, str):
                kind = SourceUnavailable if side == "source" else SinkUnavailable  # noqa: PLW2901
            passes = issubclass(kind, _RETRYABLE) and start != "SQLITE_CANTOPEN"
            return kind(f"{act}: {text}", remedy=remedy, retryable=passes)
    return InternalError(f"{act}: {type(error).__name__}: {text}", remedy="run with --debug and report it")
