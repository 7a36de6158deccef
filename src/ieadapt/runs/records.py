"""Records of experiments: rows with what is needed to judge them and to run them again."""

from __future__ import annotations

import datetime
import json
import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ieadapt.functional import EP_DEFINITION
from ieadapt.runs import environment

Value = str | int | float | bool | None


def experiment(
    name: str,
    command: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    notes: str = "",
    machine: Mapping[str, Value] | None = None,
    versions: Mapping[str, str] | None = None,
) -> str:
    """The rows of one experiment with the command, date, machine, versions and commit, as JSON.

    Args:
        name: lower case and dashes.
        command: the command line that made the rows.
        rows: flat mappings with the same meaning per key in every row; NaN and infinity are refused.
        notes: what a reader must know (seeds, split, what was compared), in a sentence or two.
        machine: the machine that made the rows, when that is not this one.
        versions: of Python and the packages there, in that case.

    Raises:
        ValueError: no rows, or a number that is not finite.

    Example:
        >>> json.loads(experiment("speed", "make bench", [{"site": "a", "seconds": 0.5}]))["rows"]
        [{'site': 'a', 'seconds': 0.5}]
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
        "ep_definition": EP_DEFINITION,
        "rows": [dict(row) for row in rows],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def commit() -> str:
    """The commit of the checkout this runs from, with `+changes` when tracked files differ from it.

    "unknown" where the package is not part of a checkout. `IEADAPT_COMMIT` says it for a copy of the tree that
    travelled without its history.
    """
    here = Path(__file__)

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=False)  # noqa: S603, S607
        return done.stdout.strip() if done.returncode == 0 else None

    if told := os.environ.get("IEADAPT_COMMIT"):
        return told
    head = git("rev-parse", "--short=12", "HEAD") if git("ls-files", "--error-unmatch", here.name) else None
    if head is None:
        return "unknown"
    return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def _storable(value: Value) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
