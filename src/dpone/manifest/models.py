"""The shape of the manifest: the pydantic models that validate it and that its JSON Schema is generated from.

`source`, `sink` and the entries of `connections` are checked with the model of the connector that they name, so here
they may be anything. Types are strict: the text "yes" is not a boolean, the text "5" is not a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

TYPE_NAMES = (
    "boolean", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "text",
    "json", "uuid", "binary", "date", "time", "timestamp", "timestamptz",
)  # fmt: skip
"""The names that `dpone.arrow.types.parse_type` knows, besides `decimal(p,s)`; a test holds the two together."""

_DECIMAL = re.compile(r"decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)")
_TYPE_PATTERN = rf"^(?:{'|'.join(TYPE_NAMES)}|decimal\(\s*\d+\s*,\s*\d+\s*\))$"
_DURATION = re.compile(r"(0|[1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(text: Any) -> timedelta:
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise PydanticCustomError("duration", "write a whole number and a unit (s, m, h or d), such as 30s, 10m, 2d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _type_name(name: str) -> str:
    match = _DECIMAL.fullmatch(name)
    if match and not (1 <= int(match[1]) <= 38 and int(match[2]) <= int(match[1])):  # noqa: PLR2004 - decimal128
        raise PydanticCustomError("decimal_range", "a decimal has a precision of 1 to 38 and at most as large a scale")
    if match is None and name not in TYPE_NAMES:
        raise PydanticCustomError("type_name", "unknown type name")
    return name


def _unique(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise PydanticCustomError("not_unique", "the same item is given twice")
    return names


def _version(number: int) -> int:
    if number != 1:
        raise PydanticCustomError("version", "this dpone reads version 1")
    return number


def _true(value: bool) -> bool:  # noqa: FBT001 - pydantic's signature
    if not value:
        raise PydanticCustomError("true_only", "write true, or take the mask away")
    return value


Text = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Text], Field(min_length=1, json_schema_extra={"uniqueItems": True}), AfterValidator(_unique)]
TypeName = Annotated[
    str,
    AfterValidator(_type_name),
    Field(json_schema_extra={"pattern": _TYPE_PATTERN, "examples": ["text", "decimal(18,2)"]}),
]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["30s", "10m", "1h", "2d"]}),
]
"""A length of time as `10m` in the manifest, a timedelta in the model."""
TagName = Annotated[str, Field(pattern=r"^[^\s,]+$")]
Write = Literal["replace", "append", "merge", "delete_insert", "scd2", "append_snapshot"]
Proof = Literal["none", "counts", "digest"]


def _optional(description: str) -> Any:
    """A key that may be absent. Its default None does not allow null: `write:` with nothing after it is an error."""
    return Field(default=None, description=description)


SCHEMA = "schema of the targets (sink), or of streams named without one (source); the connector's own default if absent"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


Share = Annotated[str, Field(pattern=r"^(100|\d{1,2})%$", json_schema_extra={"examples": ["20%"]})]


def _by_number(value: Any) -> str:
    return "@number" if isinstance(value, int) else "@text"


Lookback = Annotated[
    Annotated[Duration, Tag("@text")] | Annotated[Annotated[int, Field(ge=0)], Tag("@number")],
    Discriminator(_by_number),
]


MaxDeletes = Annotated[
    Annotated[Share, Tag("@text")] | Annotated[Annotated[int, Field(ge=0)], Tag("@number")],
    Discriminator(_by_number),
]


class Cursor(_Model):
    """A cursor column with a rule for the rows in which it is NULL, and for those that are committed late."""

    column: Text = Field(description="the column that grows with every change of a row")
    nulls: Literal["refuse", "load"] = Field(
        default="refuse", description="rows whose cursor is NULL: refuse the load, or load them in every run"
    )
    clock: Literal["transaction"] = _optional(
        "transaction: the values are the database's own now() in the transaction that writes the row; the window then"
        " ends before the start of the oldest open transaction"
    )
    lookback: Lookback = _optional(
        "how far behind the last checkpoint rows may still appear, a time (1h) or a number; all of that is read again"
    )


class Columns(_Model):
    """Which columns are moved, and as which types. Without it: all of them, as they are."""

    include: Names = _optional("move only these columns: [a, b]")
    exclude: Names = _optional("move all columns but these: [a, b]")
    cast: dict[Text, TypeName] = _optional("column: type name; the source casts")
    allow_lossy: Names = _optional("columns whose values may be altered where the plan says lossy: [a, b]")


class Deletes(_Model):
    """What happens to rows of the target that are gone at the source."""

    mode: Literal["ignore", "soft", "hard"] = Field(
        description="ignore: they stay; soft: they are marked in _dpone_deleted_at; hard: they are deleted"
    )
    max: MaxDeletes = _optional(
        "the most rows that one run may delete or mark: a share (20%) or a number; 50% if absent"
    )
    every: Duration = _optional("look for them at most so often (24h); without it in every run")


class Slices(_Model):
    """How a table is cut into pieces that are read and staged on their own."""

    rows: int = Field(gt=0, le=2**63 - 1, description="wished number of rows per slice, a whole number greater than 0")


class Mask(_Model):
    """What stands in the place of a column's values: one of these."""

    hmac: Text = _optional(
        "a secret of 16 bytes or more, as a reference: the values become their HMAC-SHA-256 in hexadecimal, equal ones"
        " equal"
    )
    replace: str = _optional("a text for every value that is not NULL")
    null_: Annotated[bool, AfterValidator(_true), Field(alias="null", json_schema_extra={"const": True})] = _optional(
        "true: no value at all"
    )

    @model_validator(mode="after")
    def _one(self) -> Mask:
        if len(self.model_fields_set) != 1:
            raise PydanticCustomError("one_mask", "give one of hmac, replace and null")
        return self


class Transform(_Model):
    """What happens to the rows between source and sink, in this order."""

    rename: dict[Text, Text] = _optional("column: new name; the keys below and the target use the new name")
    derive: dict[Text, Text] = _optional("column: DuckDB expression over the columns as they were read")
    where: Text = _optional("a DuckDB condition; rows for which it is not true are left out and counted")
    mask: dict[Text, Mask] = _optional("column: what stands in the place of its values, as {hmac: ${env:KEY}}")
    drop: Names = _optional("columns that are used above and not moved: [a, b]")
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")] = _optional(
        "package.module:name of a Python function that is given each pyarrow.RecordBatch and returns one"
    )


class Hooks(_Model):
    """SQL statements that the sink runs in the transaction that publishes a load."""

    before: Annotated[list[Text], Field(min_length=1)] = _optional("statements before the rows are published, in order")
    after: Annotated[list[Text], Field(min_length=1)] = _optional("statements after the rows are published, in order")


class Retries(_Model):
    """How often what failed for a moment is tried again."""

    attempts: int = Field(
        default=5, ge=1, le=100, description="attempts of a stream in a row without a new durable slice; 1: no retry"
    )
    budget: Duration = Field(
        default="10m", validate_default=True, description="time that the retries of one run may wait together"
    )


class Defaults(_Model):
    """Settings for all streams that do not give their own."""

    write: Write = _optional(
        "replace: the target holds exactly what was read; append: add the new rows; merge: insert or update"
        " by primary key; delete_insert: replace whole partitions; scd2: keep every version of a row, with when it was"
        " valid; append_snapshot: every run adds all rows again"
    )
    proof: Proof = _optional("what is compared between source and sink before a commit (default: counts)")
    slices: Slices = _optional("how large tables are cut into pieces: {rows: 1000000}")
    tags: list[TagName] = _optional("words to select streams by (--select tag:WORD), without blanks and commas: [a, b]")


def _by_list(value: Any) -> str:
    return "@list" if isinstance(value, list) else "@text"


def _by_mapping(value: Any) -> str:
    return "@mapping" if isinstance(value, dict | Cursor | Deletes) else "@text"


KeyColumns = Annotated[Annotated[Text, Tag("@text")] | Annotated[Names, Tag("@list")], Discriminator(_by_list)]
CursorColumn = Annotated[Annotated[Text, Tag("@text")] | Annotated[Cursor, Tag("@mapping")], Discriminator(_by_mapping)]


DeletePolicy = Annotated[
    Annotated[Literal["ignore", "soft", "hard"], Tag("@text")] | Annotated[Deletes, Tag("@mapping")],
    Discriminator(_by_mapping),
]


class Stream(Defaults):
    """One table, or other object, of the source."""

    primary_key: KeyColumns = _optional("the column, or list of columns, that identifies a row")
    cursor: CursorColumn = _optional(
        "the column that grows with every change of a row, or {column: ..., nulls: ...}; makes the load incremental"
    )
    partition_by: KeyColumns = _optional(
        "for write: delete_insert: the column, or list of columns or of SQL expressions of the sink over them, whose"
        " values say which rows are replaced together"
    )
    deduplicate: bool = _optional(
        "for write: append: whether rows whose primary key the target holds already are left out"
    )
    deletes: DeletePolicy = _optional(
        "rows of the target that are gone at the source: ignore, soft or hard; or {mode: ..., max: ..., every: ...}"
    )
    target: Text = _optional("name of the target table, as table or schema.table")
    columns: Columns = _optional("which columns are moved, and as which types")
    filter: Text = _optional("a predicate in the source's own SQL")
    transform: Transform = _optional("what happens to the rows between source and sink")
    hooks: Hooks = _optional("SQL statements of the sink, in the transaction that publishes a load")
    allow_empty: bool = _optional("whether write: replace may empty a target because the source is empty")


class Manifest(_Model):
    """A dpone manifest: what to move, from where, to where, how."""

    version: Annotated[int, AfterValidator(_version), Field(json_schema_extra={"const": 1})] = Field(
        description="version of the manifest's format: 1"
    )
    pipeline: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        max_length=100,
        description="name of the pipeline, part of the identity of its state: letters, digits, '_', '.', '-'",
    )
    source: Any = Field(description="where to read: a URL, a mapping, or the name of a connection")
    sink: Any = Field(description="where to write: a URL, a mapping, or the name of a connection")
    connections: dict[Text, Any] = _optional("name: URL, or mapping with 'connector'")
    defaults: Defaults = _optional("settings for all streams that do not give their own")
    retries: Retries = Field(
        default_factory=Retries,
        description="how often what failed for a moment is tried again: {attempts: 5, budget: 10m}",
    )
    streams: dict[Text, Stream | None] = Field(
        min_length=1, description="name or glob of the source's objects: settings, or nothing"
    )


class ConnectionRef(_Model):
    """A source or sink that is one of the connections."""

    connection: Text = Field(description="name of an entry under 'connections'")
    schema_: Annotated[Text, Field(alias="schema")] = _optional(SCHEMA)


def fields_at(model: type[BaseModel], path: Sequence[str | int]) -> dict[str, FieldInfo]:
    """The keys that a mapping at this path of the data may have; empty where any key may stand."""
    annotations: list[Any] = [model]
    for piece in path:
        inner: list[Any] = []
        for annotation in _flat(annotations):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                field = fields_of(annotation).get(str(piece))
                inner += [field.annotation] if field else []
            elif issubclass(get_origin(annotation) or object, Mapping):
                inner.append(get_args(annotation)[1])
            elif issubclass(get_origin(annotation) or object, Sequence):
                inner.append(get_args(annotation)[0])
        annotations = inner
    models = [a for a in _flat(annotations) if isinstance(a, type) and issubclass(a, BaseModel)]
    return {name: field for found in models for name, field in fields_of(found).items()}


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields under the names that stand in the manifest."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _flat(annotations: Sequence[Any]) -> list[Any]:
    """Unions and Annotated taken apart."""
    result: list[Any] = []
    for annotation in annotations:
        origin = get_origin(annotation)
        if origin is Annotated:
            result += _flat(get_args(annotation)[:1])
        elif origin in (Union, UnionType):
            result += _flat(get_args(annotation))
        else:
            result.append(annotation)
    return result
