"""The JSON Schema for editors and the loader agree."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest

from dpone.arrow import types
from dpone.manifest.load import ManifestError, manifest_from_dict
from dpone.manifest.models import TYPE_NAMES
from dpone.manifest.schema import json_schema
from dpone.manifest.yaml import parse
from dpone.sdk.registry import connectors
from tests.manifest.test_mistakes import WHOLE, other_cases

BASE: dict[str, Any] = {
    "version": 1,
    "pipeline": "shop",
    "source": "sqlite:///shop.db",
    "sink": "duckdb:///lake.duckdb",
    "streams": {"orders": None},
}
VALID: list[dict[str, Any]] = [
    {},
    {"source": "${env:SHOP_DB}"},
    {"source": {"connector": "sqlite", "path": "shop.db", "schema": "main"}},
    {"sink": {"connector": "postgres", "host": "h", "port": 5432, "database": "d", "user": "u", "password": "p"}},
    {"sink": {"connector": "postgres", "host": "h", "port": "${env:P}", "database": "d", "user": "u", "schema": "raw"}},
    {"source": "shop", "connections": {"shop": {"connector": "files", "path": "in", "types": {"id": "text"}}}},
    {"source": {"connection": "shop", "schema": "x"}, "connections": {"shop": "sqlite:///${env:SHOP_DB}"}},
    {"defaults": {"write": "append_snapshot", "proof": "digest", "slices": {"rows": 10}, "tags": []}},
    {"streams": {"a": {"primary_key": "id"}, "b": {"primary_key": ["a", "b"], "cursor": {"column": "c"}}, "c": {}}},
    {"streams": {"a": {"columns": {"cast": {"x": "decimal(38, 2)", "y": "json"}, "include": ["x", "y"]}}}},
    {"streams": {"a*": {"write": "${env:MODE}", "slices": {"rows": "${env:ROWS}"}}}},
]
INVALID: list[dict[str, Any]] = [
    {"version": 2},
    {"version": "1"},
    {"version": None},
    {"pipeline": "a b"},
    {"pipeline": ""},
    {"extra": 1},
    {"source": 5},
    {"source": None},
    {"source": {}},
    {"source": {"connector": "sqlite"}},
    {"source": {"connector": "sqlite", "path": "x", "extra": 1}},
    {"source": {"connector": "Sqlite", "path": "x"}},
    {"source": {"connection": "shop", "path": "x"}, "connections": {"shop": "sqlite:///x"}},
    {"source": {"connector": "files", "path": "x", "header": "yes"}},
    {"source": {"connector": "files", "path": "x", "format": "cvs"}},
    {"sink": {"connector": "postgres", "host": "h", "port": "5432", "database": "d", "user": "u"}},
    {"connections": None},
    {"connections": {"a": 5}},
    {"defaults": {"cursor": "x"}},
    {"defaults": {"primary_key": "x"}},
    {"defaults": {"write": None}},
    {"defaults": {"tags": "x"}},
    {"defaults": {"tags": ["a b"]}},
    {"streams": {}},
    {"streams": []},
    {"streams": {"a": 5}},
    {"streams": {"a": {"write": "upsert"}}},
    {"streams": {"a": {"primary_key": []}}},
    {"streams": {"a": {"primary_key": ["x", "x"]}}},
    {"streams": {"a": {"primary_key": ""}}},
    {"streams": {"a": {"cursor": {"column": "c", "nulls": "skip"}}}},
    {"streams": {"a": {"cursor": {"nulls": "load"}}}},
    {"streams": {"a": {"cursor": None}}},
    {"streams": {"a": {"slices": {"rows": 0}}}},
    {"streams": {"a": {"slices": {}}}},
    {"streams": {"a": {"slices": {"rows": True}}}},
    {"streams": {"a": {"columns": {"cast": {"x": "string"}}}}},
    {"streams": {"a": {"columns": {"include": "x"}}}},
    {"streams": {"a": {"depends_on": ["b"]}}},
]  # fmt: skip


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    """What an editor does."""
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("change", VALID, ids=str)
def test_what_the_loader_takes_the_schema_takes(
    change: dict[str, Any], validator: jsonschema.Draft202012Validator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """References included, wherever a number or a choice may stand."""
    for name, value in {"SHOP_DB": "sqlite:///x.db", "P": "5432", "MODE": "append", "ROWS": "7"}.items():
        monkeypatch.setenv(name, value)
    manifest = BASE | copy.deepcopy(change)
    manifest_from_dict(manifest)
    assert [] == [error.message for error in validator.iter_errors(manifest)]


@pytest.mark.parametrize("change", INVALID, ids=str)
def test_what_the_schema_refuses_the_loader_refuses(
    change: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    """Structure is judged alike by both."""
    manifest = BASE | copy.deepcopy(change)
    assert not validator.is_valid(manifest)
    with pytest.raises(ManifestError):
        manifest_from_dict(manifest)


def test_the_corpus_of_mistakes_is_judged_alike(validator: jsonschema.Draft202012Validator) -> None:
    """The whole manifest is valid; of its versions with structural mistakes none is."""
    assert validator.is_valid(parse(WHOLE.encode(), "").data)
    judged = 0
    for text, line, _column, _ in other_cases():
        # That a connection or a scheme of this name exists is no matter of structure.
        if "no.such" not in text and "nosuch" not in text:
            judged += 1
            assert not validator.is_valid(parse(text.encode(), "").data), text.splitlines()[line]
    assert judged > 80


def test_every_key_has_a_title_or_a_description_and_every_connector_is_there() -> None:
    """An editor has something to show for each key of the manifest."""
    schema = json_schema()
    for name in ("Stream", "Defaults", "Columns", "Cursor", "Slices", "Reference to a connection"):
        for key, value in schema["$defs"][name]["properties"].items():
            assert value.get("description"), (name, key)
    assert {f"#/$defs/{name}" for name in connectors()} < {
        choice.get("$ref") for choice in schema["$defs"]["Connection"]["anyOf"]
    } | {""}


def test_the_type_names_are_those_of_the_arrow_layer() -> None:
    """The manifest knows them by heart so that checking it needs no Arrow."""
    assert set(TYPE_NAMES) == set(types._SIMPLE)
    assert types.parse_type("decimal( 38 , 2 )")
