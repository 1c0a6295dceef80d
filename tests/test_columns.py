"""The sentence that refuses columns."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

import dpone


def test_a_refused_column_is_not_called_missing(tmp_path: Path, pg: str) -> None:
    """A column whose values an existing target would alter is refused for that, and for nothing else."""
    with psycopg.connect(pg) as connection:
        connection.execute("CREATE TABLE t (at timestamp)")
    pq.write_table(pa.table({"at": pa.array([1], pa.timestamp("ns"))}), tmp_path / "t.parquet")
    manifest = {
        "version": 1,
        "pipeline": "p",
        "source": {"connector": "files", "path": str(tmp_path)},
        "sink": pg,
        "streams": {"t.parquet": {}},
    }
    [preview] = dpone.plan(manifest).streams
    assert preview.refusal is not None
    assert "DP406" == preview.refusal.code
    assert "nanoseconds are cut off" in str(preview.refusal)
    assert "no longer at the source" not in str(preview.refusal)
