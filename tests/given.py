"""A connector whose source yields the very batches that a test gave it, right or wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel, ConfigDict

from dpone.arrow.batches import conform
from dpone.arrow.digest import digest
from dpone.errors import ConfigError
from dpone.sdk import Capability, Column, Connector, Digest, Slice, Stream, StreamSchema, Window, registry
from dpone.sdk.connector import FULL
from dpone.sql.source import choose_columns


@dataclass(frozen=True)
class Given:
    """One stream: what is said of it, and what is yielded for each of its slices."""

    columns: tuple[Column, ...]
    slices: tuple[Sequence[pa.RecordBatch], ...]
    primary_key: tuple[str, ...] = ()


STREAMS: dict[str, Given] = {}


class GivenConfig(BaseModel):
    """It has no settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    identity: str = "given"


class GivenSource:
    """See `dpone.sdk.Source`."""

    def __init__(self, config: GivenConfig) -> None:
        del config

    def describe(self, stream: Stream) -> StreamSchema:
        """As the test says."""
        given = STREAMS[stream.name]
        return StreamSchema(choose_columns(stream, given.columns), given.primary_key)

    def open(self, stream: Stream, schema: StreamSchema, window: Window) -> GivenReading:
        """Full loads only."""
        return GivenReading(STREAMS[stream.name], schema, window)

    def close(self) -> None:
        """Nothing is open."""


class GivenReading:
    """See `dpone.sdk.Reading`."""

    snapshot = ""

    def __init__(self, given: Given, schema: StreamSchema, window: Window) -> None:
        self._given = given
        self._schema = schema
        self.window = window
        self.slices = tuple(Slice(ordinal) for ordinal in range(len(given.slices)))

    def query(self, piece: Slice) -> str:
        """In words."""
        return f"slice {piece.ordinal}"

    def read(self, piece: Slice) -> Iterator[pa.RecordBatch]:
        """What was given; the columns that the stream leaves out are left out."""
        names = [column.name for column in self._schema.columns]
        chosen = names != [column.name for column in self._given.columns]
        for batch in self._given.slices[piece.ordinal]:
            yield batch.select(names) if chosen else batch

    def digest(self, piece: Slice) -> Digest:
        """By reading."""
        return digest(self._schema.columns, conform(self.read(piece), self._schema.columns))

    def close(self) -> None:
        """Nothing is open."""


def no_sink(config: GivenConfig) -> Any:
    """There is nothing to write to."""
    raise ConfigError(f"{config.identity} is no sink")


connector = Connector(
    name="given",
    title="Given batches",
    schemes=("given",),
    config="tests.given:GivenConfig",
    source="tests.given:GivenSource",
    sink="tests.given:no_sink",
    capabilities=dict.fromkeys(Capability, FULL),
)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Given]]:
    """The streams of the source `{connector: given}`, as an installed package would bring it."""
    installed = entry_points(group=registry.GROUP)
    point = EntryPoint("given", "tests.given:connector", registry.GROUP)
    monkeypatch.setattr("dpone.sdk.registry.entry_points", lambda **_: [*installed, point])
    registry.connectors.cache_clear()
    STREAMS.clear()
    yield STREAMS
    monkeypatch.undo()
    registry.connectors.cache_clear()
