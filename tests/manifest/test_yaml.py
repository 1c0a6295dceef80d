"""YAML is read as YAML 1.2 says, without its traps, and written so that it reads back the same."""

from __future__ import annotations

import math
import resource
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpone.manifest.document import Document
from dpone.manifest.problems import ManifestError
from dpone.manifest.yaml import MAX_BYTES, parse, to_yaml


def read(text: str | bytes) -> Document:
    """Parse a text."""
    return parse(text if isinstance(text, bytes) else text.encode(), "x.yaml")


def refusal(text: str | bytes) -> tuple[str, int, int, str]:
    """Code, line, column and help of the first problem."""
    with pytest.raises(ManifestError) as caught:
        read(text)
    problem = caught.value.problems[0]
    return problem.code, problem.line, problem.column, problem.help


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("y", "y"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("2024-01-01", "2024-01-01"),
        ("=", "="),
        ("'5'", "5"),
        ('"true"', "true"),
        ("tRUE", "tRUE"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.inf", -math.inf),
        (".", "."),
        ("1.2.3", "1.2.3"),
        ("|\n    two\n    lines", "two\nlines\n"),
    ],
)
def test_scalars_are_those_of_the_core_schema_of_yaml_1_2(text: str, value: Any) -> None:
    """See https://yaml.org/spec/1.2.2/#103-core-schema for them."""
    found = read(f"a: {text}\n").data["a"]
    assert (type(value), value) == (type(found), found)


def test_keys_are_the_text_that_was_written() -> None:
    """A stream called 2024 or no keeps its name."""
    assert {"2024": 1, "no": 2, "null": 3, "1.50": 4} == read("2024: 1\nno: 2\nnull: 3\n1.50: 4\n").data


def test_positions_are_of_the_text() -> None:
    """Lines and columns count characters, after a byte order mark and with Windows line ends too."""
    document = read("\ufeffa:\r\n  - é: {b: 1}\r\n".encode())
    assert "x.yaml:2:9" == document.where(("a", 0, "é", "b"), key=True)
    assert "x.yaml:2:12" == document.where(("a", 0, "é", "b"))


def test_an_alias_has_the_position_of_its_anchor() -> None:
    """That is where the text to change stands."""
    document = read("a: &x {b: 1}\nc: *x\n")
    assert ({"b": 1}, "x.yaml:1:11") == (document.data["c"], document.where(("c", "b")))


@pytest.mark.parametrize(
    ("text", "code", "line", "column", "word"),
    [
        ("a: 1\nb: 2\na: 3\n", "DP111", 3, 1, "remove"),
        ("a: {b: 1, 'b': 2}\n", "DP111", 1, 11, "remove"),
        ("x: &x {b: 1}\na:\n  <<: *x\n", "DP112", 3, 3, "defaults"),
        ("a: !!python/object/apply:os.system [echo]\n", "DP112", 1, 4, "'!'"),
        ("a: !foo bar\n", "DP112", 1, 4, "'!'"),
        ("a: &x ! bar\n", "DP112", 1, 4, "'!'"),
        ("a: ! 'bar'\n", "DP112", 1, 4, "'!'"),
        ("a: ! [1]\n", "DP112", 1, 4, "'!'"),
        ("a: ! bar\n", "DP112", 1, 4, "'!'"),
        ("a: !!str 5\n", "DP112", 1, 4, "'!'"),
        ("a: !!binary aGk=\n", "DP112", 1, 4, "'!'"),
        ("!!map {a: 1}\n", "DP112", 1, 1, "'!'"),
        ("!!str a: 1\n", "DP112", 1, 1, "'!'"),
        ("? [a]", "DP102", 1, 3, "key: value"),
        ("[a]: 1\n", "DP102", 1, 1, "key: value"),
        ("a: 1\n\tb: 2\n", "DP109", 2, 1, "spaces"),
        ("a:\n\t- b\n", "DP109", 2, 1, "spaces"),
        ("a: b: c\n", "DP109", 1, 5, "quotes"),
        ("a: 'x\nb: 2\n", "DP109", 1, 4, "close"),
        ("a: [1, 2\nb: 3\n", "DP109", 2, 2, "bracket"),
        ("a:\n  b: 1\n c: 2\n", "DP109", 3, 2, "align"),
        ("a: *nothing\n", "DP109", 1, 4, "anchor"),
        ("a: &x 1\nb: &x 2\n", "DP109", 2, 4, "rename"),
        ("a: @x\n", "DP109", 1, 4, "quotes"),
        ("a: 1\n---\nb: 2\n", "DP109", 2, 1, "---"),
        ("a: &x [*x]\n", "DP112", 1, 4, "inside itself"),
        (b"a: \xff\n", "DP109", 1, 4, "UTF-8"),
        (b"a: 1\nb: caf\xe9\n", "DP109", 2, 7, "UTF-8"),
        ("a: x\x00y\n", "DP109", 1, 5, "remove"),
        ("a: " + "9" * 70 + "\n", "DP102", 1, 4, "quote"),
    ],
)  # fmt: skip
def test_traps_and_malformed_text_are_refused_in_place(
    text: str | bytes, code: str, line: int, column: int, word: str
) -> None:
    """Each with its position and what to do."""
    found = refusal(text)
    assert (code, line, column) == found[:3]
    assert word in found[3]


def test_utf_16_is_refused_by_name() -> None:
    """It would be read as garbage."""
    assert "save it as UTF-8" == refusal("a: 1".encode("utf-16"))[3]


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        BOMB.replace("[", "{k: [").replace("]", "]}"),
        "[" * 500_000,
        "{a: " * 200_000,
        "- " * 300_000 + "x",
        "".join(" " * i + "a:\n" for i in range(800)),
        "&a [" + "*a, " * 100_000 + "]",
        "[" + "x, " * 300_000 + "]",
    ],
    ids=["laughs", "mappings", "brackets", "braces", "dashes", "indents", "cycles", "many"],
)
def test_documents_that_unfold_are_refused_fast_and_in_bounded_memory(text: str) -> None:
    """A billion laughs, a deep nest and a cycle end in an error."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "DP112" == refusal(text)[0]
    assert 5 > time.process_time() - began
    assert 300_000 > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # kilobytes on Linux


def test_a_file_over_one_mebibyte_is_refused() -> None:
    """Before it is parsed."""
    assert "DP112" == refusal(b"#" * (MAX_BYTES + 1))[0]


def test_written_yaml_is_clean() -> None:
    """Short lists on one line, blocks with a blank line before them, quotes only where they are needed."""
    manifest = {
        "version": 1,
        "pipeline": "shop",
        "source": "${env:SHOP_DB}",
        "sink": {"connection": "warehouse", "schema": "raw"},
        "streams": {"public.orders": {"primary_key": ["id"], "filter": "a: b"}, "public.plain": None},
    }
    assert to_yaml(manifest) == (
        "version: 1\n"
        "pipeline: shop\n"
        "source: ${env:SHOP_DB}\n"
        "\n"
        "sink:\n"
        "  connection: warehouse\n"
        "  schema: raw\n"
        "\n"
        "streams:\n"
        "  public.orders:\n"
        "    primary_key: [id]\n"
        "    filter: 'a: b'\n"
        "  public.plain:\n"
    )


_TRICKY = [
    "no",
    "0o17",
    "1e3",
    "12:30",
    "null",
    "~",
    "",
    "<<",
    "=",
    "- a",
    "a: b",
    "#",
    "é注\u2028",
    "\x85",
    "1_0",
    "+1",
]
_TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(_TRICKY)
_SCALAR = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | _TEXT
_KEY = _TEXT.filter(bool)


@settings(max_examples=150)
@given(st.dictionaries(_KEY, st.recursive(_SCALAR, lambda x: st.lists(x) | st.dictionaries(_KEY, x), max_leaves=8)))
def test_written_yaml_reads_back_equal(data: dict[str, Any]) -> None:
    """Whatever the texts look like."""
    found = read(to_yaml(data)).data
    assert (data, repr(data)) == (found, repr(found))


def test_what_yaml_cannot_hold_is_not_written() -> None:
    """A value of another type is refused by its key path."""
    with pytest.raises(ManifestError) as caught:
        to_yaml({"a": {"b": [1, object()]}})
    assert "a.b[1]" == caught.value.where
