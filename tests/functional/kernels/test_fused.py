"""The fused kernel against whole maps in float64: outputs, entropies, splits, masks, and what is written where."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ieadapt.errors import FailureError
from ieadapt.functional import Attention, AttentionStatistics, VideoTokens, measured_attention
from ieadapt.functional.kernels import fused_rows
from ieadapt.functional.kernels.launch import Tiling, padded, tiling_of
from tests.functional import dense
from tests.functional.dense import measure
from tests.functional.test_statistics import random


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    """Memory that a kernel is given to write is NaN before."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(before)


def never() -> Tensor:
    raise AssertionError("the kernel gives the output itself")


def check(
    query: Tensor,
    key: Tensor,
    device: torch.device,
    mask: Tensor | None = None,
    video: VideoTokens | None = None,
    scale: float | None = None,
    points: float = 1e-3,
    float32_error: float = 1e-5,
) -> None:
    """Measure with the kernel and compare output and every statistic with the dense reference."""
    value = random(*key.shape, seed=5).to(query.dtype)
    on_device = [tensor.to(device) for tensor in (query, key, value)]
    there = None if mask is None else mask.to(device)
    given, found = measured_attention(Attention(*on_device, there, scale, video), never, kernel="on")
    logits = dense.logits(query, key, mask, scale)
    expected = dense.statistics(logits, video)
    energies = (logits.softmax(-1) @ value.double()).square().sum(-1)
    text = [row for row in range(query.shape[2]) if video is not None and row not in range(video.start, video.stop)]
    if text and query.shape[2] == key.shape[2]:
        expected |= {"text_energy": energies[..., text].sum(-1)}
        energies[..., text] = 0
    close(found, expected | {"energy": energies.sum(-1)}, points)
    output = logits.softmax(dim=-1) @ value.double()
    worst = (given.cpu().double() - output).abs().max()
    assert worst <= (float32_error if query.dtype == torch.float32 else 5e-3 if query.dtype == torch.float16 else 3e-2)


def close(found: AttentionStatistics, expected: dict[str, Tensor], points: float) -> None:
    values = {name: value.cpu() for name, value in dataclasses.asdict(found).items() if value is not None}
    assert values.keys() == expected.keys()
    for name, value in values.items():
        if name.endswith("energy"):
            assert torch.allclose(value.double(), expected[name], rtol=1e-2, atol=1e-4)
            continue
        worst = (value.double() - expected[name]).abs().max()
        assert worst <= (points if name.endswith("ep") else 1e-4), (name, worst)


@pytest.mark.parametrize("dim", [8, 16, 40, 80, 160, 256])
def test_head_dims(dim: int, device: torch.device) -> None:
    check(random(1, 2, 70, dim), random(1, 2, 70, dim, seed=1), device)


@pytest.mark.parametrize("n_keys", [1, 31, 64, 65, 200])
@pytest.mark.parametrize("n_queries", [1, 130])
def test_cross_attention(n_queries: int, n_keys: int, device: torch.device) -> None:
    check(random(2, 2, n_queries, 16, spread=2), random(2, 2, n_keys, 16, seed=1), device)


@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)])
@pytest.mark.parametrize("tokens", [16, 150])
def test_half_precision(dtype: torch.dtype, tokens: int, device: torch.device) -> None:
    if dtype == torch.bfloat16 and device.type == "cpu":
        pytest.skip("Triton's interpreter multiplies no bfloat16")
    query, key = (random(2, 2, tokens, 40, seed=seed, spread=2).to(dtype) for seed in (0, 1))
    check(query, key, device)


LAYOUTS = {
    "text first": VideoTokens(19, 5, 33),
    "video first": VideoTokens(0, 5, 33),
    "between": VideoTokens(7, 5, 33),
    "video only": VideoTokens(0, 6, 32),
    "frames end with blocks": VideoTokens(8, 3, 64),
    "least frames": VideoTokens(3, 9, 16),
    "one frame": VideoTokens(3, 1, 100),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_joint_attention(name: str, device: torch.device) -> None:
    video = LAYOUTS[name]
    tokens = video.stop + {"text first": 0, "video only": 0}.get(name, 11)
    expected_points = 2e-3
    if name == "one frame":
        query, key = random(1, 1, tokens, 16, spread=3), random(1, 1, tokens, 16, seed=1)
        found = measure(query.to(device), key.to(device), video=video, kernel="on")
        slow = measure(query, key, video=video, kernel="off")
        for name, value in dataclasses.asdict(slow).items():
            assert value is None or torch.allclose(getattr(found, name).cpu(), value, atol=1e-4), name
        return
    check(
        random(1, 2, tokens, 16, spread=3), random(1, 2, tokens, 16, seed=1), device, None, video, None, expected_points
    )


VIDEO = VideoTokens(start=3, frames=4, positions=20)
MASKS = {
    "bool keys": random(2, 1, 1, 90) > -0.5,
    "bool all": random(2, 3, 90, 90, seed=1) > -0.5,
    "bool heads": random(1, 3, 1, 90, seed=1) > -0.5,
    "bool 2d": random(90, 90, seed=2) > -0.5,
    "last keys": torch.arange(90) < 70,
    "first keys": torch.arange(90) >= 40,
    "additive keys": (random(2, 3, 1, 90, seed=3) < -0.5) * -10_000.0,
    "additive all": random(2, 1, 90, 90, seed=4) + (random(2, 1, 90, 90, seed=5) < -0.5) * -10_000.0,
    "additive -inf": torch.where(random(1, 1, 90, 90, seed=6) < -0.5, -torch.inf, 0.0),
    "additive float16": ((random(2, 1, 1, 90, seed=7) < -0.5) * -10_000.0).half(),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("video", [None, VIDEO], ids=str)
def test_masks(name: str, video: VideoTokens | None, device: torch.device) -> None:
    check(random(2, 3, 90, 16, spread=2), random(2, 3, 90, 16, seed=8), device, MASKS[name], video)


@pytest.mark.parametrize("tokens", [1, 7, 8, 16, 24, 32, 33, 64])
def test_short_sequences(tokens: int, device: torch.device) -> None:
    check(random(5, 3, tokens, 40, spread=2), random(5, 3, tokens, 40, seed=1), device)


@pytest.mark.parametrize("video", [None, VideoTokens(5, 4, 22)], ids=str)
def test_outliers(video: VideoTokens | None, device: torch.device) -> None:
    signs = random(1, 2, 93, 93).sign()
    query, key = torch.eye(93).expand(1, 2, 93, 93), signs.transpose(-1, -2) * 80
    check(query, key, device, scale=1.0, video=video)
    check(query[..., :16, :16], key[..., :16, :16], device, scale=1.0)


@pytest.mark.parametrize("tokens", [16, 100])
def test_identity_and_uniform_maps(tokens: int, device: torch.device) -> None:
    query = torch.eye(tokens, device=device).expand(1, 2, tokens, tokens)
    assert measure(query, query, scale=1e4, kernel="on").ep.abs().max() == 0
    assert (measure(query * 0, query, kernel="on").ep - 100).abs().max() < 1e-3


@pytest.mark.parametrize("start", [0, 3])
def test_text_that_outweighs_video_by_far(start: int, device: torch.device) -> None:
    video = VideoTokens(start, 4, 20)
    query, key = torch.ones(1, 1, 90, 16), torch.zeros(1, 1, 90, 16)
    key[..., 0] = 80
    key[:, :, video.slice, 0] = -80 + random(1, 1, 80)
    check(query, key, device, scale=1.0, video=video)


@pytest.mark.parametrize("video", [None, VIDEO], ids=str)
def test_rows_without_keys_are_left_out_as_elsewhere(video: VideoTokens | None, device: torch.device) -> None:
    mask = torch.ones(2, 1, 90, 90, dtype=torch.bool, device=device)
    mask[1, 0, [1, 17, 89]] = False
    mask[0, 0, 20, VIDEO.slice] = False
    query = random(2, 3, 90, 16).to(device)
    found, expected = (measure(query, query, mask=mask, video=video, kernel=kernel) for kernel in ("on", "off"))
    for name, value in dataclasses.asdict(expected).items():
        assert value is None or torch.allclose(getattr(found, name), value, atol=1e-3), name
    with pytest.raises(FailureError, match="leaves no query row a key"):
        measure(query, query, mask=torch.zeros_like(mask), kernel="on")


def test_every_row_of_every_figure_is_written_and_nothing_else(device: torch.device) -> None:
    query = random(2, 3, 90, 40).to(device)
    rows = fused_rows(Attention(query, query, query, torch.ones(90, device=device) > 0, 0.1, VIDEO))
    assert torch.isfinite(rows.stats).all()
    assert rows.output is not None
    assert torch.isfinite(rows.output).all()
    expected = dense.logits(query.cpu(), query.cpu(), scale=0.1).logsumexp(-1)
    assert torch.allclose(rows["logsumexp"].cpu().double(), expected, atol=1e-5)
    assert (rows["video_keys"] == 80).all()


def test_output_lies_in_memory_as_the_queries_do(device: torch.device) -> None:
    query, key = (random(2, 29, 3, 8, seed=seed).transpose(1, 2) for seed in (0, 1))
    check(query, key, device)
    rows = fused_rows(Attention(query.to(device), key.to(device), key.to(device), scale=1.0))
    assert rows.output is not None
    assert rows.output.stride() == query.stride()


def test_channels_that_are_not_dense_are_read_rightly(device: torch.device) -> None:
    query, key = (random(2, 3, 8, 70, seed=seed).transpose(2, 3) for seed in (0, 1))
    check(query, key, device)


@pytest.mark.parametrize("tiling", [Tiling(16, 16, 1, 1), Tiling(64, 128, 4, 2), Tiling(128, 32, 8, 2)], ids=str)
def test_every_tiling_gives_the_same(tiling: Tiling, device: torch.device) -> None:
    query, key = random(1, 2, 178, 16, spread=3).to(device), random(1, 2, 178, 16, seed=1).to(device)
    video = VideoTokens(9, 5, 33)
    attention = Attention(query, key, key, scale=0.25, video=video)
    usual, other = fused_rows(attention), fused_rows(attention, tiling=tiling)
    assert usual.output is not None
    assert other.output is not None
    assert torch.allclose(usual.output, other.output, atol=1e-5)
    assert torch.allclose(usual.stats, other.stats, atol=1e-4)


@pytest.mark.parametrize("video", [None, VideoTokens(9, 5, 33)], ids=str)
@pytest.mark.parametrize("above", [0.0, 60.0, 300.0])
def test_logits_far_above_the_reference(above: float, video: VideoTokens | None, device: torch.device) -> None:
    """The last keys' logits lie above those of the first block, from not at all to past the range of exponents."""
    query, key = random(1, 2, 178, 16), random(1, 2, 178, 16, seed=1)
    query[..., 0], key[..., 0] = 1.0, 0.0
    key[..., 150:170, 0] = above
    check(query, key, device, scale=1.0, video=video, points=1e-2, float32_error=2e-4)
    query, key = query.to(device), key.to(device)
    rows = [
        fused_rows(Attention(query, key, key, scale=1.0, video=video), maximum=maximum)
        for maximum in ("fixed", "running")
    ]
    for name in ("entropy", "logsumexp", "energy"):
        assert torch.allclose(rows[0][name], rows[1][name], rtol=1e-4, atol=2e-4), name
    assert torch.isfinite(rows[0].stats).all()


def test_only_blocks_that_need_it_are_done_again(device: torch.device) -> None:
    query, key = random(1, 1, 256, 16).to(device), random(1, 1, 256, 16, seed=1).to(device)
    query[..., :128, 0], query[..., 128:, 0], key[..., 0] = 0.0, 1.0, 0.0
    key[..., 200, 0] = 300.0
    attention, tiling = Attention(query, key, key, scale=1.0), Tiling(64, 32, 4, 1)
    fixed = fused_rows(attention, tiling=tiling, maximum="fixed")
    running = fused_rows(attention, tiling=tiling, maximum="running")
    usual, far = slice(0, 128), slice(128, 256)
    assert torch.equal(fixed["logsumexp"][..., far], running["logsumexp"][..., far])
    assert not torch.equal(fixed["logsumexp"][..., usual], running["logsumexp"][..., usual])
    assert torch.allclose(fixed["logsumexp"], running["logsumexp"], atol=1e-4)


def test_tilings_fit_the_shared_memory_of_small_gpus_at_the_usual_dims() -> None:
    for dim, size in ((40, 2), (64, 2), (64, 4)):
        tiling = tiling_of(dim, size)
        tiles = tiling.block_m + 2 * tiling.stages * tiling.block_n
        assert tiles * padded(dim) * size <= 100_000


def test_the_output_is_as_exact_as_torch_attention(device: torch.device) -> None:
    query, key, value = (random(1, 2, 150, 64, seed=seed, spread=2).half().to(device) for seed in range(3))
    exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    usual = (F.scaled_dot_product_attention(query, key, value) - exact).abs().max()
    rows = fused_rows(Attention(query, key, value))
    assert rows.output is not None
    assert (rows.output - exact).abs().max() <= 2 * usual
