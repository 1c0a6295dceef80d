"""A small DuckDB source, and the command line called in this process or as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner, Result

from dpone.cli import cli

Call = Callable[..., Result]

MANIFEST = """\
version: 1
pipeline: shop
source: duckdb:///shop.duckdb
sink: duckdb:///lake.duckdb
streams:
  main.orders:
    cursor: updated_at
    proof: digest
    tags: [daily]
  main.countries:
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a source of two tables and a manifest."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DPONE_") and not name.startswith("DPONE_TEST")]:
        monkeypatch.delenv(name)
    sql(
        "shop.duckdb",
        """
        CREATE TABLE orders (id BIGINT PRIMARY KEY, note VARCHAR, total DECIMAL(10, 2), updated_at TIMESTAMP);
        INSERT INTO orders SELECT i, CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'note ' || i END, i * 1.25,
          TIMESTAMP '2026-01-01 00:00:00' + i * INTERVAL 1 MINUTE FROM range(100) AS r(i);
        CREATE TABLE countries (code VARCHAR, name VARCHAR);
        INSERT INTO countries VALUES ('NO', 'Norway'), ('IN', 'India'), ('CL', 'Chile');
        """,
    )
    (tmp_path / "dpone.yaml").write_text(MANIFEST)
    return tmp_path


def sql(path: str, statement: str) -> list[tuple[Any, ...]]:
    """Run SQL in a DuckDB file."""
    with duckdb.connect(path) as connection:
        return connection.execute(statement).fetchall()


def document(result: Result) -> Any:
    """The JSON on stdout."""
    return json.loads(result.stdout)


@pytest.fixture
def dpone() -> Call:
    """`dpone` in this process: no terminal, stdout and stderr apart."""

    def call(*words: str, **options: Any) -> Result:
        return CliRunner().invoke(cli, list(words), prog_name="dpone", **options)

    return call


def environment() -> dict[str, str]:
    """The environment of a process that runs the dpone of this tree."""
    source = str(Path(sys.modules["dpone"].__file__ or "").parents[1])
    paths = [source, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    """`dpone` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "dpone", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | options.pop("env", {}),
        **options,
    )
