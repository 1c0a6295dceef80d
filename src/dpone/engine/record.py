"""The run record: one JSON document per run, and the local store that keeps it.

The document is `dpone.run/1`; its fields are those of the JSON log events. It is written atomically, first when the
run starts (status `running`), last when it ends, so that a killed run leaves a record that the next run can close.
The store is history and convenience: no run needs it, the state is in the sink.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from dpone import clock

SCHEMA = "dpone.run/1"
_LOOKED_BACK = 50  # newest runs searched for one that died

Status = Literal["running", "succeeded", "failed", "cancelled", "abandoned"]


def new_run_id() -> str:
    """A UUIDv7, which sorts by time.

    https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7
    """
    value = int(clock.time() * 1000) << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def utc_now() -> str:
    """Now, UTC, ISO 8601 with milliseconds and Z."""
    return clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class StreamRecord:
    """What happened to one stream. Counts are numbers of rows."""

    stream: str
    status: Status = "running"
    source: dict[str, Any] = field(default_factory=dict)
    sink: dict[str, Any] = field(default_factory=dict)
    window: dict[str, Any] = field(default_factory=dict)
    slices: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int | None] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    balance: dict[str, Any] = field(default_factory=dict)
    proof: dict[str, Any] = field(default_factory=dict)
    drift: list[dict[str, Any]] = field(default_factory=list)
    value_changes: list[dict[str, str]] = field(default_factory=list)
    retries: dict[str, Any] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    load_id: str | None = None
    failure: dict[str, Any] | None = None

    @property
    def proven(self) -> bool:
        """Whether the verdict is `proven`."""
        return self.proof.get("verdict") == "proven"


@dataclass
class RunRecord:
    """One run. `streams` are in the order of the manifest."""

    run_id: str
    pipeline: str
    manifest: dict[str, Any]
    versions: dict[str, Any]
    plan: dict[str, Any]
    source: str = ""
    sink: str = ""
    time: dict[str, Any] = field(default_factory=lambda: {"started": utc_now(), "finished": None, "duration_s": None})
    status: Status = "running"
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    abandoned: list[str] = field(default_factory=list)
    streams: list[StreamRecord] = field(default_factory=list)
    resources: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The document."""
        return {"schema": SCHEMA, **asdict(self)}


class Store:
    """The folder `.dpone` beside the manifest: `runs/<run id>/run.json`, `events.ndjson`, `plan.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run_folder(self, run_id: str) -> Path:
        """Where a run keeps its files."""
        return self.folder / "runs" / run_id

    def save(self, record: RunRecord) -> Path:
        """Write the record atomically."""
        path = self.run_folder(record.run_id) / "run.json"
        write_atomically(path, json.dumps(record.as_dict(), indent=1))
        return path

    def runs(self) -> Iterator[dict[str, Any]]:
        """The records of all runs, newest first; unreadable ones are left out."""
        root = self.folder / "runs"
        for folder in sorted(root.iterdir(), reverse=True) if root.is_dir() else ():
            try:
                document = json.loads((folder / "run.json").read_text())
            except (OSError, ValueError):
                continue
            if isinstance(document, dict) and document.get("schema") == SCHEMA:
                yield document

    def last(self, pipeline: str) -> dict[str, Any] | None:
        """The record of the newest run of a pipeline that has ended, one way or the other."""
        for document in self.runs():
            if document.get("pipeline") == pipeline and not (document.get("status") == "running" and _lives(document)):
                return document
        return None

    def close_abandoned(self) -> list[str]:
        """Mark runs of this machine as abandoned that say `running` but have no process any more. Their ids."""
        found = []
        for document in islice(self.runs(), _LOOKED_BACK):
            if document.get("status") == "running" and not _lives(document):
                document["status"] = "abandoned"
                path = self.run_folder(document["run_id"]) / "run.json"
                write_atomically(path, json.dumps(document, indent=1))
                found.append(str(document["run_id"]))
        return found


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _lives(document: dict[str, Any]) -> bool:
    """Whether the process of a run still is, as far as this machine can know: a run of another one counts as alive."""
    return document.get("host") != socket.gethostname() or _alive(int(document.get("pid", 0)))


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
