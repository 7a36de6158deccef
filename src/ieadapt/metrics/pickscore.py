"""PickScore: how much people would pick a frame for a prompt, to a CLIP that was fitted to such choices."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ieadapt.metrics.backbones import clip_image_features, clip_scale, clip_text_features, place_of
from ieadapt.metrics.clips import ClipSize, check_clip
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.weights import NOWHERE, Given, GivenWeights, Places

LEAST = ClipSize(1, 8, 8)
PICK = Given("pickscore", "PickScore's CLIP model", "yuvalkirstain/PickScore_v1")
WEIGHTS = GivenWeights((PICK,))


def pickscore(frames: Float[Tensor, "frame channel height width"], prompt: str = "", places: Places = NOWHERE) -> float:
    """PickScore's cosine between a frame and the prompt, times the model's own scale; mean over frames.

    LOVEU-TGVE reports this number; V2VBench divides it by 100.

    Returns:
        In practice 17 to 24; higher is preferred.

    Raises:
        UsageError: frames under 8x8, not RGB in [0, 1], or no model was given.
        FailureError: the model cannot be read.

    Source: Kirstain et al., Pick-a-Pic, NeurIPS 2023.
    """
    check_clip(frames, "pickscore", LEAST)
    place = place_of(PICK, places, "pickscore")
    cosines = clip_image_features(frames, place) @ clip_text_features(prompt, place)
    return clip_scale(place) * float(cosines.double().mean())


PICKSCORE = Metric(
    name="pickscore",
    definition="PickScore's scaled cosine between a frame and the prompt, mean over frames",
    range="in practice 17 to 24",
    better="higher",
    unit="",
    source="Kirstain et al., NeurIPS 2023",
    cost="20 s for 16 frames of any size (ViT-H/14)",
    aspect="text",
    compares="text",
    function=pickscore,
    weights=WEIGHTS,
)
