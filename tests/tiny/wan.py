"""A tiny random Wan pipeline: self-attention over all video tokens, cross-attention to text, split guidance."""

from __future__ import annotations

from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

from tests.tiny.text import t5_tokenizer, umt5_encoder
from tests.tiny.weights import randomise_each

CALL = {"height": 32, "width": 48, "num_frames": 9, "max_sequence_length": 32}

FACES = {
    "inject_face_latents_blocks": 2,
    "motion_encoder_size": 16,
    "motion_style_dim": 8,
    "motion_dim": 4,
    "motion_encoder_dim": 8,
    "motion_encoder_channel_sizes": {"4": 8, "8": 8, "16": 8},
    "face_encoder_hidden_dim": 16,
    "face_encoder_num_heads": 2,
}
"""Wan Animate's encoder of faces, and one adapter for two blocks."""


def build(seed: int) -> WanPipeline:
    """Return the pipeline; latents are 3 frames of 8 x 12 at `CALL`, tokens 3 x 4 x 6."""
    parts = {
        "vae": AutoencoderKLWan(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[True, True],
            latents_mean=[0.1, -0.1, 0.2, 0.0],
            latents_std=[1.0, 1.1, 0.9, 1.0],
            scale_factor_temporal=4,
            scale_factor_spatial=4,
        ),
        "text_encoder": umt5_encoder(16),
        "transformer": WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            text_dim=16,
            freq_dim=16,
            ffn_dim=32,
            num_layers=2,
            rope_max_seq_len=32,
        ),
    }
    randomise_each(parts.values(), seed)
    return WanPipeline(**parts, tokenizer=t5_tokenizer(512), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0))
