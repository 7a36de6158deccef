"""The picture of an entropy profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "spatial": "#2563a8",
    "temporal": "#c2571a",
    "joint": "#2f7d4f",
    "cross": "#7a4ea3",
    "text": "#6b6b6b",
    "unknown": "#333333",
}


def plot_sites(sites: pl.DataFrame, title: str) -> Figure:
    """Three rows (energy, energy share, EP with the 50 % line), one column per kind of attention.

    Args:
        sites: one row per site, as `EntropyProfile.by_site` gives them. EP bars carry the range over heads.
        title: the heading.

    Source: the layout of figure 4 of arXiv 2504.12027, from its caption.
    """
    from matplotlib.figure import Figure

    kinds = [kind for kind in COLOURS if kind in set(sites["kind"])]
    counts = {kind: sites.filter(pl.col("kind") == kind).height for kind in kinds}
    widths = [max(counts[kind], 4) for kind in kinds]
    figure = Figure(figsize=(max(7.0, 1.5 + 0.27 * sum(widths)), 7.2), layout="constrained")
    axes = figure.subplots(
        3, len(kinds), squeeze=False, sharex="col", sharey="row", gridspec_kw={"width_ratios": widths}
    )
    for column, kind in enumerate(kinds):
        _plot_kind(axes[:, column], sites.filter(pl.col("kind") == kind), kind)
    for row, label in enumerate(("energy per video", "energy share", "EP (%)")):
        axes[row][0].set_ylabel(label)
    figure.suptitle(title, fontsize=11)
    return figure


def _plot_kind(axes: Any, rows: pl.DataFrame, kind: str) -> None:
    energy, share, entropy = axes
    positions = list(range(rows.height))
    energy.bar(positions, rows["energy"].to_list(), color=COLOURS[kind])
    energy.set_yscale("log")
    energy.set_title(f"{kind} attention", fontsize=10)
    share.bar(positions, (100 * rows["energy_share"]).to_list(), color=COLOURS[kind])
    share.yaxis.set_major_formatter("{x:g} %")
    ep = rows["ep"].to_list()
    spread = [
        [max(0.0, mean - low) for mean, low in zip(ep, rows["ep_min"], strict=True)],
        [max(0.0, high - mean) for mean, high in zip(ep, rows["ep_max"], strict=True)],
    ]
    entropy.bar(positions, ep, color=COLOURS[kind], yerr=spread, error_kw={"elinewidth": 0.8, "ecolor": "#222222"})
    entropy.axhline(50, color="#c0392b", linewidth=1)
    entropy.set_ylim(0, 104)
    entropy.set_xticks(positions, [short_name(name) for name in rows["site"]], rotation=90, fontsize=6.5)
    for axis in (energy, share, entropy):
        _tidy(axis)


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=7)


def short_name(name: str) -> str:
    """A site's path without the words that every site of the kind shares."""
    shortened = name
    for long, short in (
        ("down_blocks.", "down"),
        ("up_blocks.", "up"),
        ("mid_block", "mid"),
        (".motion_modules.", "."),
        (".temp_attentions.", "."),
        (".attentions.", "."),
        (".transformer_blocks.0", ""),
        ("single_transformer_blocks.", "single"),
        ("transformer_blocks.", "block"),
        ("blocks.", "block"),
    ):
        shortened = shortened.replace(long, short)
    return shortened
