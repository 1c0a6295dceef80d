"""The settings of a PostgreSQL connection."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from dpone.errors import ConfigError

_QUERY = ("sslmode", "sslrootcert", "connect_timeout", "read_timeout", "create_schema")


class PostgresConfig(BaseModel):
    """How to reach one PostgreSQL database, as source or sink.

    `connect_timeout` is in seconds and holds for each address the host name resolves to. `read_timeout` is how many
    seconds the link may stand still while rows are on their way; a server that is busy has all the time.
    `create_schema` lets a sink create the target's schema. The environment variables of libpq (PGHOST, PGPASSWORD, ...)
    fill no setting of this model; `sslmode` and `sslrootcert` are those of
    https://www.postgresql.org/docs/current/libpq-ssl.html
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(min_length=1, description="host name, address, or the folder of a Unix socket")
    port: int = Field(default=5432, ge=1, le=65535)
    database: str = Field(min_length=1)
    user: str = Field(min_length=1)
    password: SecretStr | None = None
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    sslrootcert: str | None = None
    connect_timeout: int = Field(default=8, ge=1, description="seconds")
    read_timeout: int = Field(default=300, ge=1, description="seconds in which no row moves, and the server waits too")
    create_schema: bool = Field(default=False, description="a sink creates the target's schema when it is missing")

    @property
    def identity(self) -> str:
        """Which database this is, without a secret: `host:port/database`."""
        return f"{self.host}:{self.port}/{self.database}"

    @classmethod
    def from_url(cls, url: str) -> dict[str, Any]:
        """The settings in `postgres://user:password@host:port/database?sslmode=require`, parts percent-decoded.

        Raises ConfigError, without the URL or any part that may be a secret, for a port that is no number, a
        missing part, or an unknown key after the question mark.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            # Not chained: the text of the cause holds pieces of the URL.
            raise ConfigError(
                "a postgres URL has a host or a port that cannot be read",
                remedy="write postgres://user:password@host:port/database, percent-encoding / : @ # ? in the password",
                code="DP106",
            ) from None
        if parts.fragment:
            raise ConfigError(
                "a postgres URL holds an unencoded #", remedy="write %23 for # in the password", code="DP106"
            )
        settings = {name: unquote(value) for name, value in _parts(parts).items() if value}
        missing = [name for name in ("host", "database", "user") if name not in settings]
        if missing:
            raise ConfigError(
                f"a postgres URL has no {' and no '.join(missing)}",
                remedy="write postgres://user:password@host:port/database; the environment (PGUSER, ...) is not read",
                code="DP106",
            )
        return {**settings, **({"port": port} if port is not None else {}), **_query(parts.query)}


def _parts(parts: SplitResult) -> dict[str, str]:
    # `hostname` folds the case, which is right for a host and wrong for the folder of a socket.
    host = parts.netloc.rpartition("@")[2]
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return {
        "host": host,
        "database": parts.path.removeprefix("/"),
        "user": parts.username or "",
        "password": parts.password or "",
    }


def _query(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _QUERY:
            raise ConfigError(
                "a postgres URL has an unknown key after the question mark",
                remedy=f"known are {', '.join(_QUERY)}; write & # ? of a password as %26 %23 %3F",
                code="DP106",
            )
        if name in found:
            raise ConfigError(f"a postgres URL gives {name} twice", remedy="give it once", code="DP106")
        found[name] = value
    return found
