"""Inversion: the noisy latents from which a model makes a given clip, step by step, and how well it does.

A source is inverted once, whatever it is edited into: inversions are kept on disk.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ieadapt.attention import DenoiserCall, denoisers_of, wrap_denoiser
from ieadapt.errors import FailureError, UsageError, raised_as
from ieadapt.files import write_atomically
from ieadapt.functional.fixed_point import fixed_point
from ieadapt.metrics.structure import psnr, ssim
from ieadapt.models.noise_schedule import NoiseSchedule
from ieadapt.models.scheduler_wrapper import StepFunctionWrapper
from ieadapt.models.video_latents import Latents, encode_video
from ieadapt.runs.settings import GenerationConfig
from ieadapt.runs.videos import Video
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.pipeline_run import PipelineRunner, check_source_clip
from ieadapt.tasks.generate import Progress, check_prompt

TENSORS = ("clean", "trajectory", "source", "decoded", "reconstruction")
"""Fields of an inversion that its file holds as tensors."""
FORMAT = 4
"""Of the key; another number, and inversions kept so far are made again."""
SSIM_WINDOW = 11

GOOD_RECONSTRUCTION = 25.0
"""PSNR in dB; below it an edit begins from another clip than the source, which is warned about."""


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
    """

    key: str
    prompt: str
    steps: int
    first: int
    clean: Latents = field(repr=False)
    trajectory: Float[Tensor, "step ..."] | None = field(repr=False)
    source: Video = field(repr=False)
    decoded: Video = field(repr=False)
    reconstruction: Video = field(repr=False)
    psnr: float
    ssim: float | None
    vae_psnr: float
    inversion_psnr: float
    std_ratio: float
    notes: tuple[str, ...] = ()

    def save(self, path: str | Path) -> Path:
        """Write everything into one safetensors file, whole or not at all."""
        fields = vars(self)
        tensors = {name: fields[name].contiguous().clone() for name in TENSORS if fields[name] is not None}
        numbers = json.dumps({name: value for name, value in fields.items() if name not in TENSORS})
        write_atomically(Path(path), save(tensors, metadata={"inversion": numbers}))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Inversion:
        """Read an inversion that `save` wrote.

        Raises:
            UsageError: the file holds none.
        """
        causes = (OSError, SafetensorError, KeyError, TypeError, ValueError)
        with raised_as(UsageError, "not an inversion", causes, where=path, remedy="invert the clip again"):
            with safe_open(path, framework="pt") as file:
                numbers = json.loads(file.metadata()["inversion"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return cls(**{"trajectory": None, **tensors, **numbers, "notes": tuple(numbers["notes"])})


def invert(
    pipe: DiffusionPipeline,
    frames: Video,
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
    check_prompt(pipe, shown)
    clean = encode_video(pipe, frames)
    runner = PipelineRunner(pipe, frames, generation.num_inference_steps, generation.call)
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
    frames: Video,
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
        "settings": [config.start, config.iterations, config.tolerance],
        "shape": list(frames.shape),
        "pipeline": type(pipe).__name__,
        # without diffusers' own notes, whose order differs from process to process
        "scheduler": {"class": type(pipe.scheduler).__name__}
        | {name: value for name, value in pipe.scheduler.config.items() if not name.startswith("_")},
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    digest.update(frames.float().cpu().contiguous().numpy().tobytes())
    for module in [pipe.vae, *denoisers_of(pipe).values()]:
        _add_weights(digest, module)
    return digest.hexdigest()[:40]


def _add_weights(digest: hashlib._Hash, module: nn.Module) -> None:
    """Names, shapes and a sample of every parameter, in one piece, since every copy from a GPU waits for it."""
    samples: list[Tensor] = []
    for name, parameter in module.named_parameters():
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        samples.append(parameter.detach().flatten()[:: max(1, parameter.numel() // 4)][:4].float())
    together = torch.cat([sample.to(samples[0].device) for sample in samples])  # the same wherever the weights are
    digest.update(together.cpu().numpy().tobytes())


def default_cache() -> Path:
    """Where inversions are kept: `ieadapt/inversions` in the user's cache folder (XDG_CACHE_HOME)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ieadapt" / "inversions"


def cached_inversion(
    folder: Path,
    pipe: DiffusionPipeline,
    frames: Video,
    prompt: str,
    config: EditConfig,
    generation: GenerationConfig,
    progress: Progress | None = None,
) -> tuple[Inversion, bool]:
    """The inversion of a clip, and whether it was there already; a damaged file is replaced.

    Args:
        folder: of inversions, one safetensors file each, named by what they depend on; made with the first one.
        pipe: as for `invert`, and so are the others.
        frames: the clip.
        prompt: what it shows.
        config: of the edit.
        generation: its number of steps.
        progress: called with (steps done, steps in all).

    Raises:
        UsageError: as `invert` does.
        FailureError: as `invert` does, or the folder cannot be written.
    """
    key = inversion_key(pipe, frames, prompt, config, generation)
    file = folder / f"{key}.safetensors"
    with suppress(UsageError):
        kept = Inversion.load(file)
        if kept.key == key:
            return kept, True
    problem, remedy = "inversions cannot be kept in this folder", "name another --cache"
    with raised_as(FailureError, problem, OSError, where=folder, remedy=remedy):  # to be known before it is made
        folder.mkdir(parents=True, exist_ok=True)
    inversion = invert(pipe, frames, prompt, config, generation, progress)
    with raised_as(FailureError, problem, OSError, where=folder, remedy=remedy):
        inversion.save(file)
    return inversion, False


def _with_trajectory(
    inversion: Inversion, runner: PipelineRunner, clean: Latents, config: EditConfig, progress: Progress | None
) -> Inversion:
    steps = inversion.steps - inversion.first
    done = step_counter(progress, 2 * steps)
    trajectory, corrections = _invert_latents(runner, inversion, clean, config, done)
    forward = StepFunctionWrapper(runner.scheduler, trajectory[:1], range(inversion.first, inversion.steps), done=done)
    reconstruction = runner.decode(runner.run(forward, [inversion.prompt]))[0]
    inverted = dataclasses.replace(
        inversion,
        trajectory=trajectory.cpu(),
        reconstruction=reconstruction,
        **_closeness(inversion.source, inversion.decoded, reconstruction),
        std_ratio=float(trajectory[0].std() / clean.std()),
    )
    note = f"inverted {steps} of {inversion.steps} steps with {corrections / steps:.1f} corrections a step"
    return dataclasses.replace(inverted, notes=(*inversion.notes, note, *_warnings(inverted)))


def _invert_latents(
    runner: PipelineRunner, inversion: Inversion, clean: Latents, config: EditConfig, done: Callable[[], None]
) -> tuple[Float[Tensor, "step ..."], int]:
    """The trajectory from the beginning of the first step to the clean latents, and how many corrections were made.

    The prediction of each step back is made again where it leads, until that place stays.
    """
    backwards, corrections = [clean], 0

    def step_back(schedule: NoiseSchedule, step: int, latents: Tensor, prediction: Tensor) -> Tensor:
        backwards.append(schedule.backward(step, latents, prediction))
        return backwards[-1]

    def refine(call: DenoiserCall, prediction: Tensor) -> Tensor:
        schedule, step, later = scheduler.schedule, scheduler.step_index, scheduler.latents

        def correct(used: Tensor) -> tuple[Tensor, float]:
            nonlocal corrections
            corrections += 1
            earlier = schedule.backward(step, later, used)
            made = call.forward_rows(range(len(call.rows)), latents=earlier.to(call.latents.dtype)).float()
            return made, float((schedule.backward(step, later, made) - earlier).norm() / earlier.norm())

        return fixed_point(prediction.float(), correct, config.iterations, config.tolerance).to(prediction.dtype)

    steps = range(inversion.steps - 1, inversion.first - 1, -1)
    scheduler = StepFunctionWrapper(runner.scheduler, clean, steps, step_back, done)
    with wrap_denoiser(runner.pipe, refine):
        runner.run(scheduler, [inversion.prompt])
    return torch.cat([latents.to(clean.device) for latents in reversed(backwards)]), corrections


def _closeness(source: Video, decoded: Video, reconstruction: Video) -> dict[str, Any]:
    return {
        "psnr": psnr(reconstruction, source),
        "ssim": ssim(reconstruction, source) if min(source.shape[-2:]) >= SSIM_WINDOW else None,
        "vae_psnr": psnr(decoded, source),
        "inversion_psnr": psnr(reconstruction, decoded),
    }


def _warnings(inversion: Inversion) -> list[str]:
    warnings = []
    if inversion.psnr < GOOD_RECONSTRUCTION:
        cause, remedy = "the VAE", "use a clip closer to what the model was made for, at its own size"
        if inversion.vae_psnr >= inversion.inversion_psnr:
            cause = "the inversion"
            remedy = "raise iterations or the number of steps, start later, or describe the clip in the source prompt"
        warnings.append(
            f"warning: the reconstruction has {inversion.psnr:.1f} dB, under {GOOD_RECONSTRUCTION:g} (VAE alone "
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
