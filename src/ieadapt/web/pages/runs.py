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
from ieadapt.runs.clip_reading import ReadConfig
from ieadapt.runs.folder import Stages
from ieadapt.runs.pipelines import Load
from ieadapt.runs.report import Table
from ieadapt.tasks.evaluate.run import SUMMARY, EvaluateConfig, run_evaluation
from ieadapt.tasks.evaluate.tables import MetricSummary, summary_table
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.run import PROFILE_FILES
from ieadapt.web.app import App, Seen
from ieadapt.web.page import PAGES, guarded, head
from ieadapt.web.panel import QUIET, Panel
from ieadapt.web.rendering import render
from ieadapt.web.wording import told
from ieadapt.web.workspace import spoken

METRICS = "psnr,ssim,flicker,motion"
COMPARED = ("enhanced", "perturbed", "edit")
"""The part of a run that is compared with the same part of another."""
_EMPTY = ("", "")
_OPENED = {page.path or "measure": f"/{page.path}" for page in PAGES} | {"evaluate": "/runs"}
_RUN = "() => new URLSearchParams(location.search).get('run')"


@dataclass(frozen=True)
class Compare:
    """Two runs whose videos are compared.

    Attributes:
        reference: folder and part of the first.
        videos: folder and part of the second.
        metrics: names with commas.
    """

    reference: str
    videos: str
    metrics: str = METRICS


def build(app: App, blocks: gr.Blocks) -> None:
    """Make the page."""
    head("runs")
    listing = gr.HTML(apply_default_css=False)
    with gr.Column(elem_classes="form compare") as comparing:
        with gr.Row():
            first = gr.Dropdown([], label="Compare", info="The run to compare with", min_width=220)
            second = gr.Dropdown([], label="with", info="The run that is compared with it", min_width=220)
        button = gr.Button("Compare", variant="primary")
    differences = gr.HTML(apply_default_css=False)
    panel = Panel(app, "evaluate", lambda seen: show(app, seen), _EMPTY)

    def load() -> list[Any]:
        runs = app.workspace.runs()
        choices = [(f"{record['workflow']}: {spoken(name, record)}", name) for name, record in runs]
        update = gr.update(choices=choices, value=None)
        return [listed(app), update, update, gr.update(visible=len(runs) > 1)]

    def compare(one: str | None, other: str | None) -> Any:
        def act() -> list[Any]:
            if not (one and other) or one == other:
                raise UsageError("a comparison needs two runs", remedy="choose one in each list")
            return [differences_of(app, one, other), *_videos_compared(app, panel, one, other)]

        return guarded(panel, act, before=[""])

    blocks.load(load, None, [listing, first, second, comparing], **QUIET)
    blocks.load(panel.view, [gr.Textbox(visible=False)], panel.outputs, js=_RUN, **QUIET)
    begun = button.click(compare, [first, second], [differences, *panel.outputs], **QUIET)
    panel.remember(begun)
    panel.bring_into_view(begun)


def compared(asked: Compare, out: Path, stages: Stages, load: Load) -> None:
    """Carry out a comparison of videos."""
    config = EvaluateConfig(asked.metrics, reading=ReadConfig(align=True))
    run_evaluation(asked.videos, out, reference=asked.reference, config=config, stages=stages)


def listed(app: App) -> str:
    """The table of runs."""
    runs = app.workspace.runs()
    rows = [(app.seen(name, record), spoken(name, record), _where(name, record, runs)) for name, record in runs]
    odd = [(name, told(error)) for name, error in app.workspace.odd()]
    return render("runs.html.j2", rows=rows, odd=odd)


def _where(name: str, record: Mapping[str, Any], runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str | None:
    """The address at which a run is seen again; maps are seen below the measured run that they look into."""
    workflow = record["workflow"]
    if workflow == "maps":
        looked = next((other for other, found in runs if _measured(found, record["config"])), None)
        return f"/?run={looked}&maps={name}" if looked else f"/?maps={name}"
    return f"{_OPENED[workflow]}?run={name}" if workflow in _OPENED else None


def _measured(record: Mapping[str, Any], maps: Mapping[str, Any]) -> bool:
    """Whether a run has measured what a maps run looks into."""
    config = record["config"]
    prompts = config.get("prompts")
    first = {**config, "prompts": prompts[:1] if isinstance(prompts, list) else prompts}
    same = all(first.get(part) == maps.get(part) for part in ("model", "prompts", "generation", "seed", "hardware"))
    return record["workflow"] == "measure" and same


def differences_of(app: App, one: str, other: str) -> str:
    """What two runs were asked differently, and how their measured EP differs."""
    records = [app.workspace.record(name) for name in (one, other)]
    asked = [{name: app.spoken(_cell(value)) for name, value in flat(record["config"]).items()} for record in records]
    settings = settings_table(*asked)
    profiles = [_profile(app, name) for name in (one, other)]
    entropies = ep_table(*profiles) if all(profiles) else None  # type: ignore[arg-type]
    titles = [
        f"{label}: {spoken(name, record)}" for label, name, record in zip("AB", (one, other), records, strict=True)
    ]
    tables = [table for table in (settings, entropies) if table is not None]
    return render("differences.html.j2", titles=titles, tables=tables)


def settings_table(first: Mapping[str, str], second: Mapping[str, str]) -> Table:
    """The settings that two runs have both and in which they differ.

    Example:
        >>> settings_table({"seed": "0", "height": "64"}, {"seed": "0", "height": "96", "scale": "1.0"}).rows
        [['height', '64', '96']]
    """
    rows = [[name, first[name], second[name]] for name in first if name in second and first[name] != second[name]]
    return Table(("setting", "A", "B"), rows, "Settings that differ." if rows else "Both were asked the same.")


def flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A nested config as one level, names joined by spaces.

    Example:
        >>> flat({"seed": 0, "generation": {"height": 64}})
        {'seed': 0, 'generation height': 64}
    """
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{before}{name} ") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


def ep_table(first: EntropyProfile, second: EntropyProfile) -> Table | None:
    """EP of every layer that both have measured, the largest differences first; None where there is none."""
    one, other = first.ep, second.ep
    names = sorted((name for name in one if name in other), key=lambda name: -abs(other[name] - one[name]))
    rows = [[name, f"{one[name]:.1f}", f"{other[name]:.1f}", f"{other[name] - one[name]:+.1f}"] for name in names]
    caption = "EP in percent; the largest differences come first."
    return Table(("layer", "A", "B", "difference"), rows, caption, (1, 2, 3)) if rows else None


def show(app: App, seen: Seen) -> str:
    """The metrics of a comparison."""
    told = json.loads((app.workspace.folder(seen.name) / SUMMARY).read_text(encoding="utf-8"))
    table = summary_table([MetricSummary(**row) for row in told["summary"]], "B", "A")
    return render("compared.html.j2", seen=seen, spoken=app.spoken, table=table, notes=told["notes"])


def _videos_compared(app: App, panel: Panel, one: str, other: str) -> list[Any]:
    """The panel with a comparison of the videos of two runs; without videos in both, empty."""
    parts = [_part(app, name) for name in (one, other)]
    if not all(parts):
        return panel.view(None)
    places = [f"{app.workspace.folder(name)}:{part}" for name, part in zip((one, other), parts, strict=True)]
    return panel.view(app.start("evaluate", compared, Compare(*places)))


def _part(app: App, name: str) -> str | None:
    found = parts_of(app.workspace.folder(name))
    return next((part for part in COMPARED if part in found), None)


def _profile(app: App, name: str) -> EntropyProfile | None:
    folder = app.workspace.folder(name)
    return EntropyProfile.load(folder) if all((folder / file).is_file() for file in PROFILE_FILES) else None


def _cell(value: Any) -> str:
    return "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
