"""Pools of training data that live on the device: rendering and encoding happen beside training, not inside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, Int
from torch import Tensor

from ieadapt.testbed.captions import all_captions
from ieadapt.testbed.render import render_batch, render_frames
from ieadapt.testbed.scenes import ATTRIBUTES, FRAMES, SceneTensors, sample_tensors
from ieadapt.testbed.tokenizer import build_tokenizer

CHUNK = 64


@dataclass
class Pool:
    """A fixed set of rows that is filled once and then renewed a chunk at a time, in place.

    Args:
        data: the rows.
        tokens: token numbers of each row's caption.
        make: draws `n` new rows and their token numbers.
        cursor: where the next renewal starts.
    """

    data: Tensor
    tokens: Int[Tensor, "row token"]
    make: Callable[[int], tuple[Tensor, Tensor]]
    cursor: int = 0

    def renew(self, n: int = CHUNK) -> None:
        """Replace the next `n` rows by new ones."""
        stop = min(self.cursor + n, len(self.data))
        rows, tokens = self.make(stop - self.cursor)
        self.data[self.cursor : stop] = rows
        self.tokens[self.cursor : stop] = tokens
        self.cursor = stop % len(self.data)

    def fill(self) -> Pool:
        """Replace every row."""
        for _ in range(math.ceil(len(self.data) / CHUNK)):
            self.renew()
        return self


def caption_tokens(device: torch.device | str) -> Int[Tensor, "caption token"]:
    """Token numbers of every caption, in the order of the attribute indices, and of the empty caption last."""
    texts = [*all_captions(), ""]
    return build_tokenizer()(texts, padding="max_length", return_tensors="pt").input_ids.to(device)


def caption_number(scenes: SceneTensors) -> Int[Tensor, " scene"]:
    """Which row of `caption_tokens` describes each scene."""
    number = torch.zeros_like(scenes.attributes[:, 0])
    for column, known in enumerate(ATTRIBUTES.values()):
        number = number * len(known) + scenes.attributes[:, column]
    return number


def frame_pool(size: int, generator: torch.Generator, device: torch.device) -> Pool:
    """Single frames as bytes, for the VAE, which must encode every combination, held out or not."""
    table = caption_tokens(device)

    def make(n: int) -> tuple[Tensor, Tensor]:
        scenes = sample_tensors(n, generator, "all").to(device)
        frame = torch.randint(FRAMES, (n,), generator=generator).to(device)
        return (render_frames(scenes, frame) * 255).round().byte(), table[caption_number(scenes)]

    rows, tokens = make(1)
    return Pool(rows.new_zeros(size, *rows.shape[1:]), tokens.new_zeros(size, tokens.shape[1]), make).fill()


def latent_pool(size: int, vae: AutoencoderKL, generator: torch.Generator, device: torch.device) -> Pool:
    """Clips of the training split as latents in half precision, (row, frame, channel, height, width)."""
    table = caption_tokens(device)

    def make(n: int) -> tuple[Tensor, Tensor]:
        scenes = sample_tensors(n, generator, "train").to(device)
        return encode(vae, render_batch(scenes)).to(torch.float16), table[caption_number(scenes)]

    rows, tokens = make(1)
    return Pool(rows.new_zeros(size, *rows.shape[1:]), tokens.new_zeros(size, tokens.shape[1]), make).fill()


@torch.no_grad()
def encode(
    vae: AutoencoderKL, frames: Float[Tensor, "clip frame 3 height width"]
) -> Float[Tensor, "clip frame channel row column"]:
    """The mean latents of clips in [0, 1]."""
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=frames.is_cuda):
        mean = vae.encode(frames.flatten(0, 1) * 2 - 1).latent_dist.mean
    return mean.float().unflatten(0, frames.shape[:2]) * vae.config.scaling_factor
