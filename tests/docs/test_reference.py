"""The reference cannot drift: generated pages are current, every code and every field of a record is described."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dpone
from dpone import errors
from tests.docs.pages import ROOT

REFERENCE = ROOT / "docs" / "reference"
_CODE = re.compile(r"DP\d{3}")
_SOURCES = list((ROOT / "src").rglob("*.py"))


def documented() -> dict[str, str]:
    """The category of each code on the page of errors."""
    rows = re.findall(
        r"^\| (DP\d{3}) \| (\w+) \| .+ \| .+ \| .+ \|$", (REFERENCE / "errors.md").read_text(), re.MULTILINE
    )
    assert len(rows) == len(dict(rows))
    return dict(rows)


def used() -> Iterator[tuple[str, str]]:
    """Every code that the program may raise, with its category where the code stands beside the error."""
    for path in _SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        beside: dict[ast.AST, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                kind = getattr(errors, node.func.id, None)
                for keyword in node.keywords:
                    if keyword.arg == "code" and isinstance(kind, type) and issubclass(kind, errors.DponeError):
                        beside[keyword.value] = kind.category
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _CODE.fullmatch(node.value):
                yield node.value, beside.get(node, "")


def test_generated_pages_are_current() -> None:
    """`tools/reference` would change nothing."""
    ran = subprocess.run(
        [sys.executable, ROOT / "tools" / "reference", "--check"], check=False, capture_output=True, text=True
    )
    assert (0, "") == (ran.returncode, ran.stdout + ran.stderr)


def test_every_code_is_documented_and_used() -> None:
    """The page of errors has exactly the codes of the program."""
    assert sorted({code for code, _ in used()}) == sorted(documented())


def test_categories_are_right() -> None:
    """A code has one category, and the page says which; all categories are explained."""
    known = documented()
    wrong = {(code, category) for code, category in used() if category and known.get(code) != category}
    assert set() == wrong
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DponeError)]
    defaults = {kind.default_code: kind.category for kind in classes}
    assert defaults == {code: known[code] for code in defaults}
    page = (REFERENCE / "errors.md").read_text()
    assert [] == [kind.category for kind in classes if f"| `{kind.category}` |" not in page]


def test_every_field_of_a_record_is_described(tmp_path: Path) -> None:
    """Whatever a real run writes is named on the page of the run record."""
    (tmp_path / "t.csv").write_text("id,at\n1,2024-01-01\n2,2024-01-02\n")
    manifest = {
        "version": 1,
        "pipeline": "fields",
        "source": {"connector": "files", "path": str(tmp_path / "t.csv")},
        "sink": {"connector": "duckdb", "path": str(tmp_path / "w.duckdb")},
        "streams": {"t": {"primary_key": "id", "cursor": {"column": "at", "lookback": "1d"}, "proof": "digest"}},
    }
    record = json.loads(dpone.run(manifest, store=tmp_path / "store").to_json())
    assert record["status"] == "succeeded"
    page = (REFERENCE / "run-record.md").read_text()
    named = set(re.findall(r"`([\w.]+)`", page)) | {"after", "until"}
    assert set() == set(_keys(record)) - named


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
