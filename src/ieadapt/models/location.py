"""From what a user types (a name, a folder, a hub id) to a folder that holds a diffusers pipeline."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

from ieadapt.errors import FailureError, UsageError
from ieadapt.models.bundled import RETIRED, BundledModel, known_models

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_INDEX = "model_index.json"


def model_folder(model: str | Path) -> Path:
    """The folder of a pipeline, downloaded first where the model is a hub id that is not cached.

    Args:
        model: the name of a bundled model, a folder with a `model_index.json`, or a hub id `owner/name`.

    Raises:
        UsageError: the model is none of the three, or a bundled one whose weights are not in this installation, or one
            that is no longer bundled.
        FailureError: the hub id could not be downloaded.

    Example:
        >>> model_folder("shaped")
        Traceback (most recent call last):
        ...
        ieadapt.errors.UsageError: unknown model 'shaped' (did you mean 'shapes'?); expected ...
    """
    bundled = known_models().get(str(model))
    if bundled is not None:
        return _complete(bundled)
    if str(model) in RETIRED:
        raise UsageError(f"the model {str(model)!r} no longer ships with the package", remedy=RETIRED[str(model)])
    folder = Path(model).expanduser()
    if str(model).strip() and folder.is_dir():
        return folder
    if isinstance(model, str) and _HUB_ID.fullmatch(model):
        return _from_hub(model)
    raise _unknown(str(model))


def pipeline_index(folder: Path) -> dict[str, Any]:
    """What a folder declares its pipeline to be: its class (`_class_name`), and the class of each component.

    Raises:
        UsageError: there is no readable `model_index.json`, or it names no class.
    """
    index = folder / _INDEX
    if not index.is_file():
        raise UsageError(
            f"this folder holds no diffusers pipeline: {_INDEX} is missing",
            where=folder,
            remedy="name the folder that save_pretrained wrote (the one with unet/ or transformer/ in it)",
        )
    try:
        content: dict[str, Any] = json.loads(index.read_text())
        name = content["_class_name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{_INDEX} does not say which pipeline it is",
            expected='an object with "_class_name"',
            where=index,
            remedy="save the pipeline again with save_pretrained",
        ) from error
    if not isinstance(name, str):
        raise UsageError(
            "a pipeline class from outside diffusers is not loaded",
            got=name,
            where=index,
            remedy="build that pipeline in Python and pass it to ieadapt's functions",
        )
    return content


def _complete(bundled: BundledModel) -> Path:
    folder = bundled.folder()
    if (folder / _INDEX).is_file():
        return folder
    others = [name for name, other in known_models().items() if (other.folder() / _INDEX).is_file()]
    raise UsageError(
        f"the weights of the bundled model {bundled.name!r} are not in this installation",
        expected=f"a pipeline folder with a {_INDEX}",
        where=folder,
        remedy=f"take another model ({', '.join(others) or 'none is here'}), or train it with "
        f"python -m benchmarks.training.train --model {bundled.name}",
    )


def _from_hub(model: str) -> Path:
    from diffusers import DiffusionPipeline

    try:
        return Path(DiffusionPipeline.download(model, use_safetensors=True, trust_remote_code=False))
    except Exception as error:  # the hub client raises errors of many unrelated classes
        raise FailureError(
            f"{model!r} is no folder here and could not be fetched from the model hub",
            got=_first_line(error),
            remedy="check the name and the network, or download the model and give its folder",
        ) from error


def _unknown(model: str) -> UsageError:
    near = difflib.get_close_matches(model, known_models(), n=1)
    return UsageError(
        f"unknown model {model!r}" + (f" (did you mean {near[0]!r}?)" if near else ""),
        expected=f"a bundled model ({', '.join(known_models())}), a folder with a {_INDEX} (./folder), or a hub id "
        "(owner/name)",
        remedy="`ieadapt models` lists what can be loaded",
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:200]}"
