"""A tiny random ModelScope (ZeroScope) pipeline: a 3D U-Net with spatial self, cross and temporal attention."""

from __future__ import annotations

from diffusers import TextToVideoSDPipeline, UNet3DConditionModel

from tests.tiny.animatediff import ddim, small_vae
from tests.tiny.text import clip_text_encoder, clip_tokenizer
from tests.tiny.weights import randomise_each

UNET = {
    "sample_size": 8,
    "block_out_channels": (16, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 8,
    "norm_num_groups": 4,
}
"""A small 3D U-Net."""
CALL = {"height": 16, "width": 24, "num_frames": 5}


def build(seed: int) -> TextToVideoSDPipeline:
    """Return the pipeline; latents are 5 frames of 4 x 6 at `CALL`."""
    parts = {
        "vae": small_vae(),
        "text_encoder": clip_text_encoder(16),
        "unet": UNet3DConditionModel(**UNET),
    }
    randomise_each(parts.values(), seed)
    return TextToVideoSDPipeline(**parts, tokenizer=clip_tokenizer(), scheduler=ddim())
