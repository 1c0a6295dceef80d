"""Lets a day pass in nyc.sqlite: the flights of 31 January have now been flown, those of 1 February are scheduled.

    python more_flights.py [DATABASE]

It updates 928 rows and inserts 926, from next_day.csv. Doing it again changes nothing.
"""

from __future__ import annotations

import argparse
import csv
import sqlite3
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Apply next_day.csv to the database."""
    parser = argparse.ArgumentParser(description="Let a day pass in the example database.")
    parser.add_argument("database", type=Path, nargs="?", default=HERE / "nyc.sqlite")
    database: Path = parser.parse_args().database
    with (HERE / "next_day.csv").open(newline="", encoding="utf-8") as file:
        found = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
    names = list(found[0])
    upsert = (
        f"INSERT INTO flights ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"
        f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names[1:])}"
        " WHERE excluded.updated_at > flights.updated_at"
    )
    # mode=rw: a mistyped path must not make an empty database.
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=rw", uri=True)) as connection:
        before = count(connection)
        with connection:
            connection.executemany(upsert, found)
        inserted = count(connection) - before
        updated = connection.total_changes - inserted
    print(f"{inserted} flights inserted, {updated} updated in {database.name}")


def count(connection: sqlite3.Connection) -> int:
    """The number of flights."""
    (number,) = connection.execute("SELECT count(*) FROM flights").fetchone()
    return int(number)


if __name__ == "__main__":
    main()
