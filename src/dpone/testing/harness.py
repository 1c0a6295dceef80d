"""What the kit needs of a system: a disposable place that it fills, breaks and reads back without dpone.

A connector names its harness in `Connector.harness`. The class lives in the connector's own folder and imports nothing
of the kit; it talks to its system through the vendor's driver, never through the connector that is being judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

Role = Literal["source", "sink"]
Address = tuple[str, int]
Row = tuple[Any, ...]
"""A row of the sample table, as Python values in the order of `SAMPLE`."""

SAMPLE: Mapping[str, str] = {
    "id": "int32",
    "name": "text",
    "amount": "decimal(12,2)",
    "active": "boolean",
    "day": "date",
    "at": "timestamptz",
    "score": "float64",
}
"""The columns of the sample table with their canonical types. `id` is its key, `at` grows and is its cursor."""


@runtime_checkable
class Harness(Protocol):
    """One empty place of a system, for one test. The kit makes two of them, one for each end of a route.

    `served` says what stands for the system; a fake certifies nothing. `variants` are names of forms that are
    judged one by one (file formats); a system without them has one, the empty name. `native` maps the columns of
    `SAMPLE` to the system's own types. `address` is where the server listens, None for a system without one.
    Raises ConfigError when the system is not installed here, with the command that installs it.
    """

    served: ClassVar[Literal["real", "emulated", "fake"]]
    variants: ClassVar[tuple[str, ...]]
    native: ClassVar[Mapping[str, str]]
    version: str
    address: Address | None

    def __init__(self, folder: Path, variant: str = "") -> None:
        """Make the place. Whatever is stored in files is below `folder`, which exists and is empty."""

    def close(self) -> None:
        """Take everything away."""

    def endpoint(self, role: Role, *, address: Address | None = None) -> dict[str, Any]:
        """The settings as a mapping of a manifest, `connector` included; through another address if one is given."""

    def mistakes(self, role: Role) -> Mapping[str, tuple[dict[str, Any], str]]:
        """Settings that cannot work, by what is wrong, each with the category of the error that must come.

        Those that a system can have: `host`, `database`, `password`, `privilege`, `folder`, `damaged`.
        """

    def stream(self, table: str) -> str:
        """The name of a table in the manifest, as the source lists it."""

    def setup(self, statements: Sequence[str]) -> None:
        """Run statements of the system's own language, such as the `setup` of its case file, each on its own."""

    def put(self, table: str, rows: Sequence[Row]) -> None:
        """Make the sample table hold exactly these rows, in one act that other sessions see whole or not at all."""

    def create(
        self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[str]] = (), key: Sequence[str] = ()
    ) -> None:
        """Make a table of native types, and fill it with literals as the type cases write them."""

    def rows(self, table: str, columns: Sequence[str] = ()) -> list[Row]:
        """What a table holds, in the given columns or all of them, in no order.

        A value is None, a Python value of the canonical type, or its text in the form that `texts.parse` reads.
        """

    def texts(self, table: str, columns: Sequence[str]) -> list[tuple[str | None, ...]]:
        """The system's own, unambiguous text of every value; for a comparison between two places of one system."""

    def types(self, table: str) -> dict[str, str]:
        """The native type of each column of a table, as the system names it."""

    def debris(self) -> list[str]:
        """Staging tables, staged files and lock files that are there; none is right when no run is going on."""


@runtime_checkable
class Transactional(Protocol):
    """A harness of a system whose transactions run side by side."""

    def late(self, table: str, rows: Sequence[Row]) -> AbstractContextManager[None]:
        """Insert rows in a transaction that stays open inside the block and commits at its end."""


@runtime_checkable
class Restartable(Protocol):
    """A harness of a server that can be restarted while a run goes on."""

    def restart(self) -> None:
        """Stop the server as a crash would, and start it again at the same address."""


@runtime_checkable
class Confinable(Protocol):
    """A harness of a server: its tables can be put on a small disk. Others store everything in their folder."""

    def confine(self, folder: Path) -> AbstractContextManager[None]:
        """New tables of this place are stored below `folder`, a disk that will be full, until the block ends."""


@runtime_checkable
class KeepsState(Protocol):
    """A harness of a sink that keeps dpone's state in a form of its own, not in the tables of `dpone.sql.state`."""

    def damage(self, how: str) -> None:
        """Damage the state of every stream: `garbage`, `truncated`, or of a `newer` layout."""

    def backup(self, what: Literal["target", "state"], table: str) -> Callable[[], None]:
        """Copy a target, or the state of every stream; the function that comes back puts the copy in its place."""

    def empty(self, table: str) -> None:
        """Take every row out of a target, as one who is told to would."""


def sample_rows(numbers: Iterable[int], version: int = 0, minute: int | None = None) -> list[Row]:
    """Rows of the sample table with every awkward value: NULL, '', quotes, line ends, other scripts, ties of `at`.

    `version` changes every row but its key; `minute` sets the minute of `at`, which otherwise grows with the number.
    """
    made: list[Row] = []
    for n in numbers:
        at = datetime(2024, 3, 10, 1, (n // 3) % 60 if minute is None else minute, 0, n // 3, tzinfo=UTC)
        made.append(
            (
                n,
                _NAMES[(n + version) % len(_NAMES)],
                None if n % 11 == 0 else Decimal(n * 100 + version * 7 + 1) / 100 * (-1 if n % 2 else 1),
                None if n % 13 == 0 else n % 2 == 0,
                None if n % 17 == 0 else date(1999 + n % 40, 1 + n % 12, 1 + n % 28),
                at,
                None if n % 19 == 0 else (n + version) / 7,
            )
        )
    return made


_NAMES = (None, "", "plain", 'with "quotes"', "two\nlines", "comma, semi;", "Żółć 東京", "NULL", "\\N", " blank ")
