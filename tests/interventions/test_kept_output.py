"""A replaced map does not cost the attention that it replaces: only what the replacement keeps is computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ieadapt.attention import AttentionCall, AttentionSite, RowMap
from ieadapt.attention.layouts import TokenLayout
from ieadapt.functional import Attention
from ieadapt.interventions import Identity, Inject, Mix, Temperature, Uniform
from ieadapt.interventions.perturbation import Perturbation

LAYOUT = TokenLayout(frames=2, height=2, width=3, start=3, text=5)


def joint_call(streams: tuple[str, ...] = ("none", "none"), layout: TokenLayout = LAYOUT) -> AttentionCall:
    """A joint call whose whole attention must not be asked for."""
    tokens = layout.frames * layout.height * layout.width + layout.text
    query, key, value = torch.randn(3, 2, 4, tokens, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    mask = torch.randn(1, 1, tokens, tokens, generator=torch.Generator().manual_seed(1))

    def attend() -> Tensor:
        raise AssertionError("the whole attention was computed")

    return AttentionCall(
        site=AttentionSite("block.attn1", "joint", 0, 4),
        step=0,
        steps=None,
        attention=Attention(query, key, value, mask, 0.5, layout.video),
        layout=layout,
        rows=RowMap(("cond", "cond"), streams, (0, 1), 1),
        attend=attend,
        own=True,
    )


def with_attention(call: AttentionCall) -> AttentionCall:
    """The same call, its output there already."""
    output = F.scaled_dot_product_attention(call.query, call.key, call.value, call.mask, scale=call.scale)
    return replace(call, attend=lambda: output, own=False)


ONLY_VIDEO = replace(LAYOUT, start=0, text=0)


@pytest.mark.parametrize("layout", [LAYOUT, ONLY_VIDEO], ids=["text", "no text"])
@pytest.mark.parametrize("scope", ["video", "all"])
@pytest.mark.parametrize("kind", [Identity, Uniform, lambda **scope: Temperature(2.0, **scope)])
def test_a_perturbation_gives_the_same_without_it(kind: type[Perturbation], scope: str, layout: TokenLayout) -> None:
    call, intervention = joint_call(layout=layout), kind(scope=scope)
    assert torch.allclose(intervention(call), intervention(with_attention(call)), atol=1e-6)


@pytest.mark.parametrize("layout", [LAYOUT, ONLY_VIDEO], ids=["text", "no text"])
@pytest.mark.parametrize("scope", ["video", "all"])
def test_injection_gives_the_same_without_the_targets_own(scope: str, layout: TokenLayout) -> None:
    call, intervention = joint_call(("source", "target"), layout), Inject(scope)
    found, expected = intervention(call), intervention(with_attention(call))
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(found[:1], with_attention(call).output[:1], atol=1e-6)


def test_what_reads_all_rows_has_them() -> None:
    with pytest.raises(AssertionError, match="the whole attention was computed"):
        Mix(0.5)(joint_call())


def test_an_output_that_is_there_is_taken() -> None:
    call = with_attention(joint_call())
    text = slice(0, LAYOUT.start)
    assert torch.equal(Identity()(call)[..., text, :], call.output[..., text, :])
