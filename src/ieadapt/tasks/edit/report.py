"""The report of an edit run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ieadapt.runs.folder import RunFolder
from ieadapt.runs.pipelines import spoken_folder
from ieadapt.runs.report import Block, Clip, Gallery, Picture, Report, Section, Table, Text
from ieadapt.tasks.edit.records import EditRecord, JobRecord
from ieadapt.tasks.edit.run_config import EditRun
from ieadapt.tasks.generate import GenerationConfig, with_model_defaults
from ieadapt.tasks.measure.run import report_record

REPORTED_EDITS = 24
GOOD_RECONSTRUCTION = 25.0
"""Below this many dB an edit begins from another clip than the source."""
_SHOWN = {
    "psnr": ("PSNR dB", ".1f"),
    "ssim": ("SSIM", ".3f"),
    "st_lpips": ("ST-LPIPS", ".3f"),
    "outside_mask": ("outside mask dB", ".1f"),
    "flicker_change": ("flicker change", "+.2f"),
    "motion_change": ("motion change", "+.2f"),
}


def edit_report(asked: EditRun, records: Sequence[JobRecord], run: RunFolder, left_out: Sequence[str] = ()) -> Report:
    """What was edited, how well its sources were reconstructed, and how far the edits moved from them."""
    edits = [(record, edit) for record in records for edit in record.edits]
    shown = edits[:REPORTED_EDITS]
    clips = [
        Clip((run.path / record.file(edit, "side-by-side.mp4")).read_bytes(), _told(record, edit))
        for record, edit in shown
    ]
    strips: list[Block] = [
        Picture(
            (run.path / record.file(edit, "strip.png")).read_bytes(),
            _told(record, edit),
            f"frames of the source above frames of the edit, {edit.prompt}",
            560,
        )
        for record, edit in shown
    ]
    title = "Source, reconstruction and edit" + ("" if len(edits) == len(shown) else f" (the first {len(shown)})")
    sections = [
        Section(title, [Gallery(clips)]),
        Section("Frame by frame", strips),
        Section("The reconstruction check", [inversion_table(records), *_notes(records)]),
        Section("How far the edits are from their sources", [measures_table(records)]),
    ]
    sites = list(dict.fromkeys(name for record in records for name in record.sites))
    if sites:
        rows = [[name] for name in sites]
        caption = "In these the target took queries and keys, and so the maps, of the source."
        sections.append(Section("The sites", [Table(("site",), rows, caption)]))
    number = (
        f"{len(edits)} edit{'s' if len(edits) != 1 else ''} of {len(records)} source{'s' if len(records) != 1 else ''}"
    )
    return Report(
        title=f"Edited with {asked.model}",
        asked=f"{number}, {asked.sampling.num_inference_steps} steps, {_method(asked)}.",
        found=[*_found(records), *left_out],
        sections=sections,
        repeat=_repeat(asked, records, run),
        record=report_record(run.record),
    )


def inversion_table(records: Sequence[JobRecord]) -> Table:
    """One row per source: how close its reconstruction is, and how close the decoder alone is."""
    headings = ("source", "reconstruction dB", "SSIM", "decoder alone dB", "inversion alone dB", "s to invert")
    rows = [
        [
            record.source,
            *(_figure(record.inversion[name], form) for name, form in _FIGURES.items()),
            f"{record.seconds.get('inversion', 0):.1f}",
        ]
        for record in records
    ]
    caption = (
        "PSNR and SSIM of the reconstruction to the source, higher is closer; the decoder alone is the most that an "
        "edit can keep, the inversion alone is the reconstruction against that."
    )
    return Table(headings, rows, caption, numeric=range(1, len(headings)))


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


_FIGURES = {"psnr": ".1f", "ssim": ".3f", "vae_psnr": ".1f", "inversion_psnr": ".1f"}


def measures_table(records: Sequence[JobRecord]) -> Table:
    """One row per edit: its measures against the source."""
    present = [name for name in _SHOWN if any(name in edit.measures for record in records for edit in record.edits)]
    rows = [
        [record.name, edit.prompt, *(_cell(edit, name) for name in present)]
        for record in records
        for edit in record.edits
    ]
    headings = ("source", "edit", *(_SHOWN[name][0] for name in present))
    caption = (
        "Each edit against its source. Close to the source is not good by itself: a copy of the source is closest. "
        "Flicker in 255ths and motion in pixels are the edit's less the source's."
    )
    return Table(headings, rows, caption, numeric=range(2, len(headings)))


def _cell(edit: EditRecord, name: str) -> str:
    return format(edit.measures[name], _SHOWN[name][1]) if name in edit.measures else "–"


def _told(record: JobRecord, edit: EditRecord) -> str:
    return f"{record.source_prompt or record.name} → {edit.prompt}"


def _method(asked: EditRun) -> str:
    config = asked.config
    said = f"preset {asked.preset}" if asked.preset else f"method {config.method}"
    return f"{said}, start after {config.start:.0%} of the steps, guidance {config.guidance_scale:g}"


def _found(records: Sequence[JobRecord]) -> list[str]:
    good = [record for record in records if record.inversion["psnr"] >= GOOD_RECONSTRUCTION]
    worst = min(records, key=lambda record: float(record.inversion["psnr"]))
    sentences = [
        f"{len(good)} of {len(records)} sources were reconstructed at {GOOD_RECONSTRUCTION:.0f} dB or better; the "
        f"lowest is {worst.inversion['psnr']:.1f} dB ({worst.name})."
        if len(records) > 1
        else f"The source was reconstructed at {worst.inversion['psnr']:.1f} dB; the model's decoder alone reaches "
        f"{worst.inversion['vae_psnr']:.1f} dB.",
    ]
    if len(good) < len(records):
        sentences.append(
            "Below that, an edit begins from a clip that is not the source. A source prompt that says what is shown, "
            "more steps or more iterations may mend it."
        )
    sites = {len(record.sites) for record in records}
    if sites != {0}:
        sentences.append(f"The maps of the source were injected at {max(sites)} attention sites.")
    sentences.append("Whether an edit shows what its prompt says is for the eye to judge: see the videos below.")
    return sentences


def _notes(records: Sequence[JobRecord]) -> list[Block]:
    return [Text(f"{record.name}: {note}") for record in records for note in record.notes]


def _repeat(asked: EditRun, records: Sequence[JobRecord], run: RunFolder) -> dict[str, str]:
    """The command line, and the Python lines of the first job."""
    record = records[0]
    job = next(job for job in asked.listed if job.name == record.name)
    number, height, width = record.frames
    sampling = GenerationConfig(asked.sampling.num_inference_steps)
    if job.video is not None:
        size = f"ieadapt.Frames({number}, {height}, {width})"
        source = f"ieadapt.read_source({spoken_folder(job.video)!r}, {size}, {_spoken(asked.source)}).frames"
    else:
        made = with_model_defaults(
            dataclasses.replace(sampling, num_frames=number, height=height, width=width), asked.model
        )
        source = f"ieadapt.generate(pipe, {job.source_prompt!r}, {_spoken(made)}, {job.seed})[0]"
    python = (
        f'import ieadapt\n\npipe = ieadapt.load("{asked.model}")\nframes = {source}\n'
        f"result = ieadapt.edit(\n    pipe,\n    frames,\n    {[edit.prompt for edit in record.edits]},\n"
        f"    source_prompt={record.source_prompt!r},\n    config={_spoken(asked.config)},\n"
        f"    generation={_spoken(sampling)},\n)"
    )
    return {"Command line": str(run.record["command"]), "Python": python}


def _spoken(config: Any) -> str:
    """A config as a line of Python that says only what differs from the defaults."""
    default = type(config)()
    changed = {name: value for name, value in vars(config).items() if value != getattr(default, name)}
    return f"ieadapt.{type(config).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"
