"""The trained models that ship with the package, as diffusers folders."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging

from ieadapt.errors import UsageError


def model_folder(name: str = "scenes") -> Path:
    """The folder of a trained model that ships with the package; it is not asked whether it is there.

    Example:
        >>> (model_folder() / "model_index.json").is_file()
        True
    """
    return Path(__file__).parent / name


def load_pipeline(folder: Path | None = None) -> DiffusionPipeline:
    """A testbed pipeline in float32 on the CPU, without a progress bar; the shipped `scenes` unless a folder is given.

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
            remedy="train one with python -m benchmarks.training.train --export, in a clone of the repository",
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
