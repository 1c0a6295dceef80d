"""Seeded bugs that the certification kit has to find."""
