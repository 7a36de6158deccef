"""The scripts for a GPU, rehearsed at tiny sizes: they run, and their records say what their tables need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_attention, gpu_correctness, gpu_edit, gpu_step
from benchmarks.gpu_models import Budget
from benchmarks.results import load
from ieadapt.functional.kernels import FusedRows, fused_rows

CPU = ("--device", "cpu")


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def rows_of(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    return {row["variant"]: row for row in load(name, folder=folder)["rows"]}


def test_attention(tmp_path: Path) -> None:
    assert gpu_attention.main([*CPU, "--only", "joint", "--out", str(tmp_path)]) == 0
    rows = rows_of(tmp_path, "gpu-attention")
    assert {"PyTorch, MATH", "kernel alone", "exact", "sampled 5%"} <= rows.keys()
    assert rows["kernel alone"]["entropy_error"] < 1e-5
    assert rows["PyTorch, MATH"]["times_sdpa"] == 1.0


@pytest.mark.slow
def test_the_sweep_of_the_kernels_forms(tmp_path: Path) -> None:
    assert gpu_attention.main([*CPU, "--sweep", "--only", "spatial", "--out", str(tmp_path)]) == 0
    rows = rows_of(tmp_path, "gpu-attention-sweep")
    assert {name.split()[0] for name in rows} == {"PyTorch,", "fixed", "running", "described"}
    assert all(row["entropy_error"] < 1e-5 for row in rows.values() if "entropy_error" in row)


def test_steps(tmp_path: Path) -> None:
    assert gpu_step.main([*CPU, "--repeats", "1", "--only", "Wan", "--out", str(tmp_path)]) == 0
    rows = rows_of(tmp_path, "gpu-step")
    assert {"plain", "exact", "sampled 5%", "guided, plain", "guided, last quarter of the sites, prefix"} <= rows.keys()


def test_edits(tmp_path: Path) -> None:
    assert gpu_edit.main([*CPU, "--repeats", "1", "--only", "CogVideoX", "--out", str(tmp_path)]) == 0
    rows = rows_of(tmp_path, "gpu-edit")
    assert {"two rows, plain", "the whole map at all sites", "the map over the video at all sites"} <= rows.keys()


def test_a_budget_that_is_spent_leaves_the_rest_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not Budget(1.0).allows("a long step", 2.0)
    assert "left out, 1 s of 1 left: a long step" in capsys.readouterr().out


def test_correct_kernels_pass() -> None:
    for name in ("long", "joint", "sampled"):
        rows = gpu_correctness.run_group(name, gpu_correctness.rehearsal()[name], "cpu")
        assert all(row["passed"] for row in rows), rows


def test_a_wrong_kernel_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*given: Any, **named: Any) -> FusedRows:
        rows = fused_rows(*given, **named)
        rows["entropy"][0, 0, 3] += 0.05
        return rows

    monkeypatch.setattr(gpu_correctness, "fused_rows", wrong)
    rows = gpu_correctness.run_group("long", gpu_correctness.rehearsal()["long"][:1], "cpu")
    assert [row["passed"] for row in rows] == [False]


def test_a_kernel_that_raises_is_a_failure_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any, **named: Any) -> FusedRows:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(gpu_correctness, "fused_rows", broken)
    rows = gpu_correctness.run_group("long", gpu_correctness.rehearsal()["long"][:2], "cpu")
    assert [row["failure"] for row in rows] == ["RuntimeError: an illegal memory access"] * 2
