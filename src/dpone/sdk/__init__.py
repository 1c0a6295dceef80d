"""What a connector author imports: values, protocols, capabilities.

A connector is a `Connector` value found through the entry point group `dpone.connectors`. It makes a `Source`
and a `Sink` from its configuration. Arrow record batches are the only data that crosses the boundary.

    source.describe(stream)              -> StreamSchema    what is there, from the live system
    source.open(stream, schema, window)  -> Reading         one consistent snapshot of one window, cut into slices
      reading.read(slice)                -> record batches
    sink.claim(key, holder)              -> Claim           the lock; the last receipt and the open load behind it
      claim.begin(spec)                  -> Load            attaches to the open load, or creates it
        load.stage(slice, batches)       -> SliceReceipt    durable, idempotent, invisible to readers
        load.commit(check)               -> Receipt         data and receipt together

The interface grows by a field on a frozen value or a new one-method protocol, never by a method on these.
"""

from __future__ import annotations

from dpone.sdk.connector import Capability, Connector, Support, load_object
from dpone.sdk.protocols import (
    Claim,
    Comparable,
    Compares,
    ComparesTarget,
    Discover,
    Inspects,
    Load,
    Reading,
    Sink,
    Source,
    Stands,
    Types,
)
from dpone.sdk.values import (
    Column,
    Digest,
    Fidelity,
    Holder,
    LoadSpec,
    NativeType,
    OpenLoad,
    Receipt,
    Results,
    Slice,
    SliceReceipt,
    Standing,
    Step,
    Stream,
    StreamKey,
    StreamSchema,
    StreamState,
    Table,
    TargetSchema,
    Window,
    Write,
)

__all__ = [
    "Capability",
    "Claim",
    "Column",
    "Comparable",
    "Compares",
    "ComparesTarget",
    "Connector",
    "Digest",
    "Discover",
    "Fidelity",
    "Holder",
    "Inspects",
    "Load",
    "LoadSpec",
    "NativeType",
    "OpenLoad",
    "Reading",
    "Receipt",
    "Results",
    "Sink",
    "Slice",
    "SliceReceipt",
    "Source",
    "Standing",
    "Stands",
    "Step",
    "Stream",
    "StreamKey",
    "StreamSchema",
    "StreamState",
    "Support",
    "Table",
    "TargetSchema",
    "Types",
    "Window",
    "Write",
    "load_object",
]
