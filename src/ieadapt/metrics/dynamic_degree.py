"""Dynamic degree: does anything in the video move, by VBench's rule?"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.metrics.backbones import place_of
from ieadapt.metrics.clips import USUAL_RATE, ClipSize, check_clip
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.raft import RAFT_WEIGHTS, WEIGHTS, padded_flow
from ieadapt.metrics.weights import NOWHERE, Places

LEAST = ClipSize(3, 128, 128)
_FASTEST = 0.05
_PIXELS, _SIDE = 6.0, 256
_PAIRS, _FRAMES = 4, 16


def dynamic_degree(
    frames: Float[Tensor, "frame channel height width"], rate: float = USUAL_RATE, places: Places = NOWHERE
) -> float:
    """1 where enough of the frames move far enough by RAFT's flow, else 0; the mean over videos is VBench's number.

    The video is taken at about 8 frames per second. A pair of neighbouring frames moves if the fastest 5 % of its
    pixels move by more than 6 pixels on average, for a shorter side of 256 and 8 frames per second; in a video of 16
    frames 4 pairs must. VBench counts the margins up to multiples of 8 as pixels, and so does this.

    Args:
        frames: a clip in [0, 1].
        rate: frames per second.
        places: where RAFT's weights are.

    Returns:
        0 or 1; neither is better by itself, but a method that lowers it freezes videos.

    Raises:
        UsageError: fewer than three frames, frames under 128x128, not RGB in [0, 1], no weights were given, or a rate
            that is not positive.
        FailureError: the weights cannot be read.

    Source: Huang et al., VBench, CVPR 2024; dynamic_degree.py of its repository. There a video of two frames always
    counts as moving; its version 0.1.5 does not ask for more where the rate is under 8.
    """
    check_clip(frames, "dynamic_degree", LEAST)
    if rate <= 0:
        raise UsageError("a video has a rate", expected="> 0", got=rate, where="the metric dynamic_degree")
    place = place_of(RAFT_WEIGHTS, places, "dynamic_degree")
    sampled = frames[:: max(1, round(rate / USUAL_RATE))]
    return float(moves(fastest_motion(padded_flow(sampled, place)), rate, min(frames.shape[2:])))


def fastest_motion(flow: Float[Tensor, "pair vector height width"]) -> Float[Tensor, " pair"]:
    """Mean length of the longest 5 % of the vectors of every pair.

    Example:
        >>> import torch
        >>> fastest_motion(torch.arange(20.0).expand(1, 2, 1, 20) * torch.tensor([1.0, 0.0]).view(2, 1, 1)).tolist()
        [19.0]
    """
    lengths = flow.norm(dim=1).flatten(1)
    return lengths.topk(max(1, int(lengths.shape[1] * _FASTEST)), dim=1).values.mean(dim=1)


def moves(fastest: Float[Tensor, " pair"], rate: float, side: int) -> bool:
    """VBench's rule on the motion of each pair of frames, in pixels.

    Args:
        fastest: of `fastest_motion`, of frames taken at about 8 per second.
        rate: frames per second of the video before.
        side: the shorter side of its frames.

    Example:
        >>> import torch
        >>> moves(torch.tensor([7.0, 0.0, 0.0]), 8.0, 256), moves(torch.tensor([7.0, 0.0, 0.0]), 8.0, 512)
        (True, False)
    """
    threshold = max(1.0, USUAL_RATE / rate) * _PIXELS * side / _SIDE
    wanted = max(1, round(_PAIRS * (len(fastest) + 1) / _FRAMES))
    return int((fastest > threshold).sum()) >= wanted


DYNAMIC_DEGREE = Metric(
    name="dynamic_degree",
    definition="1 where the fastest 5 % of the pixels move far enough in enough frames, by RAFT's flow, else 0",
    range="0 or 1; the mean is the share of videos that move",
    better="context",
    unit="",
    source="Huang et al., VBench, CVPR 2024; RAFT, Teed and Deng, ECCV 2020",
    cost="15 s for 16 frames of 256x256",
    aspect="motion",
    compares="timed",
    function=dynamic_degree,
    weights=WEIGHTS,
)
