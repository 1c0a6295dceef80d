"""What an SQLite file says of its tables (https://www.sqlite.org/pragma.html#pragma_table_xinfo)."""

from __future__ import annotations

from dataclasses import dataclass

from dpone.connectors.sqlite.session import SqliteSession
from dpone.errors import SchemaError

SCHEMA = "main"


@dataclass(frozen=True, slots=True)
class Declared:
    """One column as it was declared. `key` is its place in the primary key, from 1, or 0."""

    name: str
    native: str
    required: bool
    default: str | None
    key: int


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or a view.

    `rowid` is a name that reaches the row number, or empty. `alias` is the column that *is* the row number: an
    INTEGER PRIMARY KEY, never NULL (https://www.sqlite.org/lang_createtable.html#rowid).
    """

    name: str
    is_view: bool
    sql: str
    columns: tuple[Declared, ...]
    rowid: str
    alias: str

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The key columns in the order of the key."""
        return tuple(column.name for column in sorted(self.columns, key=lambda column: column.key) if column.key)

    def nullable(self, column: Declared) -> bool:
        """Whether a column can hold NULL: a key column can, except where it is the row number or there is none."""
        without_rowid = not self.is_view and not self.rowid and column.key > 0 and not self._shadowed
        return not (column.required or column.name == self.alias or without_rowid)

    @property
    def _shadowed(self) -> bool:
        """Whether columns took all three names of the row number, so that a missing one says nothing."""
        return len(_ROWID & {column.name.lower() for column in self.columns}) == len(_ROWID)


_ROWID = {"rowid", "oid", "_rowid_"}


def names(session: SqliteSession) -> list[str]:
    """All tables and views of the file, without SQLite's and dpone's own, sorted."""
    rows = session.rows("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
    return sorted(name for (name,) in rows if not name.lower().startswith(("sqlite_", "_dpone_")))


def find(session: SqliteSession, name: str) -> Relation | None:
    """A table or view, or None. To SQLite, names that differ in the case of ASCII letters are one name."""
    found = session.rows(
        "SELECT name, type, coalesce(sql, '') FROM sqlite_master WHERE type IN ('table', 'view') "
        "AND name = ? COLLATE NOCASE",
        (name,),
    )
    if not found:
        return None
    real, kind, sql = found[0]
    columns = tuple(
        Declared(column, native, bool(required), default, key)
        for _, column, native, required, default, key, hidden in session.rows(
            f"PRAGMA {session.dialect.quote(SCHEMA)}.table_xinfo({session.dialect.quote(real)})"
        )
        if hidden != 1  # the hidden columns of virtual tables; 2 and 3 are generated columns, which can be read
    )
    rowid = "" if kind == "view" else _rowid(session, real, columns)
    return Relation(real, kind == "view", sql, columns, rowid, _alias(session, real, columns) if rowid else "")


def need_schema(schema: str) -> None:
    """Raise SchemaError for a schema that an SQLite file does not have."""
    if schema not in ("", SCHEMA):
        raise SchemaError(
            f"an SQLite file has one schema, {SCHEMA}, and no {schema}",
            remedy="write the name of the table alone",
            code="DP402",
        )


def _rowid(session: SqliteSession, table: str, columns: tuple[Declared, ...]) -> str:
    taken = {column.name.lower() for column in columns}
    for name in ("rowid", "_rowid_", "oid"):
        if name not in taken:
            try:
                session.rows(f"SELECT {name} FROM {session.dialect.quote(table)} LIMIT 0")
            except SchemaError:  # WITHOUT ROWID
                return ""
            return name
    return ""


def _alias(session: SqliteSession, table: str, columns: tuple[Declared, ...]) -> str:
    keys = [column for column in columns if column.key]
    if len(keys) != 1 or keys[0].native.upper() != "INTEGER":
        return ""
    # "INTEGER PRIMARY KEY DESC" is an ordinary column with an index of its own.
    indexes = session.rows(f"PRAGMA index_list({session.dialect.quote(table)})")
    return "" if any(origin == "pk" for _, _, _, origin, *_ in indexes) else keys[0].name
