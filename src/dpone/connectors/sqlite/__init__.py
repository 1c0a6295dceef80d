"""The SQLite connector."""

from __future__ import annotations

from dpone.sdk import Capability, Connector, Support
from dpone.sdk.connector import FULL

connector = Connector(
    name="sqlite",
    title="SQLite",
    schemes=("sqlite",),
    config="dpone.connectors.sqlite.config:SqliteConfig",
    source="dpone.connectors.sqlite.source:SqliteSource",
    sink="dpone.connectors.sqlite.sink:SqliteSink",
    harness="dpone.connectors.sqlite.harness:SqliteHarness",
    default_schema="main",
    folds_case=True,
    capabilities={
        **dict.fromkeys(Capability, FULL),
        Capability.READ_LATE_COMMITS: Support(
            "not_implemented",
            "rows that get a cursor value below the checkpoint later (a reused rowid, a clock set back) are not seen",
            "load the stream without a cursor from time to time",
        ),
    },
)
