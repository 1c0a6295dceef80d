"""The outside oracles, and what keeps their judge honest."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.oracles.adbc import FOLDER
from tests.oracles.verdicts import Explanation, Report, Row, explanations

TOOL = Path(__file__).parents[2] / "tools" / "oracles"
KNOWN = Explanation(("a@x",), "refused", "DP406", "the system cannot hold it")
REFUSED = Row("a@x", "1", "DP406: column a", "refused")


@pytest.mark.wide
@pytest.mark.parametrize("oracle", ["singer", "adbc"])
def test_every_difference_from_an_oracle_is_explained(oracle: str) -> None:
    """Where dpone does not do what the oracle expects, the difference has a reason that still holds."""
    if oracle == "adbc" and not os.environ.get(FOLDER):
        pytest.skip(f"{FOLDER} does not name a folder of value files: see docs/certification-oracles.md")
    done = subprocess.run([TOOL, oracle], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout[-4000:] + done.stderr[-4000:]


def test_a_report_passes_when_every_difference_is_explained() -> None:
    """Agreement and explained differences pass; the reason stands below the table."""
    report = Report([KNOWN], [REFUSED, Row("b@x", "1", "1", "agrees")])
    assert 0 == report.exit_code
    assert "refused [1]" in report.text()
    assert "[1] the system cannot hold it" in report.text()


def test_an_altered_value_fails() -> None:
    """A load without an error whose values are others fails, even where a refusal of the case was explained."""
    altered = Row("a@x", "1", "DP406", "differs")
    report = Report([KNOWN], [altered])
    assert [altered] == report.unexplained
    assert 1 == report.exit_code
    assert "ALTERED, NOT EXPLAINED" in report.text()


def test_another_refusal_than_the_explained_one_fails() -> None:
    """An explanation holds for what it says, not for every error of its case."""
    report = Report([KNOWN], [Row("a@x", "1", "DP900: a bug", "refused")])
    assert 1 == report.exit_code


@pytest.mark.parametrize("rows", [[Row("a@x", "1", "1", "agrees")], [Row("b@x", "1", "1", "agrees")]])
def test_an_explanation_without_its_difference_fails(rows: list[Row]) -> None:
    """When a case agrees by now, or is gone, its explanation has to go too."""
    report = Report([KNOWN], rows)
    assert ["a@x: no longer refused with 'DP406'"] == report.stale
    assert 1 == report.exit_code


def test_an_empty_report_fails() -> None:
    """An oracle that compared nothing has not passed."""
    assert 1 == Report([]).exit_code


@pytest.mark.parametrize("oracle", ["singer", "adbc"])
def test_the_explanations_are_whole(oracle: str) -> None:
    """Every entry names cases, a verdict, what dpone says and a reason, and no case is explained twice."""
    cases = [case for known in explanations(oracle) for case in known.cases]
    assert cases
    assert sorted(set(cases)) == sorted(cases)


def test_an_explanation_that_lacks_its_reason_is_refused(tmp_path: Path) -> None:
    """A difference cannot be waved through without a word."""
    path = tmp_path / "explained.toml"
    path.write_text('[[adbc]]\ncases = ["a@x"]\nverdict = "refused"\nsays = "DP406"\nreason = ""\n')
    with pytest.raises(ValueError, match="lacks something"):
        explanations("adbc", path)
