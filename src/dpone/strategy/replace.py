"""Replace: the target holds exactly what the source held.

Readers see the old rows or the new ones, never a part: DELETE and INSERT run in the transaction that stores the
receipt. The table itself stays, and with it grants, indexes, constraints, views and foreign keys. When the target
already holds the same rows (same count, then same digest) nothing is published.

    read = staged
    staged = inserted + unchanged
    final = before + inserted - deleted
    final = staged
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dpone.arrow.digest import undigestible
from dpone.sdk import Digest, Results, Step
from dpone.strategy.base import Balance, Equation, Publication, Strategy, number


class Replace(Strategy):
    """Delete what is there, insert what was staged, in one transaction."""

    def steps(self, publication: Publication) -> Sequence[Step]:
        """See the module."""
        p = publication
        same = ("staged", "before")
        comparable = p.exists and not p.added and not any(map(undigestible, p.columns))
        unchanged = ("staged_digest", "before_digest") if comparable else None
        steps = [*p.ddl(), p.count("staged", p.staged), p.count("before", p.into)]
        if comparable:
            both = (p.digest_of("before_digest", p.into), p.digest_of("staged_digest", p.staged))
            steps += [dataclasses.replace(step, only_if_equal=same) for step in both]
        steps += [
            Step("rows", f"DELETE FROM {p.into}", "deleted", unless_equal=unchanged),
            Step(
                "rows",
                f"INSERT INTO {p.into} ({p.names()}) SELECT {p.names()} FROM {p.staged}",
                "inserted",
                unless_equal=unchanged,
            ),
            p.count("final", p.into),
        ]
        return [*steps, p.digest_of("final_digest", p.into)] if p.digest else steps

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
                Equation("final = staged", final, staged),
            ),
        )
