"""The settings of an SQLite connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dpone.errors import ConfigError


class SqliteConfig(BaseModel):
    """An SQLite database file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="The database file. A sink creates it, a source does not.", min_length=1)

    @field_validator("path")
    @classmethod
    def _a_file(cls, path: str) -> str:
        """Refuse what SQLite takes as something else than a file (https://www.sqlite.org/inmemorydb.html)."""
        if path == ":memory:" or path.startswith("file:"):
            message = "must be the path of a file: what only lives in memory is gone when the run ends"
            raise ValueError(message)
        return path

    @classmethod
    def from_url(cls, url: str) -> dict[str, Any]:
        """`sqlite:///relative.db` and `sqlite:////absolute.db`.

        Raises ConfigError for a URL with a host or with settings: there are none.
        """
        parts = urlsplit(url)
        path = unquote(parts.path[1:])
        if parts.netloc or not path:
            raise ConfigError(
                "a sqlite URL has three slashes before the path of the file",
                remedy="write sqlite:///orders.db (relative) or sqlite:////data/orders.db (absolute)",
            )
        if parts.query or parts.fragment:
            raise ConfigError(
                "a sqlite URL has no settings after the path", remedy="write a ? or # in a file name as %3F or %23"
            )
        return {"path": path}

    def relative_to(self, folder: Path) -> SqliteConfig:
        """The same settings with a relative path taken from a folder (the manifest's), and made absolute."""
        return self.model_copy(update={"path": str(Path.cwd() / folder / self.path)})

    @property
    def identity(self) -> str:
        """What the record calls this database."""
        return self.path
