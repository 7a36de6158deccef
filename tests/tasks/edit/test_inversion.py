"""Inversion in every family: the trajectory leads back to the clip; it is named, kept, and warned about."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from ieadapt.errors import FailureError, UsageError
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.inversion import Inversion, cached_inversion, default_cache, inversion_key, invert
from ieadapt.tasks.edit.pipeline_run import PipelineRunner
from tests.families import every_family, tiny_pipeline
from tests.tasks.edit.fixture import SOURCE, STEPS, calm, clip, run_from
from tests.tiny import build

CLOSE = EditConfig("inversion", start=0.25, iterations=12, tolerance=1e-6)
ONCE, UNREFINED = EditConfig("inversion", iterations=1), EditConfig("inversion", iterations=0)
KEPT = EditConfig("inversion", start=0.0, iterations=1)
TWO_STEPS = GenerationConfig(num_inference_steps=2)
FRAMES = torch.rand(5, 3, 16, 24, generator=torch.Generator().manual_seed(0))


@every_family
def test_the_clip_comes_back_from_its_trajectory(family: str) -> None:
    with calm(family) as pipe:
        plain = invert(pipe, clip(family), SOURCE, dataclasses.replace(CLOSE, iterations=0), STEPS)
        refined = invert(pipe, clip(family), SOURCE, CLOSE, STEPS)
    assert refined.inversion_psnr > plain.inversion_psnr + 10
    assert refined.inversion_psnr > 60
    assert refined.trajectory is not None
    assert len(refined.trajectory) == 3 + 1
    assert torch.equal(refined.trajectory[-1:], refined.clean)


@every_family
def test_every_step_of_the_trajectory_leads_to_the_next(family: str) -> None:
    """What the source branch of an edit relies on: no step of the refined trajectory is left with an error."""
    with calm(family) as pipe:
        inversion = invert(pipe, clip(family), SOURCE, CLOSE, STEPS)
        trajectory, errors = inversion.trajectory, []
        assert trajectory is not None

        def checking(schedule: Any, step: int, latents: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
            recorded = trajectory[step : step + 1]  # it begins at step 1
            errors.append(float((schedule.forward(step, latents, prediction) - recorded).norm() / recorded.norm()))
            return recorded

        run_from(PipelineRunner(pipe, clip(family), 4), trajectory[:1], [SOURCE], 1, step_function=checking)
    assert len(errors) == 3
    assert max(errors) < 1e-3


def test_a_method_without_trajectory_only_passes_through_the_vae() -> None:
    found = invert(tiny_pipeline("wan"), clip("wan"), SOURCE, EditConfig(method="flowedit"), STEPS)
    assert found.trajectory is None
    assert torch.equal(found.reconstruction, found.decoded)
    assert found.inversion_psnr == 100.0


def test_the_key_names_everything_that_matters() -> None:
    pipe, frames = tiny_pipeline("wan"), clip("wan")
    made = invert(pipe, frames, SOURCE, ONCE, STEPS)
    key = inversion_key(pipe, frames, SOURCE, ONCE, STEPS)
    assert made.key == key
    of_the_edit = dataclasses.replace(ONCE, guidance_scale=7, mask="difference", inject="top=1")
    assert inversion_key(pipe, frames, SOURCE, of_the_edit, STEPS) == key
    others = [
        inversion_key(pipe, frames + 1e-3, SOURCE, ONCE, STEPS),
        inversion_key(pipe, frames, "a blue ball", ONCE, STEPS),
        inversion_key(pipe, frames, SOURCE, EditConfig("inversion", iterations=2), STEPS),
        inversion_key(pipe, frames, SOURCE, dataclasses.replace(ONCE, start=0.3), STEPS),
        inversion_key(pipe, frames, SOURCE, ONCE, GenerationConfig(num_inference_steps=5)),
        inversion_key(tiny_pipeline("ltx"), frames, SOURCE, ONCE, STEPS),
    ]
    assert len({key, *others}) == 7


def test_the_key_is_the_same_in_every_process() -> None:
    """diffusers notes which settings are defaults in an order of hashes, which differs between processes."""
    pipe, frames = tiny_pipeline("wan"), clip("wan")
    key = inversion_key(pipe, frames, SOURCE, ONCE, STEPS)
    notes = pipe.scheduler.config["_use_default_values"]
    assert len(notes) > 1
    pipe.scheduler.register_to_config(_use_default_values=notes[::-1])
    assert inversion_key(pipe, frames, SOURCE, ONCE, STEPS) == key


def test_the_key_of_an_empty_inversion_prompt_ignores_the_source_prompt() -> None:
    pipe, frames, empty = tiny_pipeline("wan"), clip("wan"), EditConfig("inversion", inversion_prompt="empty")
    assert inversion_key(pipe, frames, SOURCE, empty) == inversion_key(pipe, frames, "a cube", empty)
    assert invert(pipe, frames, SOURCE, dataclasses.replace(empty, iterations=0), STEPS).prompt == ""


@pytest.mark.parametrize("config", [ONCE, EditConfig(method="flowedit")])
def test_an_inversion_is_kept_in_a_file(tmp_path: Path, config: EditConfig) -> None:
    made = invert(tiny_pipeline("wan"), clip("wan"), SOURCE, config, STEPS)
    found = Inversion.load(made.save(tmp_path / "one.safetensors"))
    for item in dataclasses.fields(Inversion):
        mine, other = getattr(made, item.name), getattr(found, item.name)
        if isinstance(mine, torch.Tensor):
            assert torch.equal(mine, other), item.name
        else:
            assert mine == other, item.name


def test_a_file_that_holds_no_inversion(tmp_path: Path) -> None:
    (tmp_path / "one.safetensors").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"not an inversion; got .*one.safetensors; remedy: invert the clip again"):
        Inversion.load(tmp_path / "one.safetensors")


def test_a_poor_reconstruction_is_warned_about() -> None:
    found = invert(tiny_pipeline("animatediff"), clip("animatediff"), SOURCE, UNREFINED, STEPS)
    assert found.psnr < 25
    warning = next(note for note in found.notes if note.startswith("warning: the reconstruction"))
    assert f"has {found.psnr:.1f} dB, under 25 (VAE alone {found.vae_psnr:.1f}" in warning
    assert "use a clip closer to what the model was made for" in warning or "raise iterations" in warning


def test_latents_that_shrink_are_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, backward = tiny_pipeline("wan"), "ieadapt.models.noise_schedule.NoiseSchedule.backward"
    monkeypatch.setattr(backward, lambda self, step, latents, prediction: latents * 0.5)
    found = invert(pipe, clip("wan"), SOURCE, UNREFINED, STEPS)
    assert found.std_ratio < 0.5
    assert any("of the clean latents' standard deviation" in note for note in found.notes)


def test_progress_counts_both_ways() -> None:
    seen: list[tuple[int, int]] = []
    config = EditConfig("inversion", start=0.5, iterations=0)
    invert(tiny_pipeline("wan"), clip("wan"), SOURCE, config, STEPS, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_scheduler_without_inverse_is_replaced_and_said() -> None:
    from diffusers import UniPCMultistepScheduler

    pipe = tiny_pipeline("wan")
    own, unipc = pipe.scheduler, UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    pipe.scheduler = unipc
    try:
        with calm("wan"):
            found = invert(pipe, clip("wan"), SOURCE, CLOSE, STEPS)
        assert pipe.scheduler is unipc
    finally:
        pipe.scheduler = own
    assert found.notes[0].startswith("steps of UniPCMultistepScheduler have no inverse; the edit uses FlowMatchEuler")
    assert found.inversion_psnr > 60


def test_a_clip_is_inverted_once(tmp_path: Path) -> None:
    pipe, folder = build("animatediff"), tmp_path / "deep" / "cache"
    first, there = cached_inversion(folder, pipe, FRAMES, "a ball", KEPT, TWO_STEPS)
    again, there_again = cached_inversion(folder, pipe, FRAMES, "a ball", KEPT, TWO_STEPS)
    assert (there, there_again) == (False, True)
    assert torch.equal(first.reconstruction, again.reconstruction)
    assert first.trajectory is not None
    assert again.trajectory is not None
    assert torch.equal(first.trajectory, again.trajectory)
    assert [path.name for path in folder.iterdir()] == [f"{first.key}.safetensors"]


@pytest.mark.parametrize(
    ("prompt", "config", "generation", "clip"),
    [
        ("a cube", KEPT, TWO_STEPS, FRAMES),
        ("a ball", dataclasses.replace(KEPT, iterations=2), TWO_STEPS, FRAMES),
        ("a ball", KEPT, GenerationConfig(num_inference_steps=3), FRAMES),
        ("a ball", KEPT, TWO_STEPS, 1 - FRAMES),
    ],
)
def test_another_question_is_another_inversion(
    prompt: str, config: EditConfig, generation: GenerationConfig, clip: torch.Tensor, tmp_path: Path
) -> None:
    pipe = build("animatediff")
    first, _ = cached_inversion(tmp_path, pipe, FRAMES, "a ball", KEPT, TWO_STEPS)
    other, there = cached_inversion(tmp_path, pipe, clip, prompt, config, generation)
    assert not there
    assert other.key != first.key


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    pipe = build("animatediff")
    first, _ = cached_inversion(tmp_path, pipe, FRAMES, "", KEPT, TWO_STEPS)
    path = tmp_path / f"{first.key}.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert [cached_inversion(tmp_path, pipe, FRAMES, "", KEPT, TWO_STEPS)[1] for _ in range(2)] == [False, True]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FailureError, match=r"cannot be kept in this folder; got Not a directory.*another --cache"):
        cached_inversion(tmp_path / "file" / "cache", build("animatediff"), FRAMES, "", KEPT, TWO_STEPS)


def test_the_users_cache_folder_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/ieadapt/inversions")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache/ieadapt/inversions"
