"""A page: heading, the form on one side, the job on the other, and what ties them to the address of the page."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ieadapt.errors import IEAdaptError
from ieadapt.web.app import App, Run
from ieadapt.web.forms import Form
from ieadapt.web.panel import QUIET, Panel
from ieadapt.web.rendering import render

EXAMPLE = "a big red star moving left over bricks"
"""A prompt that the bundled models understand."""
_CARRIED = ("model", "prompts", "generation", "seed")
"""What a page takes over from a measure run whose layers it is opened with."""
_FROM_ADDRESS = "() => ['run', 'profile'].map(name => new URLSearchParams(location.search).get(name))"


Ask = Callable[[Sequence[Any]], Any]
"""From the values of a form's fields to the config of a run."""


@dataclass(frozen=True)
class PageText:
    """What stands at the top of a page.

    Attributes:
        path: of the page, without a slash.
        title: in the navigation and as the heading.
        about: what it is for, in a sentence or two.
    """

    path: str
    title: str
    about: str


PAGES = (
    PageText("", "Measure", "See how spread out the attention of every layer is, at every denoising step."),
    PageText("perturb", "Perturb", "Replace the attention of chosen layers and see what the video loses."),
    PageText("enhance", "Enhance", "Better video from the same model: push it away from its own weakened prediction."),
    PageText("edit", "Edit", "Change a clip to what another sentence says, and leave the rest of it alone."),
    PageText("runs", "Runs", "Everything that was run here: open it, compare two, take it with you, repeat it."),
)


def head(path: str) -> None:
    """Make the header with the navigation, and the heading of a page."""
    text = next(page for page in PAGES if page.path == path)
    gr.HTML(render("header.html.j2", pages=PAGES, here=path), apply_default_css=False)
    gr.HTML(render("heading.html.j2", page=text), apply_default_css=False)


def connect(
    app: App, blocks: gr.Blocks, form: Form, panel: Panel, button: gr.Button, run: Run, ask: Ask | None = None
) -> None:
    """Let a button start a run of what the form says, and a loaded page find the run that its address names.

    Args:
        app: the state of the web app.
        blocks: of the page.
        form: its form.
        panel: where the run is seen.
        button: that starts it.
        run: carries it out.
        ask: what the form's values ask for; by default the form's own config.
    """
    panel.labels = form.labels

    def begin(raw: Sequence[Any]) -> list[Any]:
        return panel.view(app.start(panel.workflow, run, (ask or form.asked)(raw), panel.labels))

    def start(*raw: Any) -> Any:
        return guarded(panel, lambda: begin(raw))

    def load(name: str | None, profile: str | None) -> list[Any]:
        config: Mapping[str, Any] = {}
        with contextlib.suppress(IEAdaptError):
            config = _config(app, panel, name, profile)
        return [*form.filled(config), *panel.view(name)]

    begun = button.click(start, form.components, panel.outputs, **QUIET)
    panel.remember(begun)
    panel.bring_into_view(begun)
    asked = [gr.Textbox(visible=False), gr.Textbox(visible=False)]
    blocks.load(load, asked, [*form.components, *panel.outputs], js=_FROM_ADDRESS, **QUIET)


def _config(app: App, panel: Panel, name: str | None, profile: str | None) -> Mapping[str, Any]:
    """What fills the form: what the run of the address was asked, or what was measured in the profile that it names."""
    if name:
        seen = app.see(name)
        return seen.config if seen.workflow == panel.workflow else {}
    if profile:
        measured = app.see(profile).config
        return {**{part: measured[part] for part in _CARRIED if part in measured}, "profile": profile}
    return {}


def guarded(panel: Panel, act: Callable[[], Any], before: Sequence[Any] = ()) -> Any:
    """The outputs of an action of a page, or those that say what was wrong with it, after some other outputs."""
    try:
        return act()
    except Exception as error:
        return [*before, *panel.refused(error)]
