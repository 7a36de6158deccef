"""Screening: how far the predicted clean video moves when the map of one site is replaced in one step.

A study generates a whole video for every site. A screen follows one plain trajectory per prompt, and at a few of its
steps runs the denoiser once more per site, from the replaced site on. The guided prediction of such a pass amounts to a
clean video (guided x0); its distance from the plain pass's x0 predicts what the replacement does to the finished video.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import polars as pl
import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor, nn

from ieadapt.attention import AttentionCall, AttentionSite, DenoiserCall, attention_modules, intercept, wrap_denoiser
from ieadapt.attention.restore import attribute
from ieadapt.functional import cfg_scale_of
from ieadapt.interventions import Record, parse_perturbation
from ieadapt.metrics.intervals import LEAST_UNITS, mean_interval
from ieadapt.models.noise_schedule import NoiseSchedule, matching_scheduler
from ieadapt.models.scheduler_wrapper import StepFunctionWrapper, kept_latents
from ieadapt.models.video_latents import Latents, latents_of, run_size
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.generate import Progress, quiet, reporting, run_batch, videos_at_once
from ieadapt.tasks.measure.method import identity_of
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.screen.config import EFFECTS
from ieadapt.tasks.study.grid import Condition

Clean = Float[Tensor, "video channel frame height width"]
STILL = 0.75
"""The share of positions and pairs of frames that count as still: those that move least in the plain x0."""
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("site", "kind"), pl.String),
    "head": pl.Int32,
    **dict.fromkeys(("map", "effect"), pl.String),
    **dict.fromkeys(("value", "low", "high"), pl.Float64),
    "prompts": pl.Int32,
}
"""Columns of the table of effects."""


def follow(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    generation: GenerationConfig,
    steps: Sequence[int],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[dict[int, Latents], EntropyProfile]:
    """Follow one plain trajectory per prompt, by DDIM or Euler steps, and keep where the chosen steps begin.

    Args:
        pipe: a pipeline of a known family.
        prompts: one trajectory each.
        generation: steps, size, guidance, prompts of a batch.
        steps: which steps, from 0.
        seed: of the first prompt; the next ones count up.
        progress: called with (denoising steps done, denoising steps in all).

    Returns:
        By step the latents with which it begins, one row per prompt; and entropy and energy along the trajectories.
    """
    size, listed = videos_at_once(pipe, generation), list(prompts)
    starts = range(0, len(listed), size)
    total = len(starts) * generation.num_inference_steps
    with ExitStack() as stack:
        stack.enter_context(attribute(pipe, "scheduler", matching_scheduler(pipe.scheduler)[0]))
        record, chosen = Record(), frozenset(steps)
        measuring = intercept(pipe, lambda call: record(call) if call.step in chosen else None, guidance="all")
        stack.enter_context(measuring)
        kept = {step: stack.enter_context(kept_latents(pipe, step)) for step in steps}
        for done, start in enumerate(starts):
            batch = listed[start : start + size]
            seeds = range(seed + start, seed + start + len(batch))
            with reporting(pipe, progress, done * generation.num_inference_steps, total), quiet(pipe):
                run_batch(pipe, batch, generation, seeds, output_type="latent")
    profile = EntropyProfile.from_rows(record.records(), {**identity_of(pipe), "prompts": listed, "seed": seed})
    return {step: torch.cat(latents) for step, latents in kept.items()}, profile


@torch.no_grad()
def screen_step(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    latents: Latents,
    step: int,
    conditions: Sequence[Condition],
    sites: Sequence[AttentionSite],
    generation: GenerationConfig,
) -> list[dict[str, list[float]]]:
    """What replacing maps in one step of a plain trajectory does to the guided x0.

    Args:
        pipe: the pipeline that made the trajectory.
        prompts: run as one batch.
        latents: with which the step begins, one row per prompt.
        step: from 0.
        conditions: what is replaced by what, one site each.
        sites: the pipeline's sites.
        generation: steps, size, guidance.

    Returns:
        Per condition, `statistics` of every prompt; empty where the step does not run the site.

    Raises:
        FailureError: the pipeline combines its guidance branches in another way, or a prediction is not finite.
    """
    named = {site.name: site for site in sites}
    probes = [Probe(condition, named[condition.sites[0]], pipe) for condition in conditions]
    passes = ProbePasses(probes)
    clean: list[Clean | None] = []
    size = run_size(pipe, vars(generation))

    def step_function(schedule: NoiseSchedule, number: int, at_hand: Latents, prediction: Latents) -> Latents:
        for guided in passes.guided(prediction):
            amounts_to = None if guided is None else schedule.clean(number, at_hand, guided)
            on_grid = latents_of(pipe).grid
            clean.append(None if amounts_to is None else on_grid(pipe, amounts_to, size))
        return schedule.forward(number, at_hand, prediction)

    wrapper = StepFunctionWrapper(matching_scheduler(pipe.scheduler)[0], latents, [step], step_function)
    replaced = {probe.site for probe in probes}
    with (
        quiet(pipe),
        wrapper.installed(pipe),
        intercept(pipe, passes.change, list(replaced), guidance="weak"),
        wrap_denoiser(pipe, passes, replaced) as prefixes,
    ):
        for prefix in prefixes:
            prefix.retarget_each(prefix.perturbed)
        run_batch(pipe, list(prompts), generation, [0] * len(prompts), output_type="latent")
    plain, *others = clean
    return [{} if plain is None or other is None else statistics(plain, other) for other in others]


def statistics(plain: Clean, replaced: Clean) -> dict[str, list[float]]:
    """How a clean video moved, per video, in units of the plain one's standard deviation; 0 where nothing moved.

    Args:
        plain: guided x0 of the plain pass, on the grid of the latents.
        replaced: guided x0 with a map replaced.

    Returns:
        `change`: mean absolute difference; `rise`: by how much differences between neighbouring frames grew
        where the plain video is still; `lost`: by how much they shrank everywhere. `rise` and `lost` may be negative.

    Example:
        >>> plain = torch.rand(1, 4, 3, 8, 8)
        >>> statistics(plain, plain)
        {'change': [0.0], 'rise': [0.0], 'lost': [0.0]}
    """
    scale = plain.flatten(1).std(dim=1).cpu().clamp_min(1e-12)
    change = (replaced - plain).abs().flatten(1).mean(dim=1).cpu()
    before, after = _frame_differences(plain), _frame_differences(replaced)
    still = before <= before.quantile(STILL, dim=1, keepdim=True)
    rise = ((after - before) * still).sum(dim=1) / still.sum(dim=1).clamp_min(1)
    lost = (before - after).mean(dim=1)
    named = {"change": change, "rise": rise, "lost": lost}
    return {name: (value / scale).tolist() for name, value in named.items()}


def _frame_differences(clean: Clean) -> Float[Tensor, "video position"]:
    """Between neighbouring frames, mean over channels; none where there is one frame."""
    return clean.diff(dim=2).abs().mean(dim=1).flatten(1).float().cpu()


class Probe:
    """One replacement that is tried: a map at a site, or at one head of it."""

    def __init__(self, condition: Condition, site: AttentionSite, pipe: DiffusionPipeline) -> None:
        self.site, self._head = site, condition.head
        self.module: nn.Module = attention_modules(pipe, [site])[0]
        self._perturbation = parse_perturbation(condition.perturbation)

    def change(self, call: AttentionCall) -> Tensor:
        """The call's output with the map replaced."""
        part = call if self._head is None else call.restricted(heads=(self._head,))
        result = self._perturbation(part)
        return result if part is call else call.replaced([(part, result)])


class ProbePasses:
    """Runs one weak pass per probe beside each call of a step, over all its rows, and combines the guidance branches.

    Args:
        probes: in the order of the results.
    """

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes = list(probes)
        self._active: Probe | None = None
        self._branches: list[dict[str, Tensor]] = [{} for _ in range(len(probes) + 1)]

    def change(self, call: AttentionCall) -> Tensor | None:
        """The intervention of the weak passes: replaces the map of the probe that is running."""
        return self._active.change(call) if self._active is not None and call.site == self._active.site else None

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> None:
        """Run the passes of a full one."""
        self._keep(0, call, prediction)
        for index, probe in enumerate(self._probes, start=1):
            if probe.module in call.modules and call.prefix is not None:
                with attribute(self, "_active", probe), call.prefix.only(probe.module):
                    self._keep(index, call, call.forward_rows(range(len(call.rows))))

    def _keep(self, index: int, call: DenoiserCall, prediction: Tensor) -> None:
        for branch in ("cond", "uncond"):
            rows = call.rows.denoiser_rows((branch,))
            if rows:
                self._branches[index][branch] = prediction[rows]

    def guided(self, prediction: Tensor) -> Iterator[Tensor | None]:
        """The guided predictions: the plain one, and that of every probe; None where its site did not run."""
        yield prediction
        cond, uncond = (self._branches[0].get(branch) for branch in ("cond", "uncond"))
        scale = 1.0 if cond is None or uncond is None else cfg_scale_of(prediction, cond.float(), uncond.float())
        for branches in self._branches[1:]:
            if not branches:
                yield None
            elif "uncond" in branches:
                yield torch.lerp(branches["uncond"].float(), branches["cond"].float(), scale)
            else:
                yield branches["cond"].float()


def effects_table(passes: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """The predicted effects: a mean over prompts, with its interval where there are enough of them.

    Args:
        passes: of every pass `site`, `kind`, `head`, `map`, `prompt`, `seed`, `step`, `num_inference_steps`, and the
            `statistics` that it gave, none where its step does not run the site.

    Returns:
        One row per site, head, map and effect, with the columns of `SCHEMA`. An effect is missing where no step that
        speaks for it was tried.

    Example:
        >>> one = dict(site="a", kind="spatial", head=None, map="uniform", prompt="a ball", seed=0)
        >>> steps = dict(step=11, num_inference_steps=20, change=0.5, rise=0.0, lost=0.0)
        >>> effects_table([one | steps]).select("effect", "value").rows()
        [('structure', 0.5), ('quality', 0.5)]
    """
    ran = [row for row in passes if "change" in row]
    rows: dict[tuple[Any, ...], dict[tuple[str, int], list[float]]] = {}
    for row in ran:
        for name, effect in EFFECTS.items():
            if effect.window.contains(row["step"], row["num_inference_steps"]):
                own = rows.setdefault((*(row[key] for key in ("site", "kind", "head", "map")), name), {})
                own.setdefault((row["prompt"], row["seed"]), []).append(row[effect.statistic])
    means = {key: [sum(each) / len(each) for each in own.values()] for key, own in rows.items()}
    listed = [(*key, *mean_interval(own, least=LEAST_UNITS), len(own)) for key, own in means.items()]
    return pl.DataFrame(listed, schema=SCHEMA, orient="row").with_columns(pl.col("low", "high").fill_nan(None))
