"""Recorded results: one JSON file per experiment, with what is needed to judge it and to run it again.

`benchmarks/results/NAME.json` holds `name`, `command`, `date`, `commit`, `machine`, `versions`, `notes` and `rows`: a
list of flat mappings. Tables and figures are made from these files by `benchmarks.tables`; nothing is typed by hand.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ieadapt.files import write_atomically
from ieadapt.functional import EP_DEFINITION
from ieadapt.runs.folder import versions as installed_versions

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
    content = experiment(name, command, rows, notes=notes, machine=machine, versions=versions)
    path = folder / f"{name}.json"
    write_atomically(path, content.encode())
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
        "machine": dict(machine) if machine is not None else this_machine(),
        "versions": dict(versions) if versions is not None else installed_versions(),
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
        done = subprocess.run(["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    if commit := os.environ.get("IEADAPT_COMMIT"):
        return commit
    head = git("rev-parse", "--short=12", "HEAD") if git("ls-files", "--error-unmatch", here.name) else None
    if head is None:
        return "unknown"
    return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def _storable(value: Value) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def this_machine() -> dict[str, str | int | None]:
    """This machine: processor, cores that may be used, memory in GiB, and the first GPU or None."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "memory_gib": round(memory), "gpu": gpu}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
