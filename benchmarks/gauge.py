"""The regression gauge: a small fixed part of `python -m benchmarks.testbed`, beside what it gave when recorded.

Run it from the root of the repository: `python -m benchmarks.gauge`; about four minutes on two cores. Exit status 1
where a mark is off by more than its tolerance; `--record` makes what was found the new record, `testbed-gauge`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER, Value, load, record
from benchmarks.testbed.run import BenchConfig, run_testbed
from benchmarks.testbed.tracks import TRACKS
from ieadapt.cli.console import print_table, shown_stages
from ieadapt.runs.report import Table

NAME = "testbed-gauge"
PROFILE = FOLDER.parent / "profiles" / "scenes"
CONFIG = BenchConfig(methods="plain,default,pag,copy,inversion", scenes=4, steps=4, batch=4, profile=PROFILE)
TOLERANCES: Mapping[str, float] = {
    "success": 0.2,
    "change": 0.05,
    "fit": 0.5,
    "psnr": 0.5,
    "kept": 0.5,
    "flicker": 0.3,
}
"""How far the mean of a mark may be off: one of six edits read otherwise, half a dB, 0.3 of 255 ..."""
OTHERWISE = 0.01
"""... and for the other marks in [0, 1]."""


def gauge_rows(folder: Path) -> list[dict[str, Value]]:
    """Run the part; one row per method with the mean of every mark."""
    with shown_stages() as stages:
        result = run_testbed("scenes", folder, CONFIG, stages=stages)
    if result.notes:
        raise SystemExit("\n".join(result.notes))
    return [
        {"track": track, **{name: row[name] for name in ("method", "scenes", *TRACKS[track].measures)}}
        for track, figures in result.figures.items()
        for row in figures
    ]


def changes(now: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Track, method, mark, recorded, now, off by, tolerance, and `!` where it is beyond.

    Raises:
        SystemExit: the record is of other methods.
    """
    recorded = {(row["track"], row["method"]): row for row in before}
    if set(recorded) != {(row["track"], row["method"]) for row in now}:
        raise SystemExit(f"the record {NAME} is of other methods: run python -m benchmarks.gauge --record")
    for row in now:
        old = recorded[row["track"], row["method"]]
        for mark in TRACKS[row["track"]].measures:
            off, tolerance = row[mark] - old[mark], TOLERANCES.get(mark, OTHERWISE)
            numbers = (f"{old[mark]:.3f}", f"{row[mark]:.3f}", f"{off:+.4f}", f"{tolerance:g}")
            yield (row["track"], row["method"], mark, *numbers, "!" if abs(off) > tolerance else "")


def main(words: Sequence[str] | None = None) -> int:
    """Run, compare and print; or record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="make what is found the new record")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the record")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        rows = gauge_rows(Path(folder) / "run")
    if options.record:
        note = f"{CONFIG.scenes} scenes and pairs, {CONFIG.steps} steps: a gauge, too few to conclude from."
        print(record(NAME, "python -m benchmarks.gauge --record", rows, notes=note, folder=options.folder))
        return 0
    compared = list(changes(rows, load(NAME, folder=options.folder)["rows"]))
    headings = ("track", "method", "mark", "recorded", "now", "off by", "tolerance", "")
    print_table(Table(headings, compared, numeric=(3, 4, 5, 6)))
    beyond = sum(bool(row[-1]) for row in compared)
    print(f"{beyond} of {len(compared)} marks are beyond their tolerance.")
    return int(beyond > 0)


if __name__ == "__main__":
    sys.exit(main())
