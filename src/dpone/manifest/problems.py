"""What can be wrong with a manifest, where, and what to write instead.

The codes: DP100 a file cannot be read, DP101 an unknown key, DP102 a wrong type or value, DP103 an unknown connector
or URL scheme, DP104 an undefined connection, DP105 an unknown type name, DP106 a key is missing, DP107 a reference
that is malformed or undefined, DP108 keys that contradict each other, DP109 the text is not YAML, DP111 a key is given
twice, DP112 a feature of YAML, or a size, that dpone refuses.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from dpone.errors import ConfigError

_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a manifest.

    `line` and `column` count from 1 and are 0 when the whole file, or a manifest without a file, is meant.
    `found` names what was found and `help` what to write instead. `excerpt` is the line of the file with secrets
    masked, `caret` the column (from 0) in it and `width` the number of characters to underline.
    """

    code: str
    message: str
    path: str
    line: int = 0
    column: int = 0
    key_path: str = ""
    found: str = ""
    help: str = ""
    excerpt: str = ""
    caret: int = 0
    width: int = 1

    @property
    def where(self) -> str:
        """`dpone.yaml:8:5`, or the key path of a manifest that came from no file."""
        return f"{self.path}:{self.line}:{self.column}" if self.line else self.path or self.key_path

    def as_dict(self) -> dict[str, Any]:
        """The problem as `--json` holds it."""
        fields = asdict(self)
        for drawing in ("excerpt", "caret", "width"):
            del fields[drawing]
        return fields


class ManifestError(ConfigError):
    """Everything that is wrong with a manifest, at once. Nothing was touched."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.path, problem.line, problem.column)))
        first = self.problems[0]
        more = len(self.problems) - 1
        message = first.message + (f" (and {more} more {'error' if more == 1 else 'errors'})" if more else "")
        super().__init__(message, remedy=first.help, where=first.where, code=first.code)

    def as_dict(self) -> dict[str, Any]:
        """The failure as the run record and `--json` hold it, with every problem."""
        return super().as_dict() | {"problems": [problem.as_dict() for problem in self.problems]}

    def render(self) -> str:
        """All problems, for a terminal."""
        return render_problems(self.problems)


def render_problems(problems: Sequence[Problem]) -> str:
    """The problems in the manner of rustc, a blank line between them."""
    return "\n\n".join(_render(problem) for problem in problems)


def _render(problem: Problem) -> str:
    lines = [f"error[{problem.code}]: {problem.message}"]
    if problem.where:
        lines.append(f"  --> {problem.where}")
    if problem.line and problem.excerpt:
        number = str(problem.line)
        margin = " " * max(3, len(number))
        text, before, width = _fit(problem.excerpt, problem.caret, problem.width)
        lines += [f"{margin}|", f"{number:>{len(margin)}}| {text}", f"{margin}| {before}{'^' * width}"]
        lines += [f"{margin}= help: {problem.help}"] if problem.help else []
    elif problem.help:
        lines.append(f"   = help: {problem.help}")
    return "\n".join(lines)


def _fit(text: str, caret: int, width: int) -> tuple[str, str, int]:
    """The part of a line that fits a terminal, the blanks before the caret, the carets. Wide letters count two."""
    start = max(0, caret - _WIDTH // 2) if len(text) > _WIDTH else 0
    shown = text[start : start + _WIDTH]
    before = "".join("  " if _wide(letter) else " " for letter in text[start:caret])
    under = text[caret : min(caret + max(width, 1), start + _WIDTH)]
    return shown, before, max(1, sum(2 if _wide(letter) else 1 for letter in under))


def _wide(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in "WF"


def shown(text: str, limit: int = 60) -> str:
    """Text of the user as it may stand in a message: one line, no control characters, quoted, not too long."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f"'{clean[:limit]}...'" if len(clean) > limit else f"'{clean}'"


def dotted(path: Sequence[str | int]) -> str:
    """A key path for people: `streams.public.orders.primary_key[0]`."""
    text = ""
    for piece in path:
        text += f"[{piece}]" if isinstance(piece, int) else f".{piece}" if text else piece
    return "".join(letter if letter.isprintable() else "?" for letter in text)


# What other tools call it; consulted before the spelling is compared.
_SYNONYMS = {
    "key": "primary_key",
    "keys": "primary_key",
    "pk": "primary_key",
    "merge_key": "primary_key",
    "unique_key": "primary_key",
    "incremental": "cursor",
    "incremental_key": "cursor",
    "replication_key": "cursor",
    "update_key": "cursor",
    "cursor_field": "cursor",
    "mode": "write",
    "strategy": "write",
    "disposition": "write",
    "write_disposition": "write",
    "destination": "sink",
    "where": "filter",
    "table": "target",
    "tables": "streams",
    "resources": "streams",
    "name": "pipeline",
    "select": "columns",
    "upsert": "merge",
    "insert_overwrite": "delete_insert",
    "delete+insert": "delete_insert",
    "history": "scd2",
    "partition": "partition_by",
    "partitions": "partition_by",
    "overwrite": "replace",
    "truncate": "replace",
    "full_refresh": "replace",
    "insert": "append",
    "hash": "digest",
    "checksum": "digest",
    "integer": "int64",
    "int": "int64",
    "bigint": "int64",
    "smallint": "int16",
    "string": "text",
    "varchar": "text",
    "bool": "boolean",
    "double": "float64",
    "float": "float64",
    "real": "float32",
    "numeric": "decimal(p,s)",
    "decimal": "decimal(p,s)",
    "datetime": "timestamp",
    "jsonb": "json",
    "bytes": "binary",
    "bytea": "binary",
    "blob": "binary",
}


def suggest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or an empty string."""
    words = list(known)
    plain = re.sub(r"[\s-]+", "_", word.strip().lower())
    for candidate in (plain, _SYNONYMS.get(plain, "")):
        if candidate in words:
            return candidate
    return next(iter(get_close_matches(plain, words, n=1, cutoff=0.6)), "")
