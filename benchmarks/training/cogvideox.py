"""`scenes-dit`: CogVideoX in small.

A transformer with joint attention over text and all video tokens (12 blocks of width 192 with 6 heads, rotary
positions), a causal 3D VAE and a two-layer T5 encoder. 16 frames of 128 x 128 pixels are 8 latent frames of 16 x 16
with 16 channels, and 8 x 8 x 8 = 512 tokens. The VAE reads 16 frames as two groups of 8 and writes them as four groups
of 4, so that no frame is special and clips are as long as the scenes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from benchmarks.training.architecture import Architecture, StageDefaults
from benchmarks.training.tokenizer import build_t5_tokenizer
from benchmarks.training.world import TOKENS, WORDS
from ieadapt.testbed.rendering import render_batch
from ieadapt.testbed.scene import FRAMES, RESOLUTION, SceneBatch

LATENT_CHANNELS = 16
LATENT_SIZE = RESOLUTION // 8
FRAMES_PER_LATENT = 2
PATCH = 2
HEAD_WIDTH = 32
PLAIN_CALL_TOKENS = 226
"""Text tokens of a `CogVideoXPipeline` call that names no `max_sequence_length`."""


class Widths(NamedTuple):
    """Heads (of 32 channels) and blocks of the transformer, widths of its time embedding and text, VAE channels.

    The standard widths give a transformer of 7.2 M parameters, a VAE of 2.1 M and a text encoder of 0.3 M.
    """

    heads: int = 6
    blocks: int = 12
    time: int = 64
    text: int = 128
    vae: tuple[int, int, int, int] = (16, 32, 48, 56)
    groups: int = 8


STANDARD = Widths()
TINY = Widths(heads=1, blocks=2, time=16, text=16, vae=(4, 4, 4, 4), groups=2)
"""For the smoke run of the recipe."""


def build_vae(widths: Widths = STANDARD) -> AutoencoderKLCogVideoX:
    """The untrained causal VAE: a factor of 8 in space and 2 in time, 16 latent channels."""
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=widths.vae,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=widths.groups,
        temporal_compression_ratio=FRAMES_PER_LATENT,
        sample_height=RESOLUTION,
        sample_width=RESOLUTION,
        scaling_factor=1.0,
        force_upcast=False,
    )


def build_transformer(widths: Widths = STANDARD) -> CogVideoXTransformer3DModel:
    """The untrained transformer: modulations and output start at zero, so that blocks start by changing nothing."""
    model = CogVideoXTransformer3DModel(
        num_attention_heads=widths.heads,
        attention_head_dim=HEAD_WIDTH,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        time_embed_dim=widths.time,
        text_embed_dim=widths.text,
        num_layers=widths.blocks,
        sample_width=LATENT_SIZE,
        sample_height=LATENT_SIZE,
        sample_frames=FRAMES,
        patch_size=PATCH,
        temporal_compression_ratio=FRAMES_PER_LATENT,
        max_text_seq_length=TOKENS,
        use_rotary_positional_embeddings=True,
    )
    zero = [norm.linear for block in model.transformer_blocks for norm in (block.norm1, block.norm2)]
    for layer in (*zero, model.norm_out.linear, model.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def build_text_encoder(tokenizer: T5Tokenizer, widths: Widths = STANDARD) -> T5EncoderModel:
    """The untrained text encoder."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=widths.text,
        d_kv=widths.text // 4,
        d_ff=2 * widths.text,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return T5EncoderModel(config)


def build_scheduler() -> CogVideoXDDIMScheduler:
    """CogVideoX-2B's noise schedule: a third of Stable Diffusion's signal-to-noise ratio, zero at the end; trailing."""
    return CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        snr_shift_scale=3.0,
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def build_tokenizer() -> T5Tokenizer:
    """The tokenizer of the world's captions."""
    return build_t5_tokenizer(WORDS, TOKENS)


def assemble(modules: Mapping[str, Any]) -> CogVideoXPipeline:
    """The pipeline."""
    return CogVideoXPipeline(
        build_tokenizer(), modules["text"], modules["vae"], modules["transformer"], build_scheduler()
    )


def _build(widths: Widths) -> dict[str, nn.Module]:
    return {
        "vae": build_vae(widths),
        "text": build_text_encoder(build_tokenizer(), widths),
        "transformer": build_transformer(widths),
    }


def _denoisers(modules: Mapping[str, Any]) -> dict[str, nn.Module]:
    return {"images": modules["transformer"], "video": modules["transformer"]}


def _split(transformer: CogVideoXTransformer3DModel, widths: Widths) -> dict[str, nn.Module]:
    return {"transformer": transformer}


def clip_rows(scenes: SceneBatch) -> Float[Tensor, "row 3 frame height width"]:
    """The clip of every scene."""
    return render_batch(scenes).transpose(1, 2)


@torch.no_grad()
def encode(
    vae: AutoencoderKLCogVideoX, clips: Float[Tensor, "clip frame 3 height width"]
) -> Float[Tensor, "clip latent channel row column"]:
    """The mean latents of clips in [0, 1]; two frames make one latent frame."""
    return vae.encode(clips.transpose(1, 2) * 2 - 1).latent_dist.mean.float().transpose(1, 2)


@torch.no_grad()
def decode(
    vae: AutoencoderKLCogVideoX, latents: Float[Tensor, "clip latent channel row column"]
) -> Float[Tensor, "clip frame 3 height width"]:
    """Clips, in [0, 1] but for what overshoots."""
    return (vae.decode(latents.transpose(1, 2)).sample / 2 + 0.5).transpose(1, 2)


@torch.no_grad()
def normalise_latents(vae: AutoencoderKLCogVideoX, clips: Float[Tensor, "row 3 frame height width"]) -> None:
    """Fold the spread of the latents into every convolution that writes or reads them: channels get deviation 1.

    Their means cannot be folded in, since the decoder pads with zeros; training keeps them near 0 (`centring`).
    """
    spread = vae.encode(clips * 2 - 1).latent_dist.mean.std((0, 2, 3, 4))
    channels, out = len(spread), vae.encoder.conv_out.conv
    out.weight[:channels] /= spread[:, None, None, None, None]
    out.bias[:channels] /= spread
    out.bias[channels:] -= 2 * spread.log()
    vae.decoder.conv_in.conv.weight *= spread[None, :, None, None, None]
    for name, module in vae.decoder.named_modules():
        if name.endswith(("conv_y.conv", "conv_b.conv")):
            module.weight *= spread[None, :, None, None, None]


@functools.cache
def rotary_positions(frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The rotary tables of a clip, as the pipeline makes them: cosines and sines, each (token, head channel)."""
    side = LATENT_SIZE // PATCH
    cosines, sines = get_3d_rotary_pos_embed(
        HEAD_WIDTH, ((0, 0), (side, side)), (side, side), temporal_size=frames, device=device
    )
    return cosines, sines


def velocity(
    transformer: CogVideoXTransformer3DModel,
    noisy: Float[Tensor, "row frame channel height width"],
    timestep: Int[Tensor, " row"],
    states: Float[Tensor, "row token state"],
) -> Float[Tensor, "row frame channel height width"]:
    """What the transformer says of clips of any number of latent frames."""
    positions = rotary_positions(noisy.shape[1], noisy.device)
    return transformer(noisy, states, timestep, image_rotary_emb=positions).sample


SCENES_DIT = Architecture(
    name="scenes-dit",
    widths={"standard": STANDARD, "tiny": TINY},
    tokenizer=build_tokenizer,
    scheduler=build_scheduler,
    build=_build,
    denoisers=_denoisers,
    split={"images": _split, "video": _split},
    assemble=assemble,
    vae_rows=clip_rows,
    encode=encode,
    decode=decode,
    normalise=normalise_latents,
    velocity={"images": velocity, "video": velocity},
    stages={
        "vae": StageDefaults(batch=8, rate=1.5e-3, pool=6144, precision="autocast"),
        "images": StageDefaults(batch=1024, rate=1e-3, pool=12288),
        "video": StageDefaults(batch=64, rate=8e-4, pool=12288),
    },
    centring=0.1,
    noise_skew=0.8,
    text_lengths=(*(TOKENS,) * 7, PLAIN_CALL_TOKENS),
    call={"max_sequence_length": TOKENS},
)
