"""MS-SSIM: how well structure agrees with the reference's, from fine to coarse."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.metrics.clips import ClipSize, check_pair
from ieadapt.metrics.metric import Metric

LEAST = ClipSize(1, 176, 176)
_BATCH = 4


def ms_ssim(
    frames: Float[Tensor, "frame channel height width"],
    reference: Float[Tensor, "reference_frame reference_channel reference_height reference_width"],
) -> float:
    """Multi-scale structural similarity, mean over frames: SSIM's contrast and structure at five halvings.

    Weights of the five scales 0.0448, 0.2856, 0.3001, 0.2363, 0.1333; Gaussian window of sigma 1.5 and 11 pixels, which
    must still fit at the coarsest scale: frames of 176x176 pixels or more. Negative structure at a scale counts as 0.

    Returns:
        0 to 1; 1 only for equal clips; higher is closer.

    Raises:
        UsageError: the clips differ in size, are smaller than 176x176, or are not RGB in [0, 1].

    Source: Wang et al., Multiscale structural similarity for image quality assessment, Asilomar 2003; torchmetrics,
    `multiscale_structural_similarity_index_measure`.

    Example:
        >>> frames = torch.rand(1, 3, 176, 176, generator=torch.Generator().manual_seed(0))
        >>> round(ms_ssim(frames, frames), 4)
        1.0
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure

    check_pair(frames, reference, "ms_ssim", LEAST)
    pairs = zip(frames.split(_BATCH), reference.split(_BATCH), strict=True)
    values = [
        torch.as_tensor(measure(ours, theirs, data_range=1.0, reduction="none", normalize="relu")).reshape(-1)
        for ours, theirs in pairs
    ]
    return float(torch.cat(values).double().mean())


MS_SSIM = Metric(
    name="ms_ssim",
    definition="multi-scale structural similarity to the reference over five scales, mean over frames",
    range="0 to 1 (equal clips read 1)",
    better="higher",
    unit="",
    source="Wang et al., Asilomar 2003; torchmetrics, multiscale_structural_similarity_index_measure",
    cost="2 s for 16 frames of 256x256",
    aspect="structure",
    compares="pair",
    function=ms_ssim,
)
