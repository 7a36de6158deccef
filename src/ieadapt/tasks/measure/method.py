"""Measuring: run a pipeline on some prompts and record entropy and energy of its attention."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from diffusers import DiffusionPipeline
from torch import Tensor

from ieadapt.attention import DenoiserCall, Selection, intercept, wrap_denoiser
from ieadapt.functional import DEFAULT_MEMORY_LIMIT
from ieadapt.interventions import Record
from ieadapt.tasks.generate import GenerationConfig, Progress, generate, made_size
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.profile_match import identity_of

QUICK_STEPS, QUICK_PROMPTS = 5, 4
"""Of a profile that nobody asked for: enough to rank self-attention sites."""


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
        prompts: one prompt or several; figures are means over them.
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
        >>> pipe = ieadapt.load("shapes")  # doctest: +SKIP
        >>> ieadapt.measure(pipe, "a big red ball moving left over bricks").by_site()  # doctest: +SKIP
    """
    config = config or GenerationConfig()
    listed = [prompts] if isinstance(prompts, str) else list(prompts)
    grid = _Grid()
    recording = intercept(pipe, Record(memory_limit, rows), sites, guidance="all")
    with recording as record, wrap_denoiser(pipe, grid):
        videos = generate(pipe, listed, config, seed, progress)
    measured = {"rows": rows, "latent_grid": grid.found, **made_size(videos)}
    return EntropyProfile.from_rows(record.records(), _metadata(pipe, listed, config, seed) | measured)


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


class _Grid:
    """Notices the frames, rows and columns of tokens that the model works on."""

    def __init__(self) -> None:
        self.found: list[int] | None = None

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> None:
        if call.grid is not None:
            self.found = [call.grid.frames, *call.grid.resolutions[0]]


def _metadata(pipe: DiffusionPipeline, prompts: list[str], config: GenerationConfig, seed: int) -> dict[str, object]:
    return {
        **identity_of(pipe),
        "prompts": prompts,
        "seed": seed,
        "num_inference_steps": config.num_inference_steps,
        "guidance_scale": config.guidance_scale,
    }
