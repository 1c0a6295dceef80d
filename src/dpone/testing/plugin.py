"""The pytest plugin of the kit: marks, waivers, and the evidence that a run leaves.

    pytest -p dpone.testing.plugin --evidence DIR

A waiver stands in the connector's own `certification.toml` and has a reason. It is strict: a waived test that passes,
or that does not exist, fails the run.

    [[waiver]]
    test = "test_names_that_differ_only_in_case"
    reason = "..."
"""

from __future__ import annotations

import json
import platform
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

pytest.register_assert_rewrite("dpone.testing.kit", "dpone.testing.checks")  # before they are imported

from dpone.sdk import Capability, Connector
from dpone.sdk.registry import connector_for
from dpone.testing.found import folder_of
from dpone.testing.kit import NOT_APPLICABLE, SEED, Checks
from dpone.testing.levels import CHECKS, Outcome, combined, level
from dpone.version import __version__

SCHEMA = "dpone.evidence/1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--evidence DIR`."""
    group = parser.getgroup("dpone", "dpone certification kit")
    group.addoption(
        "--evidence", metavar="DIR", default=None, help="Write DIR/<connector>.json from what was executed."
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker of the checks; the collector of outcomes, in the process that sees all of them."""
    config.addinivalue_line("markers", "certifies(check): a part of a check of the certification kit")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(config.getoption("--evidence")), "dpone-evidence")


def pytest_report_header() -> str:
    """The seed of everything random."""
    return f"dpone certification kit {__version__}, DPONE_TEST_SEED={SEED}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say with each test which connector and check it is about, and apply the connectors' waivers."""
    waived: dict[str, dict[str, str]] = {}
    unused: dict[str, set[str]] = {}
    for item in items:
        kind = getattr(item, "cls", None)
        marker = item.get_closest_marker("certifies")
        if marker is None or not (isinstance(kind, type) and issubclass(kind, Checks)):
            continue
        name = kind.connector
        if name not in waived:
            waived[name] = waivers(connector_for(name))
            unused[name] = set(waived[name])
        item.user_properties += [("dpone.connector", name), ("dpone.check", marker.args[0])]
        for key in (item.name, getattr(item, "originalname", "")):
            if key in waived[name]:
                unused[name].discard(key)
                item.add_marker(pytest.mark.xfail(reason=waived[name][key], strict=True))
    whole = len(items) > len(CHECKS)  # not a run of a few tests picked by hand
    for name, left in unused.items():
        if left and whole:
            raise pytest.UsageError(f"certification.toml of {name} waives {min(left)}, which is no test")


def waivers(connector: Connector) -> dict[str, str]:
    """The waivers of a connector: test, reason. Raises UsageError for one without a reason."""
    found = {}
    for entry in certification(connector).get("waiver", []):
        if not entry.get("test") or not entry.get("reason"):
            raise pytest.UsageError(f"certification.toml of {connector.name}: a waiver needs a test and a reason")
        found[entry["test"]] = entry["reason"]
    return found


def certification(connector: Connector) -> dict[str, Any]:
    """The connector's certification.toml; empty when it has none."""
    path = folder_of(connector) / "certification.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


class Collector:
    """Gathers the outcomes of all tests, also those of other processes, and writes the evidence."""

    def __init__(self, folder: str | None) -> None:
        self._folder = Path(folder) if folder else None
        self._tests: dict[str, dict[str, dict[str, Any]]] = {}
        self._systems: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of one phase of one test; a phase that failed is not forgotten."""
        facts: Mapping[str, Any] = dict(report.user_properties)
        name = facts.get("dpone.connector")
        if name is None:
            return
        if "dpone.system" in facts:
            self._systems[name] = {"version": facts["dpone.system"], "served": facts["dpone.served"]}
        outcome, reason = _outcome(report)
        if report.when != "call" and outcome == "passed":
            return
        test = report.nodeid.rpartition("::")[2]
        entry = {"check": facts["dpone.check"], "outcome": outcome, "seconds": round(report.duration, 2)}
        known = self._tests.setdefault(name, {}).get(test)
        if known is None or known["outcome"] != "failed":
            self._tests[name][test] = entry | ({"reason": reason} if reason else {})

    def pytest_sessionfinish(self) -> None:
        """Write one document for each connector."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in self._tests:
            text = json.dumps(self.document(name), indent=1, ensure_ascii=False)
            (self._folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")

    def document(self, name: str) -> dict[str, Any]:
        """The evidence of one connector."""
        connector, tests = connector_for(name), self._tests[name]
        outcomes: dict[str, Outcome] = {
            check: combined(test["outcome"] for test in tests.values() if test["check"] == check) for check in CHECKS
        }
        roles = [role for role, reference in (("source", connector.source), ("sink", connector.sink)) if reference]
        system = self._systems.get(name, {"version": "", "served": "unknown"})
        reached, short = level(outcomes, connector, roles, system["served"])  # type: ignore[arg-type]
        return {
            "schema": SCHEMA,
            "connector": name,
            "level": reached,
            "short_of_next": short,
            "system": system,
            "date": datetime.now(UTC).date().isoformat(),
            "versions": {
                "dpone": __version__,
                "python": platform.python_version(),
                "pyarrow": pa.__version__,
                "platform": platform.system(),
            },
            "seed": SEED,
            "seconds": round(sum(test["seconds"] for test in tests.values()), 1),
            "capabilities": {c.value: connector.supports(c).level for c in Capability},
            "checks": {
                check: {
                    "outcome": outcome,
                    "tests": {key: _without(test, "check") for key, test in tests.items() if test["check"] == check},
                }
                for check, outcome in outcomes.items()
            },
        }


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def _outcome(report: pytest.TestReport) -> tuple[Outcome, str]:
    if report.outcome == "skipped":
        if hasattr(report, "wasxfail"):
            return "waived", str(report.wasxfail)
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
        reason = reason.removeprefix("Skipped: ")
        if reason.startswith(NOT_APPLICABLE):
            return "not_applicable", reason.removeprefix(NOT_APPLICABLE)
        return "skipped", reason
    return ("passed", "") if report.outcome == "passed" else ("failed", "")
