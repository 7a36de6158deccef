"""The videos of an enhance run: plain and enhanced from the same noise, batch by batch, kept as they are finished."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.files import read_record, record_text
from ieadapt.runs.folder import RunFolder, Stages, silent, versions
from ieadapt.runs.videos import encode_video, side_by_side, strip
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from ieadapt.tasks.enhance.record import Enhancement
from ieadapt.tasks.generate import GenerationConfig, generate
from ieadapt.tasks.measure.profile import EntropyProfile

Video = Float[Tensor, "frame channel height width"]


@dataclass(frozen=True)
class Seconds:
    """Time per video, in seconds, plain and enhanced."""

    plain: float
    enhanced: float

    @classmethod
    def mean(cls, times: Sequence[Seconds]) -> Seconds:
        """The mean over videos."""
        return cls(*(sum(getattr(each, name) for each in times) / len(times) for name in ("plain", "enhanced")))


@dataclass(frozen=True)
class PairTask:
    """One prompt and seed: a pair of videos to be made.

    Attributes:
        name: in the names of its files.
        prompt: what the videos show.
        seed: of their noise.
    """

    name: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class Pair(PairTask):
    """One prompt and seed, plain and enhanced.

    Attributes:
        plain: frames in [0, 1].
        enhanced: frames in [0, 1].
        seconds: time that each took; videos of one batch share its time evenly.
    """

    plain: Video = field(repr=False, kw_only=True)
    enhanced: Video = field(repr=False, kw_only=True)
    seconds: Seconds = field(kw_only=True)


def pair_tasks(prompts: Sequence[str], seed: int, seeds: int) -> list[PairTask]:
    """Every prompt with every seed, prompt after prompt; seeds count up over the prompts first, then over the repeats.

    Example:
        >>> [(task.name, task.seed) for task in pair_tasks(["a ball", "a star"], seed=5, seeds=2)]
        [('00', 5), ('01', 7), ('02', 6), ('03', 8)]
    """
    pairs = [(prompt, seed + i + repeat * len(prompts)) for i, prompt in enumerate(prompts) for repeat in range(seeds)]
    return [PairTask(f"{number:02d}", prompt, own) for number, (prompt, own) in enumerate(pairs)]


@dataclass
class Cost:
    """What enhancement has cost in a run: sums over its batches."""

    passes: int = 0
    weak_passes: int = 0
    blocks_replayed: int = 0
    blocks_computed: int = 0
    weak_seconds: float = 0.0
    seconds_saved: float = 0.0

    def add(self, told: Mapping[str, Any]) -> None:
        """Count one more batch, from `Enhancement.as_dict`."""
        for each in dataclasses.fields(self):
            setattr(self, each.name, round(getattr(self, each.name) + told[each.name], 3))

    def sentence(self) -> str:
        """What prefix reuse spared, in words; empty where there was nothing to spare."""
        blocks = self.blocks_replayed + self.blocks_computed
        if not blocks:
            return ""
        took = f"{self.weak_passes} weak pass{'es' * (self.weak_passes != 1)} took {self.weak_seconds:.1f} s"
        if not self.blocks_replayed:
            return f"{took}. No block comes before the first changed site, so none was replayed."
        return (
            f"{took}. {self.blocks_replayed} of {blocks} blocks were replayed, since the pass before had computed "
            f"them: about {self.seconds_saved:.1f} s were saved."
        )


def generate_pairs(
    pipe: DiffusionPipeline,
    tasks: Sequence[PairTask],
    generation: GenerationConfig,
    config: EnhanceConfig,
    profile: EntropyProfile | None,
    stages: Stages = silent,
    *,
    force: bool = False,
) -> Iterator[tuple[Pair, Enhancement]]:
    """Generate every pair, batch by batch; with each pair comes what the enhancement of its batch told."""
    size, total = generation.batch_size, len(tasks)
    for start in range(0, total, size):
        batch = tasks[start : start + size]
        words, noise = [task.prompt for task in batch], [task.seed for task in batch]
        span = f"{start + 1}" if len(batch) == 1 else f"{start + 1}–{start + len(batch)}"
        suffix = f" {span} of {total}" if total > size else ""
        began = time.perf_counter()
        plain = generate(pipe, words, generation, noise, progress=stages(f"plain{suffix}"))
        between = time.perf_counter()
        with enhancement(pipe, config, profile, force=force) as told:
            enhanced = generate(pipe, words, generation, noise, progress=stages(f"enhanced{suffix}"))
        seconds = Seconds((between - began) / len(batch), (time.perf_counter() - between) / len(batch))
        for index, task in enumerate(batch):
            videos = {"plain": plain[index], "enhanced": enhanced[index]}
            yield Pair(task.name, task.prompt, task.seed, **videos, seconds=seconds), told


def pair_files(name: str) -> list[str]:
    """The names of a pair's files: each video and its strip, and both side by side."""
    return [f"{name}-{each}" for each in ("plain.mp4", "plain.png", "enhanced.mp4", "enhanced.png", "side-by-side.mp4")]


def write_pair(run: RunFolder, pair: Pair, key: str = "") -> bytes:
    """Write each video of a pair, its strip, both side by side, and last the pair's record; returns the joint video."""
    videos = {"plain": pair.plain, "enhanced": pair.enhanced}
    joined = encode_video(side_by_side(videos))
    contents = [part for frames in videos.values() for part in (encode_video(frames), strip(frames, count=16))]
    for name, content in zip(pair_files(pair.name), [*contents, joined], strict=True):
        run.write(name, content)
    if key:
        told = {"key": key, "prompt": pair.prompt, "seed": pair.seed, "seconds": dataclasses.asdict(pair.seconds)}
        run.write(f"{pair.name}.json", record_text(told))
    return joined


def finished(run: RunFolder, task: PairTask, key: str) -> Seconds | None:
    """The times of a pair that an earlier run has finished.

    None where it must be made: there is no record of it, or a file of it is gone or was changed.
    """
    record = f"{task.name}.json"
    if not run.holds(record, *pair_files(task.name)):
        return None
    try:
        told = read_record(run.path / record, {"key": str, "seconds": Seconds}, what="a pair", remedy="make it again")
    except UsageError:
        return None
    return Seconds(**told["seconds"]) if told["key"] == key else None


def pair_key(
    model: str, task: PairTask, generation: GenerationConfig, config: EnhanceConfig, profile: EntropyProfile | None
) -> str:
    """A hash of all that decides about a pair of videos; how many run as a batch does not."""
    said = [
        model,
        task.prompt,
        task.seed,
        dataclasses.asdict(dataclasses.replace(generation, batch_size=1)),
        dataclasses.asdict(config),
        None if profile is None else sorted((name, round(ep, 6)) for name, ep in profile.ep.items()),
        versions(),
    ]
    return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()[:16]
