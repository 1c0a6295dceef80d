"""What an installed connector brings for its certification: a harness, a case file, a folder."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from dpone.errors import ConfigError
from dpone.sdk import Connector, load_object
from dpone.sdk.registry import connector_for
from dpone.testing import cases
from dpone.testing.harness import Harness


def harness_of(connector: Connector) -> type[Harness]:
    """The harness that a connector names. Raises ConfigError when it names none."""
    if not connector.harness:
        raise ConfigError(
            f"the connector {connector.name} names no harness, so it cannot be certified",
            remedy="set Connector.harness; see dpone.testing.Harness",
        )
    found: type[Harness] = load_object(connector.harness)
    return found


def folder_of(connector: Connector) -> Path:
    """The folder of a connector: that of its settings."""
    package = connector.config.partition(":")[0].rpartition(".")[0]
    return Path(str(files(package)))


def case_file(connector: str, variant: str = "") -> cases.Cases:
    """The type cases of a connector: `cases.toml` or `cases-<variant>.toml` in its folder, else those of the kit."""
    path = folder_of(connector_for(connector)) / f"cases{'-' * bool(variant)}{variant}.toml"
    return cases.load(connector, variant, path if path.exists() else None)


def has_cases(connector: Connector) -> bool:
    """Whether there is a case file for every variant of a connector."""
    try:
        for variant in harness_of(connector).variants:
            case_file(connector.name, variant)
    except ConfigError:
        return False
    return True
