"""Whether a profile is of the model that is about to run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ieadapt.attention import AttentionSite, denoisers_of
from ieadapt.errors import UsageError
from ieadapt.tasks.measure.profile import EntropyProfile

SAMPLES = 32
CLOSE = 0.02, 1e-3
"""Relative and absolute: rounding to float16 or bfloat16 stays within them; another training run does not."""


def identity_of(pipe: DiffusionPipeline) -> dict[str, Any]:
    """What tells a model from another, for a profile's metadata: name, pipeline, denoiser, a sample of its weights."""
    denoiser = next(iter(denoisers_of(pipe).values()))
    return {
        "model": str(pipe.config.get("_name_or_path") or type(pipe).__name__),
        "pipeline": type(pipe).__name__,
        "denoiser": type(denoiser).__name__,
        "weights_sample": _sample(denoiser),
    }


def _sample(denoiser: torch.nn.Module) -> list[float] | None:
    """One weight of some tensors; adapters (LoRA) are left out.

    None where weights are not in memory (offloading) or not as they were (quantised, or kept in 8 bits).
    """
    tensors = [tensor for name, tensor in denoiser.named_parameters() if "lora" not in name]
    some = tensors[:: max(1, len(tensors) // SAMPLES)][:SAMPLES]
    if any(tensor.is_meta or tensor.itemsize < 2 or type(tensor.data) is not torch.Tensor for tensor in some):
        return None
    picked = torch.stack([tensor.detach().flatten()[tensor.numel() // 2].float().cpu() for tensor in some])
    return [round(value, 6) for value in picked.tolist()]


def refuse_another_model(profile: EntropyProfile, pipe: DiffusionPipeline, sites: Sequence[AttentionSite]) -> None:
    """Refuse a profile that was measured on another model: another class, other sites, or other weights.

    Raises:
        UsageError: with the first difference.
    """
    running, told = identity_of(pipe), profile.metadata
    classes = [name for name in ("pipeline", "denoiser") if told.get(name) and told[name] != running[name]]
    heads = {site.name: site.heads for site in sites}
    foreign = next((site for site in profile.sites if heads.get(site.name) != site.heads), None)
    if classes:
        expected, got = (", ".join(str(each[name]) for name in classes) for each in (running, told))
    elif foreign is not None:
        there = heads.get(foreign.name)
        expected = "no such site" if there is None else f"{there} heads"
        got = f"{foreign.name} with {foreign.heads} heads"
    elif not _same_weights(told.get("weights_sample"), running["weights_sample"]):
        expected, got = f"the weights of {_short(running)}", f"others, of {_short(told)}"
    else:
        return
    raise UsageError(
        "the profile was measured on another model",
        expected=expected,
        got=got,
        remedy="measure this model, or force the run (--force)",
    )


def _same_weights(told: Sequence[float] | None, running: Sequence[float] | None) -> bool:
    if told is None or running is None:
        return True
    return len(told) == len(running) and torch.allclose(torch.tensor(told), torch.tensor(running), *CLOSE)


def _short(named: Any) -> str:
    return PurePath(str(named.get("model"))).name
