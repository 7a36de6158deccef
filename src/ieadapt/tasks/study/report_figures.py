"""The figures of a study: strips of frames, bars per site, EP against effect, growing sets of sites."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image, ImageDraw, ImageFont

from ieadapt.tasks.study.report_effects import NAMES, Effect, Relation, SiteEffect
from ieadapt.tasks.study.videos import Strip

COLOURS: Mapping[str, str] = {"identity": "#0f7c8a", "uniform": "#b5367a"}
"""Of perturbations; kinds of attention have others."""
OTHERS = ("#8a6d1f", "#6b6b6b", "#4b4f9e", "#94a31f")
LINE = "#c0392b"
FRAME_HEIGHT, LABEL_WIDTH, GAP = 56, 64, 6


def colours_of(perturbations: Sequence[str]) -> dict[str, str]:
    """One colour for each perturbation, the same in every figure."""
    spare = iter(OTHERS * len(perturbations))
    return {name: COLOURS.get(name) or next(spare) for name in perturbations}


def plot_bars(measured: Mapping[Effect, Sequence[SiteEffect]]) -> Figure:
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


def plot_heads(measured: Mapping[Effect, Sequence[SiteEffect]]) -> Figure:
    """Damage per head: sites down, heads across, one column per perturbation and one row per effect.

    Args:
        measured: the heads that were perturbed alone, in order of execution.
    """
    units = [unit for each in measured.values() for unit in each if unit.head is not None]
    columns = list(dict.fromkeys((unit.kind, unit.perturbation) for unit in units))
    orders = {kind: sorted({unit.order for unit in units if unit.kind == kind}) for kind, _ in columns}
    tallest, heads = max(len(rows) for rows in orders.values()), 1 + max(unit.head or 0 for unit in units)
    size = (max(6.0, (1.4 + 0.28 * heads) * len(columns)), max(1.7, 0.8 + 0.17 * tallest) * len(measured))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(measured), len(columns), squeeze=False)
    for row, (effect, every) in enumerate(measured.items()):
        for column, (kind, perturbation) in enumerate(columns):
            own = [unit for unit in every if (unit.kind, unit.perturbation) == (kind, perturbation)]
            _draw_heads(axes[row][column], [unit for unit in own if unit.head is not None], orders[kind], effect)
            axes[row][column].set_title(f"{kind}, {perturbation}", fontsize=8)
        axes[row][0].set_ylabel(f"{NAMES[effect.aspect]}\n{_wrapped(effect.damage_label)}", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("head", fontsize=8)
    return figure


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
    _tidy(axis)


def _draw_ep(axis: Any, units: Sequence[SiteEffect], names: Sequence[str]) -> None:
    ep = {unit.name: unit.ep for unit in units}
    axis.plot(range(len(names)), [ep[name] for name in names], "o", markersize=3.5, color="#333333")
    axis.axhline(50, color=LINE, linewidth=0.9)
    axis.set_ylim(0, 104)
    axis.set_xlim(-0.7, len(names) - 0.3)
    axis.set_ylabel("EP (%)", fontsize=8)
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axis.label_outer()
    _tidy(axis)


def plot_scatter(measured: Mapping[Effect, Sequence[SiteEffect]], related: Sequence[Relation]) -> Figure:
    """EP against damage, one point per site, one column per kind and perturbation; colour is the number of keys."""
    columns = list(dict.fromkeys((unit.kind, unit.perturbation) for each in measured.values() for unit in each))
    rho = {(relation.effect, relation.kind, relation.perturbation): relation.overall for relation in related}
    figure = Figure(figsize=(max(6.0, 2.5 * len(columns)), 2.5 * len(measured) + 0.4), layout="constrained")
    axes = figure.subplots(len(measured), len(columns), squeeze=False, sharex="col", sharey="row")
    for row, (effect, units) in enumerate(measured.items()):
        for column, (kind, perturbation) in enumerate(columns):
            own = [unit for unit in units if (unit.kind, unit.perturbation) == (kind, perturbation)]
            axis = axes[row][column]
            _draw_points(axis, own, effect)
            where = f"{kind}, {perturbation}\n" if row == 0 else ""
            own_rho = rho.get((effect, kind, perturbation))
            title = "too few sites for rho" if own_rho is None else f"rho {own_rho}, n = {own_rho.units}"
            axis.set_title(where + title, fontsize=8)
        axes[row][0].set_ylabel(f"damage to {NAMES[effect.aspect]}\n{_wrapped(effect.damage_label)}", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("EP (%)", fontsize=8)
    return figure


def _draw_points(axis: Any, units: Sequence[SiteEffect], effect: Effect) -> None:
    damage = [unit.damage(effect) for unit in units]
    keys = [np.log2(unit.keys) for unit in units]
    axis.scatter([unit.ep for unit in units], damage, c=keys, cmap="viridis", s=22, vmin=1, vmax=13)
    for unit, value in zip(units, damage, strict=True):
        axis.annotate(unit.name, (unit.ep, value), xytext=(3, 2), textcoords="offset points", fontsize=5.5)
    axis.margins(0.12)
    _tidy(axis)


def plot_growing(table: pl.DataFrame, effects: Sequence[Effect]) -> Figure:
    """The k sites of highest and of lowest EP replaced together, k growing: effect against k."""
    rows = table.filter(pl.col("rank") != "each").with_columns(
        sites_together=pl.col("sites").str.count_matches(",") + 1
    )
    columns = rows.select("kind", "perturbation").unique(maintain_order=True).rows()
    figure = Figure(figsize=(max(6.0, 2.6 * len(columns)), 2.3 * len(effects) + 0.5), layout="constrained")
    axes = figure.subplots(len(effects), len(columns), squeeze=False, sharex="col", sharey="row")
    for row, effect in enumerate(effects):
        for column, (kind, perturbation) in enumerate(columns):
            own = rows.filter((pl.col("kind") == kind) & (pl.col("perturbation") == perturbation))
            for rank, colour in (("top", "#8e2f6b"), ("bottom", "#3b7f8c")):
                means = own.filter(pl.col("rank") == rank).group_by("sites_together").agg(pl.col(effect.column).mean())
                points = means.sort("sites_together")
                axes[row][column].plot(*points.to_dict(as_series=False).values(), "o-", color=colour, label=rank)
            if row == 0:
                axes[row][column].set_title(f"{kind}, {perturbation}", fontsize=8)
            _tidy(axes[row][column])
        axes[row][0].set_ylabel(f"{NAMES[effect.aspect]}\n{_wrapped(effect.label)}", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("sites replaced together", fontsize=8)
    axes[0][0].legend(("highest EP", "lowest EP"), fontsize=7, frameon=False)
    return figure


def draw_strips(strips: Sequence[Strip], orders: Mapping[str, int], kind: str) -> tuple[bytes, str] | None:
    """Strips of frames of the first clip: the original on top, then one row per site (the paper's figure 1).

    Args:
        strips: those of a study.
        orders: number of every site.
        kind: of the sites to draw.

    Returns:
        A PNG and the clip it shows, or None where the study kept no frames of this kind.
    """
    own = [strip for strip in strips if strip.kind == kind and strip.rank == "each" and strip.head is None]
    if not own:
        return None
    clip = own[0].prompt, own[0].seed
    baseline = next((strip for strip in strips if strip.sites is None and (strip.prompt, strip.seed) == clip), None)
    own = [strip for strip in own if (strip.prompt, strip.seed) == clip]
    names = sorted({str(strip.perturbation) for strip in own})
    sites = sorted({str(strip.sites) for strip in own}, key=lambda site: orders.get(site, 0))
    rows: list[tuple[str, list[Strip | None]]] = [("", []), ("original", [baseline] * len(names))]
    for site in sites:
        by_perturbation = {strip.perturbation: strip for strip in own if strip.sites == site}
        rows.append((f"#{orders.get(site, '?')}", [by_perturbation.get(name) for name in names]))
    return _draw_rows(rows, names), f"“{clip[0]}”, seed {clip[1]}"


def _draw_rows(rows: Sequence[tuple[str, Sequence[Strip | None]]], names: Sequence[str]) -> bytes:
    pictures = [[None if strip is None else _film(strip.frames) for strip in strips] for _, strips in rows]
    width = max(film.width for row in pictures for film in row if film is not None)
    label = LABEL_WIDTH
    board = Image.new(
        "RGB", (label + (width + 2 * GAP) * len(names), 22 + (FRAME_HEIGHT + GAP) * (len(rows) - 1)), "white"
    )
    pen, font = ImageDraw.Draw(board), ImageFont.load_default(size=13)
    for column, name in enumerate(names):
        pen.text((label + column * (width + 2 * GAP), 3), name, fill=(28, 35, 48), font=font)
    for index, (title, films) in enumerate(zip([row[0] for row in rows[1:]], pictures[1:], strict=True)):
        top = 22 + index * (FRAME_HEIGHT + GAP)
        pen.text((2, top + FRAME_HEIGHT // 2 - 8), title, fill=(28, 35, 48), font=font)
        for column, film in enumerate(films):
            if film is not None:
                board.paste(film, (label + column * (width + 2 * GAP), top))
    buffer = io.BytesIO()
    board.save(buffer, format="PNG")
    return buffer.getvalue()


def _film(frames: UInt8[np.ndarray, "frame height width channel"]) -> Image.Image:
    """Frames in a row, all of one height."""
    row = Image.fromarray(np.concatenate(list(frames), axis=1))
    return row.resize((round(row.width * FRAME_HEIGHT / row.height), FRAME_HEIGHT), Image.Resampling.LANCZOS)


def _wrapped(label: str) -> str:
    """A label in lines that fit beside one row of a figure."""
    return "\n".join(textwrap.wrap(label, 24))


def _tidy(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=7)
