"""What a stretch of training leaves: an fp16 file of weights per part and a record of every stage, in one flat folder.

Resuming is a warm start from these weights; the optimiser's state is not kept.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.training.architecture import Architecture
from benchmarks.training.models import save_pipeline
from ieadapt.errors import UsageError
from ieadapt.files import write_atomically
from ieadapt.models import load

HISTORY = "history.json"
COMPONENTS = {"text": "text_encoder", "adapter": "motion_adapter"}
"""What a pipeline calls the modules that it calls otherwise than the recipe."""


class Parts(NamedTuple):
    """The modules of a training folder by the name of their weight file, and the denoisers that they make, by stage."""

    modules: dict[str, Any]
    denoisers: dict[str, Any]


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


def load_parts(architecture: Architecture, folder: Path, size: str = "standard") -> Parts:
    """Every module, with the folder's weights where it has them and untrained ones where not."""
    modules = architecture.build(architecture.widths[size])
    for name, module in modules.items():
        load_weights(folder, name, module)
    return Parts(modules, architecture.denoisers(modules))


def adopt(architecture: Architecture, pipeline: Path, folder: Path) -> None:
    """Turn a pipeline folder back into a training folder, to go on from it: the inverse of `export`."""
    loaded = load(pipeline)
    for name, module in architecture.build(architecture.widths["standard"]).items():
        component = getattr(loaded, COMPONENTS.get(name, name))
        save_weights(folder, name, {key: component.state_dict()[key].clone() for key in module.state_dict()})


def read_history(folder: Path) -> list[dict[str, object]]:
    """The record of every stage trained so far, oldest first."""
    path = folder / HISTORY
    return json.loads(path.read_text()) if path.is_file() else []


def add_history(folder: Path, entry: Mapping[str, object]) -> None:
    """Append one stage to the record."""
    text = json.dumps([*read_history(folder), dict(entry)], indent=1) + "\n"
    write_atomically(folder / HISTORY, text.encode())


def export(architecture: Architecture, folder: Path, target: Path, size: str = "standard") -> None:
    """Turn a training folder into a diffusers pipeline folder.

    Raises:
        UsageError: a part has not been trained yet.
    """
    modules = load_parts(architecture, folder, size).modules
    missing = [name for name in modules if not (folder / f"{name}.safetensors").is_file()]
    if missing:
        raise UsageError(
            "not everything is trained",
            expected=f"weights of {', '.join(modules)}",
            got=f"no {', '.join(missing)}",
            where=folder,
            remedy="run the missing stages first",
        )
    save_pipeline(architecture, target, modules)


def load_trained(architecture: Architecture, folder: Path, size: str = "standard") -> DiffusionPipeline:
    """The pipeline of a training folder, as `load` gives the shipped one.

    Raises:
        UsageError: as `export`.
    """
    with tempfile.TemporaryDirectory() as target:
        export(architecture, folder, Path(target), size)
        return load(target)
