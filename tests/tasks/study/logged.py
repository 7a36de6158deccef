"""`python -m tests.tasks.study.logged LOG WORDS...`: the ieadapt program, which notes every cell that it stores."""

from __future__ import annotations

import sys
from pathlib import Path

from ieadapt.cli import main
from ieadapt.runs.cells import CellRow, CellStore

_write = CellStore.write


def _noted(store: CellStore, row: CellRow) -> None:
    _write(store, row)
    with Path(sys.argv[1]).open("a") as log:
        log.write(f"{row.key}\n")


if __name__ == "__main__":
    CellStore.write = _noted  # type: ignore[method-assign]
    sys.exit(main(sys.argv[2:]))
