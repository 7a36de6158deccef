"""Sampled rows from the kernel: the same statistics as from the streaming path, for the same rows."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ieadapt.functional import RowSample, VideoTokens
from tests.functional.dense import measure
from tests.functional.test_statistics import random

VIDEO = VideoTokens(start=26, frames=5, positions=60)


@pytest.mark.parametrize("video", [None, VIDEO], ids=str)
@pytest.mark.parametrize("mask", [None, random(2, 1, 1, 326, seed=3) > -1], ids=["no mask", "keys"])
def test_equals_the_streaming_path(mask: torch.Tensor | None, video: VideoTokens | None, device: torch.device) -> None:
    query, key = (random(2, 3, 326, 16, seed=seed, spread=2).to(device) for seed in (0, 1))
    given = {"mask": None if mask is None else mask.to(device), "video": video, "sample": RowSample(0.5)}
    found = measure(query, key, kernel="on", **given)
    expected = measure(query, key, kernel="off", **given)
    for name, value in dataclasses.asdict(expected).items():
        assert (value is None) == (getattr(found, name) is None), name
        assert value is None or torch.allclose(getattr(found, name), value, atol=1e-3, equal_nan=name == "text_ep"), (
            name
        )
