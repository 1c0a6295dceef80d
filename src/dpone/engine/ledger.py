"""The ledger of one load: what was read, what the sink now holds, and whether they agree.

The source side is counted and digested in flight, over the batches that the source gave. The sink side is read back
from the sink inside the publishing transaction. Nothing is committed unless the strategy's equations hold; with
`proof: digest` the contents must agree too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dpone.arrow.batches import conform
from dpone.arrow.digest import ALGORITHM, Digester, undigestible
from dpone.engine.plan import StreamPlan
from dpone.errors import DataError, InternalError
from dpone.sdk import Digest, Reading, Results, Slice
from dpone.strategy import STRATEGIES, Balance
from dpone.transform.reading import TransformedReading

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(slots=True)
class Flow:
    """Rows, bytes and batches of one slice on their way from the source to the sink.

    With a transform, `read` counts the rows of the source, `filtered` those that were left out; `rows` came through.
    """

    rows: int = 0
    bytes: int = 0
    batches: int = 0
    read: int | None = None
    filtered: int = 0


@dataclass
class Ledger:
    """Collects the source side while a load runs, and judges the sink side at its end."""

    plan: StreamPlan
    flows: dict[int, Flow] = field(default_factory=dict)
    digests: dict[int, Digest] = field(default_factory=dict)
    balance: Balance | None = None

    def watch(self, piece: Slice, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches of a slice, counted and (for a proof by digest) digested as they pass.

        They come out as the columns were described, whatever encoding the source gave them in. Raises InternalError
        when they are anything else.
        """
        columns = self.plan.schema.columns
        kept = [index for index, column in enumerate(columns) if not undigestible(column)]
        digester = Digester(tuple(columns[index] for index in kept)) if self.plan.proof == "digest" else None
        flow = self.flows[piece.ordinal] = Flow()
        for batch in conform(batches, columns):
            flow.rows += batch.num_rows
            flow.bytes += batch.nbytes
            flow.batches += 1
            if digester is not None:
                digester.add(batch if len(kept) == len(columns) else batch.select(kept))
            yield batch
        if digester is not None:
            self.digests[piece.ordinal] = digester.total

    def resumed(self, piece: Slice, rows: int, digest: Digest | None) -> None:
        """A slice that was durable before this run; `digest` is the source's own, taken under today's snapshot."""
        self.flows[piece.ordinal] = Flow(rows)
        if digest is not None:
            self.digests[piece.ordinal] = digest

    def left_out(self, piece: Slice, reading: Reading) -> None:
        """Take over what a transform counted while a slice was read."""
        passed = reading.passed.get(piece.ordinal) if isinstance(reading, TransformedReading) else None
        if passed is not None:
            flow = self.flows[piece.ordinal]
            flow.read, flow.filtered = passed.read, passed.filtered

    @property
    def rows(self) -> int:
        """Rows read, resumed slices included."""
        return sum(flow.rows if flow.read is None else flow.read for flow in self.flows.values())

    @property
    def filtered(self) -> int:
        """Rows that a transform left out."""
        return sum(flow.filtered for flow in self.flows.values())

    @property
    def source(self) -> Digest:
        """The digest of what was read."""
        return sum(self.digests.values(), Digest())

    def check(self, results: Results) -> Balance:
        """The balance of a publication. Raises, before anything is visible, when it does not hold."""
        plan = self.plan
        balance = self.balance = STRATEGIES[plan.write].balance(self.rows - self.filtered, results)
        if plan.filters:
            balance = self.balance = balance.with_filtered(self.rows, self.filtered)
        if balance.null_keys:
            raise DataError(
                f"{balance.null_keys} rows of {plan.stream} have no value in the key {', '.join(plan.primary_key)}",
                remedy="choose a primary_key without NULLs, or filter those rows out",
                code="DP413",
            )
        if not balance.holds:
            broken = "; ".join(str(equation) for equation in balance.equations if not equation.holds)
            raise InternalError(
                f"the ledger of {plan.stream} does not balance: {broken}",
                remedy="nothing was committed. For merge, check that the key is unique in the target; else report it",
                code="DP901",
            )
        if plan.write == "replace" and not balance.staged and balance.before and not plan.allow_empty:
            why = "has no row that passes its transform" if self.filtered else "is empty at the source"
            raise DataError(
                f"{plan.stream} {why}; replacing would remove {balance.before:,} rows",
                remedy="if that is meant, set allow_empty: true on the stream",
                code="DP412",
            )
        if plan.proof == "digest" and balance.sink is not None and balance.sink != self.source:
            raise InternalError(
                f"the contents of {plan.stream} differ: source {self.source}, sink {balance.sink}",
                remedy="nothing was committed; report it with the column types of the table",
                code="DP902",
            )
        return balance

    def proof(self) -> dict[str, Any]:
        """The proof as the run record holds it."""
        plan, balance = self.plan, self.balance
        scope: Literal["table", "window"] = "table" if plan.write == "replace" else "window"
        proof: dict[str, Any] = {"level": plan.proof, "scope": scope, "algorithm": None, "source": None, "sink": None}
        if balance is None or plan.proof == "none":
            return {**proof, "verdict": "unproven", "reason": "no proof was asked for" if balance else "not committed"}
        if plan.proof == "counts":
            return {
                **proof,
                "algorithm": "counts",
                "source": str(self.rows - self.filtered),
                "sink": str(balance.staged),
                "verdict": "proven",
                "reason": "",
            }
        proof |= {"algorithm": ALGORITHM, "source": str(self.source), "sink": str(balance.sink)}
        gaps = "; ".join(plan.gaps)
        return {**proof, "verdict": "unproven" if gaps else "proven", "reason": gaps}
