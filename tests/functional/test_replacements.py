"""Every replacement and scope, against the whole map built entry by entry in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.functional import (
    Attention,
    Scope,
    VideoTokens,
    identity_output,
    mix_output,
    skip_output,
    temperature_output,
    uniform_output,
)
from tests.functional import dense

SIZE = 29
TEXT_FIRST, VIDEO_FIRST, BETWEEN, NO_TEXT = (
    VideoTokens(5, 4, 6),
    VideoTokens(0, 4, 6),
    VideoTokens(2, 4, 6),
    VideoTokens(0, 29, 1),
)
LAYOUTS = {"text first": TEXT_FIRST, "video first": VIDEO_FIRST, "between": BETWEEN, "no text": NO_TEXT, "none": None}

REPLACEMENTS: dict[str, tuple[str, float | None, Callable[..., Tensor]]] = {
    "identity": ("identity", None, identity_output),
    "uniform": ("uniform", None, uniform_output),
    "skip": ("skip", None, skip_output),
    "mix 0.3": ("mix", 0.3, partial(mix_output, weight=0.3)),
    "temperature 2": ("temperature", 2.0, partial(temperature_output, temperature=2.0)),
    "temperature 0.5": ("temperature", 0.5, partial(temperature_output, temperature=0.5)),
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def visible(*shape: int, seed: int = 0) -> Tensor:
    """Return a boolean mask that leaves every row its own key and the first and last ones."""
    mask = (random(*shape, seed=seed) > -0.5).expand(*shape[:-2], max(shape[-2], 1), SIZE).clone()
    mask[..., 0] = mask[..., -1] = mask[..., 7] = True
    return mask | torch.eye(SIZE, dtype=torch.bool) if shape[-2] == SIZE else mask


MASKS = {
    "none": None,
    "bool keys": visible(2, 1, 1, SIZE),
    "bool heads": visible(1, 3, 1, SIZE, seed=1),
    "bool all": visible(2, 3, SIZE, SIZE, seed=2),
    "bool 2d": visible(SIZE, SIZE, seed=3),
    "additive keys": ~visible(2, 3, 1, SIZE, seed=4) * -10_000.0,
    "additive all": random(2, 1, SIZE, SIZE, seed=5) + ~visible(2, 1, SIZE, SIZE, seed=6) * -10_000.0,
}


def tensors(seed: int = 0, n_queries: int = SIZE) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value of 2 batch entries and 3 heads; values have channels of their own."""
    return random(2, 3, n_queries, 8, seed=seed), random(2, 3, SIZE, 8, seed=seed + 1), random(2, 3, SIZE, 5, seed=seed)


def check(name: str, scope: Scope, video: VideoTokens | None, inputs: tuple[Tensor, ...], **options: Any) -> Tensor:
    """Compare a replacement with the reference, and its text rows with the ordinary output bit for bit."""
    query, key, value = inputs
    replacement, amount, function = REPLACEMENTS[name]
    attention = Attention(query, key, value, video=video, **options)
    output = attention.output()
    kept = output.clone()
    found = function(attention, output, scope=scope)
    values = dense.logits(query, key, options.get("mask"), options.get("scale"))
    expected = dense.replaced_map(values, replacement, amount, scope, video) @ value.double()
    assert found.shape == output.shape
    assert found.dtype == value.dtype
    assert found.is_contiguous()
    assert (found - expected).abs().max() < 2e-5
    assert torch.equal(output, kept)
    if scope != "all" and video not in {None, NO_TEXT} and query.shape[-2] == SIZE:
        assert video is not None
        text = [row for row in range(SIZE) if row not in range(video.start, video.stop)]
        assert torch.equal(found[..., text, :], output[..., text, :])
    torch.testing.assert_close(function(attention, scope=scope), found, atol=1e-5, rtol=1e-4)
    return found


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scope", ["video", "all"])
@pytest.mark.parametrize("name", REPLACEMENTS)
def test_equals_the_dense_map(name: str, scope: Scope, layout: str, mask: str) -> None:
    check(name, scope, LAYOUTS[layout], tensors(), mask=MASKS[mask])


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_renormalised_identity_equals_the_dense_map(layout: str, mask: str) -> None:
    check("identity", "video-renormalised", LAYOUTS[layout], tensors(), mask=MASKS[mask])


@pytest.mark.parametrize("scope", ["video", "all"])
@pytest.mark.parametrize("name", REPLACEMENTS)
def test_scale(name: str, scope: Scope) -> None:
    check(name, scope, TEXT_FIRST, tensors(), scale=0.9)


@pytest.mark.parametrize("scope", ["video", "all"])
@pytest.mark.parametrize("name", [name for name in REPLACEMENTS if name != "identity"])
def test_cross_attention(name: str, scope: Scope) -> None:
    check(name, scope, None, tensors(n_queries=12))
    check(name, scope, VIDEO_FIRST, tensors(n_queries=12))
    check(name, scope, None, tensors(n_queries=12), mask=MASKS["bool keys"])


@pytest.mark.parametrize("memory_limit", [464, 5_000, 50_000])
@pytest.mark.parametrize("mask", ["none", "bool keys", "additive all"])
@pytest.mark.parametrize("name", REPLACEMENTS)
def test_every_memory_limit_gives_the_same(name: str, mask: str, memory_limit: int) -> None:
    scopes: tuple[Scope, ...] = ("video", "all", "video-renormalised") if name == "identity" else ("video", "all")
    for scope in scopes:
        for video in (TEXT_FIRST, BETWEEN):
            check(name, scope, video, tensors(), mask=MASKS[mask], memory_limit=memory_limit)


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_steep_logits(name: str) -> None:
    query, key, value = tensors()
    steep = query * 0 + 1, key * 0, value
    steep[1][..., : TEXT_FIRST.start, :] = 10.0
    steep[1][..., TEXT_FIRST.slice, :] = -10.0
    check(name, "video", TEXT_FIRST, steep, scale=1.0)
    check(name, "video", TEXT_FIRST, (steep[0], -steep[1], value), scale=1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("scope", ["video", "all"])
@pytest.mark.parametrize("name", REPLACEMENTS)
def test_types(name: str, scope: Scope, dtype: torch.dtype) -> None:
    query, key, value = (tensor.to(dtype) for tensor in tensors())
    replacement, amount, function = REPLACEMENTS[name]
    found = function(Attention(query, key, value, video=TEXT_FIRST), scope=scope)
    expected = dense.replaced_map(dense.logits(query, key), replacement, amount, scope, TEXT_FIRST) @ value.double()
    assert found.dtype == dtype
    assert (found - expected).abs().max() < {torch.float64: 1e-9}.get(dtype, 8 * torch.finfo(dtype).eps)


def test_identity_of_everything_is_the_value() -> None:
    query, key, value = tensors()
    found = identity_output(Attention(query, key, value), value * 0, scope="all")
    assert torch.equal(found, value)
    assert found.data_ptr() != value.data_ptr()


def test_neutral_amounts_change_nothing() -> None:
    attention = Attention(*tensors(), video=TEXT_FIRST)
    output = attention.output()
    assert torch.equal(mix_output(attention, output, weight=0.0), output)
    for scope in ("video", "all"):
        assert torch.allclose(temperature_output(attention, output, temperature=1.0, scope=scope), output, atol=1e-6)
    assert torch.equal(mix_output(attention, output, weight=1.0), uniform_output(attention, output))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.05, 50), heat=st.floats(1, 10))
def test_heat_never_lowers_entropy(seed: int, temperature: float, heat: float) -> None:
    query, key, _ = tensors(seed)
    low, high = (dense.measure(query / t, key).ep for t in (temperature, temperature * heat))
    assert (high >= low - 1e-3).all()


def test_very_hot_keeps_masked_keys_masked() -> None:
    attention = Attention(*tensors(), mask=MASKS["additive keys"])
    hot = temperature_output(attention, temperature=1e9, scope="all")
    assert torch.allclose(hot, uniform_output(attention, scope="all"), atol=1e-5)


def test_cross_attention_has_no_identity() -> None:
    with pytest.raises(UsageError, match=r"cross-attention has no identity map; .* got 12 queries and 29 keys"):
        identity_output(Attention(*tensors(n_queries=12)))


@pytest.mark.parametrize("name", [name for name in REPLACEMENTS if name != "identity"])
def test_only_the_identity_is_renormalised(name: str) -> None:
    with pytest.raises(UsageError, match="no such scope; expected video or all; got video-renormalised"):
        REPLACEMENTS[name][2](Attention(*tensors()), scope="video-renormalised")


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_weight_out_of_range(weight: float) -> None:
    with pytest.raises(UsageError, match=r"mixing weight is out of range; expected in \[0, 1\]"):
        mix_output(Attention(*tensors()), weight=weight)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_out_of_range(temperature: float) -> None:
    with pytest.raises(UsageError, match="temperature must be positive; expected > 0"):
        temperature_output(Attention(*tensors()), temperature=temperature)


@pytest.mark.parametrize("scope", ["video", "all", "video-renormalised"])
@pytest.mark.parametrize("name", REPLACEMENTS)
def test_a_row_without_keys_gives_nothing_as_in_pytorch(name: str, scope: Scope) -> None:
    if (scope == "video-renormalised" and name != "identity") or (scope == "all" and name == "identity"):
        return
    mask = torch.ones(2, 1, SIZE, SIZE, dtype=torch.bool)
    mask[1, 0, [3, 17]] = False
    attention = Attention(*tensors(), mask, video=TEXT_FIRST)
    assert (attention.output()[1, :, [3, 17]] == 0).all()
    found = REPLACEMENTS[name][2](attention, scope=scope)
    assert (found[1, :, [3, 17]] == 0).all()
    assert torch.isfinite(found).all()
