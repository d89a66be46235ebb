"""The command line: one module per verb; a verb is a typed function whose docstring is its help text."""

from closerlook.cli.entry import main

__all__ = ["main"]
