"""Local files as source and sink: CSV, JSONL and Parquet."""

from __future__ import annotations

from dpone.sdk.connector import FULL, Capability, Connector, Support

connector = Connector(
    name="files",
    title="Files (CSV, JSONL, Parquet)",
    schemes=("file", "csv", "jsonl", "parquet"),
    config="dpone.connectors.files.config:FilesConfig",
    source="dpone.connectors.files.source:FilesSource",
    sink="dpone.connectors.files.sink:FilesSink",
    harness="dpone.connectors.files.harness:FilesHarness",
    capabilities={
        Capability.READ_FULL: FULL,
        Capability.READ_CURSOR: FULL,
        Capability.READ_SLICES: FULL,
        Capability.READ_SNAPSHOT: FULL,
        Capability.READ_LATE_COMMITS: Support(
            "impossible",
            "a file does not say when a row was put into it",
            "a lookback of the cursor, or a load without a cursor",
            "https://parquet.apache.org/docs/file-format/",
        ),
        Capability.READ_FILTER: Support(
            "not_implemented",
            "a file has no query language of its own",
            "read all rows and filter in the sink, or load the files into DuckDB first and filter there",
        ),
        Capability.READ_CAST: FULL,
        Capability.READ_COMPARE: FULL,
        Capability.DISCOVER: FULL,
        Capability.WRITE_REPLACE: FULL,
        Capability.WRITE_APPEND: FULL,
        Capability.WRITE_MERGE: Support(
            "impossible",
            "a row inside a file cannot be updated; only whole files are published",
            "write: replace, or a database as the sink (duckdb is a local one)",
            "https://parquet.apache.org/docs/file-format/",
        ),
        Capability.WRITE_DELETE_INSERT: Support(
            "not_implemented",
            "the files of a target are one per load or one in all, not one per partition",
            "write: replace, or a database as the sink (duckdb is a local one)",
        ),
        Capability.WRITE_SCD2: Support(
            "impossible",
            "closing a version updates a row, and a row inside a file cannot be updated",
            "write: append_snapshot keeps every state of the source, or a database as the sink (duckdb is a local one)",
            "https://parquet.apache.org/docs/file-format/",
        ),
        Capability.WRITE_DEDUPLICATE: Support(
            "not_implemented",
            "the keys of earlier files are not looked up",
            "write: replace, or a database as the sink (duckdb is a local one)",
        ),
        Capability.WRITE_DELETES: Support(
            "impossible",
            "a row inside a file cannot be deleted or marked; only whole files are published",
            "write: replace, which follows deletes; or a database as the sink (duckdb is a local one)",
            "https://parquet.apache.org/docs/file-format/",
        ),
        Capability.WRITE_TIES: Support(
            "impossible",
            "rows that are read again cannot replace those of an earlier file",
            "a database as the sink with write: merge, or write: replace",
            "https://parquet.apache.org/docs/file-format/",
        ),
        Capability.WRITE_HOOKS: Support(
            "impossible",
            "a folder of files runs no SQL",
            "a database as the sink, or a step of your own before and after dpone run",
            "https://parquet.apache.org/docs/file-format/",
        ),
        Capability.PROOF_DIGEST: FULL,
    },
)
