"""The settings of the files connector, and what a file's name says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dpone.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

Format = Literal["csv", "jsonl", "parquet"]
Compression = Literal["none", "gzip", "zstd"]

EXTENSIONS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
STATE = "_dpone"
_CSV_ONLY = ("delimiter", "quote", "header", "null")


class FilesConfig(BaseModel):
    """A file, a folder, or a glob pattern, and how its files are written down."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    path: str = Field(min_length=1, title="Path", description="A file, a folder, or a glob pattern such as data/*.csv.")
    format: Format | None = Field(None, title="Format", description="From the extension when it is not given.")
    compression: Compression | None = Field(
        None, title="Compression", description="From the extension (.gz, .zst) when it is not given."
    )
    delimiter: str | None = Field(None, title="CSV delimiter", description="One character; a comma, for .tsv a tab.")
    quote: str = Field('"', title="CSV quote", description="One character; empty when values are never quoted.")
    header: bool = Field(default=True, title="CSV header", description="Without a header the columns are c1, c2, ...")
    null: tuple[str, ...] = Field(
        ("",), title="CSV NULL", description="Texts that mean NULL when they stand without quotes."
    )
    encoding: Literal["utf-8"] = Field("utf-8", title="Encoding", description="Always UTF-8.")
    types: dict[str, str] = Field(
        default_factory=dict,
        title="Declared types",
        description="Type names by column, for every stream that has the column. columns.cast of a stream wins.",
    )
    sample_rows: int = Field(
        100_000,
        gt=0,
        title="Sample",
        description="Rows that types are inferred from (32 MiB of each file at most).",
    )

    @field_validator("null", mode="before")
    @classmethod
    def _a_list_is_fine(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("delimiter", "quote")
    @classmethod
    def _one_ascii_character(cls, value: str | None) -> str | None:
        if value and (len(value) != 1 or not value.isascii() or value in "\r\n"):
            raise ValueError("must be one ASCII character that is not a line end")
        return value

    @model_validator(mode="after")
    def _fits(self) -> FilesConfig:
        if self.delimiter in ("", self.quote):
            raise ValueError("delimiter must be one character, and another one than quote")
        if self.format in ("jsonl", "parquet"):
            self._refuse_csv_settings(self.format)
        return self

    def _refuse_csv_settings(self, format_: str) -> None:
        given = [name for name in _CSV_ONLY if name in self.model_fields_set]
        if given:
            raise ValueError(f"{', '.join(given)}: only CSV has this, the format is {format_}")

    @classmethod
    def from_url(cls, url: str) -> dict[str, Any]:
        """The settings in a URL: `file:///data/x.csv`, `file://data?format=csv`, `csv://in/*.txt`.

        Raises ConfigError for a query key that is not a setting.
        """
        scheme, _, rest = url.partition("://")
        parts = urlsplit("//" + rest.replace("#", "%23"))
        # A glob may hold "?", which begins the query here; `*` and `[]` are fine, a "?" is written %3F.
        settings: dict[str, Any] = {"path": unquote(parts.netloc + parts.path)}
        if scheme in ("csv", "jsonl", "parquet"):
            settings["format"] = scheme
        known = ("format", "compression", "delimiter", "quote", "header", "null", "sample_rows")
        for key, value in parse_qsl(parts.query, keep_blank_values=True):
            if key not in known or (key == "format" and "format" in settings):
                raise ConfigError(
                    f"{key} cannot be in the query of a {scheme}:// URL", remedy=f"known are {', '.join(known)}"
                )
            if key == "null":
                settings["null"] = (*settings.get("null", ()), value)
            elif key == "header":
                settings["header"] = {"true": True, "false": False}.get(value.lower(), value)
            elif key == "sample_rows":
                settings["sample_rows"] = int(value) if value.isdecimal() else value
            else:
                settings[key] = value
        return settings

    def relative_to(self, folder: Path) -> FilesConfig:
        """The same settings with a relative path taken from a folder (the manifest's), and made absolute."""
        return self.model_copy(update={"path": str(Path.cwd() / folder / self.path)})

    @property
    def identity(self) -> str:
        """The path: what this connection is called in plans and records."""
        return self.path

    @property
    def is_glob(self) -> bool:
        """Whether the path is a pattern."""
        return is_pattern(self.path)

    @property
    def is_one_file(self) -> bool:
        """Whether the path is that of a file and not of a folder."""
        path = Path(self.path)
        return not path.is_dir() and parse_name(path.name)[1] is not None

    def layout(self, name: str) -> Layout:
        """How the file of this name is written. Raises ConfigError when neither name nor settings say so."""
        compression, format_, tabs = parse_name(name)
        format_ = self.format or format_
        if format_ is None:
            raise ConfigError(f"{name}: the extension does not say what it is", remedy="set format: csv|jsonl|parquet")
        if format_ != "csv":
            try:
                self._refuse_csv_settings(format_)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}", remedy="remove the setting") from error
        return Layout(
            format=format_,
            compression=self.compression or ("none" if format_ == "parquet" else compression),
            delimiter=self.delimiter or ("\t" if tabs else ","),
            quote=self.quote,
            header=self.header,
            null=self.null,
        )


class Layout(BaseModel):
    """How one file is written down: the settings with everything decided."""

    model_config = ConfigDict(frozen=True)

    format: Format
    compression: Compression = "none"
    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    null: tuple[str, ...] = ("",)

    @property
    def extension(self) -> str:
        """The extension that says format and compression."""
        packed = "" if self.format == "parquet" else {"none": "", "gzip": ".gz", "zstd": ".zst"}[self.compression]
        return f".{self.format}{packed}"


def is_pattern(text: str) -> bool:
    """Whether a text is a glob pattern."""
    return any(character in text for character in "*?[")


def parse_name(name: str) -> tuple[Compression, Format | None, bool]:
    """Compression, format and whether tabs separate, as far as a file's name says."""
    path = Path(name.lower())
    compression = COMPRESSIONS.get(path.suffix, "none")
    if compression != "none":
        path = path.with_suffix("")
    return compression, EXTENSIONS.get(path.suffix), path.suffix == ".tsv"


def stem(name: str) -> str:
    """A file's name without the extensions that `parse_name` knows."""
    path = Path(name)
    if path.suffix.lower() in COMPRESSIONS:
        path = path.with_suffix("")
    return path.with_suffix("").name if path.suffix.lower() in EXTENSIONS else path.name


def visible(paths: Iterable[Path]) -> list[Path]:
    """Sorted, without hidden entries, markers such as `_SUCCESS`, and dpone's own folder."""
    return sorted(path for path in paths if not path.name.startswith((".", "_")))
