"""The report of a screen: one page to act on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from ieadapt.errors import UsageError
from ieadapt.metrics.intervals import Interval
from ieadapt.runs.report import Picture, Report, Section, Table, figure_png
from ieadapt.tasks.measure.profile import EntropyProfile, short_name
from ieadapt.tasks.measure.run import report_record
from ieadapt.tasks.screen.config import EFFECTS
from ieadapt.tasks.study.grid import Condition

NAMED = 3
"""Sites that a sentence names."""
LITTLE = 0.1
"""Share of the largest effect below which a site hardly matters, and is not named."""
TRUST = (
    "How far to trust it: these are predictions from single steps, not measured on finished videos. The order of sites "
    "is what they give, within one kind and one map; sizes of different effects cannot be compared. On the bundled "
    "models the order by structure held and the order by motion did not. Look at single sites with `ieadapt perturb`, "
    "and take `ieadapt study` where a decision hangs on it."
)


def screen_report(
    model: str,
    plan: str,
    profile: EntropyProfile,
    films: Iterable[tuple[bytes, Condition | None]],
    record: Mapping[str, Any],
) -> Report:
    """A screen as a report.

    Args:
        model: as the user named it.
        plan: what was done, in a line.
        profile: entropy, energy and predicted effects.
        films: strips of videos that were generated in full, and what was replaced in them, the plain one first.
        record: of the run.

    Raises:
        UsageError: the profile holds no predicted effects.
    """
    ranked = ranked_sites(profile)
    definitions = [[name, effect.definition] for name, effect in EFFECTS.items()]
    map_caption = "Predicted effect per site, each column as a share of its largest; darker is more damage."
    sections = [
        Section("Site by effect", [Picture(figure_png(plot_effects(ranked)), map_caption, map_caption, 620)]),
        Section("Every site", [ranked_table(profile)]),
        Section("What is predicted", [Table(("effect", "definition"), definitions, "Larger is more damage.")]),
    ]
    pictures = [Picture(png, _film_caption(profile, replaced), "frames of a video") for png, replaced in films]
    if pictures:
        sections.insert(1, Section("Generated in full, as a check: largest predicted effects first", pictures))
    return Report(
        title=f"What each attention layer of {model} does, predicted",
        request=plan,
        results=[*sentences(ranked), TRUST],
        sections=sections,
        repeat={"Command line": str(record["command"])},
        record=report_record({"model": {}, **record}),
    )


def ranked_sites(profile: EntropyProfile) -> pl.DataFrame:
    """One row per site (or head), the mean over maps of every effect, EP and energy; most structure first."""
    effects, orders = _effects(profile), {site.name: site.order for site in profile.sites}
    wide = effects.group_by("site", "kind", "head", "effect", maintain_order=True).agg(pl.col("value").mean())
    wide = wide.pivot("effect", index=["site", "kind", "head"], values="value")
    statistics = {name: profile.statistics[name] for name in ("ep", "energy")}
    columns = [pl.Series(name, [values.get(site) for site in wide["site"]]) for name, values in statistics.items()]
    named = [_name(orders[site], head) for site, head in wide.select("site", "head").rows()]
    wide = wide.with_columns(
        *columns, pl.Series("#", named), pl.Series("order", [orders[site] for site in wide["site"]])
    )
    first = next(name for name in EFFECTS if name in wide.columns)
    return wide.sort(first, descending=True, nulls_last=True)


def _film_caption(profile: EntropyProfile, replaced: Condition | None) -> str:
    if replaced is None:
        return "Nothing replaced."
    order = next(site.order for site in profile.sites if site.name == replaced.sites[0])
    return f"{_name(order, replaced.head)} ({replaced.kind}) replaced by {replaced.perturbation}."


def _effects(profile: EntropyProfile) -> pl.DataFrame:
    if profile.effects is None:
        raise UsageError("no screened effects", remedy="`ieadapt screen MODEL --out DIR` predicts them")
    return profile.effects


def _name(order: int, head: int | None) -> str:
    return f"#{order}" + ("" if head is None else f".{head}")


def sentences(ranked: pl.DataFrame) -> list[str]:
    """What to know first, in plain words, kind by kind."""
    lines = []
    for kind in ranked["kind"].unique(maintain_order=True):
        own = ranked.filter(pl.col("kind") == kind)
        parts = []
        for effect in (name for name in EFFECTS if name in ranked.columns):
            most = ranked[effect].drop_nulls().to_numpy().max(initial=0.0)
            rows = own.filter(pl.col(effect) > LITTLE * most).sort(effect, descending=True)
            if not rows.is_empty():
                parts.append(f"{effect} at {', '.join(rows['#'][:NAMED])}")
        if parts:
            lines.append(f"Replacing a {kind} site is predicted to cost most {'; '.join(parts)}.")
        first = next(name for name in EFFECTS if name in ranked.columns)
        little = own.filter(pl.col(first) < LITTLE * pl.col(first).max()).sort("order")
        if not little.is_empty():
            last = "changes the video little: the one" if little.height == 1 else "change the video little: the ones"
            lines.append(f"Of the {kind} sites, {', '.join(little['#'])} {last} to leave out first.")
    return lines


def ranked_table(profile: EntropyProfile) -> Table:
    """The ranked list: every site and map, each effect with its interval over prompts, EP and energy."""
    orders, statistics = {site.name: site.order for site in profile.sites}, profile.statistics
    effects = _effects(profile).with_columns(pl.col("low", "high").fill_null(float("nan")))
    names = [name for name in EFFECTS if name in set(effects["effect"])]
    ranked: list[tuple[float, list[str]]] = []
    for (site, kind, head, replaced), own in effects.group_by("site", "kind", "head", "map", maintain_order=True):
        predicted = {name: Interval(*ends) for name, *ends in own.select("effect", "value", "low", "high").rows()}
        first = predicted[names[0]].mean if names[0] in predicted else 0.0
        shown = [predicted[name].unsigned() if name in predicted else "–" for name in names]
        measured = f"{statistics['ep'][site]:.1f}", f"{statistics['energy'][site]:.3g}"
        named = _name(orders[site], head), short_name(site), kind
        ranked.append((first, [*named, replaced, *shown, *measured, site]))
    rows = [row for _, row in sorted(ranked, key=lambda each: -each[0])]
    headings = ("#", "site", "kind", "replaced by", *names, "EP %", "energy", "path")
    caption = f"By {names[0]}, largest first: mean over prompts, with its 95 % interval from three prompts on."
    return Table(headings, rows, caption, numeric=(0, *range(4, len(headings) - 1)))


def plot_effects(ranked: pl.DataFrame) -> Figure:
    """A heat map: sites in order of execution down, effects, EP and energy across."""
    rows = ranked.sort("order", "head", nulls_last=False)
    columns = [name for name in (*EFFECTS, "ep", "energy") if name in rows.columns]
    grid = np.array([rows[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in columns]).T
    reach = np.nanmax(grid, axis=0)
    figure = Figure(figsize=(7.0, max(2.4, 0.8 + 0.17 * len(grid))), layout="constrained")
    axis = figure.subplots()
    shares = np.clip(grid / np.where(reach > 0, reach, 1), 0, 1)
    image = axis.imshow(shares, cmap="magma_r", aspect="auto", vmin=0, vmax=1)
    labels = [f"{kind} {name}" for kind, name in rows.select("kind", "#").rows()]
    axis.set_yticks(range(len(labels)), labels, fontsize=6)
    axis.set_xticks(range(len(columns)), [{"ep": "EP"}.get(name, name) for name in columns], fontsize=8)
    axis.xaxis.tick_top()
    label = "share of the column's largest"
    figure.colorbar(image, ax=axis, fraction=0.05, pad=0.02, label=label).ax.tick_params(labelsize=6)
    return figure
