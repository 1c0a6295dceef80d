"""A manifest as frozen values: streams with defaults applied, endpoints, positions, references, secrets."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from dpone.errors import ConfigError
from dpone.manifest.load import Manifest, ManifestError, StreamConfig, load_manifest, manifest_from_dict
from dpone.manifest.secrets import mask
from dpone.sdk import Connector, registry

PASSWORD = "p@ss/w:rd% #1"

TEXT = """\
version: 1
pipeline: shop
source: shop
sink:
  connection: warehouse
  schema: raw_shop
connections:
  shop: postgres://reader:${env:SHOP_PASSWORD}@db.example:${env:SHOP_PORT}/shop
  warehouse: {connector: duckdb, path: "${env:FOLDER}/w.duckdb"}
defaults:
  write: merge
  proof: digest
  tags: [nightly]
streams:
  public.orders:
    primary_key: [id, line]
    cursor: {column: updated_at, nulls: load}
    columns: {exclude: [note], cast: {total: text}}
    filter: "region = '${env:REGION}'"
  public.events_*:
    write: append
    proof: none
    cursor: id
    tags: [big, slow]
    slices: {rows: 5}
  public.countries:
    primary_key: code
    target: ref.countries
"""
VARIABLES = {"SHOP_PASSWORD": PASSWORD, "SHOP_PORT": "5433", "FOLDER": "/data", "REGION": "North-East"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """TEXT, with its variables set."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    return write(folder, TEXT)


def write(folder: Path, text: str, name: str = "dpone.yaml") -> Manifest:
    """Load a text as a file."""
    (folder / name).write_text(text, encoding="utf-8")
    return load_manifest(name)


def base(**changes: Any) -> dict[str, Any]:
    """A small manifest as plain values."""
    small = {"version": 1, "pipeline": "p", "source": "sqlite:///a.db", "sink": "duckdb:///b.duckdb"}
    return small | {"streams": {"s": None}} | changes


def problem(data: dict[str, Any] | None = None, **changes: Any) -> tuple[str, str, str]:
    """Code, message and help of the one problem."""
    with pytest.raises(ManifestError) as caught:
        manifest_from_dict(data or base(**changes))
    assert 1 == len(caught.value.problems)
    return caught.value.code, caught.value.message, caught.value.remedy


def test_streams_have_the_defaults_applied(shop: Manifest) -> None:
    """A stream's own value wins; strings and lists of keys are the same; absent means the plain default."""
    orders, events, countries = shop.streams
    assert orders == StreamConfig(
        name="public.orders",
        primary_key=("id", "line"),
        cursor="updated_at",
        null_cursor="load",
        write="merge",
        exclude=("note",),
        casts={"total": "text"},
        filter="region = 'North-East'",
        proof="digest",
        tags=("nightly",),
    )
    assert events == StreamConfig(
        name="public.events_*",
        cursor="id",
        write="append",
        proof="none",
        slice_rows=5,
        tags=("big", "slow"),
        is_glob=True,
    )
    assert countries == StreamConfig(
        name="public.countries",
        primary_key=("code",),
        write="merge",
        target="ref.countries",
        proof="digest",
        tags=("nightly",),
    )


def test_without_defaults_a_stream_says_nothing_of_write() -> None:
    """The planner chooses then."""
    stream = manifest_from_dict(base()).streams[0]
    assert StreamConfig(name="s", proof="counts", slice_rows=1_000_000) == stream


def test_positions_of_settings(shop: Manifest) -> None:
    """Of the key in the stream, in the defaults, or of the stream itself."""
    orders = shop.streams[0]
    assert "dpone.yaml:15:3" == orders.at()
    assert "dpone.yaml:17:5" == orders.at("cursor")
    assert "dpone.yaml:17:34" == orders.at("cursor", "nulls")
    assert "dpone.yaml:18:39" == orders.at("columns", "cast", "total")
    assert "dpone.yaml:16:23" == orders.at("primary_key", 1)
    assert "dpone.yaml:11:3" == orders.at("write")
    assert "dpone.yaml:15:3" == orders.at("target")
    assert "streams.s" == manifest_from_dict(base()).streams[0].at("write")


def test_values_are_frozen(shop: Manifest) -> None:
    """Nothing changes after the check."""
    with pytest.raises(FrozenInstanceError):
        shop.pipeline = "x"  # type: ignore[misc]


def test_the_digest_of_the_manifest_is_that_of_its_bytes(shop: Manifest) -> None:
    """For the record: a comment changes it, the variables do not."""
    again = load_manifest("dpone.yaml")
    assert shop.sha256 == again.sha256
    assert 64 == len(shop.sha256)
    assert shop.sha256 != write(Path(), TEXT + "# x\n").sha256


def test_endpoints_resolve_their_references_when_asked(shop: Manifest) -> None:
    """A password with any character arrives as it is, a port becomes a number."""
    config = shop.source.config()
    assert ("db.example", 5433, PASSWORD) == (config.host, config.port, config.password.get_secret_value())
    assert "/data/w.duckdb" == shop.sink.config().path
    assert ("shop", "postgres", "public") == (shop.source.name, shop.source.connector.name, shop.source.schema)
    assert ("warehouse", "duckdb", "raw_shop") == (shop.sink.name, shop.sink.connector.name, shop.sink.schema)
    assert "other" == shop.sink.with_schema("other").schema
    assert "/data/w.duckdb" == shop.sink.with_schema("other").config().path


def test_outputs_keep_references_and_mask_passwords(shop: Manifest) -> None:
    """In `display` and in every repr."""
    shop.source.config()
    assert "postgres://reader:${env:SHOP_PASSWORD}@db.example:${env:SHOP_PORT}/shop" == shop.source.display
    assert "duckdb(path=${env:FOLDER}/w.duckdb)" == shop.sink.display
    assert ("dpone.yaml:8:9", "dpone.yaml:9:3") == (shop.source.where, shop.sink.where)
    for value in VARIABLES.values():
        assert value not in repr(shop)
    literal = manifest_from_dict(base(sink="postgres://u:hunter2@h/d")).sink
    assert "postgres://u:***@h/d" == literal.display


def test_redact_takes_out_what_was_resolved(shop: Manifest) -> None:
    """As it is and percent-encoded, but not out of the middle of a number."""
    shop.source.config()
    assert "a ${env:SHOP_PASSWORD} b" == shop.redact(f"a {PASSWORD} b")
    assert "//u:${env:SHOP_PASSWORD}@" == shop.redact("//u:p%40ss%2Fw%3Ard%25%20%231@")
    assert "port ${env:SHOP_PORT}, 154331 rows" == shop.redact("port 5433, 154331 rows")
    assert "region = '${env:REGION}'" == shop.redact(shop.streams[0].filter)


@pytest.mark.parametrize(
    "sink",
    [
        "postgres://u:hunter2%40@h/d",
        {"connector": "postgres", "host": "h", "user": "u", "database": "d", "password": "hunter2@"},
        "${env:SINK}",
    ],
)
def test_literal_passwords_are_redacted_too(sink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a URL, from settings, and from a URL behind a reference."""
    monkeypatch.setenv("SINK", "postgres://u:hunter2%40@h/d")
    manifest = manifest_from_dict(base(sink=sink))
    manifest.sink.config()
    assert "hunter2" not in manifest.redact("server says hunter2@ is wrong")


def test_names_from_references_are_not_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline, a schema or a table is shown in every record anyway."""
    monkeypatch.setenv("NAME", "shop")
    manifest = manifest_from_dict(base(pipeline="${env:NAME}", streams={"s": {"target": "${env:NAME}"}}))
    assert ("shop", "shop") == (manifest.pipeline, manifest.streams[0].target)
    assert "shop" == manifest.redact("shop")


def test_an_undefined_reference_of_a_connection_waits_until_it_is_used(folder: Path) -> None:
    """The manifest can be checked without its secrets; the connection cannot be made, and the error has the place."""
    text = TEXT.replace("'${env:REGION}'", "'EU'")
    manifest = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        manifest.source.config()
    assert ("DP107", "dpone.yaml:8:9") == (caught.value.code, caught.value.where)
    with pytest.raises(ConfigError) as caught:
        manifest.sink.config()
    assert "dpone.yaml:9:40" == caught.value.where


def test_a_wrong_value_behind_a_reference_is_refused_without_showing_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the reference."""
    monkeypatch.setenv("PORT", "not-a-port")
    sink = "{connector: postgres, host: h, database: d, user: u, port: '${env:PORT}'}"
    manifest = write(
        folder,
        TEXT.split("sink:", maxsplit=1)[0] + f"sink: {sink}\nconnections: {{shop: 'sqlite:///x'}}\nstreams: {{a: }}\n",
    )
    with pytest.raises(ManifestError) as caught:
        manifest.sink.config()
    assert "dpone.yaml:4:66" == caught.value.where
    assert "${env:PORT}" in caught.value.message
    assert "not-a-port" not in caught.value.render() + str(caught.value.as_dict())


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:hunter2@h:port/d",
        "postgres://u:hunter2@h/d?password=hunter2",
        "postgres://u:hunter2@h/d?sslmode=x",
        "postgres://u:hunter2@[h/d",
        "postgres://u:hun/ter2@h/d",
        "duckdb://u:hunter2@[x",
        "u:hunter2@h",
    ],
)
def test_a_wrong_url_is_refused_without_showing_its_password(folder: Path, url: str) -> None:
    """Whatever part of it is wrong."""
    with pytest.raises(ManifestError) as caught:
        write(folder, f"version: 1\npipeline: p\nsource: {url}\nsink: duckdb:///x\nstreams: {{a: }}\n")
    assert "dpone.yaml:3:9" == caught.value.where
    assert "ter2" not in caught.value.render() + str(caught.value.as_dict())


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgres://u:secret@h/d", "postgres://u:***@h/d"),
        ("postgres://u:p@ss/wo?rd@h/d", "postgres://u:***@h/d"),
        ("postgres://u:${env:PW}@h/d", "postgres://u:${env:PW}@h/d"),
        ("postgres://${env:U}:pw@h/d", "postgres://${env:U}:***@h/d"),
        ("postgres://u:x${env:PW}@h/d", "postgres://u:***@h/d"),
        ("postgres://u@h/d?password=secret&x=1", "postgres://u@h/d?password=***&x=1"),
        ("duckdb:///x.duckdb", "duckdb:///x.duckdb"),
        ("u:secret@h", "u:***@h"),
    ],
)
def test_masking_urls(text: str, masked: str) -> None:
    """References stay."""
    assert masked == mask(text)


def test_connections_from_beside_the_manifest_and_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest's own come before connections.yaml, the environment before both; paths start at the manifest."""
    text = "version: 1\npipeline: p\nsource: shop\nsink: {connection: my-lake, schema: x}\nstreams: {a: }\n"
    (folder / "connections.yaml").write_text("shop: sqlite:///shared.db\nmy-lake: duckdb:///shared.duckdb\nbroken: 5\n")
    manifest = write(folder, text)
    assert (str(folder / "shared.db"), "connections.yaml:1:7") == (manifest.source.config().path, manifest.source.where)
    manifest = write(folder, text + "connections: {shop: 'sqlite:///own.db'}\n")
    places = [manifest.source.config().path, manifest.sink.config().path]
    assert [str(folder / "own.db"), str(folder / "shared.duckdb")] == places
    monkeypatch.setenv("DPONE_CONNECTION_MY_LAKE", "duckdb:///environment.duckdb")
    manifest = write(folder, text)
    assert str(folder / "environment.duckdb") == manifest.sink.config().path
    assert ("my-lake", "x", "${env:DPONE_CONNECTION_MY_LAKE}") == (
        manifest.sink.name,
        manifest.sink.schema,
        manifest.sink.display,
    )
    assert "DPONE_CONNECTION_MY_LAKE" == manifest.sink.where


def test_a_mistake_in_connections_yaml_has_its_position_there(folder: Path) -> None:
    """With the same suggestions."""
    (folder / "connections.yaml").write_text("shop:\n  connector: sqlite\n  pth: shop.db\n")
    with pytest.raises(ManifestError) as caught:
        write(folder, "version: 1\npipeline: p\nsource: shop\nsink: duckdb:///x\nstreams: {a: }\n")
    assert ("connections.yaml:3:3", "did you mean 'path'?") == (caught.value.where, caught.value.remedy)


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("- a\n", "DP102", "connections.yaml:1:1"),
        ("a: b: c\n", "DP109", "connections.yaml:1:5"),
        ("shop: ${env:}\n", "DP107", "connections.yaml:1:7"),
        ("shop:\n", "DP102", "connections.yaml:1:1"),
        ("# nothing\n", "DP104", "dpone.yaml:3:9"),
    ],
)
def test_a_connections_file_that_is_not_one(folder: Path, text: str, code: str, where: str) -> None:
    """Is refused in place; an empty one defines nothing."""
    (folder / "connections.yaml").write_text(text)
    with pytest.raises(ManifestError) as caught:
        write(folder, "version: 1\npipeline: p\nsource: shop\nsink: duckdb:///x\nstreams: {a: }\n")
    assert (code, where) == (caught.value.problems[0].code, caught.value.problems[0].where)


def test_the_value_of_a_reference_is_not_shown_when_it_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been meant to be a URL."""
    monkeypatch.setenv("SHOP", "h.example/hunter2")
    for source in ("${env:SHOP}", {"connection": "${env:SHOP}"}):
        found = problem(source=source)
        assert ("DP104", "there is no connection '${env:SHOP}'") == found[:2]
        assert "hunter2" not in found[2].lower()


def test_variables_from_dotenv(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment comes first; what .env says never enters it."""
    monkeypatch.setenv("A", "environment")
    (folder / ".env").write_text(
        '# comment\nA=file\nexport B = plain text # comment\nC=\'single # $x\'\nD="two\\nlines \\"q\\""\nE=\nF=a#b\n'
        "G='x'\n"
        'H="really\ntwo"\r\n'
    )
    references = " ".join(f"${{env:{name}}}" for name in "ABCDEFGH")
    manifest = write(folder, TEXT.replace("region = '${env:REGION}'", references))
    assert manifest.streams[0].filter == (
        'environment plain text single # $x two\nlines "q"  a#b x really\ntwo'
    )  # fmt: skip
    assert "B" not in os.environ


def test_a_malformed_dotenv_names_the_line_and_not_its_text(folder: Path) -> None:
    """It may hold a secret."""
    (folder / ".env").write_text("A=1\nsecret stuff\n")
    with pytest.raises(ManifestError) as caught:
        write(folder, TEXT)
    assert ".env:2" in caught.value.render()
    assert "stuff" not in caught.value.render()


def test_references_to_files(folder: Path) -> None:
    """Relative to the manifest; one line break at the end is not part of the value."""
    (folder / "secret").write_text("from a file\n\n")
    assert (
        "from a file\n" == write(folder, TEXT.replace("region = '${env:REGION}'", "${file:secret}")).streams[0].filter
    )
    for content, word in ((None, "No such file"), (b"\xff", "UTF-8"), (b"x" * 70_000, "64 KiB")):
        (folder / "secret").unlink()
        if content is not None:
            (folder / "secret").write_bytes(content)
        with pytest.raises(ManifestError) as caught:
            write(folder, TEXT.replace("region = '${env:REGION}'", "${file:secret}"))
        assert word in caught.value.message
        assert "dpone.yaml:19:13" == caught.value.where
        (folder / "secret").touch()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("${env:A", "close it"),
        ("${NAME}", "${env:NAME}"),
        ("${evn:NAME}", "did you mean 'env'?"),
        ("${vault:x#y}", "${file:/path}"),
        ("${env:}", "${env:NAME}"),
        ("${env:A B}", "${env:NAME}"),
        ("${}", "${env:NAME}"),
        ("${env:NOT_THERE}", "set it in the environment"),
    ],
)
def test_malformed_references_are_refused_with_the_right_form(text: str, word: str) -> None:
    """Wherever they stand."""
    code, _, help_ = problem(streams={"s": {"filter": f"x = {text}"}})
    assert "DP107" == code
    assert word in help_


def test_a_doubled_dollar_is_a_literal_reference() -> None:
    """So that SQL may hold one."""
    manifest = manifest_from_dict(base(streams={"s": {"filter": "x = '$${env:A}' and y = '$5'"}}))
    assert "x = '${env:A}' and y = '$5'" == manifest.streams[0].filter


def test_a_reference_in_a_key_is_refused(folder: Path) -> None:
    """Names of streams are written out."""
    with pytest.raises(ManifestError) as caught:
        write(folder, "version: 1\npipeline: p\nsource: sqlite:///a\nsink: duckdb:///b\nstreams:\n  ${env:S}.t:\n")
    assert ("DP107", "dpone.yaml:6:3") == (caught.value.code, caught.value.where)


@pytest.mark.parametrize(
    ("changes", "code", "help_"),
    [
        ({"source": "postgrs://u@h/d"}, "DP103", "did you mean 'postgres://'?"),
        ({"source": "x-y-z://u@h/d"}, "DP103", "installed URL schemes: "),
        ({"source": {"connector": "duckbd", "path": "x"}}, "DP103", "did you mean 'duckdb'?"),
        ({"source": {"conector": "duckdb", "path": "x"}}, "DP101", "did you mean 'connector'?"),
        ({"source": {"path": "x"}}, "DP106", "add 'connector: duckdb' or 'connection: NAME'"),
        ({"source": {"connector": "duckdb"}}, "DP106", "add 'path:', The database file."),
        ({"source": {"connector": "files", "pth": "${env:X}"}}, "DP101", "did you mean 'path'?"),
        ({"source": {"connector": "files", "format": "${env:X}"}}, "DP106", "add 'path:'"),
        ({"source": {"connector": "files", "path": "x", "format": "jsonl", "quote": "x"}}, "DP102", "correct source"),
        ({"source": {"connector": "files", "path": "x", "format:csv": None}}, "DP101", "put a blank after the colon"),
        ({"source": "sqlite"}, "DP104", "write a URL (sqlite://...), or a mapping with 'connector: sqlite'"),
        ({"source": "shp", "connections": {"shop": "sqlite:///x"}}, "DP104", "did you mean 'shop'?"),
        ({"source": "data.csv"}, "DP104", "define it under 'connections', set DPONE_CONNECTION_DATA_CSV"),
        ({"connections": {"a": "postgrs://h/d"}}, "DP103", "did you mean 'postgres://'?"),
        ({"connections": {"a": {"connector": "files", "path": "x", "format": "cvs"}}}, "DP102", "did you mean 'csv'?"),
        ({"connections": {"a": {"connector": "sqlite", "path": ":memory:"}}}, "DP102", "The database file."),
        ({"connections": {"a": "shop"}}, "DP103", "write a URL"),
        ({"write": "merge"}, "DP101", "'write' belongs under 'defaults' or under a stream"),
        ({"cursor": "x"}, "DP101", "'cursor' belongs under a stream"),
        ({"defaults": {"cursor": "x"}}, "DP101", "'cursor' belongs under a stream"),
        ({"streams": {"s": {"exclude": ["a"]}}}, "DP101", "'exclude' belongs under 'columns'"),
        ({"streams": {"s": {"sink": "a"}}}, "DP101", "'sink' belongs at the top level"),
        ({"streams": {"s": {"write": "upsert"}}}, "DP102", "did you mean 'merge'?"),
        ({"streams": {"s": {"columns": {"cast": {"a": "varchar"}}}}}, "DP105", "did you mean 'text'?"),
        (
            {"streams": {"s": {"columns": {"cast": {"a": "decimal(39,2)"}}}}},
            "DP105",
            "a decimal has a precision of 1 to 38",
        ),
        ({"streams": {"s*": {"target": "t"}}}, "DP108", "name the streams one by one"),
        ({"streams": {"s": {"columns": {"include": ["a"], "exclude": ["b"]}}}}, "DP108", "give one of them"),
        ({"streams": {"s": {"columns": {"include": ["a"], "cast": {"b": "text"}}}}}, "DP108", "remove the cast"),
        ({"streams": {"s": {"columns": {"exclude": ["a"], "cast": {"a": "text"}}}}}, "DP108", "remove the cast"),
        ({"streams": {"s": {"primary_key": ["a", "a"]}}}, "DP102", "the column, or list of columns"),
        ({"allow_empty": True}, "DP101", "'allow_empty' belongs under a stream"),
        ({"streams": {"s": {"allow_empty": "yes"}}}, "DP102", "write true or false, without quotes"),
        pytest.param({"streams": {"s": {"filter": object()}}}, "DP102", "use text, numbers", id="object"),
    ],
    ids=str,
)
def test_one_mistake_is_one_problem_that_says_what_to_write(changes: dict[str, Any], code: str, help_: str) -> None:
    """In the words of the manifest."""
    found = problem(**changes)
    assert code == found[0]
    assert found[2].startswith(help_)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "dpone.yaml is empty"),
        (b"# only a comment\n", "dpone.yaml is empty"),
        (b"\xef\xbb\xbf", "dpone.yaml is empty"),
        (b"- a\n", "a manifest is a mapping, found a list"),
        (b"text\n", "a manifest is a mapping, found text"),
        (b"~\n", "a manifest is a mapping, found nothing"),
    ],
)
def test_files_that_hold_no_manifest(folder: Path, content: bytes, message: str) -> None:
    """Each says what was found."""
    (folder / "dpone.yaml").write_bytes(content)
    with pytest.raises(ManifestError) as caught:
        load_manifest("dpone.yaml")
    assert message == caught.value.message
    assert "dpone.yaml:1:1" == caught.value.where


def test_files_that_cannot_be_read(folder: Path) -> None:
    """A missing file leads to `dpone init`, a folder to a file in it."""
    for path, words in (
        ("none.yaml", ["no file none.yaml", "dpone init"]),
        (".", ["is a folder", "dpone.yaml"]),
        ("a\0b", ["not a path"]),
        (str(folder / "none.yaml"), ["no file none.yaml"]),
    ):
        with pytest.raises(ManifestError) as caught:
            load_manifest(path)
        assert all(word in caught.value.render() for word in words), caught.value.render()
        assert "DP100" == caught.value.code


@pytest.fixture
def entry_points(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Replaces what is installed."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])
    registry.connectors.cache_clear()
    yield points
    registry.connectors.cache_clear()


def point(name: str, value: str) -> EntryPoint:
    """An entry point of a connector."""
    return EntryPoint(name, value, registry.GROUP)


def test_connectors_are_found_by_name_and_by_scheme() -> None:
    """In any case, as URLs are."""
    assert ["duckdb", "files", "memory", "postgres", "sqlite"] == list(registry.connectors())
    assert all(isinstance(connector, Connector) for connector in registry.connectors().values())
    assert "postgres" == registry.connector_for("PostgreSQL").name
    with pytest.raises(ConfigError) as caught:
        registry.connector_for("sqlte")
    assert ("DP103", "did you mean 'sqlite'?") == (caught.value.code, caught.value.remedy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["nowhere.at_all:connector"], "loading connector x0"),
        (["dpone.errors:ConfigError"], "is not a dpone.sdk.Connector"),
        (["dpone.connectors.duckdb:connector", "dpone.connectors.duckdb.__init__:connector"], "two packages"),
    ],
)
def test_a_broken_or_ambiguous_connector_is_named(
    entry_points: list[EntryPoint], values: list[str], message: str
) -> None:
    """What is installed must not decide silently."""
    entry_points += [point(f"x{index}", value) for index, value in enumerate(values)]
    with pytest.raises(ConfigError) as caught:
        registry.connectors()
    assert message in caught.value.message


def test_without_any_connector_the_error_says_so(entry_points: list[EntryPoint]) -> None:
    """As in a broken installation."""
    assert [] == entry_points
    with pytest.raises(ConfigError) as caught:
        registry.connector_for("postgres")
    assert "no connector is installed; reinstall dpone" == caught.value.remedy


def test_one_package_found_twice_is_one(entry_points: list[EntryPoint]) -> None:
    """An editable install beside its own metadata."""
    entry_points += [point("duckdb", "dpone.connectors.duckdb:connector")] * 2
    assert ["duckdb"] == list(registry.connectors())


def test_checking_a_manifest_imports_no_driver_and_no_arrow(shop: Manifest) -> None:
    """`dpone check` must stay quick."""
    program = textwrap.dedent("""
        import sys
        from dpone.manifest.load import load_manifest
        manifest = load_manifest("dpone.yaml")
        manifest.source.config(), manifest.sink.config()
        heavy = {"pyarrow", "duckdb", "psycopg", "numpy", "click", "rich"}
        print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
    """)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ("[]\n", "") == (result.stdout, result.stderr)
    assert "shop" == shop.pipeline
