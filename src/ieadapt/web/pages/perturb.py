"""The page that perturbs: layers picked in a heat map or by pattern, original and perturbed side by side in step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ieadapt.errors import IEAdaptError
from ieadapt.runs.folder import Stages
from ieadapt.runs.pipelines import Load
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.perturb.config import Perturbed, PerturbRun
from ieadapt.tasks.perturb.report import measures_table
from ieadapt.tasks.perturb.run import run_perturb
from ieadapt.web.app import App, Seen
from ieadapt.web.fields import model_field, prompts_field
from ieadapt.web.forms import Form
from ieadapt.web.heatmap import heat_maps
from ieadapt.web.page import EXAMPLE, connect, head
from ieadapt.web.panel import PICK, QUIET, Panel
from ieadapt.web.rendering import render

EMPTY = (
    "Nothing perturbed yet",
    "Choose layers and what their maps become, then press Perturb. The video as it is and the perturbed one, made from "
    "the same noise, will play here in step.",
)
SHOWN = ("perturbation", "sites", "start", "stop", "steps", "seed")


def build(app: App, blocks: gr.Blocks) -> None:
    """Make the page."""
    head("perturb")
    with gr.Row(elem_classes="page"):
        with gr.Column(scale=2, min_width=300, elem_classes="form"):
            prompts = prompts_field("Prompts", "What the videos show, one per line.", EXAMPLE)
            model, profile = model_field(app.models), app.profile_field()
            form = Form(PerturbRun, [prompts, model, profile], SHOWN, (), {"steps": 8})
            button = gr.Button("Perturb", variant="primary")
        with gr.Column(scale=5, min_width=320, elem_classes="seen"):
            panel = Panel(app, "perturb", lambda seen: show(app, seen), EMPTY)
            with gr.Accordion("Pick layers in the heat map", open=True, elem_classes="pick") as picking:
                heat = gr.HTML(js_on_load=PICK, apply_default_css=False)
    connect(app, blocks, form, panel, button, perturbed)
    sites = form.component("sites")

    def picked(event: gr.SelectData) -> Any:
        return ", ".join(event.value) if event.value else gr.skip()

    def drawn(name: str, chosen: str) -> str:
        return pickable(app, name, [part.strip() for part in (chosen or "").split(",")])

    heat.select(picked, None, [sites], **QUIET)
    profile.component.change(drawn, [profile.component, sites], [heat], **QUIET)
    blocks.load(lambda: pickable(app, "", ()), None, [heat], **QUIET)
    panel.outcome.change(lambda name: gr.update(open=not name), [panel.run], [picking], **QUIET)


def perturbed(asked: PerturbRun, out: Path, stages: Stages, load: Load) -> None:
    """Carry out a perturb run."""
    run_perturb(asked, out, stages=stages, load=load)


def pickable(app: App, name: str | None, pressed: Sequence[str]) -> str:
    """The heat map of a measured run, whose layers can be picked; without a run what to do about it."""
    try:
        maps = heat_maps(EntropyProfile.load(app.workspace.folder(name))) if name else []
    except IEAdaptError:
        maps = []
    return render("pick.html.j2", maps=maps, pressed=pressed, any=bool(app.workspace.profiles()))


def show(app: App, seen: Seen) -> str:
    """The videos of a perturb run, and how far they moved."""
    file = app.workspace.folder(seen.name) / "perturbed.json"
    told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    videos = [Perturbed(**each) for each in told]
    pairs = [
        (f"{each.name}-original.mp4", f"{each.name}-perturbed.mp4", f"{each.prompt} (seed {each.seed})")
        for each in videos
    ]
    return render(
        "videos.html.j2",
        seen=seen,
        spoken=app.spoken,
        pairs=pairs,
        labels=("original", "perturbed"),
        view="side",
        tables=[measures_table(videos)] if videos else [],
        strips=[f"{each.name}-strip.png" for each in videos],
        others=(),
    )
