"""Reads a manifest, checks all of it at once, and gives it as frozen values.

    load_manifest(path)       -> Manifest      or ManifestError with every problem of the file
    manifest_from_dict(data)  -> Manifest      the same checks for a manifest that is not in a file

What identifies things (names, schemas, tables, settings of streams) is resolved here. The settings of a connector
stay references until `Endpoint.config()`, when a connection is made. Nothing here connects to anything.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dpone.manifest import models
from dpone.manifest.check import Checker, kind_of
from dpone.manifest.document import Document, KeyPath, scalars
from dpone.manifest.endpoints import Endpoint, Endpoints
from dpone.manifest.problems import ManifestError, Problem, render_problems, shown
from dpone.manifest.secrets import Secrets, is_reference
from dpone.manifest.yaml import from_data, open_document
from dpone.transform.rules import Rules

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

__all__ = [
    "Endpoint",
    "Manifest",
    "ManifestError",
    "Problem",
    "StreamConfig",
    "load_manifest",
    "manifest_from_dict",
    "render_problems",
]

_SLICE_ROWS = 1_000_000
_ENDPOINTS = ("source", "sink")


def _nowhere(_keys: KeyPath) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class DeletePolicy:
    """What happens to rows that are gone at the source. `most` is a share of the target's rows, or a number of rows."""

    mode: Literal["ignore", "soft", "hard"] = "ignore"
    most: float | int = 0.5
    every: timedelta | None = None


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What the manifest says of one stream, defaults applied. `write` is empty when it does not say."""

    name: str
    primary_key: tuple[str, ...] = ()
    cursor: str = ""
    null_cursor: Literal["refuse", "load"] = "refuse"
    clock: Literal["", "transaction"] = ""
    lookback: timedelta | int | None = None
    write: Literal["", "replace", "append", "merge", "delete_insert", "scd2", "append_snapshot"] = ""
    partition_by: tuple[str, ...] = ()
    deduplicate: bool = False
    deletes: DeletePolicy = DeletePolicy()
    target: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    casts: Mapping[str, str] = field(default_factory=dict)
    allow_lossy: tuple[str, ...] = ()
    filter: str = field(default="", repr=False)  # may hold what a reference stood for
    transform: Rules = field(default_factory=Rules)
    hooks: Mapping[Literal["before", "after"], tuple[str, ...]] = field(default_factory=dict, repr=False)
    proof: Literal["none", "counts", "digest"] = "counts"
    slice_rows: int = _SLICE_ROWS
    tags: tuple[str, ...] = ()
    allow_empty: bool = False
    is_glob: bool = False
    _at: Callable[[KeyPath], str] = field(default=_nowhere, repr=False, compare=False)

    def at(self, *keys: str | int) -> str:
        """The position of a setting (`at("cursor")`, `at("columns", "cast", "total")`), as `dpone.yaml:12:5`.

        A setting that comes from `defaults` has its position there. Without keys, or when the manifest does not say
        it, the position of the stream.
        """
        return self._at(keys)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole, checked manifest. `sha256` is of the file's bytes; of the data as JSON when there is no file."""

    path: str
    sha256: str
    pipeline: str
    source: Endpoint
    sink: Endpoint
    streams: tuple[StreamConfig, ...]
    retries: models.Retries
    _secrets: Secrets = field(repr=False, compare=False)

    def redact(self, text: str) -> str:
        """The text without any secret resolved so far: references in their place, `***` for literal passwords."""
        return self._secrets.redactor.redact(text)


def load_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read and check a manifest. Raises ManifestError with all of its problems."""
    file = Path(path)
    document = open_document(file)
    if () not in document.values:
        name, help_ = document.name, "write a manifest, or let 'dpone init' write one"
        raise ManifestError([Problem("DP100", f"{name} is empty", name, 1, 1, found="nothing", help=help_)])
    return _manifest(document, file.parent, str(path), document.sha256)


def manifest_from_dict(data: Mapping[str, Any], *, base_dir: str | os.PathLike[str] = ".") -> Manifest:
    """Check a manifest given as plain values. Raises ManifestError; its problems have key paths for positions.

    `base_dir` is where `connections.yaml`, `.env` and relative `${file:...}` references are looked for.
    """
    document = from_data(data)
    sha256 = hashlib.sha256(json.dumps(document.data, sort_keys=True).encode()).hexdigest()
    return _manifest(document, Path(base_dir), "", sha256)


def _manifest(document: Document, folder: Path, path: str, sha256: str) -> Manifest:
    data = document.data
    if not isinstance(data, dict):
        found = kind_of(data)
        help_ = "begin with 'version: 1' and 'pipeline: NAME', or let 'dpone init' write a manifest"
        message = f"a manifest is a mapping, found {found}"
        raise ManifestError([document.problem("DP102", message, (), found=found, help=help_, width=1)])
    checker = Checker(Secrets(folder))
    endpoints = Endpoints(document, folder, checker)
    checker.check_references(document)
    _check_masks(checker, document)
    model = _validated(checker, document)
    found_endpoints = {role: endpoints.find(role) for role in _ENDPOINTS if role in data}
    endpoints.check_unused()
    _check_contradictions(checker, document)
    checker.raise_found()
    source, sink = found_endpoints.get("source"), found_endpoints.get("sink")
    assert model is not None  # noqa: S101 - whatever is missing was reported as a problem
    assert source is not None  # noqa: S101
    assert sink is not None  # noqa: S101
    streams = tuple(_stream(model, name, document) for name in model.streams)
    return Manifest(path, sha256, model.pipeline, source, sink, streams, model.retries, checker.secrets)


def _validated(checker: Checker, document: Document) -> models.Manifest | None:
    """All but the endpoints, which only their connectors can judge: they are stood in for by `true`."""
    written: dict[str, Any] = document.data | {key: True for key in _ENDPOINTS if key in document.data}
    if isinstance(written.get("connections"), dict):
        written["connections"] = {name: True for name in written["connections"]}  # noqa: C420 - mypy agrees with this
    return checker.validate(models.Manifest, checker.resolved(document, written, ()), document, (), written=written)


def _stream(model: models.Manifest, name: str, document: Document) -> StreamConfig:
    said: dict[str, Any] = {}
    for settings in (model.defaults, model.streams[name]):
        said |= settings.model_dump(exclude_unset=True) if settings is not None else {}
    key, cursor, columns = said.get("primary_key", ()), said.get("cursor", ""), said.get("columns", {})
    parts = said.get("partition_by", ())
    rule: dict[str, Any] = {"column": cursor} if isinstance(cursor, str) else cursor
    return StreamConfig(
        name=name,
        primary_key=(key,) if isinstance(key, str) else tuple(key),
        cursor=rule["column"],
        null_cursor=rule.get("nulls", "refuse"),
        clock=rule.get("clock", ""),
        lookback=rule.get("lookback"),
        write=said.get("write", ""),
        partition_by=(parts,) if isinstance(parts, str) else tuple(parts),
        deduplicate=said.get("deduplicate", False),
        deletes=_deletes(said.get("deletes", "ignore")),
        target=said.get("target", ""),
        include=tuple(columns.get("include", ())),
        exclude=tuple(columns.get("exclude", ())),
        casts=columns.get("cast", {}),
        allow_lossy=tuple(columns.get("allow_lossy", ())),
        filter=said.get("filter", ""),
        transform=Rules.of(said.get("transform", {})),
        hooks={when: tuple(statements) for when, statements in said.get("hooks", {}).items()},
        proof=said.get("proof", "counts"),
        slice_rows=said.get("slices", {}).get("rows", _SLICE_ROWS),
        tags=tuple(said.get("tags", ())),
        allow_empty=said.get("allow_empty", False),
        is_glob=_is_glob(name),
        _at=partial(_position, document, name),
    )


def _deletes(said: str | dict[str, Any]) -> DeletePolicy:
    policy: dict[str, Any] = {"mode": said} if isinstance(said, str) else said
    most = policy.get("max", "50%")
    return DeletePolicy(
        mode=policy["mode"],
        most=int(most.removesuffix("%")) / 100 if isinstance(most, str) else most,
        every=policy.get("every"),
    )


def _is_glob(name: str) -> bool:
    return re.search(r"[*?\[]", name) is not None


def _position(document: Document, name: str, keys: KeyPath) -> str:
    if keys:
        for start in (("streams", name), ("defaults",)):
            if document.has((*start, *keys)):
                return document.where((*start, *keys), key=True)
        return _position(document, name, keys[:-1])
    return document.where(("streams", name), key=True)


def _check_contradictions(checker: Checker, document: Document) -> None:
    """What the models cannot say: keys of a stream that contradict each other."""
    streams = document.data.get("streams")
    for name, settings in streams.items() if isinstance(streams, dict) else ():
        if not isinstance(settings, dict):
            continue
        path: KeyPath = ("streams", name)
        if "target" in settings and _is_glob(name):
            message = f"several streams may match {shown(name)}, and all of them would have one target"
            help_ = "name the streams one by one, or leave the target out"
            checker.add(document, "DP108", message, (*path, "target"), found="target", help=help_, key=True)
        if isinstance(settings.get("columns"), dict):
            _check_columns(checker, document, (*path, "columns"), settings["columns"])


def _check_masks(checker: Checker, document: Document) -> None:
    """A secret that is written into the manifest is none, and must not be shown again either."""
    for path, value in list(scalars(document.data)):
        if path[:1] + path[2:4] + path[5:] != ("streams", "transform", "mask", "hmac"):
            continue
        if not (isinstance(value, str) and is_reference(value)):
            document.hide(path)
            help_ = "write hmac: ${env:NAME} or ${file:/path}, and keep the secret there"
            checker.add(document, "DP108", f"the secret of {shown(str(path[4]))} is not a reference", path, help=help_)


def _check_columns(checker: Checker, document: Document, path: KeyPath, columns: dict[str, Any]) -> None:
    include, exclude, cast = (columns.get(key) for key in ("include", "exclude", "cast"))
    if include is not None and exclude is not None:
        message = "include and exclude contradict each other"
        checker.add(document, "DP108", message, (*path, "exclude"), found="both", help="give one of them", key=True)
    allowed = columns.get("allow_lossy")
    named: list[tuple[KeyPath, Any, str, str]] = [
        (("cast", column), column, "is cast", "the cast") for column in (cast if isinstance(cast, dict) else ())
    ]
    for index, column in enumerate(allowed if isinstance(allowed, list) else ()):
        named.append((("allow_lossy", index), column, "may be altered", "the permission"))
    for keys, column, said, what in named:
        not_included = isinstance(include, list) and column not in include
        if not_included or (isinstance(exclude, list) and column in exclude):
            message = f"the column {shown(column)} {said}, but not moved"
            help_ = f"remove {what}, or move the column"
            checker.add(document, "DP108", message, (*path, *keys), found=column, help=help_, key=keys[0] == "cast")
