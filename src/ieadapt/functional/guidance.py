"""Guidance sums on predictions: classifier-free guidance, and the push away from a weaker prediction."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import FailureError

AGREEMENT = 0.05
"""How far a guided prediction may lie from a sum of its two branches, relative to it: room for half precision."""


def cfg(uncond: Float[Tensor, "*shape"], cond: Float[Tensor, "*shape"], scale: float) -> Float[Tensor, "*shape"]:
    """Return uncond + scale * (cond - uncond): classifier-free guidance; scale 1 is the conditional prediction.

    Source: arXiv 2207.12598.

    Example:
        >>> import torch
        >>> cfg(torch.tensor([1.0]), torch.tensor([3.0]), 2.0)
        tensor([5.])
    """
    return uncond + scale * (cond - uncond)


def guidance_delta(
    cond: Float[Tensor, "*shape"], weak: Float[Tensor, "*shape"], scale: float
) -> Float[Tensor, "*shape"]:
    """Return scale * (cond - weak), what guidance by a weaker prediction adds.

    Added to the conditional *and* the unconditional prediction it passes through classifier-free guidance of any
    scale unchanged: cfg(uncond + d, cond + d, w) = cfg(uncond, cond, w) + d.

    Source: arXiv 2403.17377 (perturbed-attention guidance).

    Example:
        >>> import torch
        >>> cond, uncond, weak = torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([2.5])
        >>> delta = guidance_delta(cond, weak, 2.0)
        >>> cfg(uncond + delta, cond + delta, 7.0) - cfg(uncond, cond, 7.0) == delta
        tensor([True])
    """
    return scale * (cond - weak)


def cfg_scale_of(
    guided: Float[Tensor, "*shape"], cond: Float[Tensor, "*shape"], uncond: Float[Tensor, "*shape"]
) -> float:
    """The scale with which a pipeline combined its branches, from what it gave its scheduler.

    Raises:
        FailureError: no scale gives it.

    Example:
        >>> import torch
        >>> cond, uncond = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0])
        >>> cfg_scale_of(cfg(uncond, cond, 4.0), cond, uncond)
        4.0
    """
    along = cond - uncond
    scale = float(((guided - uncond) * along).sum() / along.square().sum().clamp_min(1e-12))
    error = float((guided - torch.lerp(uncond, cond, scale)).norm() / guided.norm().clamp_min(1e-12))
    if error > AGREEMENT:
        raise FailureError(
            "the pipeline does not combine its guidance branches linearly, so that a replaced branch cannot be guided",
            expected="uncond + scale (cond - uncond)",
            got=f"a prediction {100 * error:.0f} % off",
            remedy="switch guidance_rescale off",
        )
    return scale


def rescale_std(
    shifted: Float[Tensor, " video *shape"], plain: Float[Tensor, " video *shape"], share: int | float
) -> Float[Tensor, " video *shape"]:
    """Return the shifted prediction scaled so that its standard deviation goes back towards the unshifted one's.

    shifted * (1 - share + share * std(plain) / std(shifted)), with standard deviations over everything of one video.
    Pushing a prediction away from a weaker one makes it larger, which over-saturates; share 1 undoes that, 0 does
    nothing.

    Args:
        shifted: G + d, the guided prediction with what guidance by a weaker prediction adds.
        plain: G = uncond + w (cond - uncond), the guided prediction without it; without classifier-free guidance the
            model's prediction itself.
        share: 0..1.

    Source: the form is arXiv 2305.08891's (and STG's) `std(cond) / std(prediction)`. There the reference is the
    conditional prediction, whose spread is that of *no* guidance, so that it undoes classifier-free guidance as well
    and, for w other than 1, changes a prediction that was not shifted at all. With G as the reference d = 0 changes
    nothing at any w, and w = 1 gives their form.

    Example:
        >>> import torch
        >>> plain = torch.tensor([[1.0, -1.0]])
        >>> rescale_std(3 * plain, plain, 0.5)
        tensor([[ 2., -2.]])
    """
    axes = tuple(range(1, shifted.ndim))
    ratio = plain.float().std(axes, keepdim=True) / shifted.float().std(axes, keepdim=True)
    return shifted * (1 - share + share * ratio).to(shifted.dtype)
