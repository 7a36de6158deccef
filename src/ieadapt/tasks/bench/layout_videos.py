"""Many videos in folders laid out as a benchmark wants them: made by workers, each kept as it is finished."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import IEAdaptError
from ieadapt.files import sweep
from ieadapt.runs.fingerprints import StorageError, fingerprint, write_whole
from ieadapt.runs.leases import STALE_SECONDS, Claims
from ieadapt.runs.videos import encode_video
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhance
from ieadapt.tasks.generate import GenerationConfig, generate
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.study.folder import StudyFolder
from ieadapt.tasks.study.worker import Outcome, WorkPlan, within_memory

PROFILE = "profile"


@dataclass(frozen=True)
class VideoJob:
    """One prompt and seed, a video for every way of making it.

    Attributes:
        prompt: what the video shows.
        seed: of its noise, the same for every way.
        name: of its file in the folder of each way.
    """

    prompt: str
    seed: int
    name: str


@dataclass(frozen=True)
class LayoutPlan(WorkPlan):
    """What a worker has to know to make the videos.

    Attributes:
        generation: steps, size, guidance.
        ways: name of a folder -> how its videos are enhanced; None for plain ones.
    """

    generation: GenerationConfig
    ways: tuple[tuple[str, EnhanceConfig | None], ...]

    def bench(self, owner: str | None = None, pipe: DiffusionPipeline | None = None) -> LayoutBench:
        """A bench that makes them."""
        return LayoutBench(self, owner, pipe)

    def missing(self, job: VideoJob) -> list[str]:
        """The ways whose video of a job is not there."""
        return [way for way, _ in self.ways if not (self.folder / way / job.name).is_file()]


class LayoutBench:
    """A pipeline and a folder.

    Args:
        plan: what to work on.
        owner: the name under which work is claimed.
        pipe: the pipeline, where it is at hand; else it is loaded when it is first needed.
    """

    def __init__(self, plan: LayoutPlan, owner: str | None, pipe: DiffusionPipeline | None) -> None:
        self.plan, self._given = plan, pipe
        self.claims = Claims(StudyFolder(plan.folder).claims_path, owner)

    @contextmanager
    def open(self) -> Iterator[LayoutBench]:
        """Keep claims alive while the block is open, and give them back at its end."""
        if self.plan.threads:
            torch.set_num_threads(self.plan.threads)
        with self.claims.kept_alive():
            yield self

    @cached_property
    def pipe(self) -> DiffusionPipeline:
        """The pipeline."""
        return self._given if self._given is not None else self.plan.hardware.load(self.plan.load_from)

    @cached_property
    def profile(self) -> EntropyProfile | None:
        """The model's entropy profile, where the choice of sites needs one."""
        place = self.plan.folder / PROFILE
        return EntropyProfile.load(place) if place.is_dir() else None

    def make(self, jobs: Sequence[VideoJob]) -> None:
        """Make what is missing of some jobs, in batches that share a way."""
        for way, config in self.plan.ways:
            lacking = [job for job in jobs if way in self.plan.missing(job)]
            if lacking:
                with within_memory(len(lacking)):
                    videos = self._videos(lacking, config)
                for job, frames in zip(lacking, videos, strict=True):
                    write_whole(self.plan.folder / way / job.name, encode_video(frames))

    def _videos(
        self, jobs: Sequence[VideoJob], config: EnhanceConfig | None
    ) -> Float[Tensor, "video frame channel height width"]:
        prompts, seeds = [job.prompt for job in jobs], [job.seed for job in jobs]
        generation = dataclasses.replace(self.plan.generation, batch_size=len(jobs))
        if config is None:
            return generate(self.pipe, prompts, generation, seeds)
        return enhance(self.pipe, prompts, profile=self.profile, config=config, generation=generation, seed=seeds)


@dataclass(frozen=True)
class MakeVideos:
    """Make the videos of some jobs, as one batch per way."""

    jobs: tuple[VideoJob, ...]

    def run(self, bench: LayoutBench) -> Outcome:
        """Make those that are missing and that no other process is making."""
        keys: Mapping[str, VideoJob] = {fingerprint(dataclasses.asdict(job)): job for job in self.jobs}
        taken = [key for key in keys if bench.claims.take(key)]
        try:
            bench.make([keys[key] for key in taken])
        except StorageError:
            raise
        except IEAdaptError as error:
            return Outcome(failed=tuple((keys[key].name, str(error)) for key in taken))
        finally:
            for key in taken:
                bench.claims.release(key)
        return Outcome(len(taken), len(keys) - len(taken))


def batches(jobs: Sequence[VideoJob], size: int) -> list[MakeVideos]:
    """The jobs in tasks of at most so many.

    Example:
        >>> [len(task.jobs) for task in batches([VideoJob("a ball", seed, f"{seed}.mp4") for seed in range(5)], 2)]
        [2, 2, 1]
    """
    return [MakeVideos(tuple(jobs[start : start + size])) for start in range(0, len(jobs), size)]


def removed_leftovers(folder: Path) -> None:
    """Remove what killed processes left of files and claims; videos stay."""
    Claims(StudyFolder(folder).claims_path).sweep()
    sweep(folder, STALE_SECONDS)
