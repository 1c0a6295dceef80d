"""The commands, from a DuckDB file to a DuckDB file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dpone as api
from dpone.errors import DponeError
from dpone.sdk.registry import connectors
from tests.cli.conftest import Call, document, sql, start

pytestmark = pytest.mark.usefixtures("folder")


def same(table: str, key: str) -> None:
    """Every row of a table is in the sink, value by value."""
    query = f"SELECT * FROM {table} ORDER BY {key}"
    assert sql("shop.duckdb", query) == sql("lake.duckdb", query)


def test_run_moves_every_row_and_says_so(folder: Path, dpone: Call) -> None:
    """The table on stdout, quiet lines on stderr, run id in the first and the last line, the record where it says."""
    result = dpone("run")
    assert 0 == result.exit_code, result.stderr
    same("orders", "id")
    same("countries", "code")
    [run] = list((folder / ".dpone" / "runs").iterdir())
    out, err = result.stdout.splitlines(), result.stderr.splitlines()
    assert run.name in out[0] + out[1]
    assert f"2 streams, 103 rows, 0.0 MB, 0 retries. Record: .dpone/runs/{run.name}/run.json" == out[-1]
    assert run.name in err[0]
    assert run.name in err[-1]
    assert len(err) <= 2 + 3 * 2
    found = {line.split()[0]: line.split()[1:11] for line in out if line.startswith("main.")}
    assert ["100", "100", "100", "0", "0", "0", "100", "proven", "(digest)"] == found["main.orders"][:9]
    assert ["3", "3", "3", "0", "0", "0", "3", "proven", "(counts)"] == found["main.countries"][:9]


def test_a_second_run_changes_nothing(dpone: Call) -> None:
    """It exits with 0; the cursor load reads nothing, the replace finds the same rows."""
    dpone("run")
    result = dpone("run", "--json")
    assert 0 == result.exit_code
    changes = {stream["stream"]: stream["changes"] for stream in document(result)["streams"]}
    assert 0 == sum(changes["main.orders"].values())
    assert (0, 3) == (changes["main.countries"]["inserted"], changes["main.countries"]["unchanged"])


def test_run_json_is_the_record(folder: Path, dpone: Call) -> None:
    """With --json stdout is one document: the run record and the exit code."""
    found = document(dpone("run", "--json"))
    assert 0 == found.pop("exit_code")
    assert json.loads((folder / ".dpone" / "runs" / found["run_id"] / "run.json").read_text()) == found


def test_log_format_json(dpone: Call) -> None:
    """Every line on stderr is an event with the run id; progress is left out."""
    result = dpone("run", "--log-format", "json", "--json")
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert {document(result)["run_id"]} == {event["run_id"] for event in events}
    assert ("run.started", "run.finished") == (events[0]["event"], events[-1]["event"])
    assert "rows.read" not in {event["event"] for event in events}


def test_quiet_says_nothing_when_all_is_well(dpone: Call) -> None:
    """For cron: no output at all."""
    result = dpone("run", "-q")
    assert (0, "", "") == (result.exit_code, result.stdout, result.stderr)


def test_quiet_still_says_failures(dpone: Call) -> None:
    """With its remedy."""
    sql("shop.duckdb", "DROP TABLE countries")
    result = dpone("run", "-q")
    assert (1, "") == (result.exit_code, result.stdout)
    assert "main.countries does not exist" in result.stderr
    assert "fix: " in result.stderr


def test_one_stream_fails_and_the_others_go_on(dpone: Call) -> None:
    """Exit code 1; the failure has category, code, position and remedy."""
    sql("shop.duckdb", "DROP TABLE countries")
    result = dpone("run")
    assert 1 == result.exit_code
    same("orders", "id")
    assert "✗ schema [DP401] main.countries: " in result.stderr
    assert "dpone.yaml:10:3" in result.stderr
    assert "failed: schema" in result.stdout


def test_nothing_but_refusals(dpone: Call) -> None:
    """Exit code 3 when no stream could be run."""
    sql("shop.duckdb", "DROP TABLE countries")
    assert 3 == dpone("run", "-s", "main.countries").exit_code


def test_select_and_exclude(dpone: Call) -> None:
    """Names, globs and tags; also from the environment."""

    def chosen(*words: str, **options: object) -> list[str]:
        return [stream["stream"] for stream in document(dpone("check", "--json", *words, **options))["streams"]]

    both = ["main.orders", "main.countries"]
    assert both == chosen()
    assert ["main.orders"] == chosen("-s", "tag:daily")
    assert both == chosen("-s", "orders countries")
    assert both == chosen("-s", "orders", "-s", "main.c*")
    assert ["main.countries"] == chosen("--exclude", "orders")
    assert ["main.countries"] == chosen(env={"DPONE_SELECT": "countries"})


def test_a_selector_that_matches_nothing(folder: Path, dpone: Call) -> None:
    """Exit code 3, a suggestion, and no run."""
    result = dpone("run", "-s", "oders")
    assert 3 == result.exit_code
    assert "did you mean 'orders'" in result.stderr
    assert not (folder / "lake.duckdb").exists()


def test_check_shows_every_mistake_at_once(folder: Path, dpone: Call) -> None:
    """Position, excerpt and suggestion for each; exit code 2; nothing is touched."""
    text = (folder / "dpone.yaml").read_text().replace("cursor:", "cursr:").replace("pipeline:", "pipline:")
    (folder / "dpone.yaml").write_text(text)
    result = dpone("check")
    assert 2 == result.exit_code
    assert "--> dpone.yaml:2:1" in result.stderr
    assert "--> dpone.yaml:7:5" in result.stderr
    assert "did you mean 'cursor'?" in result.stderr
    assert result.stderr.rstrip().endswith("errors; nothing was run.")
    found = document(dpone("check", "--json"))
    assert (2, "config") == (found["exit_code"], found["error"]["category"])
    assert {7, 2} <= {problem["line"] for problem in found["error"]["problems"]}


def test_check_of_a_good_manifest(dpone: Call) -> None:
    """One line per stream."""
    result = dpone("check")
    assert (0, "") == (result.exit_code, result.stderr)
    expected = [
        "✓ dpone.yaml: pipeline shop, version 1",
        "✓ source duckdb:///shop.duckdb",
        "✓ sink duckdb:///lake.duckdb",
        "✓ main.orders → main.orders (new): merge on id, incremental; 4 columns: 4 exact; proof: digest",
        "✓ main.countries → main.countries (new): replace, full; 2 columns: 2 exact; proof: counts",
    ]
    assert expected == result.stdout.splitlines()


def test_check_says_what_is_refused(folder: Path, dpone: Call) -> None:
    """Exit code 3, with the place in the manifest."""
    (folder / "dpone.yaml").write_text((folder / "dpone.yaml").read_text() + "    write: merge\n")
    result = dpone("check")
    assert 3 == result.exit_code
    assert "✗ config [DP131] main.countries: write: merge needs a primary key" in result.stdout.replace("\n  ", " ")
    assert "at dpone.yaml:11:" in result.stdout


def test_without_a_manifest(dpone: Call) -> None:
    """Exit code 2 and the way to one."""
    result = dpone("run", "-f", "other.yaml")
    assert 2 == result.exit_code
    assert "there is no file other.yaml" in result.stderr
    assert "dpone init" in result.stderr


def test_plan(dpone: Call) -> None:
    """New and existing tables, windows, drift with its DDL, a digest; nothing is written."""
    result = dpone("plan")
    assert 0 == result.exit_code, result.stderr
    assert " + main.orders → main.orders\n" in result.stdout
    assert "merge on id, updated_at up to 2026-01-01 01:39:00, first load, 1 slice" in result.stdout
    assert 'CREATE TABLE "main"."orders"' in result.stdout
    assert "2 to apply; nothing was written. Plan digest " in result.stdout
    dpone("run")
    sql("shop.duckdb", "ALTER TABLE countries ADD COLUMN vat INTEGER")
    result = dpone("plan")
    assert " = main.orders → main.orders\n" in result.stdout
    assert "nothing new: updated_at is still 2026-01-01 01:39:00" in result.stdout
    assert " ~ main.countries → main.countries\n" in result.stdout
    assert "+ column vat: new at the source (INTEGER): add column" in result.stdout
    assert 'ALTER TABLE "main"."countries" ADD COLUMN "vat" INTEGER' in result.stdout
    assert "1 to apply, 1 with nothing to do; nothing was written." in result.stdout
    assert [] == sql("lake.duckdb", "SELECT 1 FROM duckdb_columns() WHERE column_name = 'vat'")


def test_plan_verbose_shows_every_column_and_whole_statements(dpone: Call) -> None:
    """Nothing is cut."""
    result = dpone("plan", "-v")
    assert "…" not in result.stdout
    assert "total       DECIMAL(10,2) → decimal(10,2) → DECIMAL(10,2)  exact" in result.stdout


def test_plan_exit_codes(dpone: Call) -> None:
    """10 with changes when asked, 0 without, 3 when a stream is refused."""
    assert 10 == dpone("plan", "--detailed-exitcode").exit_code
    dpone("run")
    assert 0 == dpone("plan", "--detailed-exitcode", "-s", "orders").exit_code
    sql("shop.duckdb", "DROP TABLE countries")
    result = dpone("plan", "--detailed-exitcode")
    assert 3 == result.exit_code
    assert " ! main.countries: refused\n     ✗ schema [DP401]" in result.stdout
    found = document(dpone("plan", "--json"))
    assert (3, "dpone.plan/1") == (found["exit_code"], found["schema"])


def test_a_plan_can_be_held_to(dpone: Call) -> None:
    """The digest of the plan runs it; after a change the run is refused with 3 and nothing is moved."""
    digest = document(dpone("plan", "--json"))["digest"]
    sql("shop.duckdb", "ALTER TABLE countries ADD COLUMN vat INTEGER")
    result = dpone("run", "--plan-digest", digest)
    assert 3 == result.exit_code
    assert "[DP702]" in result.stderr
    digest = document(dpone("plan", "--json"))["digest"]
    assert 0 == dpone("run", "--plan-digest", digest).exit_code
    same("countries", "code")


def test_verify(dpone: Call) -> None:
    """0 while both sides agree, 4 when a value was changed behind dpone's back."""
    dpone("run", "-s", "countries")
    result = dpone("verify", "-s", "countries")
    assert 0 == result.exit_code, result.stdout + result.stderr
    assert ["main.countries", "main.countries", "3", "3", "0", "proven"] == result.stdout.splitlines()[1].split()
    sql("lake.duckdb", "UPDATE countries SET name = 'norway' WHERE code = 'NO'")
    result = dpone("verify", "-s", "countries")
    assert 4 == result.exit_code
    assert "different (contents)" in result.stdout
    found = document(dpone("verify", "-s", "countries", "--json"))
    assert (4, "different", 3, 3) == (
        found["exit_code"],
        found["streams"][0]["verdict"],
        found["streams"][0]["source_rows"],
        found["streams"][0]["sink_rows"],
    )


def test_verify_of_an_incremental_stream(dpone: Call) -> None:
    """Rows past the checkpoint are pending; the rest agrees, also after a run that found nothing new."""
    for _ in range(2):
        dpone("run", "-s", "orders")
        result = dpone("verify", "-s", "orders")
        assert 0 == result.exit_code, result.stdout
        assert ["100", "100", "0", "proven"] == result.stdout.splitlines()[1].split()[2:]
    sql("shop.duckdb", "INSERT INTO orders VALUES (100, 'new', 1, TIMESTAMP '2026-02-01')")
    result = dpone("verify", "-s", "orders")
    assert 0 == result.exit_code, result.stdout
    assert ["100", "100", "1", "proven"] == result.stdout.splitlines()[1].split()[2:]


def test_verify_of_a_stream_that_cannot_be_compared(dpone: Call) -> None:
    """Its error, and the exit code of a refusal."""
    sql("shop.duckdb", "DROP TABLE countries")
    result = dpone("verify", "-s", "countries")
    assert 3 == result.exit_code
    assert "✗ schema [DP401]" in result.stderr


def test_status(dpone: Call) -> None:
    """Never loaded; then when, how many rows, and up to where; and the runs made here."""
    assert "never loaded" in dpone("status").stdout
    dpone("run")
    result = dpone("status")
    assert 0 == result.exit_code
    line = next(line for line in result.stdout.splitlines() if line.startswith("main.orders"))
    assert line.endswith("100    100  2026-01-01 01:39:00")
    assert "last runs here" in result.stdout
    found = document(dpone("status", "--json"))
    assert "succeeded" == found["runs"][0]["status"]
    assert 100 == found["streams"][0]["receipt"]["rows"]["read"]


def test_reset(dpone: Call) -> None:
    """Needs a selection and a yes; then the next run loads everything, and no row is lost or doubled."""
    dpone("run")
    assert 2 == dpone("reset").exit_code
    refused = dpone("reset", "-s", "orders")
    assert 2 == refused.exit_code
    assert "--yes" in refused.stderr
    result = dpone("reset", "-s", "orders", "--yes")
    assert (0, "reset main.orders; its rows stay\n") == (result.exit_code, result.stdout)
    same("orders", "id")
    found = document(dpone("run", "-s", "orders", "--json"))
    assert 100 == found["streams"][0]["rows"]["extracted"]
    same("orders", "id")


def test_a_held_lock_is_temporary(dpone: Call) -> None:
    """Exit code 75 while another process has the file; with --wait the run waits and succeeds."""
    code = "import duckdb, sys; c = duckdb.connect('lake.duckdb'); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdin
        assert b"held\n" == holder.stdout.readline()
        result = dpone("run")
        assert 75 == result.exit_code
        assert "[DP701]" in result.stderr
        with start("run", "--wait", "60") as waiting:
            holder.stdin.close()
            holder.wait()
            _, err = waiting.communicate()
            assert 0 == waiting.returncode, err
    same("orders", "id")


def test_an_unexpected_error_is_one_sentence(dpone: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a traceback and without the text of the exception; --debug shows both."""
    monkeypatch.setenv("DPONE_DEBUG", "0")

    def broken(*_args: object, **_options: object) -> None:
        raise KeyError("a value")

    monkeypatch.setattr(api, "plan", broken, raising=False)
    result = dpone("plan")
    assert 1 == result.exit_code
    assert "✗ internal [DP900] KeyError in dpone plan\n  fix: run again with --debug" in result.stderr
    assert "a value" not in result.stderr
    assert "Traceback" in dpone("plan", "--debug").stderr


def test_ctrl_c_in_a_command_without_a_run(dpone: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 130, no traceback."""

    def interrupted(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "plan", interrupted, raising=False)
    result = dpone("plan")
    assert (130, "interrupted\n") == (result.exit_code, result.stderr)


def test_a_password_is_never_printed(folder: Path) -> None:
    """Not in any output of any command, nor with -v and --debug."""
    url = "postgres://me:hunter2hunter2@127.0.0.1:1/shop"
    (folder / "dpone.yaml").write_text((folder / "dpone.yaml").read_text().replace("duckdb:///shop.duckdb", url))
    for words in (["check"], ["plan"], ["run"], ["check", "--json"], ["plan", "-v", "--debug"]):
        with start(*words) as process:
            out, err = process.communicate()
        assert 1 == process.returncode, out + err
        assert "source_unavailable" in out + err
        assert "hunter2" not in out + err
    with start("status") as process:  # needs the sink alone
        out, err = process.communicate()
    assert (0, False) == (process.returncode, "hunter2" in out + err)


def test_schema(dpone: Call) -> None:
    """The JSON Schema of the manifest."""
    found = document(dpone("schema"))
    assert "https://json-schema.org/draft/2020-12/schema" == found["$schema"]
    assert "streams" in found["properties"]


def test_connectors(dpone: Call) -> None:
    """Every connector, every capability, and the reason for each gap."""
    found = {item["name"]: item for item in document(dpone("connectors", "--json"))}
    assert set(connectors()) == set(found)
    text = dpone("connectors").stdout
    for name, connector in connectors().items():
        assert name in text
        assert connector.title in text
    assert "files write.merge: impossible: " in text


def test_certify(dpone: Call, tmp_path: Path) -> None:
    """It executes tests, prints the outcome of each check and what the next level needs, and keeps the evidence."""
    arguments = ("certify", "sqlite", "--evidence", str(tmp_path / "evidence"))
    result = dpone(*arguments, "--", "-k", "test_released_configurations_load")
    assert 0 == result.exit_code
    assert re.search(r"^C1 +configuration +passed +1 ", result.stdout, re.MULTILINE)
    assert "next level: C2 credentials: not run" in result.stdout
    assert "passed" == json.loads((tmp_path / "evidence" / "sqlite.json").read_text())["checks"]["C1"]["outcome"]
    [found] = document(dpone(*arguments, "--json", "--", "-k", "test_released_configurations_load"))
    assert ("sqlite", "none") == (found["connector"], found["level"])


def test_certify_knows_what_is_installed(dpone: Call) -> None:
    """An unknown connector is refused with a suggestion, and nothing is executed."""
    result = dpone("certify", "sqlit")
    assert 2 == result.exit_code
    assert "did you mean 'sqlite'?" in result.stderr


def test_errors_of_the_api_are_errors_of_the_command(dpone: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --log-format json they are one JSON line too."""

    def failing(*_args: object, **_options: object) -> None:
        raise DponeError("opening orders: no", where="here", remedy="do this", code="DP999")

    monkeypatch.setattr(api, "plan", failing, raising=False)
    result = dpone("plan", "--log-format", "json")
    line = json.loads(result.stderr)
    assert (1, "error", "DP999", "do this") == (result.exit_code, line["event"], line["code"], line["remedy"])
