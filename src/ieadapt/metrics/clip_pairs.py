"""CLIP pairs: do all frames of a clip mean the same to CLIP, however far apart they are?"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ieadapt.metrics.backbones import CLIP, clip_image_features, place_of
from ieadapt.metrics.clips import ClipSize, check_clip
from ieadapt.metrics.features import all_pairs
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.weights import NOWHERE, GivenWeights, Places

LEAST = ClipSize(2, 8, 8)
WEIGHTS = GivenWeights((CLIP,))


def clip_pairs(frames: Float[Tensor, "frame channel height width"], places: Places = NOWHERE) -> float:
    """Mean cosine between the CLIP image features of all pairs of frames.

    LOVEU-TGVE's frame consistency, there times 100. Papers that take neighbours only (`clip_consistency`) report higher
    numbers under the same name.

    Returns:
        -1 to 1, in practice above 0.5; 1 for a still clip; higher is more consistent.

    Raises:
        UsageError: fewer than two frames, frames under 8x8, not RGB in [0, 1], or no CLIP model was given.
        FailureError: the model cannot be read.

    Source: Wu et al., CVPR 2023 text guided video editing competition (LOVEU-TGVE); Radford et al., CLIP, 2021.
    """
    check_clip(frames, "clip_pairs", LEAST)
    return all_pairs(clip_image_features(frames, place_of(CLIP, places, "clip_pairs")))


CLIP_PAIRS = Metric(
    name="clip_pairs",
    definition="mean cosine between the CLIP image features of all pairs of frames",
    range="-1 to 1 (a still clip reads 1)",
    better="higher",
    unit="",
    source="LOVEU-TGVE (frame consistency, there x 100); CLIP, Radford et al. 2021",
    cost="2 s for 16 frames of any size (ViT-B/16)",
    aspect="consistency",
    compares="single",
    function=clip_pairs,
    weights=WEIGHTS,
)
