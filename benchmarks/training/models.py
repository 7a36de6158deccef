"""The models that the recipe trains, and their diffusers folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from benchmarks.training.animatediff import SCENES
from benchmarks.training.architecture import Architecture
from benchmarks.training.cogvideox import SCENES_DIT

ARCHITECTURES: Mapping[str, Architecture] = {row.name: row for row in (SCENES, SCENES_DIT)}


def save_pipeline(architecture: Architecture, folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Write the standard diffusers folder, every weight once, in fp16 safetensors files under 15 MB each."""
    for part in modules.values():
        part.to(torch.float16)
    architecture.assemble(modules).save_pretrained(folder, max_shard_size="14MB", safe_serialization=True)
    # transformers loads in the type that the config names; float32, so that it matches what diffusers does by default
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
