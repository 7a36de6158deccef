"""A tiny random LTX pipeline: packed latents, self-attention over all video tokens, masked cross-attention."""

from __future__ import annotations

from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel

from tests.tiny.text import t5_encoder, t5_tokenizer
from tests.tiny.weights import randomise_each

CALL = {"height": 32, "width": 64, "num_frames": 9, "max_sequence_length": 32}


def build(seed: int) -> LTXPipeline:
    """Return the pipeline; latents are 3 frames of 4 x 8 at `CALL`, one token each."""
    parts = {
        "vae": AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            spatio_temporal_scaling=(True, True, False, False),
            decoder_spatio_temporal_scaling=(True, True, False, False),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
            patch_size=2,
        ),
        "text_encoder": t5_encoder(16),
        "transformer": LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=12,
            cross_attention_dim=24,
            num_layers=2,
            caption_channels=16,
        ),
    }
    randomise_each(parts.values(), seed)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05)
    return LTXPipeline(**parts, tokenizer=t5_tokenizer(128), scheduler=scheduler)
