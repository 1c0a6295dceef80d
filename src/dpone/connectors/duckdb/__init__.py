"""The DuckDB connector."""

from __future__ import annotations

from dpone.sdk import Capability, Connector
from dpone.sdk.connector import FULL

connector = Connector(
    name="duckdb",
    title="DuckDB",
    schemes=("duckdb",),
    config="dpone.connectors.duckdb.config:DuckDBConfig",
    source="dpone.connectors.duckdb.source:DuckDBSource",
    sink="dpone.connectors.duckdb.sink:DuckDBSink",
    harness="dpone.connectors.duckdb.harness:DuckDBHarness",
    default_schema="main",
    folds_case=True,
    capabilities=dict.fromkeys(Capability, FULL),
)
