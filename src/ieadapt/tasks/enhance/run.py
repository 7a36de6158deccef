"""The enhance run: every prompt plain and enhanced from the same noise, side by side, in a run folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from ieadapt.attention import AttentionSite, find_sites
from ieadapt.errors import UsageError
from ieadapt.files import read_record, record_text
from ieadapt.notation import counted
from ieadapt.runs.folder import RunFolder, Stages, display_path, silent, versions
from ieadapt.runs.pipelines import Load, open_model_run
from ieadapt.runs.report import Report, Section, figure_png, write_report
from ieadapt.runs.settings import GenerationConfig, Hardware
from ieadapt.runs.videos import differences, encode_video, rows_of_frames, side_by_side, strip
from ieadapt.tasks.enhance.config import EnhanceConfig, EnhanceRun
from ieadapt.tasks.enhance.method import enhancement
from ieadapt.tasks.enhance.plan import Cost, Enhancement
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.run import own_profile, profile_blocks, report_record, sites_table
from ieadapt.tasks.pairs import PairTask, VideoPair, generate_pairs, pairs_sections

FILES = ("plain.mp4", "plain.png", "enhanced.mp4", "enhanced.png", "frames.png", "side-by-side.mp4")
"""Of a pair, behind its name: each video and its strip, frames of both and how they differ, both side by side."""

GAIN = 4
"""By which the differences of plain and enhanced frames are drawn stronger than they are."""


@dataclass(frozen=True)
class Seconds:
    """Time per video, in seconds, plain and enhanced."""

    plain: float
    enhanced: float

    @classmethod
    def mean(cls, times: Sequence[Seconds]) -> Seconds:
        """The mean over videos."""
        return cls(*(sum(getattr(each, name) for each in times) / len(times) for name in ("plain", "enhanced")))


def run_enhance(
    config: EnhanceRun,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    stages: Stages = silent,
    load: Load = Hardware.load,
) -> list[AttentionSite]:
    """Generate every prompt and seed plain and enhanced and write videos and report into a run folder.

    Videos are written batch by batch; a run that was stopped goes on with `resume`, and makes only the pairs that are
    unfinished or were changed.

    Args:
        config: model, prompts and settings.
        out: the run folder.
        overwrite: replace an earlier run in it.
        resume: go on with an earlier enhance run in it.
        stages: gets the name of each stage as it begins, and how far it is.
        load: how the run comes by its pipeline; by default it loads one.

    Returns:
        The sites that were changed.

    Raises:
        UsageError: the config does not fit the model, or the folder cannot be used.
        FailureError: the run could not be carried out.
    """
    config = config.with_model_defaults()
    profile = None if config.profile is None else EntropyProfile.load(config.profile)
    method = config.method
    with open_model_run("enhance", config, out, overwrite=overwrite, resume=resume, load=load) as (run, pipe):
        if method.adaptation.acts_on == "sites":  # sites that the model lacks are refused before it is measured
            for choice in filter(None, (method.choice, method.sharpened)):
                choice.candidates(find_sites(pipe))
        if profile is None and method.needs_profile:
            profile = own_profile(pipe, config, run, stages)
        sites, cost, seconds = _make_pairs(run, pipe, config, profile, stages)
        write_report(run, _report(config, out, run, sites, profile, cost, seconds))
    return sites


def _make_pairs(
    run: RunFolder, pipe: DiffusionPipeline, config: EnhanceRun, profile: EntropyProfile | None, stages: Stages
) -> tuple[list[AttentionSite], Cost, Seconds]:
    """Make and write the pairs that are not there yet; what was changed, what it cost, and the mean times."""
    method, cost = config.method, Cost()
    keys = {task: pair_key(config.model, task, config.generation, method, profile) for task in config.tasks}
    kept = {task: seconds for task, key in keys.items() if (seconds := finished(run, task, key))}
    sites = [] if method.online_steps else list(Enhancement(method, find_sites(pipe), profile).sites)
    run.note(seeds=[task.seed for task in config.tasks], kept=len(kept))
    run.note(sites=[site.name for site in sites], enhancement=dataclasses.asdict(method))
    times, missing, latest = list(kept.values()), [task for task in config.tasks if task not in kept], None
    pairs = enhanced_pairs(pipe, missing, config.generation, method, profile, stages, force=config.force)
    for task, pair in zip(missing, pairs, strict=True):
        if pair.state is not latest:
            cost, sites, latest = cost + pair.state.cost, list(pair.state.sites), pair.state
        write_pair(run, task, pair, keys[task])
        times.append(Seconds(pair.plain_seconds, pair.changed_seconds))
    seconds = Seconds.mean(times)
    run.note(sites=[site.name for site in sites], cost=dataclasses.asdict(cost))
    run.note(seconds_per_video=dataclasses.asdict(seconds))
    return sites, cost, seconds


def enhanced_pairs(
    pipe: DiffusionPipeline,
    tasks: Sequence[PairTask],
    generation: GenerationConfig,
    config: EnhanceConfig,
    profile: EntropyProfile | None,
    stages: Stages = silent,
    *,
    force: bool = False,
) -> Iterator[VideoPair[Enhancement]]:
    """Generate the pair of every task, batch by batch; with each comes the enhancement of its batch."""

    def enhancing() -> AbstractContextManager[Enhancement]:
        return enhancement(pipe, config, profile, force=force)

    return generate_pairs(pipe, tasks, generation, enhancing, stages, names=("plain", "enhanced"))


def write_pair(run: RunFolder, task: PairTask, pair: VideoPair[Any], key: str = "") -> bytes:
    """Write the files of a pair, its record last; returns the video that shows both."""
    videos = {"plain": pair.plain, "enhanced": pair.changed}
    joined = encode_video(side_by_side(videos))
    contents = [part for frames in videos.values() for part in (encode_video(frames), strip(frames, count=16))]
    compared = {**videos, f"difference, {GAIN} times": differences(pair.plain, pair.changed, GAIN)}
    for name, content in zip(FILES, [*contents, rows_of_frames(compared), joined], strict=True):
        run.write(f"{task.name}-{name}", content)
    if key:
        seconds = {"plain": pair.plain_seconds, "enhanced": pair.changed_seconds}
        record = {"key": key, "prompt": task.prompt, "seed": task.seed, "seconds": seconds}
        run.write(f"{task.name}.json", record_text(record))
    return joined


def finished(run: RunFolder, task: PairTask, key: str) -> Seconds | None:
    """The times of a pair that an earlier run has finished.

    None where it must be made: there is no record of it, or a file of it is gone or was changed.
    """
    file = f"{task.name}.json"
    if not run.holds(file, *(f"{task.name}-{name}" for name in FILES)):
        return None
    try:
        record = read_record(run.path / file, {"key": str, "seconds": Seconds}, what="a pair", remedy="make it again")
    except UsageError:
        return None
    return Seconds(**record["seconds"]) if record["key"] == key else None


def pair_key(
    model: str, task: PairTask, generation: GenerationConfig, config: EnhanceConfig, profile: EntropyProfile | None
) -> str:
    """A hash of all that decides about a pair of videos; how many run as a batch does not."""
    decisive = [
        model,
        task.prompt,
        task.seed,
        dataclasses.asdict(dataclasses.replace(generation, batch_size=1)),
        dataclasses.asdict(config),
        None if profile is None else sorted((name, round(ep, 6)) for name, ep in profile.ep.items()),
        versions(),
    ]
    return hashlib.sha256(json.dumps(decisive, default=str).encode()).hexdigest()[:16]


def _report(
    config: EnhanceRun,
    out: str | Path,
    run: RunFolder,
    sites: Sequence[AttentionSite],
    profile: EntropyProfile | None,
    cost: Cost,
    seconds: Seconds,
) -> Report:
    results = [
        summarize(config.method, sites),
        f"A plain video took {seconds.plain:.1f} s, an enhanced one {seconds.enhanced:.1f} s "
        f"({seconds.enhanced / max(seconds.plain, 1e-9):.2f} times as long).",
        *filter(None, [cost.summary()]),
        "Plain and enhanced start from the same noise. Whether enhanced is better is for measurements over many "
        "prompts to say, not for these pairs.",
    ]
    plots = profile_blocks(profile, figure_png(profile.plot())) if profile else []
    return Report(
        title=f"Enhanced with {config.model}",
        request=config.summary,
        results=results,
        sections=[
            *pairs_sections("Plain and enhanced", config.tasks, run, "frames.png"),
            Section("The sites", [sites_table(sites, profile), *plots]),
        ],
        repeat={"Command line": str(run.record["command"]), "Python": _python(config, out, profile)},
        record=report_record(run.record),
    )


def summarize(method: EnhanceConfig, sites: Sequence[AttentionSite]) -> str:
    """What the enhancement did, in a sentence."""
    kinds = ", ".join(sorted({site.kind for site in sites}))
    where = f"{counted(len(sites), 'attention site')} ({kinds})"
    change = method.adaptation.description.format(change=method.perturbation, sites=where)
    if method.mode == "guidance":
        return f"In a weak pass {change}, and the prediction was pushed away from it with scale {method.scale:g}."
    if method.mode == "combine":
        return f"From {method.start:.0%} to {method.stop:.0%} of the steps {change}. No pass was added."
    return f"In the one pass {change}, with a share of {method.scale:g}."


def _python(config: EnhanceRun, out: str | Path, profile: EntropyProfile | None) -> str:
    """The lines that make the enhanced videos again."""
    load = f'profile = ieadapt.EntropyProfile.load("{display_path(config.profile or out)}")\n' if profile else ""
    passed = "    profile=profile,\n" if profile else ""
    return (
        f'import ieadapt\n\npipe = ieadapt.load("{config.model}")\n{load}'
        f"videos = ieadapt.enhance(\n    pipe,\n    {[task.prompt for task in config.tasks]},\n{passed}"
        f"    config=ieadapt.{config.method},\n"
        f"    generation=ieadapt.{config.generation},\n    seed={[task.seed for task in config.tasks]},\n)"
    )
