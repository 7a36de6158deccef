"""Enhancement: guide the model away from its own prediction with some attention maps changed, or change the maps.

RECONSTRUCTION. The paper (arXiv 2504.12027) says that high-entropy attention goes with quality and that its method
adapts attention matrices while denoising, without training; which matrix, which layers and which formula it uses could
not be read. The forms here are perturbed-attention guidance (arXiv 2403.17377) with layers chosen by entropy, and the
adaptation of the maps themselves in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import find_sites, wrap_denoiser
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.direct import changing_maps, freeu, scaling_cross_frame
from ieadapt.tasks.enhance.guidance import guiding
from ieadapt.tasks.enhance.plan import Planner
from ieadapt.tasks.enhance.record import Enhancement, Watch
from ieadapt.tasks.generate import GenerationConfig, Progress, generate
from ieadapt.tasks.measure.method import quick_profile
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.profile_match import refuse_another_model


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
    conditional rows per step. In direct mode nothing is added to the passes.

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
    planner = Planner(config, sites, profile)
    told = Enhancement(planner)
    if config.scale == 0.0:
        yield told
        return
    size = None if profile is None or force else profile.metadata.get("latent_grid")
    install = _INSTALL[config.mode, config.adaptation.name]
    with install(pipe, config, planner, told), wrap_denoiser(pipe, Watch(told, config, size)):
        yield told
        told.require_used(config)


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
    _ = config.factors.factors(generation.num_inference_steps)
    if profile is None and config.needs_profile:
        prompts, first = [prompt] if isinstance(prompt, str) else prompt, seed if isinstance(seed, int) else seed[0]
        profile = quick_profile(pipe, prompts, generation, seed=first)
    with enhancement(pipe, config, profile, force=force):
        return generate(pipe, prompt, generation, seed, progress)


_INSTALL = {
    ("guidance", "maps"): guiding,
    ("guidance", "skip-block"): guiding,
    ("direct", "maps"): changing_maps,
    ("direct", "cross-frame"): scaling_cross_frame,
    ("direct", "freeu"): freeu,
}
