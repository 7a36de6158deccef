"""The perturb run: every prompt as the model makes it, and with chosen maps replaced, from the same noise."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import AttentionSite, find_sites, intercept
from ieadapt.errors import UsageError
from ieadapt.metrics import evaluate
from ieadapt.runs.folder import RunFolder, Stages, silent
from ieadapt.runs.pipelines import Hardware, Load, open_model_run
from ieadapt.runs.report import write_report
from ieadapt.runs.videos import encode_video, rows_of_frames, side_by_side
from ieadapt.tasks.generate import generate
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.run import own_profile
from ieadapt.tasks.perturb.config import BRANCHES, Perturbed, PerturbResult, PerturbRun
from ieadapt.tasks.perturb.report import perturb_report

METRICS = ("psnr", "ssim", "flicker", "motion")
Video = Float[Tensor, "frame channel height width"]


def run_perturb(
    asked: PerturbRun,
    out: str | Path,
    *,
    overwrite: bool = False,
    stages: Stages = silent,
    load: Load = Hardware.load,
) -> PerturbResult:
    """Generate every prompt as it is and perturbed, and write videos, measures and report into a run folder.

    Args:
        asked: model, prompts, perturbation and settings.
        out: the run folder.
        overwrite: replace an earlier run in it.
        stages: told which stage begins and how far it is.
        load: how the run comes by its pipeline; by default it loads one.

    Raises:
        UsageError: what was asked cannot be.
        FailureError: it could not be carried out.
    """
    asked = asked.with_model_defaults()
    profile = None if asked.profile is None else EntropyProfile.load(asked.profile)
    with open_model_run("perturb", asked, out, overwrite=overwrite, load=load) as (run, pipe):
        if profile is None and asked.choice.needs_entropy:
            profile = own_profile(pipe, asked, run, stages)
        sites = asked.choice.choose(find_sites(pipe), **(profile.figures if profile else {}))
        run.note(sites=[site.name for site in sites], seeds=[asked.seed + i for i in range(len(asked.prompts))])
        videos = [_written(run, *made) for made in _generated(pipe, asked, sites, stages)]
        result = PerturbResult(sites, videos)
        run.write("perturbed.json", json.dumps([dataclasses.asdict(each) for each in videos], ensure_ascii=False))
        write_report(run, perturb_report(asked, result, profile, run))
    return result


def _generated(
    pipe: DiffusionPipeline, asked: PerturbRun, sites: Sequence[AttentionSite], stages: Stages
) -> Iterator[tuple[str, str, int, Video, Video]]:
    """Name, prompt, seed, original and perturbed frames of every prompt, batch by batch."""
    size, total = asked.generation.batch_size, len(asked.prompts)
    for start in range(0, total, size):
        words = list(asked.prompts[start : start + size])
        seeds = [asked.seed + start + index for index in range(len(words))]
        suffix = "" if total <= size else f" {start + 1}–{start + len(words)} of {total}"
        original = generate(pipe, words, asked.generation, seeds, stages(f"original{suffix}"))
        with intercept(pipe, asked.intervention, list(sites), asked.steps, guidance=BRANCHES[asked.branch]):
            perturbed = generate(pipe, words, asked.generation, seeds, stages(f"perturbed{suffix}"))
        for index, (prompt, seed) in enumerate(zip(words, seeds, strict=True)):
            yield f"{start + index:02d}", prompt, seed, original[index], perturbed[index]


def _written(run: RunFolder, name: str, prompt: str, seed: int, original: Video, perturbed: Video) -> Perturbed:
    """Write the videos and the picture of a prompt, and measure it."""
    videos = {"original": original, "perturbed": perturbed}
    for label, frames in videos.items():
        run.write(f"{name}-{label}.mp4", encode_video(frames))
    run.write(f"{name}-side-by-side.mp4", encode_video(side_by_side(videos)))
    run.write(f"{name}-strip.png", rows_of_frames(videos))
    return Perturbed(name, prompt, seed, _measures(perturbed, original))


def _measures(frames: Video, original: Video) -> dict[str, float]:
    values: dict[str, float] = {}
    for metric in METRICS:
        try:
            values |= evaluate(frames, original, [metric])
        except UsageError:  # too small or too short for this one
            continue
    return values
