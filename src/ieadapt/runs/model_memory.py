"""Whether the memory will do for a model, known from the headers of its files before any of it is loaded."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ieadapt.errors import UsageError
from ieadapt.models import known_models
from ieadapt.runs.pipelines import Hardware
from ieadapt.runs.sources import GIB, free_memory

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1}
_VARIANTS = (".fp16.", ".bf16.", ".non_ema.")
"""In the names of files that hold the same weights again."""


def weights_bytes(model: str, hardware: Hardware) -> int | None:
    """What a model's weights take in memory at least, in bytes; None for one that is not on this machine.

    Example:
        >>> weights_bytes("shapes", Hardware(device="cpu")) > 10_000_000
        True
    """
    bundled = known_models().get(model)
    folder = bundled.folder() if bundled else Path(model).expanduser()
    if not folder.is_dir():
        return None
    given = {"float32": 4, "bfloat16": 2, "float16": 2}.get(hardware.dtype)
    computed = given or (4 if _device(hardware).type == "cpu" else None)
    files = [file for file in folder.rglob("*.safetensors") if not any(part in file.name for part in _VARIANTS)]
    return sum(_file_bytes(file, computed) for file in files)


def check_memory(model: str, hardware: Hardware, *, spare: int = 0) -> None:
    """Refuse a model whose weights alone are more than the memory that is free.

    Args:
        model: a bundled name or a folder; a hub id that is not on this machine passes.
        hardware: device and precision.
        spare: bytes in use now that will be free by then.

    Raises:
        UsageError: the memory will not do.
    """
    needed = weights_bytes(model, hardware)
    device = _device(hardware)
    free = free_memory() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    if needed is None or needed <= free + spare:
        return
    raise UsageError(
        "the model is too large for the memory",
        expected=f"at most the {(free + spare) / GIB:.1f} GiB that are free",
        got=f"{needed / GIB:.1f} GiB for its weights alone",
        where=model,
        remedy="take a smaller model, --dtype bfloat16, or a machine with more memory",
    )


def _device(hardware: Hardware) -> torch.device:
    if hardware.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(hardware.device)


def _file_bytes(file: Path, computed: int | None) -> int:
    """Numbers in a file times the bytes of one, as computed with or as stored."""
    try:
        with safe_open(file, framework="pt") as weights:
            parts = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118
            return sum(math.prod(part.get_shape()) * (computed or _BYTES.get(part.get_dtype(), 4)) for part in parts)
    except SafetensorError:
        return file.stat().st_size
