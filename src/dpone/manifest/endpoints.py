"""Sources, sinks and connections: which connector answers, and its settings.

Settings are checked at once as far as they can be with their references unresolved; `Endpoint.config()` resolves
them when a connection is made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError

from dpone.errors import ConfigError
from dpone.manifest import models
from dpone.manifest.check import MAX_PROBLEMS, PLAIN_KEYS, Checker, kind_of
from dpone.manifest.document import Document, KeyPath, display_path, scalars
from dpone.manifest.problems import ManifestError, shown, suggest
from dpone.manifest.secrets import ReferenceProblem, has_reference, is_reference, mask, scheme_of
from dpone.manifest.yaml import open_document
from dpone.sdk.registry import connector_for, connectors

if TYPE_CHECKING:
    from collections.abc import Callable

    from dpone.sdk import Connector

# A name, or a URL without a literal password or any doubt about where one would be.
_HARMLESS = re.compile(
    r"[\w.-]+|[\w+.-]+://(?:(?:[\w.-]|\$\{[^{}]*\})*(?::\$\{[^{}]*\})?@)?(?:[\w.-]|\$\{[^{}]*\})*"
    r"(?::(?:\d{1,5}|\$\{[^{}]*\}))?(?:/[^@:#]*)?"
)
_A_URL = "write a URL (scheme://...), or a mapping with 'connector'"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A source or a sink.

    `name` is the connection's, or the connector's when it is written in place. `schema` is the one given, or the
    connector's default. `display` is the URL or the settings with references unresolved and passwords masked.
    `where` is the position of the settings.
    """

    name: str
    connector: Connector = field(repr=False)
    schema: str
    display: str
    where: str
    _config: Callable[[], Any] = field(repr=False, compare=False)

    def config(self) -> Any:
        """The connector's settings with every reference resolved: an instance of `connector.config_model()`.

        Raises ManifestError, a ConfigError with positions, for an undefined reference or a wrong value behind one.
        """
        return self._config()

    def with_schema(self, schema: str) -> Endpoint:
        """The same endpoint with another schema."""
        return replace(self, schema=schema)


@dataclass(frozen=True, slots=True)
class _Place:
    """A URL or the settings of a connector, where they stand, and the connection's name if it has one."""

    document: Document
    path: KeyPath
    name: str
    data: Any


class Endpoints:
    """Finds the endpoints of one manifest. `document.data` must be a mapping."""

    def __init__(self, document: Document, folder: Path, checker: Checker) -> None:
        self._document = document
        self._folder = folder
        self._checker = checker
        self._used: set[str] = set()
        self._shared: Document | None = None
        own = document.data.get("connections")
        self._own: dict[str, Any] = own if isinstance(own, dict) else {}
        for root in (("source",), ("sink",), *(("connections", name) for name in self._own)):
            _hide(document, root)

    def find(self, role: str) -> Endpoint | None:
        """The `source` or the `sink`, or None with a problem reported."""
        data, path = self._document.data[role], (role,)
        if isinstance(data, dict) and ("connection" in data or "connector" not in data):
            return self._reference(data, path)
        if isinstance(data, str) and not scheme_of(data):
            text = self._checker.resolve(self._document, data, path)
            if self._checker.is_unresolved(self._document, path):
                return None
            if not scheme_of(text):
                return self._connection(text, path, data)
        return self._endpoint(_Place(self._document, path, "", data))

    def check_unused(self) -> None:
        """Check the manifest's connections that nothing uses. Those of connections.yaml are others' business."""
        for name, data in self._own.items():
            if name not in self._used:
                self._endpoint(_Place(self._document, ("connections", name), name, data))

    def _reference(self, data: dict[str, Any], path: KeyPath) -> Endpoint | None:
        """A mapping with `connection`, or one that ought to have it."""
        document, checker = self._document, self._checker
        if "connection" not in data:
            self._nameless(document, path, data, ["connector", "connection"])
            return None
        for key in PLAIN_KEYS & data.keys():
            document.reveal((*path, key))
        resolved = checker.resolved(document, data, path)
        reference = checker.validate(models.ConnectionRef, resolved, document, path, written=data)
        if reference is None or checker.is_unresolved(document, (*path, "connection")):
            return None
        endpoint = self._connection(reference.connection, (*path, "connection"), data["connection"])
        return endpoint.with_schema(reference.schema_) if endpoint and reference.schema_ else endpoint

    def _nameless(self, document: Document, path: KeyPath, data: dict[str, Any], words: list[str]) -> None:
        """Settings without the key that says whose they are: misspelt, or not there."""
        for key in data:
            if close := suggest(key, words):
                document.reveal((*path, key))
                message, help_ = f"unknown key {shown(key)}", f"did you mean '{close}'?"
                self._checker.add(document, "DP101", message, (*path, key), found=key, help=help_, key=True)
                return
        example = f"connector: {next(iter(connectors()), 'NAME')}"
        help_ = " or ".join(f"'{example if word == 'connector' else 'connection: NAME'}'" for word in words)
        message = f"{shown(str(path[-1]))} names no {' and no '.join(words)}"
        self._checker.add(document, "DP106", message, path, found="nothing", help=f"add {help_}", key=True)

    def _connection(self, name: str, path: KeyPath, written: str) -> Endpoint | None:
        """A connection by name: from the environment, the manifest, or connections.yaml, in this order.

        `written` is the name before references were resolved, which is what messages show.
        """
        variable = "DPONE_CONNECTION_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
        try:
            from_environment = self._checker.secrets.variable(variable) is not None
        except ReferenceProblem as problem:
            self._checker.add(self._document, "DP107", problem.message, path, help=problem.help)
            return None
        if from_environment:
            return self._endpoint(_Place(Document(variable), (), name, f"${{env:{variable}}}"))
        if name in self._own:
            self._used.add(name)
            return self._endpoint(_Place(self._document, ("connections", name), name, self._own[name]))
        shared = self._shared_connections()
        if name in shared.data:
            return self._endpoint(_Place(shared, (name,), name, shared.data[name]))
        close = suggest(name, [*self._own, *shared.data])
        if close:
            help_ = f"did you mean '{close}'?"
        elif name.lower() in connectors():
            scheme = next(iter(connectors()[name.lower()].schemes), name)
            help_ = f"write a URL ({scheme}://...), or a mapping with 'connector: {name.lower()}'"
        else:
            variable = "DPONE_CONNECTION_NAME" if has_reference(written) else variable
            help_ = f"define it under 'connections', set {variable}, or write a URL (scheme://...)"
        masked = mask(written)
        message = f"there is no connection {shown(masked)}"
        self._checker.add(self._document, "DP104", message, path, found=masked, help=help_)
        return None

    def _shared_connections(self) -> Document:
        """connections.yaml beside the manifest; empty when there is none."""
        if self._shared is not None:
            return self._shared
        file = self._folder / "connections.yaml"
        document = self._shared = Document(display_path(file), {})
        if not file.exists():
            return document
        try:
            document = open_document(file)
        except ManifestError as error:
            self._checker.problems += error.problems
            return self._shared
        if isinstance(document.data, dict):
            self._shared = document
            for name in document.data:
                _hide(document, (name,))
            self._checker.check_references(document)
        elif document.data is not None:
            found = kind_of(document.data)
            message = f"{document.name} must be a mapping, found {found}"
            self._checker.add(document, "DP102", message, (), found=found, help="write 'NAME: URL'")
        return self._shared

    def _endpoint(self, place: _Place) -> Endpoint | None:
        """The endpoint of a URL, or of a mapping with `connector`."""
        data, document, path = place.data, place.document, place.path
        if isinstance(data, str):
            return self._of_url(place)
        if isinstance(data, dict) and isinstance(data.get("connector"), str):
            return self._of_mapping(place)
        if isinstance(data, dict) and "connector" not in data:
            self._nameless(document, path, data, ["connector"])
            return None
        if isinstance(data, dict):
            found, path = kind_of(data["connector"]), (*path, "connector")
            message = f"connector must be text, found {found}"
            help_ = f"installed connectors: {', '.join(connectors())}"
        else:
            found = kind_of(data)
            message, help_ = f"{shown(str(path[-1]))} must be a URL or a mapping, found {found}", _A_URL
        self._checker.add(document, "DP102", message, path, found=found, help=help_)
        return None

    def _of_url(self, place: _Place) -> Endpoint | None:
        document, path, text, checker = place.document, place.path, place.data, self._checker
        checker.secrets.remember_url(text)
        resolved = text if scheme_of(text) else checker.resolve(document, text, path)
        scheme = scheme_of(resolved)
        if not scheme:
            if not checker.is_unresolved(document, path):
                checker.add(document, "DP103", f"{shown(place.name)} is not a URL", path, help=_A_URL)
            return None
        connector = self._connector(document, path, scheme, url=True)
        if connector is None:
            return None
        settings = partial(_url_settings, connector, document, path, text)
        if not has_reference(text):  # else only a connection can tell
            settings(checker)
        return Endpoint(
            name=place.name or connector.name,
            connector=connector,
            schema=connector.default_schema,
            display=mask(text),
            where=document.where(path),
            _config=partial(_deferred, checker, self._folder, settings),
        )

    def _of_mapping(self, place: _Place) -> Endpoint | None:
        document, path, data, checker = place.document, place.path, place.data, self._checker
        for key in PLAIN_KEYS & data.keys():
            document.reveal((*path, key))
        connector = self._connector(document, (*path, "connector"), data["connector"], url=False)
        if connector is None:
            return None
        model = connector.config_model()
        fields = models.fields_of(model)
        settings = {key: value for key, value in data.items() if key not in ("connector", "schema")}
        secret = {key for key in settings if key not in fields or is_secret(fields[key].annotation)}
        for key in settings.keys() - secret:
            for inner, _ in scalars(settings[key], (*path, key)):
                document.reveal(inner)
        for key in secret:
            for _, value in scalars(settings[key]):
                if isinstance(value, str) and not has_reference(value):
                    checker.secrets.redactor.add(value)
        schema = checker.resolved(document, data.get("schema", connector.default_schema), (*path, "schema"))
        if "schema" in data and (not isinstance(schema, str) or not schema):
            found = kind_of(schema) if schema != "" else "empty text"
            message = f"schema must be text, found {found}"
            checker.add(document, "DP102", message, (*path, "schema"), found=found, help=models.SCHEMA)
        checker.validate(model, settings, document, path, written=settings)
        return Endpoint(
            name=place.name or connector.name,
            connector=connector,
            schema=str(schema),
            display=_display(connector.name, settings, secret),
            where=document.where(path, key=True),
            _config=partial(
                _deferred, checker, self._folder, partial(_mapping_settings, model, document, path, settings)
            ),
        )

    def _connector(self, document: Document, path: KeyPath, word: str, *, url: bool) -> Connector | None:
        """By URL scheme in any case, or by name exactly as it is, so that the JSON Schema says the same."""
        known = connectors()
        if url or word in known:
            try:
                return connector_for(word)
            except ConfigError:
                pass  # said below, at its place
        words = [scheme for connector in known.values() for scheme in connector.schemes] if url else list(known)
        what = "URL scheme" if url else "connector"
        close = suggest(word, words)
        help_ = f"did you mean '{close}{'://' if url else ''}'?" if close else f"installed {what}s: {', '.join(words)}"
        message, width = f"unknown {what} {shown(word)}", len(word) if url else 0
        self._checker.add(document, "DP103", message, path, found=word, help=help_, width=width)
        return None


def _deferred(checker: Checker, folder: Path, settings: Callable[[Checker], Any]) -> Any:
    """Resolve settings now, with problems of their own. Relative paths start at the manifest's folder."""
    fresh = checker.fresh()
    made = settings(fresh)
    fresh.raise_found()
    return made.relative_to(folder) if hasattr(made, "relative_to") else made


def _url_settings(connector: Connector, document: Document, path: KeyPath, text: str, checker: Checker) -> Any:
    url = checker.resolve(document, text, path)
    if checker.is_unresolved(document, path):
        return None
    checker.secrets.remember_url(url)
    redact = checker.secrets.redactor.redact
    correct = f"correct the {connector.name} URL"
    model = connector.config_model()
    try:
        config = model.model_validate(model.from_url(url))
    except ConfigError as error:
        checker.add(document, error.code, redact(error.message), path, help=redact(error.remedy) or correct)
        return None
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False)[:MAX_PROBLEMS]:
            key = ".".join(str(piece) for piece in item["loc"]) or "settings"
            message = f"the URL's {key}: {mask(redact(item['msg'].removeprefix('Value error, ')))}"
            checker.add(document, "DP102", message, path, help=correct)
        return None
    except ValueError:  # of urllib, for brackets and ports; its text may hold the URL
        checker.add(document, "DP102", f"the {connector.name} URL cannot be read", path, help=correct)
        return None
    _remember(checker, config)
    return config


def _mapping_settings(
    model: type[BaseModel], document: Document, path: KeyPath, settings: dict[str, Any], checker: Checker
) -> Any:
    resolved = checker.resolved(document, settings, path)
    if checker.problems:
        return None
    config = checker.validate(model, resolved, document, path, written=settings)
    _remember(checker, config)
    return config


def _remember(checker: Checker, value: Any) -> None:
    """Every SecretStr of a model is a secret, wherever it came from."""
    if isinstance(value, SecretStr):
        checker.secrets.redactor.add(value.get_secret_value())
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            _remember(checker, getattr(value, name))


def is_secret(annotation: Any) -> bool:
    """Whether a field can hold a secret."""
    return annotation in (SecretStr, SecretBytes) or any(is_secret(part) for part in get_args(annotation))


def _hide(document: Document, root: KeyPath) -> None:
    """Hide all that may be a secret under a root: everything but references, harmless URLs, names of connections."""
    data = document.data
    for piece in root:
        data = data.get(piece) if isinstance(data, dict) else None
    for path, value in scalars(data, root):
        if isinstance(value, str) and (is_reference(value) or (path == root and _HARMLESS.fullmatch(value))):
            continue
        document.hide(path, after="://" if path == root else "")
    for path in [path for path in document.keys if path[: len(root)] == root and len(path) > len(root)]:
        if not re.fullmatch(r"[\w.-]+", str(path[-1])):
            document.hide_key(path)  # `{password:x}`, without a blank, is a key


def _display(name: str, settings: dict[str, Any], secret: set[str]) -> str:
    parts = []
    for key, value in settings.items():
        if isinstance(value, str) and is_reference(value):
            parts.append(f"{key}={value}")
        elif key in secret:
            parts.append(f"{key}=***")
        elif isinstance(value, str | int | float):
            parts.append(f"{key}={mask(str(value))}")
    return f"{name}({', '.join(parts)})"
