"""LPIPS (AlexNet): perceptual distance to the reference."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from ieadapt.metrics.backbones import place_of
from ieadapt.metrics.clips import ClipSize, check_pair
from ieadapt.metrics.lpips_network import Trunk, lpips_distance
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.weights import NOWHERE, Given, GivenWeights, Places

LEAST = ClipSize(1, 64, 64)
NETWORK = Given("lpips_alex", "AlexNet's ImageNet weights", "the file alexnet-owt-7be5be79.pth of torchvision")
WEIGHTS = GivenWeights((NETWORK,))


def lpips_alex(
    frames: Float[Tensor, "frame channel height width"],
    reference: Float[Tensor, "reference_frame reference_channel reference_height reference_width"],
    places: Places = NOWHERE,
) -> float:
    """Learned perceptual image patch similarity with AlexNet, heads of version 0.1, mean over frames.

    Returns:
        0 (equal clips) to about 1; lower is closer.

    Raises:
        UsageError: the clips differ in size, are smaller than 64x64, not RGB in [0, 1], or no weights were given.
        FailureError: the weights cannot be read.

    Source: Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric, CVPR 2018.
    """
    check_pair(frames, reference, "lpips_alex", LEAST)
    place = place_of(NETWORK, places, "lpips_alex")
    return float(lpips_distance(frames, reference, TRUNK, place).double().mean())


def _layers() -> nn.Sequential:
    """AlexNet's convolutions, numbered as in the published weights."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


TRUNK = Trunk("alex", _layers, (1, 4, 7, 9, 11))

LPIPS_ALEX = Metric(
    name="lpips_alex",
    definition="LPIPS (AlexNet, heads 0.1) to the reference, mean over frames",
    range="0 to about 1 (equal clips read 0)",
    better="lower",
    unit="",
    source="Zhang et al., CVPR 2018; heads as torchmetrics carries them",
    cost="0.3 s for 16 frames of 64x64",
    aspect="structure",
    compares="pair",
    function=lpips_alex,
    weights=WEIGHTS,
)
