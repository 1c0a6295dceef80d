"""dpone's own tables in a SQL sink: the lock, the open loads, the slice receipts, the receipts, the run records.

They live beside the target, in its schema, and are written in the same transactions as the data. All columns are
text and integers, so that every system holds them alike; documents are JSON.

    _dpone_meta     layout version of these tables
    _dpone_locks    one row per stream: fencing token, run and holder, and the token of the last commit
    _dpone_leases   one row per stream that is held, on servers: the session that holds it, and until when
    _dpone_loads    one row per load: open, committed (then it is a receipt) or aborted
    _dpone_slices   one row per durable slice of an open load
    _dpone_runs     one row per run and stream

A layout that was written before is brought up to this one by `MIGRATIONS`, in the transaction of a claim. Reading
without a claim changes nothing, and understands every layout since the first.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

from dpone import clock
from dpone.errors import ConflictError, StateError
from dpone.sdk import OpenLoad, Receipt, Slice, SliceReceipt, StreamKey, Table, Window

if TYPE_CHECKING:
    from dpone.sql.dialect import Session

T = TypeVar("T")

LAYOUT = 2
KEPT_LOADS = 100  # closed loads kept per stream and way of ending
KEPT_RUNS = 100  # run records kept per stream

_TABLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "_dpone_meta": (("name", "text key"), ("value", "text")),
    "_dpone_locks": (
        ("stream_key", "text key"),
        ("fence", "bigint"),
        ("run_id", "text"),
        ("holder", "text"),
        ("committed", "bigint null"),
    ),
    "_dpone_leases": (("stream_key", "text key"), ("session", "bigint"), ("until_ms", "bigint")),
    "_dpone_loads": (
        ("load_id", "text key"),
        ("stream_key", "text"),
        ("run_id", "text"),
        ("status", "text"),
        ("fence", "bigint"),
        ("opened_at", "text"),
        ("document", "text"),
    ),
    "_dpone_slices": (("load_id", "text key"), ("slice", "bigint key"), ("rows", "bigint")),
    "_dpone_runs": (
        ("run_id", "text key"),
        ("stream_key", "text key"),
        ("status", "text"),
        ("started_at", "text"),
        ("document", "text"),
    ),
}


def now() -> str:
    """The time as these tables hold it: UTC, ISO 8601, microseconds."""
    return clock.now().isoformat(timespec="microseconds")


class State:
    """Reads and writes dpone's tables of one schema over one session. The caller holds the transaction."""

    def __init__(self, session: Session, schema: str) -> None:
        self._session = session
        self._dialect = session.dialect
        self._schema = schema

    def table(self, name: str) -> str:
        """The quoted name of one of the tables."""
        return self._dialect.table(Table(self._schema, name))

    @property
    def bigint(self) -> str:
        """The type of the whole numbers in these tables."""
        return self._dialect.bigint

    def run(self, sql: str) -> None:
        """Run a statement of a migration."""
        self._session.execute(sql)

    def create(self) -> None:
        """Create what is missing, and bring an older layout up to this one.

        Raises StateError when a newer dpone wrote the tables.
        """
        dialect = self._dialect
        if dialect.one_at_a_time:  # two streams of a first run must not both create them
            self._session.rows(dialect.one_at_a_time)
        before = self.layout()
        for name, columns in _TABLES.items():
            kinds = {"text": dialect.text, "bigint": dialect.bigint}
            parts = [
                f"{dialect.quote(column)} {kinds[kind.split()[0]]}{'' if kind.endswith('null') else ' NOT NULL'}"
                for column, kind in columns
            ]
            keys = ", ".join(dialect.quote(column) for column, kind in columns if kind.endswith("key"))
            body = ", ".join([*parts, f"PRIMARY KEY ({keys})"])
            self._session.execute(f"CREATE TABLE IF NOT EXISTS {self.table(name)} ({body})")
        if before is not None:
            # A migration finds out itself what there is to do: one table may have come from an older backup.
            for migrate in MIGRATIONS:
                migrate(self)
        if before != LAYOUT:
            p = dialect.placeholder
            self._session.execute(f"DELETE FROM {self.table('_dpone_meta')} WHERE name = {p}", ("layout",))
            self._insert("_dpone_meta", {"name": "layout", "value": str(LAYOUT)})

    def layout(self) -> int | None:
        """The layout of the tables that are there: None without any, 0 where nothing says which.

        Raises StateError when it is not one that this version knows.
        """
        tables = self.tables()
        if not tables:
            return None
        found = self._find("_dpone_meta", "value", name="layout") if "_dpone_meta" in tables else None
        layout = int(found[0]) if found is not None and str(found[0]).isdigit() else 0
        odd = [name for name in _TABLES if tables.get(name, set()) - {column for column, _ in _TABLES[name]}]
        if layout > LAYOUT or (not layout and odd):
            what = f"layout {layout}" if layout else f"no layout, and columns in {odd[0]} that are not of this one"
            raise StateError(
                f"dpone's tables in {self._schema or 'the sink'} have {what}; this dpone knows layout {LAYOUT}",
                remedy="use the dpone version that wrote them, or a newer one",
                code="DP501",
            )
        return layout

    def ready(self) -> bool:
        """Whether every table is there, in this layout. Raises StateError when a newer dpone wrote them."""
        tables = self.tables()
        whole = all({column for column, _ in columns} <= tables.get(name, set()) for name, columns in _TABLES.items())
        return whole and self.layout() == LAYOUT

    def check(self) -> bool:
        """Whether there is state to read. Raises StateError when a newer dpone wrote it."""
        return self.layout() is not None and "_dpone_loads" in self.tables()

    def tables(self) -> dict[str, set[str]]:
        """The columns of each of the tables that are there, staging tables among them, by name."""
        found: dict[str, set[str]] = {}
        for table, column in self._session.rows(self._dialect.own_tables(self._schema)):
            found.setdefault(str(table), set()).add(str(column))
        return found

    # -- the lock row ------------------------------------------------------------------------------------------

    def take_fence(self, key: StreamKey, run_id: str, holder: str) -> int:
        """Raise the fencing token: whoever had a lower one can no longer stage or commit."""
        self._insert_missing(
            "_dpone_locks",
            {"stream_key": str(key), "fence": 0, "run_id": run_id, "holder": holder, "committed": 0},
        )
        p = self._dialect.placeholder
        # Above every token that a load has, whatever became of the row: the tokens order the loads.
        known = f"(SELECT coalesce(max(fence), 0) FROM {self.table('_dpone_loads')} WHERE stream_key = {p})"
        self._session.execute(
            f"UPDATE {self.table('_dpone_locks')} SET fence = CASE WHEN fence < {known} THEN {known} ELSE fence END "
            f"+ 1, run_id = {p}, holder = {p} WHERE stream_key = {p}",
            (str(key), str(key), run_id, holder, str(key)),
        )
        found = self._find("_dpone_locks", "fence", stream_key=str(key))
        if found is None:  # the row was put there in this transaction
            raise StateError("taking the lock: its row vanished", remedy="check who else writes to _dpone_locks")
        return int(found[0])

    def check_fence(self, key: StreamKey, fence: int) -> None:
        """Lock the stream's row for this transaction. Raises ConflictError when another run has taken over."""
        found = self._find("_dpone_locks", "fence, run_id, holder", self._dialect.for_update, stream_key=str(key))
        if found is None or int(found[0]) != fence:
            who = f"run {found[1]} ({found[2]})" if found else "a reset"
            raise ConflictError(
                f"stream {key.stream} was taken over by {who}", remedy="nothing was written; that run goes on"
            )
        self.check_lease(key)

    def check_lease(self, key: StreamKey) -> None:
        """Raise ConflictError when the lease could not be renewed and has run out, by the server's clock.

        The caller has the fencing token, so that the lease is its own. Nothing where locks die with their process.
        """
        clock_ms = self._dialect.server_ms
        if clock_ms and not self._session.rows(
            f"SELECT 1 FROM {self.table('_dpone_leases')} "
            f"WHERE stream_key = {self._dialect.placeholder} AND until_ms > {clock_ms}",
            (str(key),),
        ):
            raise ConflictError(
                f"the lease on stream {key.stream} has run out: it could not be renewed in time",
                remedy="nothing was written by this step. A lease is renewed by a second connection: let the sink "
                "have one more, and check the network; the next attempt continues with the durable slices",
                retryable=True,
            )

    def holder(self, key: StreamKey) -> str:
        """Who took the lock last, in words."""
        run_id, name = self.holding(key)
        return f"run {run_id} ({name})" if run_id else "another run"

    def holding(self, key: StreamKey) -> tuple[str, str]:
        """The run that took the lock last, and its process; empty when nobody did."""
        found = self._find("_dpone_locks", "run_id, holder", stream_key=str(key))
        return (str(found[0]), str(found[1])) if found else ("", "")

    # -- loads and receipts ------------------------------------------------------------------------------------

    def receipt(self, key: StreamKey) -> Receipt | None:
        """The last committed load. Raises StateError when it is damaged, or when it is not clear which one it is."""
        sql = self._loads() + " ORDER BY fence DESC LIMIT 2"  # never by a clock
        rows = self._session.rows(sql, (str(key), "committed"))
        if len(rows) > 1 and rows[0][3] == rows[1][3]:
            raise _damaged(f"two loads of {key.stream} both say that they are the last")
        return _decode(rows[0][2], receipt_from) if rows else None

    def receipts(self, key: StreamKey) -> tuple[list[Receipt], int]:
        """Every committed load that can be read, newest first, and how many cannot."""
        rows = self._session.rows(self._loads() + " ORDER BY fence DESC", (str(key), "committed"))
        fences = [row[3] for row in rows]
        found: list[Receipt] = []
        for row in rows:
            with contextlib.suppress(StateError):
                if fences.count(row[3]) == 1:
                    found.append(_decode(row[2], receipt_from))
        return found, len(rows) - len(found)

    def missing(self, key: StreamKey) -> bool:
        """Whether a load was committed after the last one that is remembered: its receipt is gone."""
        tables = self.tables()
        if "committed" not in tables.get("_dpone_locks", ()) or "_dpone_loads" not in tables:
            return False  # before layout 2 nothing would tell
        found = self._find("_dpone_locks", "coalesce(committed, 0)", stream_key=str(key))
        p = self._dialect.placeholder
        [(newest,)] = self._session.rows(
            f"SELECT coalesce(max(fence), 0) FROM {self.table('_dpone_loads')} WHERE stream_key = {p} AND status = {p}",
            (str(key), "committed"),
        )
        return found is not None and int(found[0]) > int(newest)

    def neighbours(self, key: StreamKey) -> tuple[str, ...]:
        """The streams of other pipelines that have loaded into the same target."""
        p = self._dialect.placeholder
        rows = self._session.rows(
            f"SELECT DISTINCT stream_key FROM {self.table('_dpone_loads')} WHERE status = {p} AND stream_key <> {p}",
            ("committed", str(key)),
        )
        return tuple(sorted(str(row[0]) for row in rows if str(row[0]).endswith(f"|{key.target}")))

    def receipt_of(self, load_id: str) -> Receipt | None:
        """The receipt of one load, when it was committed."""
        found = self._find("_dpone_loads", "document", load_id=load_id, status="committed")
        return _decode(found[0], receipt_from) if found else None

    def pending(self, key: StreamKey) -> OpenLoad | None:
        """The open load of a stream, with its durable slices; the newest, if something left several."""
        rows = self._session.rows(self._loads() + " ORDER BY fence DESC", (str(key), "open"))
        if not rows:
            return None
        p = self._dialect.placeholder
        done = (
            self._session.rows(
                f"SELECT slice, rows FROM {self.table('_dpone_slices')} WHERE load_id = {p}", (rows[0][0],)
            )
            if "_dpone_slices" in self.tables()
            else []
        )
        progress = {int(n): SliceReceipt(int(n), int(count)) for n, count in done}
        return _decode(rows[0][2], lambda document: _open_load(document, progress))

    def open_loads(self, key: StreamKey | None = None) -> list[tuple[str, tuple[str, ...]]]:
        """The open loads of a stream, or of every stream: id, and columns of the staging table; newest first."""
        p = self._dialect.placeholder
        where, values = (f"AND stream_key = {p}", (str(key),)) if key is not None else ("", ())
        rows = self._session.rows(
            f"SELECT load_id, document FROM {self.table('_dpone_loads')} WHERE status = {p} {where} "
            "ORDER BY fence DESC",
            ("open", *values),
        )
        return [(str(load_id), _columns_in(str(document))) for load_id, document in rows]

    def open(self, load: OpenLoad, key: StreamKey, fence: int, columns: Sequence[str] = ()) -> None:
        """Store the open load, before the first byte moves. The fencing token orders the loads of a stream.

        `columns` are those of its staging table, so that a rerun can tell whether it is still the same one.
        """
        document = {
            "intent": load.intent,
            "window": asdict(load.window),
            "slices": [asdict(piece) for piece in load.slices],
            "snapshot": load.snapshot,
            "load_id": load.load_id,
            "run_id": load.run_id,
            "opened_at": load.opened_at,
            "columns": list(columns),
        }
        self._insert(
            "_dpone_loads",
            {
                "load_id": load.load_id,
                "stream_key": str(key),
                "run_id": load.run_id,
                "status": "open",
                "fence": fence,
                "opened_at": load.opened_at or now(),
                "document": json.dumps(document),
            },
        )

    def close(self, load_id: str, key: StreamKey, status: str, document: str | None = None) -> None:
        """Mark a load committed (with its receipt) or aborted, and forget its slices and the oldest loads."""
        p = self._dialect.placeholder
        loads = self.table("_dpone_loads")
        if document is None:
            self._session.execute(f"UPDATE {loads} SET status = {p} WHERE load_id = {p}", (status, load_id))
        else:
            self._session.execute(
                f"UPDATE {loads} SET status = {p}, document = {p} WHERE load_id = {p}", (status, document, load_id)
            )
        self._session.execute(f"DELETE FROM {self.table('_dpone_slices')} WHERE load_id = {p}", (load_id,))
        if status == "committed":
            self._remember(key)
        self._session.execute(
            f"DELETE FROM {loads} WHERE stream_key = {p} AND status = {p} AND fence <= (SELECT max(fence) FROM {loads} "
            f"WHERE stream_key = {p} AND status = {p}) - {KEPT_LOADS}",
            (str(key), status, str(key), status),
        )

    def slice_done(self, load_id: str, receipt: SliceReceipt) -> None:
        """Store a slice receipt, in the transaction of its rows."""
        p = self._dialect.placeholder
        self._session.execute(
            f"DELETE FROM {self.table('_dpone_slices')} WHERE load_id = {p} AND slice = {p}",
            (load_id, receipt.ordinal),
        )
        self._insert("_dpone_slices", {"load_id": load_id, "slice": receipt.ordinal, "rows": receipt.rows})

    def keep(self, key: StreamKey, receipt: Receipt | None) -> None:
        """Make this receipt, which is one of the stream's, the last one. None: the stream was never loaded."""
        p = self._dialect.placeholder
        loads = self.table("_dpone_loads")
        if receipt is not None:
            self._session.execute(
                f"UPDATE {loads} SET document = {p} WHERE load_id = {p}", (receipt_to_json(receipt), receipt.load_id)
            )
        for row in self._session.rows(self._loads() + " ORDER BY fence DESC", (str(key), "committed")):
            if receipt is not None and row[0] == receipt.load_id:
                break
            self._session.execute(f"DELETE FROM {loads} WHERE load_id = {p}", (row[0],))
        for row in self._session.rows(self._loads(), (str(key), "committed")):
            try:
                _decode(row[2], receipt_from)
            except StateError:
                self._session.execute(f"DELETE FROM {loads} WHERE load_id = {p}", (row[0],))
        self._remember(key)

    def forget(self, key: StreamKey, run_id: str) -> None:
        """Remove every load of a stream, and the run that asked for it."""
        p = self._dialect.placeholder
        loads = self.table("_dpone_loads")
        self._session.execute(
            f"DELETE FROM {self.table('_dpone_slices')} WHERE load_id IN "
            f"(SELECT load_id FROM {loads} WHERE stream_key = {p})",
            (str(key),),
        )
        self._session.execute(f"DELETE FROM {loads} WHERE stream_key = {p}", (str(key),))
        self._session.execute(f"DELETE FROM {self.table('_dpone_runs')} WHERE run_id = {p}", (run_id,))
        self._remember(key)

    def _remember(self, key: StreamKey) -> None:
        """Note the token of the newest receipt beside the lock, so that a receipt that vanishes is missed."""
        p = self._dialect.placeholder
        self._session.execute(
            f"UPDATE {self.table('_dpone_locks')} SET committed = (SELECT coalesce(max(fence), 0) "
            f"FROM {self.table('_dpone_loads')} WHERE stream_key = {p} AND status = {p}) WHERE stream_key = {p}",
            (str(key), "committed", str(key)),
        )

    # -- runs --------------------------------------------------------------------------------------------------

    def run_started(self, key: StreamKey, run_id: str) -> tuple[str, ...]:
        """Note a running run; every other one of this stream that never ended was abandoned. Their ids.

        Raises ConflictError when it is this run that was found abandoned: another one has taken over since.
        """
        mine = self._find("_dpone_runs", "status", run_id=run_id, stream_key=str(key))
        if mine is not None and mine[0] == "abandoned":
            raise ConflictError(
                f"stream {key.stream} was taken over by another run, while this one stood still",
                remedy="nothing more was written; that run goes on. Run again when it has ended",
            )
        p = self._dialect.placeholder
        runs = self.table("_dpone_runs")
        self._session.execute(  # run ids sort by time
            f"DELETE FROM {runs} WHERE stream_key = {p} AND run_id NOT IN (SELECT run_id FROM {runs} "
            f"WHERE stream_key = {p} ORDER BY run_id DESC LIMIT {KEPT_RUNS})",
            (str(key), str(key)),
        )
        left = self._session.rows(
            f"SELECT run_id FROM {runs} WHERE stream_key = {p} AND status = {p} AND run_id <> {p}",
            (str(key), "running", run_id),
        )
        for (left_id,) in left:
            self.run_finished(key, left_id, "abandoned", None)
        self._insert_missing(
            "_dpone_runs",
            {"run_id": run_id, "stream_key": str(key), "status": "running", "started_at": now(), "document": "{}"},
        )
        return tuple(str(row[0]) for row in left)

    def run_finished(self, key: StreamKey, run_id: str, status: str, document: str | None) -> None:
        """Note how a run ended, with its record."""
        p = self._dialect.placeholder
        runs = self.table("_dpone_runs")
        where = f"WHERE run_id = {p} AND stream_key = {p}"
        if document is None:
            self._session.execute(f"UPDATE {runs} SET status = {p} {where}", (status, run_id, str(key)))
        else:
            self._session.execute(
                f"UPDATE {runs} SET status = {p}, document = {p} {where}", (status, document, run_id, str(key))
            )

    # -- plumbing ----------------------------------------------------------------------------------------------

    def _loads(self) -> str:
        p = self._dialect.placeholder
        return (
            f"SELECT load_id, run_id, document, fence FROM {self.table('_dpone_loads')} "
            f"WHERE stream_key = {p} AND status = {p}"
        )

    def _find(self, table: str, columns: str, suffix: str = "", /, **where: str) -> tuple[Any, ...] | None:
        p = self._dialect.placeholder
        conditions = " AND ".join(f"{name} = {p}" for name in where)
        rows = self._session.rows(
            f"SELECT {columns} FROM {self.table(table)} WHERE {conditions}{suffix}", tuple(where.values())
        )
        return rows[0] if rows else None

    def _insert(self, table: str, values: Mapping[str, object]) -> None:
        marks = ", ".join([self._dialect.placeholder] * len(values))
        self._session.execute(
            f"INSERT INTO {self.table(table)} ({', '.join(values)}) VALUES ({marks})", tuple(values.values())
        )

    def _insert_missing(self, table: str, values: Mapping[str, object]) -> None:
        marks = ", ".join([self._dialect.placeholder] * len(values))
        self._session.execute(
            f"INSERT INTO {self.table(table)} ({', '.join(values)}) VALUES ({marks}) ON CONFLICT DO NOTHING",
            tuple(values.values()),
        )


def receipt_to_json(receipt: Receipt) -> str:
    """The receipt as `_dpone_loads` and the files sink hold it."""
    return json.dumps(asdict(receipt))


def receipt_from(document: Mapping[str, Any]) -> Receipt:
    """The inverse of `receipt_to_json`, from the parsed document."""
    return Receipt(**{**document, "window": Window(**document["window"])})


def _open_load(document: Mapping[str, Any], progress: Mapping[int, SliceReceipt]) -> OpenLoad:
    known = {field.name for field in fields(OpenLoad)}
    values = {name: value for name, value in document.items() if name in known}
    values["window"] = Window(**document["window"])
    values["slices"] = tuple(Slice(**piece) for piece in document["slices"])
    return OpenLoad(**values, progress=progress)


def _columns_in(document: str) -> tuple[str, ...]:
    """The columns that an open load noted of its staging table; nothing where it cannot be read."""
    try:
        return tuple(json.loads(document).get("columns", ()))
    except (ValueError, AttributeError, TypeError):
        return ()


def _decode(text: str, build: Callable[[Any], T]) -> T:
    try:
        return build(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged("a document is damaged") from error


def _damaged(what: str) -> StateError:
    return StateError(
        f"reading dpone's state in the sink: {what}",
        remedy="`dpone repair` shows what is wrong and mends it; `dpone reset` forgets this stream's state",
        code="DP502",
    )


# -- migrations ------------------------------------------------------------------------------------------------------


def _to_2(state: State) -> None:
    """Layout 2: the lock row knows the token of the last commit; leases have a table, which `create` makes."""
    if "committed" not in state.tables()["_dpone_locks"]:
        state.run(f"ALTER TABLE {state.table('_dpone_locks')} ADD COLUMN committed {state.bigint}")
    state.run(
        f"UPDATE {state.table('_dpone_locks')} SET committed = (SELECT coalesce(max(l.fence), 0) "
        f"FROM {state.table('_dpone_loads')} AS l WHERE l.stream_key = {state.table('_dpone_locks')}.stream_key "
        "AND l.status = 'committed') WHERE committed IS NULL"
    )


MIGRATIONS: tuple[Callable[[State], None], ...] = (_to_2,)
"""From each layout to the next, the first from layout 1. Each does nothing where there is nothing to do.

A run of an older dpone may be at work while its tables are migrated by the claim of another stream: a migration
leaves everything that older statements need as it is.
"""
