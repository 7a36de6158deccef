"""The testbed's models: their table, and the diffusers folders that ship with the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from torch import nn

from ieadapt.errors import UsageError
from ieadapt.testbed.animatediff import SCENES, SHAPES
from ieadapt.testbed.architecture import Architecture
from ieadapt.testbed.cogvideox import SCENES_DIT

ARCHITECTURES: Mapping[str, Architecture] = {row.name: row for row in (SHAPES, SCENES, SCENES_DIT)}


def model_folder(name: str = "shapes") -> Path:
    """The folder of a trained model that ships with the package; it is not asked whether it is there.

    Example:
        >>> (model_folder() / "model_index.json").is_file()
        True
    """
    return Path(__file__).parent / ARCHITECTURES[name].folder


def save_pipeline(architecture: Architecture, folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Write the standard diffusers folder, every weight once, in fp16 safetensors files under 15 MB each."""
    for part in modules.values():
        part.to(torch.float16)
    architecture.assemble(modules).save_pretrained(folder, max_shard_size="14MB", safe_serialization=True)
    # transformers loads in the type that the config names; float32, so that it matches what diffusers does by default
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")


def load_pipeline(folder: Path | None = None) -> DiffusionPipeline:
    """A testbed pipeline in float32 on the CPU, without a progress bar; the shipped `shapes` unless a folder is given.

    Raises:
        UsageError: the folder holds no pipeline.

    Example:
        >>> load_pipeline().unet.config.sample_size
        16
    """
    folder = folder or model_folder()
    if not (folder / "model_index.json").is_file():
        raise UsageError(
            "no pipeline of the testbed here",
            expected="a folder with a model_index.json",
            got=folder,
            where="load_pipeline",
            remedy="train one with python -m ieadapt.testbed.train and --export",
        )
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
    finally:
        diffusers_logging.set_verbosity(verbosity)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
