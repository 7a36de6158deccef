"""What networks that were fitted to people's words and choices say of a clip: beside its prompt, or by itself."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from ieadapt.errors import FailureError
from ieadapt.metrics.metric import ClipSize, Frames, Metric
from ieadapt.metrics.networks.transformers import CLIP, clip_image_features, clip_scale, clip_text_features
from ieadapt.metrics.weights import UserWeights, WeightSet, load_weights, read_state, reading

_WIDTHS, _NUMBERS = (1024, 128, 64, 16, 1), "02467"  # of the improved predictor's layers; dropout takes 1, 3 and 5
_HEAD = WeightSet("aesthetic", "LAION's aesthetic head", "the file sa_0_4_vit_l_14_linear.pth, with clip=ViT-L/14")
_of_clip = partial(Metric, better="higher", least=ClipSize(1, 8, 8))


@partial(
    _of_clip,
    definition="LAION's aesthetic score on CLIP image features, mean over frames",
    range="about 1 to 10",
    source="LAION-AI, aesthetic-predictor 2022",
    cost="8 s for 16 frames of any size (ViT-L/14)",
    aspect="quality",
    weights=UserWeights((CLIP, _HEAD)),
)
def aesthetic(frames: Frames, clip: Path, head: Path) -> float:
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
    features = clip_image_features(frames, clip)
    return float(_head(head, features.shape[1])(features).double().mean())


@lru_cache(maxsize=2)
def _head(path: Path, width: int) -> nn.Module:
    with reading("the given aesthetic head", path):
        state = read_state(path)
    first = next((value for name, value in state.items() if name.endswith("weight")), torch.zeros(1, 0))
    if first.shape[-1] != width:
        raise FailureError(
            "the aesthetic head and the CLIP model do not fit each other",
            expected=f"a head for {width} features, as the CLIP model gives",
            got=f"one for {first.shape[-1]}",
            where=path,
            remedy="the published heads belong to openai/clip-vit-large-patch14",
        )
    return load_weights(nn.Linear(width, 1) if "weight" in state else improved_head(width), path)


def improved_head(width: int) -> nn.Module:
    """The improved predictor: linear layers without nonlinearity between them; names as in the published weights."""
    shapes = zip(_NUMBERS, pairwise((width, *_WIDTHS)), strict=True)
    layers = nn.Sequential(OrderedDict((number, nn.Linear(*shape)) for number, shape in shapes))
    return nn.Sequential(OrderedDict(layers=layers))


@partial(
    _of_clip,
    definition="100 x cosine between CLIP's features of a frame and of the prompt, mean over frames",
    range="-100 to 100 (in practice 15 to 35)",
    source="CLIPScore, Hessel et al. 2021; LOVEU-TGVE, V2VBench (frame-text alignment)",
    cost="2 s for 16 frames of any size (ViT-B/16)",
    aspect="text",
    compares="text",
    weights=UserWeights((CLIP,)),
)
def clip_text(frames: Frames, prompt: str, clip: Path) -> float:
    """100 times the cosine between CLIP's features of a frame and of the prompt, mean over frames.

    Words beyond what the model takes (77 tokens) are cut off. Numbers of different CLIP models are not comparable.

    Returns:
        -100 to 100, in practice 15 to 35; higher is closer to the prompt.

    Raises:
        UsageError: frames under 8x8, not RGB in [0, 1], or no CLIP model was given.
        FailureError: the model cannot be read.

    Source: Hessel et al., CLIPScore, 2021 (there cut at 0); LOVEU-TGVE and V2VBench (frame-text alignment).
    """
    return 100 * float((clip_image_features(frames, clip) @ clip_text_features(prompt, clip)).double().mean())


@partial(
    _of_clip,
    definition="PickScore's scaled cosine between a frame and the prompt, mean over frames",
    range="in practice 17 to 24",
    source="Kirstain et al., NeurIPS 2023",
    cost="20 s for 16 frames of any size (ViT-H/14)",
    aspect="text",
    compares="text",
    weights=UserWeights((WeightSet("pickscore", "PickScore's CLIP model", "yuvalkirstain/PickScore_v1"),)),
)
def pickscore(frames: Frames, prompt: str, clip: Path) -> float:
    """PickScore's cosine between a frame and the prompt, times the model's own scale; mean over frames.

    LOVEU-TGVE reports this number; V2VBench divides it by 100.

    Returns:
        In practice 17 to 24; higher is preferred.

    Raises:
        UsageError: frames under 8x8, not RGB in [0, 1], or no model was given.
        FailureError: the model cannot be read.

    Source: Kirstain et al., Pick-a-Pic, NeurIPS 2023.
    """
    cosines = clip_image_features(frames, clip) @ clip_text_features(prompt, clip)
    return clip_scale(clip) * float(cosines.double().mean())


METRICS = (aesthetic, clip_text, pickscore)
