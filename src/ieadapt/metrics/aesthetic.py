"""Aesthetic score: LAION's predictor of how people rate a picture, on CLIP's image features."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ieadapt.errors import FailureError
from ieadapt.metrics.backbones import CLIP, clip_image_features, place_of
from ieadapt.metrics.clips import ClipSize, check_clip
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.weights import NOWHERE, UNREADABLE, Given, GivenWeights, Places, load_weights, read_state

LEAST = ClipSize(1, 8, 8)
HEAD = Given("aesthetic", "LAION's aesthetic head", "the file sa_0_4_vit_l_14_linear.pth, with clip=ViT-L/14")
WEIGHTS = GivenWeights((CLIP, HEAD))
_WIDTHS = (1024, 128, 64, 16, 1)


def aesthetic(frames: Float[Tensor, "frame channel height width"], places: Places = NOWHERE) -> float:
    """LAION's aesthetic score, mean over frames: a linear head, or the improved predictor's layers, on CLIP features.

    Which of the two it is, the file says: the linear one has `weight` and `bias`, the improved one `layers.0.weight`
    and so on. VBench's aesthetic quality is the linear one on ViT-L/14, divided by 10.

    Returns:
        About 1 to 10; higher is liked better.

    Raises:
        UsageError: frames under 8x8, not RGB in [0, 1], or no CLIP model or head was given.
        FailureError: one of them cannot be read, or they do not fit each other.

    Source: LAION-AI, aesthetic-predictor (2022); Schuhmann, improved-aesthetic-predictor (2022).
    """
    check_clip(frames, "aesthetic", LEAST)
    place, head = (place_of(need, places, "aesthetic") for need in (CLIP, HEAD))
    features = clip_image_features(frames, place)
    return float(_head(head, features.shape[1])(features).double().mean())


@lru_cache(maxsize=2)
def _head(path: Path, width: int) -> nn.Module:
    try:
        state = read_state(path)
    except UNREADABLE as error:
        raise FailureError("the given aesthetic head cannot be read", got=type(error).__name__, where=path) from error
    first = next((value for name, value in state.items() if name.endswith("weight")), torch.zeros(1, 0))
    if first.shape[-1] != width:
        raise FailureError(
            "the aesthetic head and the CLIP model do not fit each other",
            expected=f"a head for {width} features, as the CLIP model gives",
            got=f"one for {first.shape[-1]}",
            where=path,
            remedy="the published heads belong to openai/clip-vit-large-patch14",
        )
    return load_weights(nn.Linear(width, 1) if "weight" in state else ImprovedHead(width), path)


class ImprovedHead(nn.Module):
    """The improved predictor: linear layers without nonlinearity between them; names as in the published weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, wider in enumerate(_WIDTHS):
            layers += [nn.Linear(width, wider), *([nn.Dropout(0.0)] if index < 3 else [])]
            width = wider
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Float[Tensor, "frame feature"]) -> Float[Tensor, "frame 1"]:
        """One score per row of unit-length features."""
        return self.layers(features)


AESTHETIC = Metric(
    name="aesthetic",
    definition="LAION's aesthetic score on CLIP image features, mean over frames",
    range="about 1 to 10",
    better="higher",
    unit="",
    source="LAION-AI, aesthetic-predictor 2022",
    cost="8 s for 16 frames of any size (ViT-L/14)",
    aspect="quality",
    compares="single",
    function=aesthetic,
    weights=WEIGHTS,
)
