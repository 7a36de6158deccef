"""The page of metrics lists every metric as it is."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_of_metrics_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "metrics_table.py"))
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page == script["filled"](page), "run make tables"
    assert sum(line.startswith("| `") for line in page.splitlines()) == 2 * len(script["METRICS"])
