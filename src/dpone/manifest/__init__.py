"""The manifest: one dialect of YAML, checked whole, with a position for every problem.

`dpone.manifest.load` reads and checks, `dpone.manifest.schema` describes it for editors, `dpone.manifest.yaml`
writes it, `dpone.manifest.select` picks streams. Importing this package imports nothing.
"""
