"""The guidance sums."""

from __future__ import annotations

import torch

from ieadapt.functional import cfg, guidance_delta


def test_cfg_ends() -> None:
    uncond, cond = torch.randn(2, 3, 4)
    assert torch.allclose(cfg(uncond, cond, 1.0), cond)
    assert torch.equal(cfg(uncond, cond, 0.0), uncond)


def test_delta_passes_through_any_guidance_scale() -> None:
    uncond, cond, weak = torch.randn(3, 4, 5).double()
    delta = guidance_delta(cond, weak, 1.7)
    for scale in (0.0, 1.0, 3.5, 12.0):
        guided = cfg(uncond + delta, cond + delta, scale)
        assert torch.allclose(guided, uncond + scale * (cond - uncond) + 1.7 * (cond - weak))
