"""RAFT filled with numbers in closed form, the same on every machine and version."""

from __future__ import annotations

import torch
from torch import Tensor

from ieadapt.metrics.networks.raft import Raft, RaftSize

_ONES = ("norm1.weight", "norm2.weight", "downsample.1.weight", "running_var")


def state(size: RaftSize) -> dict[str, Tensor]:
    """Weights of ordinary spread, and a small last layer, so that the flow stays within a picture."""
    return {name: _filled(name, number, value) for number, (name, value) in enumerate(Raft(size).state_dict().items())}


def _filled(name: str, number: int, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    spread = (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1
    spread *= 0.07 if "flow_head.conv2" in name else 1.4
    turns = torch.arange(value.numel(), dtype=torch.float64).square() * 0.37 + number
    return (spread * turns.sin() + name.endswith(_ONES)).float().view_as(value)


def network(size: RaftSize) -> Raft:
    """The filled network."""
    made = Raft(size).eval()
    made.load_state_dict(state(size))
    return made
