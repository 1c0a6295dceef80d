"""Which streams a command works on. The grammar is dbt's: a blank joins, a comma intersects.

    orders                 a name, with or without its schema
    public.events_*        a glob
    tag:finance            streams with a tag; a glob too
    tag:big,public.*       both at once
https://docs.getdbt.com/reference/node-selection/set-operators
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Protocol, TypeVar

from dpone.errors import ConfigError
from dpone.manifest.problems import shown, suggest


class Selectable(Protocol):
    """Anything with a name and tags."""

    @property
    def name(self) -> str:
        """The stream's name."""

    @property
    def tags(self) -> Sequence[str]:
        """Its tags."""


_Item = TypeVar("_Item", bound=Selectable)


def select(streams: Sequence[_Item], selectors: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[_Item]:
    """The streams that the selectors pick (all, without selectors) less the excluded ones, in their own order.

    Raises ConfigError DP120 when any part of a selector matches nothing, or when nothing is left: a selector with a
    mistake must not end in a run that moves less, or more, than was meant.
    """
    names = {stream.name for stream in streams}
    if any(text.strip() for text in selectors):
        names = _union(streams, selectors)
    unwanted = _union(streams, exclude) if exclude else set()
    chosen = [stream for stream in streams if stream.name in names and stream.name not in unwanted]
    if not chosen:
        raise ConfigError("no stream is left after --exclude", remedy="exclude less", code="DP120")
    return chosen


def _union(streams: Sequence[_Item], selectors: Iterable[str]) -> set[str]:
    found: set[str] = set()
    every_name = {stream.name for stream in streams}
    for text in selectors:
        # A name that holds a blank or a comma is understood when it is given whole.
        for part in [text] if text in every_name else text.split():
            found |= {part} if part in every_name else _intersection(streams, part)
    return found


def _intersection(streams: Sequence[_Item], part: str) -> set[str]:
    found = {stream.name for stream in streams}
    for word in part.split(","):
        found &= _matching(streams, word)
    if not found:
        raise ConfigError(f"no stream matches all of {shown(part)}", remedy="a comma means 'and'", code="DP120")
    return found


def _matching(streams: Sequence[_Item], word: str) -> set[str]:
    method, colon, value = word.partition(":")
    if colon and method == "tag":
        found = {stream.name for stream in streams if any(fnmatchcase(tag, value) for tag in stream.tags)}
        known = {tag for stream in streams for tag in stream.tags}
        prefix = "tag:"
    else:
        found = {s.name for s in streams if s.name == word} or {s.name for s in streams if _named(s.name, word)}
        known = {name for stream in streams for name in (stream.name, stream.name.rpartition(".")[2])}
        prefix, value = "", word
    if found:
        return found
    if colon and not prefix and suggest(method, ["tag"]):
        remedy = f"did you mean 'tag:{value.partition(':')[2]}'?"
    elif close := suggest(value, sorted(known)):
        remedy = f"did you mean '{prefix}{close}'?"
    elif known:
        listed = sorted(known if prefix else {stream.name for stream in streams})
        remedy = f"there are: {', '.join(listed[:8])}" + (", ..." if len(listed) > 8 else "")  # noqa: PLR2004
    else:
        remedy = "no stream has tags" if prefix else "the manifest has no streams"
    raise ConfigError(f"no stream matches {shown(word)}", remedy=remedy, code="DP120")


def _named(name: str, word: str) -> bool:
    """Whether a name, with or without what stands before its last dot, matches a glob."""
    return fnmatchcase(name, word) or fnmatchcase(name.rpartition(".")[2], word)
