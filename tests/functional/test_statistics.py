"""Entropy, its percentage and its split, against whole maps in float64."""

from __future__ import annotations

import dataclasses
from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ieadapt.errors import FailureError, UsageError
from ieadapt.functional import Attention, AttentionStatistics, RowSample, VideoTokens, energy
from ieadapt.functional.logits import logit_blocks, plan_blocks
from tests.functional import dense
from tests.functional.dense import measure

VIDEO = VideoTokens(start=3, frames=4, positions=6)


def random(*shape: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread


def close(found: AttentionStatistics, expected: dict[str, Tensor], points: float = 1e-3) -> None:
    """Check every statistic: percentages within `points`, the rest within 1e-4."""
    values = {name: value for name, value in dataclasses.asdict(found).items() if value is not None}
    assert values.keys() == expected.keys()
    for name, value in values.items():
        worst = (value.double() - expected[name]).abs().max()
        assert worst <= (points if name.endswith("ep") else 1e-4), (name, worst)


MASKS = {
    "none": None,
    "bool keys": random(2, 1, 1, 29) > -0.5,
    "bool all": random(2, 3, 29, 29, seed=1) > -0.5,
    "bool heads": random(1, 3, 1, 29, seed=1) > -0.5,
    "bool 2d": random(29, 29, seed=2) > -0.5,
    "additive keys": (random(2, 3, 1, 29, seed=3) < -0.5) * -10_000.0,
    "additive all": random(2, 1, 29, 29, seed=4) + (random(2, 1, 29, 29, seed=5) < -0.5) * -10_000.0,
    "additive -inf": torch.where(random(1, 1, 29, 29, seed=6) < -0.5, -torch.inf, 0.0),
    "additive bfloat16": ((random(2, 1, 1, 29, seed=7) < -0.5) * -10_000.0).bfloat16(),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("video", [None, VIDEO, VideoTokens(0, 4, 6), VideoTokens(5, 4, 6)], ids=str)
def test_equals_the_dense_reference(name: str, video: VideoTokens | None) -> None:
    query, key, mask = random(2, 3, 29, 8, spread=2), random(2, 3, 29, 8, seed=8), MASKS[name]
    close(
        measure(query, key, mask=mask, video=video),
        dense.statistics(dense.logits(query, key, mask), video),
    )


@pytest.mark.parametrize("spread", [0.0, 1.0, 80.0])
@pytest.mark.parametrize("video", [None, VIDEO], ids=str)
def test_flat_and_steep_logits(spread: float, video: VideoTokens | None) -> None:
    signs = random(1, 2, 29, 29).sign() if spread == 80 else random(1, 2, 29, 29)
    query, key = torch.eye(29).expand(1, 2, 29, 29), signs.transpose(-1, -2) * spread
    found = measure(query, key, scale=1.0, video=video)
    close(found, dense.statistics(dense.logits(query, key, scale=1.0), video))


def test_text_that_outweighs_video_by_far() -> None:
    query, key = torch.ones(1, 1, 29, 1), torch.full((1, 1, 29, 1), -80.0)
    key[:, :, VIDEO.slice, 0] += random(1, 1, 24)
    key[:, :, : VIDEO.start] = 80.0
    found = measure(query, key, scale=1.0, video=VIDEO)
    close(found, dense.statistics(dense.logits(query, key, scale=1.0), VIDEO))
    assert found.text_mass is not None
    assert found.text_mass.item() == 1
    assert found.spatial_entropy is not None
    assert found.spatial_entropy.item() > 1


@pytest.mark.parametrize("scale", [None, 0.05, 1.0])
@pytest.mark.parametrize("n_keys", [1, 7, 40])
def test_cross_attention_and_scales(scale: float | None, n_keys: int) -> None:
    query, key = random(2, 2, 12, 8), random(2, 2, n_keys, 8, seed=1)
    close(measure(query, key, scale=scale), dense.statistics(dense.logits(query, key, scale=scale)))


def test_video_in_cross_attention_means_over_all_rows() -> None:
    query, key = random(2, 2, 12, 8), random(2, 2, 29, 8, seed=1)
    close(measure(query, key, video=VIDEO), dense.statistics(dense.logits(query, key), VIDEO))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_float32(dtype: torch.dtype) -> None:
    query, key = random(2, 3, 29, 8, spread=2).to(dtype), random(2, 3, 29, 8, seed=1).to(dtype)
    found = measure(query, key, video=VIDEO)
    assert found.entropy.dtype == torch.float32
    close(found, dense.statistics(dense.logits(query, key), VIDEO))


def test_float64_stays() -> None:
    query, key = random(1, 2, 29, 8).double(), random(1, 2, 29, 8, seed=1).double()
    found = measure(query, key, video=VIDEO)
    assert found.ep.dtype == torch.float64
    close(found, dense.statistics(dense.logits(query, key), VIDEO), points=1e-9)


def test_identity_and_uniform_maps_span_the_scale() -> None:
    tokens = torch.eye(16).expand(1, 2, 16, 16)
    assert measure(tokens, tokens, scale=1e4).ep.abs().max() == 0
    assert (measure(tokens * 0, tokens).ep - 100).abs().max() < 1e-4


def test_one_key_counts_as_zero() -> None:
    mask = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
    mask[..., 0] = True
    found = measure(random(1, 1, 5, 4), random(1, 1, 5, 4, seed=1), mask=mask)
    assert found.ep.item() == 0
    assert found.n_keys.item() == 1


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_keys=st.integers(2, 40),
    spread=st.floats(0, 30),
    low=st.floats(0, 1),
    step=st.floats(0, 1),
)
def test_mixing_with_uniform_never_lowers_entropy(
    seed: int, n_keys: int, spread: float, low: float, step: float
) -> None:
    rows = random(1, 1, 4, n_keys, seed=seed, spread=spread).softmax(dim=-1)
    high = low + step * (1 - low)
    maps = [(1 - weight) * rows + weight / n_keys for weight in (low, high)]
    # A map's logarithm is its logits, and an identity matrix of queries reads them out.
    query = torch.eye(4).expand(1, 1, 4, 4)
    keys = [probabilities.clamp(min=1e-38).log().transpose(-1, -2) for probabilities in maps]
    less, more = (measure(query, key, scale=1.0).ep.item() for key in keys)
    assert more >= less - 1e-3


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    start=st.integers(0, 5),
    frames=st.integers(1, 5),
    positions=st.integers(1, 9),
    after=st.integers(0, 5),
    spread=st.floats(0, 6),
)
def test_chain_rule(seed: int, start: int, frames: int, positions: int, after: int, spread: float) -> None:
    video = VideoTokens(start, frames, positions)
    size = video.stop + after
    query, key = random(1, 2, size, 8, seed=seed, spread=spread), random(1, 2, size, 8, seed=seed + 1)
    found = measure(query, key, video=video)
    rows = query[:, :, video.slice], key[:, :, video.slice]
    alone = measure(*rows).entropy
    assert found.temporal_entropy is not None
    assert found.spatial_entropy is not None
    assert (found.temporal_entropy + found.spatial_entropy - alone).abs().max() < 1e-4


def test_single_frame_or_position_has_no_percentage_to_divide_by() -> None:
    query = random(1, 1, 6, 4)
    for video in (VideoTokens(0, 1, 6), VideoTokens(0, 6, 1)):
        found = measure(query, query, video=video)
        assert found.temporal_ep is not None
        assert found.spatial_ep is not None
        assert min(found.temporal_ep.item(), found.spatial_ep.item()) == 0
        assert max(found.temporal_ep.item(), found.spatial_ep.item()) == pytest.approx(found.ep.item())


@pytest.mark.parametrize("video", [None, VIDEO], ids=str)
@pytest.mark.parametrize("memory_limit", [4 * 4 * 29, 10_000, 100_000, 2**28])
def test_every_memory_limit_gives_the_same(memory_limit: int, video: VideoTokens | None) -> None:
    query, key, mask = random(3, 4, 29, 8), random(3, 4, 29, 8, seed=1), random(3, 1, 29, 29) > -1
    expected = measure(query, key, mask=mask, video=video)
    found = measure(query, key, mask=mask, video=video, memory_limit=memory_limit)
    for name, value in dataclasses.asdict(expected).items():
        if value is not None:
            assert torch.allclose(getattr(found, name), value, atol=1e-5), name


@pytest.mark.parametrize("shape", [(1, 1, 2000), (2, 3, 300), (50, 4, 16)])
@pytest.mark.parametrize("memory_limit", [2**18, 2**22])
def test_blocks_stay_under_the_limit_and_cover_every_row_once(shape: tuple[int, int, int], memory_limit: int) -> None:
    batch, heads, size = shape
    query = random(batch, heads, size, 4)
    seen = torch.zeros(shape)
    for block, values, counts in logit_blocks(
        Attention(query, query, query, memory_limit=memory_limit), slice(0, size)
    ):
        seen[block] += 1
        assert values.numel() * 4 * 4 <= memory_limit
        assert values.numel() <= 2**19
        assert counts is None
    assert (seen == 1).all()


def test_short_sequences_take_one_block() -> None:
    plan = plan_blocks((512, 8, 8), 8, torch.float32, torch.device("cpu"), 2**28)
    assert (plan.batches, plan.heads, plan.queries) == (512, 8, 8)
    on_gpu = plan_blocks((4096, 8, 16), 16, torch.float32, torch.device("cuda"), 2**26)
    assert on_gpu.batches == 4096 // 2


def test_transposed_inputs_are_taken_as_they_are() -> None:
    query, key = random(2, 29, 3, 8).transpose(1, 2), random(2, 29, 3, 8, seed=1).transpose(1, 2)
    close(measure(query, key), dense.statistics(dense.logits(query, key)))


def test_inputs_are_left_alone() -> None:
    query, key, mask = random(1, 2, 29, 8), random(1, 2, 29, 8, seed=1), random(1, 2, 29, 29, seed=2)
    kept = query.clone(), key.clone(), mask.clone()
    measure(query, key, mask=mask, video=VIDEO)
    assert all(torch.equal(*pair) for pair in zip(kept, (query, key, mask), strict=True))


def test_energy() -> None:
    output = random(2, 3, 29, 8)
    assert torch.allclose(energy(output), output.double().square().sum(dim=(-2, -1)).float())
    assert energy(torch.full((1, 1, 100, 100), 100.0, dtype=torch.float16)).item() == pytest.approx(1e8)


@pytest.mark.parametrize("kind", ["bool", "additive"])
@pytest.mark.parametrize("video", [None, VIDEO], ids=str)
def test_rows_without_keys_are_left_out(video: VideoTokens | None, kind: str) -> None:
    """A text encoder's padding, say: its rows see nothing, and a model makes nothing of them."""
    query, key, mask = random(2, 3, 29, 8, spread=2), random(2, 3, 29, 8, seed=1), random(2, 1, 29, 29, seed=2) > -0.5
    blind = [1, 2, 9, 17, 28]
    mask[1, 0, blind] = False
    found = measure(query, key, mask=mask if kind == "bool" else mask * 10_000.0 - 10_000.0, video=video)
    kept = [row for row in range(29) if row not in blind]
    logits = dense.logits(query, key, mask)
    whole, rest = dense.statistics(logits[:1], video), dense.statistics(logits[1:], video, rows=kept)
    close(found, {name: torch.cat([whole[name], rest[name]]) for name in whole})


@pytest.mark.parametrize("sample", [None, RowSample(0.9)], ids=["exact", "sampled"])
def test_padding_counts_in_no_mean(sample: RowSample | None) -> None:
    """Padding fills up the text of each batch entry; the rows of it are left out, text and all."""
    video, tokens = VideoTokens(70, 4, 60), 310
    query, key = random(2, 2, tokens, 8, spread=2), random(2, 2, tokens, 8, seed=1)
    padding = torch.zeros(2, tokens, dtype=torch.bool)
    padding[0, 12:70] = padding[1, 3:70] = True
    output = random(2, 2, tokens, 5, seed=3)
    found = measure(query, key, video=video, padding=padding, output=output, sample=sample)
    logits, energies = dense.logits(query, key), output.double().square().sum(-1)
    for entry, length in enumerate((12, 3)):
        rows = [*range(length), *range(70, tokens)]
        expected = dense.statistics(logits[entry : entry + 1], video, rows=rows)
        loose = 1e-4 if sample is None else 1.5
        for name in ("ep", "text_ep", "all_ep", "entropy", "text_mass"):
            value = getattr(found, name)[entry].double()
            if sample is None or name != "text_ep":  # a sample may hold few rows of so short a text
                assert (value - expected[name][0]).abs().max() < max(loose, 2e-3), name
        assert found.energy is not None
        assert found.text_energy is not None
        torch.testing.assert_close(found.energy[entry].double(), energies[entry, :, 70:].sum(-1), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(
            found.text_energy[entry].double(), energies[entry, :, :length].sum(-1), rtol=1e-4, atol=1e-3
        )
    assert (found.ep_error is None) == (sample is None)


def test_no_row_with_a_key_is_an_error() -> None:
    mask = torch.ones(2, 1, 29, 29, dtype=torch.bool)
    mask[1] = False
    query = random(2, 3, 29, 8)
    with pytest.raises(FailureError, match=r"leaves no query row a key to attend to; .*in batch 1"):
        measure(query, query, mask=mask)


def test_video_rows_without_video_keys_are_left_out_of_the_split() -> None:
    mask = torch.ones(29, 29, dtype=torch.bool)
    mask[5:9, VIDEO.slice] = False
    query = random(1, 1, 29, 8)
    found = measure(query, query, mask=mask, video=VIDEO)
    others = [row for row in range(VIDEO.start, VIDEO.stop) if row not in range(5, 9)]
    expected = dense.statistics(dense.logits(query, query, mask), VIDEO, rows=others)
    assert found.temporal_entropy is not None
    assert found.temporal_entropy.item() == pytest.approx(expected["temporal_entropy"].item(), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_figures(dtype: torch.dtype) -> None:
    query, key = random(1, 2, 29, 8, spread=3), random(1, 2, 29, 8, seed=1, spread=3)
    expected = measure(query, key, video=VIDEO)
    with torch.autocast("cpu", dtype):
        found = measure(query, key, video=VIDEO)
    for name, value in dataclasses.asdict(expected).items():
        assert value is None or torch.equal(getattr(found, name), value), name


def test_bad_input_is_named() -> None:
    query = random(1, 2, 29, 8)
    with pytest.raises(UsageError, match=r"reach past the end of the keys; .* 5 \+ 5 \* 5 = 30"):
        measure(query, query, video=VideoTokens(5, 5, 5))
    with pytest.raises(UsageError, match=r"less than one row of logits; expected >= 464 bytes for 29 keys; got 463"):
        measure(query, query, memory_limit=463)
    with pytest.raises(UsageError, match=r"does not fit the keys; .*got \(1, 1, 29, 28\)"):
        measure(query, query, mask=torch.ones(1, 1, 29, 28))
    with pytest.raises(UsageError, match=r"frames of the video tokens is out of range; expected >= 1; got 0"):
        VideoTokens(0, 0, 4)


def test_grouped_heads_must_be_repeated() -> None:
    query, key = random(1, 4, 5, 8), random(1, 2, 5, 8)
    with pytest.raises(UsageError, match=r"do not fit each other; .*\(1, 4, 5, 8\), \(1, 2, 5, 8\).*repeat_inter"):
        Attention(query, key, key)


def test_key_count_is_exact() -> None:
    query = torch.zeros(1, 1, 4099, 1)
    assert measure(query, query).n_keys.item() == 4099


def test_uniform_entropy_is_the_logarithm_of_the_keys() -> None:
    found = measure(torch.zeros(1, 1, 3, 4), random(1, 1, 50, 4))
    assert found.entropy.item() == pytest.approx(log(50), abs=1e-5)


def test_gradients_are_not_tracked() -> None:
    query = random(1, 1, 29, 8).requires_grad_()
    assert not measure(query, query, video=VIDEO).entropy.requires_grad
