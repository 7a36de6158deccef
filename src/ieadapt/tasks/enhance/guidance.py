"""Guidance mode: a weak pass per step, and the prediction pushed away from it.

The weak pass is the perturbed pass of PAG: the conditional rows once more, with the chosen maps changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ieadapt.attention import (
    AttentionSite,
    Clock,
    DenoiserCall,
    SkippedBlocks,
    attention_modules,
    block_around,
    intercept,
    wrap_denoiser,
)
from ieadapt.attention.restore import attribute
from ieadapt.errors import FailureError, UsageError
from ieadapt.functional import guidance_delta, rescale_std
from ieadapt.interventions import AverageQueries
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.direct import changing_maps
from ieadapt.tasks.enhance.plan import Enhancement, Plan, require_finite
from ieadapt.tasks.measure.layer_choice import SiteChoice

Weakened = Callable[[Plan, int], AbstractContextManager[object]]
"""Makes the denoiser calls of a step inside a block weak, beside what interventions do to weak rows."""


class Rescale:
    """Rescales what a pipeline hands to its scheduler in the steps that were shifted.

    Only there the guided prediction exists in every family, whatever the guidance scale was in that step. The term that
    was added is known, so the prediction without it is too.

    Args:
        share: 0 does nothing; 1 gives the shifted prediction the standard deviation of the unshifted one.
    """

    def __init__(self, share: int | float) -> None:
        self._share = share
        self._delta: Tensor | None = None

    def expect(self, delta: Tensor) -> None:
        """The term that the step's prediction will hold, one row per video."""
        self._delta = delta

    @contextmanager
    def installed(self, pipe: DiffusionPipeline) -> Iterator[None]:
        """Stand between the pipeline and its scheduler for the length of the block."""
        rescaled = partial(self._rescaled, pipe=pipe)
        with changed_prediction(pipe, rescaled) if self._share else nullcontext():
            yield

    def _rescaled(self, shifted: Tensor, pipe: DiffusionPipeline) -> Tensor:
        if self._delta is None:
            return shifted
        videos = self._delta.shape[0]
        delta, self._delta = as_scheduled(self._delta, shifted, pipe).to(shifted), None
        of_video, plain = (tensor.unflatten(0, (videos, -1)) for tensor in (shifted, shifted - delta))
        return rescale_std(of_video, plain, self._share).flatten(0, 1)


@contextmanager
def changed_prediction(pipe: DiffusionPipeline, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block the scheduler gets `change(prediction)` where the pipeline hands it a guided prediction."""
    step = pipe.scheduler.step

    def changed(model_output: Tensor, *args: Any, **kwargs: Any) -> Any:
        return step(change(model_output), *args, **kwargs)

    with attribute(pipe.scheduler, "step", changed):
        yield


def as_scheduled(tensor: Tensor, like: Tensor, pipe: DiffusionPipeline) -> Tensor:
    """What the denoiser predicts in the form in which the pipeline hands predictions to its scheduler.

    Raises:
        UsageError: the pipeline changes it in a way that is not known.
    """
    if tensor.shape == like.shape:
        return tensor
    frame_by_frame = tensor.transpose(1, 2).flatten(0, 1) if tensor.ndim == 5 else tensor
    if frame_by_frame.shape == like.shape:
        return frame_by_frame
    raise UsageError(
        "this pipeline changes the prediction's form before its scheduler, so that it cannot be replaced there",
        expected=tuple(tensor.shape),
        got=tuple(like.shape),
        where=type(pipe).__name__,
        remedy="leave rescale at 0, and choose another mode than combine",
    )


@contextmanager
def guiding(pipe: DiffusionPipeline, state: Enhancement) -> Iterator[None]:
    """Guide every call of the pipeline inside the block by a weak pass."""
    with ExitStack() as stack:
        rescale = Rescale(state.config.rescale)
        stack.enter_context(rescale.installed(pipe))
        weakened: Weakened = lambda plan, step: nullcontext()  # noqa: E731
        if state.config.perturbation_name == "average-queries":
            averaged = AverageQueries(*state.config.amounts)
            stack.enter_context(intercept(pipe, averaged, state.candidates, guidance=("cond", "weak")))
        elif state.config.perturbation_name not in ("skip-block", "random-block"):
            stack.enter_context(changing_maps(pipe, state))
        else:
            around = {site: block_around(pipe, site) for site in state.candidates}
            blocks = SkippedBlocks(list(around.values()))
            stack.enter_context(blocks.observing())
            weakened = lambda plan, step: blocks.skipped(  # noqa: E731
                left_out(state.config, {site: around[site] for site in plan.sites}, step)
            )
        guidance = WeakGuidance(pipe, state, weakened, rescale)
        state.replays = stack.enter_context(wrap_denoiser(pipe, guidance, perturbed=state.candidates))
        yield


def left_out(config: EnhanceConfig, around: Mapping[AttentionSite, nn.Module], step: int) -> set[nn.Module]:
    """The blocks that a weak pass leaves out: all around the sites, or those drawn for this step.

    Source: S2-Guidance (arXiv 2508.12880): one draw per step stands for the mean over many.
    """
    if not config.amounts:
        return set(around.values())
    seed = random.Random(f"{config.seed} {step}").getrandbits(32)  # noqa: S311 (a draw, not a secret)
    one_each = {block: site for site, block in around.items()}
    drawn = SiteChoice("random", config.amounts[0], seed=seed).choose(list(one_each.values()))
    return {around[site] for site in drawn}


class WeakGuidance:
    """Adds the guidance term to every prediction of the denoiser.

    Args:
        pipe: the pipeline.
        state: what the weak pass changes, and where passes and time are counted.
        weakened: what else makes a pass weak.
        rescale: gets the term of each step.
    """

    def __init__(self, pipe: DiffusionPipeline, state: Enhancement, weakened: Weakened, rescale: Rescale) -> None:
        self._pipe, self._state, self._weakened, self._rescale = pipe, state, weakened, rescale
        self._held: Tensor | None = None
        self._held_step = -1
        self._replayed_for = state.plan

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> Tensor | None:
        """The prediction with the term added, or None in a step without guidance."""
        plan = self._state.plan_at(call.step)
        scale = self._state.config.strength(call.step, call.steps)
        if plan is None or scale == 0.0 or call.prefix is None:
            return None
        _refuse_rescale(call)
        require_finite(prediction, call)
        self._state.changed_steps += 1
        # Wan and HunyuanVideo run the branches in two calls, cond first: the term of the first is held for the second.
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
        clock = self._state.weak_clock = self._state.weak_clock or Clock(call.latents.device)
        self._state.weak_passes += 1
        with clock.span(), self._weakened(plan, call.step):
            weak = call.forward_rows(strong)
        if plan is not self._replayed_for:
            self._retarget(plan)
        return weak

    def _held_delta(self, call: DenoiserCall) -> Tensor:
        if self._held is None or self._held_step != call.step:
            raise FailureError(
                "the unconditional call came before the conditional one",
                where=f"step {call.step} of {type(call.pipeline).__name__}",
                remedy="enhance a pipeline that calls cond first, as Wan and HunyuanVideo do",
            )
        return self._held

    def _retarget(self, plan: Plan) -> None:
        """Let the passes to come replay what lies before the sites of a new plan."""
        modules = attention_modules(self._pipe, plan.sites)
        for prefix in self._state.replays:
            own = set(prefix.denoiser.modules())
            prefix.retarget([module for module in modules if module in own])
        self._replayed_for = plan

    def __repr__(self) -> str:
        return f"guidance by a weak pass, scale {self._state.config.scale:g}"


def _refuse_rescale(call: DenoiserCall) -> None:
    rescale = getattr(call.pipeline, "guidance_rescale", 0.0)
    if rescale:
        raise UsageError(
            "guidance_rescale would take its standard deviation from the shifted prediction",
            expected="guidance_rescale=0",
            got=rescale,
            remedy="leave the pipeline's rescale off while enhancing, and use the enhancement's own rescale",
        )
