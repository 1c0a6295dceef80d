"""Merge: upsert by key; the latest version of a row wins.

Latest is by cursor, then by arrival (slice, then position). Within a load, earlier versions of a key are collapsed.
A staged row whose cursor is behind the target's is stale: counted, not applied. A row that is the same in every
column is unchanged and not written.

Rows that are gone at the source are deleted, or marked with the time (`deletes`), before anything is inserted. A key
that is there again loses its mark.

    read = staged
    staged = inserted + updated + unchanged + stale + collapsed
    final = before + inserted - deleted

The proof adds up what is now in the target under the staged keys and what was left out as collapsed or stale:
together they must be what was read.
"""

from __future__ import annotations

from collections.abc import Sequence

from dpone.sdk import Digest, Results, Step
from dpone.sql.dialect import every
from dpone.strategy.base import DELETED_AT, Balance, Equation, Publication, Strategy, digest_in, number


class Merge(Strategy):
    """Collapse, drop stale, update what differs, insert what is new."""

    def steps(self, publication: Publication) -> Sequence[Step]:
        """See the module."""
        p, d = publication, publication.dialect
        values = [column for column in p.columns if column.name not in p.primary_key]
        joined = p.joined()
        same = every([d.same(column, "t", "s") for column in values])
        steps = [
            *p.ddl(),
            p.count("before", p.into),
            *_deletes(p),
            *p.set_aside(),
            p.count("staged", p.staged),
            p.keyed(),
            *p.leave_out("collapsed", p.superseded()),
        ]
        if p.cursor:
            there = f" AND t.{d.quote(DELETED_AT)} IS NULL" if p.marks else ""  # what was gone is behind anything
            behind = (
                f"SELECT s.{d.arrival} FROM {p.staged} AS s JOIN {p.into} AS t ON {joined} "
                f"WHERE {p.order('t.')} > {p.order('s.')}{there}"
            )
            steps += p.leave_out("stale", behind)
        steps.append(
            Step(
                "scalar",
                f"SELECT count(*) FROM {p.staged} AS s JOIN {p.into} AS t ON {joined} WHERE {same}",
                "unchanged",
            )
        )
        if values:
            unsettled = (d.unsettle(column, p.into, f"FROM {p.staged} AS s WHERE {joined}") for column in values)
            steps += [Step("run", sql, only_if_equal=("staged", "keyed")) for sql in unsettled if sql]
            assignments = ", ".join(f"{d.quote(column.name)} = s.{d.quote(column.name)}" for column in values)
            steps.append(
                Step(
                    "rows",
                    f"UPDATE {p.into} AS t SET {assignments} FROM {p.staged} AS s WHERE {joined} AND NOT ({same})",
                    "updated",
                    only_if_equal=("staged", "keyed"),
                )
            )
        steps += [
            Step(
                "rows",
                f"INSERT INTO {p.into} ({p.names()}) SELECT {p.names('s.')} FROM {p.staged} AS s "
                f"WHERE NOT EXISTS (SELECT 1 FROM {p.into} AS t WHERE {joined})",
                "inserted",
                only_if_equal=("staged", "keyed"),
            ),
            *_returned(p),
            p.count("final", p.into),
        ]
        if p.digest:
            steps.append(p.digest_of("applied_digest", f"{p.into} AS t JOIN {p.staged} AS s ON {joined}", prefix="t."))
        return steps

    def balance(self, read: int, results: Results) -> Balance:
        """See the module."""
        counts = {
            name: number(results, name)
            for name in (
                *("staged", "before", "final", "inserted", "updated", "unchanged", "stale", "collapsed"),
                *("deleted", "soft_deleted"),
            )
        }
        accounted = sum(counts[name] for name in ("inserted", "updated", "unchanged", "stale", "collapsed"))
        sink = results.get("applied_digest")
        if isinstance(sink, Digest):
            sink = sink + digest_in(results, "collapsed_digest") + digest_in(results, "stale_digest")
        return Balance(
            **counts,
            reactivated=number(results, "reactivated") + number(results, "returned"),
            null_keys=counts["staged"] - number(results, "keyed"),
            sink=sink if isinstance(sink, Digest) else None,
            equations=(
                Equation("read = staged", read, counts["staged"]),
                Equation("staged = inserted + updated + unchanged + stale + collapsed", counts["staged"], accounted),
                Equation(
                    "final = before + inserted - deleted",
                    counts["final"],
                    counts["before"] + counts["inserted"] - counts["deleted"],
                ),
                Equation("staged = rows with a key", counts["staged"], number(results, "keyed")),
            ),
        )


def _deletes(p: Publication) -> list[Step]:
    """What is done with rows that are gone at the source, and with those that are back."""
    d, steps = p.dialect, []
    if p.gone and p.deletes == "hard":
        steps.append(Step("rows", f"DELETE FROM {p.into} AS t WHERE {p.among(p.gone)}", "deleted"))
    if p.deletes != "soft":
        return steps
    mark = d.quote(DELETED_AT)
    if p.gone:
        found = f"t.{mark} IS NULL AND {p.among(p.gone)}"
        sql = f"UPDATE {p.into} AS t SET {mark} = {d.moment(p.opened_at)} WHERE {found}"
        steps.append(Step("rows", sql, "soft_deleted"))
    if p.back:  # what was also read loses its mark when it is merged
        found = f"t.{mark} IS NOT NULL AND {p.among(p.back)} AND NOT {p.among((*p.gone, *p.back), among=False)}"
        steps.append(Step("rows", f"UPDATE {p.into} AS t SET {mark} = NULL WHERE {found}", "reactivated"))
    return steps


def _returned(p: Publication) -> list[Step]:
    """Rows that were read again are there again."""
    if not p.marks:
        return []
    mark = p.dialect.quote(DELETED_AT)
    staged = f"EXISTS (SELECT 1 FROM {p.staged} AS s WHERE {p.joined()})"
    sql = f"UPDATE {p.into} AS t SET {mark} = NULL WHERE t.{mark} IS NOT NULL AND {staged}"
    return [Step("rows", sql, "returned", only_if_equal=("staged", "keyed"))]
