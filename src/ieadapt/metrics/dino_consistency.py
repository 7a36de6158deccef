"""DINO consistency: does the subject stay the same, to DINO's features?"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ieadapt.metrics.backbones import DINO, class_token_features, place_of
from ieadapt.metrics.clips import ClipSize, check_clip
from ieadapt.metrics.features import neighbours_and_first
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.weights import NOWHERE, GivenWeights, Places

LEAST = ClipSize(2, 8, 8)
WEIGHTS = GivenWeights((DINO,))


def dino_consistency(frames: Float[Tensor, "frame channel height width"], places: Places = NOWHERE) -> float:
    """Mean cosine of DINO's class token to the frame before and to the first frame, halved; negative ones count as 0.

    VBench's subject consistency, which takes DINO ViT-B/16: with that model it is the same quantity, up to how frames
    are resized. With DINOv2 it is another number. A frozen video reads 1: read it beside `motion`.

    Returns:
        0 to 1; 1 for a still clip; higher is more consistent.

    Raises:
        UsageError: fewer than two frames, frames under 8x8, not RGB in [0, 1], or no model was given.
        FailureError: the model cannot be read.

    Source: Huang et al., VBench, CVPR 2024 (subject consistency); Caron et al., DINO, ICCV 2021.
    """
    check_clip(frames, "dino_consistency", LEAST)
    return neighbours_and_first(class_token_features(frames, place_of(DINO, places, "dino_consistency")))


DINO_CONSISTENCY = Metric(
    name="dino_consistency",
    definition="mean cosine of DINO's class token to the frame before and to the first frame",
    range="0 to 1 (a still clip reads 1)",
    better="higher",
    unit="",
    source="VBench (subject consistency); DINO, Caron et al. 2021",
    cost="2 s for 16 frames of any size (ViT-B/16)",
    aspect="consistency",
    compares="single",
    function=dino_consistency,
    weights=WEIGHTS,
)
