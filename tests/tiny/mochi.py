"""A tiny random Mochi pipeline: joint attention, video tokens first, one call per row with padded text dropped."""

from __future__ import annotations

from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel

from tests.tiny.text import t5_encoder, t5_tokenizer
from tests.tiny.weights import randomise_each

CALL = {"height": 64, "width": 96, "num_frames": 13, "max_sequence_length": 32}


def build(seed: int) -> MochiPipeline:
    """Return the pipeline; latents are 3 frames of 8 x 12 at `CALL`, tokens 3 x 4 x 6."""
    parts = {
        "vae": AutoencoderKLMochi(
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
        ),
        "text_encoder": t5_encoder(16),
        "transformer": MochiTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            pooled_projection_dim=16,
            text_embed_dim=16,
            time_embed_dim=16,
            max_sequence_length=32,
        ),
    }
    randomise_each(parts.values(), seed)
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    return MochiPipeline(**parts, tokenizer=t5_tokenizer(256), scheduler=scheduler)
