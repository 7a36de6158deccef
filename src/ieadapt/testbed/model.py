"""The testbed's model: its parts, and the diffusers folder that ships with the package.

AnimateDiff in small: a 2D UNet with spatial self-attention and cross-attention at three resolutions (16 x 16, 8 x 8,
4 x 4 latents of 128 x 128 pixels), a motion adapter with temporal attention at all of them, an f8 VAE with 4 latent
channels and a two-layer CLIP text encoder. The folder holds the 2D UNet and the adapter, each once; diffusers joins
them on loading.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ieadapt.testbed.scenes import RESOLUTION
from ieadapt.testbed.tokenizer import MAX_TOKENS, build_tokenizer

TEXT_WIDTH = 128
LATENT_CHANNELS = 4
LATENT_SIZE = RESOLUTION // 8


class Widths(NamedTuple):
    """Channels of the model at its resolutions, finest first, and the heads of its attention.

    The standard widths give a UNet of 9.0 M parameters and a VAE of 2.0 M.
    """

    unet: tuple[int, int, int] = (64, 112, 128)
    heads: tuple[int, int, int] = (4, 4, 4)
    vae: tuple[int, int, int, int] = (32, 48, 80, 96)
    groups: int = 16


STANDARD = Widths()
TINY = Widths(unet=(16, 16, 16), heads=(2, 2, 2), vae=(8, 8, 8, 8), groups=4)
"""For the smoke run of the recipe."""


def model_folder() -> Path:
    """The folder of the trained model that ships with the package.

    Example:
        >>> (model_folder() / "model_index.json").is_file()
        True
    """
    return Path(__file__).parent / "shapes"


def build_vae(widths: Widths = STANDARD) -> AutoencoderKL:
    """The untrained f8 VAE with 4 latent channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths.vae,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=widths.groups if widths.groups < 16 else 8,
        sample_size=RESOLUTION,
        scaling_factor=1.0,
        force_upcast=False,
    )


def build_unet(widths: Widths = STANDARD) -> UNet2DConditionModel:
    """The untrained 2D UNet."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        block_out_channels=widths.unet,
        layers_per_block=1,
        norm_num_groups=widths.groups,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=widths.heads,  # diffusers reads this as the number of heads
        use_linear_projection=True,
    )


def build_adapter(widths: Widths = STANDARD) -> MotionAdapter:
    """The untrained motion adapter; its output projections are zero, so that it starts by changing nothing."""
    adapter = MotionAdapter(
        block_out_channels=widths.unet,
        motion_layers_per_block=1,
        motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=widths.heads[0],
        motion_norm_num_groups=widths.groups,
        motion_max_seq_length=32,
        use_motion_mid_block=True,
    )
    for name, parameter in adapter.named_parameters():
        if ".proj_out." in name:
            nn.init.zeros_(parameter)
    return adapter


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The untrained text encoder."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextModel(config)


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, rescaled to zero terminal SNR; v-prediction; trailing steps."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
    )


def split_unet(unet: UNetMotionModel, widths: Widths = STANDARD) -> tuple[UNet2DConditionModel, MotionAdapter]:
    """The two models of which `UNetMotionModel.from_unet2d` made this one, with its weights."""
    weights = {name: value.float() for name, value in unet.state_dict().items()}
    spatial, adapter = build_unet(widths), build_adapter(widths)
    spatial.load_state_dict({name: value for name, value in weights.items() if "motion_modules" not in name})
    adapter.load_state_dict({name: value for name, value in weights.items() if "motion_modules" in name})
    return spatial, adapter


def save_pipeline(
    folder: Path,
    *,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    adapter: MotionAdapter,
) -> None:
    """Write the standard diffusers folder, every weight once, in fp16 safetensors files under 15 MB each."""
    pipeline = AnimateDiffPipeline(vae, text_encoder, build_tokenizer(), unet, adapter, build_scheduler())
    pipeline.register_modules(unet=unet)
    for part in (vae, text_encoder, unet, adapter):
        part.to(torch.float16)
    pipeline.save_pretrained(folder, max_shard_size="14MB", safe_serialization=True)
    # transformers loads in the type that the config names; float32, so that it matches what diffusers does by default
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")


def load_pipeline(folder: Path | None = None) -> AnimateDiffPipeline:
    """The testbed's pipeline in float32 on the CPU, without a progress bar; the shipped one unless a folder is given.

    Example:
        >>> load_pipeline().unet.config.sample_size
        16
    """
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        pipeline = AnimateDiffPipeline.from_pretrained(
            folder or model_folder(), dtype=torch.float32, local_files_only=True
        )
    finally:
        diffusers_logging.set_verbosity(verbosity)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
