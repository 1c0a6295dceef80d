"""dpone moves data exactly once and proves it.

    import dpone

    result = dpone.run("dpone.yaml", select=["orders"])
    result.raise_for_status()

Everything listed in `__all__` is covered by SemVer. It is imported on first use, so that `import dpone` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dpone.version import __version__

if TYPE_CHECKING:
    from dpone.api import RunResult, check, discover, history, plan, reset, run, status, verify
    from dpone.errors import DponeError
    from dpone.manifest.load import load_manifest
    from dpone.manifest.schema import json_schema
    from dpone.sdk.registry import connectors

__all__ = [
    "DponeError",
    "RunResult",
    "__version__",
    "check",
    "connectors",
    "discover",
    "history",
    "json_schema",
    "load_manifest",
    "plan",
    "reset",
    "run",
    "status",
    "verify",
]

_HOMES = {
    "DponeError": "dpone.errors",
    "connectors": "dpone.sdk.registry",
    "json_schema": "dpone.manifest.schema",
    "load_manifest": "dpone.manifest.load",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'dpone' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "dpone.api")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
