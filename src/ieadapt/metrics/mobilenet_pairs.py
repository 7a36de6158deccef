"""MobileNet pairs: do all frames of a clip show the same things, however far apart they are?"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ieadapt.metrics.clips import check_clip
from ieadapt.metrics.features import all_pairs
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.mobilenet_consistency import LEAST, WEIGHTS, mobilenet_features


def mobilenet_pairs(frames: Float[Tensor, "frame channel height width"]) -> float:
    """Mean cosine between the MobileNetV2 features of all pairs of frames.

    As `mobilenet_consistency`, over all pairs as LOVEU-TGVE takes them with CLIP: slow drift counts, which neighbours
    do not show, and so does wanted change. The order of the frames does not.

    Returns:
        0 to 1 (features are not negative); 1 for a still clip; higher is more consistent.

    Raises:
        UsageError: fewer than two frames, frames under 8x8, not RGB in [0, 1], or the weights are not installed.
        FailureError: the weights cannot be read.

    Source: Sandler et al., MobileNetV2, CVPR 2018; Wu et al., CVPR 2023 text-guided video editing (all pairs).
    """
    check_clip(frames, "mobilenet_pairs", LEAST)
    return all_pairs(mobilenet_features(frames, "mobilenet_pairs"))


MOBILENET_PAIRS = Metric(
    name="mobilenet_pairs",
    definition="mean cosine between the MobileNetV2 (ImageNet) features of all pairs of frames",
    range="0 to 1 (a still clip reads 1)",
    better="higher",
    unit="",
    source="Sandler et al., CVPR 2018; pairs as in LOVEU-TGVE, with another network",
    cost="2 s for 16 frames of any size",
    aspect="consistency",
    compares="single",
    function=mobilenet_pairs,
    weights=WEIGHTS,
)
