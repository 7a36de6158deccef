"""Clips that came back from an inversion worst, inverted again, beside what was recorded of them.

    python -m benchmarks.inversion_clips [--clips 11]

Of the 200 sources of the testbed benchmark those are taken whose kept reconstruction (`benchmarks/edits`) has the
lowest PSNR to the clip through the VAE alone. The record is `inversion-clips`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.edit_methods import RECONSTRUCTION
from benchmarks.edit_pairs import kept_cells
from benchmarks.edit_table import BENCH
from benchmarks.results import Value, record
from benchmarks.testbed.editing import PairEditor
from benchmarks.testbed.scenes import bench_pairs
from ieadapt.models import load
from ieadapt.tasks.generate import GenerationConfig

STEPS = 25


def main(words: Sequence[str] | None = None) -> int:
    """Invert, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=11, help="how many")
    arguments = parser.parse_args(words)
    kept = [cell for cell in kept_cells("shapes") if (cell["half"], cell["method"]) == (BENCH, RECONSTRUCTION)]
    before = {cell["pair"].removeprefix(f"{BENCH} "): cell["source_inversion_psnr"] for cell in kept}
    pairs = {pair.name: pair for pair in bench_pairs()}
    editor = PairEditor(load("shapes"), GenerationConfig(STEPS), None)
    rows: list[dict[str, Value]] = []
    for name in sorted(before, key=lambda each: before[each])[: arguments.clips]:
        _, facts = editor.reconstructed(pairs[name])
        rows.append({"clip": name, "kept": before[name], "now": facts["source_inversion_psnr"]})
        print(f"{name}: {before[name]:.1f} dB kept, {facts['source_inversion_psnr']:.1f} dB now", flush=True)
    notes = f"{STEPS} steps; PSNR in dB of the clip inverted and back to the clip through the VAE alone."
    record("inversion-clips", f"python -m benchmarks.inversion_clips --clips {arguments.clips}", rows, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
