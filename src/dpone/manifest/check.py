"""Collects problems, resolves references, and turns what pydantic found into problems with a position."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from dpone.manifest import models
from dpone.manifest.document import Document, KeyPath, scalars
from dpone.manifest.problems import ManifestError, Problem, shown, suggest
from dpone.manifest.secrets import ReferenceProblem, Secrets, check_references, has_reference, mask
from dpone.manifest.yaml import core_scalar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic_core import ErrorDetails

MAX_PROBLEMS = 100  # of one file: enough to work on, and a bound for hostile ones

PLAIN_KEYS = frozenset({"connection", "connector", "schema"})
# Names are shown in every plan and record, and kept in the sink: what they were resolved from is not a secret.
_NAMES = frozenset({"pipeline", "target", "tags", *PLAIN_KEYS})

_Model = TypeVar("_Model", bound=BaseModel)

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "string_too_short": "text that is not empty",
    "path_type": "text",
    "finite_number": "a finite number",
}


class Checker:
    """What one check of a manifest found. `fresh` starts another one that knows the same secrets."""

    def __init__(self, secrets: Secrets) -> None:
        self.secrets = secrets
        self.problems: list[Problem] = []
        self._unresolved: set[tuple[str, KeyPath]] = set()

    def fresh(self) -> Checker:
        """A checker without problems."""
        return Checker(self.secrets)

    def raise_found(self) -> None:
        """Raise ManifestError when there is any problem."""
        if self.problems:
            raise ManifestError(self.problems)

    def add(
        self,
        document: Document,
        code: str,
        message: str,
        path: KeyPath,
        *,
        found: str = "",
        help: str = "",  # noqa: A002 - the field's name
        key: bool = False,
        width: int = 0,
    ) -> None:
        """Report a problem at a value, or with `key` at its key; once."""
        if len(self.problems) < MAX_PROBLEMS:
            problem = document.problem(code, message, path, found=found, help=help, key=key, width=width)
            if problem not in self.problems:
                self.problems.append(problem)

    def check_references(self, document: Document) -> None:
        """Report malformed references anywhere in the data, and references in keys."""
        for path, value in scalars(document.data):
            if isinstance(value, str):
                try:
                    check_references(value)
                except ReferenceProblem as problem:
                    self.add(document, "DP107", problem.message, path, help=problem.help)
        for path in list(document.keys):
            if isinstance(path[-1], str) and "${" in path[-1]:
                message = "references are not resolved in keys"
                self.add(document, "DP107", message, path, found=path[-1], help="write the name itself", key=True)

    def resolve(self, document: Document, text: str, path: KeyPath) -> str:
        """The text with its references resolved; a problem is reported and leaves them in place."""
        try:
            check_references(text)
        except ReferenceProblem:  # already reported by check_references
            self._unresolved.add((document.name, path))
            return text
        try:
            return self.secrets.resolve(text, secret=not _NAMES.intersection(path[-2:]))
        except ReferenceProblem as problem:
            self.add(document, "DP107", problem.message, path, found=text, help=problem.help)
            self._unresolved.add((document.name, path))
            return text

    def is_unresolved(self, document: Document, path: KeyPath) -> bool:
        """Whether the text at a path still is a reference because there was a problem with it."""
        return (document.name, path) in self._unresolved

    def resolved(self, document: Document, data: Any, path: KeyPath) -> Any:
        """Data with the references in all of its texts resolved."""
        if isinstance(data, dict):
            return {key: self.resolved(document, value, (*path, key)) for key, value in data.items()}
        if isinstance(data, list):
            return [self.resolved(document, value, (*path, index)) for index, value in enumerate(data)]
        return self.resolve(document, data, path) if isinstance(data, str) and has_reference(data) else data

    def validate(
        self, model: type[_Model], data: Any, document: Document, path: KeyPath, *, written: Any = None
    ) -> _Model | None:
        """An instance of the model, or None and a problem for everything wrong.

        `written` is the data before references were resolved, or the data itself when they are not resolved yet. A
        text that came from a reference and does not fit is tried as what it would be in YAML, so that a port may be
        `${env:PORT}`. What is still a reference is not judged.
        """
        instance, errors = _try(model, data)
        referring = {inner for inner, text in scalars(written) if isinstance(text, str) and has_reference(text)}
        unknown = {inner for inner in referring if written is data or self.is_unresolved(document, (*path, *inner))}
        if errors and referring - unknown:
            data = copy.deepcopy(data)
            for error in errors:
                inner = _locate(data, error["loc"])
                text = _get(data, inner)
                if inner in referring - unknown and isinstance(text, str):
                    _set(data, inner, core_scalar(text))
            instance, errors = _try(model, data)
        judged = [error for error in errors if not _depends(error, _locate(data, error["loc"]), unknown)]
        _Translator(self, model, data, document, path, written if referring else None).report(judged)
        return instance


def _try(model: type[_Model], data: Any) -> tuple[_Model | None, list[ErrorDetails]]:
    # As JSON, because pydantic's strict mode then still takes a list for a tuple and text for an enum or a path.
    try:
        return model.model_validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        return None, error.errors(include_url=False, include_input=False)


def _locate(data: Any, location: Iterable[str | int]) -> KeyPath:
    """The path in the data of pydantic's location, which also names branches of unions and models."""
    path: list[str | int] = []
    for piece in location:
        is_key = isinstance(data, dict) and isinstance(piece, str) and piece in data
        is_index = isinstance(data, list) and isinstance(piece, int) and 0 <= piece < len(data)
        if is_key or is_index:
            path.append(piece)
            data = data[piece]
    return tuple(path)


def _depends(error: ErrorDetails, path: KeyPath, unknown: set[KeyPath]) -> bool:
    """Whether an error may vanish when unknown values become known: its own, or one of a rule over several settings."""
    if error["type"] in ("missing", "extra_forbidden"):
        return False
    return path in unknown or (not path and bool(unknown))


def _get(data: Any, path: KeyPath) -> Any:
    for piece in path:
        if isinstance(data, dict) and piece in data:
            data = data[str(piece)]
        elif isinstance(data, list) and isinstance(piece, int) and piece < len(data):
            data = data[piece]
        else:
            return None
    return data


def _set(data: Any, path: KeyPath, value: Any) -> None:
    if path:
        _get(data, path[:-1])[path[-1]] = value


class _Translator:
    """Turns the errors of one validation into problems."""

    def __init__(
        self, checker: Checker, model: type[BaseModel], data: Any, document: Document, path: KeyPath, written: Any
    ) -> None:
        self._checker = checker
        self._model = model
        self._data = data
        self._document = document
        self._path = path
        self._written = written
        # Settings of a connector may hold secrets: their values are not named in messages.
        self._open = model is models.Manifest

    def report(self, errors: list[ErrorDetails]) -> None:
        errors = errors[:MAX_PROBLEMS]
        meant = {}
        for error in errors:
            if error["type"] == "extra_forbidden":
                path = _locate(self._data, error["loc"])
                meant[path] = suggest(str(path[-1]), models.fields_at(self._model, path[:-1])) if path else ""
        taken = {(path[:-1], word) for path, word in meant.items()}
        placed: set[KeyPath] = set()
        for error in errors:
            path = _locate(self._data, error["loc"])
            if error["type"] == "extra_forbidden":
                self._unknown_key(path, meant[path])
            elif error["type"] == "missing":
                if (path, str(error["loc"][-1])) not in taken:  # else it is there, misspelt
                    self._missing_key(path, str(error["loc"][-1]))
            elif path not in placed:  # the branches of a union report one each
                placed.add(path)
                self._wrong_value(path, error)

    def _add(
        self, code: str, message: str, path: KeyPath, *, found: str = "", help_: str = "", key: bool = False
    ) -> None:
        full = (*self._path, *path)
        self._checker.add(self._document, code, message, full, found=found, help=help_, key=key)

    def _unknown_key(self, path: KeyPath, meant: str) -> None:
        key, known = str(path[-1]), models.fields_at(self._model, path[:-1])
        shown_key = mask(self._document.shown_key((*self._path, *path)))
        elsewhere = _elsewhere(key, path) if self._open else ""
        if elsewhere:
            help_ = elsewhere
        elif key.partition(":")[0] in known and ":" in key:
            help_ = f"put a blank after the colon: '{key.partition(':')[0]}: ...'"
        elif meant:
            help_ = f"did you mean '{meant}'?"
        else:
            names = [*known, "schema"] if not self._open and not path[:-1] else known
            help_ = f"the keys here are: {', '.join(names)}"
        self._add("DP101", f"unknown key {shown(shown_key)}", path, found=shown_key, help_=help_, key=True)

    def _missing_key(self, path: KeyPath, key: str) -> None:
        full = (*self._path, *path)
        field = models.fields_at(self._model, path).get(key)
        help_ = f"add '{key}:'" + (f", {field.description}" if field and field.description else "")
        owner = f"{full[-1]} has" if full else "the manifest has"
        self._add("DP106", f"{owner} no '{key}'", path, found="nothing", help_=help_, key=True)

    def _wrong_value(self, path: KeyPath, error: ErrorDetails) -> None:
        value = _get(self._data, path)
        name = _name((*self._path, *path))
        found = self._found(path, value, error["type"])
        field = self._field(path)
        description = str(field.description or "") if field else ""
        if error["type"] in ("type_name", "decimal_range"):
            code, message, help_ = _wrong_type_name(value, found, error)
        elif error["type"] in ("literal_error", "enum"):
            code, message, help_ = _wrong_choice(name, value, found, error)
        elif error["type"] in _EXPECTED:
            expected = _EXPECTED[error["type"]]
            if "@text" in error["loc"]:  # one branch of two
                expected += " or a list" if name in ("primary_key", "partition_by") else " or a mapping"
            code, message = "DP102", f"{name} must be {expected}, found {found}"
            help_ = _for_kind(error["type"], value, description)
        else:
            text = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            text = mask(self._checker.secrets.redactor.redact(text))
            text = "must not be empty" if error["type"] == "too_short" else f"{text[:1].lower()}{text[1:]}"
            code, message, help_ = "DP102", f"{name}: {text}" + (f", found {found}" if self._open else ""), description
        self._add(code, message, path, found=found, help_=help_ or f"correct {name}")

    def _field(self, path: KeyPath) -> Any:
        for length in range(len(path), 0, -1):
            field = models.fields_at(self._model, path[: length - 1]).get(str(path[length - 1]))
            if field is not None:
                return field
        return None

    def _found(self, path: KeyPath, value: Any, kind: str) -> str:
        written = _get(self._written, path)
        if isinstance(written, str) and has_reference(written):
            return f"another value behind {mask(written)}"
        if isinstance(value, str) and (self._open or kind in ("literal_error", "enum")):
            return shown(mask(value))
        return kind_of(value, show=self._open)


def _wrong_type_name(value: Any, found: str, error: ErrorDetails) -> tuple[str, str, str]:
    if error["type"] == "decimal_range":
        return "DP105", f"{found} is not a decimal dpone can hold", error["msg"]
    if re.fullmatch(r"decimal\(\s*\d+", str(value)):
        return "DP105", f"unknown type {found}", "put it into quotes: inside { } the comma would end it"
    close = suggest(str(value), [*models.TYPE_NAMES, "decimal(p,s)"])
    types = f"the types are: {', '.join(models.TYPE_NAMES)}, decimal(p,s)"
    return "DP105", f"unknown type {found}", f"did you mean '{close}'?" if close else types


def _wrong_choice(name: str, value: Any, found: str, error: ErrorDetails) -> tuple[str, str, str]:
    expected = str(error.get("ctx", {}).get("expected", ""))
    known = re.findall(r"'([^']*)'", expected)
    words = ", ".join(known[:-1]) + " or " + known[-1] if len(known) > 1 else "".join(known) or expected
    close = suggest(value, known) if isinstance(value, str) else ""
    return "DP102", f"{name} must be {words}, found {found}", f"did you mean '{close}'?" if close else f"write {words}"


def _for_kind(kind: str, value: Any, description: str) -> str:
    if value is None:
        return "give it a value, or remove the key"
    if kind == "bool_type":
        return "write true or false, without quotes"
    if kind == "int_type" and isinstance(value, str):
        return "write a whole number, without quotes"
    return description


def kind_of(value: Any, *, show: bool = False) -> str:
    """What a value is, in words; with `show`, numbers and booleans as they are."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {str(value)[:40]}" if show else "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "a mapping"


def _name(path: KeyPath) -> str:
    """The last key of a path, with what is needed to recognise it."""
    if not path:
        return "the manifest"
    if isinstance(path[-1], int):
        return f"item {path[-1] + 1} of {path[-2]}" if len(path) > 1 else f"item {path[-1] + 1}"
    return shown(path[-1])[1:-1]


def _elsewhere(key: str, path: KeyPath) -> str:
    """Where a key of the manifest belongs that is spelt right and stands at the wrong level."""
    top: Mapping[str, Any] = models.fields_of(models.Manifest)
    stream, defaults = models.fields_of(models.Stream), models.fields_of(models.Defaults)
    if len(path) == 1 and key in defaults:
        return f"'{key}' belongs under 'defaults' or under a stream"
    if path[0] in (key, "defaults") and key in stream:
        return f"'{key}' belongs under a stream"
    if len(path) == 3 and path[0] == "streams":  # noqa: PLR2004 - streams, name, key
        if key in top:
            return f"'{key}' belongs at the top level, without indentation"
        if key in models.fields_of(models.Columns):
            return f"'{key}' belongs under 'columns'"
        if key == "schema":
            return "'schema' belongs under 'sink' or 'source'; 'target: schema.table' is for one stream"
    return ""
