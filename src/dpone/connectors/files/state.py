"""dpone's own files beside the targets: the open load, its staged slices, the intent to publish, the receipt.

    <root>/_dpone/<stream>/open.json       the open load, and how its slices are written
    <root>/_dpone/<stream>/00001.rows      a staged slice; 00001.json its receipt, written after it
    <root>/_dpone/<stream>/final           the assembled file, until it is renamed to its place
    <root>/_dpone/<stream>/intent.json     what is about to be published: place, size, SHA-256, receipt
    <root>/_dpone/<stream>/receipt.json    the last committed load: the state of the stream
    <root>/_dpone/runs/<run>.<stream>.json one per run, the last hundred of each stream
    <root>/_dpone/<stream>.lock            who is at work

`<stream>` is a hash of pipeline, stream and target. A document is written under another name, synced, and renamed, so
it is there whole or not at all; each carries the version of this layout.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from dpone.connectors.files.config import STATE
from dpone.errors import StateError
from dpone.sdk import OpenLoad, Receipt, Slice, SliceReceipt, StreamKey, Window
from dpone.sql.state import now, receipt_from

T = TypeVar("T")

LAYOUT = 1
KEPT_RUNS = 100
_RESET = "`dpone repair` shows what is wrong and mends it; `dpone reset` forgets this stream's state"


class State:
    """The files of one stream. The caller holds the lock, except for `receipt`."""

    def __init__(self, root: Path, key: StreamKey) -> None:
        self._key = key
        self.root = root
        self.name = hashlib.sha256(str(key).encode()).hexdigest()[:16]
        self.folder = root / STATE / self.name
        self.lock = root / STATE / f"{self.name}.lock"
        self._runs = root / STATE / "runs"

    def prepare(self) -> None:
        """Make the folders, and remove what a dead run was just writing."""
        self._runs.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(exist_ok=True)
        for left in (*self.folder.glob("*.tmp"), *self._runs.glob(f"*.{self.name}.json.tmp")):
            left.unlink(missing_ok=True)

    # -- receipts and loads ------------------------------------------------------------------------------------

    def receipt(self) -> Receipt | None:
        """The last committed load."""
        return self._read("receipt", lambda document: receipt_from(document["receipt"]))

    def intent(self) -> dict[str, Any] | None:
        """The publication that was begun. Its keys: target, size, sha256, receipt."""
        return self._read("intent", lambda document: {**document, "receipt": receipt_from(document["receipt"])})

    def intend(self, target: str, size: int, sha256: str, receipt: Receipt) -> None:
        """Store what is about to be published; an empty target publishes nothing but the receipt."""
        self._write("intent", {"target": target, "size": size, "sha256": sha256, "receipt": asdict(receipt)})

    def withdraw(self) -> None:
        """Forget the intent."""
        (self.folder / "intent.json").unlink(missing_ok=True)
        sync_folder(self.folder)

    def settle(self, receipt: Receipt) -> None:
        """Store the receipt, then remove the load: whoever dies in between only has to clean up."""
        self._write("receipt", {"receipt": asdict(receipt)})
        self.clear()

    def keep(self, receipt: Receipt | None) -> None:
        """Make this the receipt of the last load; None: the stream was never loaded."""
        if receipt is not None:
            self._write("receipt", {"receipt": asdict(receipt)})
        else:
            (self.folder / "receipt.json").unlink(missing_ok=True)
            sync_folder(self.folder)

    def pending(self, extension: str) -> OpenLoad | None:
        """The open load with its durable slices; those that were written for another extension do not count."""
        return self._read("open", lambda document: self._open_load(document, extension))

    def open(self, load: OpenLoad, extension: str) -> None:
        """Store the open load before the first byte moves."""
        values = {name: value for name, value in asdict(load).items() if name != "progress"}
        self._write("open", {**values, "extension": extension})

    def piece(self, ordinal: int) -> Path:
        """The staged rows of a slice."""
        return self.folder / f"{ordinal:05d}.rows"

    def slice_done(self, receipt: SliceReceipt) -> None:
        """Store a slice receipt. Its rows are synced already."""
        self._write(f"{receipt.ordinal:05d}", {**asdict(receipt), "size": self.piece(receipt.ordinal).stat().st_size})

    def slice_undone(self, ordinal: int) -> None:
        """Forget a slice receipt, before its rows are written anew."""
        (self.folder / f"{ordinal:05d}.json").unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the open load and its staging; the receipt stays. The intent goes first, then the open load."""
        if not self.folder.exists():
            return
        for name in ("intent.json", "open.json"):
            (self.folder / name).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.name != "receipt.json":
                path.unlink()
        sync_folder(self.folder)

    def forget(self, run_id: str) -> None:
        """Remove everything of this stream but its run records; of these the run that asked for it."""
        shutil.rmtree(self.folder)
        (self._runs / f"{run_id}.{self.name}.json").unlink(missing_ok=True)

    # -- runs --------------------------------------------------------------------------------------------------

    def run_started(self, run_id: str) -> tuple[str, ...]:
        """Note a running run; every other one of this stream that never ended was abandoned. Their ids."""
        abandoned = []
        paths = sorted(self._runs.glob(f"*.{self.name}.json"))
        for path in paths[:-KEPT_RUNS]:
            path.unlink()
        for path in paths[-KEPT_RUNS:]:
            document = _parse(path)
            if document["status"] == "running" and document["run_id"] != run_id:
                abandoned.append(document["run_id"])
                _store(path, {**document, "status": "abandoned"})
        self.run_finished(run_id, "running", "{}")
        return tuple(abandoned)

    def run_finished(self, run_id: str, status: str, document: str) -> None:
        """Store the record of a run."""
        path = self._runs / f"{run_id}.{self.name}.json"
        started = _parse(path)["started_at"] if path.exists() else now()
        row = {"run_id": run_id, "stream_key": str(self._key), "status": status, "started_at": started}
        _store(path, {"layout": LAYOUT, **row, "document": json.loads(document)})

    # -- plumbing ----------------------------------------------------------------------------------------------

    def _open_load(self, document: Mapping[str, Any], extension: str) -> OpenLoad:
        names = ("load_id", "run_id", "intent", "snapshot")
        same = document["extension"] == extension
        return OpenLoad(
            **{name: document[name] for name in names},
            window=Window(**document["window"]),
            slices=tuple(Slice(**piece) for piece in document["slices"]),
            progress=self._progress(len(document["slices"])) if same else {},
            opened_at=document.get("opened_at", ""),
        )

    def _progress(self, slices: int) -> dict[int, SliceReceipt]:
        done = {}
        for ordinal in range(slices):
            rows = self.piece(ordinal)
            size = rows.stat().st_size if rows.exists() else -1
            found = self._read(f"{ordinal:05d}", lambda document: document)
            if found is not None and found["size"] == size:
                done[ordinal] = SliceReceipt(ordinal, found["rows"])
        return done

    def _read(self, name: str, build: Callable[[dict[str, Any]], T]) -> T | None:
        path = self.folder / f"{name}.json"
        if not path.exists():
            return None
        try:
            return build(_parse(path))
        except (KeyError, TypeError) as error:
            raise _damaged(path) from error

    def _write(self, name: str, document: dict[str, Any]) -> None:
        _store(self.folder / f"{name}.json", {"layout": LAYOUT, **document})


def _parse(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        layout = document["layout"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if layout != LAYOUT:
        raise StateError(
            f"{path} has layout {layout}, this dpone knows {LAYOUT}",
            remedy="use the dpone version that wrote it, or forget this stream's state with `dpone reset`",
            code="DP501",
        )
    return document  # type: ignore[no-any-return]


def _damaged(path: Path) -> StateError:
    return StateError(f"reading dpone's state: {path} is damaged", remedy=_RESET, code="DP502")


def _store(path: Path, document: Mapping[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync(path: Path) -> None:
    """Make a file's contents survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    sync(path)
