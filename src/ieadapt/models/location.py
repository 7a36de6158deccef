"""The models that ship with the package, and from what a user types to a folder that holds a diffusers pipeline."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ieadapt.errors import FailureError, UsageError, raised_as

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_INDEX = "model_index.json"
SHIPPED = Path(__file__).parents[1] / "testbed"
"""Folder of the models that ship with the package."""
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
"""What a user may say for `dtype`."""
RETIRED: Mapping[str, str] = {
    "shapes": "take 'scenes'; what was measured on shapes is in docs/test-bed.md",
    "shapes-dit": "take 'scenes-dit'; what was measured on shapes-dit is in docs/test-bed.md",
}
"""Models that shipped once, and what to do instead of loading them."""


@dataclass(frozen=True)
class BundledModel:
    """A trained pipeline inside the package.

    Attributes:
        name: what `load` takes.
        family: the row of `ieadapt.attention.families` it belongs to.
        summary: what it makes, in a few words.
        guidance_scale: the scale it was made for, where that is not its pipeline class's default.
    """

    name: str
    family: str
    summary: str
    guidance_scale: float | None = None

    @property
    def folder(self) -> Path:
        """Where it lies, if its weights are in this installation."""
        return SHIPPED / self.name

    @property
    def available(self) -> bool:
        """Whether its weights are in this installation."""
        return (self.folder / _INDEX).is_file()


_SCENES = "one to three objects that cross, from captions such as 'a big red ball moving right over bricks'"
_BUNDLED = (
    BundledModel("scenes", "AnimateDiff", _SCENES, guidance_scale=3.0),
    BundledModel("scenes-dit", "CogVideoX", f"{_SCENES}, as a transformer", guidance_scale=4.0),
)


def known_models() -> dict[str, BundledModel]:
    """The bundled models by name, whether or not their weights are in this installation.

    Example:
        >>> known_models()["scenes"].family
        'AnimateDiff'
    """
    return {model.name: model for model in _BUNDLED}


def model_folder(model: str | Path, *, weights: bool = True) -> Path:
    """The folder of a pipeline, downloaded first where the model is a hub id that is not cached.

    Args:
        model: the name of a bundled model, a folder with a `model_index.json`, or a hub id `owner/name`.
        weights: fetch the weights of a hub id too; without them its configs alone.

    Raises:
        UsageError: the model is none of the three, or a bundled one whose weights are not in this installation, or one
            that is no longer bundled.
        FailureError: the hub id could not be downloaded.

    Example:
        >>> model_folder("scened")
        Traceback (most recent call last):
        ...
        ieadapt.errors.UsageError: unknown model 'scened' (did you mean 'scenes'?); expected ...
    """
    bundled = known_models().get(str(model))
    if bundled is not None:
        return _bundled_folder(bundled)
    if str(model) in RETIRED:
        raise UsageError(f"the model {str(model)!r} no longer ships with the package", remedy=RETIRED[str(model)])
    folder = Path(model).expanduser()
    if str(model).strip() and folder.is_dir():
        return folder
    if isinstance(model, str) and _HUB_ID.fullmatch(model):
        return _from_hub(model, weights=weights)
    near = difflib.get_close_matches(str(model), known_models(), n=1)
    raise UsageError(
        f"unknown model {str(model)!r}" + (f" (did you mean {near[0]!r}?)" if near else ""),
        expected=f"a bundled model ({', '.join(known_models())}), a folder with a {_INDEX} (./folder), or a hub id "
        "(owner/name)",
        remedy="`ieadapt models` lists what can be loaded",
    )


def pipeline_index(folder: Path) -> dict[str, Any]:
    """What a folder declares its pipeline to be: its class (`_class_name`), and the class of each component.

    Raises:
        UsageError: there is no readable `model_index.json`, or it names no class.
    """
    index = folder / _INDEX
    if not index.is_file():
        remedy = "name the folder that save_pretrained wrote (the one with unet/ or transformer/ in it)"
        if (folder / f"modular_{_INDEX}").is_file():
            remedy = "a modular pipeline is not loaded; name the folder of the standard pipeline of the same model"
        raise UsageError(f"this folder holds no diffusers pipeline: {_INDEX} is missing", where=folder, remedy=remedy)
    facts = {"expected": 'an object with "_class_name"', "remedy": "save the pipeline again with save_pretrained"}
    causes = (OSError, ValueError, KeyError, TypeError, RecursionError)
    with raised_as(UsageError, f"{_INDEX} does not say which pipeline it is", causes, got=None, where=index, **facts):
        content: dict[str, Any] = json.loads(index.read_text())
        name = content["_class_name"]
    if not isinstance(name, str):
        raise UsageError(
            "a pipeline class from outside diffusers is not loaded",
            got=name,
            where=index,
            remedy="build that pipeline in Python and pass it to ieadapt's functions",
        )
    return content


def _bundled_folder(bundled: BundledModel) -> Path:
    if bundled.available:
        return bundled.folder
    others = [name for name, other in known_models().items() if other.available]
    raise UsageError(
        f"the weights of the bundled model {bundled.name!r} are not in this installation",
        expected=f"a pipeline folder with a {_INDEX}",
        where=bundled.folder,
        remedy=f"take another model ({', '.join(others) or 'none is here'}), or train it with "
        f"python -m benchmarks.training.train --model {bundled.name}",
    )


def _from_hub(model: str, *, weights: bool) -> Path:
    from diffusers import DiffusionPipeline
    from huggingface_hub import snapshot_download

    try:
        if not weights:
            return Path(snapshot_download(model, allow_patterns=["*.json"]))
        return Path(DiffusionPipeline.download(model, use_safetensors=True, trust_remote_code=False))
    except Exception as error:  # the hub client raises errors of many unrelated classes
        lines = str(error).strip().splitlines() or ["no message"]
        raise FailureError(
            f"{model!r} is no folder here and could not be fetched from the model hub",
            got=f"{type(error).__name__}: {lines[0][:200]}",
            remedy="check the name and the network, or download the model and give its folder",
        ) from error
