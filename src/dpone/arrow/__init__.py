"""Canonical types and the content digest."""
