"""PostgreSQL as a sink: what a target looks like, the lock on a stream, and the types a kept column needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dpone.arrow.fidelity import manifest_line
from dpone.connectors.postgres.dialect import PostgresDialect, family, lock_number, type_parts
from dpone.connectors.postgres.lock import Lock
from dpone.connectors.postgres.session import PostgresSession
from dpone.errors import Cancelled, ConflictError, PermissionDenied, SchemaError, SinkUnavailable
from dpone.sdk import (
    Column,
    Digest,
    LoadSpec,
    NativeType,
    Receipt,
    Standing,
    StreamKey,
    StreamState,
    Table,
    TargetSchema,
)
from dpone.sql.lease import Heart
from dpone.sql.sink import SqlClaim, SqlLoad, TargetParts, digest_target, inspect, standing, transaction
from dpone.sql.state import State

if TYPE_CHECKING:
    import pyarrow as pa

    from dpone.connectors.postgres.config import PostgresConfig
    from dpone.sql.dialect import Session


_SCHEMA = """
SELECT has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = %s
"""

_TARGET = """
SELECT c.oid, c.relkind::text,
       ARRAY(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p
             WHERE NOT has_table_privilege(c.oid, p))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s
"""

# An enumerated type is named as `PostgresDialect.native` names it, always quoted.
_COLUMNS = """
SELECT a.attname,
       CASE WHEN e.oid IS NULL THEN format_type(a.atttypid, a.atttypmod)
            ELSE concat('"', replace(n.nspname, '"', '""'), '"."', replace(e.typname, '"', '""'), '"',
                        CASE WHEN e.oid <> t.oid THEN '[]' END) END,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = ''
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_type e
  ON e.typtype = 'e' AND e.oid = CASE WHEN t.typlen = -1 AND t.typelem <> 0 THEN t.typelem ELSE t.oid END
LEFT JOIN pg_namespace n ON n.oid = e.typnamespace
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""

# What DELETE and INSERT of all rows would change elsewhere: https://www.postgresql.org/docs/current/ddl-constraints.html
_HANGING = """
SELECT concat('the foreign key ', conname, ' of ', conrelid::regclass, ' cascades')
FROM pg_constraint WHERE confrelid = %s AND contype = 'f' AND confdeltype IN ('c', 'n', 'd')
UNION ALL
SELECT concat(i.inhrelid::regclass, ' inherits from it') FROM pg_inherits i
JOIN pg_class p ON p.oid = i.inhparent AND p.relkind = 'r' WHERE i.inhparent = %s
"""

_LABELS = """
SELECT t.typtype::text,
       ARRAY(SELECT e.enumlabel FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)::text[]
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = %s AND t.typname = %s
"""


class PostgresSink:
    """See `dpone.sdk.Sink`. One connection stages, commits and holds the lock, so none of them outlives the others.

    A load that takes longer than a quarter of a lease uses a second one, to renew the lease.
    """

    def __init__(self, config: PostgresConfig) -> None:
        self._config = config
        self._opened: PostgresSession | None = None
        self._heart: Heart | None = None
        self.dialect = SinkDialect(lambda column, schema: _lacking(self._session(), column, schema))

    def describe(self, target: Table) -> TargetSchema | None:
        """See `Sink.describe`. PermissionDenied names the GRANT that is missing."""
        if not self._schema(target.schema):
            return None
        session = self._session()
        rows = session.rows(_TARGET, (target.schema, target.name))
        if not rows:
            return None
        oid, kind, missing = rows[0]
        if kind not in "rp":
            raise SchemaError(
                f"{target} in {self._config.identity} is not a table",
                remedy="give another name with target:",
                code="DP403",
            )
        if missing:
            role, table = session.dialect.quote(session.user), session.dialect.table(target)
            raise PermissionDenied(
                f"writing {target}: role {session.user} lacks {', '.join(missing)}",
                remedy=f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role};",
            )
        columns = session.rows(_COLUMNS, (oid,))
        return TargetSchema(
            {name: native for name, native, _ in columns},
            required=frozenset(name for name, _, required in columns if required),
            not_replaceable="; ".join(str(row[0]) for row in session.rows(_HANGING, (oid, oid))),
        )

    def last_receipt(self, key: StreamKey) -> Receipt | None:
        """See `Sink.last_receipt`: dpone's tables live in the target's schema."""
        state = State(self._session(), key.target.schema)
        return state.receipt(key) if state.check() else None

    def standing(self, key: StreamKey, receipt: Receipt | None) -> Standing:
        """See `Stands.standing`."""
        session = self._session()
        state, found = State(session, key.target.schema), self.describe(key.target)
        return standing(session, state, key, found, receipt) if found is not None and state.check() else Standing()

    def inspect(self, key: StreamKey) -> StreamState:
        """See `Inspects.inspect`."""
        session = self._session()
        state = State(session, key.target.schema)
        if not state.check():
            return StreamState()
        return inspect(state, key, Lock(session, key).holder())

    def claim(self, key: StreamKey, *, run_id: str, holder: str) -> PostgresClaim:
        """See `Sink.claim`. The lock is a session's advisory lock, so it ends with the connection that commits.

        https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
        """
        if not self._schema(key.target.schema):
            self._create_schema(key.target.schema)
        session = self._session()
        lock = Lock(session, key)
        try:
            before = lock.take()
            claim = PostgresClaim(session, key, run_id, holder, lambda: self._unlock(session, lock))
            if before is not None:
                claim.notes.append(f"took over from {before}, which had stood still for longer than its lease")
            self._heart = Heart(lambda: PostgresSession(self._config, "sink"), key, session.backend)
        except ConflictError as error:
            if error.code != "DP701":
                self.close()
            raise
        except BaseException:
            self.close()  # and with it the lock
            raise
        return claim

    def digest(
        self,
        target: Table,
        columns: tuple[Column, ...],
        *,
        without: tuple[tuple[Column, ...], Iterator[pa.RecordBatch]] | None = None,
        live: Mapping[str, bool | None] | None = None,
    ) -> Digest:
        """The digest of a target, computed by the server, for `dpone verify`."""
        return digest_target(self._session(), target, columns, without, live)

    def compared(self, target: Table, live: Mapping[str, bool | None]) -> TargetParts:
        """See `dpone.sdk.ComparesTarget`."""
        return TargetParts(self._session(), target, live)

    def close(self) -> None:
        """Release the connections and the lock."""
        self._rest()
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _unlock(self, session: PostgresSession, lock: Lock) -> None:
        self._rest()
        with contextlib.suppress(SinkUnavailable, Cancelled):  # the lock went with the connection
            if self._opened is session:
                lock.release()

    def _rest(self) -> None:
        if self._heart is not None:
            self._heart.stop()
            self._heart = None

    def _session(self) -> PostgresSession:
        if self._opened is None:
            self._opened = PostgresSession(self._config, "sink")
            # Kept money travels with the decimals of one fixed locale, as the source sends it.
            self._opened.execute("SELECT set_config('lc_monetary', 'C', false)")
        return self._opened

    def _schema(self, name: str) -> bool:
        """Whether the target's schema is there and usable; False when it may be created. Raises SchemaError."""
        session = self._session()
        rows = session.rows(_SCHEMA, (name,))
        quoted = self.dialect.quote(name)
        if not rows:
            if self._config.create_schema:
                return False
            raise SchemaError(
                f"schema {name} does not exist in {self._config.identity}",
                remedy=f"CREATE SCHEMA {quoted}; or set the option create_schema: true of the sink",
                code="DP402",
            )
        missing = [privilege for privilege, granted in zip(("USAGE", "CREATE"), rows[0], strict=True) if not granted]
        if missing:
            raise PermissionDenied(
                f"writing to schema {name}: role {session.user} lacks {' and '.join(missing)}",
                remedy=f"GRANT USAGE, CREATE ON SCHEMA {quoted} TO {self.dialect.quote(session.user)};",
            )
        return True

    def _create_schema(self, name: str) -> None:
        session = self._session()
        with transaction(session):
            session.rows(self.dialect.one_at_a_time)  # IF NOT EXISTS does not keep two sessions from colliding
            session.execute(f"CREATE SCHEMA IF NOT EXISTS {self.dialect.quote(name)}")


class SinkDialect(PostgresDialect):
    """The dialect of one sink: a type that a kept column needs and the sink lacks is refused, so in the plan.

    `lacking` says why a column cannot be stored in a schema, or gives an empty text; it is asked once for each type.
    """

    def __init__(self, lacking: Callable[[Column, str], str]) -> None:
        self._lacking = lacking
        self._known: dict[tuple[str, tuple[str, ...], str], str] = {}

    def native(self, column: Column, schema: str = "") -> NativeType:
        """See `Dialect.native`."""
        found = super().native(column, schema)
        if not column.kept or not (column.enum or "." in column.native):
            return found
        key = (column.native, column.enum, schema)
        if key not in self._known:
            self._known[key] = self._lacking(column, schema)
        if self._known[key]:
            way_out = f"create it there, or read the column as text: {manifest_line(cast={column.name: 'text'})}"
            return replace(found, fidelity="refused", note=f"{self._known[key]}; {way_out}")
        # The same words whether it is there by now or not: a plan must not change by the load that it began.
        return replace(found, note=f"made if missing: {_create_type(self, column, schema)}") if column.enum else found


def _create_type(dialect: PostgresDialect, column: Column, schema: str) -> str:
    labels = ", ".join(dialect.literal(label) for label in column.enum)
    return f"CREATE TYPE {dialect.table(Table(schema, type_parts(column.native)[1]))} AS ENUM ({labels})"


def _lacking(session: Session, column: Column, schema: str) -> str:
    """Why the sink cannot store the type of a kept column, or an empty text. An enumerated type may be made."""
    if column.enum:
        name = type_parts(column.native)[1]
        found = session.rows(_LABELS, (schema, name))
        if found and (found[0][0] != "e" or tuple(found[0][1]) != column.enum):
            return f"the type {schema}.{name} exists in the sink with other labels"
        return ""
    # to_regtype takes no modifier: https://www.postgresql.org/docs/current/functions-info.html
    [(known,)] = session.rows("SELECT to_regtype(%s) IS NOT NULL", (family(column.native),))
    return "" if known else f"the type {column.native} does not exist in the sink"


class PostgresClaim(SqlClaim):
    """The claim, which also sees to it that the types of kept columns exist before a table needs them."""

    def begin(self, spec: LoadSpec) -> SqlLoad:
        """See `SqlClaim.begin`. Raises SchemaError naming the column whose type the sink lacks or has otherwise."""
        with transaction(self._session):
            for column in spec.columns:
                if column.kept and (column.enum or "." in column.native):
                    self._type(column, spec.key.target.schema)
        return super().begin(spec)

    def _type(self, column: Column, schema: str) -> None:
        session = self._session
        table = Table(schema, type_parts(column.native)[1])
        # Two streams may need the same type at the same moment.
        session.rows("SELECT pg_advisory_xact_lock(%s::bigint)", (lock_number(f"type {table}"),))
        why = _lacking(session, column, schema)
        if why:
            raise SchemaError(
                f"column {column.name}: {why}",
                remedy="create the type or its extension there, with the labels of the source in their order, or read "
                f"it as text: {manifest_line(cast={column.name: 'text'})}",
                code="DP406",
            )
        if column.enum and not session.rows(_LABELS, (schema, table.name)):
            session.execute(_create_type(PostgresDialect(), column, schema))


__all__ = ["PostgresClaim", "PostgresSink"]
