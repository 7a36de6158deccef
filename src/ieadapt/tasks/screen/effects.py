"""What a screen predicts: from the passes of every step and prompt to one number per site, map and effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from ieadapt.metrics.intervals import mean_interval
from ieadapt.tasks.screen.config import EFFECTS

LEAST_PROMPTS = 3
"""Below so many prompts there is no interval."""
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("site", "kind"), pl.String),
    "head": pl.Int32,
    **dict.fromkeys(("map", "effect"), pl.String),
    **dict.fromkeys(("value", "low", "high"), pl.Float64),
    "prompts": pl.Int32,
}
"""Columns of the table of effects."""


def effects_table(passes: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """The predicted effects: a mean over prompts, with its interval where there are enough of them.

    Args:
        passes: of every pass `site`, `kind`, `head`, `map`, `prompt`, `seed`, `step`, `num_inference_steps`, and the
            `statistics` that it gave, none where its step does not run the site.

    Returns:
        One row per site, head, map and effect, with the columns of `SCHEMA`. An effect is missing where no step that
        speaks for it was tried.

    Example:
        >>> one = dict(site="a", kind="spatial", head=None, map="uniform", prompt="a ball", seed=0)
        >>> steps = dict(step=11, num_inference_steps=20, change=0.5, rise=0.0, lost=0.0)
        >>> effects_table([one | steps]).select("effect", "value").rows()
        [('structure', 0.5), ('quality', 0.5)]
    """
    ran = [row for row in passes if "change" in row]
    rows: dict[tuple[Any, ...], dict[tuple[str, int], list[float]]] = {}
    for row in ran:
        for name, effect in EFFECTS.items():
            if effect.window.contains(row["step"], row["num_inference_steps"]):
                own = rows.setdefault((*(row[key] for key in ("site", "kind", "head", "map")), name), {})
                own.setdefault((row["prompt"], row["seed"]), []).append(row[effect.statistic])
    listed = [(*key, *_over_prompts([sum(each) / len(each) for each in own.values()])) for key, own in rows.items()]
    return pl.DataFrame(listed, schema=SCHEMA, orient="row")


def _over_prompts(values: list[float]) -> tuple[float, float | None, float | None, int]:
    interval = mean_interval(values)
    enough = len(values) >= LEAST_PROMPTS
    return interval.mean, interval.low if enough else None, interval.high if enough else None, len(values)
