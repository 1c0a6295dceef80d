"""The page on transforms, run as it is written."""

from __future__ import annotations

import hashlib
import hmac
import shutil
import subprocess
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from dpone.testing.kit import unavailable
from tests.docs.pages import ROOT, blocks, flat
from tests.docs.test_readme import environment
from tests.docs.test_tutorial import _steps

PAGE = ROOT / "docs" / "transform.md"


def test_the_example(tmp_path: Path) -> None:
    """Each command succeeds and prints every line shown after it, in that order; the target holds what is promised."""
    if shutil.which("sqlite3") is None:
        unavailable("sqlite3 is not installed here: install the package sqlite3")
    for block in blocks(PAGE, "sql", "yaml"):
        if block.mark.startswith("file: "):
            (tmp_path / block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
    steps = [step for block in blocks(PAGE, "console") for step in _steps(block.text)]
    script = "\n".join(["exec 2>&1; set -e", *(f"{command}\necho @@" for command, _ in steps)])
    ran = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment(), check=False, capture_output=True, encoding="utf-8"
    )
    assert 0 == ran.returncode, ran.stdout
    for (command, shown), output in zip(steps, ran.stdout.split("@@\n"), strict=False):
        rest = flat(output)
        for line in shown:
            assert flat(line) in rest, f"{command}\n{output}"
            rest = rest.partition(flat(line))[2]
    [key] = [command.partition("=")[2] for command, _ in steps if command.startswith("export ")]
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        rows = connection.execute("SELECT id, customer_id, email, phone, note, total::VARCHAR FROM orders ORDER BY id")
        hashes = [
            hmac.new(key.encode(), mail, hashlib.sha256).hexdigest()
            for mail in (b"ann@example.com", b"bob@example.com")
        ]
        assert [(1, 7, hashes[0], "***", None, "39.98"), (2, 8, hashes[1], None, None, "5.00")] == rows.fetchall()
        assert [(2,), (2,)] == connection.execute("SELECT orders FROM loads").fetchall()


def test_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python block is a function that does what it says."""
    [block] = blocks(PAGE, "python")
    (tmp_path / "clean_page.py").write_text(block.text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import clean_page  # type: ignore[import-not-found]

    assert [1] == clean_page.orders(pa.record_batch({"customer_id": [0, 1]})).column("customer_id").to_pylist()
