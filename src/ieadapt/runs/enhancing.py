"""The enhance run: every prompt plain and enhanced from the same noise, side by side, in a run folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import AttentionSite, find_sites
from ieadapt.methods import EnhanceConfig, EntropyProfile, GenerationConfig, enhance, generate, measure
from ieadapt.runs.flags import command_line
from ieadapt.runs.folder import RunFolder, open_run
from ieadapt.runs.measuring import profile_blocks, report_record, write_profile
from ieadapt.runs.pipelines import Hardware, check_prompts, describe, spoken_folder, suited
from ieadapt.runs.progress import Stages, silent
from ieadapt.runs.report import Clip, Gallery, Report, Section, Table, figure_png, render_report
from ieadapt.runs.videos import encode_video, side_by_side, strip

PROFILE_STEPS, PROFILE_PROMPTS = 5, 4
REPORTED_CLIPS = 24

Video = Float[Tensor, "frame channel height width"]


@dataclass(frozen=True)
class EnhanceRun:
    """What an enhance run is asked.

    Attributes:
        model: a bundled name, a folder or a hub id.
        prompts: one pair of videos each.
        generation: steps, size, guidance.
        enhancement: scale, perturbation, sites, window.
        profile: folder of a measure run of this model; without one, and if the choice of sites needs it, the model is
            measured first on a few prompts and steps.
        seed: of the first prompt; the next prompts take the next ones.
        hardware: device and precision.

    Raises:
        UsageError: no prompt, or a blank one.
    """

    model: str
    prompts: tuple[str, ...]
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    enhancement: EnhanceConfig = field(default_factory=EnhanceConfig)
    profile: Path | None = field(
        default=None, metadata={"help": "folder of a measure run; without one it measures first"}
    )
    seed: int = field(default=0, metadata={"help": "seed of the first prompt; the next ones count up"})
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        check_prompts(self.prompts)

    @property
    def seeds(self) -> list[int]:
        """One seed per prompt."""
        return list(range(self.seed, self.seed + len(self.prompts)))


@dataclass(frozen=True)
class Pair:
    """One prompt, plain and enhanced, from the same noise.

    Attributes:
        name: in the names of its files.
        prompt: what the videos show.
        seed: of their noise.
        plain: frames in [0, 1].
        enhanced: frames in [0, 1].
        seconds: time that each took; videos of one batch share its time evenly.
    """

    name: str
    prompt: str
    seed: int
    plain: Video
    enhanced: Video
    seconds: Seconds


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
    asked: EnhanceRun, out: str | Path, *, overwrite: bool = False, stages: Stages = silent
) -> list[AttentionSite]:
    """Generate every prompt plain and enhanced and write videos and report into a run folder.

    Videos are written batch by batch, so that a run that is stopped keeps those it finished.

    Args:
        asked: model, prompts and settings.
        out: the run folder.
        overwrite: replace an earlier run in it.
        stages: told which stage begins and how far it is.

    Returns:
        The sites whose maps the weak branch replaced.

    Raises:
        UsageError: what was asked cannot be.
        FailureError: it could not be carried out.
    """
    asked = dataclasses.replace(asked, generation=suited(asked.generation, asked.model))
    given = None if asked.profile is None else EntropyProfile.load(asked.profile)
    command = command_line("enhance", asked, out)
    with open_run(out, "enhance", dataclasses.asdict(asked), command=command, overwrite=overwrite) as run:
        pipe = asked.hardware.load(asked.model)
        profile = given or _own_profile(pipe, asked, run, stages)
        chosen = asked.enhancement.choose(find_sites(pipe), profile)
        run.note(seeds=asked.seeds, sites=[site.name for site in chosen], model=describe(pipe))
        clips: list[Clip] = []
        times: list[Seconds] = []
        for pair in generate_pairs(pipe, asked, profile, stages):
            joined = write_pair(run, pair)
            times.append(pair.seconds)
            if len(clips) < REPORTED_CLIPS:
                clips.append(Clip(joined, f"{pair.prompt} (seed {pair.seed})"))
        seconds = Seconds.mean(times)
        run.note(seconds_per_video=dataclasses.asdict(seconds))
        report = _report(asked, out, chosen, profile, clips, seconds, run.record)
        run.write("report.html", render_report(report))
    return chosen


def generate_pairs(
    pipe: DiffusionPipeline, asked: EnhanceRun, profile: EntropyProfile | None, stages: Stages = silent
) -> Iterator[Pair]:
    """Generate every prompt plain and enhanced, batch by batch."""
    size, total = asked.generation.batch_size, len(asked.prompts)
    for start in range(0, total, size):
        words, noise = list(asked.prompts[start : start + size]), asked.seeds[start : start + size]
        span = f"{start + 1}" if len(words) == 1 else f"{start + 1}–{start + len(words)}"
        suffix = f" {span} of {total}" if total > size else ""
        began = time.perf_counter()
        plain = generate(pipe, words, asked.generation, noise, progress=stages(f"plain{suffix}"))
        between = time.perf_counter()
        enhanced = enhance(
            pipe,
            words,
            profile=profile,
            config=asked.enhancement,
            generation=asked.generation,
            seed=noise,
            progress=stages(f"enhanced{suffix}"),
        )
        seconds = Seconds((between - began) / len(words), (time.perf_counter() - between) / len(words))
        for index, prompt in enumerate(words):
            yield Pair(f"{start + index:02d}", prompt, noise[index], plain[index], enhanced[index], seconds)


def write_pair(run: RunFolder, pair: Pair) -> bytes:
    """Write each video of a pair, its strip of frames, and both side by side; returns the last."""
    videos = {"plain": pair.plain, "enhanced": pair.enhanced}
    for label, frames in videos.items():
        run.write(f"{pair.name}-{label}.mp4", encode_video(frames))
        run.write(f"{pair.name}-{label}.png", strip(frames, count=16))
    joined = encode_video(side_by_side(videos))
    run.write(f"{pair.name}-side-by-side.mp4", joined)
    return joined


def _own_profile(pipe: DiffusionPipeline, asked: EnhanceRun, run: RunFolder, stages: Stages) -> EntropyProfile | None:
    """A quick profile of this model, saved with the run, if the choice of sites needs one."""
    if not asked.enhancement.needs_profile:
        return None
    steps = min(PROFILE_STEPS, asked.generation.num_inference_steps)
    quick = dataclasses.replace(asked.generation, num_inference_steps=steps)
    prompts = list(asked.prompts[:PROFILE_PROMPTS])
    profile = measure(pipe, prompts, quick, seed=asked.seed, progress=stages("measuring"))
    write_profile(run, profile, asked.model)
    return profile


def sites_table(chosen: Sequence[AttentionSite], profile: EntropyProfile | None) -> Table:
    """The chosen sites with their EP, where it is known."""
    ep = profile.ep if profile else {}
    rows = [
        [str(site.order), site.name, site.kind, f"{ep[site.name]:.1f}" if site.name in ep else "–"] for site in chosen
    ]
    return Table(("#", "site", "kind", "EP %"), rows, "Sites whose maps the weak branch replaced.", numeric=(0, 3))


def _report(
    asked: EnhanceRun,
    out: str | Path,
    chosen: Sequence[AttentionSite],
    profile: EntropyProfile | None,
    clips: Sequence[Clip],
    seconds: Seconds,
    record: Mapping[str, object],
) -> Report:
    config = asked.enhancement
    kinds = ", ".join(sorted({site.kind for site in chosen}))
    found = [
        f"In the weak branch the maps of {len(chosen)} attention sites ({kinds}) were replaced: {config.perturbation}. "
        f"The prediction was pushed away from that branch with scale {config.scale:g}.",
        f"A plain video took {seconds.plain:.1f} s, an enhanced one {seconds.enhanced:.1f} s "
        f"({seconds.enhanced / max(seconds.plain, 1e-9):.2f} times as long).",
        "Plain and enhanced start from the same noise. Whether enhanced is better is for measurements over many "
        "prompts to say, not for these pairs.",
    ]
    blocks = [sites_table(chosen, profile), *(profile_blocks(profile, figure_png(profile.plot())) if profile else [])]
    every = len(clips) == len(asked.prompts)
    shown = "Plain and enhanced" + ("" if every else f" (the first {len(clips)} of {len(asked.prompts)})")
    python = (
        f'import ieadapt\n\npipe = ieadapt.load("{asked.model}")\n'
        f'profile = ieadapt.EntropyProfile.load("{spoken_folder(asked.profile or out)}")\n'
        f"videos = ieadapt.enhance(\n    pipe,\n    {list(asked.prompts)},\n    profile=profile,\n"
        f"    config=ieadapt.{config},\n"
        f"    generation=ieadapt.{asked.generation},\n    seed={asked.seed},\n)"
    )
    return Report(
        title=f"Enhanced with {asked.model}",
        asked=f"{len(asked.prompts)} prompts, {asked.generation.num_inference_steps} steps, first seed {asked.seed}.",
        found=found,
        sections=[Section(shown, [Gallery(clips)]), Section("The sites", blocks)],
        repeat={"Command line": str(record["command"]), "Python": python},
        record=report_record(record),
    )
