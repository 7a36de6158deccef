"""Noise schedules: from a scheduler's own tables to steps that run in both directions.

A deterministic scheduler moves latents `x = signal * clean + noise_level * noise` from one level to the next along the
denoiser's prediction p. For DDIM (epsilon, v, zero terminal SNR, shifted SNR) and for Euler on a flow alike, that step
is `x' = A x + B p` with numbers A and B that follow from the two levels, so its inverse is `x = (x' - B p) / A`.
diffusers has no inverse for flow matching, and its `DDIMInverseScheduler.from_config` drops CogVideoX's SNR shift.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import CogVideoXDDIMScheduler, DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.models.video_latents import Latents

# How a prediction gives the clean latents and the noise: ((x, p) -> clean, (x, p) -> noise) as factors of x and p.
_PARTS: Mapping[str, Callable[[float, float], tuple[tuple[float, float], tuple[float, float]]]] = {
    "epsilon": lambda signal, noise: ((1 / signal, -noise / signal), (0.0, 1.0)),
    "v_prediction": lambda signal, noise: ((signal, -noise), (noise, signal)),
    "flow": lambda signal, noise: ((1.0, -noise), (1.0, signal)),
    "flow to data": lambda signal, noise: ((1.0, noise), (1.0, -signal)),
}


@dataclass(frozen=True)
class NoiseLevel:
    """How much of the clean video and of the noise latents hold.

    Attributes:
        signal: factor of the clean latents.
        noise: factor of the noise, which has standard deviation 1.
    """

    signal: float
    noise: float

    def mix(self, clean: Latents, noise: Latents) -> Latents:
        """Clean latents with noise at this level."""
        return self.signal * clean + self.noise * noise


@dataclass(frozen=True)
class NoiseSchedule:
    """The steps of one run, from noise to video, and back.

    Attributes:
        timesteps: what the denoiser gets at each step.
        levels: where each step begins.
        ends: where each step ends; DDIM's may differ from where the next begins by one training timestep.
        prediction: `epsilon`, `v_prediction`, `flow` (towards noise) or `flow to data`.

    Example:
        >>> import torch
        >>> schedule = NoiseSchedule(torch.tensor([999.0]), (NoiseLevel(0.0, 1.0),), (NoiseLevel(1.0, 0.0),), "flow")
        >>> schedule.forward(0, torch.ones(1), torch.ones(1)).item()
        0.0
    """

    timesteps: Tensor
    levels: tuple[NoiseLevel, ...]
    ends: tuple[NoiseLevel, ...]
    prediction: str

    def __len__(self) -> int:
        return len(self.levels)

    def factors(self, step: int) -> tuple[float, float]:
        """A and B of a step `x' = A x + B p`."""
        (clean_x, clean_p), (noise_x, noise_p) = self._parts(step)
        end = self.ends[step]
        return end.signal * clean_x + end.noise * noise_x, end.signal * clean_p + end.noise * noise_p

    def forward(self, step: int, latents: Latents, prediction: Latents) -> Latents:
        """The latents at the end of a step, from those at its beginning."""
        own, predicted = self.factors(step)
        return own * latents + predicted * prediction

    def backward(self, step: int, latents: Latents, prediction: Latents) -> Latents:
        """The latents at the beginning of a step, from those at its end; exact if the prediction was made there."""
        own, predicted = self.factors(step)
        return (latents - predicted * prediction) / own

    def clean(self, step: int, latents: Latents, prediction: Latents) -> Latents:
        """The clean latents that a prediction at the beginning of a step amounts to."""
        (own, predicted), _ = self._parts(step)
        return own * latents + predicted * prediction

    def first(self, start: float) -> int:
        """The first step of a run that skips a fraction of the steps, and a first step without any signal."""
        blind = int(self.prediction in ("epsilon", "v_prediction") and self.levels[0].signal < BLIND)
        return min(max(round(start * len(self)), blind), len(self) - 1)

    def _parts(self, step: int) -> tuple[tuple[float, float], tuple[float, float]]:
        level = self.levels[step]
        return _PARTS[self.prediction](max(level.signal, 1e-8), level.noise)


BLIND = 1e-3
"""Signal below which a step of a diffusion model (zero terminal SNR) sees nothing of the source, and is skipped."""


def noise_schedule(scheduler: Any) -> NoiseSchedule:
    """The schedule of a scheduler after `set_timesteps`: its own tables, whatever shifts went into them.

    Args:
        scheduler: DDIM, CogVideoX's DDIM or flow-matching Euler, see `matching_scheduler`.

    Raises:
        UsageError: the scheduler predicts neither noise, nor v, nor a flow.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        inverted = bool(scheduler.config.get("invert_sigmas", False))
        noise = [1 - float(sigma) if inverted else float(sigma) for sigma in scheduler.sigmas]
        levels = tuple(NoiseLevel(1 - share, share) for share in noise)
        return NoiseSchedule(scheduler.timesteps, levels[:-1], levels[1:], "flow to data" if inverted else "flow")
    prediction = scheduler.config.prediction_type
    if prediction not in _PARTS:
        raise UsageError(
            "this scheduler's steps cannot be inverted",
            expected="prediction_type epsilon or v_prediction, or flow matching",
            got=f"prediction_type {prediction}",
            where=type(scheduler).__name__,
        )
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    begins = [int(timestep) for timestep in scheduler.timesteps]
    return NoiseSchedule(
        scheduler.timesteps,
        tuple(_ddim_level(scheduler, timestep) for timestep in begins),
        tuple(_ddim_level(scheduler, timestep - stride) for timestep in begins),
        prediction,
    )


def _ddim_level(scheduler: Any, timestep: int) -> NoiseLevel:
    signal = scheduler.alphas_cumprod[timestep] if timestep >= 0 else scheduler.final_alpha_cumprod
    return NoiseLevel(float(signal) ** 0.5, (1 - float(signal)) ** 0.5)


def matching_scheduler(scheduler: Any) -> tuple[Any, str | None]:
    """A scheduler whose steps can be inverted, with the tables of the given one; and a note where it is another kind.

    Args:
        scheduler: the pipeline's.

    Returns:
        A new scheduler (DDIM, CogVideoX's DDIM or flow-matching Euler), and what to tell the user, or None.

    Raises:
        UsageError: the scheduler has no tables of these kinds.

    Example:
        >>> from diffusers import DPMSolverMultistepScheduler
        >>> other, note = matching_scheduler(DPMSolverMultistepScheduler())
        >>> type(other).__name__, note
        ('DDIMScheduler', 'steps of DPMSolverMultistepScheduler have no inverse; the edit uses DDIMScheduler')
    """
    config, own = dict(scheduler.config), type(scheduler)
    kind = _kind(config, own)
    if kind is None:
        raise UsageError(
            "this scheduler has no inverse",
            expected="a diffusion scheduler with betas, or flow matching",
            got=own.__name__,
            remedy="set pipe.scheduler to a DDIMScheduler or FlowMatchEulerDiscreteScheduler of this model",
        )
    changes: dict[str, Any] = {"clip_sample": False, "thresholding": False, "stochastic_sampling": False}
    if kind is FlowMatchEulerDiscreteScheduler and "shift" not in config and config.get("flow_shift"):
        changes["shift"] = config["flow_shift"]
    used = [name for name in changes if config.get(name) and name != "shift"]
    known = inspect.signature(kind.__init__).parameters
    taken = kind.from_config({name: value for name, value in (config | changes).items() if name in known})
    if own is not kind:
        return taken, f"steps of {own.__name__} have no inverse; the edit uses {kind.__name__}"
    return taken, f"{', '.join(used)} of the scheduler has no inverse and is off in the edit" if used else None


def _kind(config: Mapping[str, Any], own: type) -> Any:
    if issubclass(own, FlowMatchEulerDiscreteScheduler) or config.get("use_flow_sigmas"):
        return FlowMatchEulerDiscreteScheduler
    if "snr_shift_scale" in config:
        return CogVideoXDDIMScheduler
    return DDIMScheduler if "beta_start" in config else None
