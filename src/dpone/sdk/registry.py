"""Which connectors are installed. They are found by entry points only, so that third-party ones are equals."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points

from dpone.errors import ConfigError
from dpone.sdk.connector import Connector

GROUP = "dpone.connectors"


@cache
def connectors() -> dict[str, Connector]:
    """All installed connectors by name, sorted. Their drivers are not imported.

    Raises ConfigError when an entry point cannot be loaded, or when two packages claim the same name or URL scheme:
    which of them answers must not depend on the order of installation.
    """
    found: dict[str, Connector] = {}
    owners: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            connector = point.load()
        except Exception as error:
            raise ConfigError(
                f"loading connector {point.name} ({point.value}): {type(error).__name__}",
                remedy="upgrade or uninstall the package that brings it",
                code="DP103",
            ) from error
        if not isinstance(connector, Connector):
            raise ConfigError(
                f"entry point {point.name} ({point.value}) is not a dpone.sdk.Connector",
                remedy="upgrade or uninstall the package that brings it",
                code="DP103",
            )
        for word in {connector.name, *connector.schemes}:
            # One distribution can be on the path twice (an editable install and its sources); that is no clash.
            if owners.setdefault(word, point.value) != point.value:
                raise ConfigError(
                    f"two packages bring a connector for {word!r}: {owners[word]} and {point.value}",
                    remedy="uninstall one of them",
                    code="DP103",
                )
        found[connector.name] = connector
    return found


def connector_for(name_or_scheme: str) -> Connector:
    """The connector of a name (`postgres`) or a URL scheme (`postgresql`), in any case.

    Raises ConfigError with code DP103 and a suggestion when there is none.
    """
    word = name_or_scheme.lower()
    known = connectors()
    by_word = {scheme: connector for connector in known.values() for scheme in connector.schemes} | known
    if word in by_word:
        return by_word[word]
    close = get_close_matches(word, by_word, n=1)
    if close:
        remedy = f"did you mean '{close[0]}'?"
    elif known:
        remedy = f"installed connectors: {', '.join(known)}"
    else:
        remedy = "no connector is installed; reinstall dpone"
    raise ConfigError(f"no connector is called {name_or_scheme!r}", remedy=remedy, code="DP103")
