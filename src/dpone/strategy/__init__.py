"""The write strategies: what a publication does in the sink, and which equations must hold before it is committed.

A strategy turns a `Publication` into `Step`s of plain SQL through the sink's dialect, and reads their results back
as counts, equations and the digest of what the sink now holds. No strategy knows a system; no sink knows a strategy.
"""

from __future__ import annotations

from dpone.strategy.append import Append
from dpone.strategy.base import Balance, Equation, Publication, Strategy
from dpone.strategy.delete_insert import DeleteInsert
from dpone.strategy.merge import Merge
from dpone.strategy.replace import Replace
from dpone.strategy.scd2 import Scd2

STRATEGIES: dict[str, Strategy] = {
    "replace": Replace(),
    "append": Append(),
    "merge": Merge(),
    "delete_insert": DeleteInsert(),
    "scd2": Scd2(),
}

__all__ = ["STRATEGIES", "Balance", "Equation", "Publication", "Strategy"]
