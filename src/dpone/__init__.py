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
    from dpone.api import RunResult, check, discover, history, plan, repair, reset, run, status, verify
    from dpone.errors import DponeError
    from dpone.manifest.load import load_manifest
    from dpone.manifest.schema import json_schema
    from dpone.sdk.registry import connectors as installed_connectors

__all__ = [
    "DponeError",
    "RunResult",
    "__version__",
    "check",
    "discover",
    "history",
    "installed_connectors",
    "json_schema",
    "load_manifest",
    "plan",
    "repair",
    "reset",
    "run",
    "status",
    "verify",
]

_HOMES = {
    "DponeError": "dpone.errors:DponeError",
    "installed_connectors": "dpone.sdk.registry:connectors",
    "json_schema": "dpone.manifest.schema:json_schema",
    "load_manifest": "dpone.manifest.load:load_manifest",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'dpone' has no attribute {name!r}")
    from importlib import import_module

    # A function must not have the name of a subpackage, which would take its place once that is imported.
    module, _, attribute = _HOMES.get(name, f"dpone.api:{name}").partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
