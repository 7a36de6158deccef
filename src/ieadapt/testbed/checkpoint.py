"""What a stretch of training leaves: four fp16 weight files and a record of every stage, in one flat folder.

Resuming is a warm start from these weights; the optimiser's state is not kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNetMotionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel

from ieadapt.errors import UsageError
from ieadapt.testbed.model import (
    STANDARD,
    Widths,
    build_adapter,
    build_text_encoder,
    build_unet,
    build_vae,
    save_pipeline,
    split_unet,
)
from ieadapt.testbed.tokenizer import build_tokenizer

HISTORY = "history.json"


class Parts(NamedTuple):
    """The models of a training folder; `video` holds the motion adapter's weights, `image` has none of them."""

    vae: AutoencoderKL
    text: CLIPTextModel
    image: UNet2DConditionModel
    video: UNetMotionModel


def save_weights(folder: Path, name: str, weights: Mapping[str, Tensor]) -> Path:
    """Write one model's weights in fp16, by a rename, so that a stop in the middle leaves the old file."""
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / f"{name}.safetensors", folder / f"{name}.safetensors.part"
    half = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in weights.items()}
    save_file(half, part)
    return part.replace(path)


def load_weights(folder: Path, name: str, model: nn.Module) -> bool:
    """Load one model's weights if the folder has them; says whether it had."""
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        return False
    model.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return True


def load_parts(folder: Path, widths: Widths = STANDARD) -> Parts:
    """Every model, with the folder's weights where it has them and untrained ones where not."""
    vae, text = build_vae(widths), build_text_encoder(build_tokenizer())
    image, adapter = build_unet(widths), build_adapter(widths)
    for name, model in {"vae": vae, "text": text, "unet": image, "adapter": adapter}.items():
        load_weights(folder, name, model)
    return Parts(vae, text, image, UNetMotionModel.from_unet2d(image, adapter))


def save_video(folder: Path, unet: UNetMotionModel, widths: Widths) -> None:
    """Write the video UNet as its two halves, `unet` and `adapter`."""
    image, adapter = split_unet(unet, widths)
    save_weights(folder, "unet", image.state_dict())
    save_weights(folder, "adapter", adapter.state_dict())


def read_history(folder: Path) -> list[dict[str, object]]:
    """The record of every stage trained so far, oldest first."""
    path = folder / HISTORY
    return json.loads(path.read_text()) if path.is_file() else []


def add_history(folder: Path, entry: Mapping[str, object]) -> None:
    """Append one stage to the record."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HISTORY).write_text(json.dumps([*read_history(folder), dict(entry)], indent=1) + "\n")


def export(folder: Path, target: Path, widths: Widths = STANDARD) -> None:
    """Turn a training folder into a diffusers pipeline folder.

    Raises:
        UsageError: a part has not been trained yet.
    """
    missing = [name for name in ("vae", "text", "unet", "adapter") if not (folder / f"{name}.safetensors").is_file()]
    if missing:
        raise UsageError(
            "not everything is trained",
            expected="vae, text, unet and adapter weights",
            got=f"no {', '.join(missing)}",
            where=folder,
            remedy="run the missing stages first",
        )
    parts = load_parts(folder, widths)
    image, adapter = split_unet(parts.video, widths)
    save_pipeline(target, vae=parts.vae, text_encoder=parts.text, unet=image, adapter=adapter)
