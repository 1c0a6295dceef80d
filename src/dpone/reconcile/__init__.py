"""Comparing source and sink at any time after a run."""

from __future__ import annotations

from dpone.reconcile.compare import Comparison, Verifiable, compare

__all__ = ["Comparison", "Verifiable", "compare"]
