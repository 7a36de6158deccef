"""Measuring: run a pipeline on some prompts and record entropy and energy of its attention."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers import DiffusionPipeline

from ieadapt.attention import Selection, denoisers_of, intercept
from ieadapt.attention.calls import DEFAULT_MEMORY_LIMIT
from ieadapt.interventions import Record
from ieadapt.methods.generation import GenerationConfig, Progress, generate
from ieadapt.methods.profile import EntropyProfile


def measure(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    config: GenerationConfig | None = None,
    *,
    seed: int = 0,
    sites: Selection = None,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
    progress: Progress | None = None,
) -> EntropyProfile:
    """The entropy profile of a pipeline on some prompts; exact, and no attention map is ever built.

    Args:
        pipe: any text-to-video pipeline.
        prompts: one prompt or several; figures are means over them.
        config: steps, size, guidance.
        seed: the first prompt's seed; the next prompts take the next ones.
        sites: which sites, as `select_sites` understands them; None for all.
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
    with intercept(pipe, Record(memory_limit), sites) as record:
        generate(pipe, listed, config, seed, progress)
    return EntropyProfile.from_rows(record.rows(), _metadata(pipe, listed, config, seed))


def _metadata(pipe: DiffusionPipeline, prompts: list[str], config: GenerationConfig, seed: int) -> dict[str, object]:
    denoiser = next(iter(denoisers_of(pipe).values()))
    return {
        "model": pipe.config.get("_name_or_path") or type(pipe).__name__,
        "pipeline": type(pipe).__name__,
        "denoiser": type(denoiser).__name__,
        "prompts": prompts,
        "seed": seed,
        "num_inference_steps": config.num_inference_steps,
        "guidance_scale": config.guidance_scale,
        "num_frames": config.num_frames,
        "height": config.height,
        "width": config.width,
    }
