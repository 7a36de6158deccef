"""LPIPS: the distance of unit-length features of a classifier, weighted per channel; AlexNet or VGG16.

ST-LPIPS is the same on an AlexNet that blurs before it subsamples, with weights of its own. Its numbers are not LPIPS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ieadapt.metrics.metric import Frames
from ieadapt.metrics.weights import read_state, reading

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_BATCH = 4

Pictures = Float[Tensor, "picture channel height width"]


@dataclass(frozen=True)
class Classifier:
    """A classifier's convolutions, in the order and with the numbers of its published weights.

    Attributes:
        name: of the heads' file in torchmetrics.
        layers: builds the convolutions.
        ends: the numbers of the layers at which each of the five depths ends, exclusive.
    """

    name: str
    layers: Callable[[], nn.Sequential]
    ends: tuple[int, ...]


@torch.no_grad()
def mean_distance(network: nn.Module, frames: Frames, reference: Frames) -> float:
    """The distance of each frame to its reference by a network of this page, mean over frames; pictures in [0, 1]."""
    pairs = zip(frames.split(_BATCH), reference.split(_BATCH), strict=True)
    return float(torch.cat([network(ours, theirs) for ours, theirs in pairs]).double().mean())


@lru_cache(maxsize=2)
def load_lpips(classifier: Classifier, path: Path) -> nn.Module:
    """LPIPS on a classifier.

    Args:
        classifier: which one.
        path: its published weights (`features.0.weight`, ...); further layers in the file are not used.

    Raises:
        FailureError: the file is of another network.
    """
    network = LPIPS(classifier).eval().requires_grad_(requires_grad=False)
    expected = f"the published weights of {classifier.name} for ImageNet (features.0.weight, ...)"
    with reading("the given weights", path, expected):
        state = {name.removeprefix("features."): value for name, value in read_state(path).items()}
        network.features.load_state_dict({name: state[name] for name in network.features.state_dict()})
    return network


class LPIPS(nn.Module):
    """The distance of two pictures; the heads come with torchmetrics (version 0.1 of the published ones)."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.features, self._ends = classifier.layers(), classifier.ends
        self.shift, self.scale = (torch.tensor(values).view(3, 1, 1) for values in (_SHIFT, _SCALE))
        self.heads = _heads(classifier.name)

    def forward(self, ours: Pictures, theirs: Pictures) -> Float[Tensor, " picture"]:
        """One distance per pair."""
        stages = [self.features[start:end] for start, end in pairwise((0, *self._ends))]
        return _distance((2 * torch.cat((ours, theirs)) - 1 - self.shift) / self.scale, stages, self.heads)


class ShiftTolerantLPIPS(nn.Module):
    """Distance of two pictures in [0, 1]; module names as in the published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = nn.Module()  # the six numbers are part of the weights
        self.scaling_layer.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.scaling_layer.register_buffer("scale", torch.ones(1, 3, 1, 1))
        layers = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, padding=2), _Blur(64), nn.ReLU()),
            *(nn.MaxPool2d(3, 1), _Blur(64), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
            *(nn.MaxPool2d(3, 1), _Blur(192), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
        )
        ends = enumerate(pairwise((0, 3, 7, 11, 13, 15)), start=1)  # a slice keeps the numbers of its layers
        self.net = nn.ModuleDict({f"slice{depth}": layers[start:end] for depth, (start, end) in ends})
        for depth, channels in enumerate((64, 192, 384, 256, 256)):
            head = nn.ModuleDict({"1": nn.Conv2d(channels, 1, 1, bias=False)})
            self.add_module(f"lin{depth}", nn.ModuleDict({"model": head}))

    def forward(self, ours: Pictures, theirs: Pictures) -> Float[Tensor, " picture"]:
        """One distance per pair of pictures."""
        heads = [self.get_parameter(f"lin{depth}.model.1.weight")[0] for depth in range(5)]
        shift, scale = self.scaling_layer.buffers()
        return _distance((2 * torch.cat((ours, theirs)) - 1 - shift) / scale, self.net.values(), heads)


class _Blur(nn.Module):
    """Halve the resolution after a 1-2-1 blur in both directions, with a mirrored margin of two pixels."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filt", torch.outer(taps, taps).expand(channels, 1, 3, 3).clone())

    def forward(self, signal: Tensor) -> Tensor:
        return F.conv2d(F.pad(signal, (2, 2, 2, 2), mode="reflect"), self.filt, stride=2, groups=len(self.filt))


def _distance(signals: Tensor, stages: Iterable[nn.Module], heads: Iterable[Tensor]) -> Float[Tensor, " picture"]:
    """Squared differences of unit-length features of the first half of the pictures and the second, depth by depth."""
    total = torch.zeros(len(signals) // 2)
    for stage, head in zip(stages, heads, strict=True):
        signals = stage(signals)
        first, second = (signals / (signals.norm(dim=1, keepdim=True) + 1e-10)).chunk(2)
        total = total + ((first - second).square() * head).sum(1).mean(dim=(1, 2))
    return total


def _heads(name: str) -> list[Tensor]:
    state = read_state(Path(str(files("torchmetrics") / f"functional/image/lpips_models/{name}.pth")))
    return [state[f"lin{depth}.model.1.weight"][0] for depth in range(5)]


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    )


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        channels = width or channels
    return nn.Sequential(*layers)


ALEXNET = Classifier("alex", _alexnet, (2, 5, 8, 10, 12))
VGG16 = Classifier("vgg", _vgg16, (4, 9, 16, 23, 30))
