"""Append: the rows of the window are added.

Where rows were read again, because some of them may have come late, those that the target already holds are left out
and counted as unchanged: told by their key and cursor, or without a key value by value and as often. So no late row is
lost and no other one doubled.

With a key (`deduplicate: true`) each key is added once. Of the rows of a load with one key the latest stays, by cursor,
then by arrival; the others are collapsed. A row whose key the target holds already is left out and counted as
unchanged, whatever its other values are.

    read = staged
    staged = inserted + unchanged + collapsed
    final = before + inserted
"""

from __future__ import annotations

from collections.abc import Sequence

from dpone.sdk import Digest, Results, Step
from dpone.sql.dialect import every
from dpone.strategy.base import Balance, Equation, Publication, Strategy, digest_in, number


class Append(Strategy):
    """Insert what was staged."""

    def steps(self, publication: Publication) -> Sequence[Step]:
        """See the module."""
        p = publication
        steps = [*p.ddl(), p.count("staged", p.staged), p.count("before", p.into)]
        if p.digest:
            steps.append(p.digest_of("before_digest", p.into))
        if p.primary_key:
            held = f"SELECT s.{p.dialect.arrival} FROM {p.staged} AS s JOIN {p.into} AS t ON {p.joined()}"
            steps += [p.keyed(), *p.leave_out("collapsed", p.superseded()), *p.leave_out("unchanged", held)]
        elif p.again and p.exists:
            steps += p.leave_out("unchanged", _known(p))
        steps += [
            Step(
                "rows",
                f"INSERT INTO {p.into} ({p.names()}) SELECT {p.names()} FROM {p.staged}",
                "inserted",
                only_if_equal=("staged", "keyed") if p.primary_key else None,
            ),
            p.count("final", p.into),
        ]
        return [*steps, p.digest_of("final_digest", p.into)] if p.digest else steps

    def balance(self, read: int, results: Results) -> Balance:
        """See the module."""
        staged, before, final = (number(results, name) for name in ("staged", "before", "final"))
        inserted, unchanged, collapsed = (number(results, name) for name in ("inserted", "unchanged", "collapsed"))
        keyed = number(results, "keyed") if "keyed" in results else staged
        sink = results.get("final_digest")
        if isinstance(sink, Digest):
            sink -= digest_in(results, "before_digest")
            sink = sink + digest_in(results, "unchanged_digest") + digest_in(results, "collapsed_digest")
        return Balance(
            staged=staged,
            before=before,
            final=final,
            inserted=inserted,
            unchanged=unchanged,
            collapsed=collapsed,
            null_keys=staged - keyed,
            sink=sink if isinstance(sink, Digest) else None,
            equations=(
                Equation("read = staged", read, staged),
                Equation("staged = inserted + unchanged + collapsed", staged, inserted + unchanged + collapsed),
                Equation("final = before + inserted", final, before + inserted),
            ),
        )


def _known(p: Publication) -> str:
    """The rows of the slices that were read again which the target already holds.

    Equal rows are numbered on both sides, so that two equal rows match two and not one.
    """
    d = p.dialect
    cursor = p.order()
    added = {column.name for column in p.added}
    told = [column for column in p.columns if column.name in p.version] or p.columns
    old = [column for column in told if column.name not in added]
    values = ", ".join(d.identical(d.quote(column.name), column.native) for column in old)
    again = f"_dpone_slice IN ({', '.join(map(str, p.again))})"

    def numbered(table: str, extra: str, where: str) -> str:
        return (
            f"(SELECT {p.names()}{extra}, row_number() OVER (PARTITION BY {values}) AS _dpone_copy FROM {table} "
            f"WHERE {where})"
        )

    between = f"{cursor} >= (SELECT min({cursor}) FROM {p.staged} WHERE {again})"
    between += f" AND {cursor} <= (SELECT max({cursor}) FROM {p.staged} WHERE {again})"
    same = every([d.same(column, "s", "t") for column in old])
    return (
        f"SELECT s._dpone_at FROM {numbered(p.staged, f', {d.arrival} AS _dpone_at', again)} AS s "
        f"JOIN {numbered(p.into, '', between)} AS t ON s._dpone_copy = t._dpone_copy AND {same}"
    )
