"""The README does what it says: its first command runs, prints what is shown, and its manifest runs too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dpone
from tests.docs.pages import ROOT, blocks, flat

FLIGHTS = ROOT / "examples" / "flights"
_TIME = re.compile(r" \d+\.\d s$")


def environment() -> dict[str, str]:
    """That of a user who has installed dpone beside this Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DPONE_")}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", "PYTHONIOENCODING": "utf-8"}


def test_the_first_command(tmp_path: Path) -> None:
    """The example runs to its end with the installed dpone, and prints every line that the README shows."""
    folder = tmp_path / "demo"
    ran = subprocess.run(
        [FLIGHTS / "run", folder],
        env=environment() | {"DPONE": "dpone"},
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    [shown] = blocks(ROOT / "README.md", "text")
    printed = [flat(_TIME.sub("", line)) for line in ran.stdout.splitlines()]
    missing = [line for line in shown.text.splitlines() if line and flat(_TIME.sub("", line)) not in printed]
    assert [] == missing


def test_it_changes_nothing_in_the_repository(tmp_path: Path) -> None:
    """The example works in a copy, and refuses a folder that is there already."""
    before = {path: path.stat().st_mtime_ns for path in FLIGHTS.iterdir()}
    ran = subprocess.run(
        [FLIGHTS / "run", tmp_path], env=environment() | {"DPONE": "dpone"}, check=False, capture_output=True
    )
    assert ran.returncode == 2
    assert before == {path: path.stat().st_mtime_ns for path in FLIGHTS.iterdir()}


def test_the_manifest_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest of the README moves the example's data, proven, and leaves out what it excludes."""
    [shown] = blocks(ROOT / "README.md", "yaml")
    shutil.copy(FLIGHTS / "nyc.sqlite", tmp_path)
    (tmp_path / "dpone.yaml").write_text(shown.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    result = dpone.run("dpone.yaml")
    assert 0 == result.exit_code
    assert [27_004, 2_226] == [stream.rows["final"] for stream in result.streams]
