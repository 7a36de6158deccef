"""Changing attention: the maps of the planned sites, their results, or FreeU's weights, in every pass of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from ieadapt.attention import (
    AttentionCall,
    after_projection,
    denoisers_of,
    family_of,
    intercept,
    without_projection,
)
from ieadapt.attention.restore import attribute
from ieadapt.errors import FailureError, UsageError
from ieadapt.interventions import CrossFrameScale, Temperature
from ieadapt.tasks.enhance.plan import Enhancement


class PlannedMaps:
    """Changes the maps of the planned sites and heads: output (1 - l) A V + l A' V with the planned share l.

    In direct mode the share is scaled by the schedule too; a weak pass takes the planned one, since there the scale is
    that of the guidance.

    Args:
        state: what changes, at which sites and heads, by which shares.
    """

    def __init__(self, state: Enhancement) -> None:
        self._state = state
        self._change = state.config.map_change
        self._sharp = Temperature(state.config.sharpen, scope="video")
        self._finite: dict[str, Tensor] = {}
        self._step = 0

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """The call's output with its map changed, or None where the plan leaves it."""
        plan = self._state.plan_at(call.step)
        if plan is None:
            return None
        name = call.site.name
        if name in plan.shares:
            change, share, part = self._change, plan.shares[name], call.restricted(heads=plan.heads.get(name))
        else:
            change, share, part = self._sharp, plan.sharpened.get(name, 0.0), call
        if self._state.config.mode == "direct":
            share *= min(self._state.config.strength(call.step, call.steps), 1.0)
        if share == 0.0:
            return None
        changed = change(part)
        self._step = call.step
        self._finite[name] = torch.isfinite(changed).all()
        changed = changed if part is call else call.replaced([(part, changed)])
        return changed if share == 1.0 else torch.lerp(call.output, changed, share)

    @contextmanager
    def attribute_nonfinite(self) -> Iterator[None]:
        """Name the first site whose changed output was not finite, where a failure inside the block comes from one."""
        try:
            yield
        except FailureError as error:
            first = next((name for name, finite in self._finite.items() if not finite), None)
            if first is None:
                raise
            raise FailureError(
                "a changed attention map gave a result that is not finite",
                where=f"step {self._step}, first at {first}",
                remedy="lower the scale, choose fewer sites, or use float32 or bfloat16 instead of float16",
            ) from error

    def __repr__(self) -> str:
        return f"PlannedMaps({self._change!r})"


@contextmanager
def changing_maps(pipe: DiffusionPipeline, state: Enhancement) -> Iterator[None]:
    """Change the maps of the planned sites inside the block: in weak passes, or in direct mode in every call."""
    maps = PlannedMaps(state)
    with maps.attribute_nonfinite(), intercept(pipe, maps, state.candidates, guidance=state.config.guidance):
        yield


@contextmanager
def scaling_cross_frame(pipe: DiffusionPipeline, state: Enhancement) -> Iterator[None]:
    """Scale the results of the planned sites by their cross-frame intensity inside the block (Enhance-A-Video)."""

    def strength(call: AttentionCall) -> int | float:
        plan = state.plan_at(call.step)
        inside = plan is not None and call.site.name in plan.shares
        return min(state.config.strength(call.step, call.steps), 1.0) if inside else 0.0

    unprojected = without_projection(pipe, state.candidates)
    scale = CrossFrameScale(*state.config.amounts, strength=strength, unprojected=unprojected)
    # The factor is known at the attention call, but belongs after the output projection, as in the method's own code.
    with (
        after_projection(pipe, state.candidates, scale.change),
        intercept(pipe, scale, state.candidates, guidance=state.config.guidance),
    ):
        yield


FREEU = ("s1", "s2", "b1", "b2")


@contextmanager
def freeu(pipe: DiffusionPipeline, state: Enhancement) -> Iterator[None]:
    """Switch diffusers' own FreeU on inside the block; the denoiser's settings are restored afterwards.

    Raises:
        UsageError: the denoiser is no U-Net with FreeU.
    """
    with ExitStack() as stack:
        for denoiser in denoisers_of(pipe).values():
            unet: Any = denoiser
            if not hasattr(unet, "enable_freeu"):
                raise UsageError(
                    "FreeU weighs the skip connections of a U-Net against its backbone; this denoiser has none",
                    expected="AnimateDiff or ModelScope",
                    got=f"{family_of(denoiser).name} ({type(denoiser).__name__})",
                    remedy="choose another preset",
                )
            # diffusers' disable_freeu sets the values to None also where they were something else, or not there.
            for block in unet.up_blocks:
                for name in FREEU:
                    stack.enter_context(attribute(block, name, getattr(block, name, None)))
            unet.enable_freeu(**dict(zip(FREEU, state.config.amounts, strict=True)))
        yield
