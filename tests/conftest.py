"""What every test shares: the services, an odd local time zone, and the switch for the wide lane."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.services import Postgres, running_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

# A half-hour zone with daylight saving, west of Greenwich: a value that passes through local time comes out changed.
os.environ["TZ"] = "America/St_Johns"
time.tzset()

# libpq reads PGHOST, PGTZ, PGOPTIONS and more: the caller's must not change what a test means.
for _name in [name for name in os.environ if name.startswith("PG")]:
    del os.environ[_name]

# A first call may have to import a driver: time limits belong to pytest, not to a single example.
hypothesis.settings.register_profile("dpone", deadline=None)
hypothesis.settings.load_profile("dpone")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests marked `wide` unless DPONE_TEST_WIDE=1."""
    if os.environ.get("DPONE_TEST_WIDE") == "1":
        return
    wide = [item for item in items if item.get_closest_marker("wide")]
    if wide:
        config.hook.pytest_deselected(items=wide)
        items[:] = [item for item in items if item not in wide]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server; each pytest worker has its own."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def pg(postgres: Postgres) -> Iterator[str]:
    """The URL of a fresh, empty database."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def pg2(postgres: Postgres) -> Iterator[str]:
    """The URL of a second fresh, empty database on the same server."""
    with postgres.database() as url:
        yield url
