"""What models are trained on beside whole clips of `ieadapt.testbed`: single frames of them, and careless captions."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ieadapt.testbed.captions import words
from ieadapt.testbed.rendering import render_batch
from ieadapt.testbed.sampling import sample_batch
from ieadapt.testbed.scene import SceneBatch

WORDS = tuple(words())
TOKENS = 40
"""What captions are padded to, start and end included."""


def render_frames(batch: SceneBatch, frame: Int[Tensor, " scene"]) -> Float[Tensor, "scene 3 height width"]:
    """One chosen frame of each scene, in [0, 1]."""
    return render_batch(batch, frame[:, None])[:, 0]


def mislabel(batch: SceneBatch, share: float, generator: torch.Generator) -> SceneBatch:
    """The scenes with a share of their attributes drawn again, for captions that say them wrongly."""
    other = sample_batch(len(batch), generator)

    def mixed(own: Tensor, foreign: Tensor) -> Tensor:
        return torch.where(torch.rand(own.shape, generator=generator) < share, foreign, own)

    kinds, setting = mixed(batch.kinds, other.kinds), mixed(batch.setting, other.setting)
    return dataclasses.replace(batch, kinds=kinds, setting=setting)
