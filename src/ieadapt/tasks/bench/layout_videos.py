"""Many videos in folders laid out as a benchmark wants them: made by workers, each kept as it is finished."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.runs.shared_files import FileRecord, fingerprint
from ieadapt.runs.videos import encode_video
from ieadapt.runs.workers import Work
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhance
from ieadapt.tasks.generate import GenerationConfig, generate
from ieadapt.tasks.measure.profile import EntropyProfile

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

    @property
    def key(self) -> str:
        """Under which it is locked."""
        return fingerprint(dataclasses.asdict(self))


@dataclass(frozen=True)
class LayoutWork(Work):
    """What a worker has to know to make the videos, and how it makes them.

    Attributes:
        generation: steps, size, guidance.
        ways: name of a folder -> how its videos are enhanced; None for plain ones.
    """

    generation: GenerationConfig
    ways: tuple[tuple[str, EnhanceConfig | None], ...]

    def missing(self, job: VideoJob) -> list[str]:
        """The ways whose video of a job is gone or is not what was written."""
        record = FileRecord(self.folder, job.key)
        return [way for way, _ in self.ways if not record.holds(self.folder / way / job.name)]

    def make(self, pipe: DiffusionPipeline, items: Mapping[str, VideoJob]) -> None:
        """Make what is missing of some jobs, in batches that share a way."""
        for way, config in self.ways:
            jobs = [job for job in items.values() if way in self.missing(job)]
            if jobs:
                for job, frames in zip(jobs, self._videos(pipe, jobs, config), strict=True):
                    path = self.folder / way / job.name
                    FileRecord(self.folder, job.key).write({path: encode_video(frames)})

    def _videos(
        self, pipe: DiffusionPipeline, jobs: Sequence[VideoJob], config: EnhanceConfig | None
    ) -> Float[Tensor, "video frame channel height width"]:
        prompts, seeds = [job.prompt for job in jobs], [job.seed for job in jobs]
        generation = dataclasses.replace(self.generation, batch_size=len(jobs))
        if config is None:
            return generate(pipe, prompts, generation, seeds)
        # the sites may be chosen by entropy; then the run has put the model's profile there
        path = self.folder / PROFILE
        profile = EntropyProfile.load(path) if path.is_dir() else None
        return enhance(pipe, prompts, profile=profile, config=config, generation=generation, seed=seeds)
