"""The seeded bugs: each is one small, plausible mistake in the product, and the kit must turn red for it.

A bug patches dpone in the process that runs the kit. `first` names the test that is likely to find it and is tried
alone, to save time; when that one stays green, the whole kit runs.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from dpone.arrow import batches as conforming
from dpone.connectors.postgres import errors as postgres_errors
from dpone.connectors.postgres.dialect import PostgresDialect
from dpone.connectors.postgres.session import PostgresSession
from dpone.connectors.postgres.source import PostgresSource
from dpone.connectors.sqlite import config as sqlite_config
from dpone.connectors.sqlite import values as sqlite_values
from dpone.connectors.sqlite.dialect import SqliteDialect
from dpone.connectors.sqlite.session import SqliteSession
from dpone.connectors.sqlite.source import SqliteSource
from dpone.engine import columns as column_decisions
from dpone.engine import ledger, plan, retry
from dpone.engine import run as engine
from dpone.errors import Category, DponeError
from dpone.manifest.load import Manifest
from dpone.sdk import Column, Step, StreamKey, Window
from dpone.sdk.oslock import OsLock
from dpone.sql import sink as sql_sink
from dpone.sql import source as sql_source
from dpone.sql import state as sql_state
from dpone.strategy import append, base, merge, replace

Patch = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Bug:
    """One seeded bug. `connector` is the one whose certification must fail."""

    name: str
    what: str
    connector: str
    first: str
    patch: Patch


BUGS: dict[str, Bug] = {}


def bug(first: str, connector: str = "sqlite") -> Callable[[Patch], Patch]:
    """Register a bug under the name of its function."""

    def register(patch: Patch) -> Patch:
        BUGS[patch.__name__] = Bug(patch.__name__, str(patch.__doc__), connector, first, patch)
        return patch

    return register


def around(owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Replace a function by `change(original, *arguments)`."""
    original = getattr(owner, name)

    def changed(*arguments: Any, **named: Any) -> Any:
        return change(original, *arguments, **named)

    setattr(owner, name, changed)


def reading(change: Callable[[pa.RecordBatch], pa.RecordBatch]) -> None:
    """Change what a SQL source reads, before anything counts or digests it."""

    def read(original: Any, self: Any, piece: Any) -> Iterator[pa.RecordBatch]:
        return map(change, original(self, piece))

    around(sql_source.SqlReading, "read", read)


def storing(change: Callable[[pa.RecordBatch], pa.RecordBatch]) -> None:
    """Change what a SQL sink stores, after the engine has counted and digested it."""

    def ingest(original: Any, self: Any, table: Any, columns: Any, batches: Iterable[Any], ordinal: int) -> int:
        return int(original(self, table, columns, map(change, batches), ordinal))

    around(SqliteSession, "ingest", ingest)


def mapped(batch: pa.RecordBatch, fits: Callable[[pa.DataType], bool], change: Callable[[pa.Array], Any]) -> Any:
    """The batch with the columns of some types changed."""
    arrays = [change(array) if fits(array.type) else array for array in batch.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


# -- rows lost, doubled, altered -----------------------------------------------------------------------------------


@bug("test_every_row_is_read_once")
def one_row_is_lost_at_the_source() -> None:
    """The last row of every batch is not read."""
    reading(lambda batch: batch.slice(0, max(batch.num_rows - 1, 0)))


@bug("test_every_row_is_read_once")
def one_row_is_doubled_at_the_source() -> None:
    """The first row of every batch is read twice."""
    reading(lambda b: pa.Table.from_batches([b.slice(0, 1), b]).combine_chunks().to_batches()[0] if b.num_rows else b)


@bug("test_every_row_is_read_once")
def the_last_batch_is_lost_at_the_source() -> None:
    """The batch that ends a slice is dropped."""

    def read(original: Any, self: Any, piece: Any) -> Iterator[pa.RecordBatch]:
        found = list(original(self, piece))
        return iter(found[:-1])

    around(sql_source.SqlReading, "read", read)


@bug("test_the_target_holds_what_the_source_held")
def one_row_is_lost_in_staging() -> None:
    """The first row of every batch does not reach the staging table."""
    storing(lambda batch: batch.slice(1))


@bug("test_the_target_holds_what_the_source_held")
def one_value_is_altered_in_staging() -> None:
    """A text that is stored loses the blank at its end."""
    storing(lambda batch: mapped(batch, pa.types.is_string, pc.utf8_rtrim_whitespace))


@bug("test_the_proof_is_read_back_from_the_sink")
def the_equations_are_not_checked() -> None:
    """A load commits although its ledger does not balance."""
    base.Balance.holds = property(lambda self: True)


@bug("test_the_proof_is_read_back_from_the_sink")
def the_digest_echoes_what_was_read() -> None:
    """The proof compares the source with itself instead of reading the sink back."""

    def check(original: Any, self: Any, results: Any) -> Any:
        return original(self, {**results, "final_digest": self.source} if "final_digest" in results else results)

    around(ledger.Ledger, "check", check)


@bug("test_the_target_holds_what_the_source_held")
def the_publication_loses_a_row() -> None:
    """The INSERT of a publication leaves one row out."""

    def steps(original: Any, self: Any, publication: Any) -> list[Step]:
        return [
            dataclasses.replace(step, sql=f"{step.sql} LIMIT -1 OFFSET 1") if step.name == "inserted" else step
            for step in original(self, publication)
        ]

    around(replace.Replace, "steps", steps)


# -- types ---------------------------------------------------------------------------------------------------------


@bug("test_every_case_is_read_as_the_case_file_says")
def milliseconds() -> None:
    """Timestamps are cut to milliseconds."""
    reading(lambda batch: mapped(batch, pa.types.is_timestamp, lambda a: pc.floor_temporal(a, unit="millisecond")))


@bug("test_every_case_is_read_as_the_case_file_says")
def the_zone_is_dropped() -> None:
    """The offset of an instant is ignored: its local time is taken for UTC."""

    def parse(original: Any, text: pa.Array, type_: pa.DataType) -> pa.Array:
        if pa.types.is_timestamp(type_) and type_.tz:
            text = pc.replace_substring_regex(text, r"[+-]\d\d:?\d\d$", "Z")
        return original(text, type_)

    around(sqlite_values, "_parse", parse)


@bug("test_every_case_is_read_as_the_case_file_says")
def integers_through_floats() -> None:
    """64-bit integers pass through doubles."""

    def change(array: pa.Array) -> pa.Array:
        return array.cast(pa.float64(), safe=False).cast(array.type, safe=False)

    reading(lambda batch: mapped(batch, lambda t: t == pa.int64(), change))


@bug("test_every_case_is_read_as_the_case_file_says")
def decimals_through_floats() -> None:
    """Decimals pass through doubles."""

    def change(array: pa.Array) -> pa.Array:
        return array.cast(pa.float64()).cast(array.type, safe=False)

    reading(lambda batch: mapped(batch, pa.types.is_decimal, change))


@bug("test_every_case_is_read_as_the_case_file_says")
def latin_1() -> None:
    """Text beyond Latin-1 becomes question marks."""

    def change(array: pa.Array) -> pa.Array:
        texts = [None if v is None else v.encode("latin-1", "replace").decode("latin-1") for v in array.to_pylist()]
        return pa.array(texts, array.type)

    reading(lambda batch: mapped(batch, pa.types.is_string, change))


@bug("test_every_case_is_read_as_the_case_file_says")
def empty_text_becomes_null_at_the_source() -> None:
    """'' is read as NULL."""

    def change(array: pa.Array) -> pa.Array:
        return pc.if_else(pc.equal(array, ""), pa.scalar(None, array.type), array)

    reading(lambda batch: mapped(batch, pa.types.is_string, change))


@bug("test_every_canonical_type_is_stored_or_refused")
def text_ends_at_a_nul() -> None:
    """A text is cut at its first NUL, and both sides digest what is left."""

    def conform(original: Any, batches: Any, columns: Any, *rest: Any) -> Iterator[pa.RecordBatch]:
        def change(array: pa.Array) -> pa.Array:
            return pc.replace_substring_regex(array, "(?s)\\x00.*", "")

        return (mapped(batch, pa.types.is_string, change) for batch in original(batches, columns, *rest))

    around(conforming, "conform", conform)
    for module in (ledger, engine):
        if hasattr(module, "conform"):
            around(module, "conform", conform)


@bug("test_every_form_of_an_arrow_array")
def an_offset_is_forgotten() -> None:
    """The values of a sliced array are taken from the start of its buffers."""

    def encode(original: Any, array: pa.Array, column: Column) -> Any:
        if array.offset and pa.types.is_int64(array.type):
            array = pa.Array.from_buffers(array.type, len(array), array.buffers())
        return original(array, column)

    around(sqlite_values, "encode", encode)
    from dpone.connectors.sqlite import session

    if hasattr(session, "encode"):
        session.encode = sqlite_values.encode


@bug("test_a_lossy_column_must_be_acknowledged", "postgres")
def a_loss_needs_no_word() -> None:
    """A lossy column is moved without an acknowledgement."""

    def decide(original: Any, schema: Any, existing: Any, target: Any, config: Any, *rest: Any, **named: Any) -> Any:
        everything = tuple(column.name for column in schema.columns)
        return original(schema, existing, target, dataclasses.replace(config, allow_lossy=everything), *rest, **named)

    column_decisions.check_acknowledged = lambda *_, **__: None
    around(plan, "decide_columns", decide)


@bug("test_a_change_of_the_columns_is_followed_or_refused")
def every_target_is_wide_enough() -> None:
    """A target column of any type is accepted."""
    SqliteDialect.accepts = lambda *_: True


@bug("test_a_change_of_the_columns_is_followed_or_refused")
def a_new_column_is_left_out() -> None:
    """A column that the target lacks is not added, and nobody is told."""

    def decide(original: Any, schema: Any, existing: Any, *rest: Any, **named: Any) -> Any:
        plans, drift, added, *more = original(schema, existing, *rest, **named)
        return (plans, tuple(d for d in drift if d.decision != "add column"), added, *more)

    around(plan, "decide_columns", decide)


# -- strategies ----------------------------------------------------------------------------------------------------


@bug("test_the_latest_version_of_a_key_wins")
def the_first_version_wins() -> None:
    """Of several versions of a key the oldest stays."""
    around(
        base.Publication, "superseded", lambda original, *a: original(*a).replace("DESC NULLS LAST", "ASC NULLS FIRST")
    )


@bug("test_the_latest_version_of_a_key_wins")
def arrival_is_ignored() -> None:
    """Of two versions with one cursor value the one that came first stays."""
    around(
        base.Publication,
        "superseded",
        lambda original, *a: original(*a).replace("_dpone_slice DESC", "_dpone_slice ASC"),
    )


@bug("test_the_latest_version_of_a_key_wins")
def stale_rows_are_applied() -> None:
    """A row older than the target's overwrites it."""

    def steps(original: Any, self: Any, publication: Any) -> list[Step]:
        return [step for step in original(self, publication) if not step.name.startswith("stale")]

    around(merge.Merge, "steps", steps)


@bug("test_a_change_of_any_column_is_an_update")
def null_is_not_compared() -> None:
    """A value that becomes NULL, or stops being it, is no change."""
    SqliteDialect.same_values = "({a} = {b} OR {a} IS NULL OR {b} IS NULL)"


@bug("test_a_change_of_any_column_is_an_update")
def a_change_of_case_is_no_change() -> None:
    """Texts are compared without regard to case."""
    SqliteDialect.identical = lambda self, expression, native: f"{expression} COLLATE NOCASE"


@bug("test_readers_see_all_or_nothing")
def staging_is_visible() -> None:
    """A slice goes into the target at once."""

    def stage(original: Any, self: Any, piece: Any, batches: Any) -> Any:
        receipt = original(self, piece, batches)
        names, dialect = self._dialect.names(self._columns), self._dialect
        into, stage = dialect.table(self._spec.key.target), dialect.table(self._stage)
        try:
            self._session.execute(f"INSERT OR IGNORE INTO {into} ({names}) SELECT {names} FROM {stage}")
        except DponeError:
            return receipt
        return receipt

    around(sql_sink.SqlLoad, "stage", stage)


@bug("test_readers_see_all_or_nothing")
def the_delete_of_a_replace_is_committed_first() -> None:
    """Readers see an empty table between DELETE and INSERT."""

    def publish(original: Any, self: Any) -> Any:
        execute = self._session.execute

        def committing(sql: str, *rest: Any) -> int:
            count = execute(sql, *rest)
            if sql.startswith("DELETE FROM") and "_dpone" not in sql:
                self._session.commit()
                self._session.begin()
            return int(count)

        self._session.execute = committing
        try:
            return original(self)
        finally:
            self._session.execute = execute

    around(sql_sink.SqlLoad, "_publish", publish)


@bug("test_an_empty_source")
def an_empty_source_empties_the_target() -> None:
    """`write: replace` publishes no rows over many without being allowed to."""

    def check(original: Any, self: Any, results: Any) -> Any:
        self.plan = dataclasses.replace(self.plan, allow_empty=True)
        return original(self, results)

    around(ledger.Ledger, "check", check)


# -- windows and slices --------------------------------------------------------------------------------------------


@bug("test_ties_at_the_checkpoint_are_neither_lost_nor_doubled")
def ties_are_lost() -> None:
    """Rows that come late with the checkpoint's cursor value are never read."""

    def fix(original: Any, self: Any, window: Window, until: Any) -> Window:
        found: Window = dataclasses.replace(original(self, window, until), again=None)
        return found

    around(sql_source.SqlReading, "_ties", fix)


@bug("test_late_ties_are_appended_once")
def ties_are_doubled() -> None:
    """Rows at the checkpoint that are read again are appended again."""
    append._known = lambda _: "SELECT -1"


@bug("test_rows_without_a_cursor_value_are_refused_or_loaded")
def null_cursors_are_dropped() -> None:
    """Rows without a cursor value are not read, and nobody is told."""
    sql_source.SqlReading._null_rows = lambda *_: 0


@bug("test_ties_at_the_checkpoint_are_neither_lost_nor_doubled")
def the_upper_bound_is_left_out() -> None:
    """The window ends before its last cursor value."""
    around(sql_source.SqlReading, "_bounds", lambda original, *a: [part.replace("<=", "<") for part in original(*a)])


@bug("test_every_slice_boundary")
def slices_overlap() -> None:
    """A row on a border is in both slices."""
    around(sql_source.Cut, "predicate", lambda original, *a: [part.replace(" < ", " <= ") for part in original(*a)])


@bug("test_every_slice_boundary")
def slices_leave_a_gap() -> None:
    """A row on a border is in no slice."""
    around(sql_source.Cut, "predicate", lambda original, *a: [part.replace(" >= ", " > ") for part in original(*a)])


@bug("test_a_load_is_one_state_of_the_source", "postgres")
def every_slice_has_its_own_snapshot() -> None:
    """The slices of a load read the source as it is by then."""

    def begin(original: Any, self: Any, first: str) -> None:
        self._open(f"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {first}")

    around(PostgresSession, "begin_snapshot", begin)


@bug("test_late_commits_are_read_or_the_stream_is_refused", "postgres")
def late_commits_are_lost_in_silence() -> None:
    """The source takes every row below its greatest cursor value for read."""
    around(PostgresSource, "_written", lambda *_: None)


@bug("test_durable_slices_are_compared_and_not_trusted")
def durable_slices_are_trusted() -> None:
    """A slice that was staged before a death is kept, whatever the source holds by now."""

    def resumed(_: Any, pending: Any, reading: Any, load: Any, book: Any, emit: Any) -> set[int]:
        for piece in pending.slices:
            if piece.ordinal in pending.progress:
                book.resumed(piece, pending.progress[piece.ordinal].rows, load.digest(piece))
        return set(pending.progress)

    around(engine, "_still_valid", resumed)


@bug("test_what_is_there_is_found")
def empty_tables_are_not_found() -> None:
    """Discovery leaves out tables without rows."""
    around(SqliteSource, "discover", lambda original, self: [name for name in original(self) if name != "empty"])


# -- state ---------------------------------------------------------------------------------------------------------


@bug("test_the_target_holds_what_the_source_held")
def the_receipt_is_never_stored() -> None:
    """A commit leaves no receipt, so every run starts from the beginning."""

    def close(original: Any, self: Any, load_id: str, key: Any, status: str, document: Any = None) -> None:
        original(self, load_id, key, "aborted" if status == "committed" else status, document)

    around(sql_state.State, "close", close)


@bug("test_late_ties_are_appended_once")
def the_oldest_receipt_is_read() -> None:
    """The state of a stream is that of its first load."""

    def rows(original: Any, self: Any, sql: str, *rest: Any) -> Any:
        return original(self, sql.replace("ORDER BY fence DESC LIMIT 2", "ORDER BY fence LIMIT 2"), *rest)

    around(SqliteSession, "rows", rows)


@bug("test_the_target_holds_what_the_source_held")
def a_committed_load_stays_open() -> None:
    """A commit does not close its load, so the next run continues it."""

    def close(original: Any, self: Any, load_id: str, key: Any, status: str, document: Any = None) -> None:
        if status != "committed":
            original(self, load_id, key, status, document)

    around(sql_state.State, "close", close)


@bug("test_the_target_holds_what_the_source_held")
def debris_is_left() -> None:
    """The staging table of a committed load is not dropped."""

    def execute(original: Any, self: Any, sql: str, *rest: Any) -> int:
        return 0 if sql.startswith("DROP TABLE") else int(original(self, sql, *rest))

    around(SqliteSession, "execute", execute)


@bug("test_two_runs_of_one_stream_never_mix")
def the_lock_is_ignored() -> None:
    """Whoever comes gets the lock."""
    OsLock.acquire = lambda self, wait=0.0: None
    OsLock.release = lambda self: None


@bug("test_a_run_that_lost_its_lock_cannot_write")
def the_fence_is_ignored() -> None:
    """A run that lost its lock goes on writing."""
    sql_state.State.check_fence = lambda *_: None


@bug("test_two_pipelines_have_their_own_state")
def pipelines_share_their_state() -> None:
    """The key of the state leaves the pipeline out."""
    StreamKey.__str__ = lambda self: self.stream


@bug("test_damaged_state_is_refused_with_the_repair_named")
def damaged_state_counts_as_none() -> None:
    """A receipt that cannot be read is taken for a first load."""

    def decode(original: Any, text: str, build: Any) -> Any:
        try:
            return original(text, build)
        except DponeError:
            return None

    around(sql_state, "_decode", decode)


@bug("test_damaged_state_is_refused_with_the_repair_named")
def a_newer_layout_is_read_as_ours() -> None:
    """The version of dpone's tables is not looked at."""
    sql_state.LAYOUT = 99


@bug("test_killed_at_any_point")
def a_death_is_not_recorded() -> None:
    """A run that was killed stays `running` for ever."""
    from dpone.engine.record import Store

    Store.close_abandoned = lambda _: []


@bug("test_a_run_that_stands_still_is_taken_over", "postgres")
def a_lease_never_runs_out() -> None:
    """A holder that stands still is waited for, for ever."""
    from dpone.connectors.postgres.lock import Lock

    around(Lock, "_left", lambda *_: 60.0)


@bug("test_what_was_restored_alone_loses_and_doubles_nothing")
def the_target_is_not_looked_at() -> None:
    """A load goes on from its receipt, whatever the target holds."""
    engine.agreement = lambda *_: []


# -- what is said --------------------------------------------------------------------------------------------------


@bug("test_every_count_is_the_truth")
def the_record_lies() -> None:
    """Updated and unchanged rows are counted as one another."""

    def fill(original: Any, record: Any, book: Any, balance: Any) -> None:
        original(record, book, dataclasses.replace(balance, updated=balance.unchanged, unchanged=balance.updated))

    around(engine, "_fill", fill)


@bug("test_every_count_is_the_truth")
def the_final_count_is_the_staged_one() -> None:
    """The record says that the target has as many rows as were staged."""
    around(
        engine,
        "_fill",
        lambda original, r, b, balance: original(r, b, dataclasses.replace(balance, final=balance.staged)),
    )


@bug("test_an_unknown_setting_is_refused_with_a_suggestion")
def unknown_settings_are_ignored() -> None:
    """A misspelt setting of a connection does nothing."""
    sqlite_config.SqliteConfig.model_config["extra"] = "ignore"
    sqlite_config.SqliteConfig.model_rebuild(force=True)


@bug("test_a_wrong_password_is_an_auth_error", "postgres")
def a_wrong_password_is_tried_again() -> None:
    """Failures that no retry can mend are retried."""
    retry.RETRIED = frozenset(get_args(Category))

    def run(original: Any, self: Any, act: Any, stop: Any, on_retry: Any) -> Any:
        def retryable() -> Any:
            try:
                return act()
            except DponeError as error:
                error.retryable = True
                raise

        return original(self, retryable, stop, on_retry)

    around(retry.Retries, "run", run)


@bug("test_secrets_appear_in_no_output", "postgres")
def a_password_is_in_the_message() -> None:
    """The error of a connection quotes its password, and nothing takes it out."""

    def translate(original: Any, error: Any, act: str, side: Any, **named: Any) -> DponeError:
        found: DponeError = original(error, act, side, **named)
        found.message += " using pl4nted-s3cret-value" if named.get("connecting") else ""
        return found

    around(postgres_errors, "translate", translate)
    around(Manifest, "redact", lambda _, __, text: text)
    from dpone.connectors.postgres import session

    session.translate = postgres_errors.translate


@bug("test_long_names_are_never_cut", "postgres")
def long_names_are_cut() -> None:
    """A name that is too long is left to the server, which cuts it."""
    PostgresDialect.identifier_bytes = None


@bug("test_columns_of_any_name_arrive_or_are_refused")
def quotes_in_names_are_dropped() -> None:
    """A name loses its quotes."""
    SqliteDialect.quote = lambda self, name: "`" + re.sub(r"[`\"']", "", name) + "`"


@bug("test_statements_are_built_offline_as_the_golden_file_has_them")
def the_sql_changed() -> None:
    """A statement is rendered in another way than was reviewed."""
    around(replace.Replace, "steps", lambda original, *a: list(reversed(list(original(*a)))))
