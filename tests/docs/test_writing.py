"""The page on ways to write, run as it is written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import duckdb
import pytest

import dpone
from tests.docs.pages import ROOT, blocks


def test_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQL changes the source, a manifest is run at once and again after each change, the target is as it is shown."""
    monkeypatch.chdir(tmp_path)
    shown = 0
    for block in blocks(ROOT / "docs" / "writing.md", "sql", "yaml", "text"):
        if block.language == "sql":
            with sqlite3.connect("shop.db") as shop:
                shop.executescript(block.text)
        if block.language == "yaml":
            Path("dpone.yaml").write_text(block.text, encoding="utf-8")
        if Path("dpone.yaml").exists() and block.language != "text":
            [stream] = dpone.run("dpone.yaml").streams
            assert stream.failure is None, stream.failure
        if block.language == "text":
            assert block.text == table(block.mark.removeprefix("target: "))
            shown += 1
    assert 3 == shown


def table(query: str) -> str:
    """What the query gives, a row a line."""
    with duckdb.connect("warehouse.duckdb") as warehouse:
        warehouse.execute("SET TimeZone = 'UTC'")
        rows = warehouse.execute(f"SELECT columns(*)::VARCHAR FROM ({query})").fetchall()
    return "".join(" | ".join("NULL" if cell is None else cell for cell in row) + "\n" for row in rows)
