"""The checks of the connectors that DPONE_CERTIFY names, for `dpone certify`. Nobody else imports this."""

from __future__ import annotations

import os

from dpone.sdk.registry import connector_for
from dpone.testing.kit import Checks
from dpone.testing.suites import SinkChecks, SourceChecks


def _classes(name: str) -> dict[str, type]:
    connector = connector_for(name)
    roles: list[type[Checks]] = [SourceChecks] if connector.source else []
    roles += [SinkChecks] if connector.sink else []
    kind = type(f"Test_{name}", tuple(roles), {"connector": name})
    return {kind.__name__: kind}


for _name in filter(None, os.environ.get("DPONE_CERTIFY", "").split(",")):
    globals().update(_classes(_name))
