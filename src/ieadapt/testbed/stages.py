"""The three stages of training: the VAE, the image UNet with the text encoder, and the video UNet with all of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel, UNetMotionModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel

from ieadapt.testbed.loop import Outcome, Schedule, train
from ieadapt.testbed.model import build_scheduler
from ieadapt.testbed.pool import Pool, caption_tokens
from ieadapt.testbed.scenes import FRAMES

CAPTION_DROPOUT = 0.12
KL_WEIGHT = 2e-3
RENEW_EVERY = 20
WORD_WEIGHT = 0.1
HEAD_ITERATIONS = 400
NOISE_SKEW = 0.6


def gradient_gap(a: Float[Tensor, "... height width"], b: Float[Tensor, "... height width"]) -> Float[Tensor, ""]:
    """Mean absolute difference of horizontal and vertical gradients: it keeps edges where they are."""
    return F.l1_loss(a.diff(dim=-1), b.diff(dim=-1)) + F.l1_loss(a.diff(dim=-2), b.diff(dim=-2))


def train_vae(vae: AutoencoderKL, pool: Pool, batch: int, schedule: Schedule, device: torch.device) -> Outcome:
    """Stage 1: L1 + squared error + image gradients + a little KL, on single frames."""

    def loss() -> Tensor:
        rows = torch.randint(len(pool.data), (batch,), device=device)
        frames = pool.data[rows].float() / 127.5 - 1
        posterior = vae.encode(frames).latent_dist
        rebuilt = vae.decode(posterior.sample()).sample.float()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        divergence = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        fidelity = F.l1_loss(rebuilt, frames) + F.mse_loss(rebuilt, frames) + gradient_gap(rebuilt, frames)
        return fidelity + KL_WEIGHT * divergence

    def renew(iteration: int) -> None:
        if iteration % RENEW_EVERY == 0:
            pool.renew(4 * batch)

    return train([vae], loss, schedule, device, renew)


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, frames: Float[Tensor, "frame 3 height width"]) -> None:
    """Fold the latents' mean and spread into the VAE's 1 x 1 convolutions: channels get mean 0, deviation 1."""
    latents = vae.encode(frames * 2 - 1).latent_dist.mean
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    out, back = vae.quant_conv, vae.post_quant_conv
    back.bias += back.weight[:, :, 0, 0] @ mean
    back.weight *= spread[None, :, None, None]
    out.weight[:channels] /= spread[:, None, None, None]
    out.bias[:channels] = (out.bias[:channels] - mean) / spread
    out.bias[channels:] -= 2 * spread.log()


class Diffusion:
    """Noise, targets and captions of the v-prediction objective, all on one device."""

    def __init__(self, device: torch.device) -> None:
        scheduler = build_scheduler()
        self.device = device
        self.signal = scheduler.alphas_cumprod.to(device).sqrt()
        self.noise = (1 - scheduler.alphas_cumprod).to(device).sqrt()
        self.empty = caption_tokens(device)[-1]

    def read(self, text: CLIPTextModel, words: nn.Linear, tokens: Int[Tensor, "row token"]) -> tuple[Tensor, Tensor]:
        """The text states of captions, some of them emptied, and how badly each state tells its own word.

        Single pictures cannot tell `left` from `right`: without that loss the text encoder merges such words in stage
        2, and stage 3 finds nothing to read.
        """
        kept = self.drop(tokens)
        states = text(kept)[0]
        return states, WORD_WEIGHT * F.cross_entropy(words(states).float().flatten(0, 1), kept.flatten())

    def corrupt(self, latents: Float[Tensor, row * rest]) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, their timesteps, and the velocities that the UNet should say.

        Timesteps lean towards much noise, where the caption alone decides what the clip shows.
        """
        rows = len(latents)
        stratum = (torch.arange(rows, device=self.device) + torch.rand(rows, device=self.device)) / rows
        timestep = (stratum**NOISE_SKEW * len(self.signal)).long().clamp(max=len(self.signal) - 1)
        shape = (-1, *(1,) * (latents.dim() - 1))
        signal, noise = self.signal[timestep].view(shape), self.noise[timestep].view(shape)
        gaussian = torch.randn_like(latents)
        return signal * latents + noise * gaussian, timestep, signal * gaussian - noise * latents

    def drop(self, tokens: Int[Tensor, "row token"]) -> Int[Tensor, "row token"]:
        """Some captions replaced by the empty one."""
        dropped = torch.rand(len(tokens), 1, device=self.device) < CAPTION_DROPOUT
        return torch.where(dropped, self.empty, tokens)


def word_head(text: CLIPTextModel, iterations: int) -> nn.Linear:
    """Reads words off text states, fitted to the states as they are, so that only merged words are pulled apart.

    Only training needs it.
    """
    words = nn.Linear(text.config.hidden_size, text.config.vocab_size, device=text.device)
    optimizer = torch.optim.Adam(words.parameters(), lr=1e-2)
    table = caption_tokens(text.device)
    for _ in range(iterations):
        tokens = table[torch.randint(len(table), (64,), device=text.device)]
        with torch.no_grad():
            states = text(tokens)[0]
        optimizer.zero_grad()
        F.cross_entropy(words(states).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
    return words


def train_images(
    unet: UNet2DConditionModel, text: CLIPTextModel, pool: Pool, batch: int, schedule: Schedule, device: torch.device
) -> Outcome:
    """Stage 2: single frames of the clips, UNet and text encoder together."""
    diffusion, words = Diffusion(device), word_head(text, min(HEAD_ITERATIONS, schedule.iterations))

    def loss() -> Tensor:
        rows = torch.randint(len(pool.data), (batch,), device=device)
        frame = torch.randint(FRAMES, (batch,), device=device)
        noisy, timestep, target = diffusion.corrupt(pool.data[rows, frame].float())
        states, merging = diffusion.read(text, words, pool.tokens[rows])
        return F.mse_loss(unet(noisy.to(states.dtype), timestep, states).sample.float(), target) + merging

    return train([unet, text, words], loss, schedule, device)


def train_video(
    unet: UNetMotionModel, text: CLIPTextModel, pool: Pool, batch: int, schedule: Schedule, device: torch.device
) -> Outcome:
    """Stage 3: whole clips, everything trained."""
    diffusion, words = Diffusion(device), word_head(text, min(HEAD_ITERATIONS, schedule.iterations))

    def loss() -> Tensor:
        rows = torch.randint(len(pool.data), (batch,), device=device)
        noisy, timestep, target = diffusion.corrupt(pool.data[rows].float().transpose(1, 2))
        states, merging = diffusion.read(text, words, pool.tokens[rows])
        every_frame = states.repeat_interleave(FRAMES, 0, output_size=batch * FRAMES)
        said = unet(noisy.to(states.dtype), timestep, every_frame).sample
        return F.mse_loss(said.float(), target) + merging

    def renew(iteration: int) -> None:
        if iteration % RENEW_EVERY == 0:
            pool.renew()

    return train([unet, text, words], loss, schedule, device, renew)
