"""Flags from configs: a command says which config it takes, and gets one flag per field of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ieadapt.errors import UsageError
from ieadapt.runs.flags import assemble, flags

Model = Annotated[str, typer.Argument(metavar="MODEL", help="a bundled name (`ieadapt models`), a folder, or a hub id")]
Prompt = Annotated[list[str] | None, typer.Option("--prompt", help="what the video shows; may be given several times")]
Prompts = Annotated[Path | None, typer.Option("--prompts", help="text file with one prompt per line", metavar="FILE")]
Out = Annotated[Path | None, typer.Option("--out", help="run folder; by default a new one under runs/", metavar="DIR")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an earlier run in that folder")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def takes(
    config: type, *, has_prompts: bool = True, instead: Sequence[str] = (), prompts_from: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `function(asked, **others)` the flags of a config, gathered into `asked`.

    Args:
        config: a config class of `ieadapt.runs`; its flags come after the model and the prompts.
        has_prompts: whether the config has `model` and `prompts`.
        instead: options of the command that stand alone, without a model: given one, `asked` is None.
        prompts_from: a flag of the config whose file brings prompts, so that none need be given beside it.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        lead = [
            _parameter("model", Model, None if instead else ...),
            _parameter("prompt", Prompt, None),
            _parameter("prompts", Prompts, None),
        ]
        made = [_option(flag.name, flag.option, flag.type, flag.default, flag.help) for flag in flags(config)]

        def command(**values: Any) -> None:
            others = {parameter.name: values.pop(parameter.name) for parameter in own}
            if any(others[name] for name in instead):
                function(None, **others)
                return
            if has_prompts:
                _require_model(values["model"])
                given, file = values.pop("prompt"), values["prompts"]
                brought = prompts_from is not None and values[prompts_from] is not None
                values["prompts"] = () if brought and not (given or file) else read_prompts(given, file)
            given = {name: value for name, value in values.items() if value is not None}
            function(assemble(config, given), **others)

        parameters = [*(lead if has_prompts else []), *made, *own]
        command.__doc__, command.__name__ = function.__doc__, function.__name__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def read_prompts(given: list[str] | None, file: Path | None) -> tuple[str, ...]:
    """The prompts of `--prompt` and of the file of `--prompts`, in this order.

    Blank lines at the end of the file are ignored; a blank line between prompts is an error, since the seeds of the
    prompts after it would depend on how it is counted.

    Raises:
        UsageError: neither is given, the file cannot be read or holds no prompt, or a prompt is blank.
    """
    prompts = tuple(given or ())
    if file is None:
        if not prompts:
            raise UsageError("there is no prompt", remedy='pass --prompt "a red ball" or --prompts FILE')
        return prompts
    try:
        lines = file.expanduser().read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError("the prompts file cannot be read", got=reason, where=file) from error
    if not lines:
        raise UsageError("the prompts file is empty", expected="one prompt per line", where=file)
    blank = next((number for number, line in enumerate(lines, start=1) if not line.strip()), None)
    if blank is not None:
        raise UsageError("the prompts file has a blank line", expected="one prompt per line", where=f"{file}:{blank}")
    return (*prompts, *(line.strip() for line in lines))


def _require_model(model: str | None) -> None:
    if not model:
        raise UsageError("there is no model", remedy="name one first, such as shapes; `ieadapt models` lists them")


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    given = inspect.Parameter.empty if default is ... else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=given)


def _option(name: str, option: str, kind: Any, default: Any, help_text: str) -> inspect.Parameter:
    """An option without a default of its own, so that one that is given can be told from one that is not."""
    if default is None and "by default" not in help_text:
        help_text = f"{help_text} (default: the model's own)" if _is_models_own(name) else help_text
    shown: bool | str = False if default is None or default is False else str(default)
    typed = typer.Option(option, help=help_text, show_default=shown)
    return _parameter(name, Annotated[kind | None, typed], None)


def _is_models_own(name: str) -> bool:
    return name in {"guidance_scale", "frames", "height", "width", "negative_prompt"}


__all__ = ["Json", "Model", "Out", "Overwrite", "Prompt", "Prompts", "read_prompts", "takes"]
