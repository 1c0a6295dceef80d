"""The kit is itself tested: every seeded bug must turn it red, and without a bug it is green."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.bugs import BUGS, Bug

ROOT = Path(__file__).parents[2]


def kit(connector: str, folder: Path, *arguments: str, mutant: str = "") -> subprocess.CompletedProcess[str]:
    """Run the kit for one connector until the first failure."""
    command = [sys.executable, "-m", "pytest", "--quiet", "--exitfirst", "--pyargs", "dpone.testing.suite"]
    command += ["-p", "dpone.testing.plugin", "-p", "tests.mutants.plugin", "-p", "no:cacheprovider"]
    command += ["-c", os.devnull, "--rootdir", str(folder), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST_"))}
    environment |= {"DPONE_CERTIFY": connector, "PYTHONPATH": str(ROOT)}
    environment |= {"DPONE_MUTANT": mutant} if mutant else {}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("bug", BUGS.values(), ids=lambda bug: bug.name)
def test_every_bug_turns_the_kit_red(bug: Bug, tmp_path: Path) -> None:
    """The test that is likely to find the bug fails, or else another one does."""
    found = kit(bug.connector, tmp_path, "-k", bug.first, mutant=bug.name)
    assert found.returncode in (0, 1), found.stdout + found.stderr
    assert " passed" in found.stdout or " failed" in found.stdout, found.stdout
    if found.returncode == 0:
        found = kit(bug.connector, tmp_path, mutant=bug.name)
    assert found.returncode == 1, f"the kit is green: {bug.what}\n{found.stdout[-2000:]}"


def test_the_tests_that_find_bugs_are_green_without_them(tmp_path: Path) -> None:
    """A test that fails for every reason finds nothing: without a bug, those that found one pass."""
    assert len(BUGS) >= 30
    for connector in sorted({bug.connector for bug in BUGS.values()}):
        names = {bug.first for bug in BUGS.values() if bug.connector == connector}
        found = kit(connector, tmp_path, "-k", " or ".join(sorted(names)))
        assert found.returncode == 0, found.stdout[-3000:]
