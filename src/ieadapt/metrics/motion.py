"""How much moves in a clip: pixels by optical flow, anything at all by VBench's rule, brightness by ITU-T P.910."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.metrics.flow import Flow, optical_flow
from ieadapt.metrics.metric import GREY_LEVELS, USUAL_RATE, ClipSize, Frames, Metric, luma
from ieadapt.metrics.networks.raft import RAFT, padded_flow

_FASTEST = 0.05
_PIXELS, _SIDE = 6.0, 256
_PAIRS, _FRAMES = 4, 16
_motion = partial(Metric, aspect="motion", better="context")


@partial(
    _motion,
    definition="mean length of the optical flow (DIS) between neighbouring frames",
    range="0 upwards (a still clip reads 0)",
    unit="pixels per frame",
    source="OpenCV DIS (Kroeger et al., ECCV 2016); after VBench's dynamic degree",
    cost="0.1 s for 16 frames of 64x64",
    least=ClipSize(2, 12, 12),
)
def motion(frames: Frames) -> float:
    """Mean length of the optical flow, over pixels and neighbouring frames, in pixels of this clip per frame.

    Camera and objects both count; so does jitter. Flat areas show no motion: what the flow says there comes
    from their surroundings.

    Returns:
        0 (a still clip) upwards; neither way is better by itself, but a method that lowers it freezes the video.

    Raises:
        UsageError: fewer than two frames, frames under 12x12, or not RGB in [0, 1].

    Source: VBench's dynamic degree asks the same of RAFT's flow; here the flow is DIS and the mean is over all pixels.

    Example:
        >>> import torch
        >>> motion(torch.zeros(2, 3, 16, 24))
        0.0
    """
    return float(optical_flow(frames).norm(dim=1).double().mean())


@partial(
    _motion,
    definition="1 where the fastest 5 % of the pixels move far enough in enough frames, by RAFT's flow, else 0",
    range="0 or 1; the mean is the share of videos that move",
    source="Huang et al., VBench, CVPR 2024; RAFT, Teed and Deng, ECCV 2020",
    cost="15 s for 16 frames of 256x256",
    compares="timed",
    least=ClipSize(3, 128, 128),
    weights=RAFT,
)
def dynamic_degree(frames: Frames, rate: float, weights: Path) -> float:
    """1 where enough of the frames move far enough by RAFT's flow, else 0; the mean over videos is VBench's number.

    The video is taken at about 8 frames per second. A pair of neighbouring frames moves if the fastest 5 % of its
    pixels move by more than 6 pixels on average, for a shorter side of 256 and 8 frames per second; in a video of 16
    frames 4 pairs must. VBench counts the margins up to multiples of 8 as pixels, and so does this.

    Args:
        frames: a clip in [0, 1].
        rate: frames per second.
        weights: RAFT's.

    Returns:
        0 or 1; neither is better by itself, but a method that lowers it freezes videos.

    Raises:
        UsageError: fewer than three frames, frames under 128x128, not RGB in [0, 1], no weights were given, or a rate
            that is not positive.
        FailureError: the weights cannot be read.

    Source: Huang et al., VBench, CVPR 2024; dynamic_degree.py of its repository. There a video of two frames always
    counts as moving; its version 0.1.5 does not ask for more where the rate is under 8.
    """
    if rate <= 0:
        raise UsageError("a video has a rate", expected="> 0", got=rate, where="the metric dynamic_degree")
    sampled = frames[:: max(1, round(rate / USUAL_RATE))]
    return float(moves(fastest_motion(padded_flow(sampled, weights)), rate, min(frames.shape[2:])))


def fastest_motion(flow: Flow) -> Float[Tensor, " pair"]:
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
    enough = max(1, round(_PAIRS * (len(fastest) + 1) / _FRAMES))
    return int((fastest > threshold).sum()) >= enough


@partial(
    _motion,
    definition="largest deviation over the picture of the change of brightness between neighbouring frames (TI)",
    range="0 to 255 (a still clip reads 0)",
    unit="255ths",
    source="ITU-T P.910 (2008)",
    cost="2 ms for 16 frames of 64x64",
    least=ClipSize(2, 1, 1),
)
def temporal_information(frames: Frames) -> float:
    """Largest standard deviation, over the picture, of the change of brightness between neighbouring frames.

    The usual figure for how lively a video is, from which test clips are chosen. A cut sets it alone. ffmpeg's
    `siti` gives the same, up to its rounding of brightness to 8 bits.

    Returns:
        0 (a still clip, or one that only fades as a whole) to 255; neither way is better by itself.

    Raises:
        UsageError: fewer than two frames, or not RGB in [0, 1].

    Source: ITU-T P.910 (2008), section 5.3.2.

    Example:
        >>> import torch
        >>> clip = torch.zeros(2, 3, 2, 2)
        >>> clip[1, :, 0] = 1.0
        >>> round(temporal_information(clip), 1)
        127.5
    """
    changes = luma(frames.double()).diff(dim=0) * GREY_LEVELS
    return float(changes.std(dim=(1, 2), correction=0).max())


METRICS = (motion, dynamic_degree, temporal_information)
