"""What the strategies share: the publication to render, and the balance that comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from dpone.arrow.digest import undigestible
from dpone.sdk import Column, Digest, Results, Step, Table
from dpone.sql.dialect import Dialect


@dataclass(frozen=True, slots=True)
class Publication:
    """What a strategy renders: staged rows to be brought into a target.

    `columns` are the stored columns (native types of the sink). `added` are those that an existing target lacks.
    `inclusive` says that the rows at the last checkpoint were read again. `digest` asks for the steps of a proof.
    """

    dialect: Dialect
    target: Table
    stage: Table
    columns: tuple[Column, ...]
    exists: bool
    added: tuple[Column, ...] = ()
    primary_key: tuple[str, ...] = ()
    cursor: str = ""
    inclusive: bool = False
    digest: bool = False

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

    def ddl(self) -> list[Step]:
        """Create the target; or keep other writers off it, and add the columns that it lacks."""
        if not self.exists:
            return [Step("run", self.dialect.create_table(self.target, self.columns, self.primary_key))]
        hold = self.dialect.hold(self.target)
        held = [Step("run", hold)] if hold else []
        return held + [Step("run", self.dialect.add_column(self.target, column)) for column in self.added]

    def count(self, name: str, table: str) -> Step:
        """Count the rows of a table."""
        return Step("scalar", f"SELECT count(*) FROM {table}", name)

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
    """One way to write."""

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
