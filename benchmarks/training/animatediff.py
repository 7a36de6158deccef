"""`scenes`: AnimateDiff in small.

A 2D UNet with spatial self-attention and cross-attention at three resolutions (16 x 16, 8 x 8,
4 x 4 latents of 128 x 128 pixels), a motion adapter with temporal attention at all of them, an f8 VAE and a two-layer
CLIP text encoder. The folder holds the 2D UNet and the adapter, each once; diffusers joins them on loading.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.training.architecture import Architecture, StageDefaults
from benchmarks.training.tokenizer import build_clip_tokenizer
from benchmarks.training.world import TOKENS, WORDS, render_frames
from ieadapt.testbed.scene import FRAMES, RESOLUTION, SceneBatch

TEXT_WIDTH = 128
LATENT_SIZE = RESOLUTION // 8


class Widths(NamedTuple):
    """Channels of the model at its resolutions, finest first, the heads of its attention, and its latent channels.

    The defaults give a UNet of 7.4 M parameters and a VAE of 2.0 M.
    """

    unet: tuple[int, int, int] = (64, 96, 112)
    heads: tuple[int, int, int] = (4, 4, 4)
    vae: tuple[int, int, int, int] = (32, 48, 80, 96)
    groups: int = 16
    latent: int = 8


STANDARD = Widths()
TINY = Widths(unet=(16, 16, 16), heads=(2, 2, 2), vae=(8, 8, 8, 8), groups=4)
"""For the smoke run of the recipe."""


def build_vae(widths: Widths = STANDARD) -> AutoencoderKL:
    """The untrained f8 VAE."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths.vae,
        layers_per_block=1,
        latent_channels=widths.latent,
        norm_num_groups=widths.groups if widths.groups < 16 else 8,
        sample_size=RESOLUTION,
        scaling_factor=1.0,
        force_upcast=False,
    )


def build_unet(widths: Widths = STANDARD) -> UNet2DConditionModel:
    """The untrained 2D UNet."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=widths.latent,
        out_channels=widths.latent,
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
        max_position_embeddings=tokenizer.model_max_length,
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


def join(modules: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The 2D UNet for the image stage, and for the video stage the video UNet made of it and the adapter."""
    unet = modules["unet"]
    return {"images": unet, "video": UNetMotionModel.from_unet2d(unet, modules["adapter"])}


def assemble(tokenizer: CLIPTokenizer, modules: Mapping[str, Any]) -> AnimateDiffPipeline:
    """The pipeline, with the 2D UNet in place: so every weight is stored once."""
    unet = modules["unet"]
    pipeline = AnimateDiffPipeline(
        modules["vae"], modules["text"], tokenizer, unet, modules["adapter"], build_scheduler()
    )
    pipeline.register_modules(unet=unet)
    return pipeline


def _split_images(unet: UNet2DConditionModel, widths: Widths) -> dict[str, nn.Module]:
    return {"unet": unet}


def _split_video(unet: UNetMotionModel, widths: Widths) -> dict[str, nn.Module]:
    spatial, adapter = split_unet(unet, widths)
    return {"unet": spatial, "adapter": adapter}


def frame_rows(scenes: SceneBatch) -> Float[Tensor, "row 3 height width"]:
    """One frame of every scene, by chance."""
    return render_frames(scenes, torch.randint(FRAMES, (len(scenes),)).to(scenes.device))


@torch.no_grad()
def encode(
    vae: AutoencoderKL, clips: Float[Tensor, "clip frame 3 height width"]
) -> Float[Tensor, "clip frame channel row column"]:
    """The mean latents of clips in [0, 1], frame by frame."""
    mean = vae.encode(clips.flatten(0, 1) * 2 - 1).latent_dist.mean
    return mean.float().unflatten(0, clips.shape[:2])


@torch.no_grad()
def decode(
    vae: AutoencoderKL, latents: Float[Tensor, "clip frame channel row column"]
) -> Float[Tensor, "clip frame 3 height width"]:
    """Clips, in [0, 1] but for what overshoots."""
    return (vae.decode(latents.flatten(0, 1)).sample / 2 + 0.5).unflatten(0, latents.shape[:2])


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, frames: Float[Tensor, "row 3 height width"]) -> None:
    """Fold the latents' mean and spread into the VAE's 1 x 1 convolutions: channels get mean 0, deviation 1."""
    latents = vae.encode(frames * 2 - 1).latent_dist.mean
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    out, back = vae.quant_conv, vae.post_quant_conv
    back.bias += back.weight[:, :, 0, 0] @ mean
    back.weight *= spread[None, :, None, None]
    out.weight[:channels] /= spread[:, None, None, None]
    out.bias[:channels] = (out.bias[:channels] - mean) / spread
    out.bias[channels:] -= 2 * spread.log()


def image_velocity(
    unet: UNet2DConditionModel,
    noisy: Float[Tensor, "row 1 channel height width"],
    timestep: Int[Tensor, " row"],
    states: Float[Tensor, "row token state"],
) -> Float[Tensor, "row 1 channel height width"]:
    """What the 2D UNet says of single frames."""
    return unet(noisy[:, 0], timestep, states).sample[:, None]


def video_velocity(
    unet: UNetMotionModel,
    noisy: Float[Tensor, "row frame channel height width"],
    timestep: Int[Tensor, " row"],
    states: Float[Tensor, "row token state"],
) -> Float[Tensor, "row frame channel height width"]:
    """What the video UNet says of clips; it reads the caption once for every frame."""
    every_frame = states.repeat_interleave(noisy.shape[1], 0, output_size=noisy.shape[0] * noisy.shape[1])
    return unet(noisy.transpose(1, 2), timestep, every_frame).sample.transpose(1, 2)


build_tokenizer = functools.partial(build_clip_tokenizer, WORDS, TOKENS)


def _build(widths: Widths) -> dict[str, nn.Module]:
    return {
        "vae": build_vae(widths),
        "text": build_text_encoder(build_tokenizer()),
        "unet": build_unet(widths),
        "adapter": build_adapter(widths),
    }


SCENES = Architecture(
    name="scenes",
    widths={"standard": STANDARD, "tiny": TINY},
    tokenizer=build_tokenizer,
    scheduler=build_scheduler,
    build=_build,
    denoisers=join,
    split={"images": _split_images, "video": _split_video},
    assemble=lambda modules: assemble(build_tokenizer(), modules),
    vae_rows=frame_rows,
    encode=encode,
    decode=decode,
    normalise=normalise_latents,
    velocity={"images": image_velocity, "video": video_velocity},
    stages={
        "vae": StageDefaults(batch=128, rate=1e-3, pool=32768, precision="autocast"),
        "images": StageDefaults(batch=1024, rate=1e-3, pool=16384),
        "video": StageDefaults(batch=64, rate=8e-4, pool=16384),
    },
    noise_skew=0.6,
    text_lengths=(TOKENS,),
)
