"""Perturb: every prompt as the model makes it, and with chosen attention maps replaced, from the same noise."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from ieadapt.attention import AttentionSite, find_sites, intercept
from ieadapt.metrics import select_metrics
from ieadapt.notation import counted
from ieadapt.runs.folder import RunFolder, Stages, silent
from ieadapt.runs.pipelines import Load, open_model_run
from ieadapt.runs.report import Report, Section, Table, write_report
from ieadapt.runs.settings import Hardware
from ieadapt.runs.videos import encode_video, rows_of_frames, side_by_side
from ieadapt.tasks.evaluate.run import clip_values
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.run import own_profile, report_record, sites_table
from ieadapt.tasks.pairs import (
    PairTask,
    VideoPair,
    generate_pairs,
    pair_tasks,
    pairs_sections,
    scores_table,
)
from ieadapt.tasks.perturb.config import BRANCHES, PerturbRun

_METRICS = ("psnr", "ssim", "flicker", "motion")
_COLUMNS = {
    "psnr": ("PSNR dB", ".1f"),
    "ssim": ("SSIM", ".3f"),
    "flicker_change": ("flicker change", "+.2f"),
    "motion_change": ("motion change", "+.2f"),
}


@dataclass(frozen=True)
class Perturbed(PairTask):
    """One prompt and seed, original and perturbed.

    Attributes:
        measures: the perturbed video against the original one, by metric; metrics that refuse it are left out.
    """

    measures: Mapping[str, float]


@dataclass(frozen=True)
class PerturbResult:
    """The result of a perturb run.

    Attributes:
        sites: whose maps were replaced.
        videos: one per prompt.
    """

    sites: Sequence[AttentionSite]
    videos: Sequence[Perturbed]


def run_perturb(
    config: PerturbRun,
    out: str | Path,
    *,
    overwrite: bool = False,
    stages: Stages = silent,
    load: Load = Hardware.load,
) -> PerturbResult:
    """Generate every prompt as it is and perturbed, and write videos, scores and report into a run folder.

    Args:
        config: model, prompts, perturbation and settings.
        out: the run folder.
        overwrite: replace an earlier run in it.
        stages: gets the name of each stage as it begins, and how far it is.
        load: how the run comes by its pipeline; by default it loads one.

    Raises:
        UsageError: the config does not fit the model, or the folder cannot be used.
        FailureError: the run could not be carried out.
    """
    config = config.with_model_defaults()
    profile = None if config.profile is None else EntropyProfile.load(config.profile)
    with open_model_run("perturb", config, out, overwrite=overwrite, load=load) as (run, pipe):
        if profile is None and config.choice.needs_entropy:
            profile = own_profile(pipe, config, run, stages)
        sites = config.choice.choose(find_sites(pipe), **(profile.statistics if profile else {}))
        run.note(sites=[site.name for site in sites], seeds=config.prompt_seeds)

        def perturbing() -> AbstractContextManager[object]:
            return intercept(pipe, config.intervention, sites, config.steps, guidance=BRANCHES[config.branch])

        tasks, names = pair_tasks(config.prompts, config.seed), ("original", "perturbed")
        pairs = generate_pairs(pipe, tasks, config.generation, perturbing, stages, names=names)
        videos = [
            Perturbed(**vars(task), measures=_write_pair(run, task.name, pair))
            for task, pair in zip(tasks, pairs, strict=True)
        ]
        result = PerturbResult(sites, videos)
        run.write("perturbed.json", json.dumps([dataclasses.asdict(each) for each in videos], ensure_ascii=False))
        write_report(run, _report(config, result, profile, run))
    return result


def _write_pair(run: RunFolder, name: str, pair: VideoPair[object]) -> dict[str, float]:
    """Write the videos and the picture of a prompt; how far the perturbed video lies from the original."""
    videos = {"original": pair.plain, "perturbed": pair.changed}
    for label, frames in videos.items():
        run.write(f"{name}-{label}.mp4", encode_video(frames))
    run.write(f"{name}-side-by-side.mp4", encode_video(side_by_side(videos)))
    run.write(f"{name}-strip.png", rows_of_frames(videos))
    measured, _ = clip_values(select_metrics(_METRICS), pair.changed, pair.plain, None)
    return {name: value for name, value in measured.items() if value is not None}


def _report(config: PerturbRun, result: PerturbResult, profile: EntropyProfile | None, run: RunFolder) -> Report:
    return Report(
        title=f"Perturbed with {config.model}",
        request=config.summary,
        results=describe_perturbed(config, result),
        sections=[
            *pairs_sections("Original and perturbed", result.videos, run, "strip.png"),
            Section("How far the videos moved", [perturbed_table(result.videos)]),
            Section("The sites", [sites_table(result.sites, profile)]),
        ],
        repeat={"Command line": str(run.record["command"]), "Python": _python(config, result)},
        record=report_record(run.record),
    )


def describe_perturbed(config: PerturbRun, result: PerturbResult) -> list[str]:
    """What was replaced and how far the videos moved, in sentences."""
    kinds, number = ", ".join(sorted({site.kind for site in result.sites})), len(result.sites)
    window = (
        "at every step"
        if (config.start, config.stop) == (0, 1)
        else f"from {config.start:.0%} to {config.stop:.0%} of the steps"
    )
    sentences = [f"The maps of {counted(number, 'attention site')} ({kinds}) became {config.perturbation}, {window}."]
    likeness = [each.measures["psnr"] for each in result.videos if "psnr" in each.measures]
    if likeness:
        mean = sum(likeness) / len(likeness)
        sentences.append(f"PSNR to the original: {mean:.1f} dB" + (" on average." if len(likeness) > 1 else "."))
    sentences.append("Both start from the same noise. A few videos show what can happen, not what happens on average.")
    return sentences


def perturbed_table(videos: Sequence[Perturbed]) -> Table:
    """One row per prompt: the perturbed video against its original."""
    labels = {"seed": [str(each.seed) for each in videos], "prompt": [each.prompt for each in videos]}
    caption = (
        "PSNR and SSIM: higher is closer to the original. Changes are perturbed less original; flicker in "
        "255ths, motion in pixels."
    )
    return scores_table(labels, [each.measures for each in videos], _COLUMNS, caption)


def _python(config: PerturbRun, result: PerturbResult) -> str:
    """The lines that make the perturbed videos again."""
    seeds = [each.seed for each in result.videos]
    where = f'sites, ({config.start}, {config.stop}), guidance="{BRANCHES[config.branch]}"'
    return (
        "import ieadapt\nfrom ieadapt.interventions import parse_perturbation\n\n"
        f'pipe = ieadapt.load("{config.model}")\nsites = {[site.name for site in result.sites]}\n'
        f'change = parse_perturbation("{config.perturbation}", scope="{config.scope}")\n'
        f"with ieadapt.intercept(pipe, change, {where}):\n"
        f"    videos = ieadapt.generate(pipe, {list(config.prompts)}, ieadapt.{config.generation}, {seeds})"
    )
