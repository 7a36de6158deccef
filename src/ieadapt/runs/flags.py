"""Configs as flags: every field of a run's config, and of the configs in it, is one flag and one field of a form.

A field carries its help in `metadata["help"]`. A nested field whose name the outer config uses too is prefixed with the
name of its config: `enhancement.seed` beside `seed` becomes `--enhancement-seed`. A short word for a field of diffusers
gives way to a field of the outer config that has that name.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
        entries: where the field is a mapping, from what is typed to the entries that it sets.
        typed: where the field is a mapping, from its content to what is typed to set this flag's entries.
    """

    name: str
    path: tuple[str, ...]
    type: Any
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    entries: Callable[[Any], Mapping[str, Any]] | None = None
    typed: Callable[[Mapping[str, Any]], list[str]] | None = None

    @property
    def option(self) -> str:
        """As it is typed: `--guidance-scale`."""
        return "--" + self.name.replace("_", "-")


def setting(default: Any, help_text: str, **metadata: Any) -> Any:
    """A field of a config: its default, what its flag says, and what else is known of its values.

    Args:
        default: a value that is never changed in place.
        help_text: what it sets, in a few words.
        metadata: such as `choices`.

    Example:
        >>> Config = dataclasses.make_dataclass("Config", [("scale", float, setting(1.0, "how strongly"))])
        >>> [flag.help for flag in flags(Config)]
        ['how strongly']
    """
    return dataclasses.field(default=default, metadata={"help": help_text, **metadata})


def flags(config: type) -> Iterator[Flag]:
    """Every flag of a config class, in the order of its fields; nested configs are opened.

    Example:
        >>> from ieadapt.tasks.generate import GenerationConfig
        >>> [flag.option for flag in flags(GenerationConfig)][:3]
        ['--steps', '--guidance-scale', '--frames']
    """
    outer, types = {field.name: field for field in dataclasses.fields(config)}, get_type_hints(config)
    for name, field in outer.items():
        base = _base(config, name, {})
        if base is not None:
            inner_types = get_type_hints(type(base))
            for inner in dataclasses.fields(base):
                short = _SHORT.get(inner.name, inner.name)
                short = f"{name}_{inner.name}" if inner.name in outer else inner.name if short in outer else short
                made = _flag(inner, inner_types[inner.name], getattr(base, inner.name), (name, inner.name), short)
                yield from _parts(inner, made, outer) if "parts" in inner.metadata else (made,)
        elif name not in SPECIAL:
            made = _flag(field, types[name], _default(field), (name,), _SHORT.get(name, name))
            yield from _parts(field, made, {}) if "parts" in field.metadata else (made,)


def _parts(field: dataclasses.Field[Any], flag: Flag, outer: Mapping[str, Any]) -> Iterator[Flag]:
    """The flags of a mapping: one for some entries, unless the outer config has such a flag, and one for all others."""
    read, write, parts = (field.metadata[name] for name in ("read", "write", "parts"))
    own = [name for name in parts if name != "input" and name not in outer]
    changes: dict[str, Any] = {"default": None}
    for name in own:
        entries, typed = partial(_entry, name), partial(_typed_entry, name, write)
        yield dataclasses.replace(flag, name=name, type=str, help=parts[name], entries=entries, typed=typed, **changes)
    others = partial(_typed_others, own, write)
    changes |= {"type": list[str], "help": parts["input"], "entries": read, "typed": others}
    yield dataclasses.replace(flag, name="input", **changes)


def _entry(name: str, value: str) -> dict[str, str]:
    return {name: value}


def _typed_entry(name: str, write: Callable[[Any], str], content: Mapping[str, Any]) -> list[str]:
    return [write(content[name])] if name in content else []


def _typed_others(own: Sequence[str], write: Callable[[Any], str], content: Mapping[str, Any]) -> list[str]:
    return [f"{name}={write(value)}" for name, value in content.items() if name not in own]


def _flag(field: dataclasses.Field[Any], kind: Any, default: Any, path: tuple[str, ...], name: str) -> Flag:
    if {int, float} <= set(get_args(kind)):  # typed on a command line, a number that may be whole or not is a float
        kind = float | None if type(None) in get_args(kind) else float
    return Flag(name, path, kind, default, field.metadata.get("help", ""), tuple(field.metadata.get("choices", ())))


def assemble(config: type, values: Mapping[str, Any]) -> Any:
    """A config from the flags that were given and their values; `model` and `prompts` are fields of the outermost one.

    A nested config whose field names a `base` starts from what that gives for the preset, so that a flag that is given
    wins over the preset, also where it says the default.

    Example:
        >>> from ieadapt.tasks.generate import GenerationConfig
        >>> assemble(GenerationConfig, {"steps": 8}).num_inference_steps
        8
    """
    chosen, nested = {name: values[name] for name in SPECIAL if name in values}, dict[str, dict[str, Any]]()
    for flag in flags(config):
        if flag.name in values:
            level = chosen if len(flag.path) == 1 else nested.setdefault(flag.path[0], {})
            value = values[flag.name]
            level[flag.path[-1]] = {**level.get(flag.path[-1], {}), **flag.entries(value)} if flag.entries else value
    bases = {name: _base(config, name, chosen) for name in nested}
    return config(**chosen, **{name: dataclasses.replace(bases[name], **nested[name]) for name in nested})


def command_line(workflow: str, config: Any, out: str | Path, *arguments: object) -> str:
    """The command that repeats a run: only what differs from the defaults is spelled out.

    Args:
        workflow: the command, such as `measure` or `bench v2v`.
        config: the run's config; where it has a `model` and `prompts`, they are spelled out too.
        out: the run folder.
        arguments: what else follows the command.

    Example:
        >>> from ieadapt.tasks.measure.run import MeasureRun
        >>> command_line("measure", MeasureRun("scenes", ("a red ball",), seed=3), "runs/a")
        "ieadapt measure scenes --prompt 'a red ball' --seed 3 --out runs/a"
    """
    model = [str(config.model)] if hasattr(config, "model") else []
    command = ["ieadapt", *workflow.split(), *map(str, arguments), *model]
    command += [text for prompt in getattr(config, "prompts", ()) for text in ("--prompt", prompt)]
    return shlex.join([*command, *flag_arguments(config), "--out", str(out)])


def flag_arguments(config: Any) -> list[str]:
    """The flags of a config that differ from the defaults, as they are typed.

    Example:
        >>> from ieadapt.tasks.generate import GenerationConfig
        >>> flag_arguments(GenerationConfig(num_inference_steps=8))
        ['--steps', '8']
    """
    arguments: list[str] = []
    for flag in flags(type(config)):
        base = _base(type(config), flag.path[0], vars(config))
        default = flag.default if base is None else getattr(base, flag.path[-1])
        value = config
        for name in flag.path:
            value = default if value is None else getattr(value, name)
        if flag.typed is not None:
            arguments += [text for typed in flag.typed(value) for text in (flag.option, typed)]
        elif value != default:
            arguments += [flag.option] if value is True else [flag.option, str(value)]
    return arguments


def _base(config: type, name: str, chosen: Mapping[str, Any]) -> Any:
    """What a nested config starts from: the preset that is chosen, or its default; None for a field that holds none."""
    field, kind = next(each for each in dataclasses.fields(config) if each.name == name), get_type_hints(config)[name]
    nested: Any = next((each for each in (kind, *get_args(kind)) if dataclasses.is_dataclass(each)), None)
    if nested is not None and "base" in field.metadata and chosen.get("preset") is not None:
        return field.metadata["base"](chosen["preset"])
    return None if nested is None else _default(field) or nested()


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default
