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
        inside = _rows(p, p.into, affected)
        same = ("staged", "affected")
        comparable = p.exists and not p.added and not any(map(undigestible, p.columns))
        unchanged = ("staged_digest", "before_digest") if comparable else None
        mistakes = dataclasses.replace(p.count("partition_by", _rows(p, p.staged, affected)), kind="probe")
        steps = [mistakes] if p.partition_by else []
        steps += [*p.ddl(), p.count("staged", p.staged), p.count("before", p.into)]
        if comparable:
            both = (p.digest_of("before_digest", inside), p.digest_of("staged_digest", p.staged))
            steps += [p.count("affected", inside), *(dataclasses.replace(step, only_if_equal=same) for step in both)]
        steps += [
            Step("rows", f"DELETE FROM {p.into} WHERE {where}", name, unless_equal=unchanged)
            for name, where in zip(("deleted", "deleted_null"), affected, strict=True)
        ]
        steps += [
            Step(
                "rows",
                f"INSERT INTO {p.into} ({p.names()}) SELECT {p.names()} FROM {p.staged}",
                "inserted",
                unless_equal=unchanged,
            ),
            p.count("final", p.into),
            p.count("inside", inside),
        ]
        return [*steps, p.digest_of("final_digest", inside)] if p.digest else steps

    def balance(self, read: int, results: Results) -> Balance:
        """See the module."""
        staged, before, final = (number(results, name) for name in ("staged", "before", "final"))
        inserted = number(results, "inserted")
        deleted = number(results, "deleted") + number(results, "deleted_null")
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


def _rows(p: Publication, table: str, conditions: tuple[str, str]) -> str:
    """The rows of a table that meet one of two conditions which no row meets both."""
    each = (f"SELECT {p.names()} FROM {table} WHERE {condition}" for condition in conditions)
    return f"({' UNION ALL '.join(each)}) AS t"


def _by_values(p: Publication) -> tuple[str, str]:
    """Of the target's rows, those in a partition of the staged rows: of values, and of values some of which are NULL.

    Two conditions that never stand in one WHERE: the first alone is a join that any system does with a hash table, and
    the second is asked of the few rows that have a NULL.
    """
    values = _values(p)
    names = [f"_dpone_part_{index}" for index in range(len(values))]
    selected = ", ".join(f"{value} AS {name}" for value, name in zip(values, names, strict=True))
    found = f"(SELECT DISTINCT {selected} FROM {p.staged}) AS p"
    alike = " AND ".join(
        p.dialect.same_values.format(a=f"p.{name}", b=value) for name, value in zip(names, values, strict=True)
    )
    null_staged, null = (" OR ".join(f"{value} IS NULL" for value in each) for each in (names, values))
    return (
        f"({', '.join(values)}) IN (SELECT {', '.join(names)} FROM {found})",
        f"({null}) AND EXISTS (SELECT 1 FROM {found} WHERE ({null_staged}) AND {alike})",
    )


def _by_cursor(p: Publication) -> tuple[str, str]:
    """Of the target's rows, those in the window of the staged rows, and those without a cursor value if it has such."""
    order = p.order()
    lowest, highest = (f"(SELECT {end}({order}) FROM {p.staged})" for end in ("min", "max"))
    name = p.dialect.quote(p.cursor)
    return (
        f"{order} BETWEEN {lowest} AND {highest}",
        f"{name} IS NULL AND EXISTS (SELECT 1 FROM {p.staged} WHERE {name} IS NULL)",
    )
