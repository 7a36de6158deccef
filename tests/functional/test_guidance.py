"""The guidance sums."""

from __future__ import annotations

import pytest
import torch

from ieadapt.errors import FailureError
from ieadapt.functional import cfg, cfg_scale_of, guidance_delta, rescale_std


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


def test_the_spread_of_every_video_goes_back_by_the_share() -> None:
    plain, delta = torch.randn(2, 3, 4, 5, 6).double(), torch.randn(2, 3, 4, 5, 6).double()
    shifted = plain + delta
    for share in (0.0, 0.3, 1.0):
        restored = rescale_std(shifted, plain, share)
        for video in range(len(plain)):
            wanted = (1 - share) * shifted[video].std() + share * plain[video].std()
            torch.testing.assert_close(restored[video].std(), wanted, rtol=1e-5, atol=0)
            ratio = restored[video] / shifted[video]
            torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio.flatten()[0])), rtol=1e-6, atol=0)


def test_without_a_shift_the_spread_of_a_guided_prediction_stays() -> None:
    uncond, cond = torch.randn(2, 1, 3, 4)
    guided = cfg(uncond, cond, 5.0)
    torch.testing.assert_close(rescale_std(guided, guided, 1.0), guided)


def test_the_guidance_scale_is_read_off_and_another_form_is_refused() -> None:
    torch.manual_seed(0)
    cond, uncond, other = torch.randn(3, 1, 64)
    assert cfg_scale_of(uncond + 6.5 * (cond - uncond), cond, uncond) == pytest.approx(6.5, rel=1e-4)
    with pytest.raises(FailureError, match=r"does not combine its guidance branches linearly.*guidance_rescale"):
        cfg_scale_of(other, cond, uncond)
