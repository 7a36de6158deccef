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

from ieadapt.errors import UsageError
from ieadapt.metrics import METRICS
from ieadapt.metrics.intervals import Correlation
from ieadapt.runs.folder import display_path
from ieadapt.runs.report import Block, Picture, Report, Section, Table, Text, figure_png, render_report
from ieadapt.runs.settings import GenerationConfig
from ieadapt.runs.shared_files import write_whole
from ieadapt.tasks.evaluate.tables import definitions_table
from ieadapt.tasks.maps.method import attention_maps
from ieadapt.tasks.maps.result import AttentionMaps
from ieadapt.tasks.maps.run import map_blocks
from ieadapt.tasks.measure.profile import EntropyProfile, short_name
from ieadapt.tasks.measure.run import PROFILE_CAPTION
from ieadapt.tasks.study.folder import StudyFolder
from ieadapt.tasks.study.report_effects import (
    NAMES,
    Effect,
    Measured,
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

LEAST_WIDTH = 760
"""In pixels, below which figures scroll on a narrow screen."""
THRESHOLD = 0.4
"""Share of the largest weight under which the thresholded maps are blank."""
CAPTIONS: Mapping[str, str] = {
    "effects": "Mean over clips with its 95 % interval, per site in order of execution; bars start from the value of a "
    "video in which nothing was replaced. Below: EP of the site, with the 50 % line.",
    "heads": "Damage by head, one head of one site replaced at a time; red is damage, white is none.",
    "growing-sets": "The sites of highest and of lowest EP replaced together, in growing numbers.",
    "ep-and-effects": "EP against damage, one point per site (its number beside it; lighter: more keys). Rho "
    "is Spearman's, with a 95 % bootstrap interval over sites and clips; above zero, sites of higher EP suffer more.",
    "entropy-and-energy": PROFILE_CAPTION,
}
"""What stands below the figures, by name."""


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
    measured = {effect: site_effects(table, effect, sites) for effect in every}
    leading = {effect: measured[effect] for effect in leading_effects(table) or every[:1]}
    related = relations(measured)
    ahead = [relation for relation in related if relation.effect in leading]
    figures = _figures(table, profile, leading, ahead)
    listed = dict(record or {})
    command = listed.pop("command", None)
    report = Report(
        title=f"What each attention layer of {table['model'][0]} does",
        request=_perturbed_part(table),
        results=summary(table, leading, ahead),
        sections=[
            Section("What replacing a layer looks like", _strip_blocks(strips, sites)),
            Section("What it costs", _cost_blocks(figures, leading)),
            Section("Whether entropy predicts it", _relation_blocks(figures, related)),
            Section("Entropy and energy per site", _pictures(figures, "entropy-and-energy")),
            Section(
                "Where tokens look", [block for each in maps for block in map_blocks(each, each.pictures(THRESHOLD))]
            ),
            Section("What was measured", [_definitions(every)]),
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
    first = table.row(0, named=True)
    names = ("guidance_scale", "num_frames", "height", "width", "negative_prompt")
    settings: dict[str, Any] = {name: first.get(name) for name in names}
    generation = GenerationConfig(first["steps"], **settings, call=call or {})
    studied = sorted({name for names in table["sites"].unique() for name in names.split(",")})
    chosen = dict.fromkeys([*profile.select(bottom=1, names=studied), *profile.select(top=1, names=studied)])
    steps, seed = [first["steps"] // 2], first["seed"]
    return [attention_maps(pipe, first["prompt"], site, generation, steps=steps, seed=seed) for site in chosen]


def figure_svg(figure: Figure) -> bytes:
    """A figure as SVG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "ieadapt"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", facecolor="white", metadata={"Date": None})
    return buffer.getvalue()


def _figures(
    table: pl.DataFrame,
    profile: EntropyProfile,
    measured: Measured,
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
    orders, blocks = dict(sites.select("site", "order").rows()), list[Block]()
    for kind in sites["kind"].unique(maintain_order=True):
        if drawn := draw_strips(strips, orders, kind):
            clip = f"one site replaced at a time; {drawn[1]}. Numbers as in the table."
            caption = f"{kind.capitalize()} attention, {clip}"
            about = f"frames of one clip, original and per site: {caption}"
            blocks.append(Picture(figure_png(drawn[0]), caption, about, LEAST_WIDTH))
    return blocks


def _cost_blocks(figures: Mapping[str, Figure], measured: Measured) -> list[Block]:
    tables = [_ranked_table(effect, units) for effect, units in measured.items() if units]
    return [*_pictures(figures, "effects"), *tables, *_pictures(figures, "heads", "growing-sets")]


def _ranked_table(effect: Effect, units: Sequence[SiteEffect]) -> Table:
    """One row per site and perturbation, most damage first."""
    rows = [
        [
            *(unit.name, short_name(unit.site), unit.kind, unit.perturbation, f"{unit.ep:.1f}"),
            *(unit.interval().unsigned(), unit.site),
        ]
        for unit in ranked(effect, units)
    ]
    caption = f"Every site by {NAMES[effect.aspect]}, most damage first: mean over clips [95 % interval]."
    headings = ("#", "site", "kind", "replaced by", "EP %", effect.label, "path")
    return Table(headings, rows, caption, numeric=(0, 4, 5))


def _relation_blocks(figures: Mapping[str, Figure], related: Sequence[Relation]) -> list[Block]:
    pictures = _pictures(figures, "ep-and-effects")
    if not related:
        return pictures
    rows = [
        [
            *(NAMES[each.effect.aspect], each.effect.label, each.kind, each.perturbation, str(each.overall.units)),
            *map(_cell, (each.overall, each.here, each.within)),
        ]
        for each in related
    ]
    headings = ("aspect", "measure", "kind", "replaced by", "sites", "rho", "these sites", "within one resolution")
    caption = (
        "EP against damage for every measure: rho with its interval over other sites and other clips, then over "
        "other clips only; the last column ranks only sites of equal resolution against each other. "
        f"{len(rows)} rows, not corrected for their number."
    )
    return [*pictures, Table(headings, rows, caption, numeric=(4, 5, 6, 7))]


def _cell(rho: Correlation | None) -> str:
    return "–" if rho is None or math.isnan(rho.rho) else f"{rho}"


def _definitions(effects: Sequence[Effect]) -> Block:
    """What each measured number means."""
    measured = {effect.column.removesuffix("_change") for effect in effects}
    metrics = [metric for name, metric in METRICS.items() if name in measured]
    if not metrics:
        return Text("The scores of the testbed against the ideal clip of the prompt.")
    return definitions_table(metrics, "“Change” is perturbed less unperturbed.")


def _pictures(figures: Mapping[str, Figure], *names: str) -> list[Block]:
    """The figures of these names that there are."""
    captions = [(figures[name], CAPTIONS[name]) for name in names if name in figures]
    return [Picture(figure_png(figure), caption, caption, LEAST_WIDTH) for figure, caption in captions]


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
