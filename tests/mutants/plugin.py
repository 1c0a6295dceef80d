"""Seeds the bug that DPONE_MUTANT names into the process that runs the kit, and into those that it forks."""

from __future__ import annotations

import os

from tests.mutants.bugs import BUGS

if name := os.environ.get("DPONE_MUTANT"):
    BUGS[name].patch()
