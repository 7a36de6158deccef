"""The maps of the planned sites, changed by the planned share: one intervention for weak passes and for direct mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ieadapt.attention import AttentionCall
from ieadapt.errors import FailureError
from ieadapt.interventions import Temperature
from ieadapt.tasks.enhance.adaptations import map_change
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.plan import Planner

Strength = Callable[[int, int | None], int | float]
"""Share of a change, in 0..1, from a step and the number of steps."""


def strength_of(config: EnhanceConfig) -> Strength:
    """Scale times schedule inside the window of steps, 0 outside."""

    def strength(step: int, steps: int | None) -> int | float:
        if steps is None:
            return config.scale
        return config.scale * config.factors.factors(steps)[step] if config.window.contains(step, steps) else 0.0

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
        self._sharp = Temperature(config.sharpen, scope="video")
        self._finite: dict[str, Tensor] = {}
        self._step = 0

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """The call's output with its map changed, or None where the plan leaves it."""
        plan = self._planner.at(call.step)
        if plan is None:
            return None
        name = call.site.name
        if name in plan.shares:
            change, share, part = self._change, plan.shares[name], call.restricted(heads=plan.heads.get(name))
        else:
            change, share, part = self._sharp, plan.sharpened.get(name, 0.0), call
        share *= min(self._strength(call.step, call.steps), 1.0)
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
