"""dpone's own tables in a SQL sink: the lock, the open loads, the slice receipts, the receipts, the run records.

They live beside the target, in its schema, and are written in the same transactions as the data. All columns are
text and integers, so that every system holds them alike; documents are JSON.

    _dpone_meta     layout version of these tables
    _dpone_locks    one row per stream: fencing token, run and holder
    _dpone_loads    one row per load: open, committed (then it is a receipt) or aborted
    _dpone_slices   one row per durable slice of an open load
    _dpone_runs     one row per run and stream
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

from dpone import clock
from dpone.errors import ConflictError, StateError
from dpone.sdk import OpenLoad, Receipt, Slice, SliceReceipt, StreamKey, Table, Window

if TYPE_CHECKING:
    from dpone.sql.dialect import Session

T = TypeVar("T")

LAYOUT = 1
KEPT_LOADS = 100  # closed loads kept per stream and way of ending
KEPT_RUNS = 100  # run records kept per stream

_TABLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "_dpone_meta": (("name", "text key"), ("value", "text")),
    "_dpone_locks": (("stream_key", "text key"), ("fence", "bigint"), ("run_id", "text"), ("holder", "text")),
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

    def create(self) -> None:
        """Create what is missing, and check the layout. Raises StateError when a newer dpone wrote it."""
        dialect = self._dialect
        if dialect.one_at_a_time:  # two streams of a first run must not both create them
            self._session.rows(dialect.one_at_a_time)
        for name, columns in _TABLES.items():
            kinds = {"text": dialect.text, "bigint": dialect.bigint}
            parts = [f"{dialect.quote(column)} {kinds[kind.split()[0]]} NOT NULL" for column, kind in columns]
            keys = ", ".join(dialect.quote(column) for column, kind in columns if kind.endswith("key"))
            body = ", ".join([*parts, f"PRIMARY KEY ({keys})"])
            self._session.execute(f"CREATE TABLE IF NOT EXISTS {self.table(name)} ({body})")
        self._insert_missing("_dpone_meta", {"name": "layout", "value": str(LAYOUT)})
        self.check()

    def check(self) -> None:
        """Raise StateError when the layout is not this version's."""
        found = self._find("_dpone_meta", "value", name="layout")
        if found is None or not found[0].isdigit() or int(found[0]) != LAYOUT:
            layout = found[0] if found else "none"
            raise StateError(
                f"dpone's tables in {self._schema or 'the sink'} have layout {layout}, this dpone knows {LAYOUT}",
                remedy="use the dpone version that wrote them, or a newer one",
                code="DP501",
            )

    # -- the lock row ------------------------------------------------------------------------------------------

    def take_fence(self, key: StreamKey, run_id: str, holder: str) -> int:
        """Raise the fencing token: whoever had a lower one can no longer stage or commit."""
        self._insert_missing("_dpone_locks", {"stream_key": str(key), "fence": 0, "run_id": run_id, "holder": holder})
        p = self._dialect.placeholder
        self._session.execute(
            f"UPDATE {self.table('_dpone_locks')} SET fence = fence + 1, run_id = {p}, holder = {p} "
            f"WHERE stream_key = {p}",
            (run_id, holder, str(key)),
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

    def holder(self, key: StreamKey) -> str:
        """Who took the lock last."""
        found = self._find("_dpone_locks", "run_id, holder", stream_key=str(key))
        return f"run {found[0]} ({found[1]})" if found else "another run"

    # -- loads and receipts ------------------------------------------------------------------------------------

    def receipt(self, key: StreamKey) -> Receipt | None:
        """The last committed load of a stream."""
        sql = self._loads() + " ORDER BY fence DESC LIMIT 1"  # never by a clock
        rows = self._session.rows(sql, (str(key), "committed"))
        return _decode(rows[0][2], receipt_from) if rows else None

    def receipt_of(self, load_id: str) -> Receipt | None:
        """The receipt of one load, when it was committed."""
        found = self._find("_dpone_loads", "document", load_id=load_id, status="committed")
        return _decode(found[0], receipt_from) if found else None

    def pending(self, key: StreamKey) -> OpenLoad | None:
        """The open load of a stream, with its durable slices."""
        rows = self._session.rows(self._loads(), (str(key), "open"))
        if not rows:
            return None
        p = self._dialect.placeholder
        done = self._session.rows(
            f"SELECT slice, rows FROM {self.table('_dpone_slices')} WHERE load_id = {p}", (rows[0][0],)
        )
        progress = {int(n): SliceReceipt(int(n), int(count)) for n, count in done}
        return _decode(rows[0][2], lambda document: _open_load(document, progress))

    def open_loads(self, key: StreamKey) -> list[str]:
        """The ids of the open loads of a stream."""
        return [str(row[0]) for row in self._session.rows(self._loads(), (str(key), "open"))]

    def open(self, load: OpenLoad, key: StreamKey, fence: int) -> None:
        """Store the open load, before the first byte moves. The fencing token orders the loads of a stream."""
        document = {
            "intent": load.intent,
            "window": asdict(load.window),
            "slices": [asdict(piece) for piece in load.slices],
            "snapshot": load.snapshot,
            "load_id": load.load_id,
            "run_id": load.run_id,
            "opened_at": load.opened_at,
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

    # -- runs --------------------------------------------------------------------------------------------------

    def run_started(self, key: StreamKey, run_id: str) -> tuple[str, ...]:
        """Note a running run; every other one of this stream that never ended was abandoned. Their ids."""
        p = self._dialect.placeholder
        runs = self.table("_dpone_runs")
        self._session.execute(  # run ids sort by time
            f"DELETE FROM {runs} WHERE stream_key = {p} AND run_id NOT IN (SELECT run_id FROM {runs} "
            f"WHERE stream_key = {p} ORDER BY run_id DESC LIMIT {KEPT_RUNS})",
            (str(key), str(key)),
        )
        mine = (str(key), "running", run_id)
        left = self._session.rows(
            f"SELECT run_id FROM {runs} WHERE stream_key = {p} AND status = {p} AND run_id <> {p}", mine
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
            f"SELECT load_id, run_id, document FROM {self.table('_dpone_loads')} "
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


def _decode(text: str, build: Callable[[Any], T]) -> T:
    try:
        return build(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(
            "reading dpone's state in the sink: a document is damaged",
            remedy="restore the _dpone_ tables from a backup, or forget this stream's state with `dpone reset`",
            code="DP502",
        ) from error
