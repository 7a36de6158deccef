"""Tiny random pipelines of further families, whole: what they need beside the parts of the others."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    AutoencoderKLAllegro,
    HeliosPipeline,
    HeliosScheduler,
    HeliosTransformer3DModel,
    HunyuanVideoFramepackPipeline,
    HunyuanVideoFramepackTransformer3DModel,
    WanAnimatePipeline,
    WanAnimateTransformer3DModel,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

from tests.tiny import build
from tests.tiny.more import wan_from_image
from tests.tiny.text import t5_encoder, t5_tokenizer
from tests.tiny.wan import FACES
from tests.tiny.weights import randomise, randomise_each


def _wan(config: Any, **changes: Any) -> dict[str, Any]:
    names = ("num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "text_dim", "freq_dim")
    return {**{name: config[name] for name in (*names, "ffn_dim", "num_layers")}, **changes}


def wan22_from_image() -> WanImageToVideoPipeline:
    """Wan 2.2's image-to-video form: two denoisers, and no tokens of the picture."""
    parts = {name: build("wan").components[name] for name in ("tokenizer", "text_encoder", "vae", "scheduler")}
    made = [WanTransformer3DModel(**_wan(build("wan").transformer.config, in_channels=12)) for _ in range(2)]
    randomise_each(made, 11)
    return WanImageToVideoPipeline(**parts, transformer=made[0], transformer_2=made[1], boundary_ratio=0.9)


def wan_animate() -> WanAnimatePipeline:
    """A character's picture, moved by the poses and the face of a video."""
    parts = dict(wan_from_image()[0].components)
    config = _wan(build("wan").transformer.config, in_channels=12, added_kv_proj_dim=24, image_dim=8)
    transformer = WanAnimateTransformer3DModel(**config, latent_channels=4, **FACES)
    randomise(transformer, 12)
    names = ("tokenizer", "text_encoder", "vae", "scheduler", "image_processor", "image_encoder")
    return WanAnimatePipeline(**{name: parts[name] for name in names}, transformer=transformer)


def helios() -> HeliosPipeline:
    """Long videos in chunks, whose tokens stand behind those of the history."""
    parts = {name: build("wan").components[name] for name in ("tokenizer", "text_encoder", "vae")}
    config = _wan(build("wan").transformer.config, attention_head_dim=12, rope_dim=(4, 4, 4))
    transformer = HeliosTransformer3DModel(**config)
    randomise(transformer, 13)
    return HeliosPipeline(**parts, transformer=transformer, scheduler=HeliosScheduler(stages=1, stage_range=[0, 1]))


def framepack() -> HunyuanVideoFramepackPipeline:
    """HunyuanVideo section by section, with its history packed into fewer tokens."""
    parts = dict(build("hunyuanvideo").components)
    config = {**parts["transformer"].config, "has_image_proj": True, "image_proj_dim": 8, "has_clean_x_embedder": True}
    known = {name: value for name, value in config.items() if not name.startswith("_") and name != "use_default_values"}
    parts["transformer"] = HunyuanVideoFramepackTransformer3DModel(**known)
    small = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    parts["image_encoder"] = SiglipVisionModel(SiglipVisionConfig(**small, image_size=28, patch_size=14))
    randomise_each((parts["transformer"], parts["image_encoder"]), 14)
    parts["feature_extractor"] = SiglipImageProcessorPil(size={"height": 28, "width": 28})
    return HunyuanVideoFramepackPipeline(**parts)


def allegro() -> AllegroPipeline:
    """Joint attention over all video tokens, cross-attention to T5's text."""
    vae = AutoencoderKLAllegro(
        in_channels=3,
        out_channels=3,
        down_block_types=("AllegroDownBlock3D",) * 4,
        up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    transformer = AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=48,
        caption_channels=16,
        sample_height=4,
        sample_width=6,
        sample_frames=3,
    )
    text = t5_encoder(16)
    randomise_each((vae, transformer, text), 15)
    scheduler = build("cogvideox").scheduler
    vae.enable_tiling()  # it decodes no other way, and leaves grey what is smaller than a tile
    vae.kernel, vae.stride = (8, 32, 32), (4, 16, 16)
    return AllegroPipeline(
        tokenizer=t5_tokenizer(512), text_encoder=text, vae=vae, transformer=transformer, scheduler=scheduler
    )
