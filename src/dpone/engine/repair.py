"""Whether state and target belong together, and what to do when they do not.

The receipt of the last load says how many rows it left in the target, and what its greatest cursor value was. A cursor
load goes on from that receipt, so what the target says against it matters:

    the newest rows are gone      the target is older than its state: what lies between would never be read. Refused
    there are rows beyond         the state is older than its target, or somebody else writes there: an append would
                                  add them again. Refused for append; a merge finds them unchanged
    a receipt is known to be gone the state was restored alone. Refused
    fewer rows, the newest there  somebody deletes old rows. A note
    more rows, none beyond        somebody adds old rows, or the state is older: refused for append, a note otherwise

A load that reads everything (replace, a merge without a cursor, append_snapshot) does not go on from anywhere, and none
of this matters to it. Nor can it be judged while several pipelines write one target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dpone.errors import StateError
from dpone.sdk import Inspects, Receipt, Sink, Standing, Stands, StreamKey


def belongs(sink: Sink, key: StreamKey, receipt: Receipt | None, *, stream: str, write: str) -> list[str]:
    """Notes on how the target stands to the receipt that a cursor load goes on from.

    Raises StateError (DP503) when going on would lose rows, or add them twice.
    """
    if not isinstance(sink, Stands):
        return []
    wrong, notes = _judge(sink.standing(key, receipt), receipt, write)
    if wrong:
        raise StateError(
            f"state and target of {stream} do not belong together: {wrong}",
            remedy=f"dpone repair -s {stream} says what it would do, and does it",
            code="DP503",
        )
    return notes


def _judge(found: Standing, receipt: Receipt | None, write: str) -> tuple[str, list[str]]:
    """What is wrong, or nothing; and what is worth a note."""
    if found.missing:
        return "a load was committed whose receipt is gone", []
    if receipt is None or receipt.window.full or found.rows is None:
        return "", []
    if found.neighbours:
        return "", ["not compared with the last receipt: another pipeline writes this target too"]
    left = receipt.rows.get("final", 0)
    more = found.newer or found.rows > left
    beyond = f"the target holds rows that the last load did not leave there ({found.rows:,}, it left {left:,})"
    wrong, notes = "", []
    if left and not found.rows:
        wrong = f"the target is empty, and its last load left {left:,} rows"
    elif write == "append" and more:
        wrong = f"{beyond}; an append would add them again if they came from the source"
    elif found.newest is False and not found.newer:
        wrong = "the newest rows of the last load are gone: the target may be an older one"
    elif more:
        notes = [beyond]
    elif found.rows < left:
        notes = [f"{left - found.rows:,} rows were deleted from the target since the last load"]
    return wrong, notes


@dataclass(frozen=True, slots=True)
class Repair:
    """What is wrong with a stream, and what is done about it.

    `faults` are what is wrong, `acts` what is done, in words; `refusal` says why nothing can be done for the position,
    and what to do instead. `keep` is the receipt that will be the last one; `accept` notes the target's rows in it.
    """

    faults: tuple[str, ...] = ()
    acts: tuple[str, ...] = ()
    refusal: str = ""
    keep: Receipt | None = None
    accept: bool = False
    notes: tuple[str, ...] = ()


def examine(sink: Sink, key: StreamKey, *, cursor: str, write: str, accept: bool = False) -> Repair:
    """Find what is wrong with a stream. Reads the sink only, and changes nothing.

    `cursor` and `write` are those of the manifest, for streams whose receipts do not say. With `accept` the target is
    taken as it is, and the checkpoint stays.
    """
    if not isinstance(sink, Inspects) or not isinstance(sink, Stands):
        return Repair()
    state = sink.inspect(key)
    newest = state.receipts[0] if state.receipts else None
    standing = sink.standing(key, newest)
    if newest is not None:
        cursor, write = newest.extra.get("cursor", cursor), newest.extra.get("write", write)
    wrong, notes = _judge(standing, newest, write) if cursor else ("", [])
    faults, acts = list(state.faults), ["mend what the state is kept in"] if state.faults else []
    if state.damaged:
        faults.append(f"{state.damaged} receipt{'' if state.damaged == 1 else 's'} cannot be read")
        acts.append("remove the receipts that cannot be read")
    faults += [wrong] if wrong else []
    found = Repair(tuple(faults), tuple(acts), keep=newest, notes=tuple(notes))
    if not wrong and not (state.damaged and cursor):
        return found
    trusted = newest is not None and not state.damaged and not standing.missing
    if accept and newest is not None and trusted:
        words = (
            f"take the target as it is, and go on from the checkpoint of the load of {newest.committed_at}: "
            "what the source has after it is read by the next run"
        )
        return replace(found, acts=(*acts, words), accept=True)
    return _position(found, sink, key, state.receipts, standing, write, trusted=trusted)


def _position(
    found: Repair,
    sink: Stands,
    key: StreamKey,
    receipts: Sequence[Receipt],
    standing: Standing,
    write: str,
    *,
    trusted: bool,
) -> Repair:
    """Where the next run is to go on from, so that it makes the target exact."""
    if not standing.rows:  # None: there is no target
        words = "forget the receipts, since the target is empty or gone: the next run loads everything"
        return replace(found, keep=None, acts=(*found.acts, words))
    alike = [receipt for receipt in receipts if receipt.rows.get("final") == standing.rows and not receipt.window.full]
    same = [receipt for receipt in alike if _left_so(sink.standing(key, receipt))]
    if same:
        # Loads that changed no count and no mark: a merge may as well read again what they read.
        back = same[0] if write == "append" else same[-1]
        words = f"go back to the load of {back.committed_at}, which left the target as it is now"
        return replace(found, keep=back, acts=(*found.acts, words))
    if write != "append":
        if receipts and (standing.newest or standing.newer):
            words = f"go back to the load of {receipts[0].committed_at}: what came later is read and merged again"
            return replace(found, keep=receipts[0], acts=(*found.acts, words))
        words = "forget the receipts: the next run reads everything, and merges it into what is there"
        return replace(found, keep=None, acts=(*found.acts, words))
    refusal = (
        "nothing says which rows of the source the target has, so an append cannot go on: empty the target and "
        f"`dpone reset -s {key.stream}`, or load it with write: replace"
    )
    if trusted:
        refusal += (
            "; if somebody else wrote those rows, or deleted them on purpose, "
            f"`dpone repair -s {key.stream} --accept` keeps the checkpoint"
        )
    # Not even what cannot be read is removed: without it the stream would look as if it had never been loaded.
    return replace(found, acts=(), refusal=refusal)


def _left_so(found: Standing) -> bool:
    """Whether the target has the newest rows of the load, and none beyond them."""
    return found.newest is True and found.newer is False
