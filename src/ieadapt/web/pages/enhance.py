"""The page that enhances: plain and enhanced from the same noise, side by side in step."""

from __future__ import annotations

import json
from pathlib import Path

import gradio as gr

from ieadapt.runs.folder import Stages
from ieadapt.runs.pipelines import Load
from ieadapt.runs.report import Table
from ieadapt.tasks.enhance.run import EnhanceRun, run_enhance
from ieadapt.web.app import App, Seen
from ieadapt.web.fields import model_field, prompts_field
from ieadapt.web.forms import Form
from ieadapt.web.page import EXAMPLE, connect, head
from ieadapt.web.panel import Panel
from ieadapt.web.rendering import render

EMPTY = (
    "Nothing enhanced yet",
    "Press Enhance: the plain video and the enhanced one, made from the same noise, will play here in step. The layers "
    "are chosen by their EP unless you say otherwise.",
)
SHOWN = ("preset", "sites", "scale", "start", "steps", "seed")


def build(app: App, blocks: gr.Blocks) -> None:
    """Make the page."""
    head("enhance")
    with gr.Row(elem_classes="page"):
        with gr.Column(scale=2, min_width=300, elem_classes="form"):
            prompts = prompts_field("Prompts", "What the videos show, one per line.", EXAMPLE)
            fields = [prompts, model_field(app.models), app.profile_field()]
            form = Form(EnhanceRun, fields, SHOWN, (), {"steps": 8})
            button = gr.Button("Enhance", variant="primary")
        with gr.Column(scale=5, min_width=320, elem_classes="seen"):
            panel = Panel(app, "enhance", lambda seen: show(app, seen), EMPTY)
    connect(app, blocks, form, panel, button, enhanced)


def enhanced(asked: EnhanceRun, out: Path, stages: Stages, load: Load) -> None:
    """Carry out an enhance run."""
    run_enhance(asked, out, stages=stages, load=load)


def show(app: App, seen: Seen) -> str:
    """The pairs of an enhance run that are finished, and the layers that were changed."""
    folder = app.workspace.folder(seen.name)
    names = [name for name in seen.record["files"] if name.removesuffix(".json").isdigit()]
    told = {Path(name).stem: json.loads((folder / name).read_text(encoding="utf-8")) for name in names}
    pairs = [
        (f"{name}-plain.mp4", f"{name}-enhanced.mp4", f"{each['prompt']} (seed {each['seed']})")
        for name, each in told.items()
    ]
    sites = Table(("changed layer",), [[name] for name in seen.record.get("sites", ())])
    return render(
        "videos.html.j2",
        seen=seen,
        spoken=app.spoken,
        pairs=pairs,
        labels=("plain", "enhanced"),
        view="side",
        tables=[sites] if sites.rows else [],
        strips=(),
        others=(),
    )
