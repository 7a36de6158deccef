"""The page that measures: a prompt becomes heat maps of EP, a layer of them the maps of its attention."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gradio as gr

from ieadapt.runs.folder import Stages
from ieadapt.runs.pipelines import Hardware, Load
from ieadapt.tasks.generate import GenerationConfig
from ieadapt.tasks.maps.run import CAPTIONS, MapsRun, run_maps
from ieadapt.tasks.measure.plot import short_name
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.run import MeasureRun, describe_profile, profile_table, run_measure
from ieadapt.web.app import App, Seen
from ieadapt.web.fields import model_field, prompts_field
from ieadapt.web.forms import Form
from ieadapt.web.heatmap import heat_maps
from ieadapt.web.page import EXAMPLE, connect, guarded, head
from ieadapt.web.panel import QUIET, Panel
from ieadapt.web.rendering import render

EMPTY = (
    "Nothing measured yet",
    "Write what a video shows and press Measure. A heat map of every layer will stand here; the video itself is not "
    "kept, only what the layers did.",
)


_MAPS = "() => new URLSearchParams(location.search).get('maps')"


def build(app: App, blocks: gr.Blocks) -> None:
    """Make the page."""
    head("")
    with gr.Row(elem_classes="page"):
        with gr.Column(scale=2, min_width=300, elem_classes="form"):
            prompts = prompts_field("Prompts", "What the videos show, one per line.", EXAMPLE)
            model = model_field(app.models)
            form = Form(MeasureRun, [prompts, model], ("steps", "seed"), (), {"steps": 8})
            button = gr.Button("Measure", variant="primary")
        with gr.Column(scale=5, min_width=320, elem_classes="seen"):
            panel = Panel(app, "measure", lambda seen: show(app, seen), EMPTY)
            maps = Panel(app, "maps", lambda seen: show_maps(app, seen), ("", ""), "maps")
    connect(app, blocks, form, panel, button, measured)

    def draw(name: str, event: gr.SelectData) -> Any:
        return guarded(maps, lambda: maps.view(_run_of_maps(app, name, str(event.value[0]))))

    drawing = panel.outcome.select(draw, [panel.run], maps.outputs, **QUIET)
    maps.bring_into_view(drawing)
    maps.remember(drawing)
    maps.remember(button.click(lambda: maps.view(None), None, maps.outputs, **QUIET))
    blocks.load(maps.view, [gr.Textbox(visible=False)], maps.outputs, js=_MAPS, **QUIET)


def measured(asked: MeasureRun, out: Path, stages: Stages, load: Load) -> None:
    """Carry out a measure run."""
    run_measure(asked, out, stages=stages, load=load)


def drawn(asked: MapsRun, out: Path, stages: Stages, load: Load) -> None:
    """Carry out a maps run."""
    run_maps(asked, out, stages=stages, load=load)


def show(app: App, seen: Seen) -> str:
    """The heat maps of a measure run, and what it found."""
    profile = EntropyProfile.load(app.workspace.folder(seen.name))
    return render(
        "measured.html.j2",
        seen=seen,
        spoken=app.spoken,
        found=describe_profile(profile),
        maps=heat_maps(profile),
        table=profile_table(profile),
        pressed=(),
    )


def show_maps(app: App, seen: Seen) -> str:
    """The pictures of a maps run."""
    pictures = [path for path in seen.record["files"] if path.endswith(".png")]
    captions = [(path, _caption(path.removesuffix(".png"))) for path in pictures]
    label = short_name(str(seen.config["site"]))
    return render("maps.html.j2", seen=seen, label=label, found=(), pictures=captions)


def _caption(name: str) -> str:
    step = name.removeprefix("words-step-")
    return CAPTIONS.get(name, f"Step {step}: how much the video looks at each word; its mean share beside it.")


def maps_of(config: Any, site: str) -> MapsRun:
    """The maps run that looks at one site of what a measure run has measured: its first prompt, noise and settings."""
    generation = GenerationConfig(**config["generation"])
    hardware = Hardware(**config["hardware"])
    return MapsRun(
        config["model"],
        tuple(config["prompts"][:1]),
        site=site,
        generation=generation,
        seed=config["seed"],
        hardware=hardware,
    )


def _run_of_maps(app: App, name: str, site: str) -> str:
    """The run that draws the maps of a site of a measure run: an earlier one, or one that begins now."""
    asked = maps_of(app.see(name).config, site)
    said = json.loads(json.dumps(dataclasses.asdict(asked)))
    same = (run for run in app.workspace.complete("maps") if app.workspace.record(run)["config"] == said)
    return next(same, None) or app.start("maps", drawn, asked)
