"""PostgreSQL as a source and as a sink. Importing this package imports no driver."""

from __future__ import annotations

from dpone.sdk.connector import FULL, Capability, Connector, Support

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
    capabilities={
        **dict.fromkeys(Capability, FULL),
        Capability.READ_LATE_COMMITS: Support(
            "not_implemented",
            "rows that are committed after a run, with a cursor value below its checkpoint, are not seen later",
            "load the stream without a cursor from time to time",
        ),
    },
)
"""What the entry point `postgres` gives."""
