"""Recorded results: one JSON file per experiment, with what is needed to judge it and to run it again.

`benchmarks/results/NAME.json` holds `name`, `command`, `date`, `commit`, `machine`, `versions`, `notes` and `rows`: a
list of flat mappings. Tables and figures are made from these files by `benchmarks.tables`; nothing is typed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ieadapt.runs.records import Value, experiment

__all__ = ["FOLDER", "Value", "load", "record"]

FOLDER = Path(__file__).parent / "results"


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
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    partial = path.with_suffix(".json.part")
    partial.write_text(content)
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
