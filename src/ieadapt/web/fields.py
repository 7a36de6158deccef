"""Fields of forms: each is one flag of a config, or something that a page makes of several runs or clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from ieadapt.errors import UsageError
from ieadapt.runs.flags import Flag
from ieadapt.web.wording import label_of

MOST_PROMPTS, LONGEST_PROMPT = 100, 2000
SUGGESTED: Mapping[str, Sequence[str]] = {
    "perturbation": ("identity", "uniform", "mix:0.5", "temperature:2", "blur:1", "skip"),
    "sites": ("auto", "temporal", "spatial", "joint", "cross", "temporal:top=0.5", "temporal:bottom=0.5", "random=3"),
    "inject": ("auto", "none", "all", "temporal", "coarse", "spatial:bottom=0.5", "temporal:top=0.5"),
    "mask": ("none", "difference", "cross:WORD"),
    "words": ("auto", "none", "replace"),
    "schedule": ("constant", "linear:1:0", "cosine"),
    "entropy": ("profile", "online", "online:4"),
    "device": ("auto", "cpu", "cuda"),
}
"""Values to choose from where others can be typed too."""
NONE = "none"
"""Stands for None in a list of choices."""
_OWN = "the model's own"
_WIDTH = 120


@dataclass(frozen=True)
class Field:
    """One field of a form.

    Attributes:
        name: the flag that it sets, or `model` or `prompts`.
        component: what is seen.
        read: from what the browser sends to the flag's value.
        show: from a flag's value to what the browser shows.
        fresh: what the browser shows when a page is opened without a run; as it was made unless told otherwise.
    """

    name: str
    component: Any
    read: Callable[[Any], Any]
    show: Callable[[Any], Any]
    fresh: Callable[[], Any] = gr.skip


def flag_field(flag: Flag, changed: Mapping[str, Any]) -> Field:
    """The field of a flag: a list of its choices, a box to tick, a number or a text.

    Args:
        flag: what it sets.
        changed: defaults of the form that are not those of the config, by flag.
    """
    value = changed.get(flag.name, flag.default)
    kinds = set(get_args(flag.type)) or {flag.type}
    if flag.choices:
        return _choice_field(flag, value)
    if bool in kinds:
        return Field(flag.name, gr.Checkbox(value, label=label_of(flag.name), info=_about(flag)), bool, bool)
    if kinds & {int, float}:
        return _number_field(flag, value, int if int in kinds else float)
    return _text_field(flag, value)


def prompts_field(label: str, info: str, value: str) -> Field:
    """Prompts, one per line."""
    component = gr.Textbox(value, label=label, info=info, lines=2, max_lines=8, elem_classes="prompts")
    return Field("prompts", component, read_prompts, "\n".join)


def model_field(models: Sequence[str]) -> Field:
    """The model, one of those that the app was started with."""

    def read(raw: Any) -> str:
        if raw not in models:
            raise UsageError("the app was not started with this model", expected=", ".join(models), got=repr(raw))
        return str(raw)

    component = gr.Dropdown(list(models), value=models[0], label="Model", min_width=_WIDTH)
    return Field("model", component, read, lambda name: name if name in models else gr.skip())


def run_field(
    name: str,
    label: str,
    info: str,
    listed: Callable[[], Sequence[tuple[str, str]]],
    folder: Callable[[str], Path],
) -> Field:
    """An earlier run, as the path of its folder.

    Args:
        name: of the flag.
        label: what is seen.
        info: a few words on it.
        listed: label and name of every run that can be chosen.
        folder: of a name.
    """

    def choices(value: str) -> Any:
        return gr.update(choices=[(NONE, ""), *listed()], value=value)

    def read(raw: Any) -> Path | None:
        if not raw:
            return None
        if str(raw) not in {known for _, known in listed()}:
            raise UsageError("there is no such run", got=repr(raw), remedy="choose one of the list")
        return folder(str(raw))

    def show(value: Any) -> Any:
        chosen = Path(str(value or "")).name
        return choices(chosen if chosen in {known for _, known in listed()} else "")

    component = gr.Dropdown([(NONE, "")], value="", label=label, info=info, min_width=_WIDTH)
    return Field(name, component, read, show, lambda: choices(""))


def read_prompts(raw: Any) -> tuple[str, ...]:
    r"""The lines of a text that are not blank.

    Raises:
        UsageError: none, too many, or one too long.

    Example:
        >>> read_prompts("a red ball\n\n a blue ball ")
        ('a red ball', 'a blue ball')
    """
    lines = tuple(line.strip() for line in str(raw or "").splitlines() if line.strip())
    if not lines:
        raise UsageError("there is no prompt", remedy="write what the video shows")
    if len(lines) > MOST_PROMPTS:
        raise UsageError("too many prompts for one run", expected=f"at most {MOST_PROMPTS}", got=len(lines))
    if any(len(line) > LONGEST_PROMPT for line in lines):
        raise UsageError("a prompt is too long", expected=f"at most {LONGEST_PROMPT} characters")
    return lines


def _about(flag: Flag) -> str:
    return flag.help[:1].upper() + flag.help[1:]


def _choice_field(flag: Flag, value: Any) -> Field:
    optional = flag.default is None
    choices = [*([NONE] if optional else []), *flag.choices]

    def read(raw: Any) -> Any:
        if optional and raw in (None, NONE):
            return None
        if raw not in flag.choices:
            raise UsageError(f"unknown {label_of(flag.name)}", expected=", ".join(flag.choices), got=repr(raw))
        return raw

    shown = NONE if value is None else value
    component = gr.Dropdown(choices, value=shown, label=label_of(flag.name), info=_about(flag), min_width=_WIDTH)
    return Field(flag.name, component, read, lambda value: NONE if value is None else value)


def _number_field(flag: Flag, value: Any, kind: type) -> Field:
    """A number; one that may be empty is typed as a text, since gradio's number shows 0 for nothing."""
    label, info = label_of(flag.name), _about(flag)

    def read(raw: Any) -> Any:
        if raw is None or not str(raw).strip():
            return flag.default
        try:
            return kind(raw)
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError("this is no number", got=repr(raw), where=label) from error

    if flag.default is None:
        hint = "" if "by default" in flag.help else _OWN
        typed = gr.Textbox("", label=label, info=info, placeholder=hint, min_width=_WIDTH)
        return Field(flag.name, typed, read, lambda shown: "" if shown is None else str(shown))
    whole = kind is int
    precision, step = (0, 1) if whole else (None, 0.1)
    number = gr.Number(value, label=label, info=info, precision=precision, step=step, min_width=_WIDTH)
    return Field(flag.name, number, read, lambda shown: shown)


def _text_field(flag: Flag, value: Any) -> Field:
    """A text, with values to choose from where some are usual."""
    label, info, empty = label_of(flag.name), _about(flag), None if flag.default is None else ""

    def read(raw: Any) -> str | None:
        return str(raw).strip() or empty if raw else empty

    if flag.name in SUGGESTED and flag.default is not None:
        known = [choice for choice in SUGGESTED[flag.name] if choice != "auto" or flag.default == "auto"]
        chosen = gr.Dropdown(known, value=value, label=label, info=info, allow_custom_value=True, min_width=_WIDTH)
        return Field(flag.name, chosen, read, lambda shown: shown or "")
    text = gr.Textbox(value or "", label=label, info=info, min_width=_WIDTH)
    return Field(flag.name, text, read, lambda shown: shown or "")
