"""Direct mode: one pass, in which the maps themselves, or what they lead to, are changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ieadapt.attention import (
    AttentionCall,
    DenoiserCall,
    after_projection,
    denoisers_of,
    family_of,
    intercept,
    without_projection,
    wrap_denoiser,
)
from ieadapt.attention.restore import attribute
from ieadapt.errors import UsageError
from ieadapt.interventions import CrossFrameScale
from ieadapt.tasks.enhance.adaptations import amounts
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.maps import PlannedMaps, strength_of
from ieadapt.tasks.enhance.plan import Planner
from ieadapt.tasks.enhance.record import Enhancement


@contextmanager
def changing_maps(
    pipe: DiffusionPipeline, config: EnhanceConfig, planner: Planner, told: Enhancement
) -> Iterator[None]:
    """Change the maps of the planned sites in every call of the pipeline inside the block."""
    maps = PlannedMaps(config, planner, strength_of(config))
    with maps.attribute_nonfinite(), ExitStack() as stack:
        if config.online_steps:
            stack.enter_context(intercept(pipe, planner, planner.candidates, guidance="all"))
        stack.enter_context(intercept(pipe, maps, planner.candidates, guidance=config.guidance))
        stack.enter_context(wrap_denoiser(pipe, _Count(config, planner, told)))
        yield


@contextmanager
def scaling_cross_frame(
    pipe: DiffusionPipeline, config: EnhanceConfig, planner: Planner, told: Enhancement
) -> Iterator[None]:
    """Scale the results of the planned sites by their cross-frame intensity inside the block (Enhance-A-Video)."""
    strength = strength_of(config)

    def planned(call: AttentionCall) -> int | float:
        plan = planner.at(call.step)
        inside = plan is not None and call.site.name in plan.shares
        return min(strength(call.step, call.steps), 1.0) if inside else 0.0

    scale = CrossFrameScale(
        *amounts(config, 1),
        strength=planned,
        unprojected=without_projection(pipe, planner.candidates),
    )
    with ExitStack() as stack:
        if config.online_steps:
            stack.enter_context(intercept(pipe, planner, planner.candidates, guidance="all"))
        stack.enter_context(after_projection(pipe, planner.candidates, scale.change))
        stack.enter_context(intercept(pipe, scale, planner.candidates, guidance=config.guidance))
        stack.enter_context(wrap_denoiser(pipe, _Count(config, planner, told)))
        yield


@contextmanager
def freeu(pipe: DiffusionPipeline, config: EnhanceConfig, planner: Planner, told: Enhancement) -> Iterator[None]:
    """Switch diffusers' own FreeU on inside the block; the denoiser's settings are restored afterwards.

    Raises:
        UsageError: the denoiser is no U-Net with FreeU.
    """
    with ExitStack() as stack:
        for denoiser in denoisers_of(pipe).values():
            stack.enter_context(_freeu_settings(denoiser))
            found: Any = denoiser
            found.enable_freeu(**dict(zip(FREEU, amounts(config, 4), strict=True)))
        stack.enter_context(wrap_denoiser(pipe, _Count(config, planner, told)))
        yield


FREEU = ("s1", "s2", "b1", "b2")


@contextmanager
def _freeu_settings(denoiser: Any) -> Iterator[None]:
    """Leave the settings of a U-Net's up blocks as they were."""
    if not hasattr(denoiser, "enable_freeu"):
        raise UsageError(
            "FreeU weighs the skip connections of a U-Net against its backbone; this denoiser has none",
            expected="AnimateDiff or ModelScope",
            got=f"{family_of(denoiser).name} ({type(denoiser).__name__})",
            remedy="choose another preset",
        )
    blocks: list[nn.Module] = list(denoiser.up_blocks)
    with ExitStack() as stack:
        for block in blocks:
            for name in FREEU:
                stack.enter_context(attribute(block, name, getattr(block, name, None)))
        yield


class _Count:
    """Counts the calls in which the change is made."""

    def __init__(self, config: EnhanceConfig, planner: Planner, told: Enhancement) -> None:
        self._planner, self._told, self._strength = planner, told, strength_of(config)

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> None:
        if self._planner.at(call.step) is not None and self._strength(call.step, call.steps):
            self._told.changed_steps += 1
