"""The enhance run: every prompt plain and enhanced from the same noise, side by side, in a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffusers import DiffusionPipeline

from ieadapt.attention import AttentionSite, find_sites
from ieadapt.errors import UsageError
from ieadapt.runs.folder import RunFolder, Stages, silent
from ieadapt.runs.pipelines import Hardware, Load, check_seeds, open_model_run, spoken_folder
from ieadapt.runs.report import Clip, Gallery, Report, Section, figure_png, write_report
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.pairs import (
    Cost,
    PairTask,
    Seconds,
    finished,
    generate_pairs,
    pair_key,
    pair_tasks,
    write_pair,
)
from ieadapt.tasks.enhance.presets import PRESETS
from ieadapt.tasks.generate import PromptRun
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.run import own_profile, profile_blocks, report_record, sites_table

REPORTED_CLIPS = 24


@dataclass(frozen=True)
class EnhanceRun(PromptRun):
    """The settings of an enhance run, beside those of every run with prompts.

    Attributes:
        enhancement: which maps change, where, when and how strongly; None = as the preset says, or the default.
        profile: folder of a measure run of this model; without one, and if the choice of sites needs it, the model is
            measured first on a few prompts and steps.
        seeds: videos of each prompt; their seeds count up over the prompts first, then over the repeats.
        preset: a method by name (`ieadapt.tasks.PRESETS`), from which the flags of an enhancement start.
        force: go on with a profile of another model or size.

    Raises:
        UsageError: no prompt, a blank one, no video of each, an unknown preset, or a schedule of another length.
    """

    enhancement: EnhanceConfig | None = field(default=None, metadata={"base": EnhanceConfig.preset})
    profile: Path | None = field(
        default=None, metadata={"help": "folder of a measure run; without one it measures first"}
    )
    seeds: int = field(default=1, metadata={"help": "videos of each prompt"})
    preset: str | None = field(
        default=None,
        metadata={
            "help": "a method by name: pag, seg, stg-a, stg-r, enhance-a-video or freeu",
            "choices": tuple(PRESETS),
        },
    )
    force: bool = field(default=False, metadata={"help": "go on with a profile of another model or size"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seeds(self.seed, len(self.prompts) * self.seeds)
        if self.seeds < 1:
            raise UsageError("an enhance run needs seeds", expected=">= 1", got=self.seeds, where="--seeds")
        _ = self.method.factors.factors(self.generation.num_inference_steps)

    @property
    def method(self) -> EnhanceConfig:
        """The enhancement, the preset, or the default."""
        return self.enhancement or (EnhanceConfig() if self.preset is None else EnhanceConfig.preset(self.preset))

    @property
    def tasks(self) -> list[PairTask]:
        """The pairs of videos to be made."""
        return pair_tasks(self.prompts, self.seed, self.seeds)


def run_enhance(
    asked: EnhanceRun,
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
        asked: model, prompts and settings.
        out: the run folder.
        overwrite: replace an earlier run in it.
        resume: go on with an earlier enhance run in it.
        stages: told which stage begins and how far it is.
        load: how the run comes by its pipeline; by default it loads one.

    Returns:
        The sites that were changed.

    Raises:
        UsageError: what was asked cannot be.
        FailureError: it could not be carried out.
    """
    asked = asked.with_model_defaults()
    given = None if asked.profile is None else EntropyProfile.load(asked.profile)
    with open_model_run("enhance", asked, out, overwrite=overwrite, resume=resume, load=load) as (run, pipe):
        if (
            asked.method.adaptation.acts_on != "network"
        ):  # sites that the model has not are refused before it is measured
            for choice in filter(None, (asked.method.choice, asked.method.sharpened)):
                choice.candidates(find_sites(pipe))
        profile = given or _own_profile(pipe, asked, run, stages)
        made = _Made(run, asked, profile)
        made.generate(pipe, stages)
        write_report(run, _report(asked, out, made, profile, run.record))
    return made.sites


class _Made:
    """The pairs of a run: those that are there, and those that it makes."""

    def __init__(self, run: RunFolder, asked: EnhanceRun, profile: EntropyProfile | None) -> None:
        self._run, self._asked, self._profile = run, asked, profile
        self.times: list[Seconds] = []
        self.cost = Cost()
        self.sites: list[AttentionSite] = []

    def generate(self, pipe: DiffusionPipeline, stages: Stages) -> None:
        """Make the pairs that are not there."""
        asked, run, method = self._asked, self._run, self._asked.method
        keys = {task: pair_key(asked.model, task, asked.generation, method, self._profile) for task in asked.tasks}
        kept = {task: seconds for task, key in keys.items() if (seconds := finished(run, task, key))}
        missing = [task for task in asked.tasks if task not in kept]
        if not method.online_steps:
            self.sites = method.choose(find_sites(pipe), self._profile)
        run.note(seeds=[task.seed for task in asked.tasks], kept=len(kept))
        run.note(sites=[site.name for site in self.sites], enhancement=dataclasses.asdict(method))
        self.times = list(kept.values())
        videos = generate_pairs(pipe, missing, asked.generation, method, self._profile, stages, force=asked.force)
        told = None
        for pair, latest in videos:
            if latest is not told:
                self.cost.add(latest.as_dict())
                self.sites, told = list(latest.sites), latest
            write_pair(run, pair, keys[PairTask(pair.name, pair.prompt, pair.seed)])
            self.times.append(pair.seconds)
        run.note(sites=[site.name for site in self.sites], cost=dataclasses.asdict(self.cost))
        run.note(seconds_per_video=dataclasses.asdict(Seconds.mean(self.times)))

    def clips(self) -> list[Clip]:
        """The first pairs, for the report."""
        shown = self._asked.tasks[:REPORTED_CLIPS]
        return [
            Clip((self._run.path / f"{task.name}-side-by-side.mp4").read_bytes(), f"{task.prompt} (seed {task.seed})")
            for task in shown
        ]


def _own_profile(pipe: DiffusionPipeline, asked: EnhanceRun, run: RunFolder, stages: Stages) -> EntropyProfile | None:
    """A quick profile of this model, saved with the run, if the choice of sites needs one."""
    return own_profile(pipe, asked, run, stages) if asked.method.needs_profile else None


def _report(
    asked: EnhanceRun, out: str | Path, made: _Made, profile: EntropyProfile | None, record: Mapping[str, object]
) -> Report:
    method, seconds, clips = asked.method, Seconds.mean(made.times), made.clips()
    found = [
        _told(method, made.sites),
        f"A plain video took {seconds.plain:.1f} s, an enhanced one {seconds.enhanced:.1f} s "
        f"({seconds.enhanced / max(seconds.plain, 1e-9):.2f} times as long).",
        *filter(None, [made.cost.sentence()]),
        "Plain and enhanced start from the same noise. Whether enhanced is better is for measurements over many "
        "prompts to say, not for these pairs.",
    ]
    blocks = [
        sites_table(made.sites, profile),
        *(profile_blocks(profile, figure_png(profile.plot())) if profile else []),
    ]
    every = len(clips) == len(asked.tasks)
    shown = "Plain and enhanced" + ("" if every else f" (the first {len(clips)} of {len(asked.tasks)})")
    return Report(
        title=f"Enhanced with {asked.model}",
        asked=f"{len(asked.prompts)} prompts, {asked.generation.num_inference_steps} steps, first seed {asked.seed}.",
        found=found,
        sections=[Section(shown, [Gallery(clips)]), Section("The sites", blocks)],
        repeat={"Command line": str(record["command"]), "Python": _python(asked, out, profile)},
        record=report_record(record),
    )


def _told(method: EnhanceConfig, sites: Sequence[AttentionSite]) -> str:
    """What the enhancement did, in a sentence."""
    kinds = ", ".join(sorted({site.kind for site in sites}))
    where = f"{len(sites)} attention site{'' if len(sites) == 1 else 's'} ({kinds})"
    change = method.adaptation.told.format(change=method.perturbation, sites=where)
    if method.mode == "guidance":
        return f"In a weak pass {change}, and the prediction was pushed away from it with scale {method.scale:g}."
    return f"In the one pass {change}, with a share of {method.scale:g}."


def _python(asked: EnhanceRun, out: str | Path, profile: EntropyProfile | None) -> str:
    """The lines that make the enhanced videos again."""
    load = f'profile = ieadapt.EntropyProfile.load("{spoken_folder(asked.profile or out)}")\n' if profile else ""
    passed = "    profile=profile,\n" if profile else ""
    tasks = asked.tasks
    return (
        f'import ieadapt\n\npipe = ieadapt.load("{asked.model}")\n{load}'
        f"videos = ieadapt.enhance(\n    pipe,\n    {[task.prompt for task in tasks]},\n{passed}"
        f"    config=ieadapt.{asked.method},\n"
        f"    generation=ieadapt.{asked.generation},\n    seed={[task.seed for task in tasks]},\n)"
    )
