"""The results of a study: effects per site, how well EP predicts them, and sentences no stronger than that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Float

from ieadapt.metrics import METRICS
from ieadapt.metrics.intervals import LEAST_UNITS, Correlation, Interval, mean_interval, spearman_interval
from ieadapt.notation import counted
from ieadapt.tasks.evaluate.tables import MEASURES

Aspect = Literal["structure", "consistency", "quality", "motion", "text"]

LEAST_SITES = 8
"""Below so many sites EP has no correlation with an effect."""
# Which column speaks for an aspect in the figures, the first that a study has.
LEADING: Mapping[Aspect, tuple[str, ...]] = {
    "structure": ("ssim", "st_lpips", "psnr"),
    "consistency": ("mobilenet_consistency_change", "warp_error_change", "flicker_change"),
    "quality": ("testbed_fit_change", "sharpness_change"),
    "motion": ("testbed_motion_change", "motion_change"),
}
NAMES: Mapping[Aspect, str] = {
    "structure": "structure",
    "consistency": "temporal consistency",
    "quality": "quality",
    "motion": "motion",
    "text": "match with the prompt",
}
SCORE_ASPECTS: Mapping[str, Aspect] = {
    **dict.fromkeys(MEASURES, "text"),
    **dict.fromkeys(("fit", "detail"), "quality"),
    **dict.fromkeys(("constancy", "flicker"), "consistency"),
    "motion": "motion",
}
DAMAGE: Mapping[str, Literal[-1, 0, 1]] = {"higher": -1, "lower": 1, "context": 0, "near 1": 0}
"""What is better of a metric -> the sign of damage; 0 where any change counts."""
UNCHANGED: Mapping[str, float] = {"ssim": 1.0}
MEANINGS: Mapping[str, str] = {
    "identity": "the identity map (every token looks at itself only)",
    "uniform": "the uniform map (every token looks at all alike)",
}
CLAIMS: Mapping[Aspect, tuple[str, int]] = {
    "quality": ("High-entropy maps go with video quality", 1),
    "structure": ("Low-entropy maps carry structure", -1),
}


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

    def interval(self) -> Interval:
        """Mean over clips with its 95 % bootstrap interval; its ends are NaN below `LEAST_UNITS` clips."""
        return mean_interval(self.values[np.isfinite(self.values)], least=LEAST_UNITS, resamples=2_000)

    def damage(self, effect: Effect) -> float:
        """Mean damage over clips."""
        return float(np.nanmean(effect.as_damage(self.values)))


Measured = Mapping[Effect, Sequence[SiteEffect]]
"""The sites (or heads) that were perturbed alone, by what was measured of them, in order of execution."""


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


def effects_of(table: pl.DataFrame) -> list[Effect]:
    """Every effect that a study measured, in the order of the table of metrics; the testbed's scores after them."""
    effects = []
    for metric in METRICS.values():
        pair = metric.compares == "pair"
        column = metric.name if pair else f"{metric.name}_change"
        unchanged = UNCHANGED.get(column, None if metric.name == "psnr" else 0.0)
        label = ("" if pair else "change of ") + metric.name + (f" ({metric.unit})" if metric.unit else "")
        effects.append(Effect(column, label, metric.aspect, DAMAGE[metric.better], unchanged))
    for name, (unit, better) in MEASURES.items():
        label = f"change of testbed {name}" + (f" ({unit})" if unit else "")
        aspect = SCORE_ASPECTS[name]
        effects.append(Effect(f"testbed_{name}_change", label, aspect, DAMAGE[better], 0.0))
    return [effect for effect in effects if _has_values(table, effect.column)]


def leading_effects(table: pl.DataFrame) -> list[Effect]:
    """One effect for each of structure, temporal consistency, quality and motion, where the study measured one."""
    there = {effect.column: effect for effect in effects_of(table)}
    columns = (next((name for name in names if name in there), None) for names in LEADING.values())
    return [there[column] for column in columns if column is not None]


def site_effects(table: pl.DataFrame, effect: Effect, sites: pl.DataFrame) -> list[SiteEffect]:
    """The effect at every site (or head) that was perturbed alone, in order of execution.

    Args:
        table: the study's table.
        effect: which column.
        sites: the profile by site (`EntropyProfile.by_site`), for order and keys.
    """
    places = sites.unique("site", keep="last").select("order", "n_keys", sites="site")
    clips = table.select("prompt", "seed").unique(maintain_order=True)
    alone = single_sites(table).join(places, on="sites", maintain_order="left")
    named = {"site": "sites", "keys": "n_keys"}
    by = [named.get(each.name, each.name) for each in fields(SiteEffect) if each.name != "values"]
    units = []
    for group, rows in alone.group_by(by, maintain_order=True):
        measured = clips.join(rows, on=["prompt", "seed"], how="left", maintain_order="left")[effect.column]
        values = measured.cast(pl.Float64).fill_null(np.nan).to_numpy()
        if np.isfinite(values).any():
            what = dict(zip((each.name for each in fields(SiteEffect)), group, strict=False))
            units.append(SiteEffect(**what, values=np.where(np.isfinite(values), values, np.nan)))
    return sorted(units, key=lambda unit: (unit.order, -1 if unit.head is None else unit.head))


def by_condition(units: Sequence[SiteEffect]) -> dict[tuple[str, str], list[SiteEffect]]:
    """The sites by their kind and what replaced their maps."""
    groups: dict[tuple[str, str], list[SiteEffect]] = {}
    for unit in units:
        groups.setdefault((unit.kind, unit.perturbation), []).append(unit)
    return groups


def ranked(effect: Effect, units: Sequence[SiteEffect]) -> list[SiteEffect]:
    """The sites by what replacing their map did, most damage first."""
    return sorted(units, key=lambda unit: -unit.damage(effect))


def single_sites(table: pl.DataFrame) -> pl.DataFrame:
    """The rows in which one site (or one head of it) was perturbed alone."""
    return table.filter(~pl.col("sites").str.contains(",") & (pl.col("rank") == "each"))


def relations(measured: Measured) -> list[Relation]:
    """EP against every effect, per kind and perturbation; left out where there are fewer than `LEAST_SITES`."""
    related = []
    for effect, units in measured.items():
        for condition, own in by_condition(units).items():
            if len(own) >= LEAST_SITES:
                ep, keys = [unit.ep for unit in own], [unit.keys for unit in own]
                damage = effect.as_damage(np.stack([unit.values for unit in own]))
                overall, here = spearman_interval(ep, damage), spearman_interval(ep, damage, units="fixed")
                shared = 1 < len(set(keys)) < len(keys)
                within = spearman_interval(ep, damage, groups=keys) if shared else None
                related.append(Relation(effect, *condition, overall, here, within))
    return related


def _has_values(table: pl.DataFrame, column: str) -> bool:
    return column in table.columns and bool(table[column].is_finite().any())


def summary(table: pl.DataFrame, measured: Measured, related: Sequence[Relation]) -> list[str]:
    """The report's opening: what was done, what replacing attention costs, and whether EP predicts it.

    Args:
        table: the study's table.
        measured: the sites by the leading effects.
        related: the relations of these to EP.
    """
    return [*_costs(measured), *_claims(related), _scope(table), *_cautions(related, table)]


def _scope(table: pl.DataFrame) -> str:
    alone = single_sites(table)
    clips = table.select("prompt", "seed").unique().height
    return (
        f"{counted(table.height, 'video')} in which attention was replaced: "
        f"{counted(alone['sites'].n_unique(), 'site')}, "
        f"{_listed(table['perturbation'].unique(maintain_order=True).to_list())}, "
        f"{counted(clips, 'clip')} (prompt and seed); "
        "each is compared with the same video without the replacement."
    )


def _costs(measured: Measured) -> list[str]:
    """One sentence per kind and perturbation."""
    groups = {effect: by_condition(units) for effect, units in measured.items()}
    sentences, explained = [], set()
    for kind, perturbation in dict.fromkeys(condition for own in groups.values() for condition in own):
        own = {effect: each[kind, perturbation] for effect, each in groups.items() if (kind, perturbation) in each}
        name = perturbation if perturbation in explained else MEANINGS.get(perturbation, perturbation)
        explained.add(perturbation)
        number = max(map(len, own.values()))
        which = f"one {kind} site" if number == 1 else f"one of the {number} {kind} sites"
        costs = _listed([_worst(effect, units) for effect, units in own.items()])
        sentences.append(f"In this model, replacing {which} by {name} costs most {costs}.")
    if sentences:
        sentences[-1] += " The tables below rank the numbered sites by every effect, each with its interval."
    return sentences


def _worst(effect: Effect, units: Sequence[SiteEffect]) -> str:
    """The largest damage and its site; its interval decides whether there is any."""
    worst = ranked(effect, units)[0]
    damage, value = worst.damage(effect), worst.interval()
    if effect.unchanged is not None and (damage <= 0 or value.low <= effect.unchanged <= value.high):
        return f"no loss of {NAMES[effect.aspect]} that these clips show"
    size = f"{damage:.3g}" if effect.unchanged is not None else f"{value.mean:.3g} left"
    return f"{NAMES[effect.aspect]} at {worst.name} with EP {worst.ep:.0f} % ({effect.damage_label} {size})"


def _claims(related: Sequence[Relation]) -> list[str]:
    """The paper's two claims against the relations of EP and damage."""
    sentences = []
    for aspect, (claim, sign) in CLAIMS.items():
        own = [relation for relation in related if relation.effect.aspect == aspect]
        if not own:
            continue
        groups: dict[str, list[str]] = {"agrees": [], "disagrees": [], "does not settle it": []}
        for relation in own:
            rho = relation.overall
            verdict = "does not settle it" if not rho.excludes_zero else "agrees" if rho.rho * sign > 0 else "disagrees"
            groups[verdict].append(f"{relation.kind}, {relation.perturbation} rho {rho} (n = {rho.units})")
        verdicts = "; ".join(f"{verdict}: {', '.join(members)}" for verdict, members in groups.items() if members)
        sentences.append(
            f"The paper's claim “{claim}” would show as more damage to {NAMES[aspect]} where EP is "
            f"{'higher' if sign > 0 else 'lower'} (rho {'above' if sign > 0 else 'below'} zero). This study {verdicts}."
        )
    return sentences


def _cautions(related: Sequence[Relation], table: pl.DataFrame) -> list[str]:
    sentences = []
    if table.select("prompt", "seed").unique().height < LEAST_UNITS:
        sentences.append(
            f"Fewer than {LEAST_UNITS} clips give no interval: whether any of these numbers differs from none is open."
        )
    if related:
        intervals = [relation.overall for relation in related if relation.overall.low == relation.overall.low]
        excluding = sum(rho.excludes_zero for rho in intervals)
        sentences.append(
            f"{len(intervals)} correlations were tested here; about {0.05 * len(intervals):.1f} of them would exclude "
            f"zero by chance alone, and {excluding} do. The intervals are not corrected for this: read one that barely "
            "excludes zero as a lead."
        )
    if {"identity", "uniform"} <= set(table["perturbation"]):
        sentences.append(
            "EP also says how far a replacement is from the model's own map: the uniform map is a small change where "
            "EP is high, the identity where EP is low. A relation that turns its sign from one to the other may mean "
            "no more than that."
        )
    return sentences


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
