"""The components of a saved pipeline: their weight files, and whether these hold all that each of them needs."""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin, pipelines
from diffusers.pipelines.pipeline_loading_utils import simple_get_class_obj
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ieadapt.errors import FailureError, IEAdaptWarning, UsageError

_WEIGHTS = re.compile(
    r"(?:model|diffusion_pytorch_model)(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?(?:\.(?P<older>\w+))?\.safetensors"
)
"""Earlier releases wrote the variant behind the number of a shard."""
_SHOWN = 3
COPY_AGAIN = "copy or download the folder again, or save it again with save_pretrained(folder)"


def load_components(
    folder: Path, index: Mapping[str, Any], pipeline_class: type, dtype: torch.dtype
) -> dict[str, nn.Module]:
    """The models of a pipeline's folder, each holding exactly the weights of its files; tokenizers are looked at only.

    The pipeline's own `from_pretrained` is no substitute: it fills weights that are missing with random numbers, makes
    a tokenizer without a vocabulary where its file is missing, and logs at most a warning.

    Args:
        folder: of the pipeline.
        index: the content of its `model_index.json`.
        pipeline_class: takes the models as arguments.
        dtype: of the weights.

    Raises:
        FailureError: a model lacks weights or holds some of another shape, or a tokenizer lacks a file.
        UsageError: a component is of neither diffusers nor transformers, or its folder holds several variants.
    """
    models: dict[str, nn.Module] = {}
    for name in inspect.signature(pipeline_class).parameters:
        entry = index.get(name)
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)):
            continue
        part = component_class(folder / name, *entry)
        if issubclass(part, PreTrainedTokenizerBase):
            _require_vocabulary(folder / name, part)
        elif issubclass(part, (ModelMixin, PreTrainedModel)):
            models[name] = _load_model(folder / name, part, dtype)
    return models


def weight_files(folder: Path) -> tuple[str | None, list[Path]]:
    """The variant ("fp16") and the safetensors files that are read of a component's folder.

    Files without a variant are preferred; where there are none, those of the only variant are taken.

    Raises:
        UsageError: there are only variants, and several.
    """
    files: dict[str | None, list[Path]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        if match := _WEIGHTS.fullmatch(file.name):
            files.setdefault(match["variant"] or match["older"], []).append(file)
    if not files:
        return None, []
    if None in files:
        return None, files[None]
    if len(files) > 1:
        raise UsageError(
            "the weights are there in several variants only",
            got=", ".join(str(variant) for variant in files),
            where=folder,
            remedy="keep the files of one of them in the folder",
        )
    return next(iter(files.items()))


def component_class(folder: Path, library: str, class_name: str) -> type:
    """The class of a component, from its entry in the pipeline's index.

    Raises:
        UsageError: it is of neither diffusers nor transformers.
    """
    # diffusers imports whatever library an index names, and runs a `library.py` that lies in the component's folder
    if library not in ("diffusers", "transformers") and not hasattr(pipelines, library):
        raise UsageError(
            "a component from outside diffusers and transformers is not loaded",
            got=f"{library}.{class_name}",
            where=folder,
            remedy="build that pipeline in Python and pass it to ieadapt's functions",
        )
    component_class: type = simple_get_class_obj(library, class_name)
    return component_class


def _require_vocabulary(folder: Path, tokenizer_class: type) -> None:
    """Refuse a tokenizer without its files: transformers would make one that knows no words, or no length."""
    names = dict(getattr(tokenizer_class, "vocab_files_names", {}))
    whole = names.pop("tokenizer_file", None)
    choices = [[whole]] * bool(whole) + [list(names.values())] * bool(names)
    if choices and not any(all((folder / name).is_file() for name in choice) for choice in choices):
        raise _lacking(folder, " or ".join(" and ".join(choice) for choice in choices))
    if not (folder / "tokenizer_config.json").is_file():
        raise _lacking(folder, "tokenizer_config.json")


def _lacking(folder: Path, expected: str) -> FailureError:
    return FailureError(
        f"the component {folder.name} lacks a file",
        expected=expected,
        got=", ".join(sorted(file.name for file in folder.glob("*"))) or "no file",
        where=folder,
        remedy=COPY_AGAIN,
    )


def _load_model(folder: Path, model_class: Any, dtype: torch.dtype) -> nn.Module:
    if not (folder / "config.json").is_file():  # transformers would take the default sizes of the class
        raise _lacking(folder, "config.json")
    variant, files = weight_files(folder)
    if not files and (pickled := sorted(folder.glob("*.bin"))):
        raise _pickled(folder, pickled[0])
    _require(folder, model_class, missing=_lost_from_shards(folder, variant), reshaped=[])
    # the libraries' own account: it knows tied weights, renamed keys, and what each class ignores
    model, info = model_class.from_pretrained(
        str(folder),
        # every diffusers knows the longer name, only later ones the shorter; transformers gives the longer up
        **{"torch_dtype" if issubclass(model_class, ModelMixin) else "dtype": dtype},
        variant=variant,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # named with the missing ones, instead of an error about the first
    )
    reshaped = [f"{name} {list(stored)} instead of {list(needed)}" for name, stored, needed in info["mismatched_keys"]]
    _require(folder, model_class, missing=info["missing_keys"], reshaped=reshaped)
    if info["unexpected_keys"]:
        warnings.warn(
            f"the weights of {folder.name} hold tensors that a {model_class.__name__} does not use: "
            f"{_first_names(info['unexpected_keys'])}; in {folder}",
            IEAdaptWarning,
            stacklevel=4,
        )
    return model


def _pickled(folder: Path, file: Path) -> UsageError:
    whole = folder.parent
    convert = (
        f"from diffusers import DiffusionPipeline as P; P.from_pretrained({str(whole)!r}, use_safetensors=False)"
        f".save_pretrained({f'{whole}-safetensors'!r})"
    )
    return UsageError(
        f"the weights of {folder.name} are pickled, and loading them could run any code",
        expected="a .safetensors file",
        got=file.name,
        where=folder,
        remedy=f'if you trust the folder, convert it once: python -c "{convert}"',
    )


def _require(folder: Path, model_class: type, *, missing: Collection[str], reshaped: Collection[str]) -> None:
    if missing or reshaped:
        problems = [f"{len(missing)} missing: {_first_names(missing)}"] * bool(missing)
        problems += [f"{len(reshaped)} of another shape: {_first_names(reshaped)}"] * bool(reshaped)
        raise FailureError(
            f"the weights of {folder.name} do not fit its model",
            expected=f"every tensor of a {model_class.__name__} with the sizes of its config.json",
            got="; ".join(problems),
            where=folder,
            remedy=COPY_AGAIN,
        )


def _lost_from_shards(folder: Path, variant: str | None) -> list[str]:
    """Tensors that the index of a model in several files names, and that their files do not hold.

    diffusers takes the index for what the files hold.
    """
    lost: list[str] = []
    for index in folder.glob(f"*.safetensors.index{f'.{variant}' if variant else ''}.json"):
        file_of: dict[str, str] = json.loads(index.read_text())["weight_map"]
        for file in dict.fromkeys(file_of.values()):
            with safe_open(folder / file, framework="pt") as weights:
                stored = set(weights.keys())
            lost += [name for name, where in file_of.items() if where == file and name not in stored]
    return lost


def _first_names(names: Collection[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more
