"""Enhancement: guide the model away from its own prediction with some attention maps replaced.

RECONSTRUCTION. The paper (arXiv 2504.12027) says that high-entropy attention goes with quality and that its method
adapts attention matrices while denoising, without training; which matrix, which layers and which formula it uses could
not be read. The form here is perturbed-attention guidance (arXiv 2403.17377) with layers chosen by entropy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import AttentionSite, DenoiserCall, find_sites, intercept, wrap_denoiser
from ieadapt.errors import FailureError, UsageError
from ieadapt.functional import guidance_delta
from ieadapt.interventions import Identity, Mix, Perturbation, Temperature, Uniform
from ieadapt.methods.generation import GenerationConfig, Progress, generate
from ieadapt.methods.layer_choice import SiteChoice
from ieadapt.methods.measurement import measure
from ieadapt.methods.profile import EntropyProfile

PERTURBATIONS: Mapping[str, type[Perturbation]] = {
    "identity": Identity,
    "uniform": Uniform,
    "mix": Mix,
    "temperature": Temperature,
}


@dataclass(frozen=True)
class EnhanceConfig:
    """How a video is enhanced.

    Attributes:
        scale: s in `eps + s (eps_cond - eps_weak)`; 0 changes nothing.
        perturbation: what the weak branch's maps become: `identity`, `uniform`, `mix:WEIGHT`, `temperature:T`.
        sites: which maps: `[KIND:]top=N`, `[KIND:]bottom=N`, `[KIND:]at-least=EP`, `[KIND:]random=N`, or names; `auto`
            takes the temporal sites of highest EP, or the joint ones where the model has no temporal attention.
        start: fraction of the steps at which guidance begins.
        stop: fraction of the steps at which it ends.
        seed: of a random choice of sites.

    Raises:
        UsageError: a value out of range, or an unknown perturbation.

    Example:
        >>> EnhanceConfig(scale=0.5, sites="temporal:top=3").weak_map
        Identity(scope='video')
    """

    scale: int | float = field(
        default=1.0, metadata={"help": "guidance scale of the perturbed branch; 0 changes nothing"}
    )
    perturbation: str = field(default="identity", metadata={"help": "identity, uniform, mix:WEIGHT or temperature:T"})
    sites: str = field(default="auto", metadata={"help": "auto, [KIND:]top=N, [KIND:]at-least=EP, random=N, or names"})
    start: float = field(default=0.0, metadata={"help": "fraction of the steps at which guidance begins"})
    stop: float = field(default=1.0, metadata={"help": "fraction of the steps at which guidance ends"})
    seed: int = field(default=0, metadata={"help": "seed of a random choice of sites"})

    def __post_init__(self) -> None:
        if not 0.0 <= self.scale <= 100.0:
            raise UsageError("the enhancement scale is out of range", expected="0..100", got=self.scale)
        if not 0.0 <= self.start < self.stop <= 1.0:
            raise UsageError(
                "not a window of steps", expected="0 <= start < stop <= 1", got=f"{self.start}..{self.stop}"
            )
        _ = self.weak_map

    @property
    def weak_map(self) -> Perturbation:
        """The perturbation of the weak branch."""
        return parse_perturbation(self.perturbation)

    def choose(self, sites: Sequence[AttentionSite], profile: EntropyProfile | None) -> list[AttentionSite]:
        """The sites that this configuration perturbs in a model with these sites."""
        return self.choice(sites).choose(sites, profile.ep if profile else None)

    def choice(self, sites: Sequence[AttentionSite]) -> SiteChoice:
        """The rule behind `sites`, with `auto` resolved for a model with these sites."""
        if self.sites != "auto":
            return SiteChoice.parse(self.sites, self.seed)
        kind = next((kind for kind in ("temporal", "joint") if any(site.kind == kind for site in sites)), None)
        return SiteChoice("top", DEFAULT_SHARE, kind)


DEFAULT_SHARE = 0.5


def parse_perturbation(text: str) -> Perturbation:
    """Read `identity`, `uniform`, `mix:WEIGHT` or `temperature:T`; it will act on weak rows only.

    Raises:
        UsageError: unknown name, or an amount missing or out of range.
    """
    name, _, amount = text.partition(":")
    if name not in PERTURBATIONS:
        raise UsageError("unknown perturbation", expected=", ".join(PERTURBATIONS), got=text)
    try:
        values = [float(amount)] if amount else []
        return PERTURBATIONS[name](*values, guidance=("weak",))
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            "the perturbation's amount is missing or wrong", expected="mix:WEIGHT or temperature:T", got=text
        ) from error


@contextmanager
def enhancement(
    pipe: DiffusionPipeline, config: EnhanceConfig | None = None, profile: EntropyProfile | None = None
) -> Iterator[list[AttentionSite]]:
    """Enhance every call of the pipeline inside the block; yields the sites that the weak branch perturbs.

    With `d = scale (eps_cond - eps_weak)`, `d` is added to the conditional and the unconditional prediction, which
    makes the guided prediction `eps_u + w (eps_c - eps_u) + d` for every guidance scale w, also a changing one. Without
    classifier-free guidance the prediction becomes `eps + d`. Costs one more pass over the conditional rows per step.

    Args:
        pipe: any pipeline of a known family; its own call stays as it is.
        config: scale, perturbation, sites, window.
        profile: the model's entropy profile, where sites are chosen by entropy.

    Raises:
        UsageError: sites chosen by entropy without a profile, or a pipeline with `guidance_rescale` on.
        FailureError: no weak pass was run inside the block, or a prediction is not finite.
    """
    config = config or EnhanceConfig()
    chosen = config.choose(find_sites(pipe), profile)
    if config.scale == 0.0:
        yield chosen
        return
    guidance = _PerturbedGuidance(config)
    with intercept(pipe, config.weak_map, chosen), wrap_denoiser(pipe, guidance, perturbed=chosen):
        yield chosen
        guidance.require_used()


def enhance(
    pipe: DiffusionPipeline,
    prompt: str | Sequence[str],
    *,
    profile: EntropyProfile | None = None,
    config: EnhanceConfig | None = None,
    generation: GenerationConfig | None = None,
    seed: int | Sequence[int] = 0,
    progress: Progress | None = None,
) -> Float[Tensor, "video frame channel height width"]:
    """Generate enhanced videos, one per prompt; float32 on the CPU, in [0, 1].

    Without a profile, one is measured first on the first prompt, in a few steps.

    Raises:
        UsageError, FailureError: as `enhancement` and `generate` do.
    """
    config, generation = config or EnhanceConfig(), generation or GenerationConfig()
    if profile is None and config.choice(find_sites(pipe)).needs_entropy:
        first = prompt if isinstance(prompt, str) else prompt[0]
        profile = quick_profile(pipe, first, generation)
    with enhancement(pipe, config, profile):
        return generate(pipe, prompt, generation, seed, progress)


def quick_profile(pipe: DiffusionPipeline, prompt: str, generation: GenerationConfig) -> EntropyProfile:
    """A profile from one prompt and at most five steps: enough to rank self-attention sites."""
    settings = {name: getattr(generation, name) for name in generation.__dataclass_fields__}
    steps = min(QUICK_STEPS, generation.num_inference_steps)
    return measure(pipe, prompt, GenerationConfig(**{**settings, "num_inference_steps": steps}))


QUICK_STEPS = 5


class _PerturbedGuidance:
    """Adds the perturbed-guidance term to every prediction of the denoiser."""

    def __init__(self, config: EnhanceConfig) -> None:
        self._config = config
        self._held: Tensor | None = None
        self._held_step = -1
        self._passes = 0

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> Tensor | None:
        if not self._config.start <= call.fraction < self._config.stop:
            return None
        self._refuse_rescale(call)
        if set(call.rows.guidance) == {"uncond"}:
            return prediction + self._held_delta(call)
        strong = call.rows.denoiser_rows(("cond",)) or call.rows.denoiser_rows(("none",))
        weak = call.again(strong)
        self._passes += 1
        delta = guidance_delta(prediction[strong], weak, self._config.scale)
        self._held, self._held_step = delta, call.step
        videos = torch.tensor(call.rows.video, device=delta.device)
        return prediction + delta[videos]

    def _held_delta(self, call: DenoiserCall) -> Tensor:
        if self._held is None or self._held_step != call.step:
            raise FailureError(
                "the unconditional call came before the conditional one",
                where=f"step {call.step} of {type(call.pipeline).__name__}",
                remedy="enhance a pipeline that calls cond first, as Wan and HunyuanVideo do",
            )
        return self._held

    def _refuse_rescale(self, call: DenoiserCall) -> None:
        rescale = getattr(call.pipeline, "guidance_rescale", 0.0)
        if rescale:
            raise UsageError(
                "guidance_rescale would take its standard deviation from the shifted prediction",
                expected="guidance_rescale=0",
                got=rescale,
                remedy="leave the pipeline's rescale off while enhancing",
            )

    def require_used(self) -> None:
        """Raise if the block ran without a single weak pass."""
        if not self._passes:
            raise FailureError(
                "no step was enhanced",
                got=f"window {self._config.start}..{self._config.stop}",
                remedy="call the pipeline inside the block, with enough steps for the window",
            )

    def __repr__(self) -> str:
        return f"perturbed guidance, scale {self._config.scale:g}"
