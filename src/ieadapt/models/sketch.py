"""A pipeline from its configs alone: modules without weights, on the meta device, to see its sites and its size."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin

from ieadapt.attention import AttentionSite, denoisers_of, family_of, first_denoiser
from ieadapt.attention.discovery import site_modules
from ieadapt.errors import UsageError, raised_as
from ieadapt.models.components import component_class
from ieadapt.models.loading import pipeline_class_of
from ieadapt.models.location import model_folder, pipeline_index
from ieadapt.models.memory import GIB, memory_estimate
from ieadapt.models.video_latents import run_size, sizes_of

Sizes = tuple[int, int, int]
"""(frames, height, width)."""


def sketch(model: str | Path) -> DiffusionPipeline:
    """The pipeline of a model without weights, text encoders and tokenizers; of a hub id only configs are fetched.

    Args:
        model: as for `load`.

    Raises:
        UsageError: the model is unknown, its class is not in diffusers, or a config does not fit its class.

    Example:
        >>> pipe = sketch("scenes")
        >>> pipe.unet.device.type, type(pipe).__name__
        ('meta', 'AnimateDiffPipeline')
    """
    folder = model_folder(model, weights=False)
    index = pipeline_index(folder)
    pipeline_class = pipeline_class_of(folder, index["_class_name"])
    parts: dict[str, Any] = {}
    causes = (ImportError, OSError, ValueError, TypeError, AttributeError)
    with raised_as(UsageError, "the configs of this model do not make a pipeline", causes, where=folder):
        for name, parameter in inspect.signature(pipeline_class).parameters.items():
            entry = index.get(name)
            if isinstance(entry, list | tuple):
                parts[name] = _part(folder / name, *entry) if entry[0] else None
            elif entry is not None or parameter.default is inspect.Parameter.empty:
                parts[name] = entry
        with torch.device("meta"):
            return pipeline_class(**parts)


def _part(folder: Path, library: str, class_name: str) -> Any:
    part: Any = component_class(folder, library, class_name)
    if not issubclass(part, ConfigMixin):
        return None
    config = part.load_config(str(folder), local_files_only=True)
    with torch.device("meta" if issubclass(part, ModelMixin) else "cpu"):
        return part.from_config(config)


def requested_size(pipe: DiffusionPipeline, frames: int | None, height: int | None, width: int | None) -> Sizes | None:
    """The size of a video in frames and pixels, the model's own where none is given; None where it does not say one."""
    try:
        sizes_of(pipe)
        return run_size(pipe, {"num_frames": frames, "height": height, "width": width})
    except UsageError:
        return None


def tokens_of(pipe: DiffusionPipeline, size: Sizes) -> dict[AttentionSite, tuple[int, int]]:
    """Per site, how many attentions a video takes in a step and branch, and over how many video tokens each.

    Sites of text and those whose tokens' places are not known are left out.

    Args:
        pipe: a pipeline, which may be a sketch.
        size: of a video.

    Example:
        >>> found = tokens_of(sketch("scenes"), (16, 128, 128))
        >>> {site.kind: found[site] for site in found if site.order < 4}
        {'spatial': (16, 256), 'cross': (16, 256), 'temporal': (256, 16)}
    """
    row = sizes_of(pipe)
    frames, denoiser = (size[0] - 1) // row.stride(pipe) + 1, first_denoiser(pipe)
    together = family_of(denoiser).skips == "none"
    found = {}
    for site in site_modules(denoisers_of(pipe)).values():
        depth = _depth(site.name, len(denoiser.config.get("block_out_channels") or (0,)))
        pixels = row.token_pixels(pipe) * 2**depth
        height, width = (math.ceil(side / pixels) for side in size[1:])
        shapes: Mapping[str, tuple[int, int]] = {
            "spatial": (frames, height * width),
            "temporal": (height * width, frames),
            "joint": (1, frames * height * width),
            "cross": (1, frames * height * width) if together else (frames, height * width),
        }
        if site.kind in shapes:
            found[site] = shapes[site.kind]
    return found


def _depth(name: str, resolutions: int) -> int:
    """How often a U-Net has halved its grid at a site, by the number of the block; 0 in a transformer."""
    block = re.search(r"(down|up)_blocks\.(\d+)\.", name)
    if block is None:
        return resolutions - 1 if "mid_block." in name else 0
    number = int(block[2])
    return number if block[1] == "down" else resolutions - 1 - number


def costs_of(pipe: DiffusionPipeline, chosen: Sequence[AttentionSite], size: Sizes | None) -> list[str]:
    """What a measure run and a study of these sites take, in sentences."""
    parameters = sum(weight.numel() for part in denoisers_of(pipe).values() for weight in part.parameters())
    lines = [f"The denoiser has {parameters / 1e9:.3g} billion parameters, {2 * parameters / GIB:.3g} GiB in bfloat16."]
    if size is not None:
        rough = memory_estimate(pipe, *size, rows=2) / GIB
        lines.append(f"A run of one video takes about {rough:.2g} GiB beside the weights (float32, two branches).")
    identities = sum(site.kind != "cross" for site in chosen)
    lines.append(
        "Measuring takes one run per prompt. A study of each site makes "
        f"{1 + identities + len(chosen)} videos per prompt and seed: one as it is, {identities} with the identity map, "
        f"{len(chosen)} with the uniform one."
    )
    return lines
