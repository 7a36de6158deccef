"""The edit run: sources read or generated, inverted, checked, edited and measured, in a run folder with a report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from ieadapt.runs.flags import command_line
from ieadapt.runs.folder import Batch, RunFolder, Stages, open_run, silent
from ieadapt.runs.pipelines import Hardware, Load, describe
from ieadapt.runs.report import write_report
from ieadapt.runs.sources import Source, read_source
from ieadapt.runs.videos import FRAMES_PER_SECOND
from ieadapt.tasks.edit.clip_check import check_clip
from ieadapt.tasks.edit.inversion import Inversion
from ieadapt.tasks.edit.inversions import InversionCache, default_cache
from ieadapt.tasks.edit.jobs import EditJob
from ieadapt.tasks.edit.method import EditResult, edit
from ieadapt.tasks.edit.model_size import frames_for
from ieadapt.tasks.edit.records import JobRecord, job_key, write_job
from ieadapt.tasks.edit.report import edit_report
from ieadapt.tasks.edit.run_config import EditRun
from ieadapt.tasks.generate import check_length, generate, with_model_defaults
from ieadapt.tasks.measure.profile import EntropyProfile

Say = Callable[[str], None]
"""Told in words what was chosen and found, while the run goes on."""


def _silence(words: str) -> None:
    return


def run_edit(
    asked: EditRun,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    stages: Stages = silent,
    say: Say = _silence,
    load: Load = Hardware.load,
) -> tuple[list[JobRecord], Batch]:
    """Edit every job and write videos, measures and report into a run folder.

    Each finished job is written at once; a run that was stopped goes on with `resume`, and does again only the jobs
    that are unfinished or were changed. Inversions are kept beyond the run.

    The sources of several jobs are all read once before anything is computed. A job that cannot be done is left out;
    the run is then marked partial, and does that job when it is resumed.

    Args:
        asked: model, sources, targets and settings.
        out: the run folder.
        overwrite: replace an earlier run in it.
        resume: go on with an earlier edit run in it.
        stages: told which stage begins and how far it is.
        say: told what was chosen and found.
        load: how the run comes by its pipeline; by default it loads one.

    Returns:
        One record per finished job, and what was left out.

    Raises:
        UsageError: what was asked cannot be, for any job.
        FailureError: it could not be carried out, for any job.
    """
    jobs, profile = asked.listed, None if asked.profile is None else EntropyProfile.load(asked.profile)
    command = command_line("edit", asked, out)
    with open_run(out, "edit", asked.as_record(), command=command, overwrite=overwrite, resume=resume) as run:
        pipe = load(asked.hardware, asked.model)
        run.note(model=describe(pipe), jobs=[dataclasses.asdict(job) for job in jobs])
        editor = _Editor(run, pipe, asked, profile, stages, say)
        batch, named = Batch("jobs", say), {job.name: job for job in jobs}
        if len(jobs) > 1:
            batch.each(named, editor.check)
        records = batch.each(named, editor.do)
        write_report(run, edit_report(asked, records, run, batch.notes))
    batch.mark(run)
    return records, batch


class _Editor:
    """One pipeline, going through jobs."""

    def __init__(
        self,
        run: RunFolder,
        pipe: DiffusionPipeline,
        asked: EditRun,
        profile: EntropyProfile | None,
        stages: Stages,
        say: Say,
    ) -> None:
        self._run, self._pipe, self._asked, self._profile = run, pipe, asked, profile
        self._stages, self._say = stages, say
        self._cache = InversionCache(asked.cache or default_cache())

    def check(self, job: EditJob) -> None:
        """Refuse a job whose prompts or source cannot be read."""
        if self._earlier(job) is None:
            self._check_prompts(job)
            if job.video is not None:
                check_clip(self._pipe, self._source(job).frames)

    def do(self, job: EditJob) -> JobRecord:
        """Edit one job, unless its result is there."""
        folder = self._folder(job)
        name = f"{job.name}: " if folder else ""
        earlier, key = self._earlier(job), job_key(job, self._settings())
        if earlier is not None:
            self._say(f"{name}finished earlier")
            return earlier
        self._check_prompts(job)
        source = self._source(job)
        self._say(f"{name}source {job.spoken_source}: {source.chosen}")
        result, seconds = self._edit(job, source, name)
        record = JobRecord(
            name=job.name,
            folder=folder,
            key=key,
            source=f"{job.spoken_source}: {source.chosen}",
            source_prompt=job.source_prompt,
            frames=[source.frames.shape[0], *source.frames.shape[2:]],
            inversion=inversion_facts(result.inversion),
            edits=[],
            sites=[site.name for site in result.sites],
            notes=list(dict.fromkeys([*source.damage, *result.notes])),
            seconds=seconds,
        )
        return write_job(self._run, record, source, result)

    def _folder(self, job: EditJob) -> str:
        """Where the files of a job go, within the run."""
        return f"{job.name}/" if self._asked.jobs else ""

    def _earlier(self, job: EditJob) -> JobRecord | None:
        """What an earlier run has left of the same job, if all of it is there and unchanged."""
        return JobRecord.finished(self._run, self._folder(job), job_key(job, self._settings()))

    def _check_prompts(self, job: EditJob) -> None:
        for prompt in (job.source_prompt, *job.prompts):
            check_length(self._pipe, prompt)

    def _edit(self, job: EditJob, source: Source, name: str) -> tuple[EditResult, dict[str, float]]:
        """Invert the source, say how well that reconstructs it, and edit it; with the time of both, in seconds."""
        generation, config = self._asked.sampling.generation, self._asked.config
        began = time.perf_counter()
        inversion, found = self._cache.invert(
            self._pipe, source.frames, job.source_prompt, config, generation, self._stages(f"{name}inverting")
        )
        between = time.perf_counter()
        for words in check_words(inversion, found=found):
            self._say(f"{name}{words}")
        result = edit(
            self._pipe,
            source.frames,
            list(job.prompts),
            source_prompt=job.source_prompt,
            config=config,
            generation=generation,
            inversion=inversion,
            profile=self._profile,
            progress=self._stages(f"{name}editing"),
        )
        seconds = {"inversion": round(between - began, 2), "edits": round(time.perf_counter() - between, 2)}
        return result, seconds

    def _source(self, job: EditJob) -> Source:
        """The frames of a job, read or generated; inverting and editing check them."""
        asked = self._asked.sampling.generation
        wanted = frames_for(self._pipe, asked)
        if job.video is not None:
            source = read_source(job.video, wanted, self._asked.source)
        else:
            sized = dataclasses.replace(
                asked, num_frames=wanted.number, height=wanted.height, width=wanted.width, batch_size=1
            )
            frames = generate(
                self._pipe,
                job.source_prompt,
                with_model_defaults(sized, self._asked.model),
                int(job.seed or 0),
                progress=self._stages("generating the source"),
            )[0]
            size = f"{wanted.number} frames of {wanted.width}x{wanted.height}"
            source = Source(frames, Fraction(FRAMES_PER_SECOND), None, f"“{job.source_prompt}”, {size}")
        return source

    def _settings(self) -> dict[str, Any]:
        """What decides about every job of the run."""
        asked = self._asked
        return {
            "config": dataclasses.asdict(asked.config),
            "sampling": dataclasses.asdict(asked.sampling),
            "source": asked.source.as_key(),
            "profile": None if self._profile is None else self._profile.ep,
            "model": describe(self._pipe),
        }


def inversion_facts(inversion: Inversion) -> dict[str, Any]:
    """The figures of an inversion for a record; PSNR in dB, higher is closer."""
    names = ("key", "psnr", "ssim", "vae_psnr", "inversion_psnr", "std_ratio")
    return {name: getattr(inversion, name) for name in names}


def check_words(inversion: Inversion, *, found: bool) -> list[str]:
    """What the reconstruction check says, before the edit begins."""
    begin = "inversion kept from an earlier run; " if found else ""
    likeness = "" if inversion.ssim is None else f", SSIM {inversion.ssim:.3f}"
    words = (
        f"{begin}reconstruction: PSNR {inversion.psnr:.1f} dB{likeness} to the source "
        f"(its decoder alone reaches {inversion.vae_psnr:.1f} dB)"
    )
    return [words, *inversion.notes]
