"""Tiny random pipelines that are given a picture, a video or a control, and what each of them is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from diffusers import (
    AnimateDiffControlNetPipeline,
    AnimateDiffVideoToVideoPipeline,
    AutoencoderKLTemporalDecoder,
    CogVideoXImageToVideoPipeline,
    CogVideoXTransformer3DModel,
    CogVideoXVideoToVideoPipeline,
    ControlNetModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    I2VGenXLPipeline,
    I2VGenXLUNet,
    LattePipeline,
    LatteTransformer3DModel,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
    WanVideoToVideoPipeline,
)
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.tiny import build, call_arguments, whole
from tests.tiny.animatediff import ddim, small_unet, small_vae
from tests.tiny.modelscope import UNET
from tests.tiny.more import wan_from_image
from tests.tiny.text import clip_text_encoder, clip_tokenizer
from tests.tiny.weights import randomise, randomise_each

BESIDE = ("max_sequence_length",)
"""Arguments of the tiny runs that are no setting of a run."""


@dataclass(frozen=True)
class Case:
    """A pipeline, the smallest run of it, and what it is given.

    Attributes:
        build: makes the pipeline.
        size: fields of a `GenerationConfig`.
        call: names of its inputs -> "picture" or "video".
        beside: other inputs, of plain values.
        needs: the input without which it is refused.
        form: what tells it from another case of its class.
    """

    build: Callable[[], Any]
    size: Mapping[str, int]
    call: Mapping[str, str]
    beside: Mapping[str, Any] = field(default_factory=dict)
    needs: str = "image"
    form: str = ""


def picture(width: int = 48, height: int = 32, shade: int = 60) -> Image.Image:
    """A picture of coarse stripes."""
    return (
        Image.linear_gradient("L").resize((width, height)).point(lambda value: (value * 3 + shade) % 256).convert("RGB")
    )


def video(frames: int = 9, width: int = 48, height: int = 32) -> list[Image.Image]:
    """A video of moving stripes."""
    return [picture(width, height, 20 * index) for index in range(frames)]


@cache
def pipeline(name: str) -> Any:
    """The tiny pipeline of a case; tests must leave it as it was."""
    pipe = CASES[name].build()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def inputs(name: str) -> dict[str, Any]:
    """What the pipeline of a case is given, as `GenerationConfig.call` takes it."""
    case = CASES[name]
    width, height = case.size["width"], case.size["height"]
    made = {"picture": picture(width, height), "video": video(case.size.get("num_frames", 9), width, height)}
    return {**{argument: made[kind] for argument, kind in case.call.items()}, **case.beside}


def _parts(family: str, *names: str) -> dict[str, Any]:
    parts = build(family).components
    return {name: parts[name] for name in names or parts}


def _vision(width: int, size: int = 28) -> tuple[CLIPVisionModelWithProjection, CLIPImageProcessor]:
    small = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPVisionConfig(**small, image_size=size, patch_size=size // 2, projection_dim=width)
    model = CLIPVisionModelWithProjection(config)
    randomise(model, 3)
    return model, CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def _cogvideox_i2v() -> CogVideoXImageToVideoPipeline:
    parts = _parts("cogvideox")
    transformer = CogVideoXTransformer3DModel(**{**dict(parts["transformer"].config), "in_channels": 8})
    randomise(transformer, 2)
    return CogVideoXImageToVideoPipeline(**{**parts, "transformer": transformer})


def _animatediff_controlnet() -> AnimateDiffControlNetPipeline:
    parts = _parts("animatediff", "vae", "text_encoder", "tokenizer", "unet", "motion_adapter", "scheduler")
    controlnet = ControlNetModel.from_unet(small_unet(), conditioning_embedding_out_channels=(8, 8, 8))
    randomise(controlnet, 4)
    return AnimateDiffControlNetPipeline(**parts, controlnet=controlnet)


def _svd() -> StableVideoDiffusionPipeline:
    encoder, images = _vision(16, 224)
    parts = {
        "vae": AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 3,
            latent_channels=4,
            layers_per_block=1,
        ),
        "unet": UNetSpatioTemporalConditionModel(
            sample_size=8,
            block_out_channels=(32, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            cross_attention_dim=16,
            num_attention_heads=2,
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
        ),
    }
    randomise_each(parts.values(), 5)
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction", use_karras_sigmas=True, timestep_type="continuous"
    )
    return StableVideoDiffusionPipeline(**parts, image_encoder=encoder, feature_extractor=images, scheduler=scheduler)


def _i2vgenxl() -> I2VGenXLPipeline:
    encoder, images = _vision(16)
    unet = I2VGenXLUNet(**UNET, num_attention_heads=2)
    vae, text = small_vae(), clip_text_encoder(16)
    randomise_each((unet, vae, text), 6)
    return I2VGenXLPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=clip_tokenizer(),
        image_encoder=encoder,
        feature_extractor=images,
        unet=unet,
        scheduler=ddim(),
    )


def _wan_vace() -> WanVACEPipeline:
    parts = _parts("wan", "tokenizer", "text_encoder", "vae", "scheduler", "transformer")
    config = {**dict(parts["transformer"].config), "vace_layers": [0], "vace_in_channels": 2 * 4 + 16}
    known = {name: value for name, value in config.items() if name != "_class_name"}
    transformer = WanVACETransformer3DModel(**known)
    randomise(transformer, 7)
    return WanVACEPipeline(**{**parts, "transformer": transformer})


def _skyreels() -> SkyReelsV2Pipeline:
    parts = _parts("wan", "tokenizer", "text_encoder", "vae", "scheduler", "transformer")
    transformer = SkyReelsV2Transformer3DModel(**_wan_sizes(parts["transformer"].config))
    randomise(transformer, 8)
    return SkyReelsV2Pipeline(**{**parts, "transformer": transformer})


def _latte() -> LattePipeline:
    parts = _parts("cogvideox", "tokenizer", "text_encoder")
    transformer = LatteTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=24,
        sample_size=8,
        patch_size=2,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        caption_channels=16,
        video_length=4,
    )
    vae = small_vae()
    randomise_each((transformer, vae), 9)
    return LattePipeline(**parts, vae=vae, transformer=transformer, scheduler=ddim())


def _wan_sizes(config: Any) -> dict[str, Any]:
    names = ("num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "text_dim", "freq_dim")
    return {name: config[name] for name in (*names, "ffn_dim", "num_layers", "rope_max_seq_len")}


def _ltx_condition() -> LTXConditionPipeline:
    return LTXConditionPipeline(**{**_parts("ltx"), "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0)})


def _size(family: str) -> dict[str, int]:
    return {name: value for name, value in call_arguments(family).items() if name not in BESIDE}


CASES: Mapping[str, Case] = {
    "wan-i2v": Case(lambda: wan_from_image()[0], _size("wan"), {"image": "picture"}),
    "wan-v2v": Case(
        lambda: WanVideoToVideoPipeline(
            **_parts("wan", "tokenizer", "text_encoder", "vae", "scheduler", "transformer")
        ),
        _size("wan"),
        {"video": "video"},
        needs="video",
    ),
    "wan-vace": Case(_wan_vace, _size("wan"), {"video": "video"}, needs=""),
    "wan2.2-i2v": Case(whole.wan22_from_image, _size("wan"), {"image": "picture"}, form="Wan 2.2, two denoisers"),
    "wan-animate": Case(
        whole.wan_animate,
        _size("wan"),
        {"image": "picture", "pose_video": "video", "face_video": "video"},
        {"segment_frame_length": 9},
    ),
    "helios": Case(
        whole.helios, _size("wan"), {}, {"num_latent_frames_per_chunk": 3, "history_sizes": [4, 2, 1]}, needs=""
    ),
    "framepack": Case(whole.framepack, _size("hunyuanvideo"), {"image": "picture"}, {"latent_window_size": 2}),
    "allegro": Case(whole.allegro, {"height": 32, "width": 48, "num_frames": 8}, {}, needs=""),
    "skyreels": Case(_skyreels, _size("wan"), {}, needs=""),
    "latte": Case(_latte, {"height": 32, "width": 32, "num_frames": 4}, {}, needs=""),
    "cogvideox-i2v": Case(_cogvideox_i2v, _size("cogvideox"), {"image": "picture"}, {"max_sequence_length": 32}),
    "cogvideox-v2v": Case(
        lambda: CogVideoXVideoToVideoPipeline(**_parts("cogvideox")),
        _size("cogvideox"),
        {"video": "video"},
        {"max_sequence_length": 32},
        needs="video",
    ),
    "ltx-i2v": Case(lambda: LTXImageToVideoPipeline(**_parts("ltx")), _size("ltx"), {"image": "picture"}),
    "ltx-condition": Case(_ltx_condition, _size("ltx"), {"image": "picture"}, needs=""),
    "svd": Case(_svd, {"height": 32, "width": 48, "num_frames": 5}, {"image": "picture"}),
    "i2vgenxl": Case(_i2vgenxl, _size("animatediff"), {"image": "picture"}),
    "animatediff-v2v": Case(
        lambda: AnimateDiffVideoToVideoPipeline(
            **_parts("animatediff", "vae", "text_encoder", "tokenizer", "unet", "motion_adapter", "scheduler")
        ),
        _size("animatediff"),
        {"video": "video"},
        needs="video",
    ),
    "animatediff-controlnet": Case(
        _animatediff_controlnet, _size("animatediff"), {"conditioning_frames": "video"}, needs="conditioning_frames"
    ),
}
