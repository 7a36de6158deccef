"""Masks of what may change: words are read from the model's own maps; outside the mask the source stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ieadapt.attention import AttentionCall, find_sites, intercept
from ieadapt.errors import FailureError
from ieadapt.tasks.edit.change_mask import ChangeMask, WordEvidence, text_sites
from ieadapt.tasks.edit.noise_path import Level, NoisePath
from ieadapt.tasks.edit.steps import Tied
from ieadapt.tasks.maps.words import prompt_words
from tests.families import run, tiny_pipeline
from tests.interventions.dense_maps import dense_logits

PROMPTS = ["a red ball", "a big blue ball"]


def _mask(threshold: float = 0.5) -> ChangeMask:
    return ChangeMask(torch.Size((1, 2, 3, 4, 6)), lambda grid: grid, threshold)


def test_the_strongest_place_is_inside_and_the_rest_outside() -> None:
    mask, evidence = _mask(), torch.full((1, 3, 4, 6), 0.1)
    evidence[0, 1, 1:3, 1:4] = 5.0
    mask.add(evidence)
    assert mask.grid()[0, 1, 1:3, 1:4].eq(1).all()
    assert mask.grid()[0, 0].eq(0).all()
    assert mask.grid()[0, 1, :, 5].eq(0).all()
    assert mask.now().shape == (1, 2, 3, 4, 6)
    assert mask.pixels((5, 8, 12)).shape == (1, 5, 8, 12)


def test_every_look_counts_alike_whatever_its_scale_and_size() -> None:
    one, other = _mask(), _mask()
    first, second = torch.rand(2, 1, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    for mask, factor in ((one, 1.0), (other, 100.0)):
        mask.add(first)
        mask.add(second * factor)
    assert torch.equal(one.grid(), other.grid())
    one.add(torch.rand(1, 3, 2, 3))


def test_a_mask_that_saw_nothing() -> None:
    with pytest.raises(FailureError, match="the mask has seen nothing"):
        _mask().now()


class _Told(ChangeMask):
    """A mask that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(torch.Size((1, 1, 1, 1, 1)), lambda grid: grid, 0.5)
        self.told: list[Tensor] = []

    def add(self, evidence: Tensor) -> None:
        self.told.append(evidence)


@pytest.mark.parametrize("family", ["animatediff", "wan", "cogvideox", "hunyuanvideo", "mochi"])
def test_words_are_read_from_the_dense_map(family: str) -> None:
    """The share of attention that each video token gives to the letters of `ball`, in the source or in the target."""
    pipe, told = tiny_pipeline(family), _Told()
    site = text_sites(find_sites(pipe))[0]
    evidence = WordEvidence(told, [prompt_words(pipe, prompt) for prompt in PROMPTS], ["ball"])
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
    assert len(told.told) == 2
    torch.testing.assert_close(told.told[0][0].double(), torch.maximum(*expected.values()), rtol=1e-3, atol=1e-5)
    assert len(expected) == 2


def test_outside_the_mask_the_targets_are_the_source() -> None:
    path = NoisePath(torch.zeros(2), (Level(0.5, 0.5), Level(0.8, 0.2)), (Level(0.8, 0.2), Level(1.0, 0.0)), "flow")

    class Source:
        def begin(self, step: int) -> Tensor:
            return torch.full((1, 2, 3, 4, 6), float(step))

        def end(self, step: int) -> Tensor:
            return self.begin(step + 1)

    mask, evidence = _mask(), torch.zeros(1, 3, 4, 6)
    evidence[..., :3] = 1.0
    mask.add(evidence)
    latents, prediction = torch.randn(2, 2, 2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    free: Any = Tied(Source(), 0.0, None)(path, 0, latents, prediction)
    kept = Tied(Source(), 0.0, mask)(path, 0, latents, prediction)
    assert torch.equal(kept[:1], Source().end(0))
    assert torch.equal(kept[1:, ..., :3], free[1:, ..., :3])
    assert torch.equal(kept[1:, ..., 4:], Source().end(0)[..., 4:])
    corrected = Tied(Source(), 0.5, None)(path, 0, latents, prediction)
    error = Source().end(0) - path.forward(0, latents, prediction)[:1]
    torch.testing.assert_close(corrected[1:], free[1:] + 0.5 * error)
