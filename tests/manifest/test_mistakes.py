"""Every mistake is refused where it stands, with what was probably meant, and without a secret in the message."""

from __future__ import annotations

import contextlib
import random
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpone.manifest.load import Manifest, ManifestError, Problem, load_manifest, render_problems

SEED = 20_240_607
SECRET = "s3cr3t-Pa55w0rd"

WHOLE = f"""\
version: 1
pipeline: shop
source: postgres://reader:{SECRET}@db.example/shop?sslmode=require
sink:
  connection: warehouse
  schema: raw_shop
connections:
  warehouse: duckdb:///warehouse.duckdb
  archive:
    connector: postgres
    host: archive.example
    port: 5433
    database: archive
    user: loader
    password: {SECRET}
    sslmode: verify-full
    create_schema: true
  exports: {{connector: files, path: exports, format: csv, compression: gzip, header: true}}
defaults:
  write: merge
  proof: counts
  slices: {{rows: 500000}}
  tags: [nightly]
streams:
  public.orders:
    primary_key: [id]
    cursor: updated_at
    target: raw.orders
  public.order_items:
    primary_key: order_id
    cursor: {{column: changed_at, nulls: load}}
    columns:
      exclude: [internal_note]
      cast: {{total: 'decimal(18,2)', placed: timestamptz}}
  public.customers:
    write: replace
    allow_empty: true
    proof: digest
    filter: "country <> 'NL'"
    columns: {{include: [id, name]}}
    slices:
      rows: 1000
  public.events_*:
    write: append
    tags: [big, slow]
  public.plain:
"""
KEYS = frozenset({
    "version", "pipeline", "source", "sink", "connections", "defaults", "streams", "connection", "schema", "connector",
    "host", "port", "database", "user", "password", "sslmode", "create_schema", "path", "format", "compression",
    "header", "write", "proof", "slices", "rows", "tags", "primary_key", "cursor", "target", "column", "nulls",
    "columns", "exclude", "cast", "include", "filter", "allow_empty",
})  # fmt: skip
CHOICES = {
    "write": ["merge", "replace", "append"],
    "proof": ["counts", "digest"],
    "nulls": ["load"],
    "sslmode": ["verify-full"],
    "format": ["csv"],
    "compression": ["gzip"],
    "connector": ["postgres", "files"],
}
WRONG = {  # key: values that are of a wrong type, or out of range
    "version": ["2", "one", "[1]", "true"],
    "pipeline": ["5", "[shop]", "a|b", "{a: b}", "''"],
    "source": ["5", "[a]", "true", "no.such/name", "nosuch://x"],
    "connections": ["5", "[a]", "text"],
    "defaults": ["5", "[merge]", "merge"],
    "streams": ["5", "[a]", "text", "{}"],
    "primary_key": ["5", "{a: b}", "[]", "''", "true"],
    "cursor": ["5", "[a]", "''", "1.5"],
    "rows": ["0", "-1", "many", "1.5", "'5'", "true"],
    "tags": ["5", "big", "{a: b}"],
    "target": ["5", "[a]", "''"],
    "filter": ["5", "[a]", "''"],
    "cast": ["5", "[a]", "text"],
    "port": ["'5433'", "eighty", "70000", "[1]"],
    "create_schema": ["yes", "on", "1", "'true'"],
    "allow_empty": ["yes", "1", "[true]"],
    "host": ["5", "[a]", "''"],
    "schema": ["5", "[a]", "''"],
    "header": ["no", "0"],
}

Case = tuple[str, int, int, str]
"""The text, the line and the column of the mistake, and the suggestion (empty: none expected)."""


def load(text: str | bytes) -> Manifest:
    """Load a text as a manifest."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "dpone.yaml")
        file.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
        return load_manifest(file)


def refused(text: str | bytes) -> ManifestError:
    """The error that a text is refused with; everything it can say of itself is searched for the secret."""
    with pytest.raises(ManifestError) as caught:
        load(text)
    said = f"{caught.value}{caught.value.render()}{caught.value.as_dict()}{caught.value.problems}"
    assert SECRET not in said
    return caught.value


def words(pattern: str) -> Iterator[tuple[int, int, str]]:
    """Line (from 0), column and text of the first group wherever a pattern matches."""
    for number, line in enumerate(WHOLE.splitlines()):
        for match in re.finditer(pattern, line):
            yield number, match.start(1), match[1]


def replaced(number: int, column: int, old: str, new: str) -> str:
    """The manifest with one word of one line replaced."""
    lines = WHOLE.splitlines()
    line = lines[number]
    lines[number] = line[:column] + new + line[column + len(old) :]
    return "\n".join(lines) + "\n"


def misspelt(word: str, source: random.Random) -> list[str]:
    """A letter dropped (each), two swapped, one doubled, one changed, a capital, a plural."""
    index, swap = source.randrange(len(word)), source.randrange(len(word) - 1)
    other = source.choice("abcdefghijklmnopqrstuvwxyz")
    found = [word[:i] + word[i + 1 :] for i in range(len(word))]
    found += [
        word[:swap] + word[swap + 1] + word[swap] + word[swap + 2 :],
        word[:index] + word[index] + word[index:],
        word[:index] + other + word[index + 1 :],
        word.capitalize(),
        word.replace("_", "-"),
        word + "s",
    ]
    return sorted({text for text in found if text != word and text and text not in KEYS})


def spelling_cases() -> list[Case]:
    """Manifests with one misspelt word."""
    source = random.Random(SEED)
    cases = []
    for number, column, key in words(r"(?:^\s*|[{,] ?)([a-z_]+):(?= |$)"):
        if key in KEYS:
            cases += [(replaced(number, column, key, bad), number, column, key) for bad in misspelt(key, source)]
    for key, values in CHOICES.items():
        for value in values:
            for number, column, found in words(rf"\b{key}: ({value})\b"):
                others = [v for vs in CHOICES.values() for v in vs]
                bad_values = [bad for bad in misspelt(found, source) if bad not in others]
                cases += [(replaced(number, column, found, bad), number, column, found) for bad in bad_values]
    for number, column, name in words(r"\b(timestamptz)\b"):
        cases += [(replaced(number, column, name, bad), number, column, name) for bad in misspelt(name, source)]
    for number, column, scheme in words(r" (postgres|duckdb)://"):
        bad_schemes = [bad for bad in misspelt(scheme, source) if bad not in {"Postgres", "Duckdb"}]
        cases += [(replaced(number, column, scheme, bad), number, column, f"{scheme}://") for bad in bad_schemes]
    for number, column, name in words(r"connection: (warehouse)"):
        cases += [(replaced(number, column, name, bad), number, column, name) for bad in misspelt(name, source)]
    return cases


def other_cases() -> list[Case]:
    """Manifests with an unknown key, a wrong type or a value out of range."""
    cases: list[Case] = []
    for number, column, key in words(r"^(\s*)[a-z_.*]+:"):  # an unknown key before every line of a mapping
        lines = WHOLE.splitlines()
        if key in ("", "    ") or number > 23:
            lines.insert(number, f"{key}zzqx_{number}: 1")
            inside_names = key == "  " and (number > 23 or 6 < number < 19)  # there a key is a name
            if not inside_names:
                cases.append(("\n".join(lines), number, len(key), ""))
        del column
    for key, values in WRONG.items():
        for number, column, found in words(rf"\b{key}: (\S.*)"):
            text = found.rstrip("}") if found.count("}") > found.count("{") else found
            if "," in text and not text.startswith(("{", "[")):
                text = text[: text.index(",")]
            if key == "source" or (key, found) != ("columns", ""):
                cases += [(replaced(number, column, text, value), number, column, "") for value in values]
    return cases


def test_the_whole_manifest_is_valid() -> None:
    """The text that the mistakes are made in has none itself."""
    assert 5 == len(load(WHOLE).streams)


def test_misspelt_words_are_refused_where_they_stand_with_the_right_suggestion() -> None:
    """Keys, choices, types, schemes, names: every case is refused in place, nine in ten suggest the right word."""
    cases = spelling_cases()
    wrong = []
    for text, line, column, meant in cases:
        try:
            problem = at(refused(text), line, column)
        except pytest.fail.Exception:
            pytest.fail(f"seed {SEED}: accepted: {text.splitlines()[line]}")
        assert problem is not None, (SEED, text.splitlines()[line])
        if f"'{meant}'" not in problem.help:
            wrong.append((text.splitlines()[line], meant, problem.help))
    rate = 1 - len(wrong) / len(cases)
    print(f"seed {SEED}: {len(cases)} misspelt manifests, {rate:.1%} with the right suggestion; not: {wrong}")  # noqa: T201
    assert len(cases) >= 200
    assert rate >= 0.9, wrong


def test_other_mistakes_are_refused_where_they_stand() -> None:
    """Unknown keys at every depth, wrong types and values out of range: all refused at the right line and column."""
    cases = other_cases()
    for text, line, column, _ in cases:
        error = refused(text)
        found = [(problem.line - 1, problem.column - 1) for problem in error.problems]
        assert (line, column) in found, (text.splitlines()[line], error.render())
    print(f"{len(cases)} manifests")  # noqa: T201
    assert len(cases) >= 80


def test_several_mistakes_are_reported_at_once_in_the_order_of_the_file() -> None:
    """One pass shows every problem of the file."""
    text = WHOLE.replace("proof: counts", "prof: counts").replace("write: append", "write: apend")
    text = text.replace("port: 5433", "port: x").replace("pipeline: shop\n", "")
    error = refused(text)
    assert ["DP106", "DP102", "DP101", "DP102"] == [problem.code for problem in error.problems]
    assert "the manifest has no 'pipeline' (and 3 more errors)" == error.message
    assert error.as_dict()["problems"][2]["key_path"] == "defaults.prof"


def test_a_misspelt_required_key_is_one_problem() -> None:
    """The key that seems to be missing is the misspelt one."""
    for key in ("source", "sink", "pipeline", "version", "streams"):
        error = refused(WHOLE.replace(f"{key}:", f"{key}x:", 1))
        assert [f"did you mean '{key}'?"] == [problem.help for problem in error.problems], key


def test_a_decimal_without_quotes_inside_braces_is_explained() -> None:
    """The comma ends the value there; the help says so."""
    error = refused(WHOLE.replace("'decimal(18,2)'", "decimal(18,2)"))
    assert "put it into quotes: inside { } the comma would end it" == error.remedy


def test_a_problem_is_drawn_with_its_line_and_a_caret() -> None:
    """The picture is that of rustc: code, place, line, underline, help."""
    error = refused(WHOLE.replace("cursor: updated_at", "cursr: updated_at"))
    path = error.problems[0].path
    assert error.render() == (
        "error[DP101]: unknown key 'cursr'\n"
        f"  --> {path}:27:5\n"
        "   |\n"
        " 27|     cursr: updated_at\n"
        "   |     ^^^^^\n"
        "   = help: did you mean 'cursor'?"
    )


def test_the_caret_stays_under_its_word_when_a_password_before_it_is_masked() -> None:
    """Masking shortens the line; the underline moves along, the reported column does not."""
    text = WHOLE.replace(
        "  archive:\n", "  other: {connector: postgres, password: " + SECRET + ", prot: 5}\n  archive:\n"
    )
    problem = next(problem for problem in refused(text).problems if problem.found == "prot")
    assert "  other: {connector: postgres, password: ***, prot: ***}" == problem.excerpt
    assert "prot" == problem.excerpt[problem.caret : problem.caret + problem.width]
    assert "prot" == text.splitlines()[problem.line - 1][problem.column - 1 :][:4]


def test_a_wide_character_takes_two_columns_of_the_drawing() -> None:
    """The caret stands under the word on a terminal, where these letters are two cells wide."""
    problem = next(problem for problem in refused("version: 1\n'注文': 1\n").problems if problem.code == "DP101")
    assert ["   |", "  2| '注文': 1", "   | ^^^^^^"] == render_problems([problem]).splitlines()[2:5]


def test_terminal_escapes_in_keys_are_not_printed() -> None:
    """A key cannot move the cursor of the reader's terminal."""
    error = refused('version: 1\n"\\e[2Jx": 1\n')
    assert "\x1b" not in error.render()


def at(error: ManifestError, line: int, column: int) -> Problem | None:
    """The problem at a position counted from 0."""
    return next((p for p in error.problems if (p.line, p.column) == (line + 1, column + 1)), None)


def says_no_secret(text: str | bytes) -> None:
    """Load, and search whatever comes of it for the secret."""
    try:
        said = repr(load(text))
    except ManifestError as error:
        said = f"{error}{error.render()}{error.as_dict()}{error.problems}"
    assert SECRET not in said


@pytest.mark.parametrize("old", [f":{SECRET}", f"{SECRET}@", "postgres://", "?sslmode=require"])
@pytest.mark.parametrize("new", ["", "{", "#", "&", "/", "@", ":", " ", "?", "[", "${", "'", "%zz", "://"])
def test_a_damaged_url_never_shows_its_password(old: str, new: str) -> None:
    """When it is refused, wherever the password has come to stand."""
    changed = old.strip(":@").join([new, ""] if old[0] == ":" else ["", new]) if SECRET in old else new
    text = WHOLE.replace(old, changed, 1)
    with contextlib.suppress(pytest.fail.Exception):  # some are URLs still, of another user
        refused(text)


def test_a_damaged_manifest_never_shows_its_secret() -> None:
    """With one or two characters lost, added or doubled anywhere, nothing that is said of it holds the password."""
    source = random.Random(SEED)
    for _ in range(1500):
        text = WHOLE
        for _ in range(source.choice([1, 1, 2])):
            in_url, in_settings = (match.start() for match in re.finditer(SECRET, text))
            near = [in_settings + offset for offset in (-3, -2, -1, len(SECRET), len(SECRET) + 1)]
            index = source.choice(near) if source.random() < 0.1 else source.randrange(len(text))
            whole = in_settings <= index < in_settings + len(SECRET)
            if whole or in_url - 8 < index <= in_url + len(SECRET) + 1:  # a URL with its parts moved is another URL
                continue
            insert = source.choice(
                ["", "", "'", '"', "{", "[", ":", " ", "\n", "\t", "#", "&", "*", "!", "%", "- ", "@"]
            )
            text = text[:index] + insert + text[index + source.choice([0, 1]) :]
        says_no_secret(text)


def test_an_escaped_reference_anywhere_gives_a_manifest_or_a_manifest_error() -> None:
    """It is the literal text, which fits or does not."""
    lines = WHOLE.splitlines()
    for number, line in enumerate(lines):
        for value in ("$${", "$${env:X}", "'x$${y'", '["$${x"]'):
            says_no_secret("\n".join([*lines[:number], f"{line.partition(':')[0]}: {value}", *lines[number + 1 :]]))


@settings(max_examples=300)
@example("? 0")
@given(st.text() | st.binary() | st.text(alphabet="ab:{}[]-#&*!|>'\"%@`,? \n\t<$\x00\u2028é注"))
def test_any_text_gives_a_manifest_or_a_manifest_error(text: str | bytes) -> None:
    """No input makes anything else happen."""
    says_no_secret(text)


@settings(max_examples=150)
@given(st.data())
def test_any_value_anywhere_gives_a_manifest_or_a_manifest_error(data: st.DataObject) -> None:
    """A known key may hold anything."""
    lines = WHOLE.splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    value = data.draw(
        st.sampled_from(
            [
                "",
                "~",
                "[]",
                "{}",
                "0",
                "-1",
                "1e999",
                ".nan",
                "'${'",
                "$${",
                "'$${env:X}'",
                "${env:X}",
                "[[1]]",
                "{a: {b: c}}",
                "1" * 70,
            ]
        )
        | st.text(alphabet="ab1:{}[]'\"$@/ ", max_size=12)
    )
    lines[number] = lines[number].partition(":")[0] + ": " + value
    says_no_secret("\n".join(lines))
