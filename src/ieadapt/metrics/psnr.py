"""PSNR: how far the pixels are from the reference's."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ieadapt.metrics.clips import ClipSize, check_pair
from ieadapt.metrics.metric import Metric

LEAST = ClipSize(1, 1, 1)
CEILING = 100.0


def psnr(
    frames: Float[Tensor, "frame channel height width"],
    reference: Float[Tensor, "reference_frame reference_channel reference_height reference_width"],
) -> float:
    """Peak signal-to-noise ratio over the whole clip, in dB: -10 log10 of the mean squared error of colours in [0, 1].

    The error is averaged over all frames before the logarithm, so one equal frame does not lift the clip. Values above
    100 dB, and the infinity of equal clips, read 100, so that means over clips stay finite. It counts pixels: a shift
    by one, which no eye would see, costs much.

    Returns:
        0 (black against white) to 100 dB; higher is closer.

    Raises:
        UsageError: the clips differ in size, or are not RGB in [0, 1].

    Source: torchmetrics, `peak_signal_noise_ratio`.

    Example:
        >>> import torch
        >>> round(psnr(torch.full((2, 3, 4, 4), 0.6), torch.full((2, 3, 4, 4), 0.5)), 2)
        20.0
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio  # importing it takes seconds

    check_pair(frames, reference, "psnr", LEAST)
    value = peak_signal_noise_ratio(frames.double(), reference.double(), data_range=1.0)
    return min(float(value), CEILING)


PSNR = Metric(
    name="psnr",
    definition="peak signal-to-noise ratio to the reference, of the mean squared error over the whole clip",
    range="0 to 100 (equal clips read 100)",
    better="higher",
    unit="dB",
    source="torchmetrics, peak_signal_noise_ratio",
    cost="2 ms for 16 frames of 64x64",
    aspect="structure",
    compares="pair",
    function=psnr,
)
