"""Which streams a command works on. The grammar is dbt's: a blank joins, a comma intersects.

    orders                 a name, with or without its schema
    public.events_*        a glob
    tag:finance            streams with a tag; a glob too
    tag:big,public.*       both at once
    result:error           streams that the last run did not load: failed, cancelled, cut off, or not started
    result:success         streams that it did
https://docs.getdbt.com/reference/node-selection/set-operators
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class LastRun:
    """How a run ended: its name in words, and for each of its streams whether it succeeded."""

    name: str
    succeeded: Mapping[str, bool]


Results = Callable[[], LastRun]
"""Gives the last run; asked only when a selector is about its results. Raises ConfigError DP122 without one."""

_RESULT = "result:"
_RESULTS = {"error": False, "success": True}


def _no_results() -> LastRun:
    raise ConfigError("no run is recorded here", remedy="run without 'result:' first", code="DP122")


def select(
    streams: Sequence[_Item],
    selectors: Sequence[str] = (),
    exclude: Sequence[str] = (),
    results: Results = _no_results,
) -> list[_Item]:
    """The streams that the selectors pick (all, without selectors) less the excluded ones, in their own order.

    Raises ConfigError DP120 when any part of a selector matches nothing, or when nothing is left: a selector with a
    mistake must not end in a run that moves less, or more, than was meant. DP121: the last run left nothing of that
    result; DP122: there is no record of it.
    """
    names = {stream.name for stream in streams}
    if any(text.strip() for text in selectors):
        names = _union(streams, selectors, results)
    unwanted = _union(streams, exclude, results) if exclude else set()
    chosen = [stream for stream in streams if stream.name in names and stream.name not in unwanted]
    if not chosen:
        raise ConfigError("no stream is left after --exclude", remedy="exclude less", code="DP120")
    return chosen


def _union(streams: Sequence[_Item], selectors: Iterable[str], results: Results) -> set[str]:
    found: set[str] = set()
    every_name = {stream.name for stream in streams}
    for text in selectors:
        # A name that holds a blank or a comma is understood when it is given whole.
        for part in [text] if text in every_name else text.split():
            found |= {part} if part in every_name else _intersection(streams, part, results)
    return found


def _intersection(streams: Sequence[_Item], part: str, results: Results) -> set[str]:
    found = {stream.name for stream in streams}
    for word in part.split(","):
        found &= _with_result(streams, word, results) if word.startswith(_RESULT) else _matching(streams, word)
    if not found:
        raise ConfigError(f"no stream matches all of {shown(part)}", remedy="a comma means 'and'", code="DP120")
    return found


def _with_result(streams: Sequence[_Item], word: str, results: Results) -> set[str]:
    value = word.removeprefix(_RESULT)
    if value not in _RESULTS:
        close = suggest(value, list(_RESULTS))
        remedy = f"did you mean '{_RESULT}{close}'?" if close else f"write {' or '.join(_RESULT + r for r in _RESULTS)}"
        raise ConfigError(f"unknown result in {shown(word)}", remedy=remedy, code="DP120")
    last = results()
    found = {name for name, succeeded in last.succeeded.items() if succeeded is _RESULTS[value]}
    kept = found & {stream.name for stream in streams}
    if kept:
        return kept
    if found:
        listed = ", ".join(sorted(found)[:8])
        message = f"{shown(word)}: the manifest no longer has {listed} of {last.name}"
    elif value == "error":
        message = f"{shown(word)}: every stream of {last.name} succeeded, nothing is left to do again"
    else:
        message = f"{shown(word)}: no stream of {last.name} succeeded"
    raise ConfigError(message, remedy="select streams without 'result:'", code="DP121")


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
    if colon and not prefix and (meant := suggest(method, ["tag", "result"])):
        remedy = f"did you mean '{meant}:{value.partition(':')[2]}'?"
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
