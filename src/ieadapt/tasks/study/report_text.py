"""What a study says, in sentences made from its numbers and no stronger than they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from ieadapt.tasks.study.report_effects import NAMES, Aspect, Effect, Relation, SiteEffect, single_sites, site_effects

WHAT: Mapping[str, str] = {
    "identity": "the identity map (every token looks at itself only)",
    "uniform": "the uniform map (every token looks at all alike)",
}
CLAIMS: Mapping[Aspect, tuple[str, int]] = {
    "quality": ("High-entropy maps go with video quality", 1),
    "structure": ("Low-entropy maps carry structure", -1),
}


def spoken(perturbation: str) -> str:
    """A perturbation in words.

    Example:
        >>> spoken("mix:0.5")
        'mix:0.5'
    """
    return WHAT.get(perturbation, perturbation)


def summary(
    table: pl.DataFrame, effects: Sequence[Effect], found: Sequence[Relation], sites: pl.DataFrame
) -> list[str]:
    """The report's opening: what was done, what replacing attention costs, and whether EP predicts it.

    Args:
        table: the study's table.
        effects: the leading effects.
        found: their relations to EP.
        sites: the profile by site.
    """
    return [_scope(table), *_claims(found), *_costs(table, effects, sites), *_cautions(found, table)]


def _scope(table: pl.DataFrame) -> str:
    alone = single_sites(table)
    clips = table.select("prompt", "seed").unique().height
    return (
        f"{table.height} videos in which attention was replaced: {alone['sites'].n_unique()} sites, "
        f"{_listed(table['perturbation'].unique(maintain_order=True).to_list())}, {clips} clips (prompt and seed); "
        "each is compared with the same video without the replacement."
    )


def _costs(table: pl.DataFrame, effects: Sequence[Effect], sites: pl.DataFrame) -> list[str]:
    """One sentence per kind and perturbation."""
    measured = {effect: site_effects(table, effect, sites) for effect in effects}
    pairs = dict.fromkeys((unit.kind, unit.perturbation) for units in measured.values() for unit in units)
    sentences, explained = [], set()
    for kind, perturbation in pairs:
        own = {
            effect: [unit for unit in units if (unit.kind, unit.perturbation) == (kind, perturbation)]
            for effect, units in measured.items()
        }
        parts = [_worst(effect, units) for effect, units in own.items() if units]
        name = perturbation if perturbation in explained else spoken(perturbation)
        explained.add(perturbation)
        number = max(len(units) for units in own.values())
        which = "one" if number == 1 else f"one of the {number}"
        sentences.append(
            f"In this model, replacing {which} {kind} site{'s' if number > 1 else ''} by {name} costs most "
            f"{_listed(parts)}."
        )
    if sentences:
        sentences[-1] += " The table below names the numbered sites and gives every site with its interval."
    return sentences


def _worst(effect: Effect, units: Sequence[SiteEffect]) -> str:
    """The largest damage and its site; its interval decides whether there is any."""
    worst = max(units, key=lambda unit: unit.damage(effect).mean)
    damage, value = worst.damage(effect), worst.interval()
    if effect.unchanged is not None and (damage.mean <= 0 or value.low <= effect.unchanged <= value.high):
        return f"no {NAMES[effect.aspect]} that these clips can tell from none"
    size = f"{damage.mean:.3g}" if effect.unchanged is not None else f"{worst.mean:.3g} left"
    return f"{NAMES[effect.aspect]} at {worst.name} with EP {worst.ep:.0f} % ({effect.damage_label} {size})"


def _claims(found: Sequence[Relation]) -> list[str]:
    """The paper's two claims against the relations of EP and damage."""
    sentences = []
    for aspect, (claim, sign) in CLAIMS.items():
        own = [relation for relation in found if relation.effect.aspect == aspect]
        if not own:
            continue
        groups: dict[str, list[str]] = {"agrees": [], "disagrees": [], "does not settle it": []}
        for relation in own:
            rho = relation.overall
            verdict = "does not settle it" if not rho.excludes_zero else "agrees" if rho.rho * sign > 0 else "disagrees"
            groups[verdict].append(f"{relation.kind}, {relation.perturbation} {_rho(relation)}")
        told = "; ".join(f"{verdict}: {', '.join(members)}" for verdict, members in groups.items() if members)
        sentences.append(
            f"The paper's claim “{claim}” would show as more damage to {NAMES[aspect]} where EP is "
            f"{'higher' if sign > 0 else 'lower'} (rho {'above' if sign > 0 else 'below'} zero). This study {told}."
        )
    return sentences


def _rho(relation: Relation) -> str:
    rho = relation.overall
    if rho.low != rho.low:
        return f"rho {rho.rho:+.2f}, too few sites for an interval (n = {rho.units})"
    return f"rho {rho} (n = {rho.units})"


def _cautions(found: Sequence[Relation], table: pl.DataFrame) -> list[str]:
    sentences = []
    if found:
        intervals = [relation.overall for relation in found if relation.overall.low == relation.overall.low]
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
