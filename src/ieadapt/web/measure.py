"""The page that measures: a prompt becomes heat maps of EP, a layer of them the maps of its attention."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import gradio as gr
import polars as pl
from matplotlib.colors import LinearSegmentedColormap, to_hex

from ieadapt.runs.settings import GenerationConfig, Hardware
from ieadapt.tasks.maps.run import CAPTIONS, MapsRun, run_maps
from ieadapt.tasks.measure.profile import COLOURS, EntropyProfile, short_name
from ieadapt.tasks.measure.run import MeasureRun, describe_profile, profile_table, run_measure
from ieadapt.web.app import App, RunView
from ieadapt.web.page import QUIET, Panel, Workflow, WorkflowPage
from ieadapt.web.rendering import render

EMPTY = (
    "Nothing measured yet",
    "Write what a video shows and press Measure. A heat map of every layer will stand here; the video itself is not "
    "kept, only what the layers did.",
)


def build(app: App, blocks: gr.Blocks) -> None:
    """Make the page."""
    page = WorkflowPage(app, blocks, MEASURE)
    with page.column:
        maps = Panel(app, "maps", show_maps, parameter="maps")

    def draw(name: str, event: gr.SelectData) -> list[Any]:
        return maps.guard(lambda: maps.view(_maps_run(app, name, str(event.value[0]))))

    maps.follow(page.panel.outcome.select(draw, [page.panel.run], maps.outputs, **QUIET))
    maps.follow(page.button.click(lambda: maps.view(None), None, maps.outputs, **QUIET))
    maps.restore(blocks, maps.view, maps.outputs, "maps")


def show(app: App, run: RunView) -> str:
    """The heat maps of a measure run, and what came out."""
    profile = EntropyProfile.load(app.workspace.folder(run.name))
    results, table = describe_profile(profile), profile_table(profile)
    return render("measured.html.j2", run=run, results=results, maps=heat_maps(profile), table=table)


def show_maps(app: App, run: RunView) -> str:
    """The pictures of a maps run."""
    pictures = [path for path in run.record["files"] if path.endswith(".png")]
    captions = [(path, _caption(path.removesuffix(".png"))) for path in pictures]
    return render("maps.html.j2", run=run, label=short_name(str(run.config["site"])), pictures=captions)


def _caption(name: str) -> str:
    step = name.removeprefix("words-step-")
    return CAPTIONS.get(name, f"Step {step}: how much the video looks at each word; its mean share beside it.")


MEASURE = Workflow("measure", MeasureRun, run_measure, show, EMPTY, ("steps", "seed"))


def _maps_run(app: App, name: str, site: str) -> str:
    """The run that draws the maps of a site for the first prompt of a measure run: an earlier one, or a new one."""
    measured = app.view(name).config
    config = MapsRun(
        measured["model"],
        tuple(measured["prompts"][:1]),
        site=site,
        generation=GenerationConfig(**measured["generation"]),
        seed=measured["seed"],
        hardware=Hardware(**measured["hardware"]),
    )
    recorded = json.loads(json.dumps(dataclasses.asdict(config)))
    same = (run for run, record in app.workspace.complete("maps") if record["config"] == recorded)
    return next(same, None) or app.start("maps", run_maps, config)


def heat_maps(profile: EntropyProfile) -> list[dict[str, Any]]:
    """What the template draws: a map per kind of attention, in the kind's colour of all plots; the shortest first.

    Returns:
        Per kind `kind`, `steps` (numbers of the denoising steps), `ramp` (CSS background of EP 0 to 100, for the
        legend) and `layers` in order of execution. Per layer `site`, its short `label`, `ep` at each step in percent,
        and `cells`: the steps as one CSS background, so that a large model costs no more elements than it has layers.

    Example:
        >>> row = dict(site="mid_block.attn1", kind="spatial", order=0, head=0, step=0, branch="cond", videos=1,
        ...     n_keys=16.0, entropy=1.386, ep=50.0, energy=2.0)
        >>> maps = heat_maps(EntropyProfile.from_rows([row, row | {"step": 1, "ep": 100.0}]))
        >>> layer = maps[0]["layers"][0]
        >>> maps[0]["kind"], layer["ep"], layer["cells"].endswith("#2563a8 50.000% 100.000%)")
        ('spatial', (50.0, 100.0), True)
    """
    table = profile.table.group_by("kind", "site", "order", "step").agg(pl.col("ep").mean()).sort("order", "step")
    maps = []
    for kind, colour in COLOURS.items():
        part = table.filter(pl.col("kind") == kind)
        if part.is_empty():
            continue
        colours = LinearSegmentedColormap.from_list(kind, ["#f4f6fa", colour])
        layers = []
        for (site,), layer in part.group_by("site", maintain_order=True):
            ep = tuple(map(float, layer["ep"]))
            layers.append({"site": site, "label": short_name(str(site)), "ep": ep, "cells": _cells(colours, ep)})
        ramp = f"linear-gradient(90deg, {to_hex(colours(0.0))}, {to_hex(colours(1.0))})"
        steps = part["step"].unique().sort().to_list()
        maps.append({"kind": kind, "steps": steps, "layers": layers, "ramp": ramp})
    return sorted(maps, key=lambda each: len(each["layers"]))


def _cells(colours: LinearSegmentedColormap, ep: Sequence[float]) -> str:
    width = 100 / len(ep)
    shades = (to_hex(colours(value / 100)) for value in ep)
    stops = (f"{shade} {width * index:.3f}% {width * (index + 1):.3f}%" for index, shade in enumerate(shades))
    return f"linear-gradient(90deg, {', '.join(stops)})"
