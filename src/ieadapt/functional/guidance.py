"""Guidance sums on predictions: classifier-free guidance, and the push away from a weaker prediction."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


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
