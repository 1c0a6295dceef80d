"""One event type emits the log line, the counter and the callback together.

Normal operation is quiet: an event is emitted for a step of the protocol, never for a row. Events carry names,
counts and times; never row values or secrets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from dpone import clock

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `name` is dotted ("slice.staged"), `fields` are JSON values."""

    name: str
    level: Level
    run_id: str
    pipeline: str
    stream: str
    fields: dict[str, Any]
    at: float = field(default_factory=clock.time)

    def as_dict(self) -> dict[str, Any]:
        """The event as one line of JSON holds it."""
        stamp = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"v": 1, "ts": stamp, "level": self.level, "event": self.name, "run_id": self.run_id}
        if self.pipeline:
            head["pipeline"] = self.pipeline
        if self.stream:
            head["stream"] = self.stream
        return head | self.fields


Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Emitter:
    """Sends events of one run (and, after `bind`, of one stream) to the listeners, in order."""

    listeners: tuple[Listener, ...] = ()
    run_id: str = ""
    pipeline: str = ""
    stream: str = ""

    def __call__(self, name: str, level: Level = "debug", /, **fields: Any) -> None:
        """Emit one event."""
        if self.listeners:
            event = Event(name, level, self.run_id, self.pipeline, self.stream, fields)
            for listener in self.listeners:
                listener(event)

    def bind(self, *, pipeline: str, stream: str) -> Emitter:
        """The same listeners, for one stream."""
        return Emitter(self.listeners, self.run_id, pipeline, stream)


def redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """A JSON value with every text in it redacted. Numbers stay: a secret like a port must not break a count."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redacted(item, redact) for key, item in value.items()}
    return [redacted(item, redact) for item in value] if isinstance(value, list | tuple) else value
