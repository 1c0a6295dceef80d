"""The page of retries says what the code does."""

from __future__ import annotations

import re
from typing import get_args

from dpone.engine import retry
from dpone.errors import Category
from dpone.manifest.models import Retries
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "retries.md"
ERRORS = ROOT / "docs" / "reference" / "errors.md"


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table after a heading."""
    text = PAGE.read_text().partition(f"## {heading}\n")[2]
    lines = re.search(r"^\|.*?(?=\n\n)", text, re.DOTALL | re.MULTILINE)
    assert lines
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]


def test_the_ladder() -> None:
    """Each rung has its longest wait; the last row is the ceiling."""
    *rungs, (last, ceiling) = rows("The ladder")
    for number, (name, wait) in enumerate(rungs, 1):
        assert (str(number), f"{retry.longest_wait(number):g} s") == (name, wait)
    first = len(rungs) + 1
    assert (f"{first} and later", f"{retry.LONGEST_WAIT_S:g} s") == (last, ceiling)
    assert retry.longest_wait(first) == retry.LONGEST_WAIT_S > retry.longest_wait(first - 1)


def test_the_bounds() -> None:
    """The defaults of the manifest, and the number of retries of a run."""
    [block] = blocks(PAGE, "yaml")
    found = dict(re.findall(r"(\w+): (\w+)$", block.text, re.MULTILINE))
    assert Retries() == Retries.model_validate({"attempts": int(found["attempts"]), "budget": found["budget"]})
    assert f"at most {retry.RETRIES_OF_A_RUN} retries" in " ".join(PAGE.read_text().split())


def test_every_category_is_there_once_and_right() -> None:
    """Whether it may be tried again, here and on the page of errors."""
    table = {name: said for names, said, _ in rows("What is tried again") for name in re.findall(r"`(\w+)`", names)}
    assert set(get_args(Category)) == set(table)
    assert retry.RETRIED == {name for name, said in table.items() if said != "never"}
    listed = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", ERRORS.read_text(), re.MULTILINE))
    assert set(get_args(Category)) == set(listed)
    assert retry.RETRIED == {name for name, said in listed.items() if said != "no"}
