"""The certification kit: what a connector must do, as tests that any connector inherits.

    # tests/test_certification.py of a connector package; pytest runs with `-p dpone.testing.plugin`
    from dpone.testing import SinkChecks, SourceChecks

    class TestCertification(SourceChecks, SinkChecks):
        connector = "mysystem"

`dpone certify mysystem` runs the same checks and computes the level from what was executed. The connector names its
`Harness` in `Connector.harness`; its waivers and released configurations are in the `certification.toml` beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpone.testing.harness import SAMPLE, Confinable, Harness, KeepsState, Restartable, Transactional, sample_rows
    from dpone.testing.suites import RouteChecks, SinkChecks, SourceChecks

__all__ = [
    "SAMPLE",
    "Confinable",
    "Harness",
    "KeepsState",
    "Restartable",
    "RouteChecks",
    "SinkChecks",
    "SourceChecks",
    "Transactional",
    "sample_rows",
]


def __getattr__(name: str) -> Any:
    """Only the checks need pytest; the memory connector, which every command loads, does not."""
    if name not in __all__:
        raise AttributeError(f"module 'dpone.testing' has no attribute {name!r}")
    from importlib import import_module

    module = "dpone.testing.suites" if name.endswith("Checks") else "dpone.testing.harness"
    return getattr(import_module(module), name)
