"""The settings of the benchmarks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from ieadapt.errors import UsageError
from ieadapt.runs.flags import setting
from ieadapt.runs.settings import Hardware, PromptRun, SourceConfig, check_seeds
from ieadapt.runs.shared_files import fingerprint
from ieadapt.tasks.edit.config import Sampling, edit_preset
from ieadapt.tasks.enhance.config import EnhanceConfig

METRICS = "psnr,ssim,warp_error,flicker,motion"
LONGEST_NAME = 255


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
class VBenchRun(PromptRun):
    """The settings of a run that makes VBench's videos, beside those of every run with prompts (VBench's list of them).

    Attributes:
        samples: videos per prompt, whose seeds count up prompt after prompt.
        enhancement: how the enhanced videos are made.
        profile: folder of a measure run; without one, and where the sites need it, the model is measured first.
        engine: local or ray.
        workers: how many; None for one per GPU or core.

    Raises:
        UsageError: no prompt, a blank one, the same one twice, one that makes no file name, or no sample.
    """

    samples: int = setting(5, "videos per prompt; VBench asks for 5, 25 for its flickering")
    enhancement: EnhanceConfig = field(default_factory=EnhanceConfig)
    profile: Path | None = setting(None, "folder of a measure run; without one it measures")
    engine: str = setting("local", "local or ray")
    workers: int | None = setting(None, "workers; by default one per GPU or core")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seeds(self.seed, len(self.prompts) * self.samples)
        if self.samples < 1:
            raise UsageError("a prompt needs videos", expected="--samples >= 1", got=self.samples)
        twice = [prompt for prompt in dict.fromkeys(self.prompts) if self.prompts.count(prompt) > 1]
        if twice:
            raise UsageError("a prompt is listed twice, and its videos would have one name", got=repr(twice[0]))
        for prompt in self.prompts:
            if "/" in prompt or len(f"{prompt}-{self.samples - 1}.mp4".encode()) > LONGEST_NAME:
                raise UsageError(
                    "VBench names videos by their prompt, and this one makes no file name",
                    expected=f"no '/', at most {LONGEST_NAME} bytes",
                    got=repr(prompt),
                )

    @property
    def jobs(self) -> list[VideoJob]:
        """Every video, with its name and seed."""
        return [
            VideoJob(prompt, self.seed + index * self.samples + sample, f"{prompt}-{sample}.mp4")
            for index, prompt in enumerate(self.prompts)
            for sample in range(self.samples)
        ]


@dataclass(frozen=True)
class V2VConfig:
    """How an editing benchmark is run.

    Attributes:
        videos: folder of the source videos.
        methods: names of presets, with commas.
        metrics: names, with commas.
        weights: see `read_places`.
        sampling: steps and size.
        source: which frames of the videos are taken.
        engine: local or ray.
        workers: how many; None for one per GPU or core.
        cache: folder in which inversions are kept.
        hardware: device and precision.

    Raises:
        UsageError: a method is unknown, or none is named.
    """

    videos: Path | None = setting(None, "folder of the source videos; by default the list's")
    methods: str = setting("default", "presets of the editor, with commas")
    metrics: str = setting(METRICS, "names with commas; `all` for all that can run")
    weights: str | None = setting(None, "weights of CLIP, RAFT, ...: a folder of them, or clip=PLACE,raft=PLACE")
    sampling: Sampling = field(default_factory=Sampling)
    source: SourceConfig = field(default_factory=SourceConfig)
    engine: str = setting("local", "local or ray")
    workers: int | None = setting(None, "workers; by default one per GPU or core")
    cache: Path | None = setting(None, "folder in which inversions are kept")
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        if not self.presets:
            raise UsageError("the choice of methods is empty", remedy="pass --methods default")
        for name in self.presets:
            edit_preset(name)

    @property
    def presets(self) -> tuple[str, ...]:
        """The methods, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.methods.split(",") if name.strip()))
