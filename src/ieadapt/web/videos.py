"""The pages that make two videos from the same noise, side by side in step: perturbed, and enhanced."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ieadapt.errors import IEAdaptError
from ieadapt.runs.report import Table
from ieadapt.tasks.enhance.run import EnhanceRun, run_enhance
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.perturb.run import Perturbed, PerturbRun, perturbed_table, run_perturb
from ieadapt.web.app import App, RunView
from ieadapt.web.measure import heat_maps
from ieadapt.web.page import PICK, QUIET, Workflow, WorkflowPage
from ieadapt.web.rendering import render


def build_perturb(app: App, blocks: gr.Blocks) -> None:
    """Make the page that perturbs; layers are picked in a heat map or by pattern."""
    page = WorkflowPage(app, blocks, PERTURB)
    with page.column, gr.Accordion("Pick layers in the heat map", open=True, elem_classes="pick") as picking:
        heat = gr.HTML(js_on_load=PICK, apply_default_css=False)
    sites, profile = page.form.component("sites"), page.form.component("profile")

    def pick(event: gr.SelectData) -> Any:
        return ", ".join(event.value) if event.value else gr.skip()

    def draw(name: str, chosen: str) -> str:
        return pickable(app, name, [part.strip() for part in (chosen or "").split(",")])

    heat.select(pick, None, [sites], **QUIET)
    profile.change(draw, [profile, sites], [heat], **QUIET)
    blocks.load(lambda: pickable(app, "", ()), None, [heat], **QUIET)
    page.panel.outcome.change(lambda name: gr.update(open=not name), [page.panel.run], [picking], **QUIET)


def pickable(app: App, name: str | None, pressed: Sequence[str]) -> str:
    """The heat map of a measured run, whose layers can be picked; without a run what to do about it."""
    try:
        maps = heat_maps(EntropyProfile.load(app.workspace.folder(name))) if name else []
    except IEAdaptError:
        maps = []
    return render("pick.html.j2", maps=maps, pressed=pressed, any=bool(app.workspace.profiles()))


def show_perturbed(app: App, run: RunView) -> str:
    """The videos of a perturb run, and how far they moved."""
    file = app.workspace.folder(run.name) / "perturbed.json"
    videos = [Perturbed(**each) for each in json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else []
    return render(
        "videos.html.j2",
        run=run,
        pairs=[(each.name, f"{each.prompt} (seed {each.seed})") for each in videos],
        labels=("original", "perturbed"),
        strips=True,
        table=perturbed_table(videos) if videos else None,
        title="How far the videos moved",
    )


PERTURB = Workflow(
    "perturb",
    PerturbRun,
    run_perturb,
    show_perturbed,
    (
        "Nothing perturbed yet",
        "Choose layers and what their maps become, then press Perturb. The video as it is and the perturbed one, made "
        "from the same noise, will play here in step.",
    ),
    ("perturbation", "sites", "start", "stop", "steps", "seed"),
)


def show_enhanced(app: App, run: RunView) -> str:
    """The pairs of an enhance run that are finished, and the layers that were changed."""
    names = [Path(name) for name in run.record["files"] if name.removesuffix(".json").isdigit()]
    records = {name.stem: json.loads((app.workspace.folder(run.name) / name).read_text("utf-8")) for name in names}
    sites = [[name] for name in run.record.get("sites", ())]
    return render(
        "videos.html.j2",
        run=run,
        pairs=[(name, f"{each['prompt']} (seed {each['seed']})") for name, each in records.items()],
        labels=("plain", "enhanced"),
        strips=False,
        table=Table(("changed layer",), sites) if sites else None,
        title="The layers",
    )


ENHANCE = Workflow(
    "enhance",
    EnhanceRun,
    run_enhance,
    show_enhanced,
    (
        "Nothing enhanced yet",
        "Press Enhance: the plain video and the enhanced one, made from the same noise, will play here in step. The "
        "layers are chosen by their EP unless you say otherwise.",
    ),
    ("preset", "sites", "scale", "start", "steps", "seed"),
)
