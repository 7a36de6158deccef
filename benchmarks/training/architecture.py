"""What the recipe knows of a model: one `Architecture` per bundled model, so that all of them are trained alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from diffusers import DiffusionPipeline
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ieadapt.testbed.scene import SceneBatch

STAGES = ("vae", "images", "video")


@dataclass(frozen=True)
class StageDefaults:
    """How a stage is trained where the command line says nothing.

    Args:
        batch: rows an iteration: what the VAE reads, single latent frames, clips.
        rate: highest learning rate.
        pool: rows of training data kept on the device.
        precision: of `benchmarks.training.loop.Schedule`.
    """

    batch: int
    rate: float
    pool: int
    precision: Literal["autocast", "bfloat16"] = "bfloat16"


@dataclass(frozen=True)
class Architecture:
    """One bundled model: how it is built, what its parts say, how long its stages' batches are.

    Args:
        name: what `ieadapt.load` takes.
        widths: sizes by name: `standard`, and `tiny` for a smoke run.
        tokenizer: builds the tokenizer from the caption grammar.
        scheduler: builds the noise schedule.
        build: the untrained modules of a size, by the name of their weight file; always a `vae` and a `text`.
        denoisers: by stage, what the modules are trained as in the stages after the VAE's.
        split: by stage, the trained denoiser as the modules of which `denoisers` made it.
        assemble: the pipeline of trained modules, as it is saved.
        vae_rows: of scenes, what the VAE trains on, in [0, 1] and in its own layout: some of every scene.
        encode: VAE and clips in [0, 1] (clip, frame, 3, height, width) to latents (clip, frame, channel, row, column).
        decode: the inverse.
        normalise: give the latents of some VAE rows deviation 1 per channel, by changing weights only.
        velocity: by stage: denoiser, noisy latents (row, frame, channel, row, column), timesteps and text states to
            velocities.
        stages: by stage.
        centring: weight of the VAE loss that draws the latents' channel means to 0, for a VAE that cannot be given a
            shift afterwards.
        noise_skew: timesteps are drawn as u to this power: below 1 leans towards noise.
        text_lengths: tokens that captions are padded to in the video stage, in turn.
        call: what the pipeline's call needs besides prompt, steps and guidance.
    """

    name: str
    widths: Mapping[str, Any]
    tokenizer: Callable[[], PreTrainedTokenizerBase]
    scheduler: Callable[[], Any]
    build: Callable[[Any], dict[str, Any]]
    denoisers: Callable[[Mapping[str, Any]], dict[str, Any]]
    split: Mapping[str, Callable[[Any, Any], dict[str, nn.Module]]]
    assemble: Callable[[Mapping[str, Any]], DiffusionPipeline]
    vae_rows: Callable[[SceneBatch], Tensor]
    encode: Callable[[Any, Tensor], Tensor]
    decode: Callable[[Any, Tensor], Tensor]
    normalise: Callable[[Any, Tensor], None]
    velocity: Mapping[str, Callable[[Any, Tensor, Tensor, Tensor], Tensor]]
    stages: Mapping[str, StageDefaults]
    centring: float = 0.0
    noise_skew: float = 1.0
    text_lengths: tuple[int, ...] = (16,)
    call: Mapping[str, Any] = field(default_factory=dict)
