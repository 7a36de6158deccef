"""Options from configs: a command says which config it takes, and gets one option per field of it."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ieadapt.cli.console import Summary
from ieadapt.errors import UsageError
from ieadapt.models import known_models
from ieadapt.runs.clip_folders import prompts_text
from ieadapt.runs.flags import assemble, flags

Model = Annotated[str, typer.Argument(metavar="MODEL", help="a bundled name (`ieadapt models`), a folder, or a hub id")]
Prompt = Annotated[list[str] | None, typer.Option("--prompt", help="what the video shows; may be given several times")]
Prompts = Annotated[Path | None, typer.Option("--prompts", help="text file with one prompt per line", metavar="FILE")]
Out = Annotated[Path | None, typer.Option("--out", help="run folder; by default a new one under runs/", metavar="DIR")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an earlier run in that folder")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with an earlier run in that folder")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what it would do and how long that takes")]
_Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
_MODELS_OWN = {"guidance_scale", "frames", "height", "width", "negative_prompt"}


def takes(
    config: type | None = None, *, instead: Sequence[str] = ()
) -> Callable[[Callable[..., Summary]], Callable[..., None]]:
    """Make a command of `function(config, **others)`: the config is gathered from its options, the summary printed.

    Args:
        config: a config class of a task; its options come after the model and the prompts, if it has these. None for a
            command that has only options of its own.
        instead: options of the command that stand alone, without a model: given one, the config is None.
    """

    def decorate(function: Callable[..., Summary]) -> Callable[..., None]:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
        own = parameters if config is None else parameters[1:]
        made = [] if config is None else _options_of(config, None if instead else inspect.Parameter.empty)

        def command(*, context: Any, as_json: bool, **values: Any) -> None:
            others = {parameter.name: values.pop(parameter.name) for parameter in own}
            configs = [] if config is None else [None]
            if config is not None and not any(others[name] for name in instead):
                if "prompts" in values:
                    values |= _model_and_prompts(values)
                configs = [assemble(config, {name: value for name, value in values.items() if value is not None})]
            # as late as this, since it imports the libraries; a command that takes nothing loads no model
            with context.obj() if parameters else contextlib.nullcontext():
                summary = function(*configs, **others)
            summary.show(as_json=as_json)

        context = _parameter("context", typer.Context, inspect.Parameter.empty)
        shown = [*made, *own, _parameter("as_json", _Json, False), context]
        command.__doc__, command.__name__ = function.__doc__, function.__name__
        command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
        return command

    return decorate


def _options_of(config: type, model: Any) -> list[inspect.Parameter]:
    """One option per flag of a config; without defaults, which would look like values that were given."""
    options = []
    if "prompts" in {field.name for field in dataclasses.fields(config)}:
        named = {"model": (Model, model), "prompt": (Prompt, None), "prompts": (Prompts, None)}
        options = [_parameter(name, *each) for name, each in named.items()]
    for flag in flags(config):
        own = flag.default is None and "by default" not in flag.help and flag.name in _MODELS_OWN
        default = False if flag.default is None or flag.default is False else str(flag.default)
        text = f"{flag.help} (default: the model's own)" if own else flag.help
        option = typer.Option(flag.option, help=text, show_default=default)
        options.append(_parameter(flag.name, Annotated[flag.type | None, option], None))
    return options


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _model_and_prompts(values: dict[str, Any]) -> dict[str, Any]:
    """The model and the prompts of a command line, taken out of its values."""
    if not values["model"]:
        first = next(iter(known_models()))
        raise UsageError("there is no model", remedy=f"name one first, such as {first}; `ieadapt models` lists them")
    return {"prompts": read_prompts(values.pop("prompt"), values["prompts"])}


def read_prompts(typed: list[str] | None, file: Path | None) -> tuple[str, ...]:
    """The prompts of `--prompt` and of the file of `--prompts`, in this order.

    Blank lines at the end of the file are ignored; a blank line between prompts is an error, since the seeds of the
    prompts after it would depend on how it is counted.

    Raises:
        UsageError: the file cannot be read or holds no prompt, or a prompt in it is blank.
    """
    prompts = tuple(typed or ())
    if file is None:
        return prompts
    lines = prompts_text(file).rstrip().splitlines()
    if not lines:
        raise UsageError("the prompts file is empty", expected="one prompt per line", where=file)
    blank = next((number for number, line in enumerate(lines, start=1) if not line.strip()), None)
    if blank is not None:
        raise UsageError("the prompts file has a blank line", expected="one prompt per line", where=f"{file}:{blank}")
    return (*prompts, *(line.strip() for line in lines))
