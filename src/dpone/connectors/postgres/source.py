"""PostgreSQL as a source: what is there, and one snapshot of one window of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from dpone.arrow.fidelity import manifest_line
from dpone.connectors.postgres.dialect import canonical, castable, family, known, portable
from dpone.connectors.postgres.session import PostgresSession
from dpone.errors import ConfigError, ConflictError, DataError, PermissionDenied, SchemaError
from dpone.sdk import Column, Stream, StreamSchema, Table, Window
from dpone.sql.source import CursorSql, Cut, Horizon, SqlReading, Written, choose_columns, join_name, split_name

if TYPE_CHECKING:
    from dpone.connectors.postgres.config import PostgresConfig

_KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}
_LOCKABLE = "rpv"  # LOCK TABLE takes tables and views: https://www.postgresql.org/docs/current/sql-lock.html
_PG_SNAPSHOT = 130000  # https://www.postgresql.org/docs/release/13.0/: "xid8"
_TID_SCAN = 140000  # https://www.postgresql.org/docs/release/14.0/: "ranges of TIDs"
_CURSORS = frozenset(
    {
        "smallint",
        "integer",
        "bigint",
        "numeric",
        "date",
        "timestamp without time zone",
        "timestamp with time zone",
        "text",
        "character varying",
    }
)
_ENDLESS = ("infinity", "-infinity", "NaN", "Infinity", "-Infinity")

_RELATION = """
SELECT c.oid, c.relkind::text, c.relpersistence::text, am.amname, has_schema_privilege(n.oid, 'USAGE'),
       c.relhassubclass, has_table_privilege(c.oid, 'SELECT'), pg_relation_filenode(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am am ON am.oid = c.relam
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""

# A domain is followed down to the type it is over (base); its array likewise stays as it is. Below arrays and their
# domains is what a type is made of in the end (core). Since version 18 rows from before a NOT NULL may have NULL, until
# it is validated: https://www.postgresql.org/docs/18/sql-altertable.html
_COLUMNS = """
WITH RECURSIVE base AS (
    SELECT a.attnum, a.atttypid AS type, a.atttypmod AS modifier FROM pg_attribute a
    WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
    SELECT b.attnum, t.typbasetype, CASE WHEN t.typtypmod >= 0 THEN t.typtypmod ELSE b.modifier END
    FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
), core AS (
    SELECT attnum, type FROM base JOIN pg_type t ON t.oid = type WHERE t.typtype <> 'd'
  UNION ALL
    SELECT c.attnum, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END FROM core c
    JOIN pg_type t ON t.oid = c.type WHERE t.typtype = 'd' OR (t.typelem <> 0 AND t.typlen = -1)
)
SELECT a.attname, format_type(a.atttypid, a.atttypmod), format_type(b.type, b.modifier),
       a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint n WHERE n.conrelid = a.attrelid AND n.contype = 'n'
                                    AND NOT n.convalidated AND n.conkey = ARRAY[a.attnum]),
       CASE WHEN e.typtype = 'e' THEN
           (SELECT array_agg(l.enumlabel ORDER BY l.enumsortorder) FROM pg_enum l WHERE l.enumtypid = e.oid) END,
       a.attndims, has_column_privilege(a.attrelid, a.attnum, 'SELECT'),
       coalesce((SELECT CASE WHEN co.collname = 'default' THEN d.datcollate ELSE co.collname END
                 FROM pg_collation co, pg_database d
                 WHERE co.oid = a.attcollation AND d.datname = current_database()), ''),
       x.typtype::text, xn.nspname, x.typname,
       coalesce((SELECT ext.extname FROM pg_depend dep JOIN pg_extension ext ON ext.oid = dep.refobjid
                 WHERE dep.classid = 'pg_type'::regclass AND dep.objid = x.oid AND dep.deptype = 'e'
                   AND dep.refclassid = 'pg_extension'::regclass), '')
FROM pg_attribute a
JOIN base b ON b.attnum = a.attnum
JOIN core c ON c.attnum = a.attnum
JOIN pg_type x ON x.oid = c.type AND x.typtype <> 'd' AND NOT (x.typelem <> 0 AND x.typlen = -1)
JOIN pg_namespace xn ON xn.oid = x.typnamespace
JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd'
LEFT JOIN pg_type e ON e.oid = CASE WHEN t.typelem <> 0 AND t.typlen = -1 THEN t.typelem ELSE t.oid END
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

_PRIMARY_KEY = """
SELECT a.attname FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = %s AND i.indisprimary AND k.place <= i.indnkeyatts
ORDER BY k.place
"""

_DISCOVER = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND c.relname !~ '^_dpone_'
ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""

# Same snapshot on the same server since the same start: the same rows. On a standby pg_current_snapshot() does not
# list what is in progress (https://www.postgresql.org/docs/current/functions-info.html), so it has no token.
_SNAPSHOT = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN concat_ws('/',
    {system}, extract(epoch FROM pg_postmaster_start_time()),
    (SELECT oid FROM pg_database WHERE datname = current_database()), pg_relation_filenode({oid}), {snapshot}()) END
"""


# The life of a cluster: a restored or promoted one begins a new timeline, and may give transaction numbers again.
_INSTANCE = """
SELECT concat_ws('/',
    CASE WHEN has_function_privilege('pg_control_system()', 'EXECUTE')
         THEN (SELECT system_identifier::text FROM pg_control_system()) ELSE inet_server_addr()::text END,
    CASE WHEN has_function_privilege('pg_control_checkpoint()', 'EXECUTE')
         THEN (SELECT timeline_id FROM pg_control_checkpoint()) END)
"""

# Of a partitioned table and of one that others inherit from, whatever holds the rows.
_NOT_HEAPS = """
WITH RECURSIVE below AS (
    SELECT %s::oid AS oid UNION ALL SELECT i.inhrelid FROM pg_inherits i JOIN below b ON i.inhparent = b.oid
)
SELECT c.oid::regclass::text FROM below JOIN pg_class c USING (oid) LEFT JOIN pg_am a ON a.oid = c.relam
WHERE c.relkind NOT IN ('r', 'p', 'm') OR (c.relkind <> 'p' AND a.amname <> 'heap') LIMIT 1
"""

# Who is at work in this database, and since when. A session that has just begun shows its query before its transaction.
_SESSIONS = """
SELECT pg_is_in_recovery(), pg_has_role('pg_read_all_stats', 'USAGE'),
       (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()),
       count(*) FILTER (WHERE state = 'disabled'),
       least(min(began), statement_timestamp() - %s::interval)::text,
       (array_agg(pid ORDER BY began) FILTER (WHERE began < statement_timestamp() - %s::interval))[1]
FROM (SELECT pid, state, coalesce(xact_start, CASE WHEN state <> 'idle' THEN query_start END) AS began
      FROM pg_stat_activity
      WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
        AND backend_type NOT IN ('autovacuum worker', 'walsender', 'parallel worker')) AS a
"""
_MARGIN = "1 second"  # between a transaction's now() and the moment in which others can see that it has begun

_XMIN = "xmin"


class _Relation(NamedTuple):
    oid: int
    kind: str
    persistence: str
    access: str | None
    usable: bool
    parent: bool
    granted: bool
    filenode: int | None


@dataclass(frozen=True, slots=True)
class _Found:
    """A column as the catalog has it. `base` is the type below all domains.

    `core` is what is below all arrays and their domains too: its kind, schema, name and extension, for `known`.
    """

    name: str
    native: str
    base: str
    not_null: bool
    labels: tuple[str, ...]
    dimensions: int
    readable: bool
    collation: str
    core: tuple[str, str, str, str]


class PostgresSource:
    """See `dpone.sdk.Source`. The connection is made by the first call."""

    def __init__(self, config: PostgresConfig) -> None:
        self._config = config
        self._opened: PostgresSession | None = None

    def describe(self, stream: Stream) -> StreamSchema:
        """See `Source.describe`. PermissionDenied names the GRANT that is missing."""
        session = self._pinned(stream)
        table = Table(*split_name(stream.name, "public"))
        relation = self._relation(stream, table)
        columns = self._columns(stream, table, relation)
        names = {column.name for column in columns}
        key = tuple(str(row[0]) for row in session.rows(_PRIMARY_KEY, (relation.oid,)))
        return StreamSchema(
            columns,
            primary_key=key if names.issuperset(key) else (),
            estimated_rows=self._estimate(stream, table, relation, columns),
            server_version=f"{session.version // 10000}.{session.version % 10000}",
            instance=str(session.rows(_INSTANCE)[0][0]) if stream.cursor else "",
        )

    def open(self, stream: Stream, schema: StreamSchema, window: Window) -> SqlReading:
        """See `Source.open`. The table is locked against changes of its columns until the reading is closed."""
        session = self._pinned(stream)
        table = Table(*split_name(stream.name, "public"))
        relation_sql = session.dialect.table(table)
        before = self._relation(stream, table)
        horizon = self._horizon(stream, before) if stream.clock else None  # before the snapshot, which sees more
        # The lock comes before the snapshot: a table rewritten or truncated in between would look empty to it
        # (https://www.postgresql.org/docs/current/mvcc-caveats.html). What LOCK TABLE does not take is looked at again.
        lockable = before.kind in _LOCKABLE and before.granted
        lock = f"LOCK TABLE {relation_sql} IN ACCESS SHARE MODE" if lockable else f"SELECT FROM {relation_sql} LIMIT 0"
        session.begin_snapshot(lock)
        try:
            relation = self._relation(stream, table)
            self._unchanged(stream, table, relation, schema, relation if lockable else before)
            by_writing = stream.cursor and not stream.clock and stream.lookback is None
            reading = SqlReading(
                session,
                replace(stream, cursor="") if self._by_xmin(stream, relation) else stream,
                schema,
                window,
                relation=relation_sql,
                cursor=self._cursor(stream, relation),
                cut=self._cut(stream, schema, relation, window),
                snapshot=self._snapshot(stream, relation),
                horizon=horizon,
                written=self._written(stream, relation) if by_writing else None,
                on_close=session.rollback,
            )
            _check_end(stream, reading.window)
        except BaseException:
            session.rollback()
            raise
        return reading

    def discover(self) -> Sequence[str]:
        """Tables, views, materialized views and foreign tables, as `schema.name`; a partition is not listed."""
        return [join_name(Table(str(schema), str(name))) for schema, name in self._session().rows(_DISCOVER)]

    def close(self) -> None:
        """Release the connection."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _session(self) -> PostgresSession:
        if self._opened is None:
            self._opened = PostgresSession(self._config, "source")
        return self._opened

    def _pinned(self, stream: Stream) -> PostgresSession:
        session = self._session()
        if stream.keep_native:
            # Money has the decimals of lc_monetary; source and sink agree on C while its text travels between them
            # (https://www.postgresql.org/docs/current/datatype-money.html).
            session.execute("SELECT set_config('lc_monetary', 'C', false)")
        return session

    # -- describing ----------------------------------------------------------------------------------------------

    def _relation(self, stream: Stream, table: Table) -> _Relation:
        session = self._session()
        rows = session.rows(_RELATION, (table.schema, table.name))
        if not rows:
            known = self.discover()
            close = get_close_matches(join_name(table), known, n=1, cutoff=0.6)
            raise SchemaError(
                f"{stream.name} does not exist in {self._config.identity}",
                remedy=f"did you mean {close[0]}?" if close else "list what is there with `dpone init`",
                code="DP401",
            )
        relation = _Relation(*rows[0])
        if not relation.usable:
            role, schema = (session.dialect.quote(name) for name in (session.user, table.schema))
            raise PermissionDenied(
                f"reading {stream.name}: role {session.user} may not use the schema {table.schema}",
                remedy=f"GRANT USAGE ON SCHEMA {schema} TO {role};",
            )
        return relation

    def _found(self, relation: _Relation) -> list[_Found]:
        rows = self._session().rows(_COLUMNS, (relation.oid, relation.oid))
        # A foreign table only says NOT NULL, and a table that inherits may have dropped it.
        enforced = relation.kind == "p" or (relation.kind == "r" and not relation.parent)
        found = []
        for name, native, base, not_null, labels, dimensions, readable, collation, *core in rows:
            kind, schema, below, extension = core
            found.append(
                _Found(
                    name=name,
                    native=native,
                    base=base,
                    not_null=not_null and enforced,
                    labels=tuple(labels or ()),
                    dimensions=dimensions,
                    readable=readable,
                    collation=collation,
                    core=(kind, schema, below, extension),
                )
            )
        return found

    def _columns(self, stream: Stream, table: Table, relation: _Relation) -> tuple[Column, ...]:
        found = {column.name: column for column in self._found(relation)}
        named = replace(stream, cursor="") if self._by_xmin(stream, relation) else stream
        chosen = choose_columns(named, tuple(_column(stream, column) for column in found.values()))
        self._readable(stream, table, list(found.values()), {column.name for column in chosen})
        return tuple(_cast(stream, column, found[column.name]) for column in chosen)

    def _readable(self, stream: Stream, table: Table, found: Sequence[_Found], needed: set[str]) -> None:
        denied = [column.name for column in found if column.name in needed and not column.readable]
        if not denied:
            return
        session = self._session()
        quote = session.dialect.quote
        some = f" ({', '.join(map(quote, denied))})" if len(denied) < len(found) else ""
        raise PermissionDenied(
            f"reading {stream.name}: role {session.user} may not select {', '.join(denied) if some else 'from it'}",
            remedy=f"GRANT SELECT{some} ON {session.dialect.table(table)} TO {quote(session.user)};",
        )

    def _estimate(self, stream: Stream, table: Table, relation: _Relation, columns: Sequence[Column]) -> int | None:
        """The planner's own estimate. Planning the query also checks the filter and the casts."""
        session = self._session()
        expressions = ", ".join(session.dialect.read(column) for column in columns)
        where = f" WHERE ({stream.filter})" if stream.filter else ""
        sql = f"EXPLAIN (FORMAT JSON) SELECT {expressions} FROM {session.dialect.table(table)}{where}"
        [(plan,)] = session.rows(sql)
        if relation.kind in "rm" and not relation.parent:
            [(size,)] = session.rows("SELECT pg_relation_size(%s::oid)", (relation.oid,))
            if size == 0:
                return 0  # the planner would assume ten pages
        document: Any = plan if isinstance(plan, list) else json.loads(plan)
        return int(document[0]["Plan"]["Plan Rows"])

    # -- opening -------------------------------------------------------------------------------------------------

    def _unchanged(
        self, stream: Stream, table: Table, relation: _Relation, schema: StreamSchema, before: _Relation
    ) -> None:
        if relation.filenode != before.filenode:
            raise _changed(f"{stream.name} was rewritten")
        now = {column.name: column for column in self._columns(stream, table, relation)}
        for column in schema.columns:
            found = now.get(column.name)
            if found is None or (found.native, found.type, found.kept) != (column.native, column.type, column.kept):
                raise _changed(f"column {column.name} of {stream.name} changed")

    def _cut(self, stream: Stream, schema: StreamSchema, relation: _Relation, window: Window) -> Cut:
        """Ranges of the pages of a heap, each about `slice_rows` rows; a later cursor window stays in one piece."""
        session = self._session()
        later = bool(stream.cursor) and not window.full and window.after is not None
        if relation.kind not in "rm" or relation.access != "heap" or relation.parent or later:
            return Cut()
        if session.version < _TID_SCAN:
            return Cut()
        [(pages, rows)] = session.rows(
            "SELECT pg_relation_size(oid) / current_setting('block_size')::integer, "
            "CASE WHEN relpages > 0 AND reltuples > 0 THEN reltuples / relpages END FROM pg_class WHERE oid = %s",
            (relation.oid,),
        )
        total = int(pages * rows) if rows else schema.estimated_rows or 0
        pieces = max(1, min(int(pages), -(-total // max(1, stream.slice_rows))))
        borders = (int(pages) * number // pieces for number in range(1, pieces))
        return Cut("ctid", tuple(f"'({page},0)'::tid" for page in borders))

    def _cursor(self, stream: Stream, relation: _Relation) -> CursorSql:
        if not stream.cursor or self._by_xmin(stream, relation):
            return CursorSql("{}".format, "{}".format)
        column = next(column for column in self._found(relation) if column.name == stream.cursor)
        kind = family(column.base)
        if kind not in _CURSORS:
            raise SchemaError(
                f"{stream.name}: the cursor {stream.cursor} is a {column.base}, which has no exact order to read by",
                remedy="choose a column of an integer, numeric, date or timestamp type",
                code="DP404",
            )
        if kind in ("text", "character varying") and column.collation not in ("C", "POSIX"):
            raise SchemaError(
                f"{stream.name}: the cursor {stream.cursor} is text ordered by the collation {column.collation}, "
                "which changes with the server's libraries",
                remedy='choose another cursor, or a view with the column COLLATE "C"',
                code="DP404",
            )
        return CursorSql("({})::text".format, ("{}::" + kind).format, partial(_back, kind))

    # -- what is committed late ----------------------------------------------------------------------------------

    def _by_xmin(self, stream: Stream, relation: _Relation) -> bool:
        """Whether the cursor is the system column; only a view may have another of that name."""
        return stream.cursor == _XMIN and relation.kind != "v"

    def _written(self, stream: Stream, relation: _Relation) -> Written:
        """Rows by the transaction that wrote them, which a heap keeps in each of them.

        All transactions below the xmin of a snapshot had ended when it was taken, subtransactions and prepared ones
        included; a row belongs to the one window in which its transaction is passed by that border.
        https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
        """
        session = self._session()
        other = "it is a view" if relation.kind == "v" else ""
        other = other or next((f"{row[0]} is no heap" for row in session.rows(_NOT_HEAPS, (relation.oid,))), "")
        if other:
            raise ConfigError(
                f"{stream.name}: rows that are committed late, with a {stream.cursor} of before, would be missed: "
                f"{other}, which does not say when a row was written",
                remedy="set how late they may be, cursor: {column: ..., lookback: 1h}, or say that the database's own "
                "now() gives the value: {column: ..., clock: transaction}",
                code="DP138",
            )
        prefix, now = ("pg", "pg_current") if session.version >= _PG_SNAPSHOT else ("txid", "txid_current")
        ends = (f"{prefix}_snapshot_{end}({now}_snapshot())::text" for end in ("xmin", "xmax"))
        [(low, high)] = session.rows(f"SELECT {', '.join(ends)}")
        # age() counts from one number for the whole transaction. It is negative for rows that are more than 2^31
        # transactions old, which VACUUM has frozen: https://www.postgresql.org/docs/current/routine-vacuuming.html
        [(age,)] = session.rows("SELECT age(%s::xid)", (str(int(low) % 2**32),))

        def between(since: str, seen: str) -> str:
            oldest = age + int(low) - int(since) if since else 0
            if oldest >= 2**31:
                raise ConflictError(
                    f"{stream.name} was last loaded {oldest:,} transactions ago, further than a row remembers",
                    remedy=f"load it anew: dpone reset -s {stream.name}",
                    code="DP703",
                )
            youngest = age + int(low) - int(seen) if seen else -1
            if since:
                return f"(age(xmin) > {youngest} AND age(xmin) <= {oldest})"
            return f"(age(xmin) > {youngest} OR age(xmin) < 0)"

        rule = "everything committed" if low == high else f"written before transaction {low}, the oldest one open"
        return Written(str(low), between, rule)

    def _horizon(self, stream: Stream, relation: _Relation) -> Horizon:
        """The earliest start of all open transactions: none of them, and none that begins later, can go below it.

        https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
        """
        session = self._session()
        column = next((column for column in self._found(relation) if column.name == stream.cursor), None)
        kind = family(column.base) if column is not None else "system column"
        [(standby, granted, prepared, silent, below, pid)] = session.rows(_SESSIONS, (_MARGIN, _MARGIN))
        if not granted:
            role = session.dialect.quote(session.user)
            raise PermissionDenied(
                f"{stream.name}: role {session.user} does not see since when other sessions have transactions open",
                remedy=f"GRANT pg_read_all_stats TO {role}; or leave clock out; or set a lookback",
            )
        why = (
            (f"the cursor is a {kind}" if kind != "timestamp with time zone" else "")
            or ("its rows are written by another server" if relation.kind == "f" else "")
            or ("this is a standby, where the sessions of the primary are not seen" if standby else "")
            or (f"{prepared} prepared transactions are open, whose start is not recorded" if prepared else "")
            or (f"{silent} sessions do not report what they do (track_activities)" if silent else "")
        )
        if why:
            raise ConfigError(
                f"{stream.name}: clock: transaction does not bound what can be committed late: {why}",
                remedy="leave clock out, which finds late rows by the transaction that wrote them; or set a lookback",
                code="DP138",
            )
        how = f"the start of the oldest open transaction (pid {pid})" if pid else "when no transaction was open"
        return Horizon(below, f"before {below}, {how}")

    def _snapshot(self, stream: Stream, relation: _Relation) -> str:
        """Empty where equal snapshots may still read different rows: views, foreign and unlogged tables, filters."""
        session = self._session()
        if relation.kind not in "rm" or relation.persistence != "p" or relation.parent or stream.filter:
            return ""
        function = "pg_current_snapshot" if session.version >= _PG_SNAPSHOT else "txid_current_snapshot"
        [(readable,)] = session.rows("SELECT has_function_privilege('pg_control_system()', 'EXECUTE')")
        system = "(SELECT system_identifier FROM pg_control_system())" if readable else "inet_server_addr()"
        [(token,)] = session.rows(_SNAPSHOT.format(system=system, oid=int(relation.oid), snapshot=function))
        return str(token or "")


def _back(kind: str, value: str, lookback: timedelta | int) -> str:
    """See `CursorSql.back`: times go back by an interval, numbers by a number."""
    if kind in ("text", "character varying") or isinstance(lookback, timedelta) != kind.startswith(("date", "time")):
        return ""
    if isinstance(lookback, int):
        return f"{value} - {lookback:d}"
    return f"({value} - interval '{lookback // timedelta(microseconds=1)} microseconds')::{kind}"


def _changed(what: str) -> ConflictError:
    return ConflictError(f"{what} while the run was planned", remedy="run again: the plan is made anew", retryable=True)


def _check_end(stream: Stream, window: Window) -> None:
    if stream.cursor and window.until in _ENDLESS:
        raise DataError(
            f"the cursor {stream.cursor} of {stream.name} holds infinity or NaN, so no later row would ever be newer",
            remedy="leave such rows out with filter, or choose another cursor",
            code="DP414",
        )


def _column(stream: Stream, found: _Found) -> Column:
    nullable = not found.not_null
    if stream.keeps(found.name) and portable(found.base):
        return Column(found.name, canonical("text").type, nullable, native=found.native, kept=True, enum=_enum(found))
    if not known(*found.core):
        extension = found.core[3]
        whose = f"a type of the extension {extension}" if extension else "a type of its own"
        note = (
            f"{found.native} is {whose}, and whether its text holds the whole value is not known; if it does, read it "
            f"as {manifest_line(cast={found.name: 'text'})}"
        )
        return Column(found.name, canonical("text").type, nullable, native=found.base, fidelity="refused", note=note)
    form = canonical(found.base)
    if found.dimensions > 1 and form.type != canonical("text").type:
        note = f"{found.native} is declared with {found.dimensions} dimensions: read as text"
        form = replace(canonical("text"), fidelity="widened", note=note)
    return Column(
        found.name,
        form.type,
        nullable,
        form.logical,
        native=found.base,
        enum=_enum(found),
        fidelity=form.fidelity,
        note=form.note,
    )


def _cast(stream: Stream, column: Column, found: _Found) -> Column:
    wanted = stream.casts.get(column.name)
    if wanted is None:
        return column
    if not castable(found.base, column.type, column.logical):
        raise SchemaError(
            f"{stream.name}: column {column.name} is a {found.base}, which cannot be read as {wanted}",
            remedy=f"{manifest_line(cast={column.name: 'text'})} is always possible",
            code="DP404",
        )
    return replace(column, native=found.base)


def _enum(found: _Found) -> tuple[str, ...]:
    return found.labels if found.native == found.base else ()


__all__ = ["PostgresSource"]
