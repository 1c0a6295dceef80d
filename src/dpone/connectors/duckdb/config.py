"""The settings of a DuckDB connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from dpone.errors import ConfigError


class DuckDBConfig(BaseModel):
    """A DuckDB database file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="The database file. A sink creates it, a source does not.", min_length=1)
    memory_limit: str = Field(
        default="256MB",
        pattern=r"^\d+(\.\d+)?\s*(KB|MB|GB|TB|KiB|MiB|GiB|TiB)$",
        description="Memory DuckDB may use; beyond it, it spills to disk beside the database.",
    )
    create_schema: bool = Field(default=False, description="Create the target's schema when it is missing.")

    @classmethod
    def from_url(cls, url: str) -> dict[str, Any]:
        """`duckdb:///relative.duckdb` and `duckdb:////absolute.duckdb`, with settings as the query."""
        parts = urlsplit(url)
        path = unquote(parts.netloc + parts.path)
        path = path[1:] if not parts.netloc and path.startswith("/") else path
        if not path:
            raise ConfigError(
                "a duckdb URL needs a file", remedy="write duckdb:///warehouse.duckdb (three slashes, relative)"
            )
        return {"path": path, **dict(parse_qsl(parts.query))}

    def relative_to(self, folder: Path) -> DuckDBConfig:
        """The same settings with a relative path taken from a folder (the manifest's), and made absolute."""
        return self.model_copy(update={"path": str(Path.cwd() / folder / self.path)})

    @property
    def identity(self) -> str:
        """What the record calls this database."""
        return self.path
