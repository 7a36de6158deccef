"""Which words take whose maps, where words look, and what an edit does with it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from ieadapt.attention import AttentionCall, find_sites, intercept
from ieadapt.errors import UsageError
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.method import Editor
from ieadapt.tasks.edit.steps import ChangeMask, WordEvidence, text_sites, word_control
from ieadapt.tasks.maps.record import prompt_words
from tests.families import run, tiny_pipeline
from tests.interventions.dense_maps import dense_logits
from tests.tasks.edit.fixture import SOURCE, STEPS, TARGET
from tests.tasks.edit.test_method import FREE, QUICK, made, on_its_own_run

PROMPTS = ["a red ball", "a big blue ball"]


def test_equal_and_swapped_words_are_paired_and_added_ones_are_not() -> None:
    """One token per letter, a start token first: `a red ball` is 0, 1, 2-4, 5-8."""
    control = word_control(
        tiny_pipeline("animatediff"), "a red ball", "a blue big ball", replace=True, factors={"big": 2.0}
    )
    pairs = dict(control.taken)
    assert pairs[0] == 0
    assert pairs[1] == 1
    assert [pairs.get(token) for token in (9, 10, 11, 12)] == [5, 6, 7, 8]
    assert control.factors == {6: 2, 7: 2, 8: 2}
    assert control.lengths == (13, 9)
    swapped = word_control(tiny_pipeline("animatediff"), "a red ball", "a blue ball", replace=True, factors={})
    assert [pair for pair in swapped.taken if pair[0] in (2, 3, 4, 5)] == [(2, 2), (3, 2), (4, 3), (5, 4)]
    added = word_control(tiny_pipeline("animatediff"), "a ball", "a big ball", replace=True, factors={})
    assert {own for own, _ in added.taken} == {0, 1, 5, 6, 7, 8}


def test_without_replacement_only_weights_remain() -> None:
    control = word_control(tiny_pipeline("wan"), SOURCE, TARGET, replace=False, factors={"STAR": 0.5})
    assert control.taken == ()
    assert set(control.factors.values()) == {0.5}


def test_a_word_that_is_not_there() -> None:
    with pytest.raises(
        UsageError, match=r"word to be weighed is not in the target prompt; expected .*'star'.*got moon"
    ):
        word_control(tiny_pipeline("wan"), SOURCE, TARGET, replace=True, factors={"moon": 2.0})


@pytest.mark.parametrize("family", ["animatediff", "wan"])
def test_equal_prompts_with_all_words_replaced_give_the_reconstruction(family: str) -> None:
    config, inversion = (
        dataclasses.replace(FREE, words="replace", words_window="0:1", guidance_scale=1.0),
        on_its_own_run(family),
    )
    found = Editor(tiny_pipeline(family), SOURCE, config, STEPS, inversion).edit([SOURCE])
    torch.testing.assert_close(found.edited[0], inversion.reconstruction, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("words", ["replace", "star=4"])
def test_words_change_the_edit(words: str) -> None:
    plain, controlled = (made("wan", [TARGET], dataclasses.replace(QUICK, words=each)) for each in ("none", words))
    assert (plain.edited - controlled.edited).abs().max() > 1e-3


def test_a_model_without_cross_attention_and_a_window_before_the_start() -> None:
    with pytest.raises(
        UsageError, match="this model has no cross-attention, so words cannot be controlled; got CogVideoX"
    ):
        made("cogvideox", [TARGET], dataclasses.replace(QUICK, words="replace"))
    with pytest.raises(UsageError, match=r"no denoising step begins inside the window.*in words_window"):
        made("wan", [TARGET], EditConfig(start=0.5, words="replace", words_window="0:0.4"))


class KeepingMask(ChangeMask):
    """A mask that keeps the evidence as it is."""

    def __init__(self) -> None:
        super().__init__(torch.Size((1, 1, 1, 1, 1)), lambda grid: grid, 0.5)
        self.kept: list[Tensor] = []

    def add(self, evidence: Tensor) -> None:
        self.kept.append(evidence)


@pytest.mark.parametrize("family", ["animatediff", "wan", "cogvideox", "hunyuanvideo", "mochi"])
def test_words_are_read_from_the_dense_map(family: str) -> None:
    """The share of attention that each video token gives to the letters of `ball`, in the source or in the target."""
    pipe, mask = tiny_pipeline(family), KeepingMask()
    site = text_sites(find_sites(pipe))[0]
    evidence = WordEvidence(mask, [prompt_words(pipe, prompt) for prompt in PROMPTS], ["ball"])
    tokens = [prompt_words(pipe, prompt).tokens[-1] for prompt in PROMPTS]
    expected: dict[int, Tensor] = {}

    def dense(call: AttentionCall) -> None:
        for row in call.rows.denoiser_rows(("cond",)) if call.step == 0 else ():
            own, video, layout = call.restricted([row]), call.rows.video[row], call.layout
            assert layout is not None
            text = 0 if site.kind == "cross" or layout.start else layout.frames * layout.height * layout.width
            columns = [text + token for token in tokens[video]]
            looks = dense_logits(own).softmax(-1)[..., columns].sum(-1).mean(1)
            looks = looks[:, layout.start : layout.start + layout.frames * layout.height * layout.width]
            expected[video] = looks.reshape(-1, layout.height, layout.width)

    streams = ("source", "target")
    with intercept(pipe, evidence, site, streams=streams), intercept(pipe, dense, site, streams=streams):
        run(family, PROMPTS, steps=2)
    assert len(mask.kept) == 2
    torch.testing.assert_close(mask.kept[0][0].double(), torch.maximum(*expected.values()), rtol=1e-3, atol=1e-5)
    assert len(expected) == 2
