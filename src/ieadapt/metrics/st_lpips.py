"""ST-LPIPS: perceptual distance to the reference that tolerates small shifts. Not LPIPS: its numbers are its own."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ieadapt.metrics.clips import ClipSize, check_pair
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.weights import PackagedWeights, load_weights

LEAST = ClipSize(1, 8, 8)
WEIGHTS = PackagedWeights(
    package="stlpips_pytorch",
    requirement="stlpips_pytorch==0.0.2",
    file="weights/vST0.0/alex_shift_tolerant.pth",
    licence="BSD-2-Clause",
)
_CHANNELS = (64, 192, 384, 256, 256)
_LEAST_SIDE, _BATCH = 64, 4


def st_lpips(
    frames: Float[Tensor, "frame channel height width"],
    reference: Float[Tensor, "reference_frame reference_channel reference_height reference_width"],
) -> float:
    """Shift-tolerant LPIPS (AlexNet), mean over frames.

    A weighted squared distance of unit-length features at five depths of an AlexNet that blurs before it subsamples.
    Frames whose shorter side is under 64 pixels are enlarged to 64 first: the weights were fitted to 64x64 patches.

    Returns:
        0 (equal clips) upwards, unrelated photographs about 0.7; lower is closer.

    Raises:
        UsageError: the clips differ in size, are smaller than 8x8, not RGB in [0, 1], or the weights are not installed.
        FailureError: the weights cannot be read.

    Source: Ghildyal and Liu, Shift-tolerant perceptual similarity metric, ECCV 2022; weights of stlpips_pytorch 0.0.2.
    """
    check_pair(frames, reference, "st_lpips", LEAST)
    path = WEIGHTS.require("st_lpips")
    parts = zip(frames.split(_BATCH), reference.split(_BATCH), strict=True)
    return float(torch.cat([_distances(ours, theirs, path) for ours, theirs in parts]).double().mean())


@torch.no_grad()
def _distances(frames: Tensor, reference: Tensor, path: Path) -> Tensor:
    both = torch.cat((frames, reference))
    factor = _LEAST_SIDE / min(both.shape[-2:])
    if factor > 1:
        size = [round(side * factor) for side in both.shape[-2:]]
        both = F.interpolate(both, size, mode="bilinear")
    ours, theirs = both.chunk(2)
    return _network(path)(ours, theirs)


@lru_cache(maxsize=1)
def _network(path: Path) -> nn.Module:
    return load_weights(ShiftTolerantLPIPS(), path)


class ShiftTolerantLPIPS(nn.Module):
    """Distance of two pictures in [0, 1]; module names as in the published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = _Scaling()
        self.net = nn.ModuleDict(
            {
                "slice1": _stage(0, nn.Conv2d(3, 64, 11, padding=2), _Blur(64), nn.ReLU()),
                "slice2": _stage(3, nn.MaxPool2d(3, 1), _Blur(64), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
                "slice3": _stage(7, nn.MaxPool2d(3, 1), _Blur(192), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
                "slice4": _stage(11, nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
                "slice5": _stage(13, nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
            }
        )
        for depth, channels in enumerate(_CHANNELS):
            weigh = nn.ModuleDict({"1": nn.Conv2d(channels, 1, 1, bias=False)})
            self.add_module(f"lin{depth}", nn.ModuleDict({"model": weigh}))

    def forward(
        self, ours: Float[Tensor, "picture channel height width"], theirs: Float[Tensor, "picture channel height width"]
    ) -> Float[Tensor, " picture"]:
        """One distance per pair of pictures."""
        signals = self.scaling_layer(2 * torch.cat((ours, theirs)) - 1)
        total = torch.zeros(len(ours), dtype=signals.dtype)
        for depth, stage in enumerate(self.net.values()):
            signals = stage(signals)
            first, second = (signals / (signals.norm(dim=1, keepdim=True) + 1e-10)).chunk(2)
            weigh = self.get_submodule(f"lin{depth}.model.1")
            total = total + weigh((first - second).square()).mean(dim=(1, 2, 3))
        return total


class _Scaling(nn.Module):
    """Colours in [-1, 1] to about unit deviation; the six numbers are part of the weights."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        return (pictures - self.shift) / self.scale


class _Blur(nn.Module):
    """Halve the resolution after a 1-2-1 blur in both directions, with a mirrored margin of two pixels."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filt", torch.outer(taps, taps).expand(channels, 1, 3, 3).clone())

    def forward(self, signal: Tensor) -> Tensor:
        return F.conv2d(F.pad(signal, (2, 2, 2, 2), mode="reflect"), self.filt, stride=2, groups=len(self.filt))


def _stage(first: int, *layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict((str(first + index), layer) for index, layer in enumerate(layers)))


ST_LPIPS = Metric(
    name="st_lpips",
    definition="shift-tolerant LPIPS (AlexNet) to the reference, mean over frames; not comparable with LPIPS",
    range="0 upwards (equal clips read 0, unrelated photographs about 0.7)",
    better="lower",
    unit="",
    source="Ghildyal and Liu, ECCV 2022",
    cost="0.6 s for 16 frames of 64x64",
    aspect="structure",
    compares="pair",
    function=st_lpips,
    weights=WEIGHTS,
)
