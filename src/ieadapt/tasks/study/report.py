"""The report of a study: what each layer does, in one HTML file, with its figures as PNG and SVG beside it."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from diffusers import DiffusionPipeline
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from ieadapt.attention import AttentionSite
from ieadapt.errors import UsageError
from ieadapt.metrics import METRICS
from ieadapt.metrics.intervals import Correlation
from ieadapt.runs.folder import display_path
from ieadapt.runs.report import Block, Picture, Report, Section, Table, Text, figure_png, render_report
from ieadapt.runs.settings import GenerationConfig
from ieadapt.runs.shared_files import write_whole
from ieadapt.tasks.maps.method import attention_maps
from ieadapt.tasks.maps.result import AttentionMaps
from ieadapt.tasks.maps.run import map_blocks
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.study.folder import StudyFolder
from ieadapt.tasks.study.report_effects import (
    NAMES,
    Effect,
    Relation,
    SiteEffect,
    effects_of,
    leading_effects,
    ranked,
    relations,
    site_effects,
    summary,
)
from ieadapt.tasks.study.report_figures import draw_strips, plot_bars, plot_growing, plot_heads, plot_scatter
from ieadapt.tasks.study.table import TABLE, read_table
from ieadapt.tasks.study.videos import Strip, read_strips

STRIP_WIDTH = 900
"""In pixels, below which strips scroll on a narrow screen."""
THRESHOLD = 0.4
"""Share of the largest weight under which the thresholded maps are blank."""
ENERGY_CAPTION = "Energy, energy share and EP per site, in order of execution; the line marks EP 50 %."


def write_study_report(folder: str | Path, *, maps: Sequence[AttentionMaps] = ()) -> Path:
    """Draw the figures of a study folder and write its report, `report.html`, beside them.

    Args:
        folder: a study folder with `study.parquet` and its profile; frames are taken from its strips, where it has any.
        maps: attention maps of chosen sites (`attention_maps`), for figure 3.

    Returns:
        The path of the report.

    Raises:
        UsageError: the folder holds no table, an empty one, or no profile.
        FailureError: a file cannot be written.
    """
    folder = Path(folder).expanduser()
    table = read_table(folder / TABLE)
    if table.is_empty() or not effects_of(table):
        raise UsageError("the table of this study holds no measured video", where=folder / TABLE)
    profile, strips = EntropyProfile.load(folder), list(read_strips(folder))
    report, figures = study_report(table, profile, strips=strips, maps=maps, record=_record(folder, table))
    for name, figure in figures.items():
        write_whole(folder / f"{name}.png", figure_png(figure))
        write_whole(folder / f"{name}.svg", figure_svg(figure))
    write_whole(folder / "report.html", render_report(report).encode())
    return folder / "report.html"


def study_report(
    table: pl.DataFrame,
    profile: EntropyProfile,
    *,
    strips: Sequence[Strip] = (),
    maps: Sequence[AttentionMaps] = (),
    record: Mapping[str, Any] | None = None,
) -> tuple[Report, dict[str, Figure]]:
    """A study as a report, and its figures by name.

    Args:
        table: one row per perturbed video, as in `study.parquet`.
        profile: entropy and energy of the same model.
        strips: frames of some of the videos.
        maps: attention maps of chosen sites.
        record: what the report's last section lists; `command` goes to "how to repeat it".
    """
    sites, every = profile.by_site(), effects_of(table)
    leading = leading_effects(table) or every[:1]
    measured = {effect: site_effects(table, effect, sites) for effect in leading}
    related = relations(table, every, sites)
    ahead = [relation for relation in related if relation.effect in leading]
    figures = _figures(table, profile, measured, ahead)
    listed = dict(record or {})
    command = listed.pop("command", None)
    report = Report(
        title=f"What each attention layer of {table['model'][0]} does",
        request=_perturbed_part(table),
        results=summary(table, leading, ahead, sites),
        sections=[
            Section("What replacing a layer looks like", _strip_blocks(strips, sites)),
            Section("What it costs", _cost_blocks(figures, measured)),
            Section("Whether entropy predicts it", _relation_blocks(figures, related)),
            Section("Entropy and energy per site", [_picture(figures["entropy-and-energy"], ENERGY_CAPTION, 760)]),
            Section("Where tokens look", _map_blocks(maps)),
            Section("What was measured", [_definitions(table, every)]),
        ],
        repeat={"Command line": str(command)} if command else {},
        record=listed,
    )
    return replace(report, sections=[section for section in report.sections if section.blocks]), figures


def study_maps(
    pipe: DiffusionPipeline, table: pl.DataFrame, profile: EntropyProfile, call: Mapping[str, Any] | None = None
) -> list[AttentionMaps]:
    """Maps for figure 3: the sites of lowest and of highest EP of every kind, on the first clip of a study.

    Args:
        pipe: the pipeline that was studied.
        table: the study's table.
        profile: its profile.
        call: further inputs of the pipeline's call; the table holds their digests only.
    """
    first, ep = table.row(0, named=True), profile.ep
    names = ("guidance_scale", "num_frames", "height", "width", "negative_prompt")
    settings: dict[str, Any] = {name: first.get(name) for name in names}
    generation = GenerationConfig(first["steps"], **settings, call=call or {})
    studied = {name for names in table["sites"].unique() for name in names.split(",")}
    sites = sorted((site for site in profile.sites if site.name in studied), key=lambda site: ep[site.name])
    chosen: dict[str, AttentionSite] = {}
    for kind in dict.fromkeys(site.kind for site in sites):
        own = [site for site in sites if site.kind == kind]
        chosen |= {site.name: site for site in (own[0], own[-1])}
    steps = [first["steps"] // 2]
    return [
        attention_maps(pipe, first["prompt"], site, generation, steps=steps, seed=first["seed"])
        for site in chosen.values()
    ]


def figure_svg(figure: Figure) -> bytes:
    """A figure as SVG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "ieadapt"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", facecolor="white", metadata={"Date": None})
    return buffer.getvalue()


def _figures(
    table: pl.DataFrame,
    profile: EntropyProfile,
    measured: Mapping[Effect, Sequence[SiteEffect]],
    related: Sequence[Relation],
) -> dict[str, Figure]:
    figures = {"entropy-and-energy": profile.plot()}
    if any(measured.values()):
        figures["effects"] = plot_bars(measured)
        figures["ep-and-effects"] = plot_scatter(measured, related)
    if table["head"].is_not_null().any():
        figures["heads"] = plot_heads(measured)
    if (table["rank"] != "each").any():
        figures["growing-sets"] = plot_growing(table, list(measured))
    for figure in figures.values():  # laid out once, so that PNG and SVG are alike
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figures


def _perturbed_part(table: pl.DataFrame) -> str:
    first = table.row(0, named=True)
    branch = {"both": "both guidance branches", "cond": "the branch of the prompt"}.get(
        first["branch"], first["branch"]
    )
    return f"{first['steps']} steps; maps replaced in the window {first['window']} of the run, in {branch}."


def _strip_blocks(strips: Sequence[Strip], sites: pl.DataFrame) -> list[Block]:
    orders = dict(sites.select("site", "order").rows())
    blocks: list[Block] = []
    for kind in sites["kind"].unique(maintain_order=True):
        drawn = draw_strips(strips, orders, kind)
        if drawn is not None:
            caption = (
                f"{kind.capitalize()} attention, one site replaced at a time; {drawn[1]}. Numbers as in the table."
            )
            width = min(STRIP_WIDTH, Image.open(io.BytesIO(drawn[0])).width)
            blocks.append(Picture(drawn[0], caption, f"frames of one clip, original and per site: {caption}", width))
    return blocks


def _cost_blocks(figures: Mapping[str, Figure], measured: Mapping[Effect, Sequence[SiteEffect]]) -> list[Block]:
    blocks: list[Block] = []
    if "effects" in figures:
        caption = (
            "Mean over clips with its 95 % interval, per site in order of execution; bars start from the value of a "
            "video in which nothing was replaced. Below: EP of the site, with the 50 % line."
        )
        blocks += [_picture(figures["effects"], caption, 760)]
        blocks += [_ranked_table(effect, units) for effect, units in measured.items() if units]
    if "heads" in figures:
        caption = "Damage by head, one head of one site replaced at a time; red is damage, white is none."
        blocks.append(_picture(figures["heads"], caption, 760))
    if "growing-sets" in figures:
        caption = "The sites of highest and of lowest EP replaced together, in growing numbers."
        blocks.append(_picture(figures["growing-sets"], caption, 620))
    return blocks


def _ranked_table(effect: Effect, units: Sequence[SiteEffect]) -> Table:
    """One row per site and perturbation, most damage first."""
    rows = [
        [unit.name, unit.site, unit.kind, unit.perturbation, f"{unit.ep:.1f}", unit.interval().unsigned()]
        for unit in ranked(effect, units)
    ]
    caption = f"Every site by {NAMES[effect.aspect]}, most damage first: mean over clips [95 % interval]."
    return Table(("#", "site", "kind", "replaced by", "EP %", effect.label), rows, caption, numeric=(0, 4, 5))


def _relation_blocks(figures: Mapping[str, Figure], related: Sequence[Relation]) -> list[Block]:
    blocks: list[Block] = []
    if "ep-and-effects" in figures:
        caption = (
            "EP against damage, one point per site (its number beside it; lighter points have more keys). Rho is "
            "Spearman's, with a 95 % bootstrap interval over sites and clips; above zero, sites of higher EP suffer "
            "more."
        )
        blocks.append(_picture(figures["ep-and-effects"], caption, 760))
    if related:
        rows = [
            [
                NAMES[relation.effect.aspect],
                relation.effect.label,
                relation.kind,
                relation.perturbation,
                str(relation.overall.units),
                *map(_cell, (relation.overall, relation.here, relation.within)),
            ]
            for relation in related
        ]
        headings = ("aspect", "measure", "kind", "replaced by", "sites", "rho", "these sites", "within one resolution")
        caption = (
            "EP against damage for every measure: rho with its interval over other sites and other clips, then over "
            "other clips only; the last column ranks only sites of equal resolution against each other. "
            f"{len(rows)} rows, not corrected for their number."
        )
        blocks.append(Table(headings, rows, caption, numeric=(4, 5, 6, 7)))
    return blocks


def _cell(rho: Correlation | None) -> str:
    return "–" if rho is None or math.isnan(rho.rho) else f"{rho}"


def _map_blocks(maps: Sequence[AttentionMaps]) -> list[Block]:
    blocks: list[Block] = []
    for each in maps:
        pictures = {name: figure_png(figure) for name, figure in each.figures(THRESHOLD).items()}
        blocks += map_blocks(each, pictures)
    return blocks


def _definitions(table: pl.DataFrame, effects: Sequence[Effect]) -> Block:
    """What each measured number means."""
    rows = []
    for name, metric in METRICS.items():
        if any(effect.column.removesuffix("_change") == name for effect in effects):
            better = {"context": "neither"}.get(metric.better, metric.better)
            rows.append([name, metric.definition, metric.range, better, metric.source])
    if not rows:
        return Text("The scores of the testbed against the ideal clip of the prompt.")
    return Table(
        ("measure", "definition", "range", "better", "source"), rows, "“Change” is perturbed less unperturbed."
    )


def _picture(figure: Figure, caption: str, least_width: int) -> Picture:
    return Picture(figure_png(figure), caption, caption, least_width)


def _record(folder: Path, table: pl.DataFrame) -> dict[str, Any]:
    """What is known of the study, from its own record where that is there."""
    record: dict[str, Any] = {
        "folder": display_path(folder),
        "weights": table["weights_hash"][0],
        "perturbed videos": table.height,
        "prompts": table["prompt"].n_unique(),
        "seeds": ", ".join(map(str, sorted(table["seed"].unique()))),
    }
    if notes := StudyFolder(folder).notes():
        record["notes"] = "; ".join(notes)
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):  # as far as it can be read
        own = json.loads((folder / "study.json").read_text())
        record |= {name: own[name] for name in ("command", "started") if own.get(name)}
        record["versions"] = ", ".join(f"{name} {version}" for name, version in own.get("versions", {}).items())
    return record
