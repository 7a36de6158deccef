"""The table of model families: one row each. Nothing else in the package knows the inside of a diffusers denoiser."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from einops import parse_shape

from ieadapt.attention.sites import Kind

if TYPE_CHECKING:
    from torch import nn

Arguments = Mapping[str, Any]
TextPosition = Literal["before", "after", "none"]


@dataclass(frozen=True)
class LatentGrid:
    """The video that one denoiser call works on, counted in tokens.

    Attributes:
        batch: rows of the denoiser's batch (guidance branches times videos).
        frames: frames of tokens per video.
        resolutions: (height, width) in tokens at each resolution of the denoiser; transformers have one.
    """

    batch: int
    frames: int
    resolutions: tuple[tuple[int, int], ...]


@cache
def _class_of_diffusers(name: str) -> type:
    """A class of diffusers; one without instances where the installed release has none of that name."""
    import diffusers  # here, so that the table can be read without it

    return getattr(diffusers, name, None) or type(name, (), {})


def _guided_by_property(pipeline: Any, encoded: list[Arguments]) -> bool:
    return bool(getattr(pipeline, "do_classifier_free_guidance", False))


@dataclass(frozen=True)
class Family:
    """What the seam has to know of one family of denoisers.

    Attributes:
        name: as `ieadapt models` lists it.
        denoiser_name: of the class in diffusers.
        guidance: how classifier-free guidance runs: `batched` (one call, halves [uncond, cond]) or `split` (one call
            per branch, named by the pipeline's `cache_context`).
        kinds: (pattern over module paths, kind), first match wins; a cross-attention that the module itself declares
            comes before them.
        grid: the latent grid in tokens, from the denoiser and the arguments of its call.
        guided: whether a run uses guidance, from the pipeline and the arguments of its `encode_prompt` calls.
        text: where text tokens stand in a joint sequence.
        padding: how text is filled up in a joint sequence: `none`; `attended` (the tokenizer's padding is attended to
            like text); `masked` (an `encoder_attention_mask` hides it).
        prompts: `together`, or `alone` where a batch of prompts does not give what each gives alone.
        calls: `together` (one attention call holds the whole batch) or `per row` (one call per denoiser row).
        attentions: names of the attentions that a module makes one after the other, where they are several.
        latents: the denoiser's argument that holds the latents.
        guidance_argument: the pipeline's argument that sets the weight of classifier-free guidance.
        per_row: denoiser arguments with one entry, or a fixed number of entries, per row of the batch.
        shared: denoiser arguments that hold tensors common to all rows.
        order: sort key of a site's path in order of execution.
        stages: the denoiser's top-level blocks in order of execution.
        active: names of the denoisers that a run calls, from the pipeline and the timesteps of the run.
        skips: `kept` if later stages use the outputs of earlier ones (U-Nets), `none` for a plain chain.
    """

    name: str
    denoiser_name: str
    guidance: Literal["batched", "split"]
    kinds: tuple[tuple[str, Kind], ...]
    grid: Callable[[Any, Arguments], LatentGrid] | None
    guided: Callable[[Any, list[Arguments]], bool] = _guided_by_property
    text: TextPosition = "none"
    padding: Literal["none", "attended", "masked"] = "none"
    prompts: Literal["together", "alone"] = "together"
    calls: Literal["together", "per row"] = "together"
    attentions: Callable[[Any], tuple[str, ...]] = lambda module: ()
    latents: str = "hidden_states"
    guidance_argument: str = "guidance_scale"
    per_row: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    order: Callable[[str], tuple[Any, ...]] = lambda path: ()
    stages: Callable[[Any], list[nn.Module]] = lambda denoiser: []
    active: Callable[[Any, Sequence[int | float]], Collection[str]] = lambda pipeline, timesteps: pipeline.components
    skips: Literal["kept", "none"] = "none"

    @property
    def denoiser(self) -> type:
        """The class in diffusers."""
        return _class_of_diffusers(self.denoiser_name)


def family_of(denoiser: nn.Module) -> Family:
    """The family's row, or the general row for a denoiser that the table does not know."""
    return next((family for family in FAMILIES if isinstance(denoiser, family.denoiser)), UNLISTED)


def _unet_order(path: str) -> tuple[Any, ...]:
    """Down, middle, up; within a block layer by layer, the spatial transformer before the temporal one."""
    stages = ("image_latents_temporal_encoder", "transformer_in", "down_blocks", "mid_block", "up_blocks")
    stage = next(index for index, name in enumerate(stages) if path.startswith(name))
    block = re.search(r"^(?:down|up)_blocks\.(\d+)\.", path)
    layer = re.search(r"(?:attentions|motion_modules)\.(\d+)\.", path)
    temporal = any(name in path for name in ("motion_modules", "temp_attentions", "temporal_transformer_blocks"))
    return stage, int(block[1]) if block else 0, int(layer[1]) if layer else 0, temporal


def _unet_stages(denoiser: Any) -> list[nn.Module]:
    middle = [] if denoiser.mid_block is None else [denoiser.mid_block]
    return [*denoiser.down_blocks, *middle, *denoiser.up_blocks]


def _transformer_stages(denoiser: Any) -> list[nn.Module]:
    return [*denoiser.transformer_blocks, *getattr(denoiser, "single_transformer_blocks", ())]


def _unet_grid(denoiser: Any, arguments: Arguments, axes: str = "batch _ time row column") -> LatentGrid:
    shape = parse_shape(arguments["sample"], axes)
    batch, frames, height, width = (shape[name] for name in ("batch", "time", "row", "column"))
    resolutions = [(height, width)]
    for _ in denoiser.config.block_out_channels[1:]:
        height, width = (height + 1) // 2, (width + 1) // 2
        resolutions.append((height, width))
    return LatentGrid(batch, frames, tuple(resolutions))


def _patch_grid(axes: str) -> Callable[[Any, Arguments], LatentGrid]:
    """The grid of a transformer over patches of its latents, whose axes are named as einops names them."""

    def grid(denoiser: Any, arguments: Arguments) -> LatentGrid:
        size = parse_shape(arguments["hidden_states"], axes)
        time, rows, columns = _patch(denoiser.config)
        return LatentGrid(size["batch"], size["time"] // time, ((size["row"] // rows, size["column"] // columns),))

    return grid


def _patch(config: Any) -> tuple[int, int, int]:
    """Frames, rows and columns of a patch: one triple (Wan), or a square and a time that may be missing or None."""
    size = config.patch_size
    return (config.get("patch_size_t") or 1, size, size) if isinstance(size, int) else tuple(size)


def _ltx_grid(denoiser: Any, arguments: Arguments) -> LatentGrid:
    """LTX is given its latents as a sequence of tokens, and beside it their grid, or where each of them lies."""
    time, rows, columns = _patch(denoiser.config)
    coordinates = arguments.get("video_coords")
    if arguments.get("height") is None and coordinates is not None:
        batch, tokens = arguments["hidden_states"].shape[:2]
        size = (coordinates[0, 1].unique().numel(), coordinates[0, 2].unique().numel())
        return LatentGrid(batch, tokens // (size[0] * size[1]), (size,))
    size = (arguments["height"] // rows, arguments["width"] // columns)
    return LatentGrid(arguments["hidden_states"].shape[0], arguments["num_frames"] // time, (size,))


def _guided_by_argument(pipeline: Any, encoded: list[Arguments]) -> bool:
    """CogVideoX and ModelScope keep the decision in a local variable; `encode_prompt` is given it."""
    return bool(encoded and encoded[-1].get("do_classifier_free_guidance"))


def _guided_by_second_prompt(pipeline: Any, encoded: list[Arguments]) -> bool:
    """HunyuanVideo encodes a negative prompt only where true classifier-free guidance runs."""
    return len(encoded) > 1


def _latte_order(path: str) -> tuple[Any, ...]:
    """Each spatial block is followed by the temporal one of the same number."""
    temporal, block = path.startswith("temporal"), re.search(r"transformer_blocks\.(\d+)\.", path)
    return int(block[1]) if block else -1, temporal


def _wan_active(pipeline: Any, timesteps: Sequence[int | float]) -> Collection[str]:
    """Wan 2.2 has a denoiser for much noise and one for little."""
    share = pipeline.config.get("boundary_ratio")
    if share is None:
        return {"transformer"}
    boundary = share * pipeline.scheduler.config.num_train_timesteps
    return {"transformer" if timestep >= boundary else "transformer_2" for timestep in timesteps}


def _wan_attentions(module: Any) -> tuple[str, ...]:
    """The image-to-video model attends to the image's tokens first, then to the text."""
    return ("image", "text") if getattr(module, "add_k_proj", None) is not None else ()


_TRANSFORMER_ROWS = frozenset(
    (
        *("hidden_states", "encoder_hidden_states", "timestep", "encoder_attention_mask", "attention_mask", "guidance"),
        *("encoder_hidden_states_2", "encoder_attention_mask_2", "encoder_hidden_states_t5", "pooled_projections"),
        *("encoder_hidden_states_image", "image_embeds", "timestep_cond", "timestep_r", "ofs", "fps", "sigma"),
        *("id_cond", "id_vit_hidden", "inpaint_latents", "control_latents", "control_hidden_states", "condition_mask"),
        *("video_coords", "audio_coords", "audio_hidden_states", "pose_hidden_states", "face_pixel_values"),
        *("audio_encoder_hidden_states", "audio_encoder_attention_mask", "audio_timestep", "audio_sigma"),
    )
)
_UNET_ROWS = frozenset(
    (
        *("sample", "encoder_hidden_states", "timestep", "timestep_cond", "added_cond_kwargs", "added_time_ids"),
        *("down_block_additional_residuals", "mid_block_additional_residual"),
        *("fps", "image_latents", "image_embeddings"),
    )
)
_ANY = Family(name="", denoiser_name="ModelMixin", guidance="batched", kinds=(), grid=None)


def _row(base: Family, name: str, denoiser: str, **changes: Any) -> Family:
    """A row that is like another one but for what is given; the denoiser by the name of its class in diffusers."""
    return replace(base, name=name, denoiser_name=denoiser, **changes)


_UNET = replace(
    _ANY,
    grid=_unet_grid,
    latents="sample",
    per_row=_UNET_ROWS,
    order=_unet_order,
    stages=_unet_stages,
    skips="kept",
)
_MODELSCOPE = replace(
    _UNET,
    kinds=(("transformer_in.*", "temporal"), ("*temp*", "temporal"), ("*attentions.*", "spatial")),
)
_PATCHED = replace(
    _ANY,
    kinds=(("*.attn2", "cross"), ("transformer_blocks.*", "joint")),
    grid=_patch_grid("batch _ time row column"),
    per_row=_TRANSFORMER_ROWS,
    shared=frozenset({"image_rotary_emb", "rope_interpolation_scale", "control_hidden_states_scale", "padding_mask"}),
    stages=_transformer_stages,
)
_COGVIDEOX = replace(
    _PATCHED,
    grid=_patch_grid("batch time _ row column"),
    guided=_guided_by_argument,
    text="before",
    padding="attended",
)
_WAN = replace(
    _PATCHED,
    guidance="split",
    kinds=(("*.attn2", "cross"), ("*blocks.*", "joint")),
    attentions=_wan_attentions,
    stages=lambda denoiser: list(denoiser.blocks),
    active=_wan_active,
)
_HUNYUAN = replace(
    _PATCHED,
    guidance="split",
    kinds=(("context_embedder.*", "text"), ("*transformer_blocks.*", "joint")),
    text="after",
)

FAMILIES: tuple[Family, ...] = (
    _row(
        _UNET, "AnimateDiff", "UNetMotionModel", kinds=(("*motion_modules.*", "temporal"), ("*attentions.*", "spatial"))
    ),
    _row(_MODELSCOPE, "ModelScope", "UNet3DConditionModel", guided=_guided_by_argument),
    _row(_MODELSCOPE, "I2VGenXL", "I2VGenXLUNet"),
    _row(
        _UNET,
        "SVD",
        "UNetSpatioTemporalConditionModel",
        kinds=(("*temporal_transformer_blocks.*", "temporal"), ("*transformer_blocks.*", "spatial")),
        grid=partial(_unet_grid, axes="batch time _ row column"),
        guidance_argument="max_guidance_scale",
    ),
    _row(_COGVIDEOX, "CogVideoX", "CogVideoXTransformer3DModel"),
    _row(_COGVIDEOX, "ConsisID", "ConsisIDTransformer3DModel"),
    _row(_PATCHED, "EasyAnimate", "EasyAnimateTransformer3DModel", text="before"),
    _row(_WAN, "Wan", "WanTransformer3DModel"),
    _row(_WAN, "Wan VACE", "WanVACETransformer3DModel", order=lambda path: (not path.startswith("vace_blocks"),)),
    _row(_WAN, "Wan Animate", "WanAnimateTransformer3DModel"),
    _row(_WAN, "ChronoEdit", "ChronoEditTransformer3DModel"),
    _row(_WAN, "SkyReels V2", "SkyReelsV2Transformer3DModel"),
    _row(
        _HUNYUAN,
        "HunyuanVideo",
        "HunyuanVideoTransformer3DModel",
        guided=_guided_by_second_prompt,
        guidance_argument="true_cfg_scale",
        padding="masked",
    ),
    _row(_HUNYUAN, "HunyuanVideo 1.5", "HunyuanVideo15Transformer3DModel"),
    _row(
        _PATCHED,
        "Allegro",
        "AllegroTransformer3DModel",
        guided=_guided_by_argument,
        prompts="alone",  # its VAE decodes one video at a time
    ),
    _row(
        _PATCHED,
        "Latte",
        "LatteTransformer3DModel",
        kinds=(("temporal_transformer_blocks.*", "temporal"), ("transformer_blocks.*", "spatial")),
        guided=_guided_by_argument,
        order=_latte_order,
        prompts="alone",  # padding is cut from a single prompt, and attended to in a batch
        stages=lambda denoiser: [],  # spatial and temporal blocks hand on tensors of two shapes
    ),
    _row(
        _PATCHED,
        "Kandinsky 5",
        "Kandinsky5Transformer3DModel",
        guidance="split",
        kinds=(("text_*", "text"), ("*.cross_attention", "cross"), ("visual_*", "joint")),
        grid=_patch_grid("batch time row column _"),
        shared=frozenset({"visual_rope_pos", "text_rope_pos", "scale_factor", "sparse_params"}),
        stages=lambda denoiser: list(denoiser.visual_transformer_blocks),
    ),
    _row(_PATCHED, "Cosmos", "CosmosTransformer3DModel", guidance="split"),
    _row(
        _PATCHED,
        "LTX-2",
        "LTX2VideoTransformer3DModel",
        kinds=(
            ("transformer_blocks.*.attn1", "joint"),
            ("transformer_blocks.*.attn2", "cross"),
            ("transformer_blocks.*", "unknown"),  # of the sound, and between sound and video
        ),
        grid=_ltx_grid,
    ),
    _row(_PATCHED, "LTX", "LTXVideoTransformer3DModel", grid=_ltx_grid),
    _row(_PATCHED, "Mochi", "MochiTransformer3DModel", text="after", calls="per row"),
)

UNLISTED = replace(_ANY, name="unlisted", kinds=(("*", "unknown"),))
