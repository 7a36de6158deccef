"""Random weights that make every layer matter, drawn from one seed whatever the libraries' own initialisation is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

ATTENTION_GAIN = 2.0


def randomise(model: nn.Module, seed: int) -> None:
    """Fill a model in place: matrices by fan-in, norms around one, biases small, queries and keys sharper.

    Output projections that a library starts at zero (motion modules, temporal convolutions) get weights like any
    other, so that temporal attention changes the video; sharper queries and keys keep attention maps away from
    uniform. The model is left in evaluation mode, as a loaded one is: some of these families have dropout.
    """
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * _spread(name, parameter) + _centre(name, parameter))


def randomise_each(models: Iterable[nn.Module], seed: int) -> None:
    """Fill several models, each from a seed of its own."""
    for offset, model in enumerate(models):
        randomise(model, seed + offset)


def _centre(name: str, parameter: torch.Tensor) -> float:
    return 1.0 if _is_norm(name, parameter) else 0.0


def _spread(name: str, parameter: torch.Tensor) -> float:
    if parameter.ndim < 2 or _is_norm(name, parameter):
        return 0.1
    fan_in = parameter.numel() / parameter.shape[0]
    sharp = any(part in name for part in ("to_q.", "to_k.", "add_q_proj.", "add_k_proj."))
    return float((ATTENTION_GAIN if sharp else 1.0) * fan_in**-0.5)


def _is_norm(name: str, parameter: torch.Tensor) -> bool:
    return name.endswith(("weight", "gamma")) and parameter.numel() == max(parameter.shape, default=1)
