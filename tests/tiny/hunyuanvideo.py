"""A tiny random HunyuanVideo pipeline: a text refiner, double- and single-stream joint blocks, video tokens first."""

from __future__ import annotations

from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

from tests.tiny.text import clip_text_encoder, clip_tokenizer, llama_encoder, llama_tokenizer
from tests.tiny.weights import randomise_each

CALL = {"height": 32, "width": 48, "num_frames": 9, "max_sequence_length": 32}


def build(seed: int) -> HunyuanVideoPipeline:
    """Return the pipeline; latents are 3 frames of 8 x 12 at `CALL`, tokens 3 x 4 x 6.

    The tokenizer turns the pipeline's own prompt template into the 95 tokens it crops off, so the template needs no
    replacement in a call.
    """
    prefix = DEFAULT_PROMPT_TEMPLATE["template"].split("{}")[0]
    tokenizer = llama_tokenizer(prefix, DEFAULT_PROMPT_TEMPLATE["crop_start"])
    parts = {
        "vae": AutoencoderKLHunyuanVideo(
            latent_channels=4,
            down_block_types=("HunyuanVideoDownBlock3D",) * 3,
            up_block_types=("HunyuanVideoUpBlock3D",) * 3,
            block_out_channels=(8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            spatial_compression_ratio=4,
            temporal_compression_ratio=4,
        ),
        "text_encoder": llama_encoder(16, tokenizer),
        "text_encoder_2": clip_text_encoder(16),
        "transformer": HunyuanVideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=2,
            num_single_layers=2,
            num_refiner_layers=1,
            text_embed_dim=16,
            pooled_projection_dim=16,
            rope_axes_dim=(4, 6, 6),
        ),
    }
    randomise_each(parts.values(), seed)
    return HunyuanVideoPipeline(
        **parts,
        tokenizer=tokenizer,
        tokenizer_2=clip_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )
