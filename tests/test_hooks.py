"""SQL of the user in the transaction that publishes a load: together with it, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

import dpone
from dpone.sql.dialect import breaks_transaction
from tests.test_run import MERGE, Shop, ask, dies_at, failure, shop

__all__ = ["shop"]


@pytest.fixture(params=["postgres", "duckdb"])
def sold(request: pytest.FixtureRequest, shop: Shop) -> Shop:
    """The shop, into each system, with a table that hooks write to."""
    if request.param == "duckdb":
        shop.sink = f"duckdb:///{shop.folder}/lake.duckdb"
    seen(shop, "CREATE TABLE {schema}.audit (what text)")
    return shop


def hooked(shop: Shop, **hooks: list[str]) -> dict[str, Any]:
    """Settings with these hooks, in which `{schema}` is the sink's own."""
    return MERGE | {"hooks": {when: [named(shop, sql) for sql in statements] for when, statements in hooks.items()}}


def named(shop: Shop, sql: str) -> str:
    """The statement with the schema of the sink: PostgreSQL connections of dpone look for no name without one."""
    return sql.replace("{schema}", "main" if shop.sink.startswith("duckdb") else "public")


def seen(shop: Shop, *statements: str) -> list[Any]:
    """Run statements at the sink; the rows of the last."""
    statements = tuple(named(shop, sql) for sql in statements)
    if not shop.sink.startswith("duckdb"):
        return ask(shop.sink, *statements)
    with duckdb.connect(shop.sink.removeprefix("duckdb:///")) as connection:
        for statement in statements:
            connection.execute(statement)
        return connection.fetchall() if statements[-1].startswith("SELECT") else []


def test_hooks_run_in_order_once_a_load(sold: Shop) -> None:
    """Before and after the rows are published, in each load that is committed, one that moves nothing included."""
    settings = hooked(
        sold,
        before=[
            "INSERT INTO {schema}.audit VALUES ('before')",
            "INSERT INTO {schema}.audit SELECT 'had ' || count(*) FROM {schema}.audit",
        ],
        after=["INSERT INTO {schema}.audit SELECT 'now ' || count(*) FROM {schema}.orders"],
    )
    assert 1000 == sold.run(settings).changes["inserted"]
    first = ["before", "had 1", "now 1000"]
    assert [(what,) for what in first] == seen(sold, "SELECT * FROM {schema}.audit")
    assert 0 == sold.run(settings).rows["extracted"]
    assert [(what,) for what in [*first, "before", "had 4", "now 1000"]] == seen(sold, "SELECT * FROM {schema}.audit")


def test_a_failing_hook_takes_the_load_back(sold: Shop) -> None:
    """Neither rows nor the effects of other hooks are visible; the error names the hook and its place."""
    nowhere = "INSERT INTO nowhere VALUES (1)"
    settings = hooked(sold, before=["INSERT INTO {schema}.audit VALUES ('x')"], after=["SELECT 1", nowhere])
    found = failure(sold.run(settings))
    assert "hooks.after, statement 2" in found["message"]
    assert "schema" == found["category"]
    text = sold.manifest({"public.orders": settings}).read_text()
    column = text.index('"INSERT INTO nowhere') + 1
    assert found["where"].endswith(f"shop.yaml:1:{column}")
    assert [] == seen(sold, "SELECT * FROM {schema}.audit")
    assert [] == seen(sold, "SELECT 1 FROM information_schema.tables WHERE table_name = 'orders'")
    again = sold.run(hooked(sold, after=["INSERT INTO {schema}.audit VALUES ('mended')"]))
    assert (1000, 1) == (again.changes["inserted"], again.slices["resumed"])
    assert [("mended",)] == seen(sold, "SELECT * FROM {schema}.audit")


def test_a_broken_ledger_takes_the_hooks_back(sold: Shop) -> None:
    """A load that is not published for another reason leaves no effect of its hooks either."""
    sold.sql("ALTER TABLE orders ADD COLUMN code text")
    settings = hooked(sold, after=["INSERT INTO {schema}.audit VALUES ('x')"]) | {"primary_key": "code"}
    assert "DP413" == failure(sold.run(settings))["code"]
    assert [] == seen(sold, "SELECT * FROM {schema}.audit")


def test_hooks_run_once_around_a_death_at_the_commit(sold: Shop) -> None:
    """A death before the commit leaves no effect, one after it leaves one; the rerun adds the one of its own load."""
    settings = hooked(sold, after=["INSERT INTO {schema}.audit VALUES ('x')"])
    sold.run(settings, on_event=dies_at("load.committing"))
    assert [] == seen(sold, "SELECT * FROM {schema}.audit")
    sold.run(settings, on_event=dies_at("load.committed"))
    assert [("x",)] == seen(sold, "SELECT * FROM {schema}.audit")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("COMMIT", "COMMIT would end"),
        ("-- why\n  rollback", "ROLLBACK would end"),
        ("start  transaction", "START TRANSACTION would end"),
        ("DELETE FROM t; COMMIT", "several statements"),
        ("SELECT 1; SELECT 2", "several statements"),
        ("SELECT ';'", ""),
        ('SELECT ";" FROM t -- ; and so on', ""),
        ("DO $x$ BEGIN PERFORM 1; END $x$", ""),
        ("SELECT 1;", ""),
        ("ENDPOINTS", ""),
        ("CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM u; END", ""),
    ],
)
def test_what_would_break_the_transaction_is_refused(sql: str, words: str) -> None:
    """Transaction control and several statements in one entry are seen before anything runs."""
    found = breaks_transaction(sql)
    assert words in found
    assert bool(words) == bool(found)


def test_refused_in_the_plan(shop: Shop, tmp_path: Path) -> None:
    """A hook that ends the transaction, and one for a sink without SQL, are refused with place and alternative."""
    path = shop.manifest({"public.orders": {"hooks": {"after": ["SELECT 1", "COMMIT"]}}})
    [found] = dpone.plan(path).refusals
    assert found.refusal is not None
    column = path.read_text().index('"COMMIT"') + 1
    assert ("DP151", f"shop.yaml:1:{column}") == (found.refusal.code, found.refusal.where.rpartition("/")[2])
    shop.sink = {"connector": "files", "path": str(tmp_path / "out"), "format": "csv"}  # type: ignore[assignment]
    (tmp_path / "out").mkdir()
    [found] = dpone.plan(shop.manifest({"public.orders": {"hooks": {"before": ["SELECT 1"]}}})).refusals
    assert found.refusal is not None
    assert ("DP130", True) == (found.refusal.code, "runs no SQL" in found.refusal.message)


def test_the_plan_shows_the_hooks(shop: Shop) -> None:
    """They stand among the statements, first and last, and a changed hook is another plan."""
    path = shop.manifest({"public.orders": {"hooks": {"before": ["SELECT 1"], "after": ["SELECT 2"]}}})
    plan = dpone.plan(path)
    steps = json.loads(json.dumps(plan.as_dict()))["streams"][0]["steps"]
    assert ("SELECT 1", "SELECT 2") == (steps[0], steps[-1])
    assert plan.digest != dpone.plan(shop.manifest({"public.orders": {}})).digest
