"""Which edit the demo shows: the one in the middle of thirteen, by closeness to the perfect edit.

`python -m benchmarks.demo_edit` edits the pairs of the choosing half as the demo does and writes the record
`demo-edit`, a row per pair from the worst to the best; `ieadapt.tasks.demo.edit.PAIR` is the number of the middle one.
"""

from __future__ import annotations

from benchmarks.results import record
from ieadapt.models import load
from ieadapt.tasks.demo.edit import KIND, default_edit, score_edit
from ieadapt.testbed.edits import HALVES, edit_pairs

EDITS = 13


def main() -> None:
    """Edit the pairs, score them and write the record."""
    pipe, rows = load("scenes"), list[dict[str, str | int | float]]()
    for pair in [pair for pair in edit_pairs(2 * EDITS, [KIND]) if pair.half == HALVES[0]][:EDITS]:
        scores = score_edit(default_edit(pipe, pair).edited[0], pair)
        copy = score_edit(pair.source_frames, pair)
        rows.append({"number": pair.number, "prompt": pair.prompt, "copy_psnr": copy.psnr, **scores.as_dict()})
    rows.sort(key=lambda row: row["psnr"])
    record("demo-edit", "python -m benchmarks.demo_edit", rows, notes="Worst first; the demo shows the middle one.")


if __name__ == "__main__":
    main()
