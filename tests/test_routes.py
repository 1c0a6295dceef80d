"""Every source to every sink, full and incremental, with every way to write.

Every type of every route is executed by `dpone certify types`.
"""

from __future__ import annotations

import itertools

from dpone.testing import RouteChecks

SYSTEMS = ("postgres", "duckdb", "sqlite", "files:csv", "files:jsonl", "files:parquet")


def _route(source: str, sink: str) -> type[RouteChecks]:
    name = f"Test_{source}_to_{sink}".replace("files:", "")
    return type(name, (RouteChecks,), {"source": source, "sink": sink, "test_every_type": None})


globals().update({kind.__name__: kind for kind in itertools.starmap(_route, itertools.product(SYSTEMS, SYSTEMS))})
