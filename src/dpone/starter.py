"""Drafts of manifests: the runnable example, what a live source holds, and the one stream of a copy.

Nothing here writes over a file, and no password that was given as text is ever written into one.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dpone.errors import ConfigError, DponeError
from dpone.manifest.load import manifest_from_dict
from dpone.manifest.secrets import is_reference
from dpone.manifest.yaml import to_yaml
from dpone.sdk import Capability, Discover, Source, Stream, StreamSchema

if TYPE_CHECKING:
    from dpone.manifest.load import Manifest

Use = Callable[["Manifest"], object]
"""Is told of a manifest before anything is opened with it, so that its secrets are known."""

_FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_PACKED = (".gz", ".zst")
_DATABASES = {".duckdb": "duckdb", ".ddb": "duckdb", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".db": "sqlite"}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SECRETIVE = re.compile(r"(?i)(pass(word|wd)?|pwd|secret|token|api_?key)")
_CHANGED = ("updated_at", "modified_at", "changed_at", "last_modified", "updated", "modified", "last_update")
_CREATED = ("created_at", "inserted_at", "created", "event_time", "occurred_at", "timestamp")


@dataclass(frozen=True)
class Draft:
    """Files to write, by path; what to tell the user; and the command that comes next."""

    files: Mapping[Path, str]
    notes: tuple[str, ...] = ()
    following: str = "dpone check, then dpone run"


@dataclass(frozen=True)
class Copy:
    """The manifest of a copy."""

    manifest: dict[str, Any]
    notes: tuple[str, ...] = field(default=())


def write(contents: Mapping[Path, str], *, overwrite: bool) -> list[Path]:
    """Write the files, or none of them. Raises ConfigError when one exists already and `overwrite` is not set."""
    there = [path for path in contents if path.exists()]
    if there and not overwrite:
        raise ConfigError(
            f"{', '.join(map(str, there))} exists already",
            remedy="pass --yes to overwrite it, or --file to write elsewhere",
        )
    for path, text in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"writing {path}: {error.strerror}", remedy="check the folder and its permissions"
            ) from error
    return list(contents)


def example(file: str) -> Draft:
    """A small pipeline from a CSV file into a DuckDB file; it needs no server."""
    folder, path = files("dpone") / "cli" / "example", Path(file)
    return Draft(
        {
            path: (folder / "dpone.yaml").read_text(encoding="utf-8"),
            path.parent / "data" / "orders.csv": (folder / "orders.csv").read_text(encoding="utf-8"),
        },
        following="dpone run" if file == "dpone.yaml" else f"dpone run -f {file}",
    )


def discovered(source: str, sink: str, *, file: str, pipeline: str, use: Use) -> Draft:
    """A manifest of everything the live source holds: keys, sizes and possible cursors as comments.

    Raises the connection errors of the source, and ConfigError when it cannot list what it holds or holds nothing.
    """
    origin, named = endpoint(source)
    destination, _ = endpoint(sink)
    name = pipeline or _pipeline(origin)
    head = {"version": 1, "pipeline": name, "source": origin, "sink": destination}
    manifest = manifest_from_dict({**head, "streams": {named or "*": None}}, base_dir=Path(file).parent)
    use(manifest)
    live = manifest.source.connector.open_source(manifest.source.config())
    try:
        streams = [named] if named else _listed(live, manifest)
        late = manifest.source.connector.supports(Capability.READ_LATE_COMMITS).level == "full"
        entries = [_entry(live, stream, late=late) for stream in streams]
    finally:
        live.close()
    shown, notes = _without_passwords(head)
    text = (
        "# Drafted by dpone init from what the source holds. A table without a cursor is replaced in every run;\n"
        "# remove the # before a cursor to load only what is new since the last run.\n"
        f"{to_yaml(shown)}\nstreams:\n{''.join(entries)}"
    )
    following = "dpone plan" if file == "dpone.yaml" else f"dpone plan -f {file}"
    return Draft({Path(file): text}, notes, following)


def one_stream(source: str, sink: str, *, table: str, settings: Mapping[str, Any], use: Use) -> Copy:
    """The manifest of one stream. Connects only when the source has to say which table is meant.

    Raises ConfigError when it is not clear what to copy.
    """
    origin, named = endpoint(source)
    destination, target = endpoint(sink)
    stream = table or named or _file_stream(origin)
    chosen = {**({"target": target} if target else {}), **settings}
    head = {"version": 1, "pipeline": "copy", "source": origin, "sink": destination}
    manifest = manifest_from_dict({**head, "streams": {stream or "*": None}})
    use(manifest)
    if not stream:
        live = manifest.source.connector.open_source(manifest.source.config())
        try:
            listed = _listed(live, manifest)
        finally:
            live.close()
        if len(listed) > 1:
            names = textwrap.shorten(", ".join(listed), 300, placeholder=" ...")
            raise ConfigError(
                f"the source holds {len(listed)} streams: {names}",
                remedy="say which with --table NAME, or move all of them: dpone init --source ... --sink ...",
            )
        stream = listed[0]
    # State belongs to pipeline, stream and target: two sources with a table of one name must not share it.
    head["pipeline"] = f"copy-{_fingerprint(manifest.source.config().identity)}"
    return Copy({**head, "streams": {stream: chosen or None}})


def saved(copy: Copy) -> tuple[str, list[str]]:
    """The manifest of a copy as YAML, and what to tell about it."""
    shown, notes = _without_passwords(copy.manifest)
    return to_yaml(shown), list(notes)


def endpoint(text: str) -> tuple[Any, str]:
    """What a manifest says of a source or sink given on the command line, and the table that it names.

    `orders.csv`, `lake.duckdb`, `shop.sqlite` stand for the connector of their extension; a URL may hold `?table=`.
    Anything else is left as it is: the name of a connection, or an error that the manifest explains.
    """
    if _URL.match(text):
        return _split_table(text)
    path, mark, _query = text.partition("?")
    path, table = _split_table(text) if mark else (text, "")
    suffix = PurePosixPath(_unpacked(path)).suffix.lower()
    if suffix in _FILES:
        return {"connector": "files", "path": path}, table
    if suffix in _DATABASES:
        return {"connector": _DATABASES[suffix], "path": path}, table
    if Path(path).is_dir():
        return {"connector": "files", "path": path}, table
    return path, table


def hide_password(url: str, role: str) -> tuple[str, list[str]]:
    """The URL with a reference in place of each secret written into it, and the names of the variables.

    What stands before the last `@` counts as user and password even where the password should have been encoded.
    """
    match = _URL.match(url)
    if match is None:
        return url, []
    rest, variables = url[match.end() :], []
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    userinfo, at, after = (authority if "@" in authority else rest).rpartition("@")
    if at and not rest.startswith("/") and ":" in userinfo:
        tail = after + (rest[len(authority) :] if "@" in authority else "")
        user, _, password = userinfo.partition(":")
        if not is_reference(password):
            variables.append(f"DPONE_{role}_PASSWORD")
            rest = f"{user}:${{env:{variables[0]}}}@{tail}"
    base, mark, query = rest.partition("?")
    parts = []
    for part in query.split("&") if mark else ():
        key, _, value = part.partition("=")
        if _SECRETIVE.fullmatch(key) and not is_reference(value):
            variables.append(f"DPONE_{role}_{key.upper()}")
            part = f"{key}=${{env:{variables[-1]}}}"  # noqa: PLW2901 - the part as it is written
        parts.append(part)
    return match[0] + base + mark + "&".join(parts), variables


def cursor_candidates(schema: StreamSchema) -> list[str]:
    """Columns that look like a cursor: a time of change first, then a time of creation, then a numeric key."""
    import pyarrow as pa

    moments = [c.name for c in schema.columns if pa.types.is_timestamp(c.type) or pa.types.is_date(c.type)]
    by_name = {name.lower(): name for name in moments}
    found = [by_name[name] for name in (*_CHANGED, *_CREATED) if name in by_name]
    key = schema.column(schema.primary_key[0]) if len(schema.primary_key) == 1 else None
    return found + ([key.name] if key is not None and pa.types.is_integer(key.type) else [])


def _without_passwords(manifest: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    shown, notes = dict(manifest), []
    for role in ("source", "sink"):
        if isinstance(shown[role], str):
            shown[role], variables = hide_password(shown[role], role.upper())
            notes += [
                f"the {role}'s secret is not written: set {name} in the environment or .env" for name in variables
            ]
    return shown, tuple(notes)


def _listed(source: Source, manifest: Manifest) -> Sequence[str]:
    found = source.discover() if isinstance(source, Discover) else ()
    if not found:
        raise ConfigError(
            f"{manifest.source.display} lists no streams", remedy="check the connection, or name one with --table"
        )
    return found


def _entry(source: Source, name: str, *, late: bool) -> str:
    """One stream of a drafted manifest. `late` says that the source itself finds rows that are committed late."""
    key = to_yaml({name: None}).strip().removesuffix(" null")
    try:
        schema = source.describe(Stream(name))
    except DponeError as error:
        return f"  # {key}  # left out: {error.category} [{error.code}]\n"
    facts = [f"about {schema.estimated_rows:,} rows"] if schema.estimated_rows is not None else []
    facts.append(f"primary key {', '.join(schema.primary_key)}" if schema.primary_key else "no primary key")
    text = f"  {key}  # {_comment(', '.join(facts))}\n"
    refused = [column.name for column in schema.columns if column.fidelity == "refused"]
    if refused:
        text += textwrap.indent(to_yaml({"columns": {"exclude": refused}}).rstrip(), "    ") + "  # no safe type\n"
    if not schema.primary_key:
        text += "    # primary_key: [...]\n"
    candidates = cursor_candidates(schema)
    if candidates:
        # A time of change comes first; anything else misses the rows that change.
        warning = "" if candidates[0].lower() in _CHANGED else "  # sees new rows only, not changed ones"
        cursor = _comment(to_yaml({"cursor": candidates[0]}).strip().removeprefix("cursor: "))
        lookback = 0 if candidates[0] in schema.primary_key else "1d"  # a key that is a candidate is a number
        written = cursor if late else f"{{column: {cursor}, lookback: {lookback}}}"
        text += f"    # cursor: {written}{warning}\n"
    return text


def _comment(text: str) -> str:
    """Text for a comment: a name from a source must not end the comment and begin a setting."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _pipeline(origin: Any) -> str:
    text = origin["path"] if isinstance(origin, dict) else origin.partition("?")[0].rstrip("/")
    stem = PurePosixPath(text.rpartition("/")[2] or "pipeline").name.split(".")[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")
    return name or "pipeline"


def _file_stream(origin: Any) -> str:
    """The stream name of a source that is one file: its name without extensions."""
    url = re.match(r"(?:file|csv|jsonl|parquet)://([^?]*)", origin) if isinstance(origin, str) else None
    path = url[1] if url else origin["path"] if isinstance(origin, dict) and origin["connector"] == "files" else ""
    if not path or Path(path).is_dir():
        return ""
    stem = PurePosixPath(_unpacked(path)).stem
    folder = PurePosixPath(path).parent.name
    name = re.sub(r"[^\w-]+", "_", folder if any(sign in stem for sign in "*?[") else stem).strip("_")
    return name or "data"


def _unpacked(path: str) -> str:
    return path.rpartition(".")[0] if path.lower().endswith(_PACKED) else path


def _split_table(url: str) -> tuple[str, str]:
    """A URL without its `table=` parameter, and the table."""
    from urllib.parse import unquote_plus

    base, _, query = url.partition("?")
    parts = query.split("&") if query else []
    tables = [unquote_plus(part.removeprefix("table=")) for part in parts if part.startswith("table=")]
    rest = [part for part in parts if not part.startswith("table=")]
    return base + (f"?{'&'.join(rest)}" if rest else ""), tables[-1] if tables else ""


def _fingerprint(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:8]


__all__ = [
    "Copy",
    "Draft",
    "cursor_candidates",
    "discovered",
    "endpoint",
    "example",
    "hide_password",
    "one_stream",
    "saved",
    "write",
]
