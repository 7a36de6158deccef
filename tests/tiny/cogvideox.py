"""A tiny random CogVideoX pipeline: joint attention with the text tokens first and rotary positions on the video."""

from __future__ import annotations

from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel

from tests.tiny.text import t5_encoder, t5_tokenizer
from tests.tiny.weights import randomise_each

CALL = {"height": 32, "width": 48, "num_frames": 9, "max_sequence_length": 32}


def build(seed: int) -> CogVideoXPipeline:
    """Return the pipeline; latents are 3 frames of 8 x 12 at `CALL`, tokens 3 x 4 x 6."""
    parts = {
        "vae": AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 3,
            up_block_types=("CogVideoXUpBlock3D",) * 3,
            block_out_channels=(8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            sample_height=32,
            sample_width=48,
        ),
        "text_encoder": t5_encoder(16),
        "transformer": CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=16,
            text_embed_dim=16,
            num_layers=2,
            sample_width=12,
            sample_height=8,
            sample_frames=9,
            max_text_seq_length=32,
            use_rotary_positional_embeddings=True,
        ),
    }
    randomise_each(parts.values(), seed)
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    return CogVideoXPipeline(**parts, tokenizer=t5_tokenizer(226), scheduler=scheduler)
