"""The three kinds of work of a study: settle its grid, make the unperturbed videos, make and measure perturbed ones."""

from __future__ import annotations

from dataclasses import dataclass

from ieadapt.attention import find_sites
from ieadapt.tasks.measure.method import measure
from ieadapt.tasks.study.grid import Cell, conditions
from ieadapt.tasks.study.late_start import can_start_late
from ieadapt.tasks.study.worker import Bench, Outcome, attempt, number_type

PROFILE_PROMPTS = 8
"""Entropy and energy are means over so many of the prompts."""


@dataclass(frozen=True)
class Settle:
    """Measure the model's entropy profile and settle the conditions of the study."""

    def run(self, bench: Bench) -> Outcome:
        """Do it, unless it is done or another process does it."""
        if bench.folder.has_grid():
            return Outcome(done=1)
        if not bench.claims.take("grid"):
            return Outcome(elsewhere=1)
        try:
            if not bench.folder.has_grid():
                self._settle(bench)
        finally:
            bench.claims.release("grid")
        return Outcome(done=1)

    def _settle(self, bench: Bench) -> None:
        setting, pipe = bench.plan.setting, bench.pipe
        prompts = bench.plan.prompts[:PROFILE_PROMPTS]
        profile = measure(pipe, prompts, setting.generation, seed=setting.study.seed)
        profile.metadata["model"] = setting.model
        made = conditions(setting.study, find_sites(pipe), profile.ep)
        first = setting.study.perturbed.steps(setting.generation.num_inference_steps).start
        notes = {
            "dtype": number_type(pipe),
            "scheduler": type(pipe.scheduler).__name__,
            "runs_begin_at_step": first if can_start_late(pipe) else 0,
        }
        bench.folder.write_grid(made, profile, notes)


@dataclass(frozen=True)
class MakeTwins:
    """Make the unperturbed videos of some prompts and seeds."""

    pairs: tuple[tuple[str, int], ...]

    def run(self, bench: Bench) -> Outcome:
        """Make those that are missing and that no other process is making; without them there is nothing to study."""
        keys = {bench.plan.setting.twin_key(*pair): pair for pair in self.pairs}
        taken = [key for key in keys if bench.claims.take(key)]
        try:
            missing = [keys[key] for key in taken if bench.folder.twins.read(key) is None]
            if missing:
                bench.make_twins(missing)
        finally:
            for key in taken:
                bench.claims.release(key)
        return Outcome(len(taken), len(keys) - len(taken))


@dataclass(frozen=True)
class Perturb:
    """Make and measure the perturbed videos of some cells of one condition, as one batch."""

    cells: tuple[Cell, ...]

    def run(self, bench: Bench) -> Outcome:
        """Do those that are missing and that no other process is doing."""
        keys = {bench.plan.setting.key(cell): cell for cell in self.cells}
        taken = [key for key in keys if bench.claims.take(key)]
        missing = [key for key in taken if not bench.folder.cells.has(key)]
        for key in set(taken) - set(missing):
            bench.claims.release(key)
        finished = len(taken) - len(missing)
        elsewhere = len(keys) - len(taken)
        if not missing:
            return Outcome(finished, elsewhere)
        _ = bench.pipe  # a model that cannot be loaded stops the study, not one cell
        outcome = attempt(bench, missing, lambda: bench.perturb(missing, [keys[key] for key in missing]))
        return Outcome(finished + outcome.done, elsewhere, outcome.failed)
