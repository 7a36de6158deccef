"""Inversion: the noisy latents from which a model makes a given clip, step by step, and how well it does."""

from __future__ import annotations

import dataclasses
import io
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
from safetensors.torch import save_file
from torch import Tensor

from ieadapt.attention import DenoiserCall, active_sites, intercept
from ieadapt.errors import UsageError
from ieadapt.interventions import Record
from ieadapt.metrics.structure import psnr, ssim
from ieadapt.models.video_latents import encode_video
from ieadapt.tasks.edit.clip_check import check_clip
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.fixed_point import fixed_point
from ieadapt.tasks.edit.inversion_key import inversion_key
from ieadapt.tasks.edit.noise_path import Latents, NoisePath
from ieadapt.tasks.edit.path_run import PathPipeline, PathScheduler
from ieadapt.tasks.generate import GenerationConfig, Progress, check_length
from ieadapt.tasks.measure.profile import EntropyProfile

Clip = Float[Tensor, "frame channel height width"]
Trajectory = Float[Tensor, "step ..."]

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
    trajectory: Trajectory | None = field(repr=False)
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
        """Write everything into one safetensors file."""
        tensors = {name: value for name in TENSORS if (value := getattr(self, name)) is not None}
        numbers = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name not in TENSORS}
        if self.profile is not None:
            table = io.BytesIO()
            self.profile.table.write_parquet(table)
            tensors["profile"] = torch.frombuffer(bytearray(table.getvalue()), dtype=torch.uint8)
        numbers["profile"] = None if self.profile is None else self.profile.metadata
        whole = {name: value.contiguous().clone() for name, value in tensors.items()}
        save_file(whole, path, metadata={"inversion": json.dumps(numbers)})
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


TENSORS = ("clean", "trajectory", "source", "decoded", "reconstruction")


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
    check_clip(pipe, frames)
    told = prompt if config.inversion_prompt == "source" else ""
    check_length(pipe, told)
    clean = encode_video(pipe, frames)
    runner = PathPipeline.of(pipe, frames, generation.num_inference_steps)
    decoded, path = runner.decode(clean), runner.path_of(clean)
    inversion = Inversion(
        key=inversion_key(pipe, frames, prompt, config, generation),
        prompt=told,
        steps=len(path),
        first=path.first(config.start),
        clean=clean.cpu(),
        trajectory=None,
        source=frames.float().cpu(),
        decoded=decoded[0],
        reconstruction=decoded[0],
        **_closeness(frames, decoded[0], decoded[0]),
        std_ratio=1.0,
        notes=runner.notes,
    )
    if config.method != "inversion":
        return inversion
    counted = dataclasses.replace(runner, done=counter(progress, 2 * (len(path) - inversion.first)))
    return _with_trajectory(inversion, counted, clean, config)


def _with_trajectory(inversion: Inversion, runner: PathPipeline, clean: Latents, config: EditConfig) -> Inversion:
    trajectory, corrections = _invert_latents(runner, clean, inversion, config)
    entropies = config.injection is not None and config.injection.needs_entropy
    found, profile = (
        _measured(runner, trajectory[:1], inversion)
        if entropies
        else (_reconstructed(runner, trajectory[:1], inversion), None)
    )
    steps = len(trajectory) - 1
    notes = (
        *inversion.notes,
        f"inverted {steps} of {inversion.steps} steps with {corrections / steps:.1f} corrections a step",
    )
    done = dataclasses.replace(
        inversion,
        trajectory=trajectory.cpu(),
        reconstruction=found,
        **_closeness(inversion.source, inversion.decoded, found),
        std_ratio=float(trajectory[0].std() / clean.std()),
        notes=notes,
        profile=profile,
    )
    return dataclasses.replace(done, notes=(*notes, *_warnings(done, config)))


def source_profile(runner: PathPipeline, inversion: Inversion, latents: Latents) -> EntropyProfile:
    """Entropies of a run of the source alone, from the latents at the inversion's first step."""
    return _measured(runner, latents, inversion)[1]


def _invert_latents(
    runner: PathPipeline, clean: Latents, inversion: Inversion, config: EditConfig
) -> tuple[Trajectory, int]:
    """The trajectory from the beginning of the first step to the clean latents, and how many corrections were made."""
    backwards: list[Tensor] = [clean]

    def back(path: NoisePath, step: int, latents: Tensor, prediction: Tensor) -> Tensor:
        earlier = path.backward(step, latents, prediction)
        backwards.append(earlier)
        return earlier

    refined: list[Refinement] = []

    def refining(scheduler: PathScheduler) -> Refinement:
        refined.append(Refinement(scheduler, config.iterations, config.tolerance))
        return refined[0]

    runner.run_back(clean, inversion.prompt, inversion.first, back, refining)
    return torch.cat([latents.to(clean.device) for latents in reversed(backwards)]), refined[0].corrections


def _reconstructed(runner: PathPipeline, latents: Latents, inversion: Inversion) -> Clip:
    """The clip that a free run of the source gives."""
    return runner.decode(runner.run(latents, [inversion.prompt], inversion.first))[0]


def _measured(runner: PathPipeline, latents: Latents, inversion: Inversion) -> tuple[Clip, EntropyProfile]:
    """The clip that a free run of the source gives, and its entropies."""
    reached = active_sites(runner.pipe, runner.path_of(latents).timesteps[inversion.first :].tolist())
    with intercept(runner.pipe, Record(), reached, guidance="all") as record:
        frames = _reconstructed(runner, latents, inversion)
    return frames, EntropyProfile.from_rows(record.rows(), {"measured": "on the source", "prompt": inversion.prompt})


class Refinement:
    """Makes each prediction of a backwards run again where it leads, until that place stays.

    Args:
        scheduler: knows path, step and latents.
        iterations: most corrections of a step.
        tolerance: relative move of the latents that counts as none.
    """

    def __init__(self, scheduler: PathScheduler, iterations: int, tolerance: float) -> None:
        self._scheduler, self._iterations, self._tolerance = scheduler, iterations, tolerance
        self.corrections = 0

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> Tensor:
        """The prediction whose step leads back to the latents at hand most closely."""
        path, step, given = self._scheduler.path, self._scheduler.step_index, self._scheduler.latents

        def corrected(used: Tensor) -> tuple[Tensor, float]:
            place = path.backward(step, given, used)
            made = call.forward_rows(range(len(call.rows)), latents=place.to(call.latents.dtype)).float()
            self.corrections += 1
            return made, float((path.backward(step, given, made) - place).norm() / place.norm())

        return fixed_point(prediction.float(), corrected, self._iterations, self._tolerance).to(prediction.dtype)

    def __repr__(self) -> str:
        return f"fixed-point refinement, up to {self._iterations} corrections a step"


def _closeness(source: Clip, decoded: Clip, found: Clip) -> dict[str, Any]:
    tall = min(source.shape[-2:]) >= SSIM_WINDOW
    return {
        "psnr": psnr(found, source),
        "ssim": ssim(found, source) if tall else None,
        "vae_psnr": psnr(decoded, source),
        "inversion_psnr": psnr(found, decoded),
    }


SSIM_WINDOW = 11


def _warnings(inversion: Inversion, config: EditConfig) -> list[str]:
    found = []
    if inversion.psnr < POOR_RECONSTRUCTION:
        at_fault = "the VAE" if inversion.vae_psnr < inversion.inversion_psnr else "the inversion"
        remedy = (
            "use a clip closer to what the model was made for, at its own size"
            if at_fault == "the VAE"
            else "raise iterations or the number of steps, start later, or describe the clip in the source prompt"
        )
        found.append(
            f"warning: the reconstruction has {inversion.psnr:.1f} dB, under {POOR_RECONSTRUCTION:g} "
            f"(VAE alone {inversion.vae_psnr:.1f}, inversion {inversion.inversion_psnr:.1f}); most is lost in "
            f"{at_fault}: {remedy}"
        )
    if inversion.std_ratio < 0.5:
        found.append(
            f"warning: the inverted latents have {inversion.std_ratio:.2f} of the clean latents' standard deviation, "
            "so the inversion left the model's range: raise iterations (1 repairs most clips)"
        )
    return found


def counter(progress: Progress | None, total: int) -> Callable[[], None]:
    """A function that counts steps and tells a progress callback."""
    count = {"done": 0}

    def done() -> None:
        count["done"] += 1
        if progress is not None:
            progress(min(count["done"], total), total)

    return done
