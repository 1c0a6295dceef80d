"""Delete and insert: the partitions that the staged rows belong to are replaced as a whole.

A partition is what `partition_by` says: all rows with the same values in these columns or expressions, NULL being a
value. Without it a partition is the window of the cursor: the rows whose cursor lies between the lowest and the highest
that was staged, both included, and those without a cursor if such rows were staged. What lies in no partition of the
staged rows stays as it is, so no staged rows delete nothing. When the partitions hold the same rows already (same
count, then same digest) nothing is published.

    read = staged
    staged = inserted + unchanged
    final = before + inserted - deleted
    rows in the partitions = staged

The proof covers all rows of the partitions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dpone.arrow.digest import undigestible
from dpone.sdk import Digest, Results, Step
from dpone.strategy.base import Balance, Equation, Publication, Strategy, number


class DeleteInsert(Strategy):
    """Delete the partitions, insert what was staged, in one transaction."""

    def steps(self, publication: Publication) -> Sequence[Step]:
        """See the module."""
        p = publication
        affected = _by_values(p) if p.partition_by else _by_cursor(p)
        inside = f"SELECT count(*) FROM {p.into} WHERE {affected}"
        same = ("staged", "affected")
        comparable = p.exists and not p.added and not any(map(undigestible, p.columns))
        unchanged = ("staged_digest", "before_digest") if comparable else None
        mistakes = Step("probe", f"SELECT count(*) FROM {p.staged} WHERE {affected}", "partition_by")
        probe = [mistakes] if p.partition_by else []
        steps = [*probe, *p.ddl(), p.count("staged", p.staged), p.count("before", p.into)]
        if comparable:
            both = (p.digest_of("before_digest", p.into, affected), p.digest_of("staged_digest", p.staged))
            steps.append(Step("scalar", inside, "affected"))
            steps += [dataclasses.replace(step, only_if_equal=same) for step in both]
        steps += [
            Step("rows", f"DELETE FROM {p.into} WHERE {affected}", "deleted", unless_equal=unchanged),
            Step(
                "rows",
                f"INSERT INTO {p.into} ({p.names()}) SELECT {p.names()} FROM {p.staged}",
                "inserted",
                unless_equal=unchanged,
            ),
            p.count("final", p.into),
            Step("scalar", inside, "inside"),
        ]
        return [*steps, p.digest_of("final_digest", p.into, affected)] if p.digest else steps

    def balance(self, read: int, results: Results) -> Balance:
        """See the module."""
        staged, before, final = (number(results, name) for name in ("staged", "before", "final"))
        inserted, deleted = number(results, "inserted"), number(results, "deleted")
        unchanged = staged if results.get("inserted") is None else 0
        sink = results.get("final_digest")
        return Balance(
            staged=staged,
            before=before,
            final=final,
            inserted=inserted,
            deleted=deleted,
            unchanged=unchanged,
            sink=sink if isinstance(sink, Digest) else None,
            equations=(
                Equation("read = staged", read, staged),
                Equation("staged = inserted + unchanged", staged, inserted + unchanged),
                Equation("final = before + inserted - deleted", final, before + inserted - deleted),
                Equation("rows in the partitions = staged", number(results, "inside"), staged),
            ),
        )


def _values(p: Publication) -> list[str]:
    """The values that make a partition, as expressions over the columns of the stream.

    Columns compare as values, whatever collation the target's have; an expression as the sink compares it.
    """
    native = {column.name: column.native for column in p.columns}
    return [
        p.dialect.identical(p.dialect.quote(item), native[item]) if item in native else f"({item})"
        for item in p.partition_by
    ]


def _found(p: Publication) -> str:
    """The partitions of the staged rows."""
    selected = ", ".join(f"{value} AS _dpone_part_{index}" for index, value in enumerate(_values(p)))
    return f"(SELECT DISTINCT {selected} FROM {p.staged}) AS p"


def _by_values(p: Publication) -> str:
    """Of the target's rows, those in a partition of the staged rows.

    Two questions instead of one that knows NULL: a system can answer the first with a hash table, and asks the second
    only of rows that have a NULL.
    """
    values, found = _values(p), _found(p)
    names = [f"_dpone_part_{index}" for index in range(len(values))]
    row, listed = ", ".join(values), ", ".join(names)
    unknown = " OR ".join(f"{value} IS NULL" for value in values)
    alike = " AND ".join(
        p.dialect.same_values.format(a=f"p.{name}", b=value) for name, value in zip(names, values, strict=True)
    )
    return (
        f"(({row}) IN (SELECT {listed} FROM {found}) OR ({unknown}) AND EXISTS (SELECT 1 FROM {found} WHERE {alike}))"
    )


def _by_cursor(p: Publication) -> str:
    """Of the target's rows, those in the window of the staged rows."""
    order = p.order()
    lowest, highest = (f"(SELECT {end}({order}) FROM {p.staged})" for end in ("min", "max"))
    name = p.dialect.quote(p.cursor)
    unknown = f"{name} IS NULL AND EXISTS (SELECT 1 FROM {p.staged} WHERE {name} IS NULL)"
    return f"({order} BETWEEN {lowest} AND {highest} OR {unknown})"
