"""What the strategies share: the publication to render, and the balance that comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol

from dpone.arrow.digest import undigestible
from dpone.sdk import Column, Digest, Results, Step, Table
from dpone.sql.dialect import Dialect

DELETED_AT = "_dpone_deleted_at"
"""When a row was found to be gone at the source, NULL while it is there: `deletes: soft` of a merge."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What a strategy renders: staged rows to be brought into a target.

    `columns` are the stored columns of the stream (native types of the sink). `managed` are the columns of the target
    that dpone fills itself: they are not staged, and no digest covers them. `added` are those of both that an existing
    target lacks. `primary_key` is the key that the strategy works by, if it does. `again` are the slices with rows that
    an earlier load may have brought already; `version` are the columns that tell versions of rows apart, none if only
    all of their values do. `gone` and `back` are the slices with the keys of rows that were deleted at the source, or
    are there again, and `deletes` what is done with them. `opened_at` is when the load was opened. `digest` asks for
    the steps of a proof.
    """

    dialect: Dialect
    target: Table
    stage: Table
    columns: tuple[Column, ...]
    exists: bool
    added: tuple[Column, ...] = ()
    primary_key: tuple[str, ...] = ()
    cursor: str = ""
    again: tuple[int, ...] = ()
    version: tuple[str, ...] = ()
    gone: tuple[int, ...] = ()
    back: tuple[int, ...] = ()
    deletes: Literal["ignore", "soft", "hard"] = "ignore"
    digest: bool = False
    managed: tuple[Column, ...] = ()
    partition_by: tuple[str, ...] = ()
    opened_at: str = ""

    @property
    def into(self) -> str:
        """The quoted target."""
        return self.dialect.table(self.target)

    @property
    def staged(self) -> str:
        """The quoted staging table."""
        return self.dialect.table(self.stage)

    @property
    def key(self) -> tuple[Column, ...]:
        """The key columns, in key order."""
        by_name = {column.name: column for column in self.columns}
        return tuple(by_name[name] for name in self.primary_key)

    def order(self, prefix: str = "") -> str:
        """The cursor as an expression that sorts as the source sorts."""
        native = next(column.native for column in self.columns if column.name == self.cursor)
        return self.dialect.ordered(prefix + self.dialect.quote(self.cursor), native)

    def names(self, prefix: str = "") -> str:
        """All columns, quoted."""
        return self.dialect.names(self.columns, prefix)

    def joined(self, left: str = "s", right: str = "t") -> str:
        """The predicate that two rows have one key.

        The staging column stands first: in SQLite its collation decides, and the target's may call more values equal.
        """
        return " AND ".join(f"{left}.{name} = {right}.{name}" for name in map(self.dialect.quote, self.primary_key))

    def ddl(self, key: tuple[str, ...] | None = None) -> list[Step]:
        """Create the target, with this key or its own; or keep other writers off it, and add the columns it lacks."""
        if not self.exists:
            columns = (*self.columns, *self.managed)
            made = self.dialect.create_table(self.target, columns, self.primary_key if key is None else key)
            return [Step("run", made)]
        hold = self.dialect.hold(self.target)
        held = [Step("run", hold)] if hold else []
        return held + [Step("run", self.dialect.add_column(self.target, column)) for column in self.added]

    def count(self, name: str, table: str) -> Step:
        """Count the rows of a table."""
        return Step("scalar", f"SELECT count(*) FROM {table}", name)

    def keyed(self) -> Step:
        """Count the staged rows whose key has no NULL."""
        key = " AND ".join(f"{name} IS NOT NULL" for name in map(self.dialect.quote, self.primary_key))
        return Step("scalar", f"SELECT count(*) FROM {self.staged} WHERE {key}", "keyed")

    def superseded(self) -> str:
        """The staged rows that are not the latest version of their key: by cursor, then by arrival."""
        d = self.dialect
        order = [f"{self.order()} DESC NULLS LAST"] if self.cursor else []
        order += ["_dpone_slice DESC", f"{d.arrival} DESC"]
        return (
            f"SELECT _dpone_at FROM (SELECT {d.arrival} AS _dpone_at, row_number() OVER "
            f"(PARTITION BY {d.names(self.key)} ORDER BY {', '.join(order)}) AS _dpone_version "
            f"FROM {self.staged}) AS v WHERE _dpone_version > 1"
        )

    def leave_out(self, name: str, rows: str) -> list[Step]:
        """Take the rows of a query of arrivals out of the staging table, digested first if a proof is asked for."""
        where = f"{self.dialect.arrival} IN ({rows})"
        proof = [self.digest_of(f"{name}_digest", self.staged, where)] if self.digest else []
        return [*proof, Step("rows", f"DELETE FROM {self.staged} WHERE {where}", name)]

    @property
    def marks(self) -> bool:
        """Whether rows of the target may be marked as deleted."""
        return any(column.name == DELETED_AT for column in self.managed)

    def among(self, slices: tuple[int, ...], *, among: bool = True) -> str:
        """The predicate that the key of a target row `t` is among these slices, or among the others."""
        listed = f"s._dpone_slice {'IN' if among else 'NOT IN'} ({', '.join(map(str, slices))})"
        return f"EXISTS (SELECT 1 FROM {self.staged} AS s WHERE {listed} AND {self.joined()})"

    def set_aside(self) -> list[Step]:
        """Take the keys of deleted rows out of the staging table, after they have done their work."""
        slices = ", ".join(map(str, (*self.gone, *self.back)))
        return [Step("run", f"DELETE FROM {self.staged} WHERE _dpone_slice IN ({slices})")] if slices else []

    def digest_of(self, name: str, table: str, where: str = "", prefix: str = "") -> Step:
        """Digest the rows of a table, in the columns that a digest is defined for."""
        columns = [column for column in self.columns if not undigestible(column)]
        names = self.dialect.names(columns, prefix)
        return Step("digest", f"(SELECT {names} FROM {table}{f' WHERE {where}' if where else ''}) AS r", name)


@dataclass(frozen=True, slots=True)
class Equation:
    """One equation of the ledger. `text` names the terms, the numbers are what was found."""

    text: str
    left: int
    right: int

    @property
    def holds(self) -> bool:
        """Whether both sides are equal."""
        return self.left == self.right

    def __str__(self) -> str:
        return f"{self.text}: {self.left} {'=' if self.holds else '!='} {self.right}"


@dataclass(frozen=True, slots=True)
class Balance:
    """What a publication did, read back from the sink."""

    staged: int
    before: int
    final: int
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    stale: int = 0
    collapsed: int = 0
    deleted: int = 0
    soft_deleted: int = 0
    reactivated: int = 0
    null_keys: int = 0
    sink: Digest | None = None
    equations: tuple[Equation, ...] = ()

    def with_filtered(self, read: int, filtered: int) -> Balance:
        """The balance of a load of which a transform left out rows: `read = staged + filtered` stands first."""
        first = Equation("read = staged + filtered", read, self.staged + filtered)
        return replace(self, equations=(first, *(e for e in self.equations if e.text != "read = staged")))

    @property
    def holds(self) -> bool:
        """Whether every equation holds."""
        return all(equation.holds for equation in self.equations)


class Strategy(Protocol):
    """One way to write.

    `managed` are the columns, in canonical types, that it needs in the target beside those of the stream. `live` says
    which rows of the target are what the source holds: those that have these values in these columns.
    """

    managed: ClassVar[tuple[Column, ...]] = ()
    live: ClassVar[Mapping[str, bool | None]] = {}

    def steps(self, publication: Publication) -> Sequence[Step]:
        """The publication as SQL, in order."""

    def balance(self, read: int, results: Results) -> Balance:
        """The counts and equations of a publication, from the number of rows read and the results of its steps."""


def number(results: Results, name: str) -> int:
    """A count among the results; a step that was skipped counts 0."""
    value = results.get(name)
    return value if isinstance(value, int) else 0


def digest_in(results: Results, name: str) -> Digest:
    """A digest among the results; one that was not asked for is empty."""
    value = results.get(name)
    return value if isinstance(value, Digest) else Digest()
