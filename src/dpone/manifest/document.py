"""Parsed data together with where each part of it stands in the text, and lines of the text without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpone.manifest.problems import Problem, dotted
from dpone.manifest.secrets import mask

KeyPath = tuple["str | int", ...]

MAX_LINE = 4096  # longer lines are not shown in excerpts


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the text, from (line, column) to before (last, end), counted from 0."""

    line: int
    column: int
    last: int
    end: int


@dataclass(slots=True)
class Document:
    """Parsed data and where each part of it stands.

    `name` is how the file is called in messages. `data` consists of dict, list, str, int, float, bool and None.
    """

    name: str
    data: Any = None
    sha256: str = ""
    keys: dict[KeyPath, Span] = field(default_factory=dict)
    values: dict[KeyPath, Span] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    _hidden: dict[int, set[tuple[int, int]]] = field(default_factory=dict)
    _hidden_keys: set[KeyPath] = field(default_factory=set)

    def hide(self, path: KeyPath, *, after: str = "") -> None:
        """Keep a value out of every excerpt from now on; with `after`, only what follows this text in it."""
        for line, column, end in self._stretches(self.values.get(path)):
            start = self.lines[line].find(after, column, end) if after else -1
            self._hidden.setdefault(line, set()).add((start + len(after) if start >= 0 else column, end))

    def hide_key(self, path: KeyPath) -> None:
        """Keep a key out of every excerpt and key path."""
        self._hidden_keys.add(path)
        for line, column, end in self._stretches(self.keys.get(path)):
            self._hidden.setdefault(line, set()).add((column, end))

    def reveal(self, path: KeyPath) -> None:
        """Let a hidden value be shown: it is known not to be a secret."""
        for line, column, end in self._stretches(self.values.get(path)):
            self._hidden.get(line, set()).discard((column, end))

    def shown_key(self, path: KeyPath) -> str:
        """The last key of a path, or `***` when it is hidden."""
        return "***" if path in self._hidden_keys else str(path[-1])

    def _dotted(self, path: KeyPath) -> str:
        return dotted([piece if path[: i + 1] not in self._hidden_keys else "***" for i, piece in enumerate(path)])

    def _stretches(self, span: Span | None) -> Iterator[tuple[int, int, int]]:
        if span is None:
            return
        for line in range(span.line, min(span.last, len(self.lines) - 1) + 1):
            column = span.column if line == span.line else 0
            end = span.end if line == span.last else len(self.lines[line])
            if end > column:
                yield line, column, end

    def span(self, path: KeyPath, *, key: bool = False) -> Span | None:
        """Where a value stands; with `key`, its key. The nearest thing around it when it is not in the text.

        A value that is empty, or starts on a line below its key, is placed at the key.
        """
        while path:
            at_key, at_value = self.keys.get(path), self.values.get(path)
            if at_key and (key or at_value is None or at_value.line > at_key.line or _empty(at_value)):
                return at_key
            if at_value:
                return at_value
            path = path[:-1]
        return self.values.get(())

    def has(self, path: KeyPath) -> bool:
        """Whether the data has something at this path."""
        data = self.data
        for piece in path:
            if isinstance(data, dict) and piece in data:
                data = data[str(piece)]
            elif isinstance(data, list) and isinstance(piece, int) and 0 <= piece < len(data):
                data = data[piece]
            else:
                return False
        return True

    def where(self, path: KeyPath, *, key: bool = False) -> str:
        """`dpone.yaml:8:5`; the key path when the data came from no file."""
        span = self.span(path, key=key)
        return f"{self.name}:{span.line + 1}:{span.column + 1}" if span else self._dotted(path) or self.name

    def problem(
        self,
        code: str,
        message: str,
        path: KeyPath,
        *,
        found: str = "",
        help: str = "",  # noqa: A002 - the field's name
        key: bool = False,
        width: int = 0,
    ) -> Problem:
        """A problem at a value, or with `key` at its key. `width` underlines less than all of it."""
        span = self.span(path, key=key)
        if span is None:
            return Problem(code, message, self.name, key_path=self._dotted(path), found=found, help=help)
        excerpt, caret, full_width = self._excerpt(span)
        return Problem(
            code=code,
            message=message,
            path=self.name,
            line=span.line + 1,
            column=span.column + 1,
            key_path=self._dotted(path),
            found=found,
            help=help,
            excerpt=excerpt,
            caret=caret,
            width=min(width, full_width) or full_width,
        )

    def _excerpt(self, span: Span) -> tuple[str, int, int]:
        """The first line of a span without secrets, where in it the span begins, and how wide it is there."""
        line = self.lines[span.line]
        if len(line) > MAX_LINE:
            return "", 0, 1
        end = span.end if span.last == span.line else len(line)
        before = self._shown(span.line, 0, span.column)
        inside = self._shown(span.line, span.column, end)
        text = mask(before + inside + self._shown(span.line, end, len(line)))
        caret = min(len(mask(before)), len(text))
        clean = "".join(letter if letter.isprintable() else " " for letter in text)
        return clean, caret, max(1, min(len(mask(inside).rstrip()), len(text) - caret))

    def _shown(self, line: int, start: int, end: int) -> str:
        """A part of a line with `***` for what is hidden in it."""
        text, at = "", start
        for hidden, stop in sorted(self._hidden.get(line, ())):
            if stop <= at or hidden >= end:
                continue
            text += self.lines[line][at : max(at, hidden)] + "***"
            at = min(stop, end)
        return text + self.lines[line][at:end]


def _empty(span: Span) -> bool:
    return (span.line, span.column) == (span.last, span.end)


def display_path(file: Path) -> str:
    """A path for messages: relative where it can be, without control characters."""
    if file.is_absolute() and file.is_relative_to(Path.cwd()):
        file = file.relative_to(Path.cwd())
    return "".join(letter if letter.isprintable() else "?" for letter in str(file))


def scalars(data: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every scalar of parsed data with its path."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from scalars(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from scalars(value, (*path, index))
    else:
        yield path, data
