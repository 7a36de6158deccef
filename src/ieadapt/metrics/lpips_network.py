"""LPIPS: the distance of unit-length features of a classifier, weighted per channel; AlexNet or VGG16."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ieadapt.errors import FailureError
from ieadapt.metrics.weights import UNREADABLE, read_state

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_BATCH = 4


@dataclass(frozen=True)
class Trunk:
    """A classifier's convolutions, in the order and with the numbers of its published weights.

    Attributes:
        name: of the heads' file in torchmetrics.
        layers: builds the convolutions.
        looked_at: the layers after which features are compared.
    """

    name: str
    layers: Callable[[], nn.Sequential]
    looked_at: tuple[int, ...]


def lpips_distance(
    frames: Float[Tensor, "frame channel height width"],
    reference: Float[Tensor, "frame channel height width"],
    trunk: Trunk,
    place: Path,
) -> Float[Tensor, " frame"]:
    """LPIPS of each frame to its reference; pictures in [0, 1].

    Args:
        frames: a clip.
        reference: of the same size.
        trunk: which classifier.
        place: its published weights (`features.0.weight`, ...); further layers in the file are not used.

    Raises:
        FailureError: the file is of another network.
    """
    network = _network(trunk, place)
    parts = zip(frames.split(_BATCH), reference.split(_BATCH), strict=True)
    with torch.no_grad():
        return torch.cat([network(ours, theirs) for ours, theirs in parts])


class LPIPS(nn.Module):
    """The distance of two pictures; the heads come with torchmetrics (version 0.1 of the published ones)."""

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.features, self._looked_at = trunk.layers(), trunk.looked_at
        self.register_buffer("shift", torch.tensor(_SHIFT).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(3, 1, 1))
        self.heads = _heads(trunk.name)

    def forward(
        self, ours: Float[Tensor, "picture channel height width"], theirs: Float[Tensor, "picture channel height width"]
    ) -> Float[Tensor, " picture"]:
        """One distance per pair."""
        signals = (2 * torch.cat((ours, theirs)) - 1 - self.shift) / self.scale
        total, depth = torch.zeros(len(ours)), 0
        for index, layer in enumerate(self.features):
            signals = layer(signals)
            if index in self._looked_at:
                first, second = (signals / (signals.square().sum(1, keepdim=True).sqrt() + 1e-10)).chunk(2)
                total = total + ((first - second).square() * self.heads[depth]).sum(1).mean(dim=(1, 2))
                depth += 1
        return total


def _heads(name: str) -> list[Tensor]:
    spec = importlib.util.find_spec("torchmetrics")
    file = Path(
        (spec.submodule_search_locations or [""])[0] if spec else "", f"functional/image/lpips_models/{name}.pth"
    )
    state = read_state(file)
    return [state[f"lin{depth}.model.1.weight"][0] for depth in range(5)]


@lru_cache(maxsize=2)
def _network(trunk: Trunk, place: Path) -> LPIPS:
    network = LPIPS(trunk).eval().requires_grad_(requires_grad=False)
    try:
        state = {name.removeprefix("features."): value for name, value in read_state(place).items()}
        wanted = network.features.state_dict()
        network.features.load_state_dict({name: state[name] for name in wanted})
    except UNREADABLE as error:
        raise FailureError(
            "the given weights cannot be read",
            expected=f"the published weights of {trunk.name} for ImageNet (features.0.weight, ...)",
            got=f"{type(error).__name__}: {(str(error).strip().splitlines() or [chr(0)])[0]}",
            where=place,
        ) from error
    return network
