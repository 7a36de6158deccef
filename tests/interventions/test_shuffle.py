"""Shuffled tokens: what is drawn anew and what is not, and what the source's shuffled block has for its attention."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ieadapt.attention import AttentionCall, RowMap, find_sites, intercept
from ieadapt.errors import UsageError
from ieadapt.interventions import Shuffle
from tests.families import captured, every_family, predict
from tests.interventions.test_kept_output import LAYOUT, ONLY_VIDEO, joint_call, with_attention
from tests.interventions.test_perturbation import make_call

VIDEO = LAYOUT.video.slice


def _order(call: AttentionCall, shuffle: Shuffle | None = None) -> list[int]:
    """The order in which the video tokens of a call are put."""
    numbers = torch.arange(VIDEO.stop - VIDEO.start).float().view(1, 1, -1, 1)
    return (shuffle or Shuffle()).changed(numbers, LAYOUT, call).flatten().int().tolist()


def test_rows_of_the_result_change_places_and_the_text_stays() -> None:
    call = with_attention(joint_call())
    call = replace(call, attention=replace(call.attention, mask=None))
    plain = F.scaled_dot_product_attention(call.query, call.key, call.value, scale=call.scale)
    shuffled = Shuffle(scope="all")(replace(call, attend=lambda: plain))
    expected = plain.clone()
    for place, taken in enumerate(_order(call)):
        expected[:, :, VIDEO.start + place] = plain[:, :, VIDEO.start + taken]
    torch.testing.assert_close(shuffled, expected)
    assert torch.equal(shuffled[:, :, : VIDEO.start], plain[:, :, : VIDEO.start])
    torch.testing.assert_close(shuffled.square().sum(), plain.square().sum())


def test_it_is_what_attention_gives_for_the_sources_shuffled_tokens() -> None:
    """The source permutes what the block is given, so queries, keys and values alike."""
    call = joint_call(layout=ONLY_VIDEO)
    call = replace(call, attention=replace(call.attention, mask=None))
    given = (each[:, :, _order(call)] for each in (call.query, call.key, call.value))
    source = F.scaled_dot_product_attention(*given, scale=call.scale)
    torch.testing.assert_close(Shuffle()(call), source)


def test_every_site_step_and_seed_has_its_own_order() -> None:
    call = joint_call()
    others = [replace(call, step=1), replace(call, site=replace(call.site, name="block.attn2"))]
    orders = [_order(call), *map(_order, others), _order(call, Shuffle(1))]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert _order(call) == _order(replace(call, step=0))


def test_a_video_does_not_depend_on_its_batch() -> None:
    call = with_attention(joint_call())
    assert torch.allclose(Shuffle()(call)[1:], Shuffle()(call.restricted([1])), atol=1e-6)
    swapped = replace(call, rows=RowMap(("cond", "cond"), ("none", "none"), (1, 0), 1))
    assert torch.equal(Shuffle()(call), Shuffle()(swapped))


@every_family
def test_the_same_seed_gives_the_same_prediction_and_another_one_another(family: str) -> None:
    denoiser, _ = captured(family)
    sites = [site for site in find_sites(denoiser) if site.kind != "cross"]

    def shuffled(seed: int) -> Tensor:
        with intercept(denoiser, Shuffle(seed), sites):
            return predict(family)

    assert torch.equal(shuffled(0), shuffled(0))
    assert (shuffled(0) - shuffled(1)).abs().max() > 1e-4


def test_a_model_without_layout_is_refused() -> None:
    with pytest.raises(UsageError, match=r"changing queries needs to know which token lies where; in block\.attn1"):
        Shuffle()(make_call())


@pytest.mark.parametrize("seed", [0.5, float("nan"), float("inf")])
def test_seeds_are_whole_numbers(seed: float) -> None:
    with pytest.raises(UsageError, match="seed of a shuffle must be a whole number"):
        Shuffle(seed)
