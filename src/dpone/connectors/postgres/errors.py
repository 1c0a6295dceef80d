"""What the errors of PostgreSQL and of its driver mean to dpone: one table, keyed by SQLSTATE.

Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html

The server's DETAIL, HINT and CONTEXT are never passed on, they may hold values of rows. Its primary message is
passed on only for the codes marked so here, where it names objects of the database and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import psycopg

from dpone.arrow.fidelity import manifest_line
from dpone.errors import (
    AuthError,
    ConfigError,
    ConflictError,
    DataError,
    DponeError,
    InternalError,
    PermissionDenied,
    ResourceError,
    SchemaError,
    SinkUnavailable,
    SourceUnavailable,
    TimedOut,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Side = Literal["source", "sink"]


@dataclass(frozen=True, slots=True)
class _Meaning:
    """`error` of None: SourceUnavailable or SinkUnavailable, as the side says. `quote`: the server's text is safe."""

    error: type[DponeError] | None
    remedy: str
    quote: bool = False
    retryable: bool = False


_UNREACHABLE = _Meaning(None, "check that the server runs and answers at this address", retryable=True)
# What a resolver says for good; "Temporary failure in name resolution" may pass.
_NO_HOST = _Meaning(None, "check the name of the host")
_ROUTINE = _Meaning(DataError, "a function or trigger of the database raised this; look into the server's log")
_BUSY = _Meaning(ConflictError, "run again; another transaction had the rows", quote=True, retryable=True)

# The full code is looked up first, then its class (two characters).
_TABLE: dict[str, _Meaning] = {
    "08": _UNREACHABLE,
    "0A": _Meaning(ConfigError, "this server cannot do that; see its version and settings", quote=True),
    "22": _Meaning(DataError, "a value does not fit the type it is read or written as; cast the column to text"),
    "23": _Meaning(DataError, "a row breaks a constraint of the target; filter such rows or drop the constraint"),
    "25006": _Meaning(PermissionDenied, "connect to the primary, or clear default_transaction_read_only", quote=True),
    "25P04": _Meaning(TimedOut, "raise transaction_timeout for this role, or make the slices smaller", quote=True),
    "25P03": _Meaning(None, "raise idle_in_transaction_session_timeout for this role", quote=True, retryable=True),
    "26": _Meaning(ConfigError, "connect to the server itself, or to a pooler in session mode"),
    "28": _Meaning(AuthError, "check the user, the password and pg_hba.conf", quote=True),
    "3D": _Meaning(ConfigError, "check the name of the database", quote=True),
    "3F": _Meaning(SchemaError, "create the schema, or set the option create_schema: true of the sink", quote=True),
    "38": _ROUTINE,
    "39": _ROUTINE,
    "40": _BUSY,
    "42": _Meaning(SchemaError, "check the names, the filter and the casts of the stream", quote=True),
    "42501": _Meaning(PermissionDenied, "grant the role what the message names", quote=True),
    "44": _Meaning(DataError, "a row breaks the check of a view; filter such rows"),
    "53": _Meaning(
        ResourceError,
        "give the server, or the role, more of what ran out; or run fewer at once",
        quote=True,
        retryable=True,
    ),
    "53100": _Meaning(ResourceError, "free disk space on the server", quote=True),
    "53400": _Meaning(ResourceError, "raise the limit that the message names (temp_file_limit)", quote=True),
    "54": _Meaning(ResourceError, "a limit of PostgreSQL is reached: fewer or narrower columns", quote=True),
    "55": _Meaning(ConflictError, "bring the object into the state that the message asks for", quote=True),
    "55006": _Meaning(ConflictError, "run again when the object is free", quote=True, retryable=True),
    "55P03": _Meaning(ConflictError, "run again when the object is free", quote=True, retryable=True),
    "57": _UNREACHABLE,
    "57014": _Meaning(TimedOut, "raise statement_timeout for this role, or make the slices smaller", quote=True),
    "57P01": _Meaning(None, "run again when the server is back", quote=True, retryable=True),
    "57P02": _Meaning(None, "run again when the server is back", quote=True, retryable=True),
    "57P03": _Meaning(None, "run again when the server has started", quote=True, retryable=True),
    "57P04": _Meaning(ConfigError, "the database was dropped; check its name", quote=True),
    "57P05": _Meaning(None, "raise idle_session_timeout for this role", quote=True, retryable=True),
    "58": _Meaning(ResourceError, "look into the server's log: it could not use its own files"),
    "HV": _Meaning(None, "check the foreign server behind the table"),
    "P0": _ROUTINE,
    "XX": _Meaning(ResourceError, "look into the server's log: the server met an internal error"),
}
_UNKNOWN = _Meaning(InternalError, "look into the server's log for this SQLSTATE and report it")

# A failed connection carries no SQLSTATE: libpq gives the text only
# (https://www.postgresql.org/docs/current/libpq-status.html#LIBPQ-PQERRORMESSAGE). English servers are told apart.
_CONNECTING: tuple[tuple[str, _Meaning], ...] = (
    (r"database \".*\" does not exist", _TABLE["3D"]),
    (r"password|authentication failed|pg_hba\.conf|role .* does not exist|not permitted to log in", _TABLE["28"]),
    (r"too many|connection slots", _TABLE["53"]),
    (r"permission denied for database", _TABLE["42501"]),
    (r"Name or service not known|nodename nor servname|No address associated", _NO_HOST),
    (r"does not support SSL|certificate|root\.crt", _Meaning(ConfigError, "check sslmode and sslrootcert")),
)


# libpq says it in three lines, the last of which says nothing by itself.
_CLOSED = re.compile("server closed the connection|connection to server was lost|reset by peer|unexpected eof")


def translate(
    error: psycopg.Error, act: str, side: Side, *, columns: Sequence[str] = (), connecting: bool = False
) -> DponeError:
    """The dpone error of a driver error. Raise it `from None`: the driver's text may hold a value.

    `act` says what was being done and to what; `columns` are those of a COPY, of which the server names one.
    """
    state = error.sqlstate or ""
    meaning = _TABLE.get(state) or _TABLE.get(state[:2]) if state else None
    if meaning is None:
        meaning = _wordy(error) if connecting else _UNKNOWN if state else _UNREACHABLE
    kind = meaning.error or (SourceUnavailable if side == "source" else SinkUnavailable)
    # A host that stayed silent for the whole connect_timeout is not waited for again and again.
    retryable = meaning.retryable and not isinstance(error, psycopg.errors.ConnectionTimeout)
    said = _said(error, meaning, connecting=connecting)
    message, remedy = f"{act}: {said}", meaning.remedy
    if kind is DataError:
        column = error.diag.column_name or _copy_column(error, columns)
        if column:
            message = f"{act}, column {column}: {said}"
            if state[:2] == "22":
                remedy = f"{meaning.remedy}: {manifest_line(cast={column: 'text'})}"
    return kind(message, remedy=remedy, retryable=retryable)


def _said(error: psycopg.Error, meaning: _Meaning, *, connecting: bool) -> str:
    state = error.sqlstate
    if state is None:
        # libpq's own words hold host, port and user, never the password or a row.
        whole = str(error)
        if meaning is _UNREACHABLE and _CLOSED.search(whole):
            return "the server closed the connection"
        text = [line.strip() for line in whole.splitlines() if line.strip() and "Is the server running" not in line]
        return text[-1 if connecting else 0] if text else "the connection is gone"
    text_of = error.diag.message_primary
    if meaning.quote and text_of:
        return f"{text_of} (SQLSTATE {state})"
    name = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower()
    constraint = f" {error.diag.constraint_name}" if error.diag.constraint_name else ""
    return f"{name}{constraint} (SQLSTATE {state})"


def _wordy(error: psycopg.Error) -> _Meaning:
    return next((meaning for words, meaning in _CONNECTING if re.search(words, str(error))), _UNREACHABLE)


def _copy_column(error: psycopg.Error, columns: Sequence[str]) -> str:
    # `COPY stage, line 3, column price: "..."` (https://www.postgresql.org/docs/current/sql-copy.html); the value
    # behind the name may look like anything, so the longest known name at that place is taken.
    match = re.search(r"^COPY .*?, line \d+, column (.*)", error.diag.context or "", re.DOTALL | re.MULTILINE)
    if not match:
        return ""
    fitting = [name for name in columns if match[1].startswith((f"{name}: ", f"{name}\n")) or match[1] == name]
    return max(fitting, key=len, default="")
