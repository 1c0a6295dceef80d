"""Every error dpone raises on purpose, and the closed set of categories.

    DponeError
    |-- ConfigError             config               the manifest, a flag or a reference is wrong
    |-- AuthError               auth                 the system does not accept the credentials
    |-- PermissionDenied        permission           the role may not do what the plan needs
    |-- SourceUnavailable       source_unavailable   the source cannot be reached, or hung up
    |-- SinkUnavailable         sink_unavailable     the sink cannot be reached, or hung up
    |-- RateLimited             rate_limited         the system asks to come back later
    |-- TimedOut                timeout              no answer in time
    |-- SchemaError             schema               a table or column is missing, or has another type
    |-- DataError               data                 a value cannot be moved exactly
    |-- StateError              state                dpone's own tables are missing, damaged or newer
    |-- ResourceError           resource             disk, memory, connections ran out
    |-- ConflictError           conflict             another run holds the stream, or reality moved
    |-- Cancelled               cancelled            Ctrl-C or SIGTERM
    `-- InternalError           internal             a bug in dpone

A message says the act and the thing ("opening staging table orders: ..."), `remedy` says what to do,
`where` names the place: a manifest position, a connection, a column. None of them may hold a row value or a secret.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

Category = Literal[
    "config",
    "auth",
    "permission",
    "source_unavailable",
    "sink_unavailable",
    "rate_limited",
    "timeout",
    "schema",
    "data",
    "state",
    "resource",
    "conflict",
    "cancelled",
    "internal",
]


class DponeError(Exception):
    """Base of all errors dpone raises on purpose.

    `code` is stable (`DP` and three digits) and has a page in the docs; a subclass has a default code and a
    more precise one may be given. `retryable` says whether trying again can help without any change, `wait`
    how many seconds the system asked to wait, if it did.
    """

    category: ClassVar[Category] = "internal"
    default_code: ClassVar[str] = "DP900"

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        where: str = "",
        code: str | None = None,
        retryable: bool = False,
        wait: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.where = where
        self.code = code or self.default_code
        self.retryable = retryable
        self.wait = wait
        self.side: Literal["", "source", "sink"] = ""  # which end's connection it is about, if it is
        self.stream = ""  # which stream it is about, where several were looked at

    def as_dict(self) -> dict[str, Any]:
        """The failure as the run record and `--json` hold it."""
        return {
            "category": self.category,
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "remedy": self.remedy,
            "retryable": self.retryable,
        }


class ConfigError(DponeError):
    """The manifest, a flag, a connection or a reference is wrong; nothing was touched."""

    category = "config"
    default_code = "DP100"


class AuthError(DponeError):
    """The system does not accept the credentials."""

    category = "auth"
    default_code = "DP200"


class PermissionDenied(DponeError):
    """The role may not do what the plan needs."""

    category = "permission"
    default_code = "DP210"


class SourceUnavailable(DponeError):
    """The source cannot be reached, or closed the connection."""

    category = "source_unavailable"
    default_code = "DP300"


class SinkUnavailable(DponeError):
    """The sink cannot be reached, or closed the connection."""

    category = "sink_unavailable"
    default_code = "DP310"


class RateLimited(DponeError):
    """The system asks to come back later."""

    category = "rate_limited"
    default_code = "DP320"


class TimedOut(DponeError):
    """No answer in time."""

    category = "timeout"
    default_code = "DP330"


class SchemaError(DponeError):
    """A table or column is missing, or has a type that cannot be moved as asked."""

    category = "schema"
    default_code = "DP400"


class DataError(DponeError):
    """A value cannot be moved exactly. Names the column, never the value."""

    category = "data"
    default_code = "DP410"


class StateError(DponeError):
    """dpone's own tables or files are missing, damaged, or written by a newer version."""

    category = "state"
    default_code = "DP500"


class ResourceError(DponeError):
    """Disk, memory or connections ran out."""

    category = "resource"
    default_code = "DP600"


class ConflictError(DponeError):
    """Another run holds the stream, or reality moved since the plan."""

    category = "conflict"
    default_code = "DP700"


class Cancelled(DponeError):
    """The run was interrupted; what is durable stays, the rerun continues."""

    category = "cancelled"
    default_code = "DP800"


class InternalError(DponeError):
    """A bug in dpone: an invariant did not hold. Nothing was committed."""

    category = "internal"
    default_code = "DP900"
