"""Faults on demand: a network that breaks, a process that dies, a clock that is wrong, a disk that is full.

Each is a function or a context manager, leaves nothing behind, and strikes at a place that has a number, so that a
test can walk all of them.

    Proxy           cuts, stalls, refuses and slows TCP connections, at the byte it is told to
    killed_at       kills a command at its N-th system call; `walk` tries every N, `count` says how many there are
    run_child       a run that dies at its N-th event, act on files, or call of a method
    standing_child  a run that stands still there, until it is woken
    moved_clock     dpone's clock, wrong by so many seconds
    run_limited     a command with so much memory
    small_disk      a folder that is full after so many bytes

The proxy and the clock work everywhere, the others on Linux; where something is missing they raise ConfigError.
"""

from __future__ import annotations

from dpone.testing.faults.child import Outcome, Points, run_child, standing_child
from dpone.testing.faults.clock import MovedClock, moved_clock
from dpone.testing.faults.kill import Death, DponeCommand, count, killed_at, sampled, walk
from dpone.testing.faults.limits import Limited, run_limited, small_disk
from dpone.testing.faults.proxy import Direction, Proxy
from dpone.testing.faults.trap import MUTATING, Calls

__all__ = [
    "MUTATING",
    "Calls",
    "Death",
    "Direction",
    "DponeCommand",
    "Limited",
    "MovedClock",
    "Outcome",
    "Points",
    "Proxy",
    "count",
    "killed_at",
    "moved_clock",
    "run_child",
    "run_limited",
    "sampled",
    "small_disk",
    "standing_child",
    "walk",
]
