"""MobileNetV2, an image classifier, up to its features."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ieadapt.metrics.metric import Frames
from ieadapt.metrics.weights import load_network

_SIDE, _BATCH = 224, 8
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# expansion, channels, blocks, stride of the first block: table 2 of the paper
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@torch.no_grad()
def mobilenet_features(frames: Frames, weights: Path) -> Float[Tensor, "frame feature"]:
    """The 1280 pooled features of every frame, resized to 224x224; frames in [0, 1].

    Raises:
        FailureError: the weights cannot be read.
    """
    network = load_network(MobileNetV2, weights)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _DEVIATION))
    resized = [F.interpolate(part, (_SIDE, _SIDE), mode="bilinear", antialias=True) for part in frames.split(_BATCH)]
    return torch.cat([network((part - mean) / deviation) for part in resized])


class MobileNetV2(nn.Module):
    """The features of MobileNetV2 at width 1, before its classifier; module names as in the published weights."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 32, stride=2)]
        channels = 32
        for expansion, width, blocks, stride in _STAGES:
            for block in range(blocks):
                layers.append(_Block(channels, width, stride if block == 0 else 1, expansion))
                channels = width
        self.features = nn.Sequential(*layers, _convolution(channels, 1280, kernel=1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, pictures: Float[Tensor, "picture channel height width"]) -> Float[Tensor, "picture feature"]:
        """Pooled features of normalised pictures."""
        return self.features(pictures).mean(dim=(2, 3))


class _Block(nn.Module):
    """Inverted residual: widen, filter each channel, narrow without a nonlinearity."""

    def __init__(self, channels: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        widen = [_convolution(channels, hidden, kernel=1)] if expansion > 1 else []
        depthwise = _convolution(hidden, hidden, stride=stride, groups=hidden)
        self.conv = nn.Sequential(*widen, depthwise, nn.Conv2d(hidden, width, 1, bias=False), nn.BatchNorm2d(width))
        self.residual = stride == 1 and channels == width

    def forward(self, signal: Tensor) -> Tensor:
        return signal + self.conv(signal) if self.residual else self.conv(signal)


def _convolution(channels: int, width: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU6())
