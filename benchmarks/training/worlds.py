"""The worlds that models are trained on: one object on a still background, and `ieadapt.testbed.world`."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.training.architecture import World
from ieadapt.testbed.captions import all_captions, caption
from ieadapt.testbed.render import render_batch, render_frames
from ieadapt.testbed.scenes import SceneTensors, sample_tensors
from ieadapt.testbed.world.captions import captions, words
from ieadapt.testbed.world.rendering import render_batch as render_scenes
from ieadapt.testbed.world.sampling import sample_batch
from ieadapt.testbed.world.scene import SceneBatch


def _frames_of_scenes(batch: SceneBatch, frame: Int[Tensor, " scene"]) -> Float[Tensor, "scene 3 height width"]:
    return render_scenes(batch, frame[:, None])[:, 0]


def _captions_of_shapes(batch: SceneTensors) -> list[str]:
    return [caption(scene) for scene in batch.scenes()]


def _mislabel_shapes(batch: SceneTensors, share: float, generator: torch.Generator) -> SceneTensors:
    other = sample_tensors(len(batch), generator).attributes
    wrong = torch.rand(other.shape, generator=generator) < share
    return SceneTensors(torch.where(wrong, other, batch.attributes), batch.continuous)


def _mislabel_scenes(batch: SceneBatch, share: float, generator: torch.Generator) -> SceneBatch:
    other = sample_batch(len(batch), generator)

    def mixed(own: Tensor, foreign: Tensor) -> Tensor:
        return torch.where(torch.rand(own.shape, generator=generator) < share, foreign, own)

    kinds, setting = mixed(batch.kinds, other.kinds), mixed(batch.setting, other.setting)
    return dataclasses.replace(batch, kinds=kinds, setting=setting)


SHAPES = World(
    sample=sample_tensors,
    render=render_batch,
    render_frames=render_frames,
    captions=_captions_of_shapes,
    mislabel=_mislabel_shapes,
    words=tuple(sorted({word for text in all_captions() for word in text.split()})),
    tokens=16,
)
SCENES = World(
    sample=sample_batch,
    render=render_scenes,
    render_frames=_frames_of_scenes,
    captions=captions,
    mislabel=_mislabel_scenes,
    words=tuple(words()),
    tokens=40,
)
