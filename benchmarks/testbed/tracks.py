"""The two halves of the benchmark: generation and editing, each with its scenes, methods, marks and order of work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from diffusers import DiffusionPipeline

from benchmarks.testbed.editing import EDIT_METHODS, PairEditor
from benchmarks.testbed.generating import VARIANTS
from benchmarks.testbed.passes import counted_passes
from benchmarks.testbed.scenes import bench_pairs, bench_scenes
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.demo.edit import score_edit
from ieadapt.tasks.evaluate.tables import MEASURES
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.testbed import score_scenes

Row = dict[str, Any]
Share = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of methods and of scenes: every one of the first on every one of the second."""


@dataclass(frozen=True)
class Place:
    """What methods run on.

    Attributes:
        pipe: the pipeline.
        generation: settings of plain generation.
        profile: of the model, where a method asks for one.
    """

    pipe: DiffusionPipeline
    generation: GenerationConfig
    profile: EntropyProfile | None

    @cached_property
    def editor(self) -> PairEditor:
        """An editor, which keeps the inversions of the pair at hand."""
        return PairEditor(self.pipe, self.generation, self.profile)


@runtime_checkable
class Track(Protocol):
    """One half of the benchmark."""

    @property
    def name(self) -> str:
        """As on the command line."""
        ...

    @property
    def steps(self) -> int:
        """Denoising steps by default."""
        ...

    @property
    def measures(self) -> Mapping[str, tuple[str, str]]:
        """Mark -> unit and direction of better."""
        ...

    @property
    def leading(self) -> str:
        """The mark by which the best plain setting is chosen."""
        ...

    @property
    def note(self) -> str:
        """What a reader must know of the marks."""
        ...

    @property
    def methods(self) -> Mapping[str, Any]:
        """Method by name; each has a `group` and `needs_profile`."""
        ...

    def scenes(self, number: int) -> list[str]:
        """Names of the first scenes."""
        ...

    def shares(self, missing: Mapping[str, Sequence[str]], size: int) -> Iterator[Share]:
        """Method -> scenes that are not done, as pieces of work of about so many videos."""
        ...

    def rows(self, place: Place, method: str, scenes: Sequence[str], number: int) -> list[Row]:
        """Do a method on some of the first so many scenes: one row per scene."""
        ...


@dataclass(frozen=True)
class Generation:
    """Captions to videos, marked against the scene that the caption describes."""

    name: str = "generation"
    steps: int = 12
    leading: str = "accuracy"
    note: str = (
        "Accuracy is the mean of eight components: does the video show what its caption says. Fit (dB) is the PSNR to "
        "the scene that explains the video best; detail, constancy and flicker (255ths) are measured beside it."
    )

    @property
    def measures(self) -> Mapping[str, tuple[str, str]]:
        """The scorer's."""
        return MEASURES

    @property
    def methods(self) -> Mapping[str, Any]:
        """Variants."""
        return VARIANTS

    def scenes(self, number: int) -> list[str]:
        """Names of captions."""
        return [scene.name for scene in bench_scenes(number)]

    def shares(self, missing: Mapping[str, Sequence[str]], size: int) -> Iterator[Share]:
        """One method on a batch of scenes."""
        for method, scenes in missing.items():
            for start in range(0, len(scenes), size):
                yield (method,), tuple(scenes[start : start + size])

    def rows(self, place: Place, method: str, scenes: Sequence[str], number: int) -> list[Row]:
        """Generate and mark a batch."""
        by_name = {scene.name: scene for scene in bench_scenes(number)}
        batch = [by_name[name] for name in scenes]
        prompts, seeds = [scene.caption for scene in batch], [scene.seed for scene in batch]
        variant = VARIANTS[method]
        with counted_passes(place.pipe) as passes:
            videos = variant.videos(place.pipe, prompts, seeds, place.generation, place.profile)
        run = {"method": method, "steps": variant.generation(place.generation).num_inference_steps}
        run["passes"] = passes.rows / len(batch)
        return [
            {"scene": scene.name, **run, **score.as_dict()}
            for scene, score in zip(batch, score_scenes(videos, prompts), strict=True)
        ]


@dataclass(frozen=True)
class Editing:
    """Scenes to the same scenes with one thing changed, marked against the perfect edit."""

    name: str = "editing"
    steps: int = 25
    leading: str = "psnr"
    note: str = (
        "PSNR (dB) and SSIM to the perfect edit; kept (dB) is PSNR where that changes nothing; change is the mark of "
        "the change, success the share of edits in which it is seen, preserved the mean mark of the others. "
        "Passes include those of the inversion."
    )

    @property
    def measures(self) -> Mapping[str, tuple[str, str]]:
        """The marks of an edit."""
        units = {"psnr": "dB", "ssim": "", "kept": "dB", "change": "", "success": "", "preserved": ""}
        return {name: (unit, "higher") for name, unit in units.items()}

    @property
    def methods(self) -> Mapping[str, Any]:
        """Edit methods."""
        return EDIT_METHODS

    def scenes(self, number: int) -> list[str]:
        """Names of pairs."""
        return [pair.name for pair in bench_pairs(number)]

    def shares(self, missing: Mapping[str, Sequence[str]], size: int) -> Iterator[Share]:
        """All methods on one pair, since they share its inversions."""
        by_scene: dict[str, list[str]] = defaultdict(list)
        for method, scenes in missing.items():
            for scene in scenes:
                by_scene[scene].append(method)
        yield from ((tuple(methods), (scene,)) for scene, methods in by_scene.items())

    def rows(self, place: Place, method: str, scenes: Sequence[str], number: int) -> list[Row]:
        """Edit and mark pairs."""
        by_name = {pair.name: pair for pair in bench_pairs(number)}
        rows = []
        for pair in (by_name[name] for name in scenes):
            frames, facts = EDIT_METHODS[method].make(place.editor, pair)
            identity = {"scene": pair.name, "method": method, "steps": place.generation.num_inference_steps}
            rows.append({**identity, "kind": pair.kind, **facts, **score_edit(frames, pair).as_dict()})
        return rows


TRACKS: Mapping[str, Track] = {track.name: track for track in (Generation(), Editing())}
"""Both halves, by name."""
