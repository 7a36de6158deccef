"""Forms: one field per flag of a run's config, common ones in sight, the rest in an accordion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from ieadapt.errors import UsageError
from ieadapt.runs.flags import Flag, assemble, flags
from ieadapt.web.wording import label_of

MOST: Mapping[str, int] = {
    "steps": 1000,
    "frames": 1000,
    "height": 4096,
    "width": 4096,
    "batch": 64,
    "seeds": 100,
    "iterations": 100,
}
"""The most that a form takes of a number; the command line takes more."""
MOST_PROMPTS, LONGEST_PROMPT = 100, 2000
NONE = "none"
"""Stands for None in a list of choices."""
_OWN = "the model's own"


@dataclass(frozen=True)
class Field:
    """One field of a form.

    Attributes:
        name: the flag that it sets, or `model` or `prompts`.
        component: what is seen.
        read: from what the browser sends to the flag's value.
        show: from a flag's value to what the browser shows.
    """

    name: str
    component: Any
    read: Callable[[Any], Any]
    show: Callable[[Any], Any]


class Form:
    """The fields of one config, in order.

    Args:
        config: a config class of `ieadapt.runs`.
        fields: model, prompts, and what else a page makes itself.
        shown: names of the flags that stand in sight.
        left_out: names of the flags that the page does not offer, such as paths.
        changed: defaults of the form that are not those of the config.
    """

    def __init__(
        self,
        config: type,
        fields: Sequence[Field],
        shown: Sequence[str],
        left_out: Sequence[str],
        changed: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        made = {field.name for field in fields} | set(left_out)
        self._paths = {flag.name: flag.path for flag in flags(config)}
        offered = {flag.name: flag for flag in flags(config) if flag.name not in made}
        defaults = changed or {}
        with gr.Row():
            common = [flag_field(offered.pop(name), defaults) for name in shown]
        rest: list[Field] = []
        with gr.Accordion("More settings", open=False, visible=bool(offered)):
            listed = list(offered.values())
            for pair in (listed[start : start + 2] for start in range(0, len(listed), 2)):
                with gr.Row():
                    rest += [flag_field(flag, defaults) for flag in pair]
        self.fields = [*fields, *common, *rest]

    @property
    def components(self) -> list[Any]:
        """What is seen, in the order in which `asked` takes values."""
        return [field.component for field in self.fields]

    def asked(self, raw: Sequence[Any], **fixed: Any) -> Any:
        """The config that a filled form says.

        Raises:
            UsageError: a value that cannot be, or more than a form takes.
        """
        values = {field.name: field.read(value) for field, value in zip(self.fields, raw, strict=True)}
        for name, most in MOST.items():
            if isinstance(values.get(name), int | float) and values[name] > most:
                raise UsageError(
                    f"{label_of(name)} is more than this page takes",
                    expected=f"at most {most}",
                    got=values[name],
                    remedy="use the command line for larger runs",
                )
        return assemble(self.config, values | fixed)

    def filled(self, config: Mapping[str, Any]) -> list[Any]:
        """What the fields show for the config of a run's record; a field that it does not say stays as it is."""
        return [self._shown(field, config) for field in self.fields]

    def _shown(self, field: Field, config: Mapping[str, Any]) -> Any:
        value: Any = config
        for name in self._paths.get(field.name, (field.name,)):
            if not isinstance(value, Mapping) or name not in value:
                return gr.skip()
            value = value[name]
        return field.show(value)


def prompts_field(label: str, info: str, value: str = "", name: str = "prompts") -> Field:
    """Prompts, one per line."""
    component = gr.Textbox(value, label=label, info=info, lines=2, max_lines=8, elem_classes="prompts")
    return Field(name, component, read_prompts, lambda prompts: "\n".join(prompts))


def model_field(models: Sequence[str]) -> Field:
    """The model, one of those that the app was started with."""

    def read(raw: Any) -> str:
        if raw not in models:
            raise UsageError("the app was not started with this model", expected=", ".join(models), got=repr(raw))
        return str(raw)

    return Field("model", _dropdown(models, models[0], "Model", ""), read, lambda name: name)


def read_prompts(raw: Any) -> tuple[str, ...]:
    r"""The lines of a text that are not blank.

    Raises:
        UsageError: too many, or one too long.

    Example:
        >>> read_prompts("a red ball\n\n a blue ball ")
        ('a red ball', 'a blue ball')
    """
    lines = tuple(line.strip() for line in str(raw or "").splitlines() if line.strip())
    if len(lines) > MOST_PROMPTS:
        raise UsageError("too many prompts for one run", expected=f"at most {MOST_PROMPTS}", got=len(lines))
    if any(len(line) > LONGEST_PROMPT for line in lines):
        raise UsageError("a prompt is too long", expected=f"at most {LONGEST_PROMPT} characters")
    return lines


def flag_field(flag: Flag, changed: Mapping[str, Any]) -> Field:
    """The field of a flag: a list of its choices, a box to tick, a number or a text."""
    value = changed.get(flag.name, flag.default)
    label, kinds = label_of(flag.name), set(get_args(flag.type)) or {flag.type}
    about = flag.help[:1].upper() + flag.help[1:]
    if flag.choices:
        choices = [*([NONE] if flag.default is None else []), *flag.choices]
        component = _dropdown(choices, NONE if value is None else value, label, about)
        return Field(
            flag.name, component, lambda raw: _choice(flag, raw), lambda shown: NONE if shown is None else shown
        )
    if bool in kinds:
        return Field(flag.name, gr.Checkbox(value, label=label, info=about), bool, bool)
    if kinds & {int, float}:
        whole = int in kinds
        number = gr.Number(
            value,
            label=label,
            info=about,
            precision=0 if whole else None,
            step=1 if whole else 0.1,
            placeholder=_OWN,
            min_width=120,
        )
        return Field(flag.name, number, lambda raw: _number(flag, raw, int if whole else float), lambda shown: shown)
    text = gr.Textbox(value or "", label=label, info=about, placeholder=_OWN if flag.default is None else "")
    empty = None if flag.default is None else ""
    return Field(flag.name, text, lambda raw: str(raw).strip() or empty if raw else empty, lambda shown: shown or "")


def _dropdown(choices: Sequence[str], value: str, label: str, info: str) -> gr.Dropdown:
    return gr.Dropdown(list(choices), value=value, label=label, info=info or None, min_width=120)


def _choice(flag: Flag, raw: Any) -> Any:
    if raw in (None, NONE) and flag.default is None:
        return None
    if raw not in flag.choices:
        raise UsageError(f"unknown {label_of(flag.name)}", expected=", ".join(flag.choices), got=repr(raw))
    return raw


def _number(flag: Flag, raw: Any, kind: type) -> Any:
    if raw is None or raw == "":
        return flag.default
    try:
        return kind(raw)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError("this is no number", got=repr(raw), where=label_of(flag.name)) from error
