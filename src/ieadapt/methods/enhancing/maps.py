"""The maps of the planned sites, changed by the planned share: one intervention for weak passes and for direct mode."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ieadapt.attention import AttentionCall
from ieadapt.errors import FailureError
from ieadapt.interventions import Perturbation, Temperature
from ieadapt.methods.enhancing.adaptations import map_change
from ieadapt.methods.enhancing.config import EnhanceConfig
from ieadapt.methods.enhancing.plan import Plan, Planner

Strength = Callable[[int, int | None], int | float]
"""Share of a change, in 0..1, from a step and the number of steps."""


def strength_of(config: EnhanceConfig) -> Strength:
    """Scale times schedule inside the window of steps, 0 outside."""

    def strength(step: int, steps: int | None) -> int | float:
        if steps is None:
            return config.scale
        inside = config.start <= step / steps < config.stop
        return config.scale * config.factors.factors(steps)[step] if inside else 0.0

    return strength


class PlannedMaps:
    """Changes the maps of the planned sites and heads: output (1 - l) A V + l A' V with the planned share l.

    Args:
        config: what the maps become, on which rows.
        planner: which sites, heads and shares.
        strength: share of the change by step, on top of the planned one.
    """

    def __init__(self, config: EnhanceConfig, planner: Planner, strength: Strength = lambda step, steps: 1.0) -> None:
        self._planner, self._strength = planner, strength
        self._change = map_change(config)
        self._sharp = Temperature(config.sharpen, scope="video", guidance=self._change.guidance)
        self._finite: dict[str, Tensor] = {}
        self._step = 0

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """The call's output with its map changed, or None where the plan leaves it."""
        if not call.rows.denoiser_rows(self._change.guidance):
            return None
        plan = self._planner.at(call.step)
        if plan is None:
            return None
        change, share = self._of_site(plan, call.site.name)
        share *= min(self._strength(call.step, call.steps), 1.0)
        if share == 0.0:
            return None
        changed = change(call)
        if changed is None:
            return None
        self._step = call.step
        self._finite[call.site.name] = torch.isfinite(changed).all()
        return changed if share == 1.0 else torch.lerp(call.output, changed, share)

    def _of_site(self, plan: Plan, name: str) -> tuple[Perturbation, float]:
        if name in plan.shares:
            heads = plan.heads.get(name)
            change = self._change if heads is None else dataclasses.replace(self._change, heads=heads)
            return change, plan.shares[name]
        return self._sharp, plan.sharpened.get(name, 0.0)

    @contextmanager
    def blaming(self) -> Iterator[None]:
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
