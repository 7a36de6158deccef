"""A page: heading, the form on one side, the job on the other, and what ties them to the address of the page."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ieadapt.errors import IEAdaptError, UsageError
from ieadapt.runs.flags import flags
from ieadapt.web.app import App, Run, RunView
from ieadapt.web.forms import Field, Form, model_field, profile_field, prompts_field
from ieadapt.web.rendering import NO_LABELS, message_of, render

SECONDS = 1.0
"""Between two looks at a running job."""
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How events of this app run: at once, without a veil over what they change, and off the list of the API."""
PICK = "element.addEventListener('click', event => ieadapt.pick(event, element, trigger))"
"""Script of a heat map: a press on a layer picks it."""
_FROM_ADDRESS = "() => NAMES.map(name => new URLSearchParams(location.search).get(name))"
"""Not in web.js, which is loaded only after the first events of a page."""
EXAMPLE = "a big red star moving left over bricks"
"""A prompt that the bundled models understand."""
_CARRIED = ("model", "prompts", "generation", "seed")
"""What a page takes over from a measure run whose layers it is opened with."""
PAGES = {
    "": ("Measure", "See how spread out the attention of every layer is, at every denoising step."),
    "perturb": ("Perturb", "Replace the attention of chosen layers and see what the video loses."),
    "enhance": ("Enhance", "Better video from the same model: push it away from its own weakened prediction."),
    "edit": ("Edit", "Change a clip to what another sentence says, and leave the rest of it alone."),
    "runs": ("Runs", "Everything that was run here: open it, compare two, take it with you, repeat it."),
}
"""Title and purpose of each page, by its path."""

Show = Callable[[App, RunView], str]
"""The HTML of what a run has left."""


def heading(path: str) -> None:
    """Make the header with the navigation, and the heading of a page."""
    title, about = PAGES[path]
    titles = {path: title for path, (title, _) in PAGES.items()}
    gr.HTML(render("header.html.j2", titles=titles, here=path), apply_default_css=False)
    gr.HTML(render("heading.html.j2", title=title, about=about), apply_default_css=False)


class Panel:
    """Where one job at a time is seen: notice, progress with the time left, a button to stop it, and what came out.

    Args:
        app: the state of the web app.
        workflow: of the runs that are seen here.
        show: draws what a finished run has left.
        empty: what stands here before there is a run: a title and a sentence.
        parameter: of the page's address, which names the run.
        labels: of the form's fields, for errors.
    """

    def __init__(
        self,
        app: App,
        workflow: str,
        show: Show,
        empty: tuple[str, str] = ("", ""),
        parameter: str = "run",
        labels: Mapping[str, str] = NO_LABELS,
    ) -> None:
        self._app, self._workflow, self._show, self._parameter = app, workflow, show, parameter
        self._labels = labels
        self._empty = render("empty.html.j2", title=empty[0], text=empty[1])
        self.run = gr.Textbox(visible="hidden", elem_id=f"run-of-{workflow}", label="Run")
        self._notice = gr.HTML(apply_default_css=False, elem_id=f"notice-of-{workflow}")
        self._progress = gr.HTML(apply_default_css=False, elem_id=f"progress-of-{workflow}")
        self._stop = gr.Button("Stop", visible=False, size="sm", elem_classes="stop")
        self.outcome = gr.HTML(self._empty, js_on_load=PICK, apply_default_css=False, elem_id=f"outcome-of-{workflow}")
        self._timer = gr.Timer(SECONDS, active=False)
        self._timer.tick(self.view, [self.run], self.outputs, **QUIET)
        self._stop.click(self._stop_and_view, [self.run], self.outputs, **QUIET)

    @property
    def outputs(self) -> list[Any]:
        """What `view` gives values for."""
        return [self.run, self._notice, self._progress, self._stop, self.outcome, self._timer]

    def follow(self, event: Any) -> None:
        """After an event, put the run's name into the page's address, for a reload, and scroll to what is new."""
        event.then(None, [self.run], None, js=f"name => ieadapt.toAddress('{self._parameter}', name)", **QUIET)
        event.then(None, None, None, js=f"() => ieadapt.bringIntoView('{self._workflow}')", **QUIET)

    def restore(self, blocks: gr.Blocks, load: Callable[..., list[Any]], outputs: Sequence[Any], *names: str) -> None:
        """When a page is loaded, fill outputs by what parameters of its address name."""
        named = [gr.Textbox(visible=False) for _ in names]
        blocks.load(load, named, outputs, js=_FROM_ADDRESS.replace("NAMES", str(list(names))), **QUIET)

    def guard(self, act: Callable[[], list[Any]], before: Sequence[Any] = ()) -> list[Any]:
        """The outputs of an action, or those that say what was wrong with it, after some other outputs."""
        try:
            return act()
        except Exception as error:  # a page shows no traceback, whatever went wrong
            return [*before, *self.noticed(self._message(error))]

    def noticed(self, notice: str = "") -> list[Any]:
        """The outputs that change the notice alone; an earlier outcome stays."""
        return [gr.skip(), notice, *[gr.skip()] * 4]

    def _message(self, error: BaseException) -> str:
        if not isinstance(error, IEAdaptError):
            logging.getLogger(__name__).error("a request failed", exc_info=error)
        return render("notice.html.j2", message=message_of(error, self._labels), tone="error")

    def start(self, run: Run, config: Any) -> list[Any]:
        """Start a run; the outputs that show it."""
        return self.view(self._app.start(self._workflow, run, config, self._labels))

    def view(self, name: str | None) -> list[Any]:
        """The outputs for a run; for no run the empty state."""
        if not name:
            return self._outputs("", outcome=self._empty)
        try:
            run = self._app.view(name)
            if run.workflow != self._workflow:
                raise UsageError("this page does not show runs of that kind", got=run.workflow)
            return self._outputs_of(run)
        except Exception as error:  # what a run has left may be damaged in any way
            return self._outputs("", notice=self._message(error), outcome=self._empty)

    def _outputs_of(self, run: RunView) -> list[Any]:
        status = run.status
        if not status.over:
            return self._outputs(run.name, progress=render("progress.html.j2", status=status))
        tone = "error" if status.state == "failed" else "plain"
        notice = render("notice.html.j2", message=status.message, tone=tone) if status.message else ""
        shown = self._app.hide_folders(self._show(self._app, run)) if run.record.get("files") else self._empty
        return self._outputs(run.name, notice=notice, outcome=shown)

    def _stop_and_view(self, name: str) -> list[Any]:
        self._app.queue.stop(name)
        return self.view(name)

    def _outputs(self, name: str, *, notice: str = "", progress: str = "", outcome: str = "") -> list[Any]:
        running = bool(progress)
        return [name, notice, progress, gr.update(visible=running), outcome, gr.update(active=running)]


@dataclass(frozen=True)
class Workflow:
    """What a page makes runs of.

    Attributes:
        name: of the command that does the same, and of the page.
        config: its config class, from which the form is made.
        run: carries it out.
        show: draws what a run has left.
        empty: what stands in place of a run before there is one: a title and a sentence.
        shown: names of the flags that stand in sight.
        left_out: names of the flags that the page does not offer.
        steps: what the form begins with.
    """

    name: str
    config: type
    run: Run
    show: Show
    empty: tuple[str, str]
    shown: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    steps: int = 8

    @property
    def path(self) -> str:
        """Of the page; measure has the first one."""
        return "" if self.name == "measure" else self.name


def prompts_of_videos() -> list[Field]:
    """The field of a page that makes a video of each prompt."""
    return [prompts_field("Prompts", "What the videos show, one per line.", EXAMPLE)]


class WorkflowPage:
    """A page with the form of a workflow, a button that starts it, and the panel of its runs.

    Args:
        app: the state of the web app.
        blocks: of the page.
        workflow: what the page is for.
        fields: makes the fields that are not made of flags, but for those of the model and the profile.
        fixed: from the filled fields, by name, to values of flags that the form does not ask for.
    """

    def __init__(
        self,
        app: App,
        blocks: gr.Blocks,
        workflow: Workflow,
        fields: Callable[[], Sequence[Field]] = prompts_of_videos,
        fixed: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda raw: {},
    ) -> None:
        self._app, self._workflow, self._fixed = app, workflow, fixed
        heading(workflow.path)
        with gr.Row(elem_classes="page"):
            with gr.Column(scale=2, min_width=300, elem_classes="form"):
                profile = "profile" in {flag.name for flag in flags(workflow.config)}
                made = [*fields(), model_field(app.models), *([profile_field(app.workspace)] if profile else [])]
                self.form = Form(workflow.config, made, workflow.shown, workflow.left_out, {"steps": workflow.steps})
                self.button = gr.Button(PAGES[workflow.path][0], variant="primary")
            with gr.Column(scale=5, min_width=320, elem_classes="seen") as self.column:
                self.panel = Panel(app, workflow.name, workflow.show, workflow.empty, labels=self.form.labels)
        self.panel.follow(self.button.click(self._start, self.form.components, self.panel.outputs, **QUIET))
        self.panel.restore(blocks, self._load, [*self.form.components, *self.panel.outputs], "run", "profile")

    def _start(self, *raw: Any) -> list[Any]:
        def act() -> list[Any]:
            named = {field.name: value for field, value in zip(self.form.fields, raw, strict=True)}
            return self.panel.start(self._workflow.run, self.form.config_of(raw, **self._fixed(named)))

        return self.panel.guard(act)

    def _load(self, run: str | None, profile: str | None) -> list[Any]:
        config: Mapping[str, Any] = {}
        with contextlib.suppress(IEAdaptError):
            if run:
                view = self._app.view(run)
                config = view.config if view.workflow == self._workflow.name else {}
            elif profile:
                measured = self._app.view(profile).config
                config = {"profile": profile, **{part: measured[part] for part in _CARRIED if part in measured}}
        return [*self.form.filled(config), *self.panel.view(run)]
