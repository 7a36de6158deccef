"""Combine mode: how the conditional and the unconditional prediction of a step become one. No further pass.

The denoiser's predictions of both branches are kept, and what the pipeline hands to its scheduler, `u + w (c - u)`, is
replaced there. Only there the sum exists in every family; w is read from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from diffusers import DiffusionPipeline
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.guiders.classifier_free_zero_star_guidance import cfg_zero_star_scale
from torch import Tensor
from torch.nn import functional

from ieadapt.attention import DenoiserCall, wrap_denoiser
from ieadapt.errors import UsageError
from ieadapt.functional import cfg, cfg_scale_of
from ieadapt.tasks.enhance.guidance import as_scheduled, changed_prediction
from ieadapt.tasks.enhance.plan import Enhancement, require_finite

Combination = Callable[[Tensor, Tensor, float, int], Tensor]
"""Of the conditional and the unconditional prediction, (video, ...), the guidance scale, and the step in the window."""


class ProjectedGuidance:
    """APG: the part of `c - u` along c, which over-saturates, is weighed by `eta`; the rest keeps its weight.

    Args:
        radius: longest that `c - u` of a video may be (Euclidean norm over all its entries); 0 is no limit.
        eta: weight of the part along c; 1 leaves it.
        momentum: weight of the sum of earlier steps' differences; the source takes negative ones.

    Source: arXiv 2410.02416, by diffusers' `normalized_guidance`. There predictions are of clean latents; here, as in
    diffusers' guider, they are what the denoiser predicts.
    """

    def __init__(self, radius: float, eta: float, momentum: float) -> None:
        self._radius, self._eta, self._momentum = radius, eta, momentum
        self._buffer = MomentumBuffer(momentum)

    def __call__(self, cond: Tensor, uncond: Tensor, scale: float, step: int) -> Tensor:
        """Combine the predictions of one step."""
        if step == 0:  # a new run
            self._buffer = MomentumBuffer(self._momentum)
        return normalized_guidance(cond, uncond, scale - 1, self._buffer, self._eta, self._radius, True)


def zero_star(cond: Tensor, uncond: Tensor, scale: float, step: int, *, zero_steps: float) -> Tensor:
    """CFG-Zero*: the unconditional prediction times `<c, u> / <u, u>`; zero in the first steps.

    Source: arXiv 2503.18886, by diffusers' `cfg_zero_star_scale`.
    """
    if step < zero_steps:
        return torch.zeros_like(cond)
    share = cfg_zero_star_scale(cond.flatten(1), uncond.flatten(1)).view(-1, *[1] * (cond.ndim - 1))
    return cfg(uncond * share, cond, scale)


def frequency_decoupled(cond: Tensor, uncond: Tensor, scale: float, step: int, *, low: float, high: float) -> Tensor:
    """FDG: the guidance of coarse and of fine structure weighed apart, by factors on the scale.

    Source: arXiv 2506.19713, a reconstruction of its two-level form: coarse is what is left after halving rows and
    columns (mean) and doubling them again (bilinear); its own code uses a Laplacian pyramid of the kornia library.

    Raises:
        UsageError: predictions without rows and columns.
    """
    if cond.ndim < 4:
        raise UsageError(
            "this model predicts a list of tokens, so that coarse and fine structure cannot be told apart",
            expected="(video, ..., row, column)",
            got=tuple(cond.shape),
            remedy="choose another preset",
        )
    difference = cond - uncond
    pictures = difference.flatten(0, -3).unsqueeze(1)
    halved = functional.avg_pool2d(pictures.float(), 2, ceil_mode=True)
    coarse = functional.interpolate(halved, size=pictures.shape[-2:], mode="bilinear").to(difference)
    coarse = coarse.view_as(difference)
    return uncond + scale * (low * coarse + high * (difference - coarse))


def interval(cond: Tensor, uncond: Tensor, scale: float, step: int) -> Tensor:
    """Plain classifier-free guidance: with this one, only the window counts (arXiv 2404.07724)."""
    return cfg(uncond, cond, scale)


COMBINATIONS: Mapping[str, Callable[..., Combination]] = {
    "interval": lambda: interval,
    "apg": ProjectedGuidance,
    "cfg-zero": lambda steps: partial(zero_star, zero_steps=steps),
    "fdg": lambda low, high: partial(frequency_decoupled, low=low, high=high),
}
"""By name, from its numbers."""
OUTSIDE: Mapping[str, Combination] = {"interval": lambda cond, uncond, scale, step: cond}
"""What holds in the steps outside the window, where that is not the pipeline's own sum."""


@contextmanager
def combining(pipe: DiffusionPipeline, state: Enhancement) -> Iterator[None]:
    """Combine the two predictions of every step in the config's way inside the block."""
    combined = _Combined(pipe, state)
    with wrap_denoiser(pipe, combined.keep), changed_prediction(pipe, combined.instead):
        yield


class _Combined:
    """Keeps both branches of a step, and combines them once the pipeline hands their sum to its scheduler."""

    def __init__(self, pipe: DiffusionPipeline, state: Enhancement) -> None:
        self._pipe, self._state = pipe, state
        name = state.config.perturbation_name
        self._inside, self._outside = COMBINATIONS[name](*state.config.amounts), OUTSIDE.get(name)
        self._branches: dict[str, Tensor] = {}
        self._call: DenoiserCall | None = None

    def keep(self, call: DenoiserCall, prediction: Tensor) -> None:
        """Keep the rows of each branch."""
        require_finite(prediction, call)
        self._call = call
        for branch in ("cond", "uncond"):
            if rows := call.rows.denoiser_rows((branch,)):
                self._branches[branch] = prediction[rows]

    def instead(self, guided: Tensor) -> Tensor:
        """What the scheduler gets."""
        call, branches, self._branches = self._call, self._branches, {}
        if call is None or len(branches) < 2:
            return guided
        window, steps = self._state.config.window, call.steps
        combination = self._inside if window.contains(call.step, steps) else self._outside
        if combination is None:
            return guided
        self._state.changed_steps += 1
        first = window.steps(steps).start if steps else 0
        cond, uncond = branches["cond"].float(), branches["uncond"].float()
        scale = cfg_scale_of(*(as_scheduled(each, guided, self._pipe).float() for each in (guided, cond, uncond)))
        wished = combination(cond, uncond, scale, call.step - first)
        return as_scheduled(wished, guided, self._pipe).to(guided)
