"""What does not fit into the memory is refused before it is loaded or computed, with the estimate."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from ieadapt.errors import UsageError
from ieadapt.models import check_memory, load, loaded_size
from ieadapt.models.memory import memory_estimate, weights_size
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhance
from ieadapt.tasks.generate import generate
from ieadapt.tasks.measure.method import measure
from tests.families import PROMPTS, every_family, tiny_pipeline
from tests.tasks.test_generate import config_for
from tests.tiny import build, call_arguments


def limit(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("ieadapt.models.memory.free_memory", lambda device: size)


def needed(family: str, rows: int = 2) -> int:
    size = (call_arguments(family)[name] for name in ("num_frames", "height", "width"))
    return memory_estimate(tiny_pipeline(family), *size, rows)


@every_family
def test_a_run_that_cannot_fit_is_refused_before_it_begins(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, needed(family, rows=1) // 3)
    called: list[object] = []
    pipe = tiny_pipeline(family)
    monkeypatch.setattr(type(pipe), "__call__", lambda *given, **named: called.append(given))
    frames = call_arguments(family)["num_frames"]
    with pytest.raises(
        UsageError,
        match=rf"run is too large for the memory; expected at most .* free on cpu; got about .* of {frames} frames of",
    ):
        generate(pipe, PROMPTS[0], config_for(family))
    assert not called


def test_measuring_and_enhancing_are_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, needed("wan", rows=1) // 3)
    with pytest.raises(UsageError, match="the run is too large for the memory"):
        measure(tiny_pipeline("wan"), PROMPTS[0], config_for("wan"))
    with pytest.raises(UsageError, match="the run is too large for the memory"):
        enhance(tiny_pipeline("wan"), PROMPTS[0], config=EnhanceConfig(sites="joint"), generation=config_for("wan"))


def test_a_run_that_may_not_fit_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, int(needed("cogvideox") / 1.5))
    with pytest.warns(UserWarning, match="the run may be too large for the memory; expected at most"):
        generate(tiny_pipeline("cogvideox"), PROMPTS[0], config_for("cogvideox"))


def test_nothing_is_said_of_a_run_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, needed("cogvideox"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        generate(tiny_pipeline("cogvideox"), PROMPTS[0], config_for("cogvideox"))


def test_rows_of_the_batch_count() -> None:
    denoising = [memory_estimate(_without_vae("cogvideox"), 9, 32, 48, rows) for rows in (2, 4)]
    assert denoising[1] == pytest.approx(2 * denoising[0], rel=0.01)


def test_a_vae_in_tiles_is_not_counted() -> None:
    pipe = build("wan")
    whole = memory_estimate(pipe, 9, 32, 48, 1)
    pipe.vae.enable_tiling()
    assert memory_estimate(pipe, 9, 32, 48, 1) == memory_estimate(_without_vae("wan"), 9, 32, 48, 1) <= whole


def test_weights_that_do_not_fit_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = build("wan")
    pipe.save_pretrained(tmp_path)
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    size = weights_size(tmp_path, torch.float32)
    assert size == sum(4 * parameter.numel() for part in parts for parameter in part.parameters())
    assert weights_size(tmp_path, torch.bfloat16) == size // 2
    limit(monkeypatch, size - 1)
    monkeypatch.setattr("diffusers.WanPipeline.from_pretrained", lambda *given, **named: pytest.fail("read"))
    with pytest.raises(
        UsageError, match=r"weights are too large for the memory; .* free on cpu; got .* in float32; .*bfloat16"
    ):
        load(tmp_path)


def test_a_size_that_the_model_does_not_say_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 1)
    pipe = build("wan")
    monkeypatch.setattr("ieadapt.models.memory.run_size", _unknown)
    monkeypatch.setattr("ieadapt.tasks.generate.call_pipeline", lambda *given: torch.zeros(1, 2, 3, 4, 4))
    assert generate(pipe, PROMPTS[0], GenerationConfig(num_inference_steps=1)).shape == (1, 2, 3, 4, 4)


def _unknown(pipe: object, requested: object) -> object:
    raise UsageError("the model does not say its own size")


def _without_vae(family: str) -> object:
    pipe = build(family)
    pipe.vae = None
    return pipe


def test_what_will_be_free_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    size = loaded_size("scenes")
    limit(monkeypatch, size // 2)
    check_memory("scenes", spare=size)
    with pytest.raises(UsageError, match="the model's weights are too large for the memory"):
        check_memory("scenes")


def test_a_bundled_model_takes_at_least_what_is_said() -> None:
    pipe = load("scenes")
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    there = sum(tensor.nbytes for part in parts for tensor in part.state_dict().values())
    assert 0.75 * there < loaded_size("scenes") <= there  # AnimateDiff holds its motion modules twice
    assert loaded_size("scenes", dtype=torch.bfloat16) * 2 == loaded_size("scenes")


def test_a_damaged_file_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"no weights")
    assert weights_size(tmp_path, torch.float32) == 0


@every_family
def test_the_estimate_grows_with_the_clip(family: str) -> None:
    pipe, frames = tiny_pipeline(family), call_arguments(family)["num_frames"]
    height, width = call_arguments(family)["height"], call_arguments(family)["width"]
    small = memory_estimate(pipe, frames, height, width)
    assert memory_estimate(pipe, frames, 8 * height, 8 * width) == pytest.approx(64 * small, rel=0.01)


def test_the_estimate_of_a_known_model() -> None:
    """The bundled model's VAE on 16 frames of 128x128 holds feature maps of 32 channels at full resolution."""
    assert memory_estimate(load("scenes"), 16, 128, 128) == 16 * 128 * 128 * 32 * 4 * 6
