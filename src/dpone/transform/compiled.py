"""The rules of a transform, made fit for one stream: which columns are read, which come out, and how batches pass."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dpone.arrow.types import arrow_schema, type_name
from dpone.errors import ConfigError, DataError, InternalError
from dpone.sdk import Column
from dpone.transform import function as functions
from dpone.transform.expressions import Refusal, connection, enclosed, is_condition, quoted, references, type_of
from dpone.transform.rules import Mask, Rules

_BLOCK = 64  # bytes of a block of SHA-256, https://www.rfc-editor.org/rfc/rfc2104
_SHORTEST_KEY = 16
_EXPRESSION = "expression over the columns; a name that is a keyword or has blanks stands in double quotes"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one key of the rules. `keys` lead to it from `transform`."""

    keys: tuple[str, ...]
    message: str
    remedy: str


class Problems(Exception):
    """Everything that is wrong with a transform."""

    def __init__(self, found: Sequence[Problem]) -> None:
        super().__init__("; ".join(problem.message for problem in found))
        self.found = tuple(found)


@dataclass(frozen=True, slots=True)
class Transform:
    """Compiled rules. `read` are the columns to read from the source, `columns` those that come out.

    `names` are the new names of the source's columns. `sql` gives the columns `computed`, in order, and whether a row
    stays, from the columns that expressions use (`used`); all others pass as the Arrow arrays that they are. `made` are
    the columns that the function gets, when there is one.
    """

    rules: Rules
    read: tuple[Column, ...]
    columns: tuple[Column, ...]
    names: Mapping[str, str]
    used: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    made: tuple[Column, ...] = ()
    sql: str = field(default="", repr=False)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    function: functions.Function | None = field(default=None, repr=False)
    output: pa.Schema | None = None

    @classmethod
    def of(
        cls, rules: Rules, columns: Sequence[Column], *, primary_key: Sequence[str], cursor: str, folder: Path
    ) -> Transform:
        """Compile rules for the columns of a source. Raises Problems with all that is wrong, ConfigError (DP150)."""
        return _Compiler(rules, columns, tuple(primary_key), cursor).compile(folder)

    def back(self, name: str) -> str:
        """The source's own name of a column that came out under this one."""
        return next((old for old, new in self.names.items() if new == name), name)

    def apply(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """A batch of the read columns, transformed, and how many of its rows were left out.

        Raises DataError naming the column, never a value, when an expression or the function fails.
        """
        arrays = dict(zip((self.names[column.name] for column in self.read), batch.columns, strict=True))
        computed = self._compute(arrays, batch.num_rows) if self.sql else []
        arrays |= dict(zip(self.computed, computed, strict=False))
        masked = [self._masked(column, arrays, batch.num_rows) for column in self.made]
        found = pa.RecordBatch.from_arrays(masked, schema=arrow_schema(self.made))
        left_out = 0
        if self.rules.where:
            stays = computed[-1]
            left_out = batch.num_rows - (pc.sum(stays).as_py() or 0)
            found = found.filter(stays) if left_out else found
        if self.function is not None and self.output is not None:
            given = functions.call(self.function, self.rules.function, found, self.output)
            left_out += found.num_rows - given.num_rows
            found = pa.RecordBatch.from_arrays(given.columns, schema=arrow_schema(self.columns))
        return found, left_out

    def _masked(self, column: Column, arrays: Mapping[str, Any], rows: int) -> Any:
        mask = self.rules.mask.get(column.name)
        if mask is not None and mask.kind == "null":
            return pa.nulls(rows, column.type)
        array = arrays[column.name]
        if mask is not None and mask.kind == "replace":
            return pc.if_else(pc.is_valid(array), pa.scalar(mask.text), pa.scalar(None, pa.string()))
        return array if array.type == column.type else array.cast(column.type)

    def _compute(self, arrays: Mapping[str, Any], rows: int) -> list[Any]:
        """What DuckDB computes: the columns `computed` and, with a condition, whether each row stays."""
        # Where expressions use no column, there are still as many rows.
        columns = {name: arrays[name] for name in self.used} or {"_dpone_row": pa.nulls(rows, pa.bool_())}
        session = connection()
        session.register("_dpone_rows", pa.table(columns))
        try:
            table = session.sql(self.sql, params=dict(self.secrets)).to_arrow_table()
        except duckdb.Error as error:
            raise self._failed(error) from None
        finally:
            session.unregister("_dpone_rows")
        if table.num_rows != rows:
            raise InternalError(
                f"{rows:,} rows went into an expression and {table.num_rows:,} came out",
                remedy="nothing was committed; report it",
            )
        return [column.combine_chunks() for column in table.columns]

    def _failed(self, error: duckdb.Error) -> DataError:
        """Which expression failed, and how, without DuckDB's message: it quotes the value."""
        culprits = (name for name, expression in self.rules.derive.items() if self._fails(expression))
        what = next((f"the column {name}" for name in culprits), "where" if self.rules.where else "a mask")
        kind = type(error).__name__.removesuffix("Exception")
        return DataError(
            f"computing {what}: a value ends in DuckDB's {kind} error",
            remedy="let the expression cope with such values: TRY_CAST, TRY(...), CASE; or leave the rows out at the "
            "source (filter)",
            code="DP416",
        )

    def _fails(self, expression: str) -> bool:
        try:
            connection().execute(f"SELECT count({enclosed(expression)}) FROM _dpone_rows").fetchall()
        except duckdb.Error:
            return True
        return False


class _Compiler:
    """Collects problems while it works through the rules in their order."""

    def __init__(self, rules: Rules, columns: Sequence[Column], key: tuple[str, ...], cursor: str) -> None:
        self._rules = rules
        self._source = {column.name: column for column in columns}
        self._key = key
        self._cursor = cursor
        self._problems: list[Problem] = []

    def compile(self, folder: Path) -> Transform:
        """See `Transform.of`."""
        rules = self._rules
        names = self._renamed()
        before = {names[name]: replace(column, name=names[name]) for name, column in self._source.items()}
        self._raise_found()
        used: dict[str, None] = {}
        derived = {
            name: self._expression(name, text, before, used, "derive", name) for name, text in rules.derive.items()
        }
        everything = before | {name: column for name, column in derived.items() if column is not None}
        self._condition(before, everything, used)
        masked = {name: self._masked(name, mask, everything) for name, mask in rules.mask.items()}
        hashed = [name for name, mask in rules.mask.items() if mask.kind == "hmac" and name in everything]
        used |= {name: None for name in hashed if name not in derived}
        after = everything | {name: column for name, column in masked.items() if column is not None}
        self._dropped(everything)
        self._keys(names)
        self._clashes(used, derived)
        made = [column for name, column in after.items() if name not in rules.drop]
        self._reachable(made)
        self._raise_found()
        wanted = {*used, *(column.name for column in made if self._passes(column.name))}
        wanted |= {names[name] for name in (*self._key, self._cursor) if name in names}
        wanted = wanted & set(before) or set([*before][:1])  # a row without any column is none
        found = Transform(
            rules=rules,
            read=tuple(column for old, column in self._source.items() if names[old] in wanted),
            columns=tuple(made),
            names=names,
            used=tuple(used),
            computed=tuple(dict.fromkeys([*derived, *hashed])),
            made=tuple(made),
        )
        found = self._with_sql(found, everything)
        return self._with_function(found, folder) if rules.function else found

    # -- the rules, one by one -------------------------------------------------------------------------------------

    def _renamed(self) -> dict[str, str]:
        names = {name: name for name in self._source}
        for old, new in self._rules.rename.items():
            if old not in names:
                self._unknown(("rename", old), old, self._source)
            else:
                names[old] = new
        owners: dict[str, str] = {}
        for old, new in names.items():
            other = owners.setdefault(new, old)
            if other != old:
                at = old if old in self._rules.rename else other
                self._add(("rename", at), f"{other} and {old} would both be {new}", "give one of them another name")
        return names

    def _expression(
        self, name: str, text: str, columns: Mapping[str, Column], used: dict[str, None], *keys: str
    ) -> Column | None:
        """The column that an expression makes, or None when there is a problem with it."""
        try:
            found = self._referred(text, columns, used, *keys)
            if found is None:
                return None
            type_, logical = type_of(text, found)
        except Refusal as refusal:
            self._add(keys, f"{name} cannot be computed: {refusal}", f"write one DuckDB {_EXPRESSION}")
            return None
        return Column(name, type_, logical=logical, note="derived")

    def _referred(
        self, text: str, columns: Mapping[str, Column], used: dict[str, None], *keys: str
    ) -> list[Column] | None:
        """The columns that an expression uses; None when one of them is not there."""
        found, sound = [], True
        for written in references(text):
            name = _meant(written, columns)
            if name is None:
                self._unknown(keys, written, columns)
                sound = False
                continue
            column = columns[name]
            if column.fidelity == "refused" or column.kept:
                self._add(keys, f"{name} cannot be used: {column.note or 'its type does not travel'}", "cast it")
                sound = False
            used[name] = None
            found.append(column)
        return found if sound else None

    def _condition(self, before: Mapping[str, Column], everything: Mapping[str, Column], used: dict[str, None]) -> None:
        text = self._rules.where
        if not text:
            return
        seen: dict[str, None] = {}
        try:
            found = self._referred(text, everything, seen, "where")
            if found is not None and not is_condition(text, found):
                self._add(("where",), "where is not a condition: it gives no boolean", "compare something, as in a > 0")
        except Refusal as refusal:
            self._add(("where",), f"where cannot be computed: {refusal}", f"write one DuckDB {_EXPRESSION}")
        used |= {name: None for name in seen if name in before and name not in self._rules.derive}

    def _masked(self, name: str, mask: Mask, columns: Mapping[str, Column]) -> Column | None:
        column, keys = columns.get(name), ("mask", name)
        if column is None:
            self._unknown(keys, name, columns)
            return None
        if column.fidelity == "refused":
            self._add(keys, f"{name} cannot be masked: {column.note}", "leave it out: columns.exclude")
            return None
        if mask.kind == "null":
            return replace(column, nullable=True, note="masked: null")
        if mask.kind == "hmac":
            if column.kept or not _hashable(column):
                what = type_name(column.type, column.logical)
                self._add(
                    keys, f"{name} is {what}: a hmac is of text, integers, uuid or binary", "derive a text of it first"
                )
            if len(mask.text.encode()) < _SHORTEST_KEY:
                self._add(keys, f"the secret of {name} has less than {_SHORTEST_KEY} bytes", "use a longer, random one")
        return Column(name, pa.string(), nullable=column.nullable, note=f"masked: {mask.kind}")

    def _dropped(self, columns: Mapping[str, Column]) -> None:
        for name in self._rules.drop:
            if name not in columns:
                self._unknown(("drop",), name, columns)
        if not set(columns) - set(self._rules.drop):
            self._add(("drop",), "every column is dropped", "keep at least one")

    def _keys(self, names: Mapping[str, str]) -> None:
        for old in dict.fromkeys((*self._key, self._cursor)):
            name = names.get(old, "")
            if not name:
                continue
            what = "the cursor" if old == self._cursor else "part of the key"
            if name in self._rules.drop:
                self._add(("drop",), f"{name} is {what} and cannot be dropped", "keep it")
            mask = self._rules.mask.get(name)
            if mask is not None and (old == self._cursor or mask.kind != "hmac"):
                help_ = "take the mask away" if old == self._cursor else "use hmac, which keeps equal values equal"
                self._add(("mask", name), f"{name} is {what} and cannot be masked by {mask.kind}", help_)
            if old == self._cursor and name in self._rules.derive:
                self._add(("derive", name), f"{name} is the cursor and cannot be replaced", "derive another column")

    def _clashes(self, used: Mapping[str, None], derived: Mapping[str, Column | None]) -> None:
        """DuckDB folds the case of names: two that differ only in case cannot be told apart in an expression."""
        seen: dict[str, str] = {}
        for name in dict.fromkeys((*used, *derived)):
            other = seen.setdefault(name.lower(), name)
            if other != name:
                keys = ("derive", name) if name in derived else ()
                self._add(keys, f"{other} and {name} differ only in case", "rename one of them")

    def _reachable(self, made: Sequence[Column]) -> None:
        """Whatever comes to a function comes in a type that Arrow has."""
        for column in made if self._rules.function else ():
            if column.fidelity == "refused" or column.kept:
                self._add(("function",), f"{column.name} cannot reach it: {column.note}", "drop it, or cast it")

    def _passes(self, name: str) -> bool:
        """Whether the values of a column that comes out are made of those under this name at the source."""
        mask = self._rules.mask.get(name)
        return name not in self._rules.derive and (mask is None or mask.kind != "null")

    # -- the result --------------------------------------------------------------------------------------------------

    def _with_sql(self, found: Transform, columns: Mapping[str, Column]) -> Transform:
        """The statement that computes everything, in two steps: conditions and hashes see the derived columns.

        Its results have names that no expression can mean: an alias must not be taken for a column.
        """
        rules = self._rules
        if not found.computed and not rules.where:
            return found
        seen = [_meant(name, columns) or name for name in references(rules.where)] if rules.where else []
        hashed = [name for name in found.computed if (mask := rules.mask.get(name)) and mask.kind == "hmac"]
        inner = [f"{enclosed(text)} AS {quoted(name)}" for name, text in rules.derive.items()]
        inner += [quoted(name) for name in dict.fromkeys([*seen, *hashed]) if name not in rules.derive]
        secrets: dict[str, bytes] = {}
        outer = []
        for number, name in enumerate(found.computed):
            expression = quoted(name)
            if name in hashed:
                secrets |= _pads(rules.mask[name].text, number)
                expression = _hmac(expression, columns[name], number)
            outer.append(f"{expression} AS _dpone_{number}")
        if rules.where:
            outer.append(f"coalesce({enclosed(rules.where)}, false) AS _dpone_stays")
        sql = f"SELECT {', '.join(outer)} FROM (SELECT {', '.join(inner) or '1'} FROM _dpone_rows) AS _dpone_derived"
        return replace(found, sql=sql, secrets=secrets)

    def _with_function(self, found: Transform, folder: Path) -> Transform:
        reference = self._rules.function
        function = functions.find(reference, folder)
        given = arrow_schema(found.columns)
        output = functions.output_of(function, reference, given)
        came = {column.name: column for column in found.columns}
        columns = []
        for item in output:
            known = came.get(item.name)
            logical = known.logical if known is not None and known.type == item.type else functions.logical_of(item)
            columns.append(Column(item.name, item.type, logical=logical, note=f"from {reference}"))  # type: ignore[arg-type]
        for old in dict.fromkeys((*self._key, self._cursor)):
            name = found.names.get(old, "")
            if name and name not in output.names:
                what = "the cursor" if old == self._cursor else "part of the key"
                self._add(("function",), f"{reference} leaves out {name}, which is {what}", "let it keep the column")
            elif name and old == self._cursor and output.field(name).type != came[name].type:
                self._add(("function",), f"{reference} gives the cursor {name} another type", "let it keep the column")
        self._raise_found()
        return replace(found, columns=tuple(columns), function=function, output=output)

    # -- problems ------------------------------------------------------------------------------------------------------

    def _add(self, keys: tuple[str, ...], message: str, remedy: str) -> None:
        problem = Problem(keys, message, remedy)
        if problem not in self._problems:
            self._problems.append(problem)

    def _unknown(self, keys: tuple[str, ...], name: str, columns: Mapping[str, Any]) -> None:
        old = self._rules.rename.get(name)
        close = [old] if old in columns else get_close_matches(name, columns, n=1)
        help_ = f"did you mean {close[0]}?" if close else f"there are {', '.join([*columns][:20])}"
        self._add(keys, f"there is no column {name} here", help_)

    def _raise_found(self) -> None:
        if self._problems:
            raise Problems(self._problems)


def touched(rules: Rules, names: Sequence[str]) -> tuple[str, ...]:
    """The columns of the source whose values an expression, a mask or the function looks at.

    They have to come in their canonical types. Expressions that cannot be parsed use nothing yet: compiling says why.
    """
    if rules.function:
        return tuple(names)
    looked: set[str] = {name for name, mask in rules.mask.items() if mask.kind != "null"}
    for text in filter(None, (*rules.derive.values(), rules.where)):
        try:
            looked |= {name.lower() for name in references(text)}
        except Refusal:
            continue
    return tuple(
        name
        for name in names
        if not looked.isdisjoint({rules.rename.get(name, name), rules.rename.get(name, name).lower()})
    )


def _meant(written: str, columns: Mapping[str, Any]) -> str | None:
    """The column of a name in an expression, whose case does not matter; an exact match first."""
    if written in columns:
        return written
    return next((name for name in columns if name.lower() == written.lower()), None)


def _hashable(column: Column) -> bool:
    types, type_ = pa.types, column.type
    return column.logical != "json" and (types.is_string(type_) or types.is_integer(type_) or types.is_binary(type_))


def _pads(secret: str, number: int) -> dict[str, bytes]:
    """The two padded keys of HMAC-SHA-256, https://www.rfc-editor.org/rfc/rfc2104#section-2."""
    key = secret.encode()
    key = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    return {f"i{number}": bytes(byte ^ 0x36 for byte in key), f"o{number}": bytes(byte ^ 0x5C for byte in key)}


def _hmac(expression: str, column: Column, number: int) -> str:
    message = expression if pa.types.is_binary(column.type) else f"encode({expression}::VARCHAR)"
    return f"sha256($o{number}::BLOB || unhex(sha256($i{number}::BLOB || {message})))"


def refused(problems: Problems) -> tuple[Problem, ConfigError]:
    """The first problem, for its place in the manifest, and the error that names all of them."""
    first = problems.found[0]
    if len(problems.found) == 1:
        return first, ConfigError(f"transform: {first.message}", remedy=first.remedy, code="DP150")
    listed = "; ".join(f"{problem.message} ({problem.remedy})" for problem in problems.found)
    remedy = "correct each of them as it says in parentheses"
    return first, ConfigError(f"transform: {listed}", remedy=remedy, code="DP150")
