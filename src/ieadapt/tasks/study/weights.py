"""The hash of a model's weights and configuration: what tells two models of one name apart."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from ieadapt.files import sha256_of

_PARTS = (".safetensors", ".json", ".txt", ".model")


def weights_hash(model: Path | DiffusionPipeline) -> str:
    """32 hexadecimal digits over every weight and every configuration of a pipeline.

    Args:
        model: a pipeline's folder, of which the files are read, or a pipeline in memory.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "model_index.json").write_text("{}")
        >>> len(weights_hash(folder))
        32
    """
    return _of_folder(model) if isinstance(model, Path) else _of_pipeline(model)


def _of_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    parts = [path for path in folder.rglob("*") if path.suffix in _PARTS and path.is_file()]
    for path in sorted(path for path in parts if not path.relative_to(folder).parts[0].startswith(".")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()[:32]


def _of_pipeline(pipe: Any) -> str:
    digest = hashlib.sha256()
    for name, part in sorted(pipe.components.items()):
        digest.update(f"{name} {type(part).__name__} {getattr(part, 'config', None)}".encode())
        state = part.state_dict() if isinstance(part, nn.Module) else {}
        for key, tensor in sorted(state.items()):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
