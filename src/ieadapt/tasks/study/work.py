"""The work of a study: settle its conditions, make the unperturbed videos, make and measure the perturbed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from ieadapt.attention import find_sites, first_denoiser
from ieadapt.errors import FailureError, UsageError
from ieadapt.metrics import Metric, evaluate, select_metrics
from ieadapt.runs.cells import CellRow, CellWork
from ieadapt.tasks.measure.method import measure
from ieadapt.tasks.scores import scores_on_testbed
from ieadapt.tasks.study.folder import StudyFolder
from ieadapt.tasks.study.grid import Cell, Setting, conditions
from ieadapt.tasks.study.videos import (
    Baseline,
    Strip,
    first_step,
    make_baselines,
    make_perturbed,
    to_strip_frames,
    write_baseline,
    write_strip,
)

PROFILE_PROMPTS = 8
"""Entropy and energy are means over so many of the prompts."""


@dataclass(frozen=True)
class StudyWork(CellWork):
    """What a worker of a study has to know, and how it makes what `study.run` gives out.

    Attributes:
        setting: what the study is of.
        strips: how many prompts have frames kept for the figures.
    """

    setting: Setting
    strips: int = 1

    @cached_property
    def _files(self) -> StudyFolder:
        return StudyFolder(self.folder)

    @cached_property
    def _metrics(self) -> list[Metric]:
        return select_metrics(list(self.setting.metrics))

    @cached_property
    def _baseline_values(self) -> dict[str, dict[str, float]]:
        """What was measured of each baseline alone, by its key."""
        return {}

    def check_folder(self) -> None:
        """Every worker must see the study; on another machine the folder may be another one, or not there.

        Raises:
            FailureError: this machine does not see it.
        """
        try:
            recorded = self._files.record()["asked"]
        except UsageError as error:
            remedy = "put the study on a file system that all machines share"
            problem = "a worker does not see the study"
            raise FailureError(problem, got=error.problem, where=self.folder, remedy=remedy) from error
        if recorded["weights_hash"] != self.setting.weights_hash:
            raise FailureError("a worker sees another study in this folder", where=self.folder)

    def pipeline(self, given: DiffusionPipeline | None = None) -> DiffusionPipeline:
        """The pipeline; it must compute in the precision in which the study began."""
        pipe = super().pipeline(given)
        began, own = self._files.grid()[1].get("dtype") if self._files.has_grid() else None, _precision(pipe)
        if began not in (None, own):
            remedy = f"add --dtype {began}"
            raise UsageError("the study began in another precision", expected=began, got=own, remedy=remedy)
        return pipe

    def settle(self, pipe: DiffusionPipeline, items: Mapping[str, None]) -> None:
        """Measure the model's entropy profile, and settle the conditions of the study."""
        if self._files.has_grid():
            return
        study, generation = self.setting.study, self.setting.generation
        profile = measure(pipe, self.setting.prompts[:PROFILE_PROMPTS], generation, seed=study.seed)
        profile.metadata["model"] = self.setting.model
        notes = {
            "dtype": _precision(pipe),
            "scheduler": type(pipe.scheduler).__name__,
            "runs_begin_at_step": first_step(pipe, study, generation),
        }
        self._files.write_grid(conditions(study, find_sites(pipe), profile.ep), profile, notes)

    def make_baselines(self, pipe: DiffusionPipeline, items: Mapping[str, tuple[str, int]]) -> None:
        """Make the unperturbed videos of some prompts and seeds, but for those that are there and sound."""
        self._baselines(pipe, items)

    def make_cells(self, pipe: DiffusionPipeline, items: Mapping[str, Cell]) -> None:
        """Make the perturbed videos of some cells of one condition as one batch, measure them, and store the cells."""
        cells = self.cells.missing(items)
        if not cells:
            return
        setting, condition = self.setting, next(iter(cells.values())).condition
        pairs = {setting.baseline_key(cell.prompt, cell.seed): (cell.prompt, cell.seed) for cell in cells.values()}
        baselines = self._baselines(pipe, pairs)
        videos = make_perturbed(pipe, condition, list(pairs.values()), baselines, setting.study, setting.generation)
        self._score_baselines(pipe, pairs, baselines)
        scores = scores_on_testbed(self.model, videos, [cell.prompt for cell in cells.values()], pipe.device)
        made = zip(cells.items(), pairs, videos, baselines, scores, strict=True)
        for (key, cell), baseline_key, video, baseline, scored in made:
            self._write_strip(key, video, cell.prompt, cell.seed, **condition.columns)
            before = self._baseline_values[baseline_key]
            values = evaluate(video, baseline.frames, self._metrics, reference_values=before)
            values |= scored | {f"{name}_change": value - before[name] for name, value in scored.items()}
            self.cells.write(CellRow(setting.identity(cell), {name: float(value) for name, value in values.items()}))

    def _baselines(self, pipe: DiffusionPipeline, pairs: Mapping[str, tuple[str, int]]) -> list[Baseline]:
        """The unperturbed videos of some prompts and seeds; missing ones are made, and damaged ones again."""
        stored = {key: self._files.baseline(key) for key in pairs}
        missing = {key: pair for key, pair in pairs.items() if stored[key] is None}
        if missing:
            made = make_baselines(pipe, list(missing.values()), self.setting.study, self.setting.generation)
            for (key, pair), baseline in zip(missing.items(), made, strict=True):
                self._write_strip(key, baseline.frames, *pair)
                write_baseline(self._files.baseline_path(key), baseline)
                stored[key] = baseline
        return [baseline for baseline in stored.values() if baseline is not None]

    def _score_baselines(
        self, pipe: DiffusionPipeline, pairs: Mapping[str, tuple[str, int]], baselines: Sequence[Baseline]
    ) -> None:
        """Measure the unperturbed videos that were not measured yet."""
        new = {key: each.frames for key, each in zip(pairs, baselines, strict=True) if key not in self._baseline_values}
        if new:
            single = [metric for metric in self._metrics if metric.compares in ("single", "timed")]
            prompts = [pairs[key][0] for key in new]
            scores = scores_on_testbed(self.model, torch.stack(list(new.values())), prompts, pipe.device)
            for (key, frames), scored in zip(new.items(), scores, strict=True):
                self._baseline_values[key] = {**evaluate(frames, None, single), **scored}

    def _write_strip(self, key: str, frames: Tensor, prompt: str, seed: int, **condition: Any) -> None:
        if prompt in self.setting.prompts[: self.strips] and seed == self.setting.study.seed:
            write_strip(self.folder, key, Strip(to_strip_frames(frames), prompt, seed, **condition))


def _precision(pipe: DiffusionPipeline) -> str:
    """The number type in which a pipeline's denoiser computes."""
    return str(next(first_denoiser(pipe).parameters()).dtype).removeprefix("torch.")
