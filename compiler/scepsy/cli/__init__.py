"""The command line: thin commands that read, call and print."""

from scepsy.cli.main import main

__all__ = ["main"]
