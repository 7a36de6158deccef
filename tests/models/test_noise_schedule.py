"""Noise schedules: the steps of every scheduler, as that scheduler makes them, and back again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    VQDiffusionScheduler,
)

from ieadapt.errors import UsageError
from ieadapt.models.noise_schedule import NoiseLevel, NoiseSchedule, matching_scheduler, noise_schedule

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (DDIMScheduler(**BETAS), {}),
    "ddim, last level not clean": (DDIMScheduler(**BETAS, set_alpha_to_one=False, steps_offset=1), {}),
    "ddim, v, zero terminal SNR": (DDIMScheduler(**BETAS, **ZERO_SNR), {}),
    "cogvideox, shifted SNR": (CogVideoXDDIMScheduler(clip_sample=False, snr_shift_scale=3.0, **ZERO_SNR), {}),
    "flow, shift": (FlowMatchEulerDiscreteScheduler(shift=5.0), {}),
    "flow, shift by size": (
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1),
        {"mu": 1.3, "sigmas": np.linspace(1.0, 1 / 7, 7)},
    ),
    "flow to data": (FlowMatchEulerDiscreteScheduler(invert_sigmas=True), {"sigmas": np.linspace(1.0, 0.1, 7)}),
}


@pytest.fixture(params=SCHEDULERS)
def scheduler(request: pytest.FixtureRequest) -> Any:
    found, arguments = SCHEDULERS[request.param]
    found.set_timesteps(7, **arguments)
    return found


def test_forward_is_the_schedulers_own_step(scheduler: Any) -> None:
    schedule, generator = noise_schedule(scheduler), torch.Generator().manual_seed(0)
    assert len(schedule) == len(scheduler.timesteps) == 7
    for step, timestep in enumerate(scheduler.timesteps):
        latents, prediction = torch.randn(2, 1, 4, 3, 3, generator=generator)
        expected = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        torch.testing.assert_close(schedule.forward(step, latents, prediction), expected, rtol=1e-4, atol=1e-4)


def test_backward_undoes_forward(scheduler: Any) -> None:
    schedule, generator = noise_schedule(scheduler), torch.Generator().manual_seed(1)
    for step in range(schedule.first(0.0), len(schedule)):
        latents, prediction = torch.randn(2, 1, 4, 3, 3, generator=generator).double()
        there = schedule.forward(step, latents, prediction)
        torch.testing.assert_close(schedule.backward(step, there, prediction), latents, rtol=1e-6, atol=1e-6)


def test_a_perfect_prediction_gives_the_clean_latents_and_ends_on_the_schedule(scheduler: Any) -> None:
    schedule, generator = noise_schedule(scheduler), torch.Generator().manual_seed(2)
    clean, noise = torch.randn(2, 1, 4, 3, 3, generator=generator).double()
    perfect = {
        "epsilon": lambda level: noise,
        "v_prediction": lambda level: level.signal * noise - level.noise * clean,
        "flow": lambda level: noise - clean,
        "flow to data": lambda level: clean - noise,
    }[schedule.prediction]
    for step in range(schedule.first(0.0), len(schedule)):
        latents, prediction = schedule.levels[step].mix(clean, noise), perfect(schedule.levels[step])
        torch.testing.assert_close(schedule.clean(step, latents, prediction), clean, rtol=1e-5, atol=1e-5)
        expected = schedule.ends[step].mix(clean, noise)
        torch.testing.assert_close(schedule.forward(step, latents, prediction), expected, rtol=1e-5, atol=1e-5)


def test_the_snr_shift_of_cogvideox_is_in_the_table() -> None:
    scheduler = CogVideoXDDIMScheduler(snr_shift_scale=3.0)
    scheduler.set_timesteps(10)
    signals = [level.signal**2 for level in noise_schedule(scheduler).levels]
    plain = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    assert signals == pytest.approx([float(scheduler.alphas_cumprod[int(t)]) for t in scheduler.timesteps], rel=1e-5)
    assert abs(signals[5] - float(plain.alphas_cumprod[int(scheduler.timesteps[5])])) > 0.05


def test_a_step_without_signal_is_skipped_on_a_diffusion_schedule_only() -> None:
    levels, ends = (NoiseLevel(0.0, 1.0), NoiseLevel(0.5, 0.5)), (NoiseLevel(0.5, 0.5), NoiseLevel(1.0, 0.0))
    assert NoiseSchedule(torch.zeros(2), levels, ends, "v_prediction").first(0.0) == 1
    assert NoiseSchedule(torch.zeros(2), levels, ends, "flow").first(0.0) == 0


def test_the_start_is_a_fraction_of_the_steps() -> None:
    scheduler = SCHEDULERS["ddim"][0]
    scheduler.set_timesteps(10)
    assert [noise_schedule(scheduler).first(start) for start in (0.0, 0.35, 0.4, 0.99)] == [0, 4, 4, 9]


def test_other_schedulers_have_a_matching_one() -> None:
    dpm, note = matching_scheduler(DPMSolverMultistepScheduler(beta_end=0.03, prediction_type="v_prediction"))
    assert isinstance(dpm, DDIMScheduler)
    assert (dpm.config.beta_end, dpm.config.prediction_type, dpm.config.clip_sample) == (0.03, "v_prediction", False)
    assert note == "steps of DPMSolverMultistepScheduler have no inverse; the edit uses DDIMScheduler"
    unipc, note = matching_scheduler(
        UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    )
    assert isinstance(unipc, FlowMatchEulerDiscreteScheduler)
    assert unipc.config.shift == 3.0
    assert note == "steps of UniPCMultistepScheduler have no inverse; the edit uses FlowMatchEulerDiscreteScheduler"
    cogvideox, _ = matching_scheduler(CogVideoXDPMScheduler(snr_shift_scale=1.0))
    assert isinstance(cogvideox, CogVideoXDDIMScheduler)
    assert cogvideox.config.snr_shift_scale == 1.0


def test_what_has_no_inverse_is_off_and_said() -> None:
    taken, note = matching_scheduler(DDIMScheduler(clip_sample=True))
    assert not taken.config.clip_sample
    assert note == "clip_sample of the scheduler has no inverse and is off in the edit"
    assert matching_scheduler(DDIMScheduler(clip_sample=False))[1] is None


def test_schedulers_that_cannot_be_inverted() -> None:
    with pytest.raises(UsageError, match="this scheduler has no inverse; expected a diffusion scheduler with betas"):
        matching_scheduler(VQDiffusionScheduler(num_vec_classes=4))
    scheduler = DDIMScheduler(prediction_type="sample")
    scheduler.set_timesteps(2)
    with pytest.raises(UsageError, match=r"steps cannot be inverted; expected prediction_type epsilon.*got .* sample"):
        noise_schedule(scheduler)
