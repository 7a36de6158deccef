"""Blurred queries: the right blur on the right grid, in every family."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ieadapt.attention import AttentionCall, find_sites, intercept
from ieadapt.errors import UsageError
from ieadapt.interventions import BlurQueries
from ieadapt.interventions.blur_queries import blur_matrix
from tests.families import captured, every_family, predict
from tests.interventions.dense_maps import dense_logits
from tests.interventions.test_perturbation import make_call


def _blurred_image(image: Tensor, sigma: float, size: int) -> Tensor:
    """SEG's blur as its code writes it: a depthwise convolution with a reflected border."""
    line = torch.exp(-0.5 * (torch.arange(-(size // 2), size // 2 + 1) / sigma) ** 2)
    line = line / line.sum()
    kernel = (line[:, None] * line[None]).expand(image.shape[0], 1, -1, -1)
    padded = F.pad(image[None], [size // 2] * 4, mode="reflect")
    return F.conv2d(padded, kernel, groups=image.shape[0])[0]


def test_the_matrices_are_the_convolution_with_reflected_borders() -> None:
    image = torch.randn(3, 8, 9)
    rows, columns = blur_matrix(8, 1.0), blur_matrix(9, 1.0)
    torch.testing.assert_close(rows @ image @ columns.T, _blurred_image(image, 1.0, 7))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 50.0, float("inf")])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_rows_add_up_to_one(sigma: float, size: int) -> None:
    torch.testing.assert_close(blur_matrix(size, sigma).sum(1), torch.ones(size))


def _dense(call: AttentionCall) -> Tensor:
    """Infinite blur: every video query of a frame (or position) is that frame's mean; masses kept on joint maps."""
    layout, query = call.layout, call.query.clone()
    for frame in range(layout.frames):
        first = layout.start + frame * layout.height * layout.width
        part = slice(first, first + layout.height * layout.width)
        query[:, :, part] = query[:, :, part].mean(2, keepdim=True)
    if call.site.kind == "temporal":
        query[:] = call.query.mean(2, keepdim=True)
    own = dense_logits(call).softmax(-1)
    changed = query.double() @ call.key.double().transpose(-1, -2) * call.scale
    start, stop = layout.start, layout.start + layout.frames * layout.height * layout.width
    if call.site.kind != "joint":
        start, stop = 0, call.key.shape[2]
    mass = own[..., start:stop, start:stop].sum(-1, keepdim=True)
    own[..., start:stop, start:stop] = changed[..., start:stop, start:stop].softmax(-1) * mass
    return (own @ call.value.double()).to(call.value.dtype)


@every_family
def test_infinite_blur_equals_the_dense_reference(family: str) -> None:
    denoiser, _ = captured(family)
    sites = [site for site in find_sites(denoiser) if site.kind in ("spatial", "temporal", "joint")]
    with intercept(denoiser, BlurQueries(float("inf")), sites):
        output = predict(family)
    with intercept(denoiser, _dense, sites):
        expected = predict(family)
    torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4)
    assert (output - predict(family)).abs().max() > 1e-3


@every_family
def test_a_narrow_blur_changes_next_to_nothing(family: str) -> None:
    plain, (denoiser, _) = predict(family), captured(family)
    sites = [site for site in find_sites(denoiser) if site.kind in ("spatial", "temporal", "joint")]
    with intercept(denoiser, BlurQueries(0.01), sites):
        torch.testing.assert_close(predict(family), plain, rtol=1e-4, atol=1e-5)


def test_a_wide_blur_moves_away_from_the_original_smoothly() -> None:
    denoiser, _ = captured("animatediff")
    plain, distances = predict("animatediff"), []
    for sigma in (0.4, 0.8, float("inf")):
        with intercept(denoiser, BlurQueries(sigma), "spatial"):
            distances.append((predict("animatediff") - plain).square().mean().item())
    assert distances == sorted(distances)
    assert distances[0] < distances[-1]


def test_a_model_without_layout_is_refused() -> None:
    with pytest.raises(UsageError, match="changing queries needs to know which token lies where"):
        BlurQueries(1.0)(make_call())


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_widths_must_be_positive(sigma: float) -> None:
    with pytest.raises(UsageError, match="width of a blur must be positive"):
        BlurQueries(sigma)
