"""The page that edits: a clip uploaded or generated, its reconstruction checked, before and after under a slider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from anyio import to_thread

from ieadapt.errors import UsageError
from ieadapt.tasks.edit.config import EditRun
from ieadapt.tasks.edit.inversion import GOOD_RECONSTRUCTION
from ieadapt.tasks.edit.jobs import RECORD, JobRecord
from ieadapt.tasks.edit.report import inversion_table, measures_table
from ieadapt.tasks.edit.run import run_edit
from ieadapt.web.app import App, RunView
from ieadapt.web.forms import Field, prompts_field
from ieadapt.web.page import EXAMPLE, QUIET, Panel, Workflow, WorkflowPage
from ieadapt.web.rendering import render
from ieadapt.web.uploads import Uploads

GENERATE, UPLOAD = "Generate it", "Upload a clip"
EMPTY = (
    "Nothing edited yet",
    "Take a clip, say what it shows and what it should show, and press Edit. How well the model reconstructs the clip "
    "is checked first, since an edit can be no better; source and edit will lie here under a slider.",
)


def build(app: App, blocks: gr.Blocks, uploads: Uploads) -> None:
    """Make the page."""
    source = SourceFields(uploads)

    def fixed(raw: Mapping[str, Any]) -> dict[str, Any]:
        return {"cache": app.workspace.inversions, **({"source_seed": None} if raw["video"] else {})}

    source.connect(WorkflowPage(app, blocks, EDIT, source.make, fixed).panel)


class SourceFields:
    """The fields that say where the clip comes from: from a seed, or from a file.

    Args:
        uploads: where clips are kept.
    """

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def make(self) -> list[Field]:
        """Make what is seen, and the fields of the form."""
        self._choice = gr.Radio([GENERATE, UPLOAD], value=GENERATE, label="The source")
        with gr.Column(visible=False, elem_classes="bare") as self._uploading:
            self._file = gr.File(label="Clip", file_types=["video", ".gif"], height=110)
            self._clip = gr.HTML(apply_default_css=False)
        self._video = gr.Textbox(visible="hidden", label="Clip")
        self._seed = gr.Number(0, label="Source seed", info="Of the noise that the source is made from", precision=0)
        shows = gr.Textbox(EXAMPLE, label="What it shows", info="Makes edits keep more of it", lines=2, max_lines=4)
        return [
            Field("source_prompt", shows, lambda raw: " ".join(str(raw or "").split()), lambda value: value),
            prompts_field("Edit to", "One edit per line.", EXAMPLE.replace("red", "blue")),
            Field("video", self._video, self._read_clip, lambda value: Path(str(value)).stem if value else ""),
            Field("source_seed", self._seed, lambda raw: int(raw or 0), lambda value: value or 0),
        ]

    def connect(self, panel: Panel) -> None:
        """Take in what is uploaded, and show the fields of the chosen kind of source; refusals stand in the panel."""

        def take(path: str | None) -> list[Any]:
            if not path:
                return [None, "", "", *panel.noticed()]
            return panel.guard(lambda: [*self._take(Path(path)), *panel.noticed()], before=[None, "", ""])

        async def take_in_turn(path: str | None) -> list[Any]:
            return await to_thread.run_sync(take, path, limiter=self._uploads.turn)

        shown = [self._uploading, self._seed, self._file, self._video, self._clip]
        self._choice.input(_fields_of_source, [self._choice], shown, **QUIET)
        taken = [self._file, self._video, self._clip, *panel.outputs]
        self._file.upload(take_in_turn, [self._file], taken, **QUIET)
        restored = [self._choice, self._uploading, self._seed, self._clip]
        self._video.change(self._restore, [self._video], restored, **QUIET)

    def _read_clip(self, name: Any) -> Path | None:
        """The clip that was uploaded, by its name; None for a generated source."""
        return self._uploads.path(self._uploads.find(str(name)).name) if name else None

    def _take(self, file: Path) -> list[Any]:
        """What an uploaded file becomes; the file itself goes, and with it the name of its place in the page."""
        try:
            clip = self._uploads.take(file)
        finally:
            file.unlink(missing_ok=True)
        return [None, clip.name, render("clip.html.j2", clip=clip)]

    def _restore(self, name: str) -> list[Any]:
        """The fields as they stand for a clip that a run names."""
        try:
            clip = render("clip.html.j2", clip=self._uploads.find(name))
        except UsageError:
            return [gr.skip()] * 4
        return [UPLOAD, gr.update(visible=True), gr.update(visible=False), clip]


def _fields_of_source(source: str) -> list[Any]:
    upload = source == UPLOAD
    return [gr.update(visible=upload), gr.update(visible=not upload), None, "", ""]


def show(app: App, run: RunView) -> str:
    """Check, edits and measures of an edit run."""
    record = JobRecord.read(app.workspace.folder(run.name) / RECORD)
    if record is None:
        return ""
    source = record.source_prompt or "source"
    edits = [
        (record.file(edit, "edit.mp4"), record.file(edit, "strip.png"), f"{source} → {edit.prompt}")
        for edit in record.edits
    ]
    good = record.inversion["psnr"] >= GOOD_RECONSTRUCTION
    tables = [inversion_table([record]), measures_table([record])]
    return render("edited.html.j2", run=run, job=record, good=good, edits=edits, tables=tables)


EDIT = Workflow(
    "edit",
    EditRun,
    run_edit,
    show,
    EMPTY,
    shown=("edit_start", "preset", "steps"),
    left_out=("jobs", "cache", "strict"),
    steps=10,
)
