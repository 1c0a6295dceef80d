"""Append: the rows of the window are added.

When the rows at the last checkpoint were read again (some changed, or came late), those of them that the target
already holds, value by value and as often, are left out and counted as unchanged. So no tie is lost and none doubled.

    read = staged
    staged = inserted + unchanged
    final = before + inserted
"""

from __future__ import annotations

from collections.abc import Sequence

from dpone.sdk import Digest, Results, Step
from dpone.sql.dialect import every
from dpone.strategy.base import Balance, Equation, Publication, digest_in, number


class Append:
    """Insert what was staged."""

    def steps(self, publication: Publication) -> Sequence[Step]:
        """See the module."""
        p = publication
        steps = [*p.ddl(), p.count("staged", p.staged), p.count("before", p.into)]
        if p.digest:
            steps.append(p.digest_of("before_digest", p.into))
        if p.inclusive and p.exists:
            known = f"{p.dialect.arrival} IN ({_known_ties(p)})"
            if p.digest:
                steps.append(p.digest_of("ties_digest", p.staged, known))
            steps.append(Step("rows", f"DELETE FROM {p.staged} WHERE {known}", "unchanged"))
        steps += [
            Step("rows", f"INSERT INTO {p.into} ({p.names()}) SELECT {p.names()} FROM {p.staged}", "inserted"),
            p.count("final", p.into),
        ]
        return [*steps, p.digest_of("final_digest", p.into)] if p.digest else steps

    def balance(self, read: int, results: Results) -> Balance:
        """See the module."""
        staged, before, final = (number(results, name) for name in ("staged", "before", "final"))
        inserted, unchanged = number(results, "inserted"), number(results, "unchanged")
        sink = results.get("final_digest")
        if isinstance(sink, Digest):
            sink = sink - digest_in(results, "before_digest") + digest_in(results, "ties_digest")
        return Balance(
            staged=staged,
            before=before,
            final=final,
            inserted=inserted,
            unchanged=unchanged,
            sink=sink if isinstance(sink, Digest) else None,
            equations=(
                Equation("read = staged", read, staged),
                Equation("staged = inserted + unchanged", staged, inserted + unchanged),
                Equation("final = before + inserted", final, before + inserted),
            ),
        )


def _known_ties(p: Publication) -> str:
    """The staged rows at the checkpoint (the lowest cursor staged) that the target already holds.

    Equal rows are numbered on both sides, so that two equal rows match two and not one.
    """
    d = p.dialect
    cursor = p.order()
    old = [column for column in p.columns if column.name not in {added.name for added in p.added}]
    values = ", ".join(d.identical(d.quote(column.name), column.native) for column in old)

    def numbered(table: str, extra: str) -> str:
        return (
            f"(SELECT {p.names()}{extra}, row_number() OVER (PARTITION BY {values}) AS _dpone_copy FROM {table} "
            f"WHERE {cursor} = (SELECT min({cursor}) FROM {p.staged}))"
        )

    same = every([d.same(column, "s", "t") for column in old])
    return (
        f"SELECT s._dpone_at FROM {numbered(p.staged, f', {d.arrival} AS _dpone_at')} AS s "
        f"JOIN {numbered(p.into, '')} AS t ON s._dpone_copy = t._dpone_copy AND {same}"
    )
