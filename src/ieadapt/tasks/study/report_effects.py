"""A study's table as effects per attention site, and how well EP predicts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Float

from ieadapt.metrics import METRICS
from ieadapt.metrics.intervals import Correlation, Interval, paired_interval, spearman_interval
from ieadapt.tasks.evaluate.tables import MEASURES

Aspect = Literal["structure", "consistency", "quality", "motion", "text"]

# Which column speaks for an aspect in the figures, the first that a study has.
LEADING: Mapping[Aspect, tuple[str, ...]] = {
    "structure": ("ssim", "st_lpips", "psnr"),
    "consistency": ("mobilenet_consistency_change", "warp_error_change", "flicker_change"),
    "quality": ("testbed_fidelity_change", "sharpness_change"),
}
NAMES: Mapping[Aspect, str] = {
    "structure": "structure",
    "consistency": "temporal consistency",
    "quality": "quality",
    "motion": "motion",
    "text": "match with the prompt",
}
SCORE_ASPECTS: Mapping[str, Aspect] = {"motion": "motion", "jitter": "consistency", "flicker": "consistency"}
UNCHANGED: Mapping[str, float] = {"ssim": 1.0}


@dataclass(frozen=True)
class Effect:
    """One measured column of a study.

    Attributes:
        column: in the table.
        label: for a reader.
        aspect: what of the video it speaks of.
        damage: +1 where a larger value is more damage, -1 where it is less, 0 where any change counts.
        unchanged: the value of a video in which nothing was replaced; None where it has none (PSNR is infinite).
    """

    column: str
    label: str
    aspect: Aspect
    damage: Literal[-1, 0, 1]
    unchanged: float | None

    def as_damage(self, values: np.ndarray) -> np.ndarray:
        """Values as distances from the unchanged video, turned so that larger is more damage."""
        moved = values - (self.unchanged or 0.0)
        return np.abs(moved) if self.damage == 0 else self.damage * moved

    @property
    def damage_label(self) -> str:
        """What `as_damage` gives, in words."""
        if self.unchanged is None:
            return {-1: f"minus {self.label}"}.get(self.damage, self.label)
        what = self.label.removeprefix("change of ")
        return {-1: f"fall of {what}", 0: f"shift of {what}", 1: f"rise of {what}"}[self.damage]


@dataclass(frozen=True)
class SiteEffect:
    """What replacing the map of one site did.

    Attributes:
        site: its name.
        head: the one head that was perturbed, or None.
        order: position in the order of execution.
        kind: spatial, temporal, joint or cross.
        perturbation: what replaced the map.
        ep: entropy percentage of the site (or head).
        keys: keys of its map: layers of one resolution have the same.
        values: the measured value per clip (prompt and seed); NaN where it is missing.
    """

    site: str
    head: int | None
    order: int
    kind: str
    perturbation: str
    ep: float
    keys: float
    values: Float[np.ndarray, " clip"]

    @property
    def name(self) -> str:
        """Number and name, as in the figures."""
        return f"#{self.order}" + ("" if self.head is None else f".{self.head}")

    @property
    def mean(self) -> float:
        """Over clips."""
        return float(np.nanmean(self.values))

    def interval(self) -> Interval:
        """Mean over clips with its 95 % bootstrap interval."""
        return _interval(self.values)

    def damage(self, effect: Effect) -> Interval:
        """Mean damage over clips with its 95 % bootstrap interval."""
        return _interval(effect.as_damage(self.values))


@dataclass(frozen=True)
class Relation:
    """How EP goes with one effect over the sites of one kind.

    Attributes:
        effect: which.
        kind: of the sites.
        perturbation: what replaced the maps.
        overall: Spearman's rho between EP and damage; positive: sites of higher EP suffer more. Its interval is over
            other sites and other clips.
        here: the same with the interval over other clips only: how sure it is of these sites.
        within: the same among sites of equal resolution; None where no two sites share one, or all do.
    """

    effect: Effect
    kind: str
    perturbation: str
    overall: Correlation
    here: Correlation
    within: Correlation | None


def _interval(values: np.ndarray) -> Interval:
    kept = values[np.isfinite(values)]
    return paired_interval(kept, np.zeros_like(kept), resamples=2_000)


def effects_of(table: pl.DataFrame) -> list[Effect]:
    """Every effect that a study measured, in the order of the table of metrics; the testbed's scores after them."""
    found = []
    for metric in METRICS.values():
        pair = metric.compares == "pair"
        column = metric.name if pair else f"{metric.name}_change"
        sign: Literal[-1, 0, 1] = {"higher": -1, "lower": 1, "context": 0}[metric.better]  # type: ignore[assignment]
        unchanged = UNCHANGED.get(column, None if metric.name == "psnr" else 0.0)
        unit = f" ({metric.unit})" if metric.unit else ""
        label = f"{metric.name}{unit}" if pair else f"change of {metric.name}{unit}"
        found.append(Effect(column, label, metric.aspect, sign, unchanged))
    for name, (unit, better) in MEASURES.items():
        score: Literal[-1, 0, 1] = {"higher": -1, "lower": 1, "near 1": 0}[better]  # type: ignore[assignment]
        label = f"change of testbed {name}" + (f" ({unit})" if unit else "")
        found.append(Effect(f"testbed_{name}_change", label, SCORE_ASPECTS.get(name, "quality"), score, 0.0))
    return [effect for effect in found if _measured(table, effect.column)]


def leading_effects(table: pl.DataFrame) -> list[Effect]:
    """One effect for each of structure, temporal consistency and quality, where the study measured one."""
    there = {effect.column: effect for effect in effects_of(table)}
    chosen = (next((there[name] for name in names if name in there), None) for names in LEADING.values())
    return [effect for effect in chosen if effect is not None]


def site_effects(table: pl.DataFrame, effect: Effect, sites: pl.DataFrame) -> list[SiteEffect]:
    """The effect at every site (or head) that was perturbed alone, in order of execution.

    Args:
        table: the study's table.
        effect: which column.
        sites: the profile by site (`EntropyProfile.by_site`), for order and keys.
    """
    known = {row["site"]: row for row in sites.iter_rows(named=True)}
    clips = {
        pair: index for index, pair in enumerate(table.select("prompt", "seed").unique(maintain_order=True).rows())
    }
    found = []
    by = ["sites", "head", "kind", "perturbation", "ep"]
    for key, rows in single_sites(table).group_by(by, maintain_order=True):
        site, head, kind, perturbation, ep = key
        values = np.full(len(clips), np.nan)
        for prompt, seed, value in rows.select("prompt", "seed", effect.column).rows():
            values[clips[prompt, seed]] = np.nan if value is None or not np.isfinite(value) else value
        if np.isfinite(values).any():
            place = known[site]
            found.append(SiteEffect(site, head, place["order"], kind, perturbation, ep, place["n_keys"], values))
    return sorted(found, key=lambda each: (each.order, -1 if each.head is None else each.head))


def single_sites(table: pl.DataFrame) -> pl.DataFrame:
    """The rows in which one site (or one head of it) was perturbed alone."""
    return table.filter(~pl.col("sites").str.contains(",") & (pl.col("rank") == "each"))


def relations(table: pl.DataFrame, effects: Sequence[Effect], sites: pl.DataFrame) -> list[Relation]:
    """EP against every effect, per kind and perturbation; left out where there are fewer than three sites."""
    found = []
    for effect in effects:
        units = site_effects(table, effect, sites)
        for kind, perturbation in dict.fromkeys((unit.kind, unit.perturbation) for unit in units):
            own = [unit for unit in units if (unit.kind, unit.perturbation) == (kind, perturbation)]
            if len(own) >= 3:
                found.append(Relation(effect, kind, perturbation, *_correlate(own, effect)))
    return found


def _correlate(units: Sequence[SiteEffect], effect: Effect) -> tuple[Correlation, Correlation, Correlation | None]:
    ep, keys = [unit.ep for unit in units], [unit.keys for unit in units]
    measured = effect.as_damage(np.stack([unit.values for unit in units]))
    overall, here = spearman_interval(ep, measured), spearman_interval(ep, measured, units="fixed")
    if not 1 < len(set(keys)) < len(keys):
        return overall, here, None
    return overall, here, spearman_interval(ep, measured, groups=keys)


def _measured(table: pl.DataFrame, column: str) -> bool:
    return column in table.columns and bool(table[column].is_finite().any())
