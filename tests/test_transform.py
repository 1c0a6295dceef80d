"""What happens to rows on their way: expressions, masks, filters, functions; and what stays proven through it."""

from __future__ import annotations

import hmac
import json
import sys
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import dpone
from dpone.errors import ConfigError, DataError
from dpone.reconcile import Comparison
from dpone.sdk import Column
from dpone.testing.memory.place import forget, place
from dpone.transform.compiled import Problems, Transform, refused
from dpone.transform.expressions import Refusal, connection, references, type_of
from dpone.transform.rules import Mask, Rules
from tests.test_run import MERGE, Shop, ask, dies_at, failure, shop

__all__ = ["shop"]

SECRET = "not a secret, but sixteen bytes"
COLUMNS = (
    Column("id", pa.int64(), nullable=False),
    Column("email", pa.string()),
    Column("price", pa.decimal128(10, 2)),
    Column("quantity", pa.int32()),
    Column("at", pa.timestamp("us", "UTC")),
)


def compiled(
    columns: tuple[Column, ...] = COLUMNS, *, key: tuple[str, ...] = ("id",), cursor: str = "", **rules: Any
) -> Transform:
    """A transform of these columns; masks as the manifest has them."""
    return Transform.of(Rules.of(rules), columns, primary_key=key, cursor=cursor, folder=Path())


def applied(transform: Transform, columns: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The transformed values of a batch of the read columns."""
    arrays = [pa.array(columns[column.name], column.type) for column in transform.read]
    found, _ = transform.apply(pa.RecordBatch.from_arrays(arrays, [column.name for column in transform.read]))
    values: dict[str, list[Any]] = found.to_pydict()
    return values


# -- hashes ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.none() | st.text(alphabet=st.characters(codec="utf-8"))),
    st.text(st.characters(codec="utf-8"), min_size=16, max_size=200),
)
@example(["", None, "é", "\U0001f600", "a\0b", "x" * 1000], "k" * 64)
@example(["x"], "k" * 65)
def test_a_hmac_of_text_is_that_of_python(values: list[str | None], secret: str) -> None:
    """HMAC-SHA-256 in hexadecimal over the UTF-8 bytes, with short and long keys; NULL stays NULL."""
    found = applied(compiled(mask={"email": {"hmac": secret}}, drop=["price", "quantity", "at"]), _rows(email=values))
    assert [_hmac(secret, value) for value in values] == found["email"]


@given(st.lists(st.none() | st.binary()))
def test_a_hmac_of_bytes_is_that_of_python(values: list[bytes | None]) -> None:
    """Bytes are hashed as they are."""
    columns = (Column("b", pa.binary()),)
    found = applied(compiled(columns, key=(), mask={"b": {"hmac": SECRET}}), {"b": values})
    assert [_hmac(SECRET, value) for value in values] == found["b"]


@pytest.mark.parametrize("type_", [pa.int8(), pa.int64(), pa.uint64()], ids=str)
def test_a_hmac_of_a_number_is_that_of_its_digits(type_: pa.DataType) -> None:
    """A number is hashed as its decimal text, so that a text column with the same digits joins."""
    columns = (Column("n", type_, nullable=False),)
    found = applied(compiled(columns, key=("n",), mask={"n": {"hmac": SECRET}}), {"n": [0, 1, 100]})
    assert [_hmac(SECRET, digits) for digits in ("0", "1", "100")] == found["n"]


def _hmac(secret: str, value: str | bytes | None) -> str | None:
    if value is None:
        return None
    return hmac.new(secret.encode(), value.encode() if isinstance(value, str) else value, "sha256").hexdigest()


def _rows(**columns: list[Any]) -> dict[str, list[Any]]:
    """Values for all of COLUMNS: ids count from 0, and what is not given is NULL."""
    count = len(next(iter(columns.values())))
    return {"id": list(range(count))} | {c.name: [None] * count for c in COLUMNS[1:]} | columns


# -- expressions and their order -------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.none() | st.decimals(0, 10**7, places=2), st.none() | st.integers(-1000, 1000))))
def test_expressions_compute_what_python_computes(rows: list[tuple[Decimal | None, int | None]]) -> None:
    """Decimals stay exact, NULL takes part as SQL has it, and a row stays only where the condition is true."""
    transform = compiled(derive={"total": "price * quantity"}, where="total > 100", drop=["email", "at"])
    found = applied(
        transform, _rows(price=[row[0] for row in rows], quantity=[row[1] for row in rows], id=[*range(len(rows))])
    )
    totals = [(n, price * count) for n, (price, count) in enumerate(rows) if price is not None and count is not None]
    expected = [(n, total) for n, total in totals if total > 100]
    assert expected == list(zip(found["id"], found["total"], strict=True))
    assert pa.decimal128(18, 2) == next(column.type for column in transform.columns if column.name == "total")


def test_the_order_of_operations() -> None:
    """New names first; derived values are of the columns as read; conditions see them, and no mask; drop is last."""
    transform = compiled(
        rename={"email": "mail"},
        derive={"price": "price * 2", "more": "price + 1", "domain": "split_part(MAIL, '@', 2)"},
        where="price > 2 AND mail LIKE '%@b'",
        mask={"mail": {"replace": "***"}, "domain": {"hmac": SECRET}},
        drop=["quantity", "at"],
    )
    assert ["id", "mail", "price", "more", "domain"] == [column.name for column in transform.columns]
    assert ["id", "email", "price"] == [column.name for column in transform.read], "what is not needed is not read"
    found = applied(transform, _rows(email=["a@b", "c@b", None, "d@e"], price=[1, 2, 3, 4]))
    expected = {"id": [1], "mail": ["***"], "price": [4], "more": [3], "domain": [_hmac(SECRET, "b")]}
    assert expected == found


def test_a_replacement_leaves_null() -> None:
    """No value stays no value; `null` leaves none, and its column is not even read."""
    transform = compiled(mask={"email": {"replace": ""}, "price": {"null_": True}}, drop=["quantity", "at"])
    assert ["id", "email"] == [column.name for column in transform.read]
    assert {"id": [0, 1], "email": ["", None], "price": [None] * 2} == applied(transform, _rows(email=["x", None]))


def test_sliced_arrays_and_no_rows() -> None:
    """A batch that is a slice of another one, and one without rows, pass as any other."""
    transform = compiled(derive={"n": "id * 2"}, where="id <> 3", drop=["email", "price", "quantity", "at"])
    whole = pa.record_batch({"id": pa.array(range(10))})
    found, left_out = transform.apply(whole.slice(2, 3))
    assert ({"id": [2, 4], "n": [4, 8]}, 1) == (found.to_pydict(), left_out)
    found, left_out = transform.apply(whole.slice(0, 0))
    assert ({"id": [], "n": []}, 0) == (found.to_pydict(), left_out)


def test_instants_are_seen_in_utc() -> None:
    """The local zone of the machine has no part in what an expression says of an instant."""
    transform = compiled(derive={"day": 'CAST("at" AS DATE)'}, drop=["email", "price", "quantity", "at"])
    found = applied(transform, _rows(at=[datetime(2024, 3, 1, 0, 30, tzinfo=UTC)]))
    assert ["2024-03-01"] == [str(day) for day in found["day"]]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("random()", "does not give the same answer"),
        ("now()", "does not give the same answer"),
        ("uuid()", "does not give the same answer"),
        ("current_localtimestamp()", "does not give the same answer"),
        ("current_setting('threads')", "does not give the same answer"),
        ('age("at")', "clock"),
        ("pg_conf_load_time()", "not a function of one row"),
        ("sum(price)", "not a function of one row"),
        ("unnest([1, 2])", "not a function of one row"),
        ("read_text('/etc/passwd')", "not a function of one row"),
        ("(SELECT 1)", "subquery"),
        ("id IN (SELECT 1)", "subquery"),
        ("row_number() OVER ()", "window function"),
        ("*", "star"),
        ("$1", "parameter"),
        ("id; DROP TABLE x", "does not parse"),
        ("id), (1", "more than one expression"),
        ("id) FROM read_text('/etc/passwd') WHERE (1", "more than one expression"),
        ("id) UNION SELECT (1", "more than one expression"),
        ("id) WHERE (true", "more than one expression"),
        ("price +", "does not parse"),
        ("lowr(email)", "did you mean lower?"),
        ("t.id", "two parts"),
        ("NULL", "no type"),
        ("CAST(id AS HUGEINT)", "HUGEINT"),
        ('"at" - "at"', "INTERVAL"),
        ("email + 1", "Binder Error"),
    ],
)
def test_what_is_not_a_function_of_the_row_is_refused(expression: str, words: str) -> None:
    """Only what gives the same value for the same row, at any time, can be compared later; all else is refused."""
    with pytest.raises(Refusal, match=words.replace("?", r"\?")):
        type_of(expression, [column for column in COLUMNS if column.name in references(expression)])


def test_a_comment_at_the_end_ends_with_the_expression() -> None:
    """A comment does not swallow what comes after it."""
    assert {"id": [0], "n": [1]} == applied(
        compiled(derive={"n": "id + 1 -- one more"}, drop=["email", "price", "quantity", "at"]), _rows(id=[0])
    )


def test_expressions_are_shut_off() -> None:
    """Neither files, nor extensions, nor variables of the program are within reach, and no setting can be changed."""
    table = pa.table({"x": [1]})
    for sql in (
        "SELECT * FROM '/etc/passwd'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM table",
    ):
        with pytest.raises(duckdb.Error):
            connection().execute(sql)
    assert 1 == table.num_rows


@pytest.mark.parametrize(
    ("rules", "words", "remedy"),
    [
        ({"rename": {"emial": "mail"}}, "no column emial", "did you mean email?"),
        ({"rename": {"email": "price"}}, "email and price would both be price", "another name"),
        ({"rename": {"email": "mail"}, "mask": {"email": {"replace": ""}}}, "no column email", "did you mean mail?"),
        ({"derive": {"x": "emial"}}, "no column emial", "did you mean email?"),
        ({"derive": {"Email": "email"}}, "email and Email differ only in case", "rename"),
        ({"where": "price"}, "not a condition", "a > 0"),
        ({"where": "total > 0", "mask": {"total": {"null_": True}}}, "no column total", ""),
        ({"mask": {"price": {"hmac": SECRET}}}, "price is decimal(10,2)", "derive a text"),
        ({"mask": {"email": {"hmac": "short"}}}, "less than 16 bytes", "longer"),
        ({"mask": {"id": {"replace": "x"}}}, "part of the key", "hmac"),
        ({"mask": {"at": {"null_": True}}}, "at is the cursor", "take the mask away"),
        ({"derive": {"at": "CAST('2024-01-01' AS TIMESTAMP)"}}, "at is the cursor", "another column"),
        ({"drop": ["id"]}, "id is part of the key", "keep it"),
        ({"drop": ["emial"]}, "no column emial", "did you mean email?"),
        ({"function": "no_such_module:f"}, "no such module", "install"),
        ({"function": "json:nothing"}, "no function nothing", "module:name"),
        ({"function": "json:dumps"}, "raised TypeError, when it was called with no rows", "correct"),
    ],
)
def test_mistakes_are_refused_with_the_remedy(rules: dict[str, Any], words: str, remedy: str) -> None:
    """Each rule that cannot be honoured is an error that says what to write instead."""
    try:
        compiled(cursor="at", **rules)
    except Problems as problems:
        _, error = refused(problems)
    except ConfigError as caught:
        error = caught
    else:
        pytest.fail("it was taken")
    assert "DP150" == error.code
    assert words in error.message
    assert remedy in error.message + error.remedy


def test_all_mistakes_are_told_at_once() -> None:
    """What is wrong with several keys is one error."""
    with pytest.raises(Problems) as caught:
        compiled(derive={"a": "now()", "b": "emial"}, drop=["id"])
    assert 3 == len(caught.value.found)


def test_everything_dropped_is_refused() -> None:
    """A stream without a column is none."""
    with pytest.raises(Problems, match="every column is dropped"):
        compiled(key=(), drop=[column.name for column in COLUMNS])


def test_a_value_that_an_expression_cannot_take_is_not_shown() -> None:
    """The error names the column and the kind of error, and neither the value nor DuckDB's words."""
    transform = compiled(derive={"fine": "id", "n": "CAST(email AS INTEGER)"})
    with pytest.raises(DataError) as caught:
        applied(transform, _rows(email=["17", "my secret value"]))
    assert "DP416" == caught.value.code
    assert "column n: a value ends in DuckDB's Conversion error" in caught.value.message
    assert "secret value" not in repr(caught.value) + str(caught.value.__cause__)
    assert {"n": [17, None], "id": [0, 1]} == applied(
        compiled(derive={"n": "TRY_CAST(email AS INTEGER)"}, drop=["email", "price", "quantity", "at"]),
        _rows(email=["17", "my secret value"]),
    )


def test_rules_do_not_show_their_secrets() -> None:
    """Neither the rules nor what is compiled from them have a secret in their text, and a plan shows the kind only."""
    rules = Rules.of({"mask": {"email": {"hmac": SECRET}}, "where": f"email <> '{SECRET}'"})
    transform = compiled(mask={"email": {"hmac": SECRET}})
    assert SECRET not in f"{rules!r} {transform!r} {Mask('hmac', SECRET)!r} {rules.fingerprint}"
    assert {"where": "email <> '***'", "mask": {"email": "hmac"}} == rules.shown(
        lambda text: text.replace(SECRET, "***")
    )
    other = Rules.of({"mask": {"email": {"hmac": SECRET + "!"}}, "where": f"email <> '{SECRET}'"})
    assert rules.fingerprint != other.fingerprint


# -- functions -------------------------------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a module of the user's beside the manifest; it is forgotten at the end."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(name: str, text: str) -> Path:
        (tmp_path / f"{name}.py").write_text(
            "import pyarrow as pa\nimport pyarrow.compute as pc\n" + textwrap.dedent(text)
        )
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def with_function(folder: Path, reference: str, **rules: Any) -> Transform:
    """A transform that ends in a function."""
    return Transform.of(
        Rules.of({"function": reference, **rules}), COLUMNS[:2], primary_key=("id",), cursor="", folder=folder
    )


def test_a_function_sees_what_is_left_and_its_answer_is_moved(module: Any) -> None:
    """It comes last, may add columns and leave out rows, which are counted."""
    folder = module(
        "clean_rows",
        """
        def clean(batch):
            assert batch.schema.names == ['id', 'mail']
            batch = batch.filter(pc.field('id') != 2)
            return batch.append_column('length', pc.utf8_length(batch.column('mail')))
        """,
    )
    transform = with_function(folder, "clean_rows:clean", rename={"email": "mail"}, where="id > 0")
    assert [("id", "int64"), ("mail", "string"), ("length", "int32")] == [
        (c.name, str(c.type)) for c in transform.columns
    ]
    batch = pa.record_batch({"id": [0, 1, 2, 3], "email": ["a", "bb", "ccc", None]})
    found, left_out = transform.apply(batch)
    assert ({"id": [1, 3], "mail": ["bb", None], "length": [2, None]}, 2) == (found.to_pydict(), left_out)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError(batch.to_pylist())", "raised ValueError"),
        ("return pa.concat_batches([batch, batch])", "gave 4 rows for 2"),
        ("return batch.drop_columns(['email'])", "gave no column email"),
        ("return batch.append_column('x', batch.column('id'))", "gave a column x"),
        ("return batch.set_column(0, 'id', batch.column('id').cast(pa.string()))", "gave id as string, and as int64"),
        ("return batch.to_pylist()", "gave a list, not a pyarrow.RecordBatch"),
    ],
)
def test_a_function_is_held_to_what_it_gave_for_no_rows(module: Any, body: str, words: str) -> None:
    """Other columns, more rows or an exception stop the run; the error names the function and shows no value."""
    folder = module("bad_rows", f"def bad(batch):\n    if batch.num_rows == 0:\n        return batch\n    {body}\n")
    transform = with_function(folder, "bad_rows:bad")
    with pytest.raises(DataError) as caught:
        transform.apply(pa.record_batch({"id": [1, 2], "email": ["my value", None]}))
    assert words in caught.value.message
    assert "bad_rows:bad" in caught.value.message
    assert "my value" not in repr(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return batch.drop_columns(['id'])", "leaves out id, which is part of the key"),
        ("return batch.append_column('x', pa.array([], pa.duration('s')))", "gives x as duration[s]"),
        ("return batch.append_column('id', batch.column('id'))", "two columns id"),
        ("return None", "gave a NoneType"),
    ],
)
def test_a_function_that_gives_what_cannot_be_moved_is_refused(module: Any, body: str, words: str) -> None:
    """It is called once with no rows while planning, and its columns must travel."""
    folder = module("odd_rows", f"def odd(batch):\n    {body}\n")
    with pytest.raises((Problems, ConfigError)) as caught:
        with_function(folder, "odd_rows:odd")
    assert words in str(caught.value)


def test_a_module_beside_the_manifest_is_not_mistaken(module: Any) -> None:
    """A module of this name that comes from somewhere else is refused, not run."""
    folder = module("textwrap", "def f(batch):\n    return batch\n")
    with pytest.raises(ConfigError, match="not the one beside the manifest"):
        with_function(folder, "textwrap:dedent")


# -- a load ----------------------------------------------------------------------------------------------------------

RULES: dict[str, Any] = {
    "rename": {"id": "order_id", "updated_at": "changed_at"},
    "derive": {"gross": "total * 2", "odd": "order_id % 2 = 1"},
    "where": "gross > 100",
    "mask": {"note": {"hmac": "${env:HASH_KEY}"}},
    "drop": ["total"],
}


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASH_KEY", SECRET)


def expected(shop: Shop) -> list[tuple[Any, ...]]:
    """The orders of the shop as RULES make them, computed by Python."""
    rows = shop.sql("SELECT id, note, total, updated_at FROM orders ORDER BY id")
    return [(n, _hmac(SECRET, note), at, total * 2, n % 2 == 1) for n, note, total, at in rows if total * 2 > 100]


def held(shop: Shop) -> list[tuple[Any, ...]]:
    """The rows of the target."""
    query = "SELECT order_id, note, changed_at, gross, odd FROM orders ORDER BY order_id"
    if shop.sink.startswith("duckdb"):
        with duckdb.connect(shop.sink.removeprefix("duckdb:///")) as connection:
            return connection.execute(query).fetchall()
    return ask(shop.sink, query)


@pytest.fixture(params=["postgres", "duckdb"])
def sold(request: pytest.FixtureRequest, shop: Shop) -> Shop:
    """The shop, into each system."""
    if request.param == "duckdb":
        shop.sink = f"duckdb:///{shop.folder}/lake.duckdb"
    return shop


@pytest.mark.parametrize("proof", ["counts", "digest"])
@pytest.mark.parametrize("write", ["merge", "replace"])
def test_a_transformed_load_is_proven_and_a_second_run_changes_nothing(sold: Shop, write: str, proof: str) -> None:
    """Row by row what Python computes; rows that were left out are counted and balance; verify agrees."""
    settings = {"write": write, "proof": proof, "slices": {"rows": 100}, "transform": RULES}
    settings |= {"cursor": "updated_at"} if write == "merge" else {}
    record = sold.run(settings)
    assert expected(sold) == held(sold)
    left_out = 1000 - len(expected(sold))
    assert (1000, left_out, 1000 - left_out) == tuple(record.rows[name] for name in ("extracted", "filtered", "staged"))
    assert f"read = staged + filtered: 1000 = {1000}" in record.balance["equations"]
    assert not [equation for equation in record.balance["equations"] if equation.startswith("read = staged:")]
    assert record.proven
    again = sold.run(settings)
    assert [0, 0, 0] == [again.changes[name] for name in ("inserted", "updated", "deleted")]
    [found] = dpone.verify(sold.folder / "shop.yaml")
    assert isinstance(found, Comparison)
    assert ("proven", 800) == (found.verdict, found.source.rows)


def test_changes_are_merged_under_the_new_names(sold: Shop) -> None:
    """A renamed key and a renamed cursor find their rows again; what waits past the checkpoint is pending."""
    settings = MERGE | {"transform": RULES, "proof": "digest"}
    sold.run(settings)
    sold.sql(
        "UPDATE orders SET note = 'changed', updated_at = '2030-01-01' WHERE id = 900",
        "INSERT INTO orders VALUES (2000, 'new', 500, '2030-01-01'), (2001, 'cheap', 1, '2030-01-01')",
    )
    [found] = dpone.verify(sold.folder / "shop.yaml")
    assert isinstance(found, Comparison)
    assert ("proven", 2) == (found.verdict, found.pending)
    record = sold.run(settings)
    assert (3, 1, 1, 1) == (
        record.rows["extracted"],
        record.rows["filtered"],
        *(record.changes[n] for n in ("inserted", "updated")),
    )
    assert record.proven
    assert expected(sold) == held(sold)


def test_verify_sees_one_altered_value(sold: Shop) -> None:
    """A value that was changed in the target alone is a difference to the source read through the transform."""
    sold.run(MERGE | {"transform": RULES})
    statement = "UPDATE orders SET gross = gross + 1 WHERE order_id = 900"
    if sold.sink.startswith("duckdb"):
        with duckdb.connect(sold.sink.removeprefix("duckdb:///")) as connection:
            connection.execute(statement)
    else:
        ask(sold.sink, statement)
    [found] = dpone.verify(sold.folder / "shop.yaml")
    assert isinstance(found, Comparison)
    assert "different" == found.verdict


@pytest.mark.parametrize("proof", ["counts", "digest"])
def test_a_rerun_continues_through_the_transform(sold: Shop, proof: str) -> None:
    """After a death durable slices are compared with what the transform gives now: equal ones stay, changed ones go."""
    settings = {"write": "replace", "slices": {"rows": 100}, "proof": proof, "transform": RULES}
    died = sold.run(settings, on_event=dies_at("load.committing"))
    assert "failed" == died.status
    sold.sql("UPDATE orders SET note = 'changed' WHERE id = 999")
    again = sold.run(settings)
    assert 0 < again.slices["resumed"] < again.slices["total"]
    assert expected(sold) == held(sold)
    assert (1000, 200) == (again.rows["extracted"], again.rows["filtered"])
    assert again.proven


def test_a_rerun_over_an_unchanged_source_still_balances(shop: Shop) -> None:
    """Where nothing changed since the death, what was left out of the durable slices is counted anew."""
    settings = {"write": "replace", "slices": {"rows": 100}, "transform": RULES}
    shop.run(settings, on_event=dies_at("load.committing"))
    again = shop.run(settings)
    assert again.slices["total"] == again.slices["resumed"]
    assert (1000, 200, 800) == tuple(again.rows[name] for name in ("extracted", "filtered", "staged"))


def test_a_row_that_the_filter_lost_stops_the_commit(sold: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transform that loses a row without counting it breaks the equation, and nothing is published."""
    original = Transform.apply

    def losing(self: Transform, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        found, left_out = original(self, batch)
        return found.slice(1), left_out

    monkeypatch.setattr(Transform, "apply", losing)
    found = failure(sold.run({"write": "replace", "transform": RULES}))
    assert "DP901" == found["code"]
    assert "read = staged + filtered" in found["message"]


def test_a_changed_rule_is_not_continued(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows behind the checkpoint were made by the old rules: a changed condition, expression or secret is refused."""
    shop.run(MERGE | {"transform": RULES})
    for change in ({"where": "gross > 50"}, {"derive": RULES["derive"] | {"gross": "total * 3"}}, {"where": None}):
        rules = {name: rule for name, rule in (RULES | change).items() if rule}
        found = failure(shop.run(MERGE | {"transform": rules}))
        assert ("DP136", True) == (found["code"], "transform" in found["message"])
    monkeypatch.setenv("HASH_KEY", "another key of sixteen bytes")
    assert "DP136" == failure(shop.run(MERGE | {"transform": RULES}))["code"]
    dpone.reset(shop.folder / "shop.yaml", select=["*"])
    assert 800 == shop.run(MERGE | {"transform": RULES}).changes["updated"]


def test_a_filter_that_leaves_nothing_does_not_empty_the_target(shop: Shop) -> None:
    """Replacing every row by none because no row passes is refused, as it is for an empty source."""
    shop.run({"write": "replace"})
    found = failure(shop.run({"write": "replace", "transform": {"where": "total < 0"}}))
    assert ("DP412", True) == (found["code"], "no row that passes its transform" in found["message"])


def test_untouched_columns_keep_their_native_types(shop: Shop) -> None:
    """Between two PostgreSQL databases only what an expression looks at travels in a canonical type."""
    shop.sql(
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "ALTER TABLE orders ADD COLUMN mood mood DEFAULT 'bad', ADD COLUMN span int4range DEFAULT '[1,5)', "
        "ADD COLUMN code varchar(10) DEFAULT 'Ab'",
    )
    rules = {"rename": {"mood": "feeling"}, "derive": {"shout": "upper(code)"}, "where": "id <= 10"}
    record = shop.run({"write": "replace", "proof": "digest", "transform": rules})
    assert record.proven
    types = ask(
        shop.sink,
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'orders'::regclass AND attnum > 0 ORDER BY attnum",
    )
    assert {"feeling": "mood", "span": "int4range", "code": "text", "shout": "text"}.items() <= dict(types).items()
    assert [("bad", "AB", 10)] == ask(shop.sink, "SELECT feeling::text, shout, count(*) FROM orders GROUP BY 1, 2")


def test_secrets_are_shown_nowhere(sold: Shop) -> None:
    """The plan, the record, the events, the tables of the sink and an error hold the reference, not the secret."""
    rules = RULES | {"derive": {"tag": "'${env:HASH_KEY}' || note"}, "where": "note <> '${env:HASH_KEY}'"}
    rules |= {"drop": ["tag"], "mask": RULES["mask"]}
    settings = {"write": "replace", "transform": rules, "hooks": {"before": ["SELECT '${env:HASH_KEY}'"]}}
    path = sold.manifest({"public.orders": settings})
    planned = json.dumps(dpone.plan(path).as_dict())
    assert "${env:HASH_KEY}' || note" in planned
    assert "${env:HASH_KEY}'\"" in planned.replace("\\", "")
    sold.run(settings)
    broken = settings | {"transform": rules | {"where": "note + '${env:HASH_KEY}'"}}
    failed = sold.run(broken)
    seen = planned + json.dumps(failure(failed))
    seen += "".join(file.read_text() for file in (sold.folder / ".dpone").rglob("*") if file.is_file())
    query = "SELECT * FROM {}"
    for table in ("_dpone_loads", "_dpone_runs"):
        if sold.sink.startswith("duckdb"):
            with duckdb.connect(sold.sink.removeprefix("duckdb:///")) as connection:
                seen += str(connection.execute(query.format(table)).fetchall())
        else:
            seen += str(ask(sold.sink, query.format(table)))
    assert SECRET not in seen


def test_mistakes_have_a_place_in_the_manifest(shop: Shop) -> None:
    """The refusal names the key of the transform by line and column, and the sink is not touched."""
    (shop.folder / "t.yaml").write_text(
        "version: 1\npipeline: t\n"
        f"source: {shop.source}\nsink: {shop.sink}\n"
        "streams:\n  public.orders:\n    transform:\n      derive:\n        a: id + 1\n        b: totl * 2\n"
    )
    [found] = dpone.plan(shop.folder / "t.yaml").refusals
    assert found.refusal is not None
    assert ("DP150", "did you mean total?") == (found.refusal.code, found.refusal.remedy)
    assert found.refusal.where.endswith("t.yaml:10:9")
    assert 3 == dpone.run(shop.folder / "t.yaml").exit_code
    assert [] == ask(shop.sink, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")


def test_a_source_that_cannot_filter_or_cast(tmp_path: Path) -> None:
    """What memory and files cannot do themselves is done on the way; a dropped column may stay in the target."""
    batch = pa.record_batch({"id": pa.array([1, 2, 3]), "text": ["10", "x", "30"], "at": pa.array([1, 2, 3])})
    place("transformed").put("t", {"id": "int64", "text": "text", "at": "int64"}, [batch], ["id"])
    manifest = {
        "version": 1,
        "pipeline": "p",
        "source": {"connector": "memory", "place": "transformed"},
        "sink": {"connector": "duckdb", "path": str(tmp_path / "lake.duckdb")},
        "streams": {
            "t": {
                "cursor": "at",
                "proof": "digest",
                "transform": {"derive": {"n": "TRY_CAST(text AS INTEGER)"}, "where": "n IS NOT NULL", "drop": ["text"]},
            }
        },
    }
    try:
        [record] = dpone.run(manifest, store=tmp_path / "store").streams
    finally:
        forget("transformed")
    assert (3, 1, True) == (record.rows["extracted"], record.rows["filtered"], record.proven)
    with duckdb.connect(str(tmp_path / "lake.duckdb")) as connection:
        assert [(1, 1, 10), (3, 3, 30)] == connection.execute("SELECT * FROM t ORDER BY id").fetchall()


def test_a_function_in_a_load(sold: Shop, module: Any) -> None:
    """A function beside the manifest is part of a load that is proven, resumed and verified."""
    module("shop_rules", "def even(batch):\n    return batch.filter(pc.field('even'))\n")
    rules = {"derive": {"even": "id % 2 = 0"}, "function": "shop_rules:even"}
    settings = {"write": "replace", "slices": {"rows": 100}, "proof": "digest", "transform": rules}
    sold.run(settings, on_event=dies_at("slice.started", slice=2))
    record = sold.run(settings)
    assert (2, 1000, 500, 500) == (
        record.slices["resumed"],
        *(record.rows[n] for n in ("extracted", "filtered", "final")),
    )
    [found] = dpone.verify(sold.folder / "shop.yaml")
    assert isinstance(found, Comparison)
    assert "proven" == found.verdict


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_files_take_batches_of_which_nothing_is_left(tmp_path: Path, form: str) -> None:
    """From CSV into each form of file: slices that the condition empties are no rows, and the load is proven."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "t.csv").write_text("id,name\n" + "".join(f"{n},n{n}\n" for n in range(10)))
    for condition, left in (("id = 7", 1), ("id > 100", 0)):
        manifest = {
            "version": 1,
            "pipeline": f"p{left}",
            "source": {"connector": "files", "path": str(tmp_path / "in")},
            "sink": {"connector": "files", "path": str(tmp_path / f"out{left}"), "format": form},
            "streams": {
                "t": {"proof": "digest", "transform": {"where": condition, "mask": {"name": {"replace": "x"}}}}
            },
        }
        (tmp_path / f"out{left}").mkdir()
        [record] = dpone.run(manifest, store=tmp_path / "store").streams
        assert (10, 10 - left, left, True) == (
            *(record.rows[n] for n in ("extracted", "filtered", "staged")),
            record.proven,
        )
        [found] = dpone.verify(manifest)
        assert isinstance(found, Comparison)
        assert ("proven", left) == (found.verdict, found.sink.rows)
