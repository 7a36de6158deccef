"""A tiny random AnimateDiff pipeline: two resolutions, spatial self, cross and temporal attention at each."""

from __future__ import annotations

from diffusers import AnimateDiffPipeline, AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel

from tests.tiny.text import clip_text_encoder, clip_tokenizer
from tests.tiny.weights import randomise_each

CALL = {"height": 16, "width": 24, "num_frames": 5}


def build(seed: int) -> AnimateDiffPipeline:
    """Return the pipeline; latents are 5 frames of 4 x 6 at `CALL`."""
    parts = {
        "vae": small_vae(),
        "text_encoder": clip_text_encoder(16),
        "unet": small_unet(),
        "motion_adapter": small_motion_adapter(),
    }
    randomise_each(parts.values(), seed)
    return AnimateDiffPipeline(**parts, tokenizer=clip_tokenizer(), scheduler=ddim())


def small_unet() -> UNet2DConditionModel:
    """Return the image denoiser that the motion adapter goes into."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def small_motion_adapter() -> MotionAdapter:
    """Return the temporal layers for `small_unet`."""
    return MotionAdapter(
        block_out_channels=(16, 16),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
    )


def small_vae() -> AutoencoderKL:
    """Return an image autoencoder that shrinks by 4 to 4 channels."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
    )


def ddim() -> DDIMScheduler:
    """Return the deterministic noise schedule that AnimateDiff and ModelScope models use."""
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False)
