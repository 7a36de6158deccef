"""Pools of training data that live on the device: rendering and encoding happen beside training, not inside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from benchmarks.training.architecture import Architecture
from benchmarks.training.world import mislabel
from ieadapt.testbed.captions import captions
from ieadapt.testbed.rendering import render_batch
from ieadapt.testbed.sampling import sample_batch
from ieadapt.testbed.scene import SceneBatch, Split

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


def caption_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], device: torch.device | str
) -> Int[Tensor, "caption token"]:
    """Token numbers of captions, padded to the tokenizer's length."""
    return tokenizer(texts, padding="max_length", return_tensors="pt").input_ids.to(device)


def vae_pool(architecture: Architecture, size: int, generator: torch.Generator, device: torch.device) -> Pool:
    """What the VAE trains on, as bytes; it must encode every combination, held out or not."""

    def make(scenes: SceneBatch) -> Tensor:
        return (architecture.vae_rows(scenes) * 255).round().byte()

    return _pool(architecture, size, make, "all", generator, device, 0.0)


def latent_pool(
    architecture: Architecture,
    size: int,
    vae: nn.Module,
    generator: torch.Generator,
    device: torch.device,
    careless: float = 0.0,
) -> Pool:
    """Clips of the training split as latents in half precision, (row, frame, channel, height, width).

    A share `careless` of what their captions say is wrong.
    """

    def make(scenes: SceneBatch) -> Tensor:
        clips = render_batch(scenes)
        with torch.autocast(device.type, torch.bfloat16, enabled=clips.is_cuda):
            return architecture.encode(vae, clips).to(torch.float16)

    return _pool(architecture, size, make, "train", generator, device, careless)


def _pool(
    architecture: Architecture,
    size: int,
    rows: Callable[[SceneBatch], Tensor],
    split: Split,
    generator: torch.Generator,
    device: torch.device,
    careless: float,
) -> Pool:
    tokenizer = architecture.tokenizer()

    def make(n: int) -> tuple[Tensor, Tensor]:
        scenes = sample_batch(n, generator, split)
        said = mislabel(scenes, careless, generator) if careless else scenes
        return rows(scenes.to(device)), caption_tokens(tokenizer, captions(said), device)

    data, tokens = make(1)
    return Pool(data.new_zeros(size, *data.shape[1:]), tokens.new_zeros(size, tokens.shape[1]), make).fill()
