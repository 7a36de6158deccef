"""Measuring: run a pipeline on some prompts and record entropy and energy of its attention."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from ieadapt.attention import AttentionSite, DenoiserCall, Selection, denoisers_of, intercept, wrap_denoiser
from ieadapt.errors import UsageError
from ieadapt.functional import DEFAULT_MEMORY_LIMIT
from ieadapt.interventions import Record
from ieadapt.runs.pipelines import name_of
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.generate import Progress, generate, made_size
from ieadapt.tasks.measure.profile import EntropyProfile

QUICK_STEPS, QUICK_PROMPTS = 5, 4
"""Of a profile that is measured because a run needs one: enough to rank self-attention sites."""
WEIGHT_SAMPLES = 32
CLOSE = 0.02, 1e-3
"""Relative and absolute: rounding to float16 or bfloat16 stays within them; another training run does not."""


def measure(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    config: GenerationConfig | None = None,
    *,
    seed: int = 0,
    sites: Selection = None,
    rows: str = "all",
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
    progress: Progress | None = None,
) -> EntropyProfile:
    """The entropy profile of a pipeline on some prompts; exact, and no attention map is ever built.

    Rows of both guidance branches are measured, each under its own name.

    Args:
        pipe: any text-to-video pipeline.
        prompts: one prompt or several; the values are means over them.
        config: steps, size, guidance.
        seed: the first prompt's seed; the next prompts take the next ones.
        sites: which sites, as `select_sites` understands them; None for all.
        rows: "all" measures every query row, exactly; "sample:0.05" a random 5 % of them, with a standard error.
        memory_limit: bytes that the temporaries of one attention call may take.
        progress: called with (denoising steps done, denoising steps in all).

    Raises:
        UsageError: prompts or sites that cannot be.
        FailureError: a site never fired, or attention is not finite.

    Example:
        >>> pipe = ieadapt.load("scenes")  # doctest: +SKIP
        >>> ieadapt.measure(pipe, "a big red ball moving left over bricks").by_site()  # doctest: +SKIP
    """
    config = config or GenerationConfig()
    listed = [prompts] if isinstance(prompts, str) else list(prompts)
    grid: list[int] = []

    def see_grid(call: DenoiserCall, prediction: Tensor) -> None:
        if call.grid is not None:
            grid[:] = [call.grid.frames, *call.grid.resolutions[0]]

    recording = intercept(pipe, Record(memory_limit, rows), sites, guidance="all")
    with recording as record, wrap_denoiser(pipe, see_grid):
        videos = generate(pipe, listed, config, seed, progress)
    metadata = {
        **identity_of(pipe),
        "prompts": listed,
        "seed": seed,
        "num_inference_steps": config.num_inference_steps,
        "guidance_scale": config.guidance_scale,
        "rows": rows,
        **({"inputs": dict(config.call)} if config.call else {}),
        "latent_grid": grid or None,
        **made_size(videos),
    }
    return EntropyProfile.from_rows(record.records(), metadata)


def quick_profile(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    generation: GenerationConfig,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> EntropyProfile:
    """The profile by which sites are chosen where none was given: a few of the prompts, in a few steps.

    The library, the command line and the web app choose from the same one, so that equal requests choose equal sites.

    Raises:
        UsageError, FailureError: as `measure` does.
    """
    steps = min(QUICK_STEPS, generation.num_inference_steps)
    quick = dataclasses.replace(generation, num_inference_steps=steps)
    return measure(pipe, list(prompts[:QUICK_PROMPTS]), quick, seed=seed, progress=progress)


def identity_of(pipe: DiffusionPipeline) -> dict[str, Any]:
    """What tells a model from another, for a profile's metadata: name, pipeline, denoiser, a sample of its weights."""
    denoiser = next(iter(denoisers_of(pipe).values()))
    return {
        "model": name_of(pipe),
        "pipeline": type(pipe).__name__,
        "denoiser": type(denoiser).__name__,
        "weights_sample": _sample(denoiser),
    }


def _sample(denoiser: torch.nn.Module) -> list[float] | None:
    """One weight of some tensors; adapters (LoRA) are left out.

    None where weights are not in memory (offloading) or not as they were (quantised, or kept in 8 bits).
    """
    tensors = [tensor for name, tensor in denoiser.named_parameters() if "lora" not in name]
    some = tensors[:: max(1, len(tensors) // WEIGHT_SAMPLES)][:WEIGHT_SAMPLES]
    if any(tensor.is_meta or tensor.itemsize < 2 or type(tensor.data) is not torch.Tensor for tensor in some):
        return None
    picked = torch.stack([tensor.detach().flatten()[tensor.numel() // 2].float().cpu() for tensor in some])
    return [round(value, 6) for value in picked.tolist()]


def refuse_another_model(profile: EntropyProfile, pipe: DiffusionPipeline, sites: Sequence[AttentionSite]) -> None:
    """Refuse a profile that was measured on another model: another class, other sites, or other weights.

    Raises:
        UsageError: with the first difference.
    """
    running, measured = identity_of(pipe), profile.metadata
    classes = [name for name in ("pipeline", "denoiser") if measured.get(name) not in (None, running[name])]
    heads = {site.name: site.heads for site in sites}
    foreign = next((site for site in profile.sites if heads.get(site.name) != site.heads), None)
    samples = [known["weights_sample"] for known in (running, measured) if known.get("weights_sample") is not None]
    if classes:
        expected, got = (", ".join(str(each[name]) for name in classes) for each in (running, measured))
    elif foreign is not None:
        expected = f"{heads[foreign.name]} heads" if foreign.name in heads else "no such site"
        got = f"{foreign.name} with {foreign.heads} heads"
    elif len(samples) == 2 and not _equal_weights(*samples):
        names = [PurePath(str(known.get("model"))).name for known in (running, measured)]
        expected, got = f"the weights of {names[0]}", f"others, of {names[1]}"
    else:
        return
    raise UsageError(
        "the profile was measured on another model",
        expected=expected,
        got=got,
        remedy="measure this model, or force the run (--force)",
    )


def _equal_weights(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and torch.allclose(torch.tensor(one), torch.tensor(other), *CLOSE)
