"""The command line: thin commands over the functions of `ieadapt.tasks`."""

from ieadapt.cli.main import main

__all__ = ["main"]
