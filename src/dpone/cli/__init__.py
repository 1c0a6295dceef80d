"""The command line: it parses, calls the Python API, renders. Nothing is decided here.

Importing it imports click and nothing heavier, so that `dpone --help` is quick.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from dpone.cli.commands import cli

__all__ = ["cli", "main"]


def main() -> NoReturn:
    """Run `dpone` with the arguments of this process and exit."""
    # A command that does not handle it itself still closes its connections when it is asked to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    cli(prog_name="dpone")
    raise AssertionError  # pragma: no cover - click exits
