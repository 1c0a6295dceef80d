"""What the manifest says of a transform, as one frozen value."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Mask:
    """What stands in the place of a column's values. `text` is the secret of a hmac, or the replacement."""

    kind: Literal["hmac", "replace", "null"]
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Rules:
    """The key `transform` of a stream. Expressions may hold what a reference stood for.

    The order is fixed: rename, derive, where, mask, drop, function. `derive` is computed from the columns as they were
    read, under their new names; `where` sees the derived columns too, and no masked value.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    derive: Mapping[str, str] = field(default_factory=dict, repr=False)
    where: str = field(default="", repr=False)
    mask: Mapping[str, Mask] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    function: str = ""

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Rules:
        """From the checked data of a manifest."""
        masks = {column: next(iter(mask.items())) for column, mask in said.get("mask", {}).items()}
        masks = {column: (kind.rstrip("_"), text) for column, (kind, text) in masks.items()}
        return cls(
            rename=said.get("rename", {}),
            derive=said.get("derive", {}),
            where=said.get("where", ""),
            mask={column: Mask(kind, "" if kind == "null" else text) for column, (kind, text) in masks.items()},
            drop=tuple(said.get("drop", ())),
            function=said.get("function", ""),
        )

    @property
    def filters(self) -> bool:
        """Whether fewer rows may come out than went in."""
        return bool(self.where or self.function)

    @property
    def fingerprint(self) -> str:
        """A digest of what decides on rows and values; empty when nothing does. Secrets go in as digests only.

        Names (`rename`, `drop`) are not part of it: a change of those shows as a difference to the target.
        """
        if not (self.derive or self.where or self.mask or self.function):
            return ""
        masks = {column: (mask.kind, _digest(mask)) for column, mask in self.mask.items()}
        said = [dict(self.derive), self.where, masks, self.function]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def shown(self, redact: Callable[[str], str]) -> dict[str, Any]:
        """The rules as a plan shows them: no secret and no replacement, expressions with their references."""
        rules = {
            "rename": dict(self.rename),
            "derive": {name: redact(text) for name, text in self.derive.items()},
            "where": redact(self.where),
            "mask": {column: mask.kind for column, mask in self.mask.items()},
            "drop": list(self.drop),
            "function": self.function,
        }
        return {name: rule for name, rule in rules.items() if rule}


def _digest(mask: Mask) -> str:
    return hmac.new(mask.text.encode(), b"dpone transform", "sha256").hexdigest()
