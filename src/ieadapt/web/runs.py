"""The page of runs: every run of the app's folder, and two of them compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ieadapt.errors import UsageError
from ieadapt.runs.clip_folders import parts_of
from ieadapt.runs.folder import Stages
from ieadapt.runs.report import Table
from ieadapt.runs.settings import ReadConfig
from ieadapt.tasks.evaluate.run import SUMMARY, EvaluateConfig, run_evaluation
from ieadapt.tasks.evaluate.tables import MetricSummary, summary_table
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.run import PROFILE_FILES
from ieadapt.web.app import App, RunView
from ieadapt.web.page import PAGES, QUIET, Panel, heading
from ieadapt.web.rendering import message_of, render
from ieadapt.web.workspace import label_of_run

METRICS = "psnr,ssim,flicker,motion"
COMPARED = ("enhanced", "perturbed", "edit")
"""The part of a run that is compared with the same part of another."""
_ADDRESSES = {path or "measure": f"/{path}" for path in PAGES} | {"evaluate": "/runs"}
_MEASURED = ("model", "prompts", "generation", "seed", "hardware")
"""Settings that a maps run shares with the measure run that it looks into."""


@dataclass(frozen=True)
class Comparison:
    """Two runs whose videos are compared.

    Attributes:
        reference: folder and part of the first.
        videos: folder and part of the second.
        metrics: names with commas.
    """

    reference: str
    videos: str
    metrics: str = METRICS


def run_comparison(config: Comparison, out: Path, *, stages: Stages, load: object) -> None:
    """Compare videos; no model is loaded for that."""
    evaluation = EvaluateConfig(config.metrics, reading=ReadConfig(align=True))
    run_evaluation(config.videos, out, reference=config.reference, config=evaluation, stages=stages)


def build(app: App, blocks: gr.Blocks) -> None:
    """Make the page."""
    heading("runs")
    listing = gr.HTML(apply_default_css=False)
    with gr.Column(elem_classes="form compare") as comparing:
        with gr.Row():
            first = gr.Dropdown([], label="Compare", info="The run to compare with", min_width=220)
            second = gr.Dropdown([], label="with", info="The run that is compared with it", min_width=220)
        button = gr.Button("Compare", variant="primary")
    differences = gr.HTML(apply_default_css=False)
    panel = Panel(app, "evaluate", show)

    def load() -> list[Any]:
        runs = app.workspace.runs()
        choices = [(f"{record['workflow']}: {label_of_run(name, record)}", name) for name, record in runs]
        update = gr.update(choices=choices, value=None)
        return [listed(app), update, update, gr.update(visible=len(runs) > 1)]

    def compare(one: str | None, other: str | None) -> list[Any]:
        def act() -> list[Any]:
            if not (one and other) or one == other:
                raise UsageError("a comparison needs two runs", remedy="choose one in each list")
            return [differences_of(app, one, other), *_compare_videos(app, panel, one, other)]

        return panel.guard(act, before=[""])

    blocks.load(load, None, [listing, first, second, comparing], **QUIET)
    panel.restore(blocks, panel.view, panel.outputs, "run")
    panel.follow(button.click(compare, [first, second], [differences, *panel.outputs], **QUIET))


def listed(app: App) -> str:
    """The table of runs."""
    runs, odd = app.workspace.scan()
    rows = [
        (app.view_record(name, record), label_of_run(name, record), _address(name, record, runs))
        for name, record in runs
    ]
    return render("runs.html.j2", rows=rows, odd=[(name, message_of(error)) for name, error in odd])


def _address(name: str, record: Mapping[str, Any], runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str | None:
    """The address at which a run is seen again; maps are seen below the measured run that they look into."""
    workflow = record["workflow"]
    if workflow == "maps":
        measured = next((other for other, each in runs if _is_measured(each, record["config"])), None)
        return f"/?run={measured}&maps={name}" if measured else f"/?maps={name}"
    return f"{_ADDRESSES[workflow]}?run={name}" if workflow in _ADDRESSES else None


def _is_measured(record: Mapping[str, Any], maps: Mapping[str, Any]) -> bool:
    """Whether a run has measured what a maps run looks into, which is its first prompt."""
    config = dict(record["config"])
    if isinstance(config.get("prompts"), list):
        config["prompts"] = config["prompts"][:1]
    return record["workflow"] == "measure" and all(config.get(part) == maps.get(part) for part in _MEASURED)


def differences_of(app: App, one: str, other: str) -> str:
    """How the settings of two runs differ, and their measured EP."""
    records = {name: app.workspace.record(name) for name in dict.fromkeys((one, other))}
    settings = [
        {part: app.hide_folders(_cell(value)) for part, value in flat(records[name]["config"]).items()}
        for name in (one, other)
    ]
    first, second = _profile(app, one), _profile(app, other)
    entropies = ep_table(first, second) if first and second else None
    titles = [f"{label}: {label_of_run(name, records[name])}" for label, name in (("A", one), ("B", other))]
    tables = [settings_table(*settings), *([entropies] if entropies else [])]
    return render("differences.html.j2", titles=titles, tables=tables)


def settings_table(first: Mapping[str, str], second: Mapping[str, str]) -> Table:
    """The settings that two runs have both and in which they differ.

    Example:
        >>> settings_table({"seed": "0", "height": "64"}, {"seed": "0", "height": "96", "scale": "1.0"}).rows
        [['height', '64', '96']]
    """
    rows = [[name, first[name], second[name]] for name in first if name in second and first[name] != second[name]]
    return Table(("setting", "A", "B"), rows, "Settings that differ." if rows else "Both have the same settings.")


def flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A nested config as one level, names joined by spaces.

    Example:
        >>> flat({"seed": 0, "generation": {"height": 64}})
        {'seed': 0, 'generation height': 64}
    """
    values: dict[str, Any] = {}
    for name, value in config.items():
        values |= flat(value, f"{before}{name} ") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return values


def ep_table(first: EntropyProfile, second: EntropyProfile) -> Table | None:
    """EP of every layer that both have measured, the largest differences first; None where there is none."""
    one, other = first.ep, second.ep
    names = sorted((name for name in one if name in other), key=lambda name: -abs(other[name] - one[name]))
    rows = [[name, f"{one[name]:.1f}", f"{other[name]:.1f}", f"{other[name] - one[name]:+.1f}"] for name in names]
    caption = "EP in percent; the largest differences come first."
    return Table(("layer", "A", "B", "difference"), rows, caption, (1, 2, 3)) if rows else None


def _profile(app: App, name: str) -> EntropyProfile | None:
    folder = app.workspace.folder(name)
    return EntropyProfile.load(folder) if all((folder / file).is_file() for file in PROFILE_FILES) else None


def _cell(value: Any) -> str:
    return "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _compare_videos(app: App, panel: Panel, one: str, other: str) -> list[Any]:
    """The panel with a comparison of the videos of two runs; without videos in both, empty."""
    videos = []
    for folder in map(app.workspace.folder, (one, other)):
        parts = parts_of(folder)
        videos += [f"{folder}:{part}" for part in COMPARED if part in parts][:1]
    return panel.start(run_comparison, Comparison(*videos)) if len(videos) == 2 else panel.view(None)


def show(app: App, run: RunView) -> str:
    """The metrics of a comparison."""
    summary = json.loads((app.workspace.folder(run.name) / SUMMARY).read_text(encoding="utf-8"))
    table = summary_table([MetricSummary(**row) for row in summary["summary"]], "B", "A")
    return render("compared.html.j2", run=run, table=table, notes=summary["notes"])
