"""Help, version, start-up."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import click
import pytest

from dpone import __version__
from dpone.cli import cli
from dpone.cli.commands import Command
from dpone.cli.terminal import EXIT_CODES
from tests.cli.conftest import Call, environment

COMMANDS = [
    "init",
    "check",
    "plan",
    "run",
    "copy",
    "verify",
    "status",
    "schema",
    "connectors",
    "certify",
    "reset",
    "repair",
    "completion",
]

# CPU seconds. The slack is for machines that are busy: CPU time grows with them too.
START_UP, SLACK = 0.15, 0.10


def test_help_names_commands_and_exit_codes(dpone: Call) -> None:
    """`dpone --help` lists the commands in the order of use, and every exit code."""
    result = dpone("--help")
    assert 0 == result.exit_code
    assert COMMANDS == list(cli.commands)
    places = [result.stdout.index(f"\n  {name} ") for name in COMMANDS]
    assert sorted(places) == places
    for code, meaning in EXIT_CODES:
        assert f"{code} " in result.stdout
        assert meaning.split()[0] in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(dpone: Call, name: str) -> None:
    """Every command has two examples; every option has help and a variable named after it."""
    found = cli.commands[name]
    assert isinstance(found, Command)
    result = dpone(name, "--help")
    assert 0 == result.exit_code
    assert 2 <= len(found.examples)
    for example in found.examples:
        assert f"  {example}\n" in result.stdout
    flat = " ".join(result.stdout.split())
    for param in found.params:
        if isinstance(param, click.Option):
            assert param.help, param.name
            assert f"env var: DPONE_{str(param.name).upper()}" in flat


def test_version(dpone: Call) -> None:
    """`dpone --version` is one line."""
    assert f"dpone {__version__}\n" == dpone("--version").stdout


def test_an_unknown_command_is_a_usage_error(dpone: Call) -> None:
    """Exit code 2, on stderr."""
    result = dpone("rnu")
    assert (2, "") == (result.exit_code, result.stdout)
    assert "rnu" in result.stderr


def unmeasured() -> dict[str, str]:
    """An environment without coverage, which would import things of its own."""
    return {name: value for name, value in environment().items() if not name.startswith("COV")}


def test_start_up_imports_nothing_heavy() -> None:
    """The command line is there before any driver, Arrow, pydantic, YAML or rich is."""
    heavy = [
        "pyarrow",
        "duckdb",
        "pydantic",
        "yaml",
        "rich",
        "psycopg",
        "sqlite3",
        "numpy",
        "dpone.api",
        "dpone.manifest",
    ]
    code = f"import sys, json, dpone.cli; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=unmeasured())
    assert [] == json.loads(found.stdout)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_start_up_is_quick(option: str) -> None:
    """`dpone --help` takes at most 0.15 s of CPU; measured five times, the best counts."""
    env = unmeasured()
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "dpone", option], check=True, capture_output=True, env=env)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) <= START_UP + SLACK


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(dpone: Call, shell: str) -> None:
    """The script of each shell asks dpone itself."""
    result = dpone("completion", shell)
    assert 0 == result.exit_code
    assert "_DPONE_COMPLETE" in result.stdout


def test_completion_answers() -> None:
    """What the script asks for is answered."""
    env = {**environment(), "_DPONE_COMPLETE": "bash_complete", "COMP_WORDS": "dpone ve", "COMP_CWORD": "1"}
    found = subprocess.run([sys.executable, "-m", "dpone"], capture_output=True, text=True, check=False, env=env)
    assert "plain,verify\n" == found.stdout, os.linesep + found.stderr
