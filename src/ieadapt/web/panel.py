"""Where a job is seen: notice, progress with the time left, a button to stop it, and what came out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from ieadapt.errors import IEAdaptError, UsageError
from ieadapt.web.app import App, Seen
from ieadapt.web.rendering import render
from ieadapt.web.wording import NO_LABELS, told

SECONDS = 1.0
"""Between two looks at a running job."""
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How events of this app run: at once, without a veil over what they change, and off the list of the API."""
PICK = """
element.addEventListener('click', event => {
  const chosen = event.target.closest('[data-site]');
  if (!chosen) return;
  const several = chosen.closest('[data-several]');
  const rows = [...element.querySelectorAll('[data-site]')];
  if (!several) rows.forEach(row => row.setAttribute('aria-pressed', 'false'));
  chosen.setAttribute('aria-pressed', several && chosen.getAttribute('aria-pressed') === 'true' ? 'false' : 'true');
  const pressed = rows.filter(row => row.getAttribute('aria-pressed') === 'true').map(row => row.dataset.site);
  trigger('select', {index: 0, value: pressed});
});
"""
_ADDRESS = """(name) => {
  const query = new URLSearchParams(location.search);
  name ? query.set('PARAMETER', name) : query.delete('PARAMETER');
  history.replaceState(null, '', location.pathname + (query.size ? '?' + query : ''));
}"""

_LOOK = """() => setTimeout(() => {
  const said = ['notice', 'progress', 'outcome'].map(part => document.getElementById(`${part}-of-WORKFLOW`));
  const first = said.find(part => part && part.textContent.trim());
  if (!first) return;
  const {top, bottom} = first.getBoundingClientRect();
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  if (top < 0 || bottom > innerHeight) first.scrollIntoView({behavior: calm ? 'auto' : 'smooth', block: 'center'});
}, 50)"""

Show = Callable[[Seen], str]
"""The HTML of what a run has left."""


class Panel:
    """The part of a page that follows one job at a time.

    Args:
        app: the state of the web app.
        workflow: of the runs that are seen here.
        show: draws what a finished run has left.
        empty: what stands here before there is a run: a title and a sentence.
        parameter: of the page's address, which names the run.
    """

    def __init__(self, app: App, workflow: str, show: Show, empty: tuple[str, str], parameter: str = "run") -> None:
        self.workflow, self.parameter = workflow, parameter
        self.labels: Mapping[str, str] = NO_LABELS
        self._app, self._show = app, show
        self._empty = render("empty.html.j2", title=empty[0], words=empty[1])
        self.run = gr.Textbox(visible="hidden", elem_id=f"run-of-{workflow}", label="Run")
        self.notice = gr.HTML(apply_default_css=False, elem_id=f"notice-of-{workflow}")
        self.progress = gr.HTML(apply_default_css=False, elem_id=f"progress-of-{workflow}")
        self.stop = gr.Button("Stop", visible=False, size="sm", elem_classes="stop")
        self.outcome = gr.HTML(self._empty, js_on_load=PICK, apply_default_css=False, elem_id=f"outcome-of-{workflow}")
        self._timer = gr.Timer(SECONDS, active=False)
        self._timer.tick(self.view, [self.run], self.outputs, **QUIET)
        self.stop.click(self._ask_to_stop, [self.run], self.outputs, **QUIET)

    @property
    def outputs(self) -> list[Any]:
        """What `view` gives values for."""
        return [self.run, self.notice, self.progress, self.stop, self.outcome, self._timer]

    def remember(self, event: Any) -> None:
        """After an event has started a run, put its name into the page's address, where a reload finds it."""
        event.then(None, [self.run], None, js=_ADDRESS.replace("PARAMETER", self.parameter), **QUIET)

    def bring_into_view(self, event: Any) -> None:
        """After an event, scroll to what this panel says of it, unless that is in sight already."""
        event.then(None, None, None, js=_LOOK.replace("WORKFLOW", self.workflow), **QUIET)

    def refused(self, error: BaseException) -> list[Any]:
        """The outputs that say what was wrong with a request; an earlier outcome stays."""
        return [gr.skip(), self._notice_of(error), gr.skip(), gr.skip(), gr.skip(), gr.skip()]

    def _notice_of(self, error: BaseException) -> str:
        if not isinstance(error, IEAdaptError):
            logging.getLogger(__name__).error("a request failed", exc_info=error)
        return render("notice.html.j2", words=told(error, self.labels), tone="error")

    def cleared(self) -> list[Any]:
        """The outputs that take an earlier notice away and leave the rest."""
        return [gr.skip(), "", gr.skip(), gr.skip(), gr.skip(), gr.skip()]

    def view(self, name: str | None) -> list[Any]:
        """The outputs for a run; for no run the empty state."""
        if not name:
            return self._outputs("", outcome=self._empty)
        try:
            seen = self._app.see(name)
            if seen.workflow != self.workflow:
                raise UsageError("this page does not show runs of that kind", got=seen.workflow)
            return self._of(seen)
        except Exception as error:  # what a run has left may be damaged in any way
            return self._outputs("", notice=self._notice_of(error), outcome=self._empty)

    def _of(self, seen: Seen) -> list[Any]:
        status = seen.status
        if not status.over:
            waiting = render("progress.html.j2", status=status)
            return self._outputs(seen.name, progress=waiting, stoppable=True, running=True)
        tone = "error" if status.state == "failed" else "plain"
        notice = render("notice.html.j2", words=status.words, tone=tone) if status.words else ""
        outcome = self._app.spoken(self._show(seen)) if seen.record.get("files") else self._empty
        return self._outputs(seen.name, notice=notice, outcome=outcome)

    def _ask_to_stop(self, name: str) -> list[Any]:
        self._app.queue.stop(name)
        return self.view(name)

    def _outputs(
        self,
        name: str,
        *,
        notice: str = "",
        progress: str = "",
        outcome: str = "",
        stoppable: bool = False,
        running: bool = False,
    ) -> list[Any]:
        return [name, notice, progress, gr.update(visible=stoppable), outcome, gr.update(active=running)]
