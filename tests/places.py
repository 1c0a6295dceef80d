"""Places of the systems by short names, for tests between two of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dpone.sdk.registry import connector_for
from dpone.testing.found import harness_of
from dpone.testing.harness import SAMPLE, Harness, Role
from dpone.testing.kit import values

SINKS_THAT_MERGE = ("postgres", "duckdb", "sqlite")

Make = Callable[[str, Role], Harness]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make a place of a system by its name, for a role."""
    with contextlib.ExitStack() as stack:

        def build(name: str, role: Role) -> Harness:
            made = place(name, tmp_path / role)
            stack.callback(made.close)
            return made

        yield build


def place(name: str, folder: Path) -> Harness:
    """A place of a system by its name, in a folder that is made when it is not there."""
    folder.mkdir(exist_ok=True)
    connector, variant = (name, "") if name in SINKS_THAT_MERGE else ("files", name)
    return harness_of(connector_for(connector))(folder, variant)


def manifest(folder: Path, source: Harness, sink: Harness, **stream: object) -> Path:
    """A manifest of the table t; slices are small so that every load has many. The source has been filled."""
    settings = {"proof": "digest", "slices": {"rows": 40}, "target": "t"} | stream
    if "cursor" in settings and "files" in (source.endpoint("source")["connector"], sink.endpoint("sink")["connector"]):
        settings["cursor"] = {"column": settings["cursor"], "lookback": "0s"}
    path = folder / "dpone.yaml"
    ends = {"source": source.endpoint("source"), "sink": sink.endpoint("sink")}
    document = {"version": 1, "pipeline": "routes", **ends, "streams": {source.stream("t"): settings}}
    path.write_text(json.dumps(document))
    return path


def read(place: Harness) -> list[tuple[Any, ...]]:
    """The table t, as values that compare exactly."""
    return values(place.rows("t", list(SAMPLE)))
