"""LPIPS (VGG16): perceptual distance to the reference."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from ieadapt.metrics.backbones import place_of
from ieadapt.metrics.clips import ClipSize, check_pair
from ieadapt.metrics.lpips_network import Trunk, lpips_distance
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.weights import NOWHERE, Given, GivenWeights, Places

LEAST = ClipSize(1, 32, 32)
NETWORK = Given("lpips_vgg", "VGG16's ImageNet weights", "the file vgg16-397923af.pth of torchvision")
WEIGHTS = GivenWeights((NETWORK,))


def lpips_vgg(
    frames: Float[Tensor, "frame channel height width"],
    reference: Float[Tensor, "reference_frame reference_channel reference_height reference_width"],
    places: Places = NOWHERE,
) -> float:
    """Learned perceptual image patch similarity with VGG16, heads of version 0.1, mean over frames.

    Returns:
        0 (equal clips) to about 1; lower is closer.

    Raises:
        UsageError: the clips differ in size, are smaller than 32x32, not RGB in [0, 1], or no weights were given.
        FailureError: the weights cannot be read.

    Source: Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric, CVPR 2018.
    """
    check_pair(frames, reference, "lpips_vgg", LEAST)
    place = place_of(NETWORK, places, "lpips_vgg")
    return float(lpips_distance(frames, reference, TRUNK, place).double().mean())


def _layers() -> nn.Sequential:
    """VGG16's convolutions, numbered as in the published weights."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        channels = width or channels
    return nn.Sequential(*layers)


TRUNK = Trunk("vgg", _layers, (3, 8, 15, 22, 29))

LPIPS_VGG = Metric(
    name="lpips_vgg",
    definition="LPIPS (VGG16, heads 0.1) to the reference, mean over frames",
    range="0 to about 1 (equal clips read 0)",
    better="lower",
    unit="",
    source="Zhang et al., CVPR 2018; heads as torchmetrics carries them",
    cost="2 s for 16 frames of 64x64",
    aspect="structure",
    compares="pair",
    function=lpips_vgg,
    weights=WEIGHTS,
)
