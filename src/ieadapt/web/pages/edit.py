"""The page that edits: a clip uploaded or generated, its reconstruction checked, before and after under a slider."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from anyio import to_thread

from ieadapt.errors import UsageError
from ieadapt.runs.folder import Stages
from ieadapt.runs.pipelines import Load
from ieadapt.tasks.edit.records import RECORD, JobRecord
from ieadapt.tasks.edit.report import GOOD_RECONSTRUCTION, inversion_table, measures_table
from ieadapt.tasks.edit.run import run_edit
from ieadapt.tasks.edit.run_config import EditRun
from ieadapt.web.app import App, Seen
from ieadapt.web.fields import Field, model_field, prompts_field
from ieadapt.web.forms import Form
from ieadapt.web.page import EXAMPLE, connect, guarded, head
from ieadapt.web.panel import QUIET, Panel
from ieadapt.web.rendering import render
from ieadapt.web.uploads import Uploads

GENERATE, UPLOAD = "Generate it", "Upload a clip"
EMPTY = (
    "Nothing edited yet",
    "Take a clip, say what it shows and what it should show, and press Edit. How well the model reconstructs the clip "
    "is checked first, since an edit can be no better; source and edit will lie here under a slider.",
)
SHOWN = ("edit_start", "preset", "steps")
LEFT_OUT = ("jobs", "cache", "strict")


def build(app: App, uploads: Uploads, blocks: gr.Blocks) -> None:
    """Make the page."""
    head("edit")
    with gr.Row(elem_classes="page"):
        with gr.Column(scale=2, min_width=300, elem_classes="form"):
            source = SourceFields(uploads)
            fields = [_source_prompt_field(), prompts_field("Edit to", "One edit per line.", _CHANGED)]
            fields += [source.video, source.seed, model_field(app.models), app.profile_field()]
            form = Form(EditRun, fields, SHOWN, LEFT_OUT, {"steps": 10})
            button = gr.Button("Edit", variant="primary")
        with gr.Column(scale=5, min_width=320, elem_classes="seen"):
            panel = Panel(app, "edit", lambda seen: show(app, seen), EMPTY)
    place = [field.name for field in form.fields].index("video")

    def ask(raw: Sequence[Any]) -> EditRun:
        fixed: dict[str, Any] = {"cache": app.workspace.inversions}
        asked: EditRun = form.asked(raw, **fixed, **({"source_seed": None} if raw[place] else {}))
        return asked

    connect(app, blocks, form, panel, button, edited, ask)
    source.connect(panel)


class SourceFields:
    """The fields that say where the clip comes from: from a seed, or from a file.

    Args:
        uploads: where clips are kept.
    """

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._choice = gr.Radio([GENERATE, UPLOAD], value=GENERATE, label="The source")
        with gr.Column(visible=False, elem_classes="bare") as self._uploading:
            self._file = gr.File(label="Clip", file_types=["video", ".gif"], height=110)
            self._clip = gr.HTML(apply_default_css=False)
        self.video, self.seed = _video_field(uploads), _seed_field()

    def connect(self, panel: Panel) -> None:
        """Take in what is uploaded, and show the fields of the chosen kind of source; refusals stand in the panel."""
        video, seed = self.video.component, self.seed.component

        def taken(path: str | None) -> Any:
            if not path:
                return [None, "", "", *panel.cleared()]
            return guarded(panel, lambda: self._taken(Path(path), panel), before=[None, "", ""])

        async def take(path: str | None) -> Any:
            return await to_thread.run_sync(taken, path, limiter=self._uploads.turn)

        self._choice.input(_chosen, [self._choice], [self._uploading, seed, self._file, video, self._clip], **QUIET)
        self._file.upload(take, [self._file], [self._file, video, self._clip, *panel.outputs], **QUIET)
        video.change(self._known, [video], [self._choice, self._uploading, seed, self._clip], **QUIET)

    def _taken(self, file: Path, panel: Panel) -> list[Any]:
        """What an uploaded file becomes; the file itself goes, and with it the name of its place in the page."""
        try:
            taken = self._uploads.take(file)
        finally:
            file.unlink(missing_ok=True)
        return [None, taken.name, render("clip.html.j2", clip=taken), *panel.cleared()]

    def _known(self, name: str) -> list[Any]:
        """The fields as they stand for a clip that a run names."""
        try:
            found = self._uploads.find(name)
        except UsageError:
            return [gr.skip()] * 4
        return [UPLOAD, gr.update(visible=True), gr.update(visible=False), render("clip.html.j2", clip=found)]


_CHANGED = EXAMPLE.replace("red", "blue")


def edited(asked: EditRun, out: Path, stages: Stages, load: Load) -> None:
    """Carry out an edit run."""
    run_edit(asked, out, stages=stages, load=load)


def show(app: App, seen: Seen) -> str:
    """Check, edits and measures of an edit run."""
    record = JobRecord.read(app.workspace.folder(seen.name) / RECORD)
    if record is None:
        return ""
    pairs = [
        ("source.mp4", record.file(edit, "edit.mp4"), f"{record.source_prompt or 'source'} → {edit.prompt}")
        for edit in record.edits
    ]
    return render(
        "edited.html.j2",
        seen=seen,
        spoken=app.spoken,
        job=record,
        good=record.inversion["psnr"] >= GOOD_RECONSTRUCTION,
        pairs=pairs,
        tables=[inversion_table([record]), measures_table([record])],
        strips=[record.file(edit, "strip.png") for edit in record.edits],
    )


def _chosen(source: str) -> list[Any]:
    upload = source == UPLOAD
    return [gr.update(visible=upload), gr.update(visible=not upload), None, "", ""]


def _video_field(uploads: Uploads) -> Field:
    """The clip that was uploaded, by its name; empty for a generated source."""
    component = gr.Textbox(visible="hidden", label="Clip")

    def read(raw: Any) -> Path | None:
        return uploads.path(uploads.find(str(raw)).name) if raw else None

    return Field("video", component, read, lambda value: Path(str(value)).stem if value else "")


def _seed_field() -> Field:
    component = gr.Number(0, label="Source seed", info="Of the noise that the source is made from", precision=0)
    return Field("source_seed", component, lambda raw: int(raw or 0), lambda value: 0 if value is None else value)


def _source_prompt_field() -> Field:
    component = gr.Textbox(EXAMPLE, label="What it shows", info="Makes edits keep more of it", lines=2, max_lines=4)
    return Field("source_prompt", component, lambda raw: " ".join(str(raw or "").split()), lambda value: value)
