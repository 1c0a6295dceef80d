"""The level of a connector, computed from the outcomes of executed tests and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from dpone.sdk import Capability, Connector
from dpone.testing.harness import Role

Outcome = Literal["passed", "failed", "skipped", "waived", "not_applicable", "not_run"]
Level = Literal["none", "experimental", "beta", "certified"]

CHECKS: Mapping[str, str] = {
    "C1": "configuration",
    "C2": "credentials",
    "C3": "what cannot work",
    "C4": "discovery",
    "C5": "reading",
    "C6": "incremental loads",
    "C7": "writing",
    "C8": "types",
    "C9": "names",
    "C10": "drift",
    "C11": "crashes",
    "C12": "network",
    "C13": "HTTP",
    "C14": "resources",
    "C15": "concurrency",
    "C16": "state",
    "C17": "the record",
    "C18": "retries",
    "C19": "documentation",
    "C20": "capabilities",
    "C21": "offline construction",
}
"""Every check with what it is about. The kit has no test of C13 yet, so nothing passes it."""

LADDER: Mapping[Level, Sequence[str]] = {
    "experimental": ("C1", "C2", "C3", "C4"),
    "beta": ("C5", "C6", "C7", "C8", "C9", "C10", "C17"),
    "certified": ("C11", "C12", "C14", "C15", "C16", "C18", "C19", "C20", "C21"),
}
"""What each level adds to the one before it."""

MINIMUM: Mapping[Role, Sequence[Capability]] = {
    "source": (
        Capability.READ_FULL,
        Capability.READ_CURSOR,
        Capability.READ_SNAPSHOT,
        Capability.READ_LATE_COMMITS,
        Capability.DISCOVER,
    ),
    "sink": (Capability.WRITE_REPLACE, Capability.WRITE_APPEND, Capability.WRITE_MERGE, Capability.PROOF_DIGEST),
}
"""The capabilities that a certified connector has, or that are impossible in its system."""


def combined(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of a check from those of its tests: the worst of them counts."""
    found = set(outcomes)
    order: Sequence[Outcome] = ("failed", "skipped", "waived", "passed", "not_applicable")
    return next((outcome for outcome in order if outcome in found), "not_run")


def level(
    outcomes: Mapping[str, Outcome], connector: Connector, roles: Sequence[Role], served: str
) -> tuple[Level, list[str]]:
    """The level, and what stands between it and the next one. `served` is what stood for the system."""
    reached: Level = "none"
    for name, checks in LADDER.items():
        short = [
            f"{check} {CHECKS[check]}: {outcomes.get(check, 'not_run').replace('_', ' ')}"
            for check in checks
            if outcomes.get(check, "not_run") not in ("passed", "not_applicable")
        ]
        if served not in ("real", "emulated"):
            short.append(f"the system was {served}")
        if name == "certified":
            short += _lacking(connector, roles)
        if short:
            return reached, short
        reached = name
    return reached, []


def _lacking(connector: Connector, roles: Sequence[Role]) -> list[str]:
    wanted = [capability for role in roles for capability in MINIMUM[role]]
    return [
        f"{capability} is not implemented"
        for capability in wanted
        if connector.supports(capability).level == "not_implemented"
    ]
