"""The SQLite connector."""

from __future__ import annotations

from dpone.sdk import Capability, Connector
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
    capabilities=dict.fromkeys(Capability, FULL),
)
