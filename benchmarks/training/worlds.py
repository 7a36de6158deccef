"""What models are trained on: the clips and captions of `ieadapt.testbed`."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.training.architecture import World
from ieadapt.testbed.captions import captions, words
from ieadapt.testbed.rendering import render_batch
from ieadapt.testbed.sampling import sample_batch
from ieadapt.testbed.scene import SceneBatch


def _frames(batch: SceneBatch, frame: Int[Tensor, " scene"]) -> Float[Tensor, "scene 3 height width"]:
    return render_batch(batch, frame[:, None])[:, 0]


def _mislabel(batch: SceneBatch, share: float, generator: torch.Generator) -> SceneBatch:
    other = sample_batch(len(batch), generator)

    def mixed(own: Tensor, foreign: Tensor) -> Tensor:
        return torch.where(torch.rand(own.shape, generator=generator) < share, foreign, own)

    kinds, setting = mixed(batch.kinds, other.kinds), mixed(batch.setting, other.setting)
    return dataclasses.replace(batch, kinds=kinds, setting=setting)


SCENES = World(
    sample=sample_batch,
    render=render_batch,
    render_frames=_frames,
    captions=captions,
    mislabel=_mislabel,
    words=tuple(words()),
    tokens=40,
)
