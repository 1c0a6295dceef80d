"""The checks put together: what a source must do, and what a sink must do."""

from __future__ import annotations

from dpone.testing.checks.access import AccessChecks
from dpone.testing.checks.faults import FaultChecks
from dpone.testing.checks.offline import OfflineChecks
from dpone.testing.checks.reading import ReadingChecks
from dpone.testing.checks.retries import RetryChecks
from dpone.testing.checks.routes import RouteChecks
from dpone.testing.checks.types import TypeChecks
from dpone.testing.checks.writing import WritingChecks


class SourceChecks(ReadingChecks, TypeChecks, FaultChecks, RetryChecks, AccessChecks):
    """Everything that a source must do."""


class SinkChecks(WritingChecks, TypeChecks, FaultChecks, RetryChecks, OfflineChecks, AccessChecks):
    """Everything that a sink must do."""


__all__ = ["RouteChecks", "SinkChecks", "SourceChecks"]
