"""The memory connector: Arrow tables of this process as source and sink, with scripted deaths and lies.

It is the reference for what the interfaces mean, small and without any SQL; the kit puts it at the other end of the
connector it judges. Tables live in a `Place`, which a manifest names: `{connector: memory, place: NAME}`.
"""

from __future__ import annotations

from dpone.sdk.connector import FULL, Capability, Connector, Support

connector = Connector(
    name="memory",
    title="Memory (for tests)",
    schemes=("memory",),
    config="dpone.testing.memory.place:MemoryConfig",
    source="dpone.testing.memory.source:MemorySource",
    sink="dpone.testing.memory.sink:MemorySink",
    harness="dpone.testing.memory.harness:MemoryHarness",
    capabilities={
        **dict.fromkeys(Capability, FULL),
        Capability.READ_FILTER: Support(
            "not_implemented", "a table in memory has no query language", "filter the table before it is put there"
        ),
        Capability.WRITE_HOOKS: Support("not_implemented", "tables in memory know no SQL", "a database as the sink"),
        Capability.READ_CAST: Support(
            "not_implemented", "a table in memory has the types that it was made with", "cast it with pyarrow"
        ),
    },
)
"""What the entry point `memory` gives."""
