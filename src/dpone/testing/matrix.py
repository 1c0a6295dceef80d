"""The matrix of types: every type of a source into every sink, executed, and compared with what the case files say.

For one source and one sink, `run_matrix` makes one table that holds every case of the source, and then

    plans it      columns that are refused, or lossy, must stop the plan by their names; the others must have the
                  fidelity and the stored type that the case files say
    runs it       with a digest as proof, and reads the sink back with its harness: every value must be there
    breaks it     each odd value, and each that the sink has no room for, alone in a table: the run must stop, name the
                  column, and leave the target as it was

What went wrong is in `Cell.problems`; nothing raises but a harness that fails. Values of the case files are no
secrets, so problems show them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import dpone
from dpone.arrow.fidelity import worst
from dpone.engine.columns import ColumnPlan
from dpone.sdk import Fidelity
from dpone.testing.cases import Case, Cases, Stored
from dpone.testing.harness import Harness
from dpone.testing.texts import coarser, normal, parse

_NAMED = re.compile(r"(?:^|[:;] )(c\d+): ")
_COLUMN = re.compile(r"\b(c\d+)\b")
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class End:
    """One end of a route: a connector and its variant, a place of that system, and the case file."""

    connector: str
    harness: Harness
    cases: Cases
    variant: str = ""

    @property
    def name(self) -> str:
        """What the matrix calls it, as the case file is called: `postgres`, `files-csv`."""
        return f"{self.connector}-{self.variant}" if self.variant else self.connector


@dataclass(frozen=True, slots=True)
class Cell:
    """What was executed of one case of `source` into `sink`.

    `fidelity` is what the plan said, `expected` what the case files say. `arrived` counts the values that were read
    back equal, NULL included, and `stopped` those that stopped the run as they must.
    """

    source: str
    sink: str
    case: str
    type: str
    canonical: str
    expected: Fidelity
    fidelity: Fidelity | Literal[""] = ""
    stored: str = ""
    arrived: int = 0
    stopped: int = 0
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything was as expected."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The cell as evidence holds it."""
        return {**asdict(self), "problems": list(self.problems), "ok": self.ok}


def expected(case: Case, source: str, sink: str, sink_cases: Cases) -> Fidelity:
    """The fidelity of a case between two connectors: exact where the type is kept, else the worst of both steps."""
    if source == sink and sink_cases.keeps != "nothing" and case.kept != "no":
        return "exact" if case.kept == "yes" else "refused"
    if case.fidelity == "refused":
        return "refused"
    return worst(case.fidelity, sink_cases.stored(case.canonical).fidelity)


def run_matrix(source: End, sink: End, folder: Path, *, odd: bool = True) -> tuple[Cell, ...]:
    """Execute every case of `source` that its version has, into `sink`. `folder` is for the records of the runs.

    Values that the source itself has no form for stop a run before the sink is touched: one sink tells as much as all
    of them, so `odd` may leave them out.
    """
    source.harness.setup(source.cases.setup)
    if source.connector == sink.connector:
        sink.harness.setup(source.cases.setup)
    known = [case for case in source.cases.cases if case.known_to(source.harness.version)]
    together = [case for case in known if not case.alone]
    routes = [
        _Route(source, sink, folder, number, found, odd=odd)
        for number, found in enumerate([together, *([case] for case in known if case.alone)])
    ]
    for route in routes:
        route.run()
    cells = {column.case.id: column.cell() for route in routes for column in route.columns}
    return tuple(cells[case.id] for case in known)


class _Column:
    """A case as a column of the table, and what becomes of it."""

    def __init__(self, name: str, case: Case, route: _Route) -> None:
        source, sink = route.source, route.sink
        self.name, self.case, self.route = name, case, route
        self.expected = expected(case, source.connector, sink.connector, sink.cases)
        same = source.connector == sink.connector and sink.cases.keeps != "nothing"
        self.kept = same and case.kept == "yes"
        self.stored: Stored | None = None
        if self.expected != "refused" and not self.kept:
            self.stored = sink.cases.stored(case.canonical)
        everything = self.kept and sink.cases.keeps == "all"
        room = [pair for pair in case.values if self.stored is None or self.stored.holds(case.canonical, pair[1])]
        self.values: list[tuple[str, str | None]] = [*room, *((odd, None) for odd in case.odd if everything)]
        self.stops: list[tuple[str, str | None]] = [
            *(pair for pair in case.values if pair not in room),
            *((odd, None) for odd in case.odd if route.odd and not everything and self.expected != "refused"),
        ]
        self.fidelity: Fidelity | Literal[""] = ""
        self.native = self.read_as = ""
        self.arrived = self.stopped = 0
        self.left_out = False
        self.problems: list[str] = []

    def wrong(self, what: str) -> None:
        """Note a problem."""
        self.problems.append(what)

    def literal(self, row: int) -> str:
        """The literal of a row; NULL after the last value."""
        return self.values[row][0] if row < len(self.values) else self.route.source.cases.null

    @property
    def undigested(self) -> bool:
        """Whether a digest cannot prove it: lists but of integers, booleans and text, and what storing alters."""
        plain = re.fullmatch(r"list<(u?int\d+|boolean|text)>", self.read_as)
        return self.expected == "lossy" or (self.read_as.startswith("list<") and plain is None)

    def decided(self, plan: ColumnPlan) -> None:
        """Compare what the plan says with what the case files say."""
        self.fidelity, self.native, self.read_as = plan.fidelity, plan.sink_type, plan.type
        if plan.fidelity != self.expected:
            self.wrong(f"the plan says {plan.fidelity}, and the case files say {self.expected}")
        if plan.type != self.case.canonical and not self.kept:
            self.wrong(f"it is read as {plan.type}, and the case files say {self.case.canonical}")
        if self.stored is not None and plan.sink_type != self.stored.type:
            self.wrong(f"it is stored as {plan.sink_type}, and the case files say {self.stored.type}")

    def check(self, row: int, value: Any) -> None:
        """Compare what a row of the sink holds with the value of the case."""
        self._found(row, value, same=self._is(self.values[row][1] if row < len(self.values) else None, value))

    def check_text(self, row: int, source: str | None, sink: str | None) -> None:
        """Compare the texts that two places of one system have of a value."""
        self._found(row, sink, same=source == sink)

    def check_failure(self, literal: str, failure: Mapping[str, Any]) -> None:
        """A value must stop the run by an error of data, with the name of the column."""
        if failure["category"] != "data":
            self.wrong(f"{_cut(literal)} stopped the run as {failure['category']}, not data: {failure['message']}")
        elif not re.search(rf"\b{self.name}\b", f"{failure['message']} {failure['where']}"):
            self.wrong(f"{_cut(literal)} stopped the run without the name of its column: {failure['message']}")
        else:
            self.stopped += 1

    def check_arrival(self, literal: str, text: str | None, held: Any, tables: tuple[str, str]) -> None:
        """A value that must stop the run and did not: only where types are kept may it arrive as it was."""
        value = held[0][1] if isinstance(held, list) and len(held) == 1 else held
        if self.kept:
            ends = zip((self.route.source, self.route.sink), tables, strict=True)
            source, sink = (end.harness.texts(table, [self.name]) for end, table in ends)
            same = source == sink
        else:
            same = text is not None and self._is(text, value)
        if same and self.kept:
            self.arrived += 1
        elif same:
            self.wrong(f"{_cut(literal)} arrived as it was, and the case files say that it stops the run")
        else:
            self.wrong(f"{_cut(literal)} arrived as {_cut(repr(value))}, altered without an error")

    def _is(self, text: str | None, value: Any) -> bool:
        """Whether a value that a harness read is the value of a text, or what the sink is said to keep of it."""
        canonical = self.case.canonical
        want = None if text is None else parse(canonical, text)
        try:
            if self.stored is not None and self.stored.keeps:
                want, canonical = coarser(canonical, self.stored.keeps, want), self.stored.keeps
            found = normal(canonical, value)
        except ValueError:
            return False
        return bool((type(want), want) == (type(found), found))  # not == alone: to Python, True equals 1

    def _found(self, row: int, value: Any, *, same: bool) -> None:
        if same:
            self.arrived += 1
        else:
            self.wrong(f"{_cut(self.literal(row))} arrived as {_cut(repr(value))}, altered without an error")

    def cell(self) -> Cell:
        """The result."""
        return Cell(
            source=self.route.source.name,
            sink=self.route.sink.name,
            case=self.case.id,
            type=self.case.type,
            canonical=self.case.canonical,
            expected=self.expected,
            fidelity=self.fidelity,
            stored=self.native,
            arrived=self.arrived,
            stopped=self.stopped,
            problems=tuple(self.problems),
        )


class _Route:
    """A source and a sink, the columns between them, and the manifests that move them."""

    def __init__(self, source: End, sink: End, folder: Path, number: int, cases: Sequence[Case], *, odd: bool) -> None:
        self.source, self.sink, self.folder, self.odd = source, sink, folder, odd
        self.table = f"types{number}"
        self.columns = [_Column(f"c{number}", case, self) for number, case in enumerate(cases)]
        self.rows = max((len(column.values) for column in self.columns), default=0) + 1
        self.tries, self.target = 0, ""

    def run(self) -> None:
        """Everything, in order. What fails for one column leaves it out of what follows."""
        self.fill()
        moving = self.move(self.plan())
        if moving:
            self.compare(moving)
        self.stop([column for column in self.columns if not column.left_out])

    def manifest(self, streams: Mapping[str, Any]) -> dict[str, Any]:
        """A manifest of these tables of the source, by name, with their settings."""
        return {
            "version": 1,
            "pipeline": "types",
            "source": self.source.harness.endpoint("source"),
            "sink": self.sink.harness.endpoint("sink"),
            "streams": {
                self.source.harness.stream(table): {"write": "replace", "proof": "digest", **settings}
                for table, settings in streams.items()
            },
        }

    def of(self, moving: Sequence[_Column], target: str) -> dict[str, Any]:
        """The manifest of the one table, with these of its columns."""
        lossy = [column.name for column in moving if column.expected == "lossy"]
        columns = {"include": ["id", *(column.name for column in moving)]}
        if lossy:
            columns["allow_lossy"] = lossy
        return self.manifest({self.table: {"target": target, "columns": columns}})

    def fill(self) -> None:
        """Make the one table: a row for each value of the case that has most, and one of NULL alone."""
        rows = [[str(row), *(column.literal(row) for column in self.columns)] for row in range(self.rows)]
        types = {column.name: column.case.type for column in self.columns}
        self.source.harness.create(self.table, {"id": self.source.harness.native["id"], **types}, rows, ["id"])

    def plan(self) -> list[_Column]:
        """Plan without any permission, and then with those that are due; what the plan takes in the end."""
        [preview] = dpone.plan(self.manifest({self.table: {"target": self.table}})).streams
        named = set(_NAMED.findall(preview.refusal.message)) if preview.refusal else set()
        if preview.refusal and not named:
            raise preview.refusal
        moving = []
        for column in self.columns:
            due = column.expected in ("lossy", "refused")
            if due and column.name not in named:
                column.wrong(f"the plan takes a column that is {column.expected}")
            if not due and column.name in named:
                column.wrong("the plan does not take it")
            if column.name in named and column.expected != "lossy":
                column.fidelity, column.left_out = "refused", True
            else:
                moving.append(column)
        while moving:
            [preview] = dpone.plan(self.of(moving, self.table)).streams
            if preview.plan is not None:
                planned = {decided.name: decided for decided in preview.plan.columns}
                for column in moving:
                    column.decided(planned[column.name])
                break
            why = preview.refusal.message if preview.refusal else ""
            moving = _without(moving, why, f"the plan does not take it: {why}")
        return moving

    def move(self, moving: list[_Column]) -> list[_Column]:
        """Run, without the columns that stop the run and must not; those that arrived."""
        while moving:
            failure, proof = self._try(moving)
            if not failure:
                self.proven(moving, proof)
                break
            bad = [column for column in moving if column.name in _COLUMN.findall(failure)]
            bad = bad or self._culprits(moving, failure)
            for column in bad:
                column.left_out = True
                column.wrong(f"the run stopped: {failure}")
            moving = [column for column in moving if column not in bad]
        return moving

    def _try(self, moving: Sequence[_Column]) -> tuple[str, Mapping[str, Any]]:
        """Move these columns to a new target: why it failed, or an empty text and the proof."""
        self.tries += 1
        self.target = f"{self.table}_{self.tries}"
        [stream] = self._run(self.of(moving, self.target)).streams
        failure = stream.failure
        return f"{failure['message']} {failure['where']}".strip() if failure else "", stream.proof

    def _culprits(self, moving: Sequence[_Column], failure: str) -> list[_Column]:
        """One column that fails by itself, found by halves, of those that fail without a name; all if none does."""
        suspects = list(moving)
        while len(suspects) > 1:
            first, second = suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]
            suspects = next((half for half in (first, second) if self._try(half)[0] == failure), [])
        return suspects or list(moving)

    def proven(self, moving: Sequence[_Column], proof: Mapping[str, Any]) -> None:
        """Note what should be proven and is not."""
        if proof["verdict"] == "proven":
            return
        named = set(_COLUMN.findall(proof["reason"]))
        for column in moving:
            if not named or (column.name in named and not column.undigested):
                column.wrong(f"the run is {proof['verdict']}: {proof['reason']}")

    def compare(self, moving: Sequence[_Column]) -> None:
        """Read the sink back, and compare every value; of kept columns the systems' own texts."""
        names = [column.name for column in moving]
        kept = [column.name for column in moving if column.kept]
        values = dict(zip(names, _columns(self.sink.harness.rows(self.target, ["id", *names])), strict=True))
        before, after = (
            dict(zip(kept, _columns(end.harness.texts(table, ["id", *kept])), strict=True)) if kept else {}
            for end, table in ((self.source, self.table), (self.sink, self.target))
        )
        for column in moving:
            found = after[column.name] if column.kept else values[column.name]
            if len(found) != self.rows:
                column.wrong(f"{len(found)} rows arrived, of {self.rows}")
                continue
            for row in range(len(column.values) + 1):
                if column.kept:
                    column.check_text(row, before[column.name][row], found[row])
                else:
                    column.check(row, found[row])

    def stop(self, columns: Sequence[_Column]) -> None:
        """Move each value that must stop the run alone, onto a target that holds another value of its case.

        The n-th values of all cases go together, as streams of one run: a stream that fails leaves the others alone.
        """
        columns = [column for column in columns if column.stops]
        self.alone("first", {column: column.literal(0) for column in columns})
        before = {column: self.held(column) for column in columns}
        for number in range(max((len(column.stops) for column in columns), default=0)):
            there = {column: column.stops[number] for column in columns if number < len(column.stops)}
            failures = self.alone(f"odd{number}", {column: literal for column, (literal, _) in there.items()})
            for column, (literal, text) in there.items():
                failure = failures[column]
                if failure is not None:
                    column.check_failure(literal, failure)
                    continue
                before[column] = self.held(column)
                tables = self._alone(f"odd{number}", column), self._alone("target", column)
                column.check_arrival(literal, text, before[column], tables)
        for column in columns:
            if repr(before[column]) != repr(self.held(column)):
                column.wrong("a run that stopped changed the target")

    def alone(self, name: str, literals: Mapping[_Column, str]) -> dict[_Column, Mapping[str, Any] | None]:
        """Move one value of each column, each from a table of its own to the target of its column; the failures."""
        if not literals:
            return {}
        streams = {}
        for column, literal in literals.items():
            types = {"id": self.source.harness.native["id"], column.name: column.case.type}
            self.source.harness.create(self._alone(name, column), types, [["1", literal]], ["id"])
            lossy = {"columns": {"allow_lossy": [column.name]}} if column.expected == "lossy" else {}
            streams[self._alone(name, column)] = {"target": self._alone("target", column), **lossy}
        found = {stream.stream: stream.failure for stream in self._run(self.manifest(streams)).streams}
        return {column: found[self.source.harness.stream(self._alone(name, column))] for column in literals}

    def held(self, column: _Column) -> Any:
        """What the target of a column's lone values holds now; the name of the error when it cannot be read."""
        try:
            return self.sink.harness.rows(self._alone("target", column), ["id", column.name])
        except Exception as error:  # noqa: BLE001 - whatever a driver raises for a table that is not there
            return type(error).__name__

    def _alone(self, name: str, column: _Column) -> str:
        return f"{self.table}_{column.name}_{name}"

    def _run(self, manifest: Mapping[str, Any]) -> dpone.RunResult:
        """One stream after the other: it is values that are judged here, not what two streams do to each other."""
        return dpone.run(manifest, store=self.folder, threads=1)


def _without(moving: Sequence[_Column], message: str, why: str) -> list[_Column]:
    """The columns that a message does not name; the others get the problem, and all do when it names none."""
    named = set(_COLUMN.findall(message))
    struck = [column for column in moving if column.name in named] or list(moving)
    for column in struck:
        column.left_out = True
        column.wrong(why)
    return [column for column in moving if column not in struck]


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The columns of rows whose first value is their number, in the order of it, without it."""
    ordered = sorted(rows, key=lambda row: int(row[0]))
    return [list(column) for column in zip(*ordered, strict=True)][1:]


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
