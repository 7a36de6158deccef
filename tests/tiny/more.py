"""Tiny random pipelines beside the families of the table: other models, adapters, images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AnimateDiffPAGPipeline,
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from tests.tiny import build, call_arguments
from tests.tiny.weights import randomise, randomise_each

Run = Callable[..., Tensor]
"""Runs the pipeline, two steps to latents unless told otherwise."""


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def animatediff_with_image() -> tuple[Any, Run]:
    """AnimateDiff with an IP-Adapter, as `load_ip_adapter` leaves it, with random weights."""
    pipe = build("animatediff")
    processors = {}
    torch.manual_seed(1)
    for name, processor in pipe.unet.attn_processors.items():
        processors[name] = processor
        if "motion_modules" not in name and not name.endswith("attn1.processor"):
            width = pipe.unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            adapter = IPAdapterAttnProcessor2_0(hidden_size=width, cross_attention_dim=16, num_tokens=(4,), scale=1.0)
            for weight in adapter.parameters():
                torch.nn.init.normal_(weight, std=0.3)
            processors[name] = adapter
    pipe.unet.set_attn_processor(processors)
    projection = ImageProjection(cross_attention_dim=16, image_embed_dim=8, num_image_text_embeds=4)
    pipe.unet.encoder_hid_proj = MultiIPAdapterImageProjection([projection])
    pipe.unet.config.encoder_hid_dim_type = "ip_image_proj"
    image = [torch.randn(2, 1, 8, generator=_seeded())]  # negative, positive

    def run(**changes: Any) -> Tensor:
        given = {"num_inference_steps": 2, "guidance_scale": 3.0, "ip_adapter_image_embeds": image}
        return pipe(
            "a red ball",
            output_type="latent",
            generator=_seeded(),
            **{**given, **call_arguments("animatediff"), **changes},
        ).frames

    return pipe, run


def wan_from_image() -> tuple[Any, Run]:
    """Wan 2.1's image-to-video form: cross-attention looks at the image's tokens, then at the text."""
    wan = build("wan")
    config, size = wan.transformer.config, call_arguments("wan")
    added = {
        "in_channels": 12,
        "image_dim": 8,
        "added_kv_proj_dim": config.num_attention_heads * config.attention_head_dim,
    }
    vision = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        projection_dim=8,
    )
    parts = {
        "transformer": WanTransformer3DModel(**{**dict(config), **added}),
        "image_encoder": CLIPVisionModel(vision),
    }
    randomise_each(parts.values(), 5)
    shared = {name: wan.components[name] for name in ("tokenizer", "text_encoder", "vae", "scheduler")}
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    pipe = WanImageToVideoPipeline(**shared, **parts, image_processor=images)
    pipe.set_progress_bar_config(disable=True)
    picture = Image.effect_noise((size["width"], size["height"]), 60).convert("RGB")

    def run(**changes: Any) -> Tensor:
        given = {"num_inference_steps": 2, "guidance_scale": 3.0, **size, "max_sequence_length": 512}
        return pipe(picture, "a red ball", output_type="latent", generator=_seeded(), **{**given, **changes}).frames

    return pipe, run


def hunyuanvideo15() -> tuple[Any, Run]:
    """HunyuanVideo 1.5: outside the family table; a guider names its calls, a mask leaves padded text no key."""
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        patch_size=1,
        patch_size_t=1,
        text_embed_dim=16,
        text_embed_2_dim=16,
        image_embed_dim=12,
        rope_axes_dim=(2, 2, 4),
        target_size=16,
        task_type="t2v",
    )
    randomise(transformer, 0)
    vae = AutoencoderKLHunyuanVideo15(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=2,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    absent = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    scheduler, guider = FlowMatchEulerDiscreteScheduler(shift=7.0), ClassifierFreeGuidance(guidance_scale=3.0)
    pipe = HunyuanVideo15Pipeline(transformer=transformer, vae=vae, scheduler=scheduler, guider=guider, **absent)
    pipe.set_progress_bar_config(disable=True)
    names = [f"{sign}prompt_embeds{kind}" for sign in ("", "negative_") for kind in ("", "_2")]
    texts = {name: torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(i)) for i, name in enumerate(names)}
    masks = {name.replace("embeds", "embeds_mask"): torch.tensor([[1.0, 1, 1, 1, 0, 0]]) for name in names}

    def run(**changes: Any) -> Tensor:
        given = {"num_inference_steps": 2, "height": 16, "width": 16, "num_frames": 9}
        return pipe(output_type="latent", generator=_seeded(), **texts, **masks, **{**given, **changes}).frames

    return pipe, run


def animatediff_pag() -> tuple[Any, Run]:
    """AnimateDiff with perturbed-attention guidance of its own."""
    parts = build("animatediff").components
    names = ("vae", "text_encoder", "tokenizer", "unet", "motion_adapter", "scheduler")
    pipe = AnimateDiffPAGPipeline(**{name: parts[name] for name in names}, pag_applied_layers=["mid_block.*attn1"])
    pipe.set_progress_bar_config(disable=True)

    def run(**changes: Any) -> Tensor:
        given = {"num_inference_steps": 2, "guidance_scale": 3.0, "pag_scale": 3.0, **call_arguments("animatediff")}
        return pipe("a red ball", output_type="latent", generator=_seeded(), **{**given, **changes}).frames

    return pipe, run
