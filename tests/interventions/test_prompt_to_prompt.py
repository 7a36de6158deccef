"""PromptToPrompt at every cross-attention: the target's rows against the dense reference, all others untouched."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ieadapt.attention import AttentionCall, intercept
from ieadapt.errors import UsageError
from ieadapt.interventions import PromptToPrompt, TokenMapping
from tests.families import captured, predict
from tests.interventions.dense_maps import dense_logits

STREAMS = {"animatediff": 4, "modelscope": 4, "ltx": 4, "wan": 2}
CONTROL = TokenMapping(taken=((1, 2), (3, 1)), factors={4: 3.0}, lengths=(5, 6))


def test_columns_pair_words_and_padding() -> None:
    taken, factors = CONTROL.columns(9, 9)
    assert taken.tolist() == [-1, 2, -1, 1, -1, 6, 7, 8, -1]
    assert factors.tolist() == [1, 1, 1, 1, 3, 1, 1, 1, 1]
    assert TokenMapping((), {9: 2.0}, (3, 3)).columns(4, 4)[0].tolist() == [-1] * 4


@pytest.mark.parametrize("family", STREAMS)
def test_equals_the_dense_reference(family: str) -> None:
    denoiser, streams = captured(family)[0], ("source", "target") * (STREAMS[family] // 2)

    def dense(call: AttentionCall) -> Tensor:
        output = call.output.double().clone()
        for index in call.rows.denoiser_rows(stream=("target",)):
            own, source = call.restricted([index]), call.restricted([0])
            mine, theirs = dense_logits(own).softmax(-1), dense_logits(source).softmax(-1)
            taken, factors = CONTROL.columns(mine.shape[-1], theirs.shape[-1])
            for column, other in enumerate(taken.tolist()):
                mine[..., column] = theirs[..., other] if other >= 0 else mine[..., column]
            output[call.rows.index([index])] = (mine * factors) @ own.value.double()
        return output.to(call.value.dtype)

    controls = PromptToPrompt(dict.fromkeys(range(len(streams)), CONTROL))
    with intercept(denoiser, controls, "cross", streams=streams):
        found = predict(family)
    with intercept(denoiser, dense, "cross", streams=streams):
        expected = predict(family)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert (found - predict(family)).abs().max() > 1e-4
    assert torch.equal(found[0], predict(family)[0]) or (found[0] - predict(family)[0]).abs().max() < 1e-6


def test_joint_attention_is_refused() -> None:
    with (
        pytest.raises(UsageError, match="prompt-to-prompt needs cross-attention; got joint attention"),
        intercept(captured("cogvideox")[0], PromptToPrompt({}), "joint", streams=("source", "target") * 2),
    ):
        predict("cogvideox")


def test_without_a_source() -> None:
    with (
        pytest.raises(UsageError, match="no source row of the cond branch"),
        intercept(captured("wan")[0], PromptToPrompt({0: CONTROL, 1: CONTROL}), "cross", streams=("target", "target")),
    ):
        predict("wan")
