"""Recorded results: one JSON file per experiment, with what is needed to judge it and to run it again.

`benchmarks/results/NAME.json` holds `name`, `command`, `date`, `commit`, `machine`, `versions`, `notes` and `rows`: a
list of flat mappings. Tables and figures are made from these files by `benchmarks.tables`; nothing is typed by hand.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ieadapt.runs import environment

FOLDER = Path(__file__).parent / "results"

Value = str | int | float | bool | None


def record(
    name: str,
    command: str,
    rows: Sequence[Mapping[str, Value]],
    *,
    notes: str = "",
    machine: Mapping[str, Value] | None = None,
    versions: Mapping[str, str] | None = None,
    folder: Path = FOLDER,
) -> Path:
    """Write the rows of one experiment with the command, date, machine, versions and commit.

    Args:
        name: file name without suffix, lower case and dashes.
        command: the command line that made the rows, from the root of the repository.
        rows: flat mappings with the same meaning per key in every row; NaN and infinity are refused.
        notes: what a reader must know (seeds, split, what was compared), in a sentence or two.
        machine: the machine that made the rows, when that is not this one.
        versions: of Python and the packages there, in that case.
        folder: where the file goes.

    Returns:
        The path of the file.

    Raises:
        ValueError: no rows, or a number that is not finite.

    Example:
        >>> import tempfile
        >>> path = record("speed", "make bench", [{"site": "a", "seconds": 0.5}], folder=Path(tempfile.mkdtemp()))
        >>> load("speed", folder=path.parent)["rows"][0]["seconds"]
        0.5
    """
    if not rows:
        raise ValueError(f"record {name!r} has no rows")
    bad = [(index, key) for index, row in enumerate(rows) for key, value in row.items() if not _storable(value)]
    if bad:
        raise ValueError(f"record {name!r} holds values that are not finite at (row, key) {bad[:5]}")
    content = {
        "name": name,
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "machine": dict(machine) if machine is not None else environment.machine(),
        "versions": dict(versions) if versions is not None else environment.versions(),
        "notes": notes,
        "rows": [dict(row) for row in rows],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    partial = path.with_suffix(".json.part")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    partial.replace(path)
    return path


def load(name: str, *, folder: Path = FOLDER) -> dict[str, Any]:
    """Read the record of that name.

    Raises:
        FileNotFoundError: no such record; the message lists those there are.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.json"))) or "none"
        raise FileNotFoundError(f"no record {name!r} in {folder}; there are: {known}")
    return json.loads(path.read_text())


def commit() -> str:
    """The commit of the working tree, with `+changes` when tracked files differ from it; "unknown" outside git.

    `IEADAPT_COMMIT` says it for a copy of the tree that travelled without its history.
    """

    def git(*arguments: str) -> str | None:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    if told := os.environ.get("IEADAPT_COMMIT"):
        return told
    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return "unknown"
    return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def _storable(value: Value) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
