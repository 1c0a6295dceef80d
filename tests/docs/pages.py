"""The pages of the documentation, and what stands in them between fences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block. `mark` is the comment on the line before it, such as `file: shop.sql` or `fragment`."""

    page: Path
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name} {self.mark or self.text.splitlines()[0]}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page in these languages, in order."""
    found = _FENCE.finditer(page.read_text(encoding="utf-8"))
    return [
        Block(page, match["language"], match["mark"] or "", match["text"])
        for match in found
        if match["language"] in languages
    ]


def flat(text: str) -> str:
    """The text with every run of blanks and line breaks as one blank, since lines are wrapped and columns aligned."""
    return " ".join(text.split())
