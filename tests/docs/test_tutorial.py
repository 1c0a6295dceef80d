"""The tutorial, run as it is written."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from dpone.connectors.postgres.server import ASKED, PrivateServer, Server
from dpone.testing.kit import unavailable
from tests.docs.pages import ROOT, blocks, flat
from tests.docs.test_readme import environment

TUTORIAL = ROOT / "docs" / "tutorial.md"
_EXIT = re.compile(r"  # exit (\d+)$")


@pytest.fixture
def clerk(postgres: Server) -> Iterator[str]:
    """A role that may do anything and has to give its password: `user:password`."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS clerk")
        group = f" IN ROLE {ASKED}" if isinstance(postgres, PrivateServer) else ""  # it lets everybody else in
        connection.execute(f"CREATE ROLE clerk LOGIN SUPERUSER PASSWORD 'secret'{group}".encode())
        yield "clerk:secret"
        with suppress(psycopg.errors.DependentObjectsStillExist):  # its databases go after it
            connection.execute("DROP ROLE clerk")


def test_tutorial(clerk: str, pg: str, pg2: str, tmp_path: Path) -> None:
    """Each command ends with the exit code it is shown with, and prints every line shown after it, in that order."""
    if shutil.which("psql") is None:
        unavailable("psql is not installed here: install the package postgresql-client")
    urls = {name: f"postgres://{clerk}@{_place(url)}" for name, url in (("SHOP", pg), ("WAREHOUSE", pg2))}
    for block in blocks(TUTORIAL, "sql", "yaml"):
        kind, _, name = block.mark.partition(": ")
        assert kind == "file"
        (tmp_path / name).write_text(block.text, encoding="utf-8")

    steps = [step for block in blocks(TUTORIAL, "console") for step in _steps(block.text)]
    script = "\n".join(["exec 2>&1", *(f'{command}\necho "@@ $?"' for command, _ in steps)])
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment() | urls,
        check=False,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        timeout=300,
    )
    parts = re.split(r"^@@ (\d+)\n", ran.stdout, flags=re.MULTILINE)
    outputs, codes = parts[:-1:2], parts[1::2]
    assert len(steps) == len(codes)
    for (command, shown), output, code in zip(steps, outputs, codes, strict=True):
        expected = _EXIT.search(command)
        assert (command, expected[1] if expected else "0") == (command, code), output
        rest = flat(output)
        for line in shown:
            assert flat(line) in rest, f"{command}\n{output}"
            rest = rest.partition(flat(line))[2]


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}{parts.path}"


def _steps(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines of output that are shown."""
    steps: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        elif line:
            steps[-1][1].append(line)
    return steps
