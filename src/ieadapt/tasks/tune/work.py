"""The work of a tune: time a pass and measure the model once, then make and score videos."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from diffusers import DiffusionPipeline

from ieadapt.attention import AttentionSite, find_sites
from ieadapt.errors import UsageError
from ieadapt.files import read_record, record_text
from ieadapt.metrics import evaluate
from ieadapt.runs.cells import CellRow, CellWork
from ieadapt.runs.shared_files import fingerprint, write_whole
from ieadapt.runs.videos import encode_video
from ieadapt.tasks.enhance.method import enhancement
from ieadapt.tasks.generate import generate
from ieadapt.tasks.measure.method import quick_profile, refuse_another_model
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.price import time_passes
from ieadapt.tasks.scores import scores_on_testbed
from ieadapt.tasks.tune.arms import Arm, default_candidates, guided
from ieadapt.tasks.tune.config import TuneRun
from ieadapt.tasks.tune.method import halves

PRICE, CLIPS = "price.json", "clips"
SHOWN = 24
"""Prompts of the second half whose pairs are kept for the blind comparison."""


@dataclass(frozen=True)
class Video:
    """One video that is made and scored; some are kept, for the blind comparison."""

    arm: Arm
    prompt: str
    seed: int
    keep: bool = False


@dataclass(frozen=True)
class TuneWork(CellWork):
    """What a worker of a tune has to know, and how it makes what `run_tune` gives out."""

    request: TuneRun
    own_candidates: tuple[Arm, ...] | None = None

    @cached_property
    def first_half(self) -> list[str]:
        """The prompts on which candidates are raced."""
        return halves(self.request.prompts)[0]

    @cached_property
    def seconds(self) -> float:
        """Of a step of one video, both guidance branches."""
        return float(self._price["seconds"])

    @cached_property
    def candidates(self) -> list[Arm]:
        """What is raced, before a budget says how many."""
        if self.own_candidates is not None:
            return list(self.own_candidates)
        sites = [AttentionSite(**site) for site in self._price["sites"]]
        screened = EntropyProfile.load(self.folder).effects is not None
        generation = self.request.generation
        listed = default_candidates(sites, screened=screened, guidance=guided(generation))
        acting = [arm for arm in listed if arm.acts_in(generation.num_inference_steps)]
        return acting[: self.request.tune.candidates]

    @cached_property
    def _price(self) -> dict[str, Any]:
        schema = {"seconds": float, "sites": list[AttentionSite]}
        return read_record(self.folder / PRICE, schema, what="the price", remedy="remove it and repeat")

    def prepare(self, pipe: DiffusionPipeline, items: Mapping[str, None]) -> None:
        """Measure the model, unless a profile is given, and time a pass."""
        request, sites = self.request, find_sites(pipe)
        if request.profile is None:
            profile = quick_profile(pipe, self.first_half, request.generation, seed=request.seed)
            profile.metadata["model"] = request.model
        else:
            profile = EntropyProfile.load(request.profile)
            refuse_another_model(profile, pipe, sites)
        profile.save(self.folder)
        times = time_passes(pipe, request.prompts[0], request.generation)
        listed = [vars(site) for site in sites]
        content = {"seconds": times.seconds / request.generation.batch_size, "sites": listed}
        write_whole(self.folder / PRICE, record_text(content).encode())

    def identity(self, video: Video) -> dict[str, Any]:
        """Everything that a video depends on."""
        metrics = [self.request.tune.metric, *self.request.tune.guards]
        own = {"prompt": video.prompt, "seed": video.seed, "metrics": ",".join(metrics)}
        return {**self.request.shared, **video.arm.identity, **own}

    def key(self, video: Video) -> str:
        """The name of a video's files."""
        return fingerprint(self.identity(video))

    def make(self, pipe: DiffusionPipeline, items: Mapping[str, Video]) -> None:
        """Make and score the videos of one arm."""
        videos = self.cells.missing(items)
        if not videos:
            return
        arm, prompts = next(iter(videos.values())).arm, [video.prompt for video in videos.values()]
        seeds = [video.seed + arm.shift for video in videos.values()]
        with contextlib.ExitStack() as stack:
            if arm.enhance is not None:
                stack.enter_context(enhancement(pipe, arm.enhance, EntropyProfile.load(self.folder)))
            made = generate(pipe, prompts, arm.generation(self.request.generation), seeds)
        tune = self.request.tune
        truth = scores_on_testbed(self.model, made, prompts, pipe.device) if tune.of_testbed else [{} for _ in prompts]
        names = [name for name in (tune.metric, *tune.guards) if not name.startswith("testbed_")]
        for (key, video), frames, scores in zip(videos.items(), made, truth, strict=True):
            values = {**scores, **(evaluate(frames, None, names, prompt=video.prompt) if names else {})}
            if tune.metric not in values:
                raise UsageError(
                    "this video has no such score",
                    expected="a bundled model, and a caption of its world",
                    got=f"{tune.metric} of {video.prompt!r}",
                    remedy="choose another --metric",
                )
            if video.keep:
                write_whole(self.folder / CLIPS / f"{key}.mp4", encode_video(frames))
            self.cells.write(CellRow(self.identity(video), values))
