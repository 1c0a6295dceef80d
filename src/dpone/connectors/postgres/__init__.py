"""PostgreSQL as a source and as a sink. Importing this package imports no driver."""

from __future__ import annotations

from dpone.sdk.connector import FULL, Capability, Connector

connector = Connector(
    name="postgres",
    title="PostgreSQL",
    schemes=("postgres", "postgresql"),
    config="dpone.connectors.postgres.config:PostgresConfig",
    source="dpone.connectors.postgres.source:PostgresSource",
    sink="dpone.connectors.postgres.sink:PostgresSink",
    harness="dpone.connectors.postgres.harness:PostgresHarness",
    default_schema="public",
    extra="postgres",
    capabilities=dict.fromkeys(Capability, FULL),
)
"""What the entry point `postgres` gives."""
