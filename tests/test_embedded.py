"""What must not go wrong between files and embedded databases; and the package itself."""

from __future__ import annotations

import importlib.metadata
import json
import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import pytest

import dpone
from dpone.errors import ConfigError


def run(folder: Path, source: Any, sink: Any, streams: dict[str, Any]) -> dpone.RunResult:
    """Write a manifest into the folder and run it."""
    path = folder / "dpone.yaml"
    document = {"version": 1, "pipeline": "p", "source": source, "sink": sink, "streams": streams}
    path.write_text(json.dumps(document))
    return dpone.run(path)


def code(result: dpone.RunResult) -> str | None:
    """The code of the failure of the only stream."""
    [stream] = result.streams
    return stream.failure["code"] if stream.failure else None


def test_two_streams_into_one_file_are_refused(tmp_path: Path) -> None:
    """A sink that is one file holds one stream: the second would replace the first."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.csv").write_text("id\n1\n")
    with pytest.raises(ConfigError) as caught:
        run(
            tmp_path,
            {"connector": "files", "path": "in"},
            {"connector": "files", "path": "out.csv"},
            {"a": {}, "b": {}},
        )
    assert "DP135" == caught.value.code


def test_a_folder_is_not_written_onto_itself(tmp_path: Path) -> None:
    """Files that are source and target at once would change what is read."""
    (tmp_path / "t.csv").write_text("id\n1\n")
    here = {"connector": "files", "path": ".", "format": "csv"}
    assert "DP137" == code(run(tmp_path, here, here, {"t": {}}))
    assert "id\n1\n" == (tmp_path / "t.csv").read_text()


def test_a_cursor_whose_type_changed_is_not_continued(tmp_path: Path) -> None:
    """Numbers that become text sort in another way, so the old checkpoint says nothing about them."""
    files = {"connector": "files", "path": str(tmp_path / "in")}
    sink = {"connector": "files", "path": str(tmp_path / "out"), "format": "csv"}
    (tmp_path / "in").mkdir()
    table = tmp_path / "in" / "t.csv"
    table.write_text("id\n8\n9\n")
    stream = {"cursor": {"column": "id", "lookback": 0}, "write": "append"}
    assert run(tmp_path, files, sink, {"t": stream}).ok
    table.write_text("id\n8\n9\n10\nx1\n")
    assert "DP136" == code(run(tmp_path, files, sink, {"t": stream}))


def test_keys_that_a_collation_calls_equal_stay_apart(tmp_path: Path) -> None:
    """A merge into a NOCASE column does not update the row of another key."""
    for name, rows in (("a", "('A', 2)"), ("b", "('a', 1)")):
        with sqlite3.connect(tmp_path / f"{name}.db") as connection:
            collate = " COLLATE NOCASE" if name == "b" else ""
            connection.execute(f"CREATE TABLE t (k TEXT NOT NULL{collate}, v INTEGER)")
            connection.execute(f"INSERT INTO t VALUES {rows}")
        connection.close()
    result = run(tmp_path, "sqlite:///a.db", "sqlite:///b.db", {"t": {"write": "merge", "primary_key": "k"}})
    assert result.ok
    connection = sqlite3.connect(tmp_path / "b.db")
    assert [("A", 2), ("a", 1)] == connection.execute("SELECT k, v FROM t ORDER BY k COLLATE BINARY").fetchall()
    connection.close()


def test_a_source_that_went_back_is_remarked(tmp_path: Path) -> None:
    """When the greatest cursor value is below the checkpoint nothing is loaded, and the record says why."""
    settings = {"t": {"cursor": "n", "write": "append"}}
    with duckdb.connect(str(tmp_path / "a.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS n FROM range(10)")
    assert run(tmp_path, "duckdb:///a.duckdb", "duckdb:///b.duckdb", settings).ok
    with duckdb.connect(str(tmp_path / "a.duckdb")) as connection:
        connection.execute("DELETE FROM t WHERE n > 3")
    [stream] = run(tmp_path, "duckdb:///a.duckdb", "duckdb:///b.duckdb", settings).streams
    assert ("succeeded", 0) == (stream.status, stream.rows["extracted"])
    assert ["the source's greatest cursor value is below the checkpoint"] == stream.notes


def test_verify_says_that_a_stream_was_never_loaded(tmp_path: Path) -> None:
    """Not an SQL error about a missing table."""
    with duckdb.connect(str(tmp_path / "a.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
    path = tmp_path / "dpone.yaml"
    document = {"version": 1, "pipeline": "p", "source": "duckdb:///a.duckdb", "sink": "duckdb:///b.duckdb"}
    path.write_text(json.dumps({**document, "streams": {"t": {}}}))
    [found] = dpone.verify(path)
    assert isinstance(found, dpone.DponeError)
    assert ("DP409", "t") == (found.code, found.stream)
    assert not (tmp_path / "b.duckdb").exists()


def test_the_public_names_are_the_listed_ones() -> None:
    """Everything in `__all__` is there, and the version is the package's."""
    assert sorted(dpone.__all__) == dir(dpone)
    assert all(getattr(dpone, name) is not None for name in dpone.__all__)
    assert importlib.metadata.version("dpone") == dpone.__version__
