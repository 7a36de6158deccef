"""Inversion and editing on the bundled model, a trained one: a few steps on one rendered clip."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from ieadapt.models import load
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.inversion import invert
from ieadapt.tasks.edit.method import edit
from ieadapt.testbed import caption, render, sample_scenes

STEPS = GenerationConfig(num_inference_steps=10)
SCENE = sample_scenes(1, 5)[0]


@pytest.fixture(scope="module")
def pipe() -> DiffusionPipeline:
    return load("scenes")


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return render(SCENE)


@pytest.mark.slow
def test_refinement_brings_the_clip_back(pipe: DiffusionPipeline, frames: Tensor) -> None:
    plain, refined = (
        invert(pipe, frames[:8], caption(SCENE), EditConfig("inversion", 0.7, iterations=count, tolerance=0.0), STEPS)
        for count in (0, 2)
    )
    assert plain.vae_psnr > 30
    assert refined.inversion_psnr > plain.inversion_psnr + 4
    assert refined.inversion_psnr > 45
    assert not any(note.startswith("warning") for note in refined.notes)


@pytest.mark.slow
def test_the_colour_changes_and_the_background_stays(pipe: DiffusionPipeline, frames: Tensor) -> None:
    target = SCENE.replace(0, colour="blue" if SCENE.objects[0].colour != "blue" else "red")
    perfect = render(target)
    found = edit(
        pipe,
        frames,
        caption(target),
        source_prompt=caption(SCENE),
        config=EditConfig("inversion", start=0.1, iterations=2),
        generation=STEPS,
    )
    edge = torch.zeros_like(perfect, dtype=torch.bool)
    edge[..., :10, :] = edge[..., -10:, :] = True  # no object comes here
    assert (found.edited[0] - perfect).abs()[edge].mean() < 0.03
    mean = {
        name: clip.flatten(2).mean(-1)[:, [0, 2]].diff(dim=1).mean()
        for name, clip in (("source", frames), ("edit", found.edited[0]), ("perfect", perfect))
    }
    assert abs(mean["edit"] - mean["perfect"]) < 0.65 * abs(mean["source"] - mean["perfect"])
