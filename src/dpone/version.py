"""The version of dpone."""

__version__ = "1.0.0a1"
