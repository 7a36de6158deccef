"""The clock."""

from __future__ import annotations

import time

import pytest
import torch

from ieadapt.attention import Clock


def test_spans_add_up_with_their_weights() -> None:
    clock = Clock(torch.device("cpu"))
    assert clock.seconds == 0
    with clock.span():
        time.sleep(0.01)
    first = clock.seconds
    assert first >= 0.01
    clock.add(1.0, 3.0, 0.25)
    assert clock.seconds == pytest.approx(first + 0.5)
    assert clock.seconds == pytest.approx(first + 0.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_is_timed_by_its_own_events() -> None:
    clock = Clock(torch.device("cuda"))
    with clock.span():
        torch.cuda._sleep(50_000_000)
    assert clock.seconds > 0.005
