"""Consistency of features over the frames of a clip: neighbours, all pairs, or neighbours and the first frame."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Features = Float[Tensor, "frame feature"]


def neighbours(features: Features) -> float:
    """Mean cosine between the features of neighbouring frames, in [-1, 1].

    Example:
        >>> neighbours(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        0.5
    """
    return float(F.cosine_similarity(features[:-1].double(), features[1:].double()).mean())


def all_pairs(features: Features) -> float:
    """Mean cosine between the features of every two different frames, in [-1, 1]; one frame alone is not a pair.

    Example:
        >>> round(all_pairs(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])), 4)
        0.3333
    """
    unit = F.normalize(features.double(), dim=1)
    number = len(unit)
    return float(((unit @ unit.T).sum() - number) / (number * (number - 1)))


def neighbours_and_first(features: Features) -> float:
    """Mean over frames of the cosine to the frame before and to the first frame, halved; negative ones count as 0.

    Source: Huang et al., VBench, CVPR 2024 (subject and background consistency).

    Example:
        >>> neighbours_and_first(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
        0.25
    """
    unit = F.normalize(features.double(), dim=1)
    before = (unit[1:] * unit[:-1]).sum(dim=1).clamp(min=0)
    first = (unit[1:] @ unit[0]).clamp(min=0)
    return float(torch.stack((before, first)).mean())
