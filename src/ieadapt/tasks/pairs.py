"""Pairs of videos of one prompt and seed, plain and changed: listed, generated, and shown side by side in a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.runs.folder import RunFolder, Stages, silent
from ieadapt.runs.report import Clip, Gallery, Picture, Section, Table
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.generate import generate

State = TypeVar("State")
Video = Float[Tensor, "frame channel height width"]
REPORTED_PAIRS = 24


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

    @property
    def caption(self) -> str:
        """Below its videos in a report."""
        return f"{self.prompt} (seed {self.seed})"


def pair_tasks(prompts: Sequence[str], seed: int, seeds: int = 1) -> list[PairTask]:
    """Every prompt with every seed, prompt after prompt; seeds count up over the prompts first, then over the repeats.

    Example:
        >>> [(task.name, task.seed) for task in pair_tasks(["a ball", "a star"], seed=5, seeds=2)]
        [('00', 5), ('01', 7), ('02', 6), ('03', 8)]
    """
    pairs = [(prompt, seed + i + repeat * len(prompts)) for i, prompt in enumerate(prompts) for repeat in range(seeds)]
    return [PairTask(f"{number:02d}", prompt, own) for number, (prompt, own) in enumerate(pairs)]


@dataclass(frozen=True)
class VideoPair(Generic[State]):
    """Two videos of one prompt from the same noise: plain, and made inside a block that changes the model.

    Attributes:
        plain: frames in [0, 1].
        changed: frames in [0, 1].
        plain_seconds: time that the plain video took; videos of one batch share its time evenly.
        changed_seconds: time that the changed video took.
        state: what the block of its batch yielded.
    """

    plain: Video = field(repr=False)
    changed: Video = field(repr=False)
    plain_seconds: float
    changed_seconds: float
    state: State


def generate_pairs(
    pipe: DiffusionPipeline,
    tasks: Sequence[PairTask],
    config: GenerationConfig,
    change: Callable[[], AbstractContextManager[State]],
    stages: Stages = silent,
    *,
    names: tuple[str, str],
) -> Iterator[VideoPair[State]]:
    """Generate the pair of every task, batch by batch.

    Args:
        pipe: any text-to-video pipeline.
        tasks: prompts and seeds.
        config: steps, size, guidance, videos of a batch.
        change: opens the block in which a batch is changed.
        stages: gets the name of each stage as it begins, and how far it is.
        names: of the two stages.
    """
    size, total = config.batch_size, len(tasks)
    for start in range(0, total, size):
        batch = tasks[start : start + size]
        prompts, seeds = [task.prompt for task in batch], [task.seed for task in batch]
        span = f"{start + 1}" if len(batch) == 1 else f"{start + 1}–{start + len(batch)}"
        plain_stage, changed_stage = (f"{name} {span} of {total}" if total > size else name for name in names)
        began = time.perf_counter()
        plain = generate(pipe, prompts, config, seeds, stages(plain_stage))
        between = time.perf_counter()
        with change() as state:
            changed = generate(pipe, prompts, config, seeds, stages(changed_stage))
        seconds = (between - began) / len(batch), (time.perf_counter() - between) / len(batch)
        for one, other in zip(plain, changed, strict=True):
            yield VideoPair(one, other, *seconds, state)


def pairs_sections(title: str, tasks: Sequence[PairTask], run: RunFolder, strips: str) -> list[Section]:
    """The first pairs of a run for its report: both videos side by side, then their frames.

    Args:
        title: of the first section.
        tasks: the pairs, whose files `NAME-side-by-side.mp4` are shown.
        run: where they are.
        strips: how the name of a pair's picture of frames ends.
    """
    shown = tasks[:REPORTED_PAIRS]
    clips = [Clip((run.path / f"{task.name}-side-by-side.mp4").read_bytes(), task.caption) for task in shown]
    more = "" if len(shown) == len(tasks) else f" (the first {len(shown)} of {len(tasks)})"
    about = "frames of both videos, one row below the other"
    frames = [Picture((run.path / f"{task.name}-{strips}").read_bytes(), task.caption, about, 560) for task in shown]
    return [Section(f"{title}{more}", [Gallery(clips)]), Section("Frame by frame", frames)]


def scores_table(
    labels: Mapping[str, Sequence[str]],
    scores: Sequence[Mapping[str, int | float | None]],
    columns: Mapping[str, tuple[str, str]],
    caption: str,
) -> Table:
    """Scores of videos, one row each; of the columns those that any video has a score for.

    Args:
        labels: heading -> what is said of each video before its scores.
        scores: of each video, by name.
        columns: name of a score -> heading and format.
        caption: what the table says, with units.

    Example:
        >>> scores_table({"prompt": ["a ball"]}, [{"psnr": 20.123}], {"psnr": ("PSNR dB", ".1f")}, "").rows
        [['a ball', '20.1']]
    """
    shown = {name: column for name, column in columns.items() if any(name in each for each in scores)}
    rows = [list(row) for row in zip(*labels.values(), strict=True)]
    for row, each in zip(rows, scores, strict=True):
        row += ["–" if (value := each.get(name)) is None else format(value, form) for name, (_, form) in shown.items()]
    headings = (*labels, *(heading for heading, _ in shown.values()))
    return Table(headings, rows, caption, numeric=range(len(labels), len(headings)))
