"""Loading a pipeline: safetensors only, in the precision that the device computes in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from transformers import dynamic_module_utils

from ieadapt.errors import IEAdaptError, UsageError, raised_as, reason_of
from ieadapt.models.components import COPY_AGAIN, load_components, weight_files
from ieadapt.models.location import PRECISIONS, model_folder, pipeline_index
from ieadapt.models.memory import check_weights, weights_size

_DENOISERS = ("transformer", "unet")
_STORED = {"F16": torch.float16, "BF16": torch.bfloat16}


def load(model: str | Path, *, device: str = "cpu", dtype: torch.dtype | str | None = None) -> DiffusionPipeline:
    """Load a video pipeline of diffusers.

    Weights are read from safetensors files only; pickled weights are refused, and so are files that do not hold every
    weight. Tensors in them that the pipeline does not use are named in a warning.

    Args:
        model: the name of a bundled model ("scenes"), a folder that `save_pretrained` wrote, or a hub id.
        device: where the pipeline computes, "cpu", "cuda" or "cuda:1"; "auto" takes CUDA where there is any.
        dtype: precision to compute in, such as `torch.bfloat16` or "bfloat16". None or "auto" means float32 on the CPU
            (half precision is slow and lossy there) and the precision of the stored denoiser elsewhere.

    Returns:
        The pipeline, of the class that its folder names, on the device.

    Raises:
        UsageError: the model is unknown, the folder holds no complete pipeline, its class is not in diffusers, the
            device or precision is unknown, or the weights do not fit into the memory.
        FailureError: a hub id could not be downloaded, or weights or tokenizer files are missing.

    Example:
        >>> pipe = load("scenes")
        >>> type(pipe).__name__, pipe.unet.dtype
        ('AnimateDiffPipeline', torch.float32)
    """
    folder, target, precision = _destination(model, device, dtype)
    index = pipeline_index(folder)
    pipeline_class = pipeline_class_of(folder, index["_class_name"])
    check_weights(folder, target, precision)
    # diffusers hands its own trust_remote_code=False to no component of transformers, and a processor among them would
    # ask on standard input whether to run the folder's code; with no time to answer it is refused instead
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    try:
        parts = load_components(folder, index, pipeline_class, precision)
        pipe = pipeline_class.from_pretrained(
            str(folder), torch_dtype=precision, trust_remote_code=False, **options, **parts
        )
    except (IEAdaptError, MemoryError):
        raise
    except Exception as error:  # the libraries raise errors of many unrelated classes, the tokenizers plain Exception
        got, remedy = reason_of(error), f"{COPY_AGAIN}; pickled weights (.bin) are not read"
        raise UsageError("the folder holds no complete pipeline", got=got, where=folder, remedy=remedy) from error
    return pipe.to(target)


def loaded_size(model: str | Path, *, device: str = "cpu", dtype: torch.dtype | str | None = None) -> int:
    """Bytes that a model's weights take once `load` has loaded them; the arguments are those of `load`.

    Example:
        >>> loaded_size("scenes") > 10_000_000
        True
    """
    folder, _, precision = _destination(model, device, dtype)
    return weights_size(folder, precision)


def check_memory(
    model: str | Path, *, device: str = "cpu", dtype: torch.dtype | str | None = None, spare: int = 0
) -> None:
    """Refuse a model for which the memory will not do, as `load` would, without loading it.

    Args:
        model: as for `load`.
        device: as for `load`.
        dtype: as for `load`.
        spare: bytes in use now that will be free by then.

    Raises:
        UsageError: the weights do not fit.
    """
    check_weights(*_destination(model, device, dtype), spare)


def _destination(
    model: str | Path, device: str, dtype: torch.dtype | str | None
) -> tuple[Path, torch.device, torch.dtype]:
    """Where a model's weights are, where they go, and in which precision."""
    target, folder = _device(device), model_folder(model)
    return folder, target, _precision(dtype) or _default_dtype(folder, target)


def _precision(dtype: Any) -> torch.dtype | None:
    named = {name: None if name == "auto" else getattr(torch, name) for name in PRECISIONS}
    known: dict[Any, torch.dtype | None] = named | {each: each for each in named.values()}
    if not isinstance(dtype, (str, torch.dtype, type(None))) or dtype not in known:
        got, remedy = repr(dtype), "pass a name, or torch.float32"
        raise UsageError("unknown precision", expected=", ".join(PRECISIONS), got=got, where="dtype", remedy=remedy)
    return known[dtype]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    expected = "auto, cpu, cuda or cuda:N"
    with raised_as(UsageError, "unknown device", RuntimeError, expected=expected, got=repr(name)):
        device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            "this CUDA device is not there",
            expected=f"one of {torch.cuda.device_count()} devices",
            got=name,
            remedy="use --device cpu, or install a CUDA build of torch",
        )
    return device


def pipeline_class_of(folder: Path, name: str) -> Any:
    """The class of a pipeline, from its name in the index of its folder.

    Raises:
        UsageError: diffusers has no such pipeline.
    """
    pipeline_class = getattr(diffusers, name, None)
    if not (isinstance(pipeline_class, type) and issubclass(pipeline_class, DiffusionPipeline)):
        raise UsageError(
            f"diffusers {diffusers.__version__} has no pipeline {name!r}",
            where=folder / "model_index.json",
            remedy="install the diffusers release that the model names, or build the pipeline in Python",
        )
    return pipeline_class


def _default_dtype(folder: Path, device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.float32
    for component in _DENOISERS:
        for file in weight_files(folder / component)[1]:
            with safe_open(file, framework="pt") as weights:
                return _STORED.get(weights.get_slice(next(iter(weights.keys()))).get_dtype(), torch.float32)
    return torch.float32
