"""Time and memory of a full load against the number of rows: both must stay what they promise.

    python benchmarks/curve.py                                 100 thousand, 1 million and 10 million rows
    python benchmarks/curve.py --rows 100000 --routes duckdb-duckdb

Each run is a process of its own (`dpone copy`), measured whole: wall seconds, CPU seconds without servers, and peak
resident memory. The table goes to standard output as Markdown. Postgres is a disposable server of the test suite, or
the one in DPONE_TEST_POSTGRES_URL. The table has a key, an instant, a decimal, a short and a nullable text.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.services import running_postgres

ROUTES = ("postgres-postgres", "postgres-duckdb", "duckdb-postgres", "duckdb-duckdb", "csv-duckdb", "postgres-parquet")
_SELECT = """
    SELECT {n} AS id, TIMESTAMP '2024-01-01 00:00:00' + {n} * INTERVAL '1 second' AS at,
           CAST({n} AS DECIMAL(14,2)) / 4 AS amount, 'customer ' || ({n} % 1000) AS name,
           CASE WHEN {n} % 3 = 0 THEN NULL ELSE 'note ' || {n} END AS note
"""


@dataclass(frozen=True)
class Measured:
    """One run."""

    route: str
    rows: int
    wall_s: float
    cpu_s: float
    peak_mb: float


def main() -> None:
    """Prepare, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--routes", nargs="+", default=list(ROUTES), choices=ROUTES)
    parser.add_argument("--proof", default="counts", choices=("none", "counts", "digest"))
    chosen = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, proof {chosen.proof}\n")
    print("| route | rows | wall s | CPU s | peak MB | rows/s |\n|---|---:|---:|---:|---:|---:|")
    with running_postgres() as server, tempfile.TemporaryDirectory() as folder:
        for rows in chosen.rows:
            for route in chosen.routes:
                with server.database() as source_url, server.database() as sink_url:
                    found = measure(Path(folder), route, rows, source_url, sink_url, chosen.proof)
                print(
                    f"| {found.route} | {found.rows:,} | {found.wall_s:.2f} | {found.cpu_s:.2f} | {found.peak_mb:.0f} "
                    f"| {found.rows / found.wall_s:,.0f} |",
                    flush=True,
                )


def measure(folder: Path, route: str, rows: int, source_url: str, sink_url: str, proof: str) -> Measured:
    """Make the data, run one copy, check the number of rows in the target."""
    origin, _, destination = route.partition("-")
    source = _make(origin, folder, rows, source_url)
    sink = {
        "postgres": f"{sink_url}?table=public.copied",
        "duckdb": f"duckdb:///{folder}/sink.duckdb?table=copied",
        "parquet": f"file://{folder}/copied.parquet",
    }[destination]
    command = [sys.executable, "-m", "dpone", "copy", source, sink, "--write", "replace", "--proof", proof, "-q"]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    if status != 0:
        raise SystemExit(f"{route} with {rows} rows failed")
    count = _count(destination, folder, sink_url)
    if count != rows:
        raise SystemExit(f"{route}: {count} rows instead of {rows}")
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    return Measured(route, rows, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _make(origin: str, folder: Path, rows: int, url: str) -> str:
    if origin == "postgres":
        with psycopg.connect(url, autocommit=True) as connection:
            select = _SELECT.format(n="n")
            connection.execute(f"CREATE TABLE t AS {select} FROM generate_series(1, {rows}) AS n")
            connection.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
            connection.execute("ANALYZE t")
        return f"{url}?table=public.t"
    path = folder / "source.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE t AS {_SELECT.format(n='n')} FROM range(1, {rows + 1}) AS r(n)")
        if origin == "csv":
            connection.execute(f"COPY t TO '{folder}/source.csv' (HEADER)")
    return f"file://{folder}/source.csv" if origin == "csv" else f"duckdb:///{path}?table=main.t"


def _count(destination: str, folder: Path, url: str) -> int:
    if destination == "postgres":
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT count(*) FROM copied").fetchone()
    elif destination == "duckdb":
        with duckdb.connect(str(folder / "sink.duckdb")) as connection:
            found = connection.execute("SELECT count(*) FROM copied").fetchone()
    else:
        found = duckdb.connect().execute(f"SELECT count(*) FROM '{folder}/copied.parquet'").fetchone()
    return int(found[0]) if found else 0


if __name__ == "__main__":
    main()
