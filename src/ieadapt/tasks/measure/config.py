"""The settings of a measure run."""

from __future__ import annotations

from dataclasses import dataclass

from ieadapt.runs.flags import setting
from ieadapt.runs.settings import PromptRun


@dataclass(frozen=True)
class MeasureRun(PromptRun):
    """The settings of a measure run, beside those of every run with prompts.

    Attributes:
        sites: which sites; None for all.
        rows: "all" query rows, or "sample:0.05" for a random 5 % of them with a standard error.

    Raises:
        UsageError: no prompt, or a blank one; no such choice of rows.
    """

    sites: str | None = setting(None, "names, patterns ('up_blocks.*') or kinds, with commas")
    rows: str = setting("all", "query rows measured: all, or sample:0.05 for a random 5 %")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows != "all":
            from ieadapt.functional import row_sample  # which needs torch

            row_sample(self.rows)
