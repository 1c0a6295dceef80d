"""Runs the kit for installed connectors, and reads the evidence that it leaves."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpone.errors import ConfigError
from dpone.sdk import Connector
from dpone.sdk.registry import connector_for, connectors
from dpone.testing.found import case_file, harness_of, has_cases
from dpone.testing.matrix import Cell, End, run_matrix

_STDERR = 2  # the file descriptor: results alone go to stdout


@dataclass(frozen=True, slots=True)
class Certificate:
    """What one connector reached, with the evidence for it."""

    connector: str
    level: str
    short_of_next: tuple[str, ...]
    evidence: dict[str, Any]

    @property
    def failed(self) -> bool:
        """Whether a test failed."""
        return any(check["outcome"] == "failed" for check in self.evidence["checks"].values())


def certify(names: Sequence[str], folder: Path, arguments: Sequence[str] = ()) -> list[Certificate]:
    """Run the checks of these connectors in a process of their own; `folder` gets one document for each.

    `arguments` go to pytest. Its output goes to stderr. Raises ConfigError for a connector that is not installed or
    names no harness, when pytest is not installed, and when nothing was executed.
    """
    for name in names:
        if not connector_for(name).harness:
            raise ConfigError(
                f"the connector {name} names no harness, so it cannot be certified",
                remedy="ask its author: Connector.harness is a class like dpone.testing.Harness",
            )
    if importlib.util.find_spec("pytest") is None:
        raise ConfigError("dpone certify needs pytest, which is not installed", remedy='pip install "dpone[testing]"')
    command = [sys.executable, "-m", "pytest", "--quiet", "--pyargs", "dpone.testing.suite"]
    command += ["-p", "dpone.testing.plugin", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(folder)]
    command += ["--strict-markers", "-W", "error", "--evidence", str(folder.resolve()), *arguments]
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        folder.joinpath(f"{name}.json").unlink(missing_ok=True)
    subprocess.run(  # noqa: S603 - this interpreter with fixed arguments and those of the caller
        command, env=os.environ | {"DPONE_CERTIFY": ",".join(names)}, stdout=_STDERR, check=False
    )
    return [_certificate(name, folder) for name in names]


@dataclass(frozen=True, slots=True)
class TypeMatrix:
    """Every type case of every source into every sink, as it was executed."""

    cells: tuple[Cell, ...]

    @property
    def problems(self) -> list[str]:
        """What was not as the case files say."""
        return [f"{c.source} {c.case} into {c.sink}: {problem}" for c in self.cells for problem in c.problems]

    def as_dict(self) -> dict[str, Any]:
        """By source and case: its type, what it is read as, and its fidelity in each sink."""
        sources: dict[str, dict[str, Any]] = {}
        for cell in self.cells:
            entry = sources.setdefault(cell.source, {}).setdefault(
                cell.case, {"type": cell.type, "canonical": cell.canonical, "values": 0, "sinks": {}}
            )
            entry["values"] += cell.arrived + cell.stopped
            entry["sinks"][cell.sink] = cell.fidelity if cell.ok else "failed"
        return {"schema": "dpone.types/1", "sources": sources, "problems": self.problems}


def certify_types(progress: Callable[[str], None] = lambda _: None) -> TypeMatrix:
    """Execute every type case between all installed systems that have a case file, fakes left out.

    `progress` is told each route.

    Raises ConfigError when one of the systems is not here.
    """
    ends = [
        (connector, variant)
        for connector in connectors().values()
        if connector.harness and harness_of(connector).served != "fake" and has_cases(connector)
        for variant in harness_of(connector).variants
    ]
    cells: list[Cell] = []
    for source, sink in itertools.product(ends, ends):
        if not (source[0].source and sink[0].sink):
            continue
        progress(f"{' '.join(filter(None, (source[0].name, source[1])))} into {sink[0].name} {sink[1]}".rstrip())
        with tempfile.TemporaryDirectory() as name:
            cells += _executed(source, sink, Path(name))
    return TypeMatrix(tuple(cells))


def _executed(source: tuple[Connector, str], sink: tuple[Connector, str], folder: Path) -> tuple[Cell, ...]:
    with ExitStack() as stack:
        ends = []
        for role, (connector, variant) in (("source", source), ("sink", sink)):
            place = folder / role
            place.mkdir()
            harness = harness_of(connector)(place, variant)
            stack.callback(harness.close)
            ends.append(End(connector.name, harness, case_file(connector.name, variant), variant))
        return run_matrix(ends[0], ends[1], folder / "store", odd=False)  # C8 of the source has them


def _certificate(name: str, folder: Path) -> Certificate:
    path = folder / f"{name}.json"
    if not path.exists():
        raise ConfigError(f"no test of {name} was executed", remedy="look at the output above")
    found = json.loads(path.read_text(encoding="utf-8"))
    return Certificate(name, found["level"], tuple(found["short_of_next"]), found)
