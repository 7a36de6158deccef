"""The figures of a study: strips of frames, bars per site, EP against effect, growing sets of sites."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ieadapt.tasks.measure.profile import tidy
from ieadapt.tasks.study.report_effects import NAMES, Effect, Measured, Relation, SiteEffect, by_condition
from ieadapt.tasks.study.videos import Strip

COLOURS: Mapping[str, str] = {"identity": "#0f7c8a", "uniform": "#b5367a"}
"""Of perturbations; kinds of attention have others."""
OTHERS = ("#8a6d1f", "#6b6b6b", "#4b4f9e", "#94a31f")
LINE = "#c0392b"
FILM_HEIGHT = 0.4
"""Of a row of frames, in inches."""


def colours_of(perturbations: Sequence[str]) -> dict[str, str]:
    """One colour for each perturbation, the same in every figure."""
    spare = iter(OTHERS * len(perturbations))
    return {name: COLOURS.get(name) or next(spare) for name in perturbations}


def plot_bars(measured: Measured) -> Figure:
    """Bars per site for every effect, one column per kind, EP below them (the paper's figure 2).

    Args:
        measured: the sites of every effect, in order of execution.

    Source: the layout of figure 2 of arXiv 2504.12027, from its caption.
    """
    units = [unit for each in measured.values() for unit in each]
    kinds = list(dict.fromkeys(unit.kind for unit in units))
    colours = colours_of(list(dict.fromkeys(unit.perturbation for unit in units)))
    names = {kind: _names(unit for unit in units if unit.kind == kind) for kind in kinds}
    widths = [max(len(names[kind]), 4) for kind in kinds]
    figure = Figure(figsize=(max(7.5, 1.6 + 0.36 * sum(widths)), 1.9 * (len(measured) + 1)), layout="constrained")
    axes = figure.subplots(
        len(measured) + 1,
        len(kinds),
        squeeze=False,
        sharex="col",
        sharey="row",
        gridspec_kw={"width_ratios": widths, "height_ratios": [*[1.0] * len(measured), 0.7]},
    )
    for column, kind in enumerate(kinds):
        for row, (effect, every) in enumerate(measured.items()):
            own = [unit for unit in every if unit.kind == kind]
            _draw_bars(axes[row][column], own, names[kind], effect, colours)
        _draw_ep(axes[-1][column], [unit for unit in units if unit.kind == kind], names[kind])
        axes[0][column].set_title(f"{kind} attention", fontsize=10)
    for row, effect in enumerate(measured):
        axes[row][0].set_ylabel(f"{NAMES[effect.aspect]}\n{_wrapped(effect.label)}", fontsize=8)
    handles = [Patch(color=colour) for colour in colours.values()]
    figure.legend(handles, list(colours), loc="outside upper right", fontsize=8, ncols=len(colours), frameon=False)
    return figure


def _panels(
    effects: Mapping[Effect, str],
    columns: Collection[tuple[str, str]],
    draw: Callable[[Any, Effect, tuple[str, str]], None],
    *,
    size: tuple[float, float],
    below: str,
    **shared: Any,
) -> Figure:
    """A panel for every effect, one below the other, and every kind and perturbation, side by side.

    Args:
        effects: of the rows, with what is drawn of them.
        columns: kind and perturbation of each.
        draw: given the axes of a panel, its effect and its column.
        size: of one panel, in inches.
        below: what goes to the right in every panel.
        shared: axes that panels share, as for `Figure.subplots`.
    """
    figure = Figure(figsize=(max(6.0, size[0] * len(columns)), size[1] * len(effects) + 0.4), layout="constrained")
    axes = figure.subplots(len(effects), len(columns), squeeze=False, **shared)
    for row, (effect, label) in zip(axes, effects.items(), strict=True):
        for axis, column in zip(row, columns, strict=True):
            draw(axis, effect, column)
        row[0].set_ylabel(f"{NAMES[effect.aspect]}\n{_wrapped(label)}", fontsize=8)
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title("\n".join(filter(None, (", ".join(column), axis.get_title()))), fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel(below, fontsize=8)
    return figure


def _damages(effects: Collection[Effect]) -> dict[Effect, str]:
    return {effect: effect.damage_label for effect in effects}


def plot_heads(measured: Measured) -> Figure:
    """Damage per head: sites down, heads across, one column per perturbation and one row per effect.

    Args:
        measured: the heads that were perturbed alone, in order of execution.
    """
    groups = {
        effect: by_condition([unit for unit in units if unit.head is not None]) for effect, units in measured.items()
    }
    columns = dict.fromkeys(condition for own in groups.values() for condition in own)
    heads = [unit for own in groups.values() for units in own.values() for unit in units]
    orders = {kind: sorted({unit.order for unit in heads if unit.kind == kind}) for kind, _ in columns}
    size = (
        1.4 + 0.28 * (1 + max(unit.head or 0 for unit in heads)),
        max(1.7, 0.8 + 0.17 * max(map(len, orders.values()))),
    )

    def draw(axis: Any, effect: Effect, column: tuple[str, str]) -> None:
        _draw_heads(axis, groups[effect][column], orders[column[0]], effect)

    return _panels(_damages(groups), columns, draw, size=size, below="head")


def _draw_heads(axis: Any, units: Sequence[SiteEffect], orders: Sequence[int], effect: Effect) -> None:
    grid = np.full((len(orders), 1 + max(unit.head or 0 for unit in units)), np.nan)
    for unit in units:
        grid[orders.index(unit.order), unit.head] = unit.damage(effect)
    reach = max(float(np.nanmax(np.abs(grid))), 1e-12)
    image = axis.imshow(grid, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto")
    axis.set_yticks(range(len(orders)), [f"#{order}" for order in orders], fontsize=6)
    axis.set_xticks(range(grid.shape[1]), range(grid.shape[1]), fontsize=6)
    axis.figure.colorbar(image, ax=axis, fraction=0.08, pad=0.03).ax.tick_params(labelsize=6)


def _names(units: Any) -> list[str]:
    return list(dict.fromkeys(unit.name for unit in sorted(units, key=lambda unit: (unit.order, unit.head or 0))))


def _draw_bars(
    axis: Any, units: Sequence[SiteEffect], names: Sequence[str], effect: Effect, colours: Mapping[str, str]
) -> None:
    base, width = effect.unchanged or 0.0, 0.8 / len(colours)
    for index, (perturbation, colour) in enumerate(colours.items()):
        own = [unit for unit in units if unit.perturbation == perturbation]
        positions = [names.index(unit.name) + (index - (len(colours) - 1) / 2) * width for unit in own]
        intervals = [unit.interval() for unit in own]
        heights = [interval.mean - base for interval in intervals]
        spread = np.array([(interval.mean - interval.low, interval.high - interval.mean) for interval in intervals]).T
        style = {"elinewidth": 0.7, "ecolor": "#222222"}
        axis.bar(positions, heights, width, bottom=base, color=colour, yerr=spread if own else None, error_kw=style)
    axis.axhline(base, color="#222222", linewidth=0.8)
    tidy(axis)


def _draw_ep(axis: Any, units: Sequence[SiteEffect], names: Sequence[str]) -> None:
    ep = {unit.name: unit.ep for unit in units}
    axis.plot(range(len(names)), [ep[name] for name in names], "o", markersize=3.5, color="#333333")
    axis.axhline(50, color=LINE, linewidth=0.9)
    axis.set_ylim(0, 104)
    axis.set_xlim(-0.7, len(names) - 0.3)
    axis.set_ylabel("EP (%)", fontsize=8)
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axis.label_outer()
    tidy(axis)


def plot_scatter(measured: Measured, related: Sequence[Relation]) -> Figure:
    """EP against damage, one point per site, one column per kind and perturbation; colour is the number of keys."""
    groups = {effect: by_condition(units) for effect, units in measured.items()}
    columns = dict.fromkeys(condition for own in groups.values() for condition in own)
    rho = {(relation.effect, relation.kind, relation.perturbation): relation.overall for relation in related}

    def draw(axis: Any, effect: Effect, column: tuple[str, str]) -> None:
        units, own_rho = groups[effect].get(column, []), rho.get((effect, *column))
        damage, keys = [unit.damage(effect) for unit in units], [np.log2(unit.keys) for unit in units]
        axis.scatter([unit.ep for unit in units], damage, c=keys, cmap="viridis", s=22, vmin=1, vmax=13)
        for unit, value in zip(units, damage, strict=True):
            axis.annotate(unit.name, (unit.ep, value), xytext=(3, 2), textcoords="offset points", fontsize=5.5)
        axis.margins(0.12)
        title = "too few sites for rho" if own_rho is None else f"rho {own_rho}, n = {own_rho.units}"
        axis.set_title(title, fontsize=8)
        tidy(axis)

    return _panels(_damages(groups), columns, draw, size=(2.5, 2.5), below="EP (%)", sharex="col", sharey="row")


def plot_growing(table: pl.DataFrame, effects: Sequence[Effect]) -> Figure:
    """The k sites of highest and of lowest EP replaced together, k growing: effect against k."""
    rows = table.filter(pl.col("rank") != "each").with_columns(together=pl.col("sites").str.count_matches(",") + 1)

    def draw(axis: Any, effect: Effect, column: tuple[str, str]) -> None:
        own = rows.filter(kind=column[0], perturbation=column[1])
        for rank, colour, name in (("top", "#8e2f6b", "highest EP"), ("bottom", "#3b7f8c", "lowest EP")):
            means = own.filter(rank=rank).group_by("together").agg(pl.col(effect.column).mean()).sort("together")
            axis.plot(means["together"], means[effect.column], "o-", color=colour, label=name)
        tidy(axis)

    columns, below = rows.select("kind", "perturbation").unique(maintain_order=True).rows(), "sites replaced together"
    figure = _panels(
        {effect: effect.label for effect in effects},
        columns,
        draw,
        size=(2.6, 2.3),
        below=below,
        sharex="col",
        sharey="row",
    )
    figure.axes[0].legend(fontsize=7, frameon=False)
    return figure


def draw_strips(strips: Sequence[Strip], orders: Mapping[str, int], kind: str) -> tuple[Figure, str] | None:
    """Strips of frames of the first clip: the original on top, then one row per site (the paper's figure 1).

    Args:
        strips: those of a study.
        orders: number of every site.
        kind: of the sites to draw.

    Returns:
        The figure and the clip it shows, or None where the study kept no frames of this kind.
    """
    own = [strip for strip in strips if strip.kind == kind and strip.rank == "each" and strip.head is None]
    if not own:
        return None
    clip = own[0].prompt, own[0].seed
    baselines = [strip for strip in strips if strip.sites is None]
    shown = [strip for strip in (*baselines, *own) if (strip.prompt, strip.seed) == clip]
    names, rows = sorted({str(strip.perturbation) for strip in own}), dict[str, dict[str, Strip]]()
    for strip in sorted(shown, key=lambda strip: -1 if strip.sites is None else orders.get(strip.sites, 0)):
        label = "original" if strip.sites is None else f"#{orders.get(strip.sites, '?')}"
        row = rows.setdefault(label, {})
        row.update({str(strip.perturbation): strip} if strip.sites else dict.fromkeys(names, strip))
    height, width = own[0].frames.shape[1], own[0].frames.shape[0] * own[0].frames.shape[2]
    size = 0.5 + FILM_HEIGHT * width / height * len(names), 0.2 + FILM_HEIGHT * 1.1 * len(rows)
    figure = Figure(figsize=size)
    axes = figure.subplots(len(rows), len(names), squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    figure.subplots_adjust(wspace=0.02, hspace=0.1)
    for (label, films), row_axes in zip(rows.items(), axes, strict=True):
        row_axes[0].set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
        for name, axis in zip(names, row_axes, strict=True):
            axis.set_frame_on(False)
            if name in films:
                axis.imshow(np.concatenate(list(films[name].frames), axis=1), interpolation="antialiased")
    for name, axis in zip(names, axes[0], strict=True):
        axis.set_title(name, fontsize=8, loc="left")
    return figure, f"“{clip[0]}”, seed {clip[1]}"


def _wrapped(label: str) -> str:
    """A label in lines that fit beside one row of a figure."""
    return "\n".join(textwrap.wrap(label, 24))
