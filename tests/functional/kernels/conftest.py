"""The kernels run on the GPU where there is one, and in Triton's interpreter elsewhere (the project's conftest)."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch


@pytest.fixture(autouse=True)
def _triton() -> None:
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")


@pytest.fixture(autouse=True)
def _long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few keys go the way of many."""
    monkeypatch.setattr("ieadapt.functional.kernels.launch.FEW_KEYS", 0)


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
