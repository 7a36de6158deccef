"""Enhancement: guide the model away from its own prediction with some attention maps changed, or change the maps.

RECONSTRUCTION. The paper (arXiv 2504.12027) says that high-entropy attention goes with quality and that its method
adapts attention matrices while denoising, without training; which matrix, which layers and which formula it uses could
not be read. The forms here are perturbed-attention guidance (arXiv 2403.17377) with layers chosen by entropy, and the
adaptation of the maps themselves in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import find_sites, intercept, wrap_denoiser
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.enhance.combining import combining
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.direct import changing_maps, freeu, scaling_cross_frame
from ieadapt.tasks.enhance.guidance import guiding
from ieadapt.tasks.enhance.plan import Enhancement
from ieadapt.tasks.generate import Progress, generate
from ieadapt.tasks.measure.method import quick_profile, refuse_another_model
from ieadapt.tasks.measure.profile import EntropyProfile


@contextmanager
def enhancement(
    pipe: DiffusionPipeline,
    config: EnhanceConfig | None = None,
    profile: EntropyProfile | None = None,
    *,
    force: bool = False,
) -> Iterator[Enhancement]:
    """Enhance every call of the pipeline inside the block; yields what is changed and, as it runs, what it cost.

    In guidance mode, with `d = scale (eps_cond - eps_weak)`, `d` is added to the conditional and the unconditional
    prediction, which makes the guided prediction `eps_u + w (eps_c - eps_u) + d` for every guidance scale w, also a
    changing one. Without classifier-free guidance the prediction becomes `eps + d`. Costs one more pass over the
    conditional rows per step. In direct and combine mode nothing is added to the passes.

    Args:
        pipe: any pipeline of a known family; its own call stays as it is.
        config: what changes where, when and how strongly.
        profile: the model's entropy profile, where sites are chosen by entropy.
        force: go on with a profile of another model or size.

    Raises:
        UsageError: sites chosen by entropy without a profile, a profile of another model or size, a pipeline with
            `guidance_rescale` on, a schedule of the wrong length.
        FailureError: no step was enhanced inside the block, or a prediction is not finite.
    """
    config = config or EnhanceConfig()
    sites = find_sites(pipe)
    if profile is not None and not force:
        refuse_another_model(profile, pipe, sites)
    size = None if profile is None or force else profile.metadata.get("latent_grid")
    state = Enhancement(config, sites, profile, size)
    if config.scale == 0.0:
        yield state
        return
    direct = {"cross-frame": scaling_cross_frame, "freeu": freeu}.get(config.perturbation_name, changing_maps)
    install = {"guidance": guiding, "direct": direct, "combine": combining}[config.mode]
    with ExitStack() as stack:
        if config.online_steps:
            stack.enter_context(intercept(pipe, state.measure, state.candidates, guidance="all"))
        stack.enter_context(install(pipe, state))
        stack.enter_context(wrap_denoiser(pipe, state.watch))
        yield state
        state.require_used()


def enhance(
    pipe: DiffusionPipeline,
    prompt: str | Sequence[str],
    *,
    profile: EntropyProfile | None = None,
    config: EnhanceConfig | None = None,
    generation: GenerationConfig | None = None,
    seed: int | Sequence[int] = 0,
    progress: Progress | None = None,
    force: bool = False,
) -> Float[Tensor, "video frame channel height width"]:
    """Generate enhanced videos, one per prompt; float32 on the CPU, in [0, 1].

    Without a profile, one is measured first on the first prompts, in a few steps, unless `entropy` is `online`.

    Raises:
        UsageError, FailureError: as `enhancement` and `generate` do.
    """
    config, generation = config or EnhanceConfig(), generation or GenerationConfig()
    config.factors(generation.num_inference_steps)
    if profile is None and config.needs_profile:
        prompts, first = [prompt] if isinstance(prompt, str) else prompt, seed if isinstance(seed, int) else seed[0]
        profile = quick_profile(pipe, prompts, generation, seed=first)
    with enhancement(pipe, config, profile, force=force):
        return generate(pipe, prompt, generation, seed, progress)
