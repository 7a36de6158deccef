"""Whether a profile is of the model that is about to run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from diffusers import DiffusionPipeline

from ieadapt.attention import AttentionSite, denoisers_of
from ieadapt.errors import UsageError
from ieadapt.methods.profile import EntropyProfile


def identity_of(pipe: DiffusionPipeline) -> dict[str, str]:
    """What tells a model from another: model, pipeline class, denoiser class."""
    denoiser = next(iter(denoisers_of(pipe).values()))
    return {
        "model": str(pipe.config.get("_name_or_path") or type(pipe).__name__),
        "pipeline": type(pipe).__name__,
        "denoiser": type(denoiser).__name__,
    }


def refuse_another_model(profile: EntropyProfile, pipe: DiffusionPipeline, sites: Sequence[AttentionSite]) -> None:
    """Refuse a profile that was measured on another model.

    The model's name counts without its folder; a profile that does not say what it was measured on is judged by its
    sites alone.

    Raises:
        UsageError: with the differences.
    """
    running = identity_of(pipe)
    told = {name: profile.metadata[name] for name in running if profile.metadata.get(name)}
    other = [name for name in told if _short(told[name]) != _short(running[name])]
    expected = ", ".join(f"{name} {_short(running[name])}" for name in other)
    got = ", ".join(f"{name} {_short(told[name])}" for name in other)
    if not other:
        heads = {site.name: f"{site.heads} heads" for site in sites}
        foreign = next((site for site in profile.sites if heads.get(site.name) != f"{site.heads} heads"), None)
        if foreign is None:
            return
        expected = f"{heads.get(foreign.name, 'no site')} at {foreign.name}"
        got = f"{foreign.heads} heads"
    raise UsageError(
        "the profile was measured on another model",
        expected=expected,
        got=got,
        remedy="measure this model, or force the run (--force)",
    )


def _short(name: Any) -> str:
    return PurePath(str(name)).name
