"""The version of dpone."""

__version__ = "0.1.0"
