"""What a connector is, and what it can do, as data."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from dpone.sdk.protocols import Sink, Source


class Capability(StrEnum):
    """Everything a connector may be able to do. Every connector declares every one of them."""

    READ_FULL = "read.full"
    READ_CURSOR = "read.cursor"
    READ_SLICES = "read.slices"
    READ_SNAPSHOT = "read.snapshot"
    READ_LATE_COMMITS = "read.late_commits"
    READ_FILTER = "read.filter"
    READ_CAST = "read.cast"
    READ_COMPARE = "read.compare"
    DISCOVER = "discover"
    WRITE_REPLACE = "write.replace"
    WRITE_APPEND = "write.append"
    WRITE_MERGE = "write.merge"
    WRITE_DELETE_INSERT = "write.delete_insert"
    WRITE_SCD2 = "write.scd2"
    WRITE_DEDUPLICATE = "write.deduplicate"
    WRITE_DELETES = "write.deletes"
    WRITE_TIES = "write.ties"
    WRITE_HOOKS = "write.hooks"
    PROOF_DIGEST = "proof.digest"


@dataclass(frozen=True, slots=True)
class Support:
    """How far a capability goes. A gap says why, and what to do instead; an impossibility cites the system's own word.

    `reference` is the address of that documentation.
    """

    level: Literal["full", "not_implemented", "impossible"]
    why: str = ""
    instead: str = ""
    reference: str = ""


FULL = Support("full")


@dataclass(frozen=True, slots=True)
class Connector:
    """One system, as found through the entry point group `dpone.connectors`.

    `config`, `source` and `sink` are `"module:name"` references, so that importing the connector imports no
    driver: a pydantic model, and callables that take an instance of it. `schemes` are the URL schemes it answers
    to. `default_schema` is where tables are that are named without a schema; a system without schemas has none.
    `folds_case` says that names that differ only in case are one name. `extra` is the pip extra that brings the
    driver, empty when the core install does. `harness` is a reference to the `dpone.testing.Harness` that the
    certification kit uses; without one the connector cannot be certified.
    """

    name: str
    title: str
    schemes: tuple[str, ...]
    config: str
    source: str
    sink: str
    default_schema: str = ""
    folds_case: bool = False
    extra: str = ""
    harness: str = ""
    capabilities: Mapping[Capability, Support] = field(default_factory=dict)

    def config_model(self) -> Any:
        """The pydantic model of this connector's settings."""
        return load_object(self.config)

    def open_source(self, config: Any) -> Source:
        """A source for these settings. Raises ConfigError with the install command when the driver is missing."""
        factory: Callable[[Any], Source] = self._driver(self.source)
        return factory(config)

    def open_sink(self, config: Any) -> Sink:
        """A sink for these settings. Raises ConfigError with the install command when the driver is missing."""
        factory: Callable[[Any], Sink] = self._driver(self.sink)
        return factory(config)

    def supports(self, capability: Capability) -> Support:
        """The declared support; an undeclared capability counts as not implemented."""
        return self.capabilities.get(capability, Support("not_implemented", f"{self.name} does not declare it"))

    def _driver(self, reference: str) -> Any:
        from dpone.errors import ConfigError

        try:
            return load_object(reference)
        except ModuleNotFoundError as error:
            if not self.extra or (error.name or "").startswith("dpone"):
                raise
            raise ConfigError(
                f"connector {self.name} needs the Python package {error.name}, which is not installed",
                remedy=f'pip install "dpone[{self.extra}]"',
                code="DP110",
            ) from error


def load_object(reference: str) -> Any:
    """Import `"package.module:name"`."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
