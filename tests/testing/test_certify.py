"""Certification: levels come from outcomes, waivers are strict, third-party connectors are equals, lies are found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dpone.sdk import Capability
from dpone.sdk.connector import FULL, Connector, Support
from dpone.testing.levels import CHECKS, LADDER, Outcome, combined, level

ROOT = Path(__file__).parents[2]


# -- the level -------------------------------------------------------------------------------------------------------


def connector(**gaps: Support) -> Connector:
    """A connector that can do everything but these."""
    capabilities = {capability: gaps.get(capability.name, FULL) for capability in Capability}
    return Connector("x", "X", ("x",), "x:Config", "x:Source", "x:Sink", capabilities=capabilities)


def judged(outcomes: Mapping[str, Outcome], served: str = "real", **gaps: Support) -> tuple[str, list[str]]:
    """The level with these outcomes; all other checks passed."""
    passed: dict[str, Outcome] = dict.fromkeys(CHECKS, "passed")
    return level(passed | dict(outcomes), connector(**gaps), ["source", "sink"], served)


def test_every_check_has_a_rung() -> None:
    """No check is without consequence; C13 is for HTTP alone and comes with its connectors."""
    assert set(CHECKS) - {"C13"} == {check for checks in LADDER.values() for check in checks}


@pytest.mark.parametrize("outcome", ["failed", "skipped", "waived", "not_run"])
def test_only_what_was_executed_and_passed_counts(outcome: Outcome) -> None:
    """A failed, skipped, waived or missing check caps the level below its rung, and is named."""
    assert ("certified", []) == judged({})
    assert "none" == judged({"C2": outcome})[0]
    assert "experimental" == judged({"C8": outcome})[0]
    reached, short = judged({"C11": outcome})
    assert ("beta", [f"C11 crashes: {outcome.replace('_', ' ')}"]) == (reached, short)


def test_what_does_not_apply_is_no_obstacle() -> None:
    """A system without a network can be certified."""
    assert "certified" == judged({"C12": "not_applicable", "C2": "not_applicable"})[0]


@pytest.mark.parametrize("served", ["fake", "unknown"])
def test_a_fake_certifies_nothing(served: str) -> None:
    """Whatever passed, it passed on a fake."""
    assert "none" == judged({}, served)[0]
    assert "certified" == judged({}, "emulated")[0]


def test_a_gap_in_the_minimum_caps_the_level_and_an_impossibility_does_not() -> None:
    """`not implemented` ends at beta; what the system cannot do is no fault of its connector."""
    gap = Support("not_implemented", "why", "instead")
    assert ("beta", ["read.late_commits is not implemented"]) == judged({}, READ_LATE_COMMITS=gap)
    assert "certified" == judged({}, WRITE_MERGE=Support("impossible", "why", "instead"))[0]


def test_the_worst_outcome_of_its_tests_is_that_of_a_check() -> None:
    """One failure is a failure; tests that do not apply do not count beside others."""
    assert "failed" == combined(["passed", "failed", "skipped"])
    assert "skipped" == combined(["passed", "skipped", "not_applicable"])
    assert "waived" == combined(["passed", "waived"])
    assert "passed" == combined(["passed", "not_applicable"])
    assert "not_applicable" == combined(["not_applicable"])
    assert "not_run" == combined([])


# -- a third-party connector -----------------------------------------------------------------------------------------

TOY = """
from dataclasses import replace
from dpone.testing.memory import connector as memory
settings = {"config": "toy.settings:Settings", "harness": "toy.settings:Harness"}
connector = replace(memory, name="toy", schemes=("toy",), **settings)
"""
SETTINGS = """
from dpone.testing.memory.harness import MemoryHarness
from dpone.testing.memory.place import MemoryConfig
class Settings(MemoryConfig):
    pass
class Harness(MemoryHarness):
    served = "emulated"
    def endpoint(self, role, *, address=None):
        return super().endpoint(role) | {"connector": "toy"}
"""
CERTIFICATION = """
[[configuration]]
settings = { place = "x" }
means = { place = "x" }
"""


class Toy:
    """An installed third-party connector, and what it says of itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        package = folder / "toy"
        package.mkdir()
        (package / "__init__.py").write_text(TOY)
        (package / "settings.py").write_text(SETTINGS)
        self.lie("")
        self.certification = package / "certification.toml"
        self.certification.write_text(CERTIFICATION)
        info = folder / "toy-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[dpone.connectors]\ntoy = toy:connector\n")

    def lie(self, code: str) -> None:
        """Change what the connector does."""
        (self.folder / "toy" / "settings.py").write_text(SETTINGS + code)

    def certify(self, tests: str) -> tuple[int, dict[str, Any], str]:
        """`dpone certify toy` for some tests: exit code, evidence, and what was said."""
        evidence = self.folder / "evidence"
        command = [sys.executable, "-m", "dpone", "certify", "toy", "--evidence", str(evidence), "--", "-k", tests]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment |= {"PYTHONPATH": os.pathsep.join([str(self.folder), str(ROOT / "src")])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        path = evidence / "toy.json"
        return done.returncode, json.loads(path.read_text()) if path.exists() else {}, done.stdout + done.stderr


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """A connector that works, because it is the one in memory."""
    return Toy(tmp_path)


def test_a_third_party_connector_is_certified_by_its_name(toy: Toy) -> None:
    """What is executed is written down with its outcome; what is not is no pass."""
    code, evidence, said = toy.certify("missing_setting or every_slice_boundary")
    assert 0 == code, said
    assert ("none", "emulated", "dpone.evidence/1") == (
        evidence["level"],
        evidence["system"]["served"],
        evidence["schema"],
    )
    checks = {check: found["outcome"] for check, found in evidence["checks"].items() if found["outcome"] != "not_run"}
    assert {"C1": "passed", "C5": "passed"} == checks
    assert "toy 1 (emulated): none" in said


def test_a_lie_turns_the_kit_red(toy: Toy) -> None:
    """A source that loses a row is found, and the command fails."""
    toy.lie(
        "    def __init__(self, folder, variant=''):\n"
        "        super().__init__(folder)\n"
        "        self.place.script.on('read', lambda batch: batch.slice(1))\n"
    )
    code, evidence, _ = toy.certify("every_row_is_read_once")
    assert (1, "failed") == (code, evidence["checks"]["C5"]["outcome"])


def test_a_waiver_is_written_down_and_is_not_a_pass(toy: Toy) -> None:
    """A waived test that fails is waived, with its reason."""
    waiver = '[[waiver]]\ntest = "test_every_slice_boundary"\nreason = "it is broken"\n'
    toy.certification.write_text(CERTIFICATION + waiver)
    toy.lie(
        "    def __init__(self, folder, variant=''):\n"
        "        super().__init__(folder)\n"
        "        self.place.script.on('read', lambda batch: batch.slice(1))\n"
    )
    code, evidence, said = toy.certify("every_slice_boundary")
    assert 0 == code, said
    [(_, entry)] = evidence["checks"]["C5"]["tests"].items()
    assert ("waived", "it is broken") == (entry["outcome"], entry["reason"])


def test_a_waiver_of_a_test_that_passes_fails(toy: Toy) -> None:
    """Waivers rot loudly."""
    toy.certification.write_text(CERTIFICATION + '[[waiver]]\ntest = "test_every_slice_boundary"\nreason = "old"\n')
    code, evidence, _ = toy.certify("every_slice_boundary")
    assert (1, "failed") == (code, evidence["checks"]["C5"]["outcome"])


@pytest.mark.parametrize(
    ("waiver", "words"),
    [('test = "test_that_is_not_there"\nreason = "x"', "no test"), ('test = "x"', "a test and a reason")],
)
def test_a_waiver_of_nothing_or_without_a_reason_fails(toy: Toy, waiver: str, words: str) -> None:
    """It names the waiver, and nothing is executed."""
    toy.certification.write_text(f"{CERTIFICATION}[[waiver]]\n{waiver}\n")
    code, evidence, said = toy.certify("not a_test_that_nobody_has")
    assert (2, {}) == (code, evidence), said
    assert words in said


def test_what_cannot_be_certified_is_refused(toy: Toy) -> None:
    """A connector without a harness, and one that is not installed, are named."""
    (toy.folder / "toy" / "__init__.py").write_text(TOY.replace('"toy.settings:Harness"', '""'))
    code, _, said = toy.certify("x")
    assert 2 == code
    assert "the connector toy names no harness" in said
