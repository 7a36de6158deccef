"""Inversions are kept under what they depend on, found again, and made again where a file is damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ieadapt.errors import FailureError
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.inversion_cache import cached_inversion, default_cache
from ieadapt.tasks.generate import GenerationConfig
from tests.tiny import build

CONFIG = EditConfig("inversion", start=0.0, iterations=1)
GENERATION = GenerationConfig(num_inference_steps=2)
CLIP = torch.rand(5, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def test_a_clip_is_inverted_once(tmp_path: Path) -> None:
    pipe, folder = build("animatediff"), tmp_path / "deep" / "cache"
    first, there = cached_inversion(folder, pipe, CLIP, "a ball", CONFIG, GENERATION)
    again, there_again = cached_inversion(folder, pipe, CLIP, "a ball", CONFIG, GENERATION)
    assert (there, there_again) == (False, True)
    assert torch.equal(first.reconstruction, again.reconstruction)
    assert first.trajectory is not None
    assert again.trajectory is not None
    assert torch.equal(first.trajectory, again.trajectory)
    assert [path.name for path in folder.iterdir()] == [f"{first.key}.safetensors"]


@pytest.mark.parametrize(
    ("prompt", "config", "generation", "clip"),
    [
        ("a cube", CONFIG, GENERATION, CLIP),
        ("a ball", replace(CONFIG, iterations=2), GENERATION, CLIP),
        ("a ball", CONFIG, GenerationConfig(num_inference_steps=3), CLIP),
        ("a ball", CONFIG, GENERATION, 1 - CLIP),
    ],
)
def test_another_question_is_another_inversion(
    prompt: str, config: EditConfig, generation: GenerationConfig, clip: torch.Tensor, tmp_path: Path
) -> None:
    pipe = build("animatediff")
    first, _ = cached_inversion(tmp_path, pipe, CLIP, "a ball", CONFIG, GENERATION)
    other, there = cached_inversion(tmp_path, pipe, clip, prompt, config, generation)
    assert not there
    assert other.key != first.key


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    pipe = build("animatediff")
    first, _ = cached_inversion(tmp_path, pipe, CLIP, "", CONFIG, GENERATION)
    path = tmp_path / f"{first.key}.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert [cached_inversion(tmp_path, pipe, CLIP, "", CONFIG, GENERATION)[1] for _ in range(2)] == [False, True]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FailureError, match=r"cannot be kept in this folder; got Not a directory.*another --cache"):
        cached_inversion(tmp_path / "file" / "cache", build("animatediff"), CLIP, "", CONFIG, GENERATION)


def test_the_users_cache_folder_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/ieadapt/inversions")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache/ieadapt/inversions"
