"""Weights are counted from the headers of their files, and a model that is too large is refused before it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ieadapt.errors import UsageError
from ieadapt.models import load
from ieadapt.runs import model_memory
from ieadapt.runs.model_memory import check_memory, weights_bytes
from ieadapt.runs.pipelines import Hardware
from ieadapt.runs.sources import GIB

CPU = Hardware(device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("unet", "vae"):
        (tmp_path / part).mkdir()
        weights = {"a": torch.zeros(300, 1000, dtype=torch.bfloat16), "b": torch.zeros(())}
        save_file(weights, tmp_path / part / "model.safetensors")
        save_file(weights, tmp_path / part / "model.fp16.safetensors")
    return tmp_path


def test_weights_take_what_they_are_computed_with(folder: Path) -> None:
    assert weights_bytes(str(folder), CPU) == 2 * (300_000 + 1) * 4
    assert weights_bytes(str(folder), Hardware("cpu", "bfloat16")) == 2 * (300_000 + 1) * 2


def test_the_bundled_model_takes_at_least_that() -> None:
    pipe = load("shapes")
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    there = sum(tensor.nbytes for part in parts for tensor in part.state_dict().values())
    counted = weights_bytes("shapes", CPU) or 0
    assert 0.75 * there < counted <= there  # AnimateDiff holds its motion modules twice


def test_a_model_that_is_not_here_passes() -> None:
    assert weights_bytes("someone/model", CPU) is None
    check_memory("someone/model", CPU)


def test_a_model_larger_than_the_free_memory_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_memory, "weights_bytes", lambda model, hardware: 3 * GIB)
    monkeypatch.setattr(model_memory, "free_memory", lambda: 2 * GIB)
    check_memory(str(folder), CPU, spare=GIB)
    with pytest.raises(UsageError, match=r"at most the 2\.0 GiB that are free; got 3\.0 GiB for its weights alone"):
        check_memory(str(folder), CPU)
