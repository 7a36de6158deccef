"""Draw the picture of docs/edit-a-clip.md that holds sites chosen by EP against random ones.

    python -m benchmarks.edit_figure

The figures are those of the records `edit-injection-shapes` and `edit-injection-kinds-shapes`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.edit_table import TOGETHER
from benchmarks.results import load

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "edit-sites.png"
RULES = {"high": ("high EP", "#d1642b"), "low": ("low EP", "#3b6ea5"), "none": ("no injection", "#7a8c99")}
EDITS = {"inverted": "inverted edit", "default": "default edit"}


def sites_against_random(rows: Sequence[dict[str, Any]]) -> Figure:
    """One panel per edit, one line per kind: PSNR less that of as many random sites, with 95 % intervals.

    Args:
        rows: of `benchmarks.edit_table.injection`; those whose sites are of any kind are drawn.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, (edit, title) in zip(figure.subplots(1, len(EDITS), sharex=True), EDITS.items(), strict=True):
        _panel(axes, [row for row in rows if row["edit"] == edit and row["sites"] == "any"])
        axes.set_title(title, fontsize="medium")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    figure.supxlabel("PSNR to the perfect edit, less that of as many random sites, dB", fontsize="medium")
    return figure


def _panel(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    for number, (rule, (name, colour)) in enumerate(RULES.items()):
        drawn = [(place, row) for place, row in enumerate(rows) if row[f"{rule}_difference"] is not None]
        means = [row[f"{rule}_difference"] for _, row in drawn]
        spread = [
            [row[f"{rule}_difference"] - row[f"{rule}_from"] for _, row in drawn],
            [row[f"{rule}_to"] - row[f"{rule}_difference"] for _, row in drawn],
        ]
        heights = [place + 0.22 * (number - 1) for place, _ in drawn]
        axes.errorbar(means, heights, xerr=spread, fmt="o", markersize=4, color=colour, label=name, elinewidth=1.3)
    labels = [f"{'all but motion' if row['edits'] == TOGETHER else row['edits']} ({row['low_pairs']})" for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> int:
    """Write the picture."""
    rows = [row for name in ("edit-injection", "edit-injection-kinds") for row in load(f"{name}-shapes")["rows"]]
    sites_against_random(rows).savefig(PICTURE, dpi=120, bbox_inches="tight")
    print(f"wrote {PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
