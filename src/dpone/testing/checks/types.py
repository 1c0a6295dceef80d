"""C8 types and C9 names: every type both ways, every form of Arrow array, every odd name; exact, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import dpone
from dpone.arrow.types import parse_type
from dpone.sdk import Capability, Column
from dpone.testing import cases
from dpone.testing.found import case_file
from dpone.testing.harness import Harness
from dpone.testing.kit import WRITES, Checks, Route, certifies, inapplicable, values
from dpone.testing.matrix import End, run_matrix
from dpone.testing.memory.harness import MemoryHarness
from dpone.testing.texts import normal, parse

EDGES: Mapping[str, Sequence[str]] = {
    "boolean": ("true", "false"),
    "int8": ("-128", "0", "127"),
    "int16": ("-32768", "32767"),
    "int32": ("-2147483648", "2147483647"),
    "int64": ("-9223372036854775808", "9007199254740993", "9223372036854775807"),
    "uint8": ("0", "255"),
    "uint16": ("65535",),
    "uint32": ("4294967295",),
    "uint64": ("9223372036854775807", "9223372036854775808", "18446744073709551615"),
    "float32": ("3.4028235e38", "1e-45", "0.1", "0.0", "-0.0", "nan", "inf", "-inf"),
    "float64": ("1.7976931348623157e308", "5e-324", "0.1", "9007199254740993", "0.0", "-0.0", "nan", "inf", "-inf"),
    "decimal(38,0)": ("99999999999999999999999999999999999999", "-1", "0"),
    "decimal(38,38)": ("0.99999999999999999999999999999999999999", "-0.1"),
    "decimal(12,2)": ("9999999999.99", "-0.01", "0.00"),
    "text": (
        "",
        "a\0b",
        " pad ",
        "NULL",
        "\\N",
        'a"b',
        "it's",
        "c\\d",
        "{x,y}",
        "a\tb\r\nc\n",
        "\ufeffbom",
        "Żółć 東京 😀",
    ),
    "json": ('{"b": 1, "a": [1.000, null]}', "null", '""', "12345678901234567890.10", '{"a":  1, "a": 2}'),
    "uuid": ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000"),
    "binary": ("", "00", "00ff5c7800", bytes(range(256)).hex()),
    "date": ("0001-01-01", "1969-12-31", "1970-01-01", "2024-02-29", "9999-12-31"),
    "time": ("00:00:00", "23:59:59.999999"),
    "timestamp": ("0001-01-01 00:00:00", "1969-12-31 23:59:59.999999", "9999-12-31 23:59:59.999999"),
    "timestamptz": ("0001-01-02 00:00:00Z", "2024-03-10 07:30:00.000001Z", "9999-12-30 23:59:59.999999Z"),
}
"""The values at the edges of each canonical type, as `texts.parse` reads them."""

FORMS = ("sliced", "dictionary", "large", "view", "empty between", "one by one")
ODD_NAMES = (
    "select", "ORDER", "group by", 'say "hi"', "it's", "back`tick", "semi;colon", "per%cent", "percent %s", "do$1llar",
    "Ünïcødé", "東京", "😀", "1st", "_private", "rowid", "ctid", "oid", "c0", "t0", "value", "a.b", "a/b", "a\\b",
    "{x}", "tab\there", "line\nend", " lead", "trail ", "null", "true", "x" * 63,
)  # fmt: skip


class TypeChecks(Checks):
    """What a connector does to types and names."""

    # -- C8: types ------------------------------------------------------------------------------------------------

    @certifies("C8")
    def test_every_case_is_read_as_the_case_file_says(
        self, harness: Harness, memory: MemoryHarness, variant: str, tmp_path: Path
    ) -> None:
        """Each native type is called what the file says, and each value arrives as the file says.

        Odd values stop the run by the name of their column.
        """
        if "source" not in self.roles():
            inapplicable("it is no source")
        source = End(self.connector, harness, case_file(self.connector, variant), variant)
        found = run_matrix(source, End("memory", memory, _Everything((), ())), tmp_path / "store")
        assert [] == [f"{cell.case}: {problem}" for cell in found for problem in cell.problems]
        assert found, "the case file has no case"

    @certifies("C8")
    @pytest.mark.parametrize("type_", EDGES)
    def test_every_canonical_type_is_stored_or_refused(self, target: Route, type_: str) -> None:
        """The values at the edges of a type arrive exactly.

        One that the sink cannot hold stops the load by the name of its column; a type that is lossy or refused stops
        the plan.
        """
        texts = EDGES[type_]
        if self._stored(target, type_, texts):
            return
        for number, text in enumerate(texts):  # one of them cannot be held: each on its own
            self._stored(target, type_, [text], f"u{number}")

    @certifies("C8")
    @pytest.mark.parametrize("form", FORMS)
    def test_every_form_of_an_arrow_array(self, target: Route, form: str) -> None:
        """Sliced arrays, dictionaries, large and view types, empty batches and batches of one row.

        They hold the same values as plain ones.
        """
        types = {"id": "int32", "at": "timestamptz"} | {f"c{n}": type_ for n, type_ in enumerate(_PLAIN)}
        count = 29
        arrays = [pa.array(range(count), pa.int32()), pa.array(range(count)).cast(pa.timestamp("us", "UTC"))]
        for type_ in _PLAIN:
            texts = [text for text in EDGES[type_] if text not in _NOT_EVERYWHERE]
            picked = [None if n % 5 == 0 else texts[n % len(texts)] for n in range(count)]
            arrays.append(_array(type_, picked))
        whole = pa.RecordBatch.from_arrays(arrays, list(types))
        self._memory(target).place.put("t", types, _formed(whole, form), ["id"])
        for write, settings in WRITES.items():
            if self.described().supports(Capability(f"write.{write}")).level != "full":
                continue
            target.table = f"t_{write}"
            target.source.place.tables[target.table] = target.source.place.tables["t"]  # type: ignore[attr-defined]
            record = target.load(**settings)
            assert (count, count) == (record.rows["extracted"], record.changes["inserted"])
            expected = self._memory(target).rows("t")
            assert values(expected, types) == values(target.sink.rows(target.table, list(types)), types)
            assert 0 == target.load(**settings).changes["inserted"]

    @certifies("C8")
    def test_a_lossy_column_must_be_acknowledged(self, target: Route, variant: str) -> None:
        """What the sink would alter stops the plan until the manifest names the column; then the record says so."""
        lossy = [
            name for name, stored in case_file(self.connector, variant).stores.items() if stored.fidelity == "lossy"
        ]
        if not lossy:
            inapplicable("it stores nothing with a loss")
        for number, name in enumerate(lossy):
            type_ = _NANOSECONDS.get(name)
            if type_ is None:
                continue
            columns = [Column("id", pa.int32(), native="int32"), Column("x", type_, native=name)]
            batch = pa.record_batch([pa.array([1], pa.int32()), pa.array([1_000_000_001]).cast(type_)], ["id", "x"])
            target.table = f"t{number}"
            self._memory(target).place.put(target.table, columns, [batch], ["id"])
            failure = target.refusal(write="replace")
            assert "x:" in failure["message"]
            assert "allow_lossy" in failure["remedy"]
            record = target.run(write="replace", columns={"allow_lossy": ["x"]}, proof="counts")
            assert record.failure is None, record.failure
            assert ["x"] == [change["column"] for change in record.value_changes]

    # -- C9: names ------------------------------------------------------------------------------------------------

    @certifies("C9")
    def test_columns_of_any_name_arrive_or_are_refused(self, target: Route) -> None:
        """Reserved words, quotes, unicode, blanks, digits in front.

        The column arrives under its own name with its values; a name that the sink cannot hold is refused by it.
        """
        if self._named(target, ODD_NAMES, "all"):
            return
        good = [name for name in ODD_NAMES if self._named(target, [name], f"n{ODD_NAMES.index(name)}")]
        assert len(good) > len(ODD_NAMES) / 2
        assert self._named(target, good, "together")

    @certifies("C9")
    @pytest.mark.parametrize("name", ["x" * 64, "ü" * 32, "x" * 200, "東" * 40])
    def test_long_names_are_never_cut(self, target: Route, name: str) -> None:
        """A name that is too long for the sink is refused; it never becomes another name, alone or beside its like."""
        self._named(target, [name], "alone")
        self._named(target, [name + "a", name + "b"], "both")

    @certifies("C9")
    def test_names_that_differ_only_in_case(self, target: Route) -> None:
        """They are two columns, or refused together."""
        self._named(target, ["Name", "NAME"], "case")

    @certifies("C9")
    def test_targets_of_any_name(self, target: Route) -> None:
        """A table name is kept as it is, or refused."""
        batch = pa.record_batch([pa.array([1, 2], pa.int32())], ["id"])
        kept = 0
        for name in ODD_NAMES:
            quoted = '"' + name.replace('"', '""') + '"'
            self._memory(target).place.put("t", {"id": "int32"}, [batch], ["id"])
            record = target.run(write="replace", target=quoted)
            if record.failure is None:
                kept += 1
                assert [1, 2] == sorted(int(row[0]) for row in target.sink.rows(name, ["id"])), name
            else:
                assert record.failure["category"] in ("schema", "config"), (name, record.failure)
        assert kept > len(ODD_NAMES) / 2

    @certifies("C9")
    @pytest.mark.parametrize("count", [1, 100, 1600])
    def test_many_columns(self, target: Route, count: int) -> None:
        """A table of 1,600 columns is moved exactly, or refused by name; one that has only a key is moved."""
        types = {f"c{n}": "int32" for n in range(count)}
        arrays = [pa.array([n, None if n else 1, n + 1], pa.int32()) for n in range(count)]
        self._memory(target).place.put("t", types, [pa.RecordBatch.from_arrays(arrays, list(types))], ["c0"])
        record = target.run(write="replace")
        if record.failure is not None:
            assert ("schema", count > 100) == (record.failure["category"], True), record.failure
            assert f"{count:,}" in record.failure["message"] or str(count) in record.failure["message"]
            return
        assert "proven" == record.proof["verdict"]
        expected = self._memory(target).rows("t")
        assert values(expected, types) == values(target.sink.rows("t", list(types)), types)
        assert 3 == target.load(write="replace").changes["unchanged"]

    # -- what the checks share ------------------------------------------------------------------------------------

    @pytest.fixture
    def target(self, tmp_path: Path, harness: Harness, memory: MemoryHarness) -> Route:
        """From memory to the connector."""
        if "sink" not in self.roles():
            inapplicable("it is no sink")
        return Route(tmp_path, memory, harness)

    def _memory(self, target: Route) -> MemoryHarness:
        assert isinstance(target.source, MemoryHarness)
        return target.source

    def _stored(self, target: Route, type_: str, texts: Sequence[str], table: str = "t") -> bool:
        """Load these values of one type. Whether they arrived; a refusal must name the column and leave no target."""
        types = {"id": "int32", "x": type_}
        ids = pa.array(range(len(texts) + 1), pa.int32())
        batch = pa.RecordBatch.from_arrays([ids, _array(type_, [*texts, None])], list(types))
        target.table = table
        self._memory(target).place.put(table, types, [batch], ["id"])
        record = target.run(write="replace")
        if record.failure is not None:
            assert record.failure["category"] in ("data", "schema"), record.failure
            assert " x" in record.failure["message"], record.failure
            assert target.raw() in (None, [])
            return False
        assert "proven" == record.proof["verdict"] or "not defined" in record.proof["reason"], record.proof
        expected = [(n, parse(type_, text)) for n, text in enumerate(texts)] + [(len(texts), None)]
        found = sorted(target.sink.rows(table, list(types)), key=lambda row: int(row[0]))
        assert expected == [(int(n), None if v is None else normal(type_, v)) for n, v in found]
        return True

    def _named(self, target: Route, names: Sequence[str], table: str) -> bool:
        """Load a table with these columns. Whether it was moved; a refusal must name one of them."""
        types = {"id": "int32"} | dict.fromkeys(names, "text")
        arrays = [pa.array([1, 2], pa.int32()), *(pa.array([f"{name}!", None]) for name in names)]
        target.table = table
        self._memory(target).place.put(table, types, [pa.RecordBatch.from_arrays(arrays, list(types))], ["id"])
        merges = self.described().supports(Capability.WRITE_MERGE).level == "full"
        settings: dict[str, Any] = {"write": "merge", "primary_key": ["id"]} if merges else {"write": "replace"}
        record = target.run(**settings)
        if record.failure is not None:
            assert record.failure["category"] in ("schema", "config"), record.failure
            assert any(name in record.failure["message"] or repr(name) in record.failure["message"] for name in names)
            assert target.raw() is None
            return False
        assert "proven" == record.proof["verdict"]
        assert list(types) == list(target.sink.types(table))[: len(types)]
        expected = [(1, *(f"{name}!" for name in names)), (2, *(None for _ in names))]
        assert expected == sorted((int(row[0]), *row[1:]) for row in target.sink.rows(table, list(types)))
        assert 0 == target.load(**settings).changes["inserted"]
        return True


_PLAIN = ("boolean", "int16", "int64", "float64", "decimal(12,2)", "text", "binary", "date", "timestamp", "timestamptz")


_NOT_EVERYWHERE = ("nan", "inf", "-inf", "-0.0", "a\0b")
"""Values that some system has no form for."""


_NANOSECONDS = {
    "time[ns]": pa.time64("ns"),
    "timestamp[ns]": pa.timestamp("ns"),
    "timestamptz[ns]": pa.timestamp("ns", "UTC"),
}


class _Everything(cases.Cases):
    """What memory stores: every canonical type, exactly."""

    def stored(self, canonical: str) -> cases.Stored:
        """The type itself."""
        return cases.Stored(canonical, "exact")


def _array(type_: str, texts: Sequence[str | None]) -> pa.Array:
    """Texts in the form of `texts.parse` as an Arrow array."""
    arrow, _ = parse_type(type_)
    if pa.types.is_binary(arrow):
        return pa.array([None if text is None else bytes.fromhex(text) for text in texts], arrow)
    if pa.types.is_temporal(arrow):
        plain = pa.int32() if pa.types.is_date32(arrow) else pa.int64()
        return pa.array([None if text is None else parse(type_, text) for text in texts], plain).cast(arrow)
    if pa.types.is_floating(arrow):
        return pa.array([None if text is None else float(text) for text in texts], pa.float64()).cast(arrow, safe=False)
    return pa.array(texts, pa.string()).cast(arrow)


def _formed(batch: pa.RecordBatch, form: str) -> list[pa.RecordBatch]:
    """The same rows in another form of Arrow arrays."""
    rows, empty = batch.num_rows, batch.slice(0, 0)
    if form == "sliced":
        padded = pa.Table.from_batches([batch.slice(0, 3), batch, batch.slice(0, 5)]).combine_chunks().to_batches()[0]
        edges = [0, 1, 8, 13, rows]
        return [padded.slice(3 + low, high - low) for low, high in pairwise(edges)]
    if form == "one by one":
        return [batch.slice(n, 1) for n in range(rows)]
    if form == "empty between":
        return [empty, batch.slice(0, 7), empty, empty, batch.slice(7), empty]
    columns = []
    for column in batch.columns:
        text, raw = pa.types.is_string(column.type), pa.types.is_binary(column.type)
        if form == "dictionary" and text:
            column = column.dictionary_encode()  # noqa: PLW2901 - the other form of the same column
        elif form == "large" and (text or raw):
            column = column.cast(pa.large_string() if text else pa.large_binary())  # noqa: PLW2901
        elif form == "view" and (text or raw):
            column = column.cast(pa.string_view() if text else pa.binary_view())  # noqa: PLW2901
        columns.append(column)
    return [pa.RecordBatch.from_arrays(columns, batch.schema.names)]


__all__ = ["EDGES", "ODD_NAMES", "TypeChecks", "dpone"]
