"""SCD2: every version of a row is kept, with the time from when to when it was the current one.

The target has three columns more than the stream: `_dpone_valid_from`, `_dpone_valid_to` (NULL while the version is
current) and `_dpone_is_current`. Within a load, earlier versions of a key are collapsed, as in a merge. A staged row
whose cursor is behind that of the current version is stale: counted, not applied. One that is the same in every column
is unchanged. Any other closes the current version and becomes it.

A version begins at its cursor, where that is a date or a timestamp, else when the load was opened. It never begins
before, or together with, its predecessor (a row that changed without its cursor, a clock that was set back): then it
begins one microsecond after it. So the versions of a key follow each other without gap or overlap, and none is lost.

    read = staged
    staged = inserted + unchanged + stale + collapsed
    final = before + inserted

With `deletes: soft` the current version of a row that is gone at the source ends when the load was opened; a row that
is there again begins a new one.

Versions that were closed count as updated. The proof adds up the current versions under the staged keys and what was
left out as collapsed or stale: together they must be what was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pyarrow as pa

from dpone.arrow.types import UTC
from dpone.sdk import Column, Digest, Results, Step
from dpone.sql.dialect import every
from dpone.strategy.base import Balance, Equation, Publication, Strategy, digest_in, number

VALID_FROM = "_dpone_valid_from"
VALID_TO = "_dpone_valid_to"
IS_CURRENT = "_dpone_is_current"


class Scd2(Strategy):
    """Collapse, drop stale, close what differs, insert the new versions."""

    managed: ClassVar[tuple[Column, ...]] = (
        Column(VALID_FROM, pa.timestamp("us", UTC), nullable=False),
        Column(VALID_TO, pa.timestamp("us", UTC)),
        Column(IS_CURRENT, pa.bool_(), nullable=False),
    )
    live: ClassVar[Mapping[str, bool | None]] = {IS_CURRENT: True}

    def steps(self, publication: Publication) -> Sequence[Step]:
        """See the module."""
        p, d = publication, publication.dialect
        valid_from, valid_to, is_current = map(d.quote, (VALID_FROM, VALID_TO, IS_CURRENT))
        current = f"{p.joined()} AND t.{is_current}"
        same = every([d.same(column, "t", "s") for column in p.columns if column.name not in p.primary_key])
        steps = [
            *p.ddl((*p.primary_key, VALID_FROM)),
            p.count("before", p.into),
            *_ended(p),
            *p.set_aside(),
            p.count("staged", p.staged),
            p.keyed(),
            *p.leave_out("collapsed", p.superseded()),
        ]
        if p.cursor:
            behind = (
                f"SELECT s.{d.arrival} FROM {p.staged} AS s JOIN {p.into} AS t ON {current} "
                f"WHERE {p.order('t.')} > {p.order('s.')}"
            )
            steps += p.leave_out("stale", behind)
        begins = _begins(p)
        after = d.next_moment(f"t.{valid_from}")
        until = f"CASE WHEN t.{valid_from} < {begins} THEN {begins} ELSE {after} END"
        # The last version of the key was closed above, or long ago: the new one begins no earlier than that one ended.
        key = d.names(p.key, "s.")
        ended = (
            f"SELECT {key}, max(t.{valid_to}) AS _dpone_ended FROM {p.staged} AS s JOIN {p.into} AS t ON {p.joined()} "
            f"GROUP BY {key}"
        )
        versions = (
            f"SELECT {p.names('s.')}, {begins} AS _dpone_begins, e._dpone_ended FROM {p.staged} AS s "
            f"LEFT JOIN ({ended}) AS e ON {p.joined('s', 'e')} "
            f"WHERE NOT EXISTS (SELECT 1 FROM {p.into} AS t WHERE {current})"
        )
        steps += [
            Step(
                "scalar",
                f"SELECT count(*) FROM {p.staged} AS s JOIN {p.into} AS t ON {current} WHERE {same}",
                "unchanged",
            ),
            Step(
                "rows",
                f"UPDATE {p.into} AS t SET {valid_to} = {until}, {is_current} = FALSE FROM {p.staged} AS s "
                f"WHERE {current} AND NOT ({same})",
                "closed",
                only_if_equal=("staged", "keyed"),
            ),
            Step(
                "rows",
                f"INSERT INTO {p.into} ({p.names()}, {valid_from}, {valid_to}, {is_current}) SELECT {p.names('n.')}, "
                "CASE WHEN n._dpone_ended > n._dpone_begins THEN n._dpone_ended ELSE n._dpone_begins END, NULL, TRUE "
                f"FROM ({versions}) AS n",
                "inserted",
                only_if_equal=("staged", "keyed"),
            ),
            p.count("final", p.into),
        ]
        if p.digest:
            steps.append(p.digest_of("applied_digest", f"{p.into} AS t JOIN {p.staged} AS s ON {current}", prefix="t."))
        return steps

    def balance(self, read: int, results: Results) -> Balance:
        """See the module."""
        counts = {
            name: number(results, name)
            for name in ("staged", "before", "final", "inserted", "unchanged", "stale", "collapsed")
        }
        accounted = sum(counts[name] for name in ("inserted", "unchanged", "stale", "collapsed"))
        sink = results.get("applied_digest")
        if isinstance(sink, Digest):
            sink = sink + digest_in(results, "collapsed_digest") + digest_in(results, "stale_digest")
        return Balance(
            **counts,
            updated=number(results, "closed"),
            soft_deleted=number(results, "soft_deleted"),
            null_keys=counts["staged"] - number(results, "keyed"),
            sink=sink if isinstance(sink, Digest) else None,
            equations=(
                Equation("read = staged", read, counts["staged"]),
                Equation("staged = inserted + unchanged + stale + collapsed", counts["staged"], accounted),
                Equation("final = before + inserted", counts["final"], counts["before"] + counts["inserted"]),
                Equation("staged = rows with a key", counts["staged"], number(results, "keyed")),
            ),
        )


def _begins(p: Publication) -> str:
    """When the version of a staged row begins, by its own account."""
    opened = p.dialect.moment(p.opened_at)
    cursor = next((column for column in p.columns if column.name == p.cursor), None)
    instant = p.dialect.instant(cursor, "s.") if cursor is not None else ""
    return f"coalesce({instant}, {opened})" if instant else opened


def _ended(p: Publication) -> list[Step]:
    """The current versions of rows that are gone at the source end."""
    if not p.gone:
        return []
    d = p.dialect
    valid_from, valid_to, is_current = map(d.quote, (VALID_FROM, VALID_TO, IS_CURRENT))
    opened = d.moment(p.opened_at)
    until = f"CASE WHEN t.{valid_from} < {opened} THEN {opened} ELSE {d.next_moment(f't.{valid_from}')} END"
    found = f"t.{is_current} AND {p.among(p.gone)}"
    sql = f"UPDATE {p.into} AS t SET {valid_to} = {until}, {is_current} = FALSE WHERE {found}"
    return [Step("rows", sql, "soft_deleted")]
