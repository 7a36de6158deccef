"""The comparison of the plain and the enhanced videos in `benchmarks/runs`, as `ieadapt compare` prints it.

Run it from the root of the repository: `python -m benchmarks.compare_runs`; the record is `compare-runs`, which README
shows. The videos were made by the command in `benchmarks/runs/config.json`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.results import FOLDER, Value, record
from ieadapt.tasks.evaluate.run import EvaluateConfig, Evaluation, run_evaluation

NAME = "compare-runs"
PLAIN, ENHANCED = "benchmarks/runs/plain", "benchmarks/runs/enhanced"
METRICS = "psnr,ssim,warp_error,flicker,motion,sharpness"
COMMAND = f"ieadapt compare {PLAIN} {ENHANCED} --metrics {METRICS}"


def comparison() -> Evaluation:
    """What the command finds."""
    root = FOLDER.parents[1]
    with tempfile.TemporaryDirectory() as folder:
        return run_evaluation(
            root / ENHANCED, Path(folder) / "run", reference=root / PLAIN, config=EvaluateConfig(METRICS)
        )


def rows_of(evaluation: Evaluation) -> list[dict[str, Value]]:
    """The printed table, heading -> cell."""
    headings = [heading.replace(" ", "_") for heading in evaluation.table.headings]
    return [dict(zip(headings, cells, strict=True)) for cells in evaluation.table.rows]


def main() -> int:
    """Record what the command prints."""
    evaluation = comparison()
    print(record(NAME, COMMAND, rows_of(evaluation), notes=" ".join([evaluation.table.caption, *evaluation.notes])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
