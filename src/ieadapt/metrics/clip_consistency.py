"""CLIP consistency: do neighbouring frames mean the same to CLIP?"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ieadapt.metrics.backbones import CLIP, clip_image_features, place_of
from ieadapt.metrics.clips import ClipSize, check_clip
from ieadapt.metrics.features import neighbours
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.weights import NOWHERE, GivenWeights, Places

LEAST = ClipSize(2, 8, 8)
WEIGHTS = GivenWeights((CLIP,))


def clip_consistency(frames: Float[Tensor, "frame channel height width"], places: Places = NOWHERE) -> float:
    """Mean cosine between the CLIP image features of neighbouring frames.

    V2VBench's semantic consistency. Numbers of different CLIP models are not comparable.

    Returns:
        -1 to 1, in practice above 0.5; 1 for a still clip; higher is more consistent.

    Raises:
        UsageError: fewer than two frames, frames under 8x8, not RGB in [0, 1], or no CLIP model was given.
        FailureError: the model cannot be read.

    Source: Sun et al., V2VBench, 2024 (semantic consistency); Radford et al., CLIP, 2021.
    """
    check_clip(frames, "clip_consistency", LEAST)
    return neighbours(clip_image_features(frames, place_of(CLIP, places, "clip_consistency")))


CLIP_CONSISTENCY = Metric(
    name="clip_consistency",
    definition="mean cosine between the CLIP image features of neighbouring frames",
    range="-1 to 1 (a still clip reads 1)",
    better="higher",
    unit="",
    source="V2VBench (semantic consistency); CLIP, Radford et al. 2021",
    cost="2 s for 16 frames of any size (ViT-B/16)",
    aspect="consistency",
    compares="single",
    function=clip_consistency,
    weights=WEIGHTS,
)
