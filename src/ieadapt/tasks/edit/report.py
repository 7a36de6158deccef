"""The report of an edit run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ieadapt.notation import counted
from ieadapt.runs.folder import RunFolder, display_path
from ieadapt.runs.report import Clip, Gallery, Picture, Report, Section, Table, Text
from ieadapt.runs.settings import GenerationConfig, with_model_defaults
from ieadapt.tasks.edit.config import EditRun
from ieadapt.tasks.edit.inversion import GOOD_RECONSTRUCTION
from ieadapt.tasks.edit.jobs import EditJob, JobRecord
from ieadapt.tasks.measure.profile import short_name
from ieadapt.tasks.measure.run import report_record
from ieadapt.tasks.pairs import scores_table

REPORTED_EDITS = 24
_INVERSION = {
    "psnr": ("reconstruction dB", ".1f"),
    "ssim": ("SSIM", ".3f"),
    "vae_psnr": ("decoder alone dB", ".1f"),
    "inversion_psnr": ("inversion alone dB", ".1f"),
    "seconds": ("s to invert", ".1f"),
}
_MEASURES = {
    "psnr": ("PSNR dB", ".1f"),
    "ssim": ("SSIM", ".3f"),
    "st_lpips": ("ST-LPIPS", ".3f"),
    "outside_mask": ("outside mask dB", ".1f"),
    "flicker_change": ("flicker change", "+.2f"),
    "motion_change": ("motion change", "+.2f"),
}


def edit_report(
    request: EditRun,
    jobs: Mapping[str, EditJob],
    records: Sequence[JobRecord],
    run: RunFolder,
    left_out: Sequence[str] = (),
) -> Report:
    """What was edited, how well its sources were reconstructed, and how far the edits moved from them.

    Args:
        request: of the run.
        jobs: by name.
        records: of those that are finished.
        run: where their files are.
        left_out: a line for each of the others.
    """
    edits = [(record, edit) for record in records for edit in record.edits]
    clips, strips = list[Clip](), list[Picture]()
    for record, edit in edits[:REPORTED_EDITS]:
        joined, strip = (
            (run.path / record.file(edit, name)).read_bytes() for name in ("side-by-side.mp4", "strip.png")
        )
        caption = f"{record.source_prompt or record.name} → {edit.prompt}"
        clips.append(Clip(joined, caption))
        description = f"frames of the source above frames of the edit, {edit.prompt}"
        strips.append(Picture(strip, caption, description, 560))
    title = "Source, reconstruction and edit" + ("" if len(edits) == len(clips) else f" (the first {len(clips)})")
    notes = [Text(f"{record.name}: {note}") for record in records for note in record.notes]
    sections = [
        Section(title, [Gallery(clips)]),
        Section("Frame by frame", strips),
        Section("The reconstruction check", [inversion_table(records), *notes]),
        Section("How far the edits are from their sources", [measures_table(records)]),
    ]
    sites = list(dict.fromkeys(name for record in records for name in record.sites))
    if sites:
        caption = "In these the target took queries and keys, and so the maps, of the source."
        rows = [[short_name(name), name] for name in sites]
        sections.append(Section("The sites", [Table(("site", "path"), rows, caption)]))
    python = _python(request, jobs[records[0].name], records[0])
    return Report(
        title=f"Edited with {request.model}",
        request=f"{counted(len(edits), 'edit')} of {counted(len(records), 'source')}, "
        f"{counted(request.sampling.num_inference_steps, 'step')}, {_method(request)}.",
        results=[*_findings(records), *left_out],
        sections=sections,
        repeat={"Command line": str(run.record["command"]), "Python": python},
        record=report_record(run.record),
    )


def inversion_table(records: Sequence[JobRecord]) -> Table:
    """One row per source: how close its reconstruction is, and how close the decoder alone is."""
    caption = (
        "PSNR and SSIM to the source, higher is closer; the decoder alone is the most that an edit can keep. Where the "
        "source was inverted: of its reconstruction, and of the inversion alone, which is that against the decoder's."
    )
    scores = [
        {name: value for name, value in _reconstruction(record).items() if name in _INVERSION} for record in records
    ]
    return scores_table({"source": [record.source for record in records]}, scores, _INVERSION, caption)


def _reconstruction(record: JobRecord) -> dict[str, Any]:
    """The scores of a reconstruction; where nothing was inverted, of the decoder alone."""
    if record.inversion["psnr"] == record.inversion["vae_psnr"]:
        return {name: record.inversion[name] for name in ("vae_psnr", "ssim")}
    return {**record.inversion, "seconds": record.seconds.get("inversion", 0.0)}


def measures_table(records: Sequence[JobRecord]) -> Table:
    """One row per edit: its measures against the source."""
    edits = [(record, edit) for record in records for edit in record.edits]
    labels = {"source": [record.name for record, _ in edits], "edit": [edit.prompt for _, edit in edits]}
    caption = (
        "Each edit against its source. Close to the source is not good by itself: a copy of the source is closest. "
        "Flicker in 255ths and motion in pixels are the edit's less the source's."
    )
    return scores_table(labels, [edit.measures for _, edit in edits], _MEASURES, caption)


def _method(request: EditRun) -> str:
    config = request.config
    name = f"preset {request.preset}" if request.preset else f"method {config.method}"
    return f"{name}, start after {config.start:.0%} of the steps, guidance {config.guidance_scale:g}"


def _findings(records: Sequence[JobRecord]) -> list[str]:
    poor = [record for record in records if record.inversion["psnr"] < GOOD_RECONSTRUCTION]
    kept = [edit.measures["psnr"] for record in records for edit in record.edits]
    changed = f"{sum(kept) / len(kept):.1f} dB" if len(kept) == 1 else f"{min(kept):.1f} to {max(kept):.1f} dB"
    reached = [float(record.inversion["vae_psnr"]) for record in records]
    most = f"{min(reached):.1f}" if len(reached) == 1 else f"{min(reached):.1f} to {max(reached):.1f}"
    sentences = [
        f"{'The edit lies' if len(kept) == 1 else 'The edits lie'} {changed} from the source; the most that this "
        f"model's decoder can keep of it is {most} dB."
    ]
    beyond = [record.name for record in poor if record.inversion["vae_psnr"] < GOOD_RECONSTRUCTION]
    if beyond:
        sentences.append(
            f"This model's decoder alone cannot show {_some(beyond)} ({min(reached):.1f} dB): take a clip closer to "
            "what the model was made for, at its own size."
        )
    lost = [record.name for record in poor if record.name not in beyond]
    if lost:
        sentences.append(
            f"The inversion of {_some(lost)} stays under {GOOD_RECONSTRUCTION:.0f} dB, so its edit begins from another "
            "clip. A source prompt that says what is shown, more steps or more iterations may mend it."
        )
    sites = max(len(record.sites) for record in records)
    if sites:
        sentences.append(f"The maps of the source were injected at {counted(sites, 'attention site')}.")
    sentences.append("Whether an edit shows what its prompt says is for the eye to judge: see the videos below.")
    return sentences


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _python(request: EditRun, job: EditJob, record: JobRecord) -> str:
    """The Python lines of a job."""
    number, height, width = record.frames
    sampling = GenerationConfig(request.sampling.num_inference_steps)
    if job.video is not None:
        size = f"ieadapt.Frames({number}, {height}, {width})"
        config = _constructor(request.source_config())
        source = f"ieadapt.read_source({display_path(job.video)!r}, {size}, {config}).frames"
    else:
        sized = dataclasses.replace(sampling, num_frames=number, height=height, width=width)
        made = _constructor(with_model_defaults(sized, request.model))
        source = f"ieadapt.generate(pipe, {job.source_prompt!r}, {made}, {job.seed})[0]"
    return (
        f'import ieadapt\n\npipe = ieadapt.load("{request.model}")\nframes = {source}\n'
        f"result = ieadapt.edit(\n    pipe,\n    frames,\n    {[edit.prompt for edit in record.edits]},\n"
        f"    source_prompt={record.source_prompt!r},\n    config={_constructor(request.config)},\n"
        f"    generation={_constructor(sampling)},\n)"
    )


def _constructor(config: Any) -> str:
    """A config as a line of Python that says only what differs from the defaults."""
    default = type(config)()
    changed = {name: value for name, value in vars(config).items() if value != getattr(default, name)}
    return f"ieadapt.{type(config).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"
