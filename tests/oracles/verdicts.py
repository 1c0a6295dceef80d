"""The table of an oracle: what it expects, what dpone did, and which differences are explained.

`explained.toml` holds the differences that are right, one table per oracle:

    [[adbc]]
    cases = ["ingest/timestamp_ns@postgres"]   # names of the table
    verdict = "refused"                        # refused: an error that names it, instead of a load
                                               # system: the system holds another value, and dpone moves that one
                                               # differs: loaded otherwise
    says = "DP406"                             # part of dpone's cell, so that another difference is not excused
    reason = "PostgreSQL holds microseconds"

An explanation whose case agrees by now, or says something else, or is not there any more, fails the oracle.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["agrees", "refused", "system", "differs"]
EXPLAINED = Path(__file__).with_name("explained.toml")
_WIDTH = 150


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `agrees` also stands for a refusal that the oracle expects."""

    case: str
    expected: str
    got: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why dpone's answer to some cases is right although the oracle says otherwise."""

    cases: tuple[str, ...]
    verdict: Verdict
    says: str
    reason: str

    def covers(self, row: Row) -> bool:
        """Whether this is the difference that was explained."""
        return row.case in self.cases and row.verdict == self.verdict and self.says in row.got


@dataclass(slots=True)
class Report:
    """The lines of one oracle, judged against its explanations."""

    explanations: Sequence[Explanation]
    rows: list[Row] = field(default_factory=list)

    @property
    def unexplained(self) -> list[Row]:
        """Differences that nobody explained. A `differs` among them is a value altered, lost or doubled in silence."""
        return [row for row in self.rows if row.verdict != "agrees" and self._reason(row) is None]

    @property
    def stale(self) -> list[str]:
        """Explained cases without the difference that was explained."""
        return [
            f"{case}: no longer {known.verdict} with {known.says!r}"
            for known in self.explanations
            for case in known.cases
            if not any(row.case == case and known.covers(row) for row in self.rows)
        ]

    @property
    def exit_code(self) -> int:
        """0 when every line agrees or is explained, and every explanation is used; 1 otherwise, or without a line."""
        return 0 if self.rows and not self.unexplained and not self.stale else 1

    def text(self) -> str:
        """The table in Markdown, the reasons below it, and the sum."""
        lines = ["| case | expected | dpone | verdict |", "|---|---|---|---|"]
        for row in self.rows:
            note = self._reason(row)
            verdict = row.verdict if note is None else f"{row.verdict} [{note + 1}]"
            if row in self.unexplained:
                verdict = "ALTERED, NOT EXPLAINED" if row.verdict == "differs" else f"{row.verdict}, NOT EXPLAINED"
            lines.append(f"| {row.case} | {_cell(row.expected)} | {_cell(row.got)} | {verdict} |")
        lines.append("")
        lines += [f"[{number}] {known.reason}" for number, known in enumerate(self.explanations, 1)]
        lines += [f"STALE EXPLANATION {text}" for text in self.stale]
        count = Counter(row.verdict for row in self.rows)
        lines.append(
            f"\n{len(self.rows)} cases: {count['agrees']} agree, {count['refused']} refused, "
            f"{count['system']} are other values in the system, {count['differs']} differ; "
            f"{len(self.unexplained)} not explained, {len(self.stale)} explanations stale"
        )
        return "\n".join(lines)

    def _reason(self, row: Row) -> int | None:
        return next((index for index, known in enumerate(self.explanations) if known.covers(row)), None)


def explanations(oracle: str, path: Path = EXPLAINED) -> tuple[Explanation, ...]:
    """The explanations of one oracle. Raises KeyError or ValueError for an entry that is not whole."""
    found: Iterable[Mapping[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8")).get(oracle, [])
    made = tuple(
        Explanation(tuple(entry["cases"]), entry["verdict"], entry["says"], entry["reason"]) for entry in found
    )
    for known in made:
        if not (known.cases and known.says and known.reason and known.verdict in ("refused", "system", "differs")):
            raise ValueError(f"{path.name}: an explanation of {oracle} lacks something: {known}")
    return made


def _cell(text: str) -> str:
    flat = " ".join(text.replace("|", "\\|").split())
    return flat if len(flat) <= _WIDTH else f"{flat[: _WIDTH - 3]}..."
