"""CLIP text alignment: do the frames show what the prompt says, to CLIP?"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ieadapt.metrics.backbones import CLIP, clip_image_features, clip_text_features, place_of
from ieadapt.metrics.clips import ClipSize, check_clip
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.weights import NOWHERE, GivenWeights, Places

LEAST = ClipSize(1, 8, 8)
WEIGHTS = GivenWeights((CLIP,))


def clip_text(frames: Float[Tensor, "frame channel height width"], prompt: str = "", places: Places = NOWHERE) -> float:
    """100 times the cosine between CLIP's features of a frame and of the prompt, mean over frames.

    Words beyond what the model takes (77 tokens) are cut off. Numbers of different CLIP models are not comparable.

    Returns:
        -100 to 100, in practice 15 to 35; higher is closer to the prompt.

    Raises:
        UsageError: frames under 8x8, not RGB in [0, 1], or no CLIP model was given.
        FailureError: the model cannot be read.

    Source: Hessel et al., CLIPScore, 2021 (there cut at 0); LOVEU-TGVE and V2VBench (frame-text alignment).
    """
    check_clip(frames, "clip_text", LEAST)
    place = place_of(CLIP, places, "clip_text")
    return 100 * float((clip_image_features(frames, place) @ clip_text_features(prompt, place)).double().mean())


CLIP_TEXT = Metric(
    name="clip_text",
    definition="100 x cosine between CLIP's features of a frame and of the prompt, mean over frames",
    range="-100 to 100 (in practice 15 to 35)",
    better="higher",
    unit="",
    source="CLIPScore, Hessel et al. 2021; LOVEU-TGVE, V2VBench (frame-text alignment)",
    cost="2 s for 16 frames of any size (ViT-B/16)",
    aspect="text",
    compares="text",
    function=clip_text,
    weights=WEIGHTS,
)
