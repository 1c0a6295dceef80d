"""What every test shares: the services, an odd local time zone, and the switch for the wide lane."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from dpone.connectors.postgres.server import Server, server
from dpone.errors import ConfigError
from dpone.testing.kit import unavailable

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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many of the seeded bugs the certification kit has found."""
    outcomes = [
        report.outcome
        for name in ("passed", "failed")
        for report in terminalreporter.stats.get(name, [])
        if report.when == "call" and "test_every_bug_turns_the_kit_red" in report.nodeid
    ]
    if outcomes:
        found = outcomes.count("passed")
        terminalreporter.write_line(f"certification kit: {found} of {len(outcomes)} seeded bugs found")


@pytest.fixture(scope="session")
def postgres() -> Server:
    """A PostgreSQL server; each pytest worker has its own, which the harness of PostgreSQL uses too."""
    try:
        return server()
    except ConfigError as error:
        unavailable(f"{error.message}: {error.remedy}")


@pytest.fixture
def pg(postgres: Server) -> Iterator[str]:
    """The URL of a fresh, empty database."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def pg2(postgres: Server) -> Iterator[str]:
    """The URL of a second fresh, empty database on the same server."""
    with postgres.database() as url:
        yield url
