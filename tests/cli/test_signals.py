"""Real processes: signals, and a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.cli.conftest import Call, document, environment, sql, start

ROWS = 200_000

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def big(folder: Path) -> Path:
    """A table in many slices, so that a run takes a while."""
    sql("shop.duckdb", f"CREATE TABLE big AS SELECT i AS id, md5(i::VARCHAR) AS t FROM range({ROWS}) AS r(i)")
    text = "version: 1\npipeline: big\nsource: duckdb:///shop.duckdb\nsink: duckdb:///lake.duckdb\nstreams:\n"
    (folder / "dpone.yaml").write_text(f"{text}  main.big:\n    slices: {{rows: 2000}}\n")
    return folder


def until_staged(process: subprocess.Popen[str], count: int) -> None:
    """Read the events on stderr until some slices are durable."""
    assert process.stderr
    for line in process.stderr:
        count -= json.loads(line)["event"] == "slice.staged"
        if count == 0:
            return
    pytest.fail("the run ended early")


@pytest.mark.usefixtures("big")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_and_keeps_what_is_durable(dpone: Call, number: signal.Signals, code: int) -> None:
    """Exit code 130 or 143, a record that says cancelled; the next run continues and every row is there once."""
    process = start("run", "--log-format", "json", "--json")
    until_staged(process, 3)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert code == process.returncode
    found = json.loads(out)
    assert (code, "cancelled") == (found["exit_code"], found["status"])
    assert "run.stopping" in [json.loads(line)["event"] for line in err.splitlines()]
    again = document(dpone("run", "--json"))
    assert 0 == again["exit_code"]
    assert 3 <= again["streams"][0]["slices"]["resumed"]
    assert sql("shop.duckdb", "FROM big ORDER BY id") == sql("lake.duckdb", "FROM big ORDER BY id")


@pytest.mark.usefixtures("big")
def test_a_second_signal_ends_it_at_once(dpone: Call) -> None:
    """Without waiting for the batch; the next run continues all the same."""
    process = start("run", "--log-format", "json")
    until_staged(process, 3)
    # Both are pending together, and are handled in the order of their numbers: SIGINT, then SIGTERM.
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert 0 == dpone("run").exit_code
    assert sql("shop.duckdb", "FROM big ORDER BY id") == sql("lake.duckdb", "FROM big ORDER BY id")


def on_a_terminal(*words: str, answers: str = "", **variables: str) -> tuple[int, str]:
    """Run dpone on a terminal of its own; the exit code and everything it drew."""
    master, slave = pty.openpty()
    env = {**environment(), "TERM": "xterm-256color", "COLUMNS": "110", **variables}
    if "CI" not in variables:
        env.pop("CI", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "dpone", *words], stdin=slave, stdout=slave, stderr=slave, env=env, close_fds=True
    )
    os.close(slave)
    drawn: list[bytes] = []

    def read() -> None:
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                return
            if not piece:
                return
            drawn.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    if answers:
        os.write(master, answers.encode())
    process.wait(timeout=60)
    reader.join(timeout=60)
    os.close(master)
    return process.returncode, b"".join(drawn).decode()


def plain(text: str) -> str:
    """Without the control sequences of the terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.usefixtures("big")
def test_bars_on_a_terminal() -> None:
    """A bar for a full load, no stamped lines, the table last."""
    code, text = on_a_terminal("run")
    assert code == 0
    assert "\x1b[2K" in text
    assert f"of about {ROWS:,}" in plain(text)
    assert "Z big: " not in plain(text)
    assert plain(text).rstrip().endswith("run.json")


@pytest.mark.usefixtures("big")
@pytest.mark.parametrize("variable", ["NO_COLOR", "CI"])
def test_lines_where_a_terminal_should_be_left_alone(variable: str) -> None:
    """NO_COLOR and CI: nothing is redrawn and nothing coloured."""
    code, text = on_a_terminal("run", **{variable: "1"})
    assert code == 0
    assert "\x1b[" not in text
    assert "main.big: replace, full load" in text


def test_init_asks_on_a_terminal(folder: Path) -> None:
    """Source and sink are asked for, with a default for the sink."""
    (folder / "dpone.yaml").unlink()
    code, text = on_a_terminal("init", answers="shop.duckdb\n\n")
    assert code == 0, text
    assert "path: shop.duckdb" in (folder / "dpone.yaml").read_text()
    assert "path: warehouse.duckdb" in (folder / "dpone.yaml").read_text()


def test_reset_asks_on_a_terminal(dpone: Call) -> None:
    """No is no, with 130; yes is yes."""
    dpone("run")
    code, text = on_a_terminal("reset", "-s", "orders", answers="n\n")
    assert code == 130
    assert "Forget the state of orders" in text
    assert "never loaded" not in dpone("status").stdout
    code, _ = on_a_terminal("reset", "-s", "orders", answers="y\n")
    assert code == 0
    assert "never loaded" in dpone("status").stdout
