"""The pages hold together: links lead somewhere, manifests are valid, named tests exist."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

import dpone
from tests.docs.pages import PAGES, ROOT, Block, blocks

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_MANIFESTS = [block for page in PAGES for block in blocks(page, "yaml") if block.mark != "fragment"]


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    kept = string.ascii_lowercase + string.digits + "-_"
    headings = re.findall(r"^#+ (.*)$", _FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {"".join(c for c in heading.lower().replace(" ", "-") if c in kept) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the repository, and to a heading in it, has its end."""
    broken = []
    for link in _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert [] == broken


@pytest.mark.parametrize("block", _MANIFESTS, ids=str)
def test_manifests_are_valid(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every manifest that is shown passes the validator; what is only a part of one is marked as a fragment."""
    for name in re.findall(r"\$\{env:(\w+)\}", block.text):
        monkeypatch.setenv(name, "postgres://me@localhost/shop")
    path = tmp_path / "dpone.yaml"
    path.write_text(block.text, encoding="utf-8")
    assert dpone.load_manifest(path).streams


def test_named_tests_exist() -> None:
    """Each test that the README names as holding a guarantee is there."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / file).read_text()]
    assert [] == missing
    assert len(named) > 10
