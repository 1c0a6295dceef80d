"""The JSON Schema of the manifest, for editors: generated from the models that validate it.

The settings of every installed connector are part of it. Where a reference may stand for a number, a choice or a
name, the schema takes one too.
"""

from __future__ import annotations

from typing import Any

from dpone.manifest import models
from dpone.sdk.registry import connectors

_REFERENCE = {"type": "string", "pattern": r"\$\{(env|file):[^{}]+\}", "description": "${env:NAME} or ${file:/path}"}
_NEVER_A_REFERENCE = frozenset({"version", "connector"})


def json_schema() -> dict[str, Any]:
    """One JSON Schema (2020-12) of a whole manifest with the connectors that are installed here."""
    schema = models.Manifest.model_json_schema()
    definitions: dict[str, Any] = schema.pop("$defs")
    reference = models.ConnectionRef.model_json_schema(by_alias=True)
    named: list[dict[str, Any]] = [{"type": "string", "minLength": 1, "description": "a URL"}]
    for connector in connectors().values():
        own = connector.config_model().model_json_schema(ref_template=f"#/$defs/{connector.name}.{{model}}")
        definitions |= {f"{connector.name}.{name}": value for name, value in own.pop("$defs", {}).items()}
        definitions[connector.name] = _connector(own, connector.name, connector.title)
        named.append({"$ref": f"#/$defs/{connector.name}"})
    definitions["Reference to a connection"] = reference
    definitions["Connection"] = {"title": "Connection", "anyOf": named}
    endpoint = {"anyOf": [{"$ref": "#/$defs/Connection"}, {"$ref": "#/$defs/Reference to a connection"}]}
    properties = schema["properties"]
    for role in ("source", "sink"):
        properties[role] |= endpoint
    properties["connections"]["additionalProperties"] = {"$ref": "#/$defs/Connection"}
    # Editors offer `version: 1` first; the rest in the order in which people write it.
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"$defs": definitions}
    whole["title"] = "dpone manifest"
    result: dict[str, Any] = _with_references(whole)
    return result


def _connector(own: dict[str, Any], name: str, title: str) -> dict[str, Any]:
    head = {
        "connector": {"const": name, "description": title},
        "schema": {"type": "string", "minLength": 1, "description": models.SCHEMA},
    }
    return own | {
        "title": title,
        "properties": head | own.get("properties", {}),
        "required": ["connector", *own.get("required", [])],
        "additionalProperties": False,
    }


def _with_references(schema: Any, key: str = "") -> Any:
    """The same schema, in which a reference may stand for every scalar that is not any text."""
    if isinstance(schema, list):
        return [_with_references(item, key) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for name, value in schema.items():
        if name in ("properties", "$defs"):
            result[name] = {inner: _with_references(item, inner) for inner, item in value.items()}
        elif name in ("anyOf", "oneOf", "allOf", "items", "additionalProperties", "prefixItems"):
            result[name] = _with_references(value, key)
        elif not (name == "default" and value is None):  # None stands for "absent"; null is not allowed
            result[name] = value
    if key in _NEVER_A_REFERENCE or not _narrow(result):
        return result
    keep = {name: result.pop(name) for name in ("title", "description", "default") if name in result}
    return keep | {"anyOf": [result, _REFERENCE]}


def _narrow(schema: dict[str, Any]) -> bool:
    if schema.get("type") in ("integer", "number", "boolean") or "enum" in schema or "const" in schema:
        return True
    return schema.get("type") == "string" and not {"pattern", "format", "maxLength"}.isdisjoint(schema)
