"""Type cases: what each native type of a system holds, what it is read as, and how it is stored. Data, not code.

`cases/<connector>.toml` (or `<connector>-<variant>.toml`):

    setup = ["CREATE TYPE mood AS ENUM ('sad', 'ok')"]     # optional: statements, run once in each place
    null = "NULL"                 # optional: the literal of NULL; the kit adds it to every case
    keeps = "all"                 # optional: what two places of the system keep in native types between them: "all"
                                  # values, odd ones too; "values", and an odd one may stop the run; or "nothing"

    [[case]]
    id = "numeric(10,2)"          # unique; names the row of the matrix
    type = "numeric(10,2)"        # the native type, as a declaration
    canonical = "decimal(10,2)"   # the type it is read as; of a refused type, what the cast that the plan names gives
    fidelity = "exact"            # what reading does: exact, widened, lossy or refused
    kept = "yes"                  # optional: whether two places of the system keep this type between them; "no": it
                                  # travels as to any other system, or "refused"
    alone = false                 # optional: whether its table must have no other case
    since = "15"                  # optional: the first version of the system that has it
    values = [["99999999.99", "99999999.99"], ["-0.01", "-0.01"]]   # literal, and the text `parse` reads as its value
    odd = ["'NaN'"]               # optional: literals without a canonical form: they stop the read and name the column

    [stores]                      # canonical type -> what a sink makes of it; p and s stand for any numbers
    "decimal(p,s)" = {type = "numeric(p,s)", fidelity = "exact"}
    "uint64" = {type = "numeric(20,0)", fidelity = "widened"}
    "timestamp[ns]" = {type = "timestamp", fidelity = "lossy", keeps = "timestamp"}   # what is left of the value
    "date" = {type = "DATE", fidelity = "exact", least = "0001-01-01", most = "9999-12-31"}
    "float64" = {type = "REAL", fidelity = "exact", never = "NaN"}

A sink may lack room for some values of a type that it stores: those below `least`, above `most`, or whose text `never`
(a regular expression) is found in. Each of them must stop the run and name the column.

The text of a value is one of `dpone.testing.texts`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from dpone.errors import ConfigError
from dpone.sdk import Fidelity
from dpone.testing.texts import DECIMAL, parse

FOLDER = Path(__file__).with_name("cases")


@dataclass(frozen=True, slots=True)
class Case:
    """One native type of a source. `values` are pairs of a literal and the text of its canonical value."""

    id: str
    type: str
    canonical: str
    fidelity: Fidelity
    values: tuple[tuple[str, str], ...]
    odd: tuple[str, ...] = ()
    since: str = ""
    kept: Literal["yes", "no", "refused"] = "yes"
    alone: bool = False

    def known_to(self, version: str) -> bool:
        """Whether a system of this version has the type; versions are compared by their numbers."""
        return _numbers(self.since) <= _numbers(version)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a sink makes of a canonical type. `least`, `most` and `never` tell the values that it has no room for."""

    type: str
    fidelity: Fidelity
    keeps: str = ""
    least: str = ""
    most: str = ""
    never: str = ""

    def holds(self, canonical: str, text: str) -> bool:
        """Whether the sink has room for the value of this text; one that it has no room for stops the run."""
        if self.never and re.search(self.never, text):
            return False
        if not self.least and not self.most:
            return True
        value = parse(canonical, text)
        return not (
            (self.least and value < parse(canonical, self.least)) or (self.most and value > parse(canonical, self.most))
        )


@dataclass(frozen=True, slots=True)
class Cases:
    """The case file of one connector and variant."""

    setup: tuple[str, ...]
    cases: tuple[Case, ...]
    stores: Mapping[str, Stored] = field(default_factory=dict)
    null: str = "NULL"
    keeps: Literal["all", "values", "nothing"] = "all"

    def stored(self, canonical: str) -> Stored:
        """What this sink makes of a canonical type. Raises ConfigError when the file does not say."""
        generic = DECIMAL.sub("decimal(p,s)", canonical)
        found = self.stores.get(canonical) or self.stores.get(generic)
        if found is None:
            raise ConfigError(f"[stores] does not say what becomes of {canonical}", remedy=f'add "{generic}" to it')
        if match := DECIMAL.search(canonical):
            native = found.type.replace("p,s", f"{match[1]},{match[2]}")
            return Stored(native, found.fidelity, found.keeps, found.least, found.most, found.never)
        return found


# -- files -------------------------------------------------------------------------------------------------------------

_TOP = {"setup": list, "null": str, "keeps": str, "case": list, "stores": dict}
_CASE = {
    "id": str,
    "type": str,
    "canonical": str,
    "fidelity": str,
    "values": list,
    "odd": list,
    "since": str,
    "kept": str,
    "alone": bool,
}
_CASE_NEEDS = ("id", "type", "canonical", "fidelity", "values")
_STORED = {"type": str, "fidelity": str, "keeps": str, "least": str, "most": str, "never": str}


def load(connector: str, variant: str = "", path: Path | None = None) -> Cases:
    """The cases of a connector: those of this package, or of a file or folder that a connector has of its own.

    Raises ConfigError naming the file and the case when one is not well-formed.
    """
    name = f"{connector}-{variant}.toml" if variant else f"{connector}.toml"
    file = FOLDER / name if path is None else path / name if path.is_dir() else path
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"there are no type cases of {connector}{f' ({variant})' if variant else ''}", remedy=f"write {file}"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _malformed(file, f"is not TOML: {error}") from None
    return _read(file, document)


def _read(file: Path, document: Mapping[str, Any]) -> Cases:
    _check(file, "the file", document, _TOP, ())
    found = [_case(file, number, entry) for number, entry in enumerate(document.get("case", []), 1)]
    seen: set[str] = set()
    for case in found:
        if case.id in seen:
            raise _malformed(file, f"has two cases {case.id!r}")
        seen.add(case.id)
    keeps = _one_of(file, "the file: keeps", document.get("keeps", "all"), ("all", "values", "nothing"))
    setup = _strings(file, "setup", document.get("setup", []))
    stores = {name: _stored(file, name, entry) for name, entry in document.get("stores", {}).items()}
    return Cases(setup, tuple(found), stores, document.get("null", "NULL"), keeps)


def _case(file: Path, number: int, entry: Any) -> Case:
    place = f"case {entry['id']!r}" if isinstance(entry, dict) and "id" in entry else f"case number {number}"
    _check(file, place, entry, _CASE, _CASE_NEEDS)
    pairs = entry["values"]
    if not pairs:
        raise _malformed(file, f"{place} has no values")
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise _malformed(file, f"{place}: each of the values is a literal and a text, and {pair!r} is not")
        _readable(file, place, entry["canonical"], pair[1])
    return Case(
        id=entry["id"],
        type=entry["type"],
        canonical=entry["canonical"],
        fidelity=_fidelity(file, place, entry["fidelity"]),
        values=tuple((literal, text) for literal, text in pairs),
        odd=_strings(file, f"{place}: odd", entry.get("odd", [])),
        since=entry.get("since", ""),
        kept=_one_of(file, f"{place}: kept", entry.get("kept", "yes"), ("yes", "no", "refused")),
        alone=entry.get("alone", False),
    )


def _stored(file: Path, name: str, entry: Any) -> Stored:
    place = f"[stores] {name!r}"
    _check(file, place, entry, _STORED, ("type", "fidelity"))
    for bound in ("least", "most"):
        if bound in entry:
            _readable(file, place, name, entry[bound])
    try:
        re.compile(entry.get("never", ""))
    except re.error as error:
        raise _malformed(file, f"{place}: never is no regular expression: {error}") from None
    return Stored(**{**entry, "fidelity": _fidelity(file, place, entry["fidelity"])})


def _check(file: Path, place: str, entry: Any, keys: Mapping[str, type], needed: Sequence[str]) -> None:
    if not isinstance(entry, dict):
        raise _malformed(file, f"{place} is not a table")
    for key, value in entry.items():
        if key not in keys:
            raise _malformed(file, f"{place} has the unknown key {key!r}; known are {', '.join(keys)}")
        if not isinstance(value, keys[key]):
            raise _malformed(file, f"{place}: {key} is a {keys[key].__name__}, not {value!r}")
    for key in needed:
        if key not in entry:
            raise _malformed(file, f"{place} lacks {key}")


def _fidelity(file: Path, place: str, word: str) -> Fidelity:
    found: Fidelity = _one_of(file, f"{place}: fidelity", word, get_args(Fidelity))
    return found


def _one_of(file: Path, place: str, word: str, words: tuple[Any, ...]) -> Any:
    if word not in words:
        raise _malformed(file, f"{place} is one of {', '.join(words)}, not {word!r}")
    return word


def _strings(file: Path, place: str, entry: Any) -> tuple[str, ...]:
    if not isinstance(entry, list) or not all(isinstance(text, str) for text in entry):
        raise _malformed(file, f"{place} is not a list of texts")
    return tuple(entry)


def _readable(file: Path, place: str, canonical: str, text: str) -> None:
    try:
        parse(canonical, text)
    except ValueError as error:
        raise _malformed(file, f"{place}: {error}") from None


def _malformed(file: Path, what: str) -> ConfigError:
    return ConfigError(f"type cases {file.name}: {what}", remedy="the format is described in dpone.testing.cases")


def _numbers(version: str) -> tuple[int, ...]:
    match = re.search(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()
