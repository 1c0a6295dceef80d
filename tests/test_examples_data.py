"""The data of the flights example is what DATA.md says it is."""

from __future__ import annotations

import csv
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

FLIGHTS = Path(__file__).parent.parent / "examples" / "flights"


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def test_the_files_hold_the_documented_rows() -> None:
    """Row counts and unique keys are those of the table in DATA.md."""
    found = {}
    for name in ("airlines", "airports", "planes", "next_day"):
        with (FLIGHTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        found[name] = (len(rows), len({row[0] for row in rows}))
    assert {
        "airlines": (16, 16),
        "airports": (1458, 1458),
        "planes": (3322, 3322),
        "next_day": (1854, 1854),
    } == found
    database = FLIGHTS / "nyc.sqlite"
    assert [(27004, 1, 27004)] == query(database, "SELECT count(*), min(id), max(id) FROM flights")
    assert [(2226,)] == query(database, "SELECT count(*) FROM weather")
    assert [] == query(database, "SELECT 1 FROM flights WHERE 'NA' IN (tailnum, carrier, origin, dest)")


def test_a_day_passes_once(tmp_path: Path) -> None:
    """more_flights.py updates 928 flights, adds 926, and changes nothing the second time."""
    database = tmp_path / "nyc.sqlite"
    shutil.copy(FLIGHTS / "nyc.sqlite", database)
    before = query(database, "SELECT * FROM flights ORDER BY id")
    assert "926 flights inserted, 928 updated in nyc.sqlite\n" == _let_a_day_pass(database)
    after = query(database, "SELECT * FROM flights ORDER BY id")
    changed = [new for old, new in zip(before, after, strict=False) if old != new]
    assert (928, 27930) == (len(changed), len(after))
    assert {(1, 31, "2013-02-01 09:00:00")} == {(row[2], row[3], row[-1]) for row in changed}
    assert {(2, 1, "2013-02-01 09:00:00", None)} == {(row[2], row[3], row[-1], row[4]) for row in after[27004:]}
    assert "0 flights inserted, 0 updated in nyc.sqlite\n" == _let_a_day_pass(database)
    assert after == query(database, "SELECT * FROM flights ORDER BY id")


def _let_a_day_pass(database: Path) -> str:
    command = [sys.executable, str(FLIGHTS / "more_flights.py"), str(database)]
    return subprocess.check_output(command, text=True)
