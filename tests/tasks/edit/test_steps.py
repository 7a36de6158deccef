"""Masks of what may change: the strongest evidence sets the scale; outside the mask the source stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ieadapt.errors import FailureError
from ieadapt.models.noise_schedule import NoiseLevel, NoiseSchedule
from ieadapt.tasks.edit.steps import ChangeMask, SourceTrajectory, source_anchored


def _mask(threshold: float = 0.5) -> ChangeMask:
    return ChangeMask(torch.Size((1, 2, 3, 4, 6)), lambda grid: grid, threshold)


def test_the_strongest_place_is_inside_and_the_rest_outside() -> None:
    mask, evidence = _mask(), torch.full((1, 3, 4, 6), 0.1)
    evidence[0, 1, 1:3, 1:4] = 5.0
    mask.add(evidence)
    assert mask.grid()[0, 1, 1:3, 1:4].eq(1).all()
    assert mask.grid()[0, 0].eq(0).all()
    assert mask.grid()[0, 1, :, 5].eq(0).all()
    assert mask.as_latents().shape == (1, 2, 3, 4, 6)
    assert mask.pixels((5, 8, 12)).shape == (1, 5, 8, 12)


def test_every_look_counts_alike_whatever_its_scale_and_size() -> None:
    one, other = _mask(), _mask()
    first, second = torch.rand(2, 1, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    for mask, factor in ((one, 1.0), (other, 100.0)):
        mask.add(first)
        mask.add(second * factor)
    assert torch.equal(one.grid(), other.grid())
    one.add(torch.rand(1, 3, 2, 3))


def test_a_mask_that_saw_nothing() -> None:
    with pytest.raises(FailureError, match="the mask has seen nothing"):
        _mask().as_latents()


def test_outside_the_mask_the_targets_are_the_source() -> None:
    schedule = NoiseSchedule(
        torch.zeros(2),
        (NoiseLevel(0.5, 0.5), NoiseLevel(0.8, 0.2)),
        (NoiseLevel(0.8, 0.2), NoiseLevel(1.0, 0.0)),
        "flow",
    )

    def begin(step: int) -> Tensor:
        return torch.full((1, 2, 3, 4, 6), float(step))

    source = SourceTrajectory(begin, lambda step: begin(step + 1))
    mask, evidence = _mask(), torch.zeros(1, 3, 4, 6)
    evidence[..., :3] = 1.0
    mask.add(evidence)
    latents, prediction = torch.randn(2, 2, 2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    free = source_anchored(source, 0.0, None)(schedule, 0, latents, prediction)
    kept = source_anchored(source, 0.0, mask)(schedule, 0, latents, prediction)
    assert torch.equal(kept[:1], source.end(0))
    assert torch.equal(kept[1:, ..., :3], free[1:, ..., :3])
    assert torch.equal(kept[1:, ..., 4:], source.end(0)[..., 4:])
    corrected = source_anchored(source, 0.5, None)(schedule, 0, latents, prediction)
    error = source.end(0) - schedule.forward(0, latents, prediction)[:1]
    torch.testing.assert_close(corrected[1:], free[1:] + 0.5 * error)
