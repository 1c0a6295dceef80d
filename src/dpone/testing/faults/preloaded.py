"""What a fork server imports once, so that its forks need not: dpone, and the driver of every installed connector."""

from __future__ import annotations

import contextlib
import importlib

import pyarrow.csv
import pyarrow.json
import pyarrow.parquet  # noqa: F401

import dpone.testing.faults.child
import dpone.testing.faults.kill  # noqa: F401
from dpone.sdk import load_object
from dpone.sdk.registry import connectors

for _module in ("dpone.api", "dpone.cli"):  # above the kit in the order of imports
    importlib.import_module(_module)
for _connector in connectors().values():
    for _reference in (_connector.config, _connector.source, _connector.sink):
        with contextlib.suppress(ImportError):  # a driver that is not installed is missed when it is used
            load_object(_reference)
