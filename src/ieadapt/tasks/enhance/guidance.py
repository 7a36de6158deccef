"""Guidance mode: a weak pass per step, and the prediction pushed away from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from ieadapt.attention import (
    AttentionSite,
    Clock,
    DenoiserCall,
    Prefix,
    SkippedBlocks,
    attention_modules,
    block_around,
    intercept,
    wrap_denoiser,
)
from ieadapt.errors import FailureError, UsageError
from ieadapt.functional import guidance_delta
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.maps import PlannedMaps, strength_of
from ieadapt.tasks.enhance.plan import Plan, Planner
from ieadapt.tasks.enhance.record import Enhancement, require_finite
from ieadapt.tasks.enhance.rescale import Rescale

Weakened = Callable[[Plan], AbstractContextManager[object]]
"""Makes the denoiser calls inside a block weak, beside what interventions do to weak rows."""


@contextmanager
def guiding(pipe: DiffusionPipeline, config: EnhanceConfig, planner: Planner, told: Enhancement) -> Iterator[None]:
    """Guide every call of the pipeline inside the block by a weak pass."""
    with ExitStack() as stack:
        if config.online_steps:
            stack.enter_context(intercept(pipe, planner, planner.candidates, guidance="all"))
        rescale = Rescale(config.rescale)
        stack.enter_context(rescale.installed(pipe))
        if config.adaptation.name == "maps":
            maps = PlannedMaps(config, planner)
            stack.enter_context(maps.attribute_nonfinite())
            stack.enter_context(intercept(pipe, maps, planner.candidates, guidance=config.guidance))
            weakened: Weakened = lambda plan: nullcontext()  # noqa: E731
        else:
            blocks = _Blocks(pipe, planner.candidates)
            stack.enter_context(blocks.observing())
            weakened = blocks.without
        guidance = WeakGuidance(pipe, config, planner, told, weakened, rescale)
        told.replays = stack.enter_context(wrap_denoiser(pipe, guidance, perturbed=planner.candidates))
        yield


class WeakGuidance:
    """Adds the guidance term to every prediction of the denoiser.

    Args:
        pipe: the pipeline.
        config: scale, schedule, window.
        planner: what the weak pass changes.
        told: where passes and time are counted.
        weakened: what else makes a pass weak.
        rescale: is told the term of each step.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        config: EnhanceConfig,
        planner: Planner,
        told: Enhancement,
        weakened: Weakened,
        rescale: Rescale,
    ) -> None:
        self._pipe, self._config, self._planner, self._told = pipe, config, planner, told
        self._weakened, self._rescale = weakened, rescale
        self._strength = strength_of(config)
        self._held: Tensor | None = None
        self._held_step = -1
        self._aimed = planner.latest

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> Tensor | None:
        """The prediction with the term added, or None in a step without guidance."""
        plan = self._planner.at(call.step)
        scale = self._strength(call.step, call.steps)
        if plan is None or scale == 0.0 or call.prefix is None:
            return None
        _refuse_rescale(call)
        require_finite(prediction, call)
        self._told.changed_steps += 1
        if set(call.rows.guidance) == {"uncond"}:
            return prediction + self._held_delta(call)
        strong = call.rows.denoiser_rows(("cond",))
        if not strong:
            raise FailureError(
                "the pipeline does not say which rows of this call are conditional, so none can be guided",
                got=f"{len(call.rows)} rows",
                where=type(call.pipeline).__name__,
                remedy="describe the model in ieadapt/attention/families.py, or enhance in direct mode",
            )
        delta = guidance_delta(prediction[strong], self._weak(call, plan, strong), scale)
        self._held, self._held_step = delta, call.step
        self._rescale.expect(delta)
        videos = torch.tensor(call.rows.video, device=delta.device)
        return prediction + delta[videos]

    def _weak(self, call: DenoiserCall, plan: Plan, strong: Sequence[int]) -> Tensor:
        """The weak pass, timed."""
        clock = self._told.weak_clock = self._told.weak_clock or Clock(call.latents.device)
        self._told.weak_passes += 1
        with clock.span(), self._weakened(plan):
            weak = call.forward_rows(strong)
        if plan is not self._aimed and call.prefix is not None:
            _aim(self._pipe, self._told.replays, plan)
            self._aimed = plan
        return weak

    def _held_delta(self, call: DenoiserCall) -> Tensor:
        if self._held is None or self._held_step != call.step:
            raise FailureError(
                "the unconditional call came before the conditional one",
                where=f"step {call.step} of {type(call.pipeline).__name__}",
                remedy="enhance a pipeline that calls cond first, as Wan and HunyuanVideo do",
            )
        return self._held

    def __repr__(self) -> str:
        return f"guidance by a weak pass, scale {self._config.scale:g}"


class _Blocks:
    """The transformer blocks around the planned sites, left out of weak passes."""

    def __init__(self, pipe: DiffusionPipeline, candidates: Sequence[AttentionSite]) -> None:
        self._around = {site: block_around(pipe, site) for site in candidates}
        self._all = SkippedBlocks(list(self._around.values()))

    def observing(self) -> AbstractContextManager[None]:
        return self._all.observing()

    def without(self, plan: Plan) -> AbstractContextManager[None]:
        return self._all.skipped({self._around[site] for site in plan.sites})


def _aim(pipe: DiffusionPipeline, prefixes: Sequence[Prefix], plan: Plan) -> None:
    """Let the passes to come replay what lies before the sites of a new plan."""
    modules = attention_modules(pipe, plan.sites)
    for prefix in prefixes:
        own = set(prefix.denoiser.modules())
        prefix.retarget([module for module in modules if module in own])


def _refuse_rescale(call: DenoiserCall) -> None:
    rescale = getattr(call.pipeline, "guidance_rescale", 0.0)
    if rescale:
        raise UsageError(
            "guidance_rescale would take its standard deviation from the shifted prediction",
            expected="guidance_rescale=0",
            got=rescale,
            remedy="leave the pipeline's rescale off while enhancing, and use the enhancement's own rescale",
        )
