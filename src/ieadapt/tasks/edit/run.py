"""The edit run: sources read or generated, inverted, checked, edited and measured, in a run folder with a report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from diffusers import DiffusionPipeline

from ieadapt.files import record_text
from ieadapt.metrics import select_metrics
from ieadapt.metrics.structure import region_psnr
from ieadapt.models.video_latents import fitting_size, run_size
from ieadapt.notation import counted
from ieadapt.runs.folder import Batch, RunFolder, Stages, silent
from ieadapt.runs.pipelines import Load, describe, open_model_run
from ieadapt.runs.report import write_report
from ieadapt.runs.settings import GenerationConfig, Hardware, with_model_defaults
from ieadapt.runs.sources import Frames, Source, read_source
from ieadapt.runs.videos import FRAMES_PER_SECOND, Sound, Video, encode_video, rows_of_frames, side_by_side
from ieadapt.tasks.edit.config import EditRun
from ieadapt.tasks.edit.inversion import Inversion, cached_inversion, default_cache
from ieadapt.tasks.edit.jobs import MASKED, RECORD, EditJob, EditRecord, JobRecord, job_key
from ieadapt.tasks.edit.method import EditResult, edit
from ieadapt.tasks.edit.report import edit_report
from ieadapt.tasks.evaluate.run import clip_values
from ieadapt.tasks.generate import check_prompt, generate
from ieadapt.tasks.measure.profile import EntropyProfile

INVERSION_SCORES = ("key", "psnr", "ssim", "vae_psnr", "inversion_psnr", "std_ratio")
"""Of an inversion, for a record; PSNR in dB, higher is closer."""


def run_edit(
    request: EditRun,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    stages: Stages = silent,
    say: Callable[[str], None] = lambda message: None,
    load: Load = Hardware.load,
) -> tuple[list[JobRecord], Batch]:
    """Edit every job and write videos, measures and report into a run folder.

    Each finished job is written at once; a run that was stopped goes on with `resume`, and does again only the jobs
    that are unfinished or were changed. Inversions are kept beyond the run.

    The sources of several jobs are all read once before anything is computed. A job that cannot be done is left out;
    the run is then marked partial, and does that job when it is resumed.

    Args:
        request: model, sources, targets and settings.
        out: the run folder.
        overwrite: replace an earlier run in it.
        resume: go on with an earlier edit run in it.
        stages: gets the name of each stage as it begins, and how far it is.
        say: gets messages about what was chosen and how good it is, while the run goes on.
        load: how the run comes by its pipeline; by default it loads one.

    Returns:
        One record per finished job, and what was left out.

    Raises:
        UsageError: what was requested cannot be, for any job.
        FailureError: it could not be carried out, for any job.
    """
    jobs = {job.name: job for job in request.list_jobs()}
    profile = None if request.profile is None else EntropyProfile.load(request.profile)
    with open_model_run("edit", request, out, overwrite=overwrite, resume=resume, load=load) as (run, pipe):
        run.note(jobs=[dataclasses.asdict(job) for job in jobs.values()])
        runner, batch = JobRunner(run, pipe, request, profile, stages, say), Batch("jobs", say)
        if len(jobs) > 1:
            batch.each(jobs, runner.check)
        records = batch.each(jobs, runner.edit)
        write_report(run, edit_report(request, jobs, records, run, batch.notes))
    batch.mark(run)
    return records, batch


@dataclass(frozen=True)
class JobRunner:
    """One pipeline, going through the jobs of a run; arguments as of `run_edit`."""

    run: RunFolder
    pipe: DiffusionPipeline
    request: EditRun
    profile: EntropyProfile | None
    stages: Stages
    say: Callable[[str], None]

    def check(self, job: EditJob) -> None:
        """Refuse a job whose prompts or source cannot be read, unless its result is there."""
        if JobRecord.finished(self.run, self._folder(job), self._key(job)) is None:
            self._check_prompts(job)
            if job.video is not None:
                self._source(job)

    def edit(self, job: EditJob) -> JobRecord:
        """Edit one job and write its files, last its record, unless its result is there."""
        folder, key, prefix = self._folder(job), self._key(job), f"{job.name}: " if self.request.jobs else ""
        earlier = JobRecord.finished(self.run, folder, key)
        if earlier is not None:
            self.say(f"{prefix}finished earlier")
            return earlier
        self._check_prompts(job)
        source = self._source(job)
        label = f"{job.source_label}: {source.chosen}"
        self.say(f"{prefix}source {label}")
        began = time.perf_counter()
        inversion = self._invert(job, source, prefix)
        between = time.perf_counter()
        result = edit(
            self.pipe,
            source.frames,
            job.prompts,
            source_prompt=job.source_prompt,
            config=self.request.config,
            generation=self.request.sampling.generation,
            inversion=inversion,
            profile=self.profile,
            progress=self.stages(f"{prefix}editing"),
        )
        seconds = {"inversion": round(between - began, 2), "edits": round(time.perf_counter() - between, 2)}
        record = JobRecord(
            name=job.name,
            folder=folder,
            key=key,
            source=label,
            source_prompt=job.source_prompt,
            frames=[source.frames.shape[0], *source.frames.shape[2:]],
            inversion={name: getattr(inversion, name) for name in INVERSION_SCORES},
            edits=write_videos(self.run, folder, job.source_prompt, source, result),
            sites=[site.name for site in result.sites],
            notes=list(dict.fromkeys([*source.damage, *result.notes])),
            seconds=seconds,
        )
        self.run.write(f"{folder}{RECORD}", record_text(dataclasses.asdict(record)))
        return record

    def _invert(self, job: EditJob, source: Source, prefix: str) -> Inversion:
        """The inversion of the source, new or kept; says how well that reconstructs it."""
        cache, progress = self.request.cache or default_cache(), self.stages(f"{prefix}inverting")
        config, generation = self.request.config, self.request.sampling.generation
        inversion, kept = cached_inversion(
            cache, self.pipe, source.frames, job.source_prompt, config, generation, progress
        )
        begin = "inversion kept from an earlier run; " if kept else ""
        likeness = "" if inversion.ssim is None else f", SSIM {inversion.ssim:.3f}"
        reconstruction = (
            f"{begin}reconstruction: PSNR {inversion.psnr:.1f} dB{likeness} to the source "
            f"(its decoder alone reaches {inversion.vae_psnr:.1f} dB)"
        )
        for message in (reconstruction, *inversion.notes):
            self.say(f"{prefix}{message}")
        return inversion

    def _check_prompts(self, job: EditJob) -> None:
        for prompt in (job.source_prompt, *job.prompts):
            check_prompt(self.pipe, prompt)

    def _folder(self, job: EditJob) -> str:
        """Where the files of a job go, within the run."""
        return f"{job.name}/" if self.request.jobs else ""

    def _source(self, job: EditJob) -> Source:
        """The frames of a job, read or generated."""
        generation = self.request.sampling.generation
        frames = frames_for(self.pipe, generation)
        if job.video is not None:
            return read_source(job.video, frames, self.request.source_config())
        sized = dataclasses.replace(
            generation, num_frames=frames.number, height=frames.height, width=frames.width, batch_size=1
        )
        config = with_model_defaults(sized, self.request.model)
        progress = self.stages("generating the source")
        video = generate(self.pipe, job.source_prompt, config, int(job.seed or 0), progress=progress)[0]
        chosen = f"“{job.source_prompt}”, {counted(frames.number, 'frame')} of {frames.width}x{frames.height}"
        return Source(video, Fraction(FRAMES_PER_SECOND), None, chosen)

    def _key(self, job: EditJob) -> str:
        """A hash of all that decides about a job's result."""
        settings = {
            "config": dataclasses.asdict(self.request.config),
            "sampling": dataclasses.asdict(self.request.sampling),
            "source": self.request.source_config().as_key(),
            "profile": None if self.profile is None else self.profile.ep,
            "model": describe(self.pipe),
        }
        return job_key(job, settings)


def frames_for(pipe: DiffusionPipeline, generation: GenerationConfig) -> Frames:
    """The number and size of the frames to take: those requested or the model's own, rounded down to what fits it.

    Raises:
        UsageError: the model does not say its own size, or the size is none that it can take.

    Example:
        >>> from ieadapt.models import load
        >>> frames_for(load("scenes"), GenerationConfig(height=100))
        Frames(number=16, height=96, width=128)
    """
    return Frames(*fitting_size(pipe, *run_size(pipe, vars(generation))))


def write_videos(
    run: RunFolder, folder: str, source_prompt: str, source: Source, result: EditResult
) -> list[EditRecord]:
    """Write the videos and pictures of a job into a folder of the run, and measure its edits."""

    def write(name: str, frames: Video, sound: Sound | None = source.sound) -> None:
        run.write(f"{folder}{name}", encode_video(frames, source.rate, sound))

    write("source.mp4", result.source)
    write("reconstruction.mp4", result.reconstruction)
    masks = result.mask if result.mask is not None else [None] * len(result.prompts)
    edits = []
    for index, (prompt, frames, mask) in enumerate(zip(result.prompts, result.edited, masks, strict=True)):
        measured, _ = clip_values(select_metrics(), frames, result.source, None)
        scores = {name: value for name, value in measured.items() if value is not None}  # the others refuse the clip
        write(f"{index:02d}-edit.mp4", frames)
        clips = {"source": result.source, "reconstruction": result.reconstruction, "edit": frames}
        write(f"{index:02d}-side-by-side.mp4", side_by_side(clips))
        rows = {f"source: {source_prompt}".rstrip(": "): result.source, f"edit: {prompt}": frames}
        run.write(f"{folder}{index:02d}-strip.png", rows_of_frames(rows))
        if mask is not None:
            scores[MASKED] = region_psnr(frames, result.source, mask < 0.5)
            write(f"{index:02d}-mask.mp4", mask.float()[:, None].expand(-1, 3, -1, -1), None)
        edits.append(EditRecord(prompt, f"{index:02d}", scores))
    return edits
