"""The three stages of training: the VAE, the denoiser on single frames with the text encoder, and both on clips."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from benchmarks.training.architecture import Architecture
from benchmarks.training.loop import Outcome, Schedule, train
from benchmarks.training.pool import Pool, caption_tokens

CAPTION_DROPOUT = 0.12
KL_WEIGHT = 2e-3
RENEW_EVERY = 30
WORD_WEIGHT = 0.1
HEAD_ITERATIONS = 400


def gradient_gap(a: Float[Tensor, "... height width"], b: Float[Tensor, "... height width"]) -> Float[Tensor, ""]:
    """Mean absolute difference of horizontal and vertical gradients: it keeps edges where they are."""
    return F.l1_loss(a.diff(dim=-1), b.diff(dim=-1)) + F.l1_loss(a.diff(dim=-2), b.diff(dim=-2))


def train_vae(
    architecture: Architecture, vae: Any, pool: Pool, batch: int, schedule: Schedule, device: torch.device
) -> Outcome:
    """Stage 1: L1 + squared error + image gradients + a little KL, on single frames or clips as the VAE reads them."""

    def loss() -> Tensor:
        rows = torch.randint(len(pool.data), (batch,), device=device)
        frames = pool.data[rows].float() / 127.5 - 1
        posterior = vae.encode(frames).latent_dist
        rebuilt = vae.decode(posterior.sample()).sample.float()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        divergence = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        shift = mean.transpose(0, 1).flatten(1).mean(1).square().mean()
        fidelity = F.l1_loss(rebuilt, frames) + F.mse_loss(rebuilt, frames) + gradient_gap(rebuilt, frames)
        return fidelity + KL_WEIGHT * divergence + architecture.centring * shift

    def renew(iteration: int) -> None:
        if iteration % RENEW_EVERY == 0:
            pool.renew(4 * batch)

    return train([vae], [loss], schedule, device, renew)


class Diffusion:
    """Noise, targets and captions of the v-prediction objective, all on one device."""

    def __init__(self, architecture: Architecture, device: torch.device) -> None:
        scheduler = architecture.scheduler()
        self.device = device
        self.skew = architecture.noise_skew
        self.signal = scheduler.alphas_cumprod.to(device, torch.float32).sqrt()
        self.noise = (1 - scheduler.alphas_cumprod).to(device, torch.float32).sqrt()
        tokenizer = architecture.tokenizer()
        self.pad = int(tokenizer.pad_token_id)
        self.empty = caption_tokens(tokenizer, [""], device)[0]

    def read(self, text: Any, words: nn.Linear, tokens: Int[Tensor, "row token"], length: int) -> tuple[Tensor, Tensor]:
        """The text states of captions, some of them emptied, and how badly each state tells its own word.

        Single pictures cannot tell `left` from `right`: without that loss the text encoder merges such words in stage
        2, and stage 3 finds nothing to read.
        """
        kept = self.drop(tokens)
        states = text(F.pad(kept, (0, length - kept.shape[1]), value=self.pad))[0]
        said = words(states[:, : kept.shape[1]]).float().flatten(0, 1)
        return states, WORD_WEIGHT * F.cross_entropy(said, kept.flatten())

    def corrupt(self, latents: Float[Tensor, "row ..."]) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, their timesteps, and the velocities that the denoiser should say.

        Timesteps lean towards much noise, where the caption alone decides what the clip shows.
        """
        rows = len(latents)
        stratum = (torch.arange(rows, device=self.device) + torch.rand(rows, device=self.device)) / rows
        timestep = (stratum**self.skew * len(self.signal)).long().clamp(max=len(self.signal) - 1)
        shape = (-1, *(1,) * (latents.dim() - 1))
        signal, noise = self.signal[timestep].view(shape), self.noise[timestep].view(shape)
        gaussian = torch.randn_like(latents)
        return signal * latents + noise * gaussian, timestep, signal * gaussian - noise * latents

    def drop(self, tokens: Int[Tensor, "row token"]) -> Int[Tensor, "row token"]:
        """Some captions replaced by the empty one."""
        dropped = torch.rand(len(tokens), 1, device=self.device) < CAPTION_DROPOUT
        return torch.where(dropped, self.empty, tokens)


def word_head(text: Any, table: Int[Tensor, "caption token"], iterations: int) -> nn.Linear:
    """Reads words off text states, fitted to the states as they are, so that only merged words are pulled apart.

    Only training needs it.
    """
    words = nn.Linear(text.config.hidden_size, text.config.vocab_size, device=text.device)
    optimizer = torch.optim.Adam(words.parameters(), lr=1e-2)
    for _ in range(iterations):
        tokens = table[torch.randint(len(table), (64,), device=text.device)]
        with torch.no_grad():
            states = text(tokens)[0]
        optimizer.zero_grad()
        F.cross_entropy(words(states).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
    return words


def single_frames(latents: Float[Tensor, "row frame *rest"]) -> Float[Tensor, "row 1 *rest"]:
    """One latent frame of every clip, by chance."""
    rows = torch.arange(len(latents), device=latents.device)
    return latents[rows, torch.randint(latents.shape[1], (len(latents),), device=latents.device)][:, None]


def whole_clips(latents: Float[Tensor, "row frame *rest"]) -> Float[Tensor, "row frame *rest"]:
    """The clips as they are."""
    return latents


FRAMES_OF: dict[str, Callable[[Tensor], Tensor]] = {"images": single_frames, "video": whole_clips}
"""What a stage shows the denoiser."""


def compile_blocks(denoiser: nn.Module) -> None:
    """Compile every block of the denoiser's stacks in place; blocks that are alike share one compilation."""
    for stack in denoiser.children():
        for block in stack if isinstance(stack, nn.ModuleList) else ():
            block.compile(dynamic=False)


COMPILED: dict[str, Callable[[nn.Module], None]] = {"none": lambda denoiser: None, "blocks": compile_blocks}
"""What may be compiled before training."""


def train_denoiser(
    architecture: Architecture,
    stage: str,
    denoiser: Any,
    text: Any,
    pool: Pool,
    batch: int,
    schedule: Schedule,
    device: torch.device,
) -> Outcome:
    """Stages 2 and 3: the denoiser and the text encoder together, on single frames or on clips."""
    diffusion = Diffusion(architecture, device)
    words = word_head(text, pool.tokens, min(HEAD_ITERATIONS, schedule.iterations))
    velocity, choose = architecture.velocity[stage], FRAMES_OF[stage]

    def loss(length: int) -> Tensor:
        rows = torch.randint(len(pool.data), (batch,), device=device)
        noisy, timestep, target = diffusion.corrupt(choose(pool.data[rows]).float())
        states, merging = diffusion.read(text, words, pool.tokens[rows], length)
        said = velocity(denoiser, noisy.to(states.dtype), timestep, states)
        return F.mse_loss(said.float(), target) + merging

    def renew(iteration: int) -> None:
        if iteration % RENEW_EVERY == 0:
            pool.renew()

    short = architecture.text_lengths[0]
    lengths = architecture.text_lengths if stage == "video" else (short,)
    losses = {length: functools.partial(loss, length) for length in dict.fromkeys(lengths)}
    return train([denoiser, text, words], [losses[length] for length in lengths], schedule, device, renew)
