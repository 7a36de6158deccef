"""The videos of a study: unperturbed twins, and batches of perturbed ones that share a condition."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import GuidanceChoice, intercept
from ieadapt.interventions import parse_perturbation
from ieadapt.tasks.generate import GenerationConfig, generate
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.grid import Condition
from ieadapt.tasks.study.late_start import can_start_late, kept_latents, late_start


@dataclass(frozen=True)
class Twin:
    """The unperturbed video of a prompt and seed.

    Attributes:
        frames: in [0, 1].
        latents: those with which the first perturbed step begins; None where runs begin at step 0.
    """

    frames: Float[Tensor, "frame channel height width"]
    latents: Tensor | None = None


Pairs = Sequence[tuple[str, int]]
"""Prompts with their seeds."""


def first_step(pipe: DiffusionPipeline, config: StudyConfig, generation: GenerationConfig) -> int:
    """The step at which perturbed runs begin: the window's first, or 0 where the scheduler keeps a history."""
    start = config.perturbed.steps(generation.num_inference_steps).start
    return start if can_start_late(pipe) else 0


def make_twins(pipe: DiffusionPipeline, pairs: Pairs, config: StudyConfig, generation: GenerationConfig) -> list[Twin]:
    """Generate unperturbed videos, all in batches of `generation.batch_size`, and keep where the window begins.

    Args:
        pipe: any text-to-video pipeline.
        pairs: prompts and seeds, one video each.
        config: its window says which latents are kept.
        generation: steps, size, guidance.
    """
    start = first_step(pipe, config, generation)
    prompts, seeds = [prompt for prompt, _ in pairs], [seed for _, seed in pairs]
    with kept_latents(pipe, start) as kept:
        videos = generate(pipe, prompts, generation, seeds)
    latents: Sequence[Tensor | None] = list(torch.cat(kept)) if start else [None] * len(pairs)
    return [Twin(video, latent) for video, latent in zip(videos, latents, strict=True)]


def make_perturbed(
    pipe: DiffusionPipeline,
    condition: Condition,
    pairs: Pairs,
    twins: Sequence[Twin],
    config: StudyConfig,
    generation: GenerationConfig,
) -> Float[Tensor, "video frame channel height width"]:
    """Generate the same videos as one batch, with the maps of a condition replaced inside the window.

    Noise is drawn per video, so that a video does not depend on its batch, up to rounding. Where the window begins
    later, the run starts from the twins' latents there.

    Args:
        pipe: the pipeline that made the twins.
        condition: which maps are replaced by what.
        pairs: prompts and seeds.
        twins: the unperturbed videos of these, in this order.
        config: window and branch.
        generation: steps, size, guidance.

    Raises:
        UsageError: the condition names a site or head that the model lacks.
        FailureError: a site never fired, or the frames are not finite.
    """
    begins = first_step(pipe, config, generation)
    window = config.perturbed.after(begins, generation.num_inference_steps)
    heads = None if condition.head is None else (condition.head,)
    guidance: GuidanceChoice = "all" if config.branch == "both" else "cond"
    together = dataclasses.replace(generation, batch_size=len(pairs))
    prompts, seeds = [prompt for prompt, _ in pairs], [seed for _, seed in pairs]
    perturbation = parse_perturbation(condition.perturbation)
    with intercept(pipe, perturbation, list(condition.sites), window, guidance=guidance, heads=heads):
        if not begins:
            return generate(pipe, prompts, together, seeds)
        latents = torch.stack([twin.latents for twin in twins if twin.latents is not None])
        with late_start(pipe, latents, begins):
            return generate(pipe, prompts, together, seeds)
