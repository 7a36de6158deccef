"""Configs as flags: every field of a run's config, nested ones too, is one flag and one field of a form.

A field carries its help in `metadata["help"]`. A nested field whose name the outer config uses too is prefixed with the
name of its config: `enhancement.seed` beside `seed` becomes `--enhancement-seed`. A short word for a field of diffusers
gives way to a field of the outer config that has that name.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

# Shorter words for the fields that diffusers names at length.
_SHORT = {"num_inference_steps": "steps", "num_frames": "frames", "batch_size": "batch"}
# Given as arguments or by several options; the command line handles them itself.
SPECIAL = ("model", "prompts")


@dataclass(frozen=True)
class Flag:
    """One field of a config, as a flag.

    Attributes:
        name: the flag without dashes in front, words joined by underscores.
        path: field names from the outermost config to the field.
        type: the field's type.
        default: its default.
        help: what it sets, in a few words.
        choices: the only values it takes; empty where there are too many to list.
    """

    name: str
    path: tuple[str, ...]
    type: Any
    default: Any
    help: str
    choices: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """As it is typed: `--guidance-scale`."""
        return "--" + self.name.replace("_", "-")


def flags(config: type) -> Iterator[Flag]:
    """Every flag of a config class, in the order of its fields; nested configs are opened.

    Example:
        >>> from ieadapt.tasks import GenerationConfig
        >>> [flag.option for flag in flags(GenerationConfig)][:3]
        ['--steps', '--guidance-scale', '--frames']
    """
    outer = frozenset(field.name for field in dataclasses.fields(config))
    return _flags(config, (), outer, {field.name: _default(field) for field in dataclasses.fields(config)})


def _flags(config: type, path: tuple[str, ...], outer: frozenset[str], defaults: Mapping[str, Any]) -> Iterator[Flag]:
    types = get_type_hints(config)
    for field in dataclasses.fields(config):
        default, here, kind = defaults[field.name], (*path, field.name), _config_of(types[field.name])
        if kind is not None:
            yield from _flags(kind, here, outer, vars(kind() if default is None else default))
        elif field.name not in SPECIAL:
            clashes = bool(path) and field.name in outer
            short = _SHORT.get(field.name, field.name)
            short = field.name if path and short in outer else short
            name = f"{path[-1]}_{field.name}" if clashes else short
            told, choices = field.metadata.get("help", ""), tuple(field.metadata.get("choices", ()))
            yield Flag(name, here, _as_typed(types[field.name]), default, told, choices)


def assemble(config: type, values: Mapping[str, Any]) -> Any:
    """A config from the flags that were given and their values; `model` and `prompts` are fields of the outermost one.

    A nested config whose field names a `base` starts from what that gives for the preset, so that a flag that is given
    wins over the preset, also where it says the default.

    Example:
        >>> from ieadapt.tasks import GenerationConfig
        >>> assemble(GenerationConfig, {"steps": 8}).num_inference_steps
        8
    """
    nested: dict[str, Any] = {}
    for flag in flags(config):
        if flag.name in values:
            level = nested
            for name in flag.path[:-1]:
                level = level.setdefault(name, {})
            level[flag.path[-1]] = values[flag.name]
    return _build(config, nested | {name: values[name] for name in SPECIAL if name in values})


def command_line(workflow: str, asked: Any, out: str | Path) -> str:
    """The command that repeats a run: only what differs from the defaults is spelled out.

    Example:
        >>> from ieadapt.tasks.measure.run import MeasureRun
        >>> command_line("measure", MeasureRun("shapes", ("a red ball",), seed=3), "runs/a")
        "ieadapt measure shapes --prompt 'a red ball' --seed 3 --out runs/a"
    """
    words = ["ieadapt", workflow, *([str(asked.model)] if hasattr(asked, "model") else [])]
    for prompt in getattr(asked, "prompts", ()):
        words += ["--prompt", prompt]
    return shlex.join([*words, *flag_words(asked), "--out", str(out)])


def flag_words(asked: Any) -> list[str]:
    """The flags of a config that differ from the defaults, as they are typed.

    Example:
        >>> from ieadapt.tasks import GenerationConfig
        >>> flag_words(GenerationConfig(num_inference_steps=8))
        ['--steps', '8']
    """
    words: list[str] = []
    for flag in flags(type(asked)):
        base = _base(type(asked), flag.path[0], vars(asked))
        default = flag.default if base is None else getattr(base, flag.path[-1])
        value = asked
        for name in flag.path:
            value = default if value is None else getattr(value, name)
        if value != default:
            words += [flag.option] if value is True else [flag.option, str(value)]
    return words


def _config_of(kind: Any) -> Any:
    """The config class that a field holds, also where it may be None; None for a field that holds none."""
    return next((member for member in (kind, *get_args(kind)) if dataclasses.is_dataclass(member)), None)


def _base(config: type, name: str, values: Mapping[str, Any]) -> Any:
    """What a nested config starts from: the preset among the outer values, or its default; None for a plain field."""
    field = next(each for each in dataclasses.fields(config) if each.name == name)
    kind = _config_of(get_type_hints(config)[name])
    if kind is not None and "base" in field.metadata and values.get("preset") is not None:
        return field.metadata["base"](values["preset"])
    return None if kind is None else _default(field) or kind()


def _as_typed(kind: Any) -> Any:
    """The type of a flag's value: a number that may be whole or not is typed as a float."""
    members = set(get_args(kind))
    return functools.reduce(operator.or_, members - {int}) if {int, float} <= members else kind


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _build(config: type, nested: Mapping[str, Any]) -> Any:
    built = {
        name: value if (base := _base(config, name, nested)) is None else dataclasses.replace(base, **value)
        for name, value in nested.items()
    }
    return config(**built)
