"""Inversion: the noisy latents from which a model makes a given clip, step by step, and how well it does."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ieadapt.attention import DenoiserCall, active_sites, denoisers_of, intercept, wrap_denoiser
from ieadapt.errors import UsageError
from ieadapt.files import write_atomically
from ieadapt.functional.fixed_point import fixed_point
from ieadapt.interventions import Record
from ieadapt.metrics.structure import psnr, ssim
from ieadapt.models.video_latents import Latents, encode_video
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.noise_schedule import NoiseSchedule
from ieadapt.tasks.edit.pipeline_run import PipelineRunner, StepFunctionWrapper, check_source_clip
from ieadapt.tasks.generate import GenerationConfig, Progress, check_length
from ieadapt.tasks.measure.profile import EntropyProfile

Clip = Float[Tensor, "frame channel height width"]
TENSORS = ("clean", "trajectory", "source", "decoded", "reconstruction")
"""Fields of an inversion that its file holds as tensors."""
FORMAT = 3
"""Of the key; another number, and inversions kept so far are made again."""
SSIM_WINDOW = 11

POOR_RECONSTRUCTION = 25.0
"""PSNR in dB below which a reconstruction is warned about."""


@dataclass(frozen=True)
class Inversion:
    """A clip as the model sees it: its clean latents, its trajectory, and what comes back from it.

    Attributes:
        key: names model, clip, prompt and settings; equal keys mean equal inversions.
        prompt: of the inversion.
        steps: of a whole run.
        first: the step at whose beginning the trajectory begins.
        clean: the clip's latents, in the pipeline's own form.
        trajectory: latents at the beginning of every step from `first`, and the clean ones last; None where the method
            needs none.
        source: the clip.
        decoded: the clip through the VAE alone.
        reconstruction: the clip from the first latents of the trajectory; `decoded` where there is none.
        psnr: reconstruction against the clip, in dB; higher is closer.
        ssim: the same in structural similarity, up to 1; higher is closer. None for clips under 11 pixels.
        vae_psnr: `decoded` against the clip: what is lost before any step.
        inversion_psnr: reconstruction against `decoded`: what is lost on the way.
        std_ratio: standard deviation of the first latents of the trajectory over that of the clean ones.
        notes: what was chosen and what to beware of, in sentences.
        profile: entropies of the source's own run, where a choice of sites asked for them.
    """

    key: str
    prompt: str
    steps: int
    first: int
    clean: Latents = field(repr=False)
    trajectory: Float[Tensor, "step ..."] | None = field(repr=False)
    source: Clip = field(repr=False)
    decoded: Clip = field(repr=False)
    reconstruction: Clip = field(repr=False)
    psnr: float
    ssim: float | None
    vae_psnr: float
    inversion_psnr: float
    std_ratio: float
    notes: tuple[str, ...] = ()
    profile: EntropyProfile | None = None

    def save(self, path: str | Path) -> Path:
        """Write everything into one safetensors file, whole or not at all."""
        tensors = {name: value for name in TENSORS if (value := getattr(self, name)) is not None}
        numbers = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name not in TENSORS}
        if self.profile is not None:
            table = io.BytesIO()
            self.profile.table.write_parquet(table)
            tensors["profile"] = torch.frombuffer(bytearray(table.getvalue()), dtype=torch.uint8)
        numbers["profile"] = None if self.profile is None else self.profile.metadata
        whole = {name: value.contiguous().clone() for name, value in tensors.items()}
        write_atomically(Path(path), save(whole, metadata={"inversion": json.dumps(numbers)}))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Inversion:
        """Read an inversion that `save` wrote.

        Raises:
            UsageError: the file holds none.
        """
        try:
            with safe_open(path, framework="pt") as file:
                numbers = json.loads(file.metadata()["inversion"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            profile = None
            if numbers["profile"] is not None:
                table = pl.read_parquet(io.BytesIO(tensors.pop("profile").numpy().tobytes()))
                profile = EntropyProfile(table, numbers["profile"])
            numbers |= {"notes": tuple(numbers["notes"]), "profile": profile}
            return cls(**{"trajectory": None, **tensors, **numbers})
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UsageError("not an inversion", got=error, where=path, remedy="invert the clip again") from error


def invert(
    pipe: DiffusionPipeline,
    frames: Clip,
    prompt: str = "",
    config: EditConfig | None = None,
    generation: GenerationConfig | None = None,
    progress: Progress | None = None,
) -> Inversion:
    """Find the noisy latents of a clip at every step of a run, and check that the clip comes back from them.

    The pipeline runs backwards without guidance. Each step solves `x' = A x + B p(x)` for x: the prediction at x' is
    the first guess, and fixed-point refinement makes it again at the x that it leads to, until x stays.

    Args:
        pipe: a text-to-video pipeline of a known family.
        frames: the clip in [0, 1], of a size that the pipeline takes.
        prompt: what the clip shows; may be empty.
        config: method, start, iterations, tolerance; by default the method `inversion`, since those without a
            trajectory only pass through the VAE.
        generation: its number of steps.
        progress: called with (steps done, steps in all).

    Raises:
        UsageError: a clip of the wrong size, a prompt too long, a family or scheduler that cannot be inverted.
        FailureError: latents or frames that are not finite.

    Source: DDIM inversion, arXiv 2010.02502; fixed-point refinement as in arXiv 2309.04907, reconstruction.
    """
    config, generation = config or EditConfig("inversion"), generation or GenerationConfig()
    check_source_clip(pipe, frames)
    shown = prompt if config.inversion_prompt == "source" else ""
    check_length(pipe, shown)
    clean = encode_video(pipe, frames)
    runner = PipelineRunner.of(pipe, frames, generation.num_inference_steps, generation.call)
    decoded, schedule = runner.decode(clean)[0], runner.schedule_for(clean)
    inversion = Inversion(
        key=inversion_key(pipe, frames, prompt, config, generation),
        prompt=shown,
        steps=len(schedule),
        first=schedule.first(config.start),
        clean=clean.cpu(),
        trajectory=None,
        source=frames.float().cpu(),
        decoded=decoded,
        reconstruction=decoded,
        **_closeness(frames, decoded, decoded),
        std_ratio=1.0,
        notes=runner.notes,
    )
    if config.method != "inversion":
        return inversion
    return _with_trajectory(inversion, runner, clean, config, progress)


def inversion_key(
    pipe: DiffusionPipeline,
    frames: Clip,
    prompt: str,
    config: EditConfig | None = None,
    generation: GenerationConfig | None = None,
) -> str:
    """Name an inversion by everything that it depends on, before it is made; equal keys, equal inversions.

    That is the clip, the prompt, the number of steps, the settings that inversion reads, the scheduler's config and
    the weights (by shape and a sample of every tensor).

    Args:
        pipe: the pipeline.
        frames: the clip, in [0, 1].
        prompt: the source prompt.
        config: of the edit.
        generation: its number of steps.

    Returns:
        Forty hexadecimal digits.
    """
    config, generation = config or EditConfig("inversion"), generation or GenerationConfig()
    described = {
        "format": FORMAT,
        "prompt": prompt if config.inversion_prompt == "source" else "",
        "steps": generation.num_inference_steps,
        **({"call": dict(generation.call)} if generation.call else {}),
        "method": "inversion" if config.method == "inversion" else "none",
        "settings": [config.start, config.iterations, config.tolerance, config.needs_entropy],
        "shape": list(frames.shape),
        "pipeline": type(pipe).__name__,
        "scheduler": {"class": type(pipe.scheduler).__name__, **_settings(pipe.scheduler)},
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    digest.update(frames.float().cpu().contiguous().numpy().tobytes())
    for module in [pipe.vae, *denoisers_of(pipe).values()]:
        _add_weights(digest, module)
    return digest.hexdigest()[:40]


def _settings(scheduler: Any) -> dict[str, Any]:
    """A scheduler's config without diffusers' own notes, whose order differs from process to process."""
    return {name: value for name, value in scheduler.config.items() if not name.startswith("_")}


def _add_weights(digest: hashlib._Hash, module: nn.Module) -> None:
    """Names, shapes and a sample of every parameter, in one piece, since every copy from a GPU waits for it."""
    samples: list[Tensor] = []
    for name, parameter in module.named_parameters():
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        samples.append(parameter.detach().flatten()[:: max(1, parameter.numel() // 4)][:4].float())
    together = torch.cat([sample.to(samples[0].device) for sample in samples])  # the same wherever the weights are
    digest.update(together.cpu().numpy().tobytes())


def _with_trajectory(
    inversion: Inversion, runner: PipelineRunner, clean: Latents, config: EditConfig, progress: Progress | None
) -> Inversion:
    steps = inversion.steps - inversion.first
    done = step_counter(progress, 2 * steps)
    trajectory, corrections = _invert_latents(runner, inversion, clean, config, done)
    profile: EntropyProfile | None = None
    if config.needs_entropy:
        reconstruction, profile = run_source_profiled(runner, inversion, trajectory[:1], done)
    else:
        reconstruction = _run_source(runner, inversion, trajectory[:1], done)
    inverted = dataclasses.replace(
        inversion,
        trajectory=trajectory.cpu(),
        reconstruction=reconstruction,
        **_closeness(inversion.source, inversion.decoded, reconstruction),
        std_ratio=float(trajectory[0].std() / clean.std()),
        profile=profile,
    )
    note = f"inverted {steps} of {inversion.steps} steps with {corrections / steps:.1f} corrections a step"
    return dataclasses.replace(inverted, notes=(*inversion.notes, note, *_warnings(inverted)))


def _invert_latents(
    runner: PipelineRunner, inversion: Inversion, clean: Latents, config: EditConfig, done: Callable[[], None]
) -> tuple[Float[Tensor, "step ..."], int]:
    """The trajectory from the beginning of the first step to the clean latents, and how many corrections were made."""
    backwards: list[Tensor] = [clean]

    def step_back(schedule: NoiseSchedule, step: int, latents: Tensor, prediction: Tensor) -> Tensor:
        backwards.append(schedule.backward(step, latents, prediction))
        return backwards[-1]

    steps = range(inversion.steps - 1, inversion.first - 1, -1)
    scheduler = StepFunctionWrapper(runner.scheduler, clean, steps, step_back, done)
    refinement = Refinement(scheduler, config.iterations, config.tolerance)
    with wrap_denoiser(runner.pipe, refinement):
        runner.run(scheduler, [inversion.prompt])
    return torch.cat([latents.to(clean.device) for latents in reversed(backwards)]), refinement.corrections


def _run_source(runner: PipelineRunner, inversion: Inversion, latents: Latents, done: Callable[[], None]) -> Clip:
    """The clip that a free run of the source gives, from the latents at the inversion's first step."""
    steps = range(inversion.first, inversion.steps)
    scheduler = StepFunctionWrapper(runner.scheduler, latents, steps, done=done)
    return runner.decode(runner.run(scheduler, [inversion.prompt]))[0]


def run_source_profiled(
    runner: PipelineRunner, inversion: Inversion, latents: Latents, done: Callable[[], None] = lambda: None
) -> tuple[Clip, EntropyProfile]:
    """The clip that a free run of the source gives, from the latents at the inversion's first step; its entropies."""
    reached = active_sites(runner.pipe, runner.schedule_for(latents).timesteps[inversion.first :].tolist())
    with intercept(runner.pipe, Record(), reached, guidance="all") as record:
        frames = _run_source(runner, inversion, latents, done)
    return frames, EntropyProfile.from_rows(record.records(), {"measured": "on the source", "prompt": inversion.prompt})


class Refinement:
    """Makes each prediction of a backwards run again where it leads, until that place stays.

    Args:
        scheduler: knows schedule, step and latents.
        iterations: most corrections of a step.
        tolerance: relative move of the latents that counts as none.
    """

    def __init__(self, scheduler: StepFunctionWrapper, iterations: int, tolerance: float) -> None:
        self._scheduler, self._iterations, self._tolerance = scheduler, iterations, tolerance
        self.corrections = 0

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> Tensor:
        """The prediction whose step leads back to the latents at hand most closely."""
        scheduler = self._scheduler
        schedule, step, later = scheduler.schedule, scheduler.step_index, scheduler.latents

        def correct(used: Tensor) -> tuple[Tensor, float]:
            earlier = schedule.backward(step, later, used)
            made = call.forward_rows(range(len(call.rows)), latents=earlier.to(call.latents.dtype)).float()
            self.corrections += 1
            return made, float((schedule.backward(step, later, made) - earlier).norm() / earlier.norm())

        return fixed_point(prediction.float(), correct, self._iterations, self._tolerance).to(prediction.dtype)

    def __repr__(self) -> str:
        return f"fixed-point refinement, up to {self._iterations} corrections a step"


def _closeness(source: Clip, decoded: Clip, reconstruction: Clip) -> dict[str, Any]:
    return {
        "psnr": psnr(reconstruction, source),
        "ssim": ssim(reconstruction, source) if min(source.shape[-2:]) >= SSIM_WINDOW else None,
        "vae_psnr": psnr(decoded, source),
        "inversion_psnr": psnr(reconstruction, decoded),
    }


def _warnings(inversion: Inversion) -> list[str]:
    warnings = []
    if inversion.psnr < POOR_RECONSTRUCTION:
        cause, remedy = "the VAE", "use a clip closer to what the model was made for, at its own size"
        if inversion.vae_psnr >= inversion.inversion_psnr:
            cause = "the inversion"
            remedy = "raise iterations or the number of steps, start later, or describe the clip in the source prompt"
        warnings.append(
            f"warning: the reconstruction has {inversion.psnr:.1f} dB, under {POOR_RECONSTRUCTION:g} (VAE alone "
            f"{inversion.vae_psnr:.1f}, inversion {inversion.inversion_psnr:.1f}); most is lost in {cause}: {remedy}"
        )
    if inversion.std_ratio < 0.5:
        warnings.append(
            f"warning: the inverted latents have {inversion.std_ratio:.2f} of the clean latents' standard deviation, "
            "so the inversion left the model's range: raise iterations (1 repairs most clips)"
        )
    return warnings


def step_counter(progress: Progress | None, total: int) -> Callable[[], None]:
    """A function to call after each step, which reports to a progress callback."""
    if progress is None:
        return lambda: None
    numbers = itertools.count(1)
    return lambda: progress(min(next(numbers), total), total)
