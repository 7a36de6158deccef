"""Forms: one field per flag of a run's config, common ones in sight, the rest in an accordion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from ieadapt.errors import UsageError, raised_as
from ieadapt.runs.flags import Flag, assemble, flags
from ieadapt.web.rendering import capitalise, label_of
from ieadapt.web.workspace import Workspace

MOST_PROMPTS, LONGEST_PROMPT = 100, 2000
MOST: Mapping[str, int] = {
    **{"steps": 1000, "frames": 1000, "height": 4096, "width": 4096},
    **{"batch": 64, "seeds": 100, "iterations": 100},
}
"""The most that a form takes of a number; the command line takes more."""
SUGGESTED: Mapping[str, Sequence[str]] = {
    "perturbation": ("identity", "uniform", "mix:0.5", "temperature:2", "blur:1", "shuffle", "skip"),
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
_WIDTH = 120
_UNSET = object()


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


def flag_field(flag: Flag, value: Any) -> Field:
    """The field of a flag: a list of its choices, a box to tick, a number or a text.

    Args:
        flag: what it sets.
        value: what it shows at first.
    """
    kinds = set(get_args(flag.type)) or {flag.type}
    seen: dict[str, Any] = {"label": label_of(flag.name), "info": capitalise(flag.help), "min_width": _WIDTH}
    if flag.choices:
        problem = f"unknown {label_of(flag.name)}"
        return _choice_field(flag.name, flag.choices, value, problem, **seen)
    if bool in kinds:
        return Field(flag.name, gr.Checkbox(value, **seen), bool, bool)
    if kinds & {int, float}:
        return _number_field(flag, value, int if int in kinds else float, seen)
    return _text_field(flag, value, seen)


def prompts_field(label: str, info: str, value: str) -> Field:
    """Prompts, one per line."""
    component = gr.Textbox(value, label=label, info=info, lines=2, max_lines=8, elem_classes="prompts")
    return Field("prompts", component, read_prompts, "\n".join)


def model_field(models: Sequence[str]) -> Field:
    """The model, one of those that the app was started with."""
    problem = "the app was not started with this model"
    return _choice_field("model", models, models[0], problem, label="Model", min_width=_WIDTH)


def profile_field(workspace: Workspace) -> Field:
    """A measured run, as the path of its folder; none of them is chosen at first."""

    def choices() -> list[tuple[str, str]]:
        return [(NONE, ""), *workspace.profiles()]

    def read(raw: Any) -> Path | None:
        if not raw:
            return None
        if str(raw) not in [name for _, name in choices()]:
            raise UsageError("there is no such run", got=repr(raw), remedy="choose one of the list")
        return workspace.folder(str(raw))

    def show(value: Any) -> Any:
        chosen, listed = Path(str(value or "")).name, choices()
        return gr.update(choices=listed, value=chosen if chosen in [name for _, name in listed] else "")

    info = "A measured run, where layers are chosen by EP; without one it is measured first"
    component = gr.Dropdown([(NONE, "")], value="", label="Measured run", info=info, min_width=_WIDTH)
    return Field("profile", component, read, show, lambda: show(""))


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


def _choice_field(name: str, choices: Sequence[str], value: Any, problem: str, **seen: Any) -> Field:
    """One of some choices; none of them too, where that is the default."""
    listed = [*([NONE] if value is None else []), *choices]

    def read(raw: Any) -> Any:
        if value is None and raw in (None, NONE):
            return None
        if raw not in choices:
            raise UsageError(problem, expected=", ".join(choices), got=repr(raw))
        return raw

    def show(chosen: Any) -> Any:
        shown = NONE if chosen is None else chosen
        return shown if shown in listed else gr.skip()

    return Field(name, gr.Dropdown(listed, value=NONE if value is None else value, **seen), read, show)


def _number_field(flag: Flag, value: Any, kind: type, seen: Mapping[str, Any]) -> Field:
    """A number; one that may be empty is typed as a text, since gradio's number shows 0 for nothing."""

    def read(raw: Any) -> Any:
        if raw is None or not str(raw).strip():
            return flag.default
        causes = (TypeError, ValueError, OverflowError)
        with raised_as(UsageError, "this is no number", causes, got=repr(raw), where=seen["label"]):
            return kind(raw)

    if flag.default is None:
        hint = "" if "by default" in flag.help else "the model's own"
        typed = gr.Textbox("", placeholder=hint, **seen)
        return Field(flag.name, typed, read, lambda shown: "" if shown is None else str(shown))
    precision, step = (0, 1) if kind is int else (None, 0.1)
    return Field(flag.name, gr.Number(value, precision=precision, step=step, **seen), read, lambda shown: shown)


def _text_field(flag: Flag, value: Any, seen: Mapping[str, Any]) -> Field:
    """A text, with values to choose from where some are usual."""
    empty = None if flag.default is None else ""
    if flag.name in SUGGESTED and flag.default is not None:
        known = [choice for choice in SUGGESTED[flag.name] if choice != "auto" or flag.default == "auto"]
        component: Any = gr.Dropdown(known, value=value, allow_custom_value=True, **seen)
    else:
        component = gr.Textbox(value or "", **seen)
    return Field(flag.name, component, lambda raw: str(raw or "").strip() or empty, lambda shown: shown or "")


class Form:
    """The fields of one config, in order.

    Args:
        config: a config class of a task.
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
        left_out: Sequence[str] = (),
        changed: Mapping[str, Any] | None = None,
    ) -> None:
        self._config = config
        self._flags = {flag.name: flag for flag in flags(config)}
        defaults = {name: flag.default for name, flag in self._flags.items()} | dict(changed or {})
        files = [name for name, flag in self._flags.items() if flag.entries]  # a browser names no files of the machine
        made = {*(field.name for field in fields), *left_out, *shown, *files}
        rest = [name for name in self._flags if name not in made]
        self.fields = list(fields)
        with gr.Row():
            self.fields += [flag_field(self._flags[name], defaults[name]) for name in shown]
        with gr.Accordion("More settings", open=False, visible=bool(rest)):
            for pair in (rest[start : start + 2] for start in range(0, len(rest), 2)):
                with gr.Row():
                    self.fields += [flag_field(self._flags[name], defaults[name]) for name in pair]

    @property
    def components(self) -> list[Any]:
        """What is seen, in the order in which `config_of` takes values."""
        return [field.component for field in self.fields]

    def component(self, name: str) -> Any:
        """What is seen of a field."""
        return next(field.component for field in self.fields if field.name == name)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the fields, by each name that an error may give a field: of its flag, and in the config."""
        labels = {field.name: str(field.component.label) for field in self.fields}
        inside = {flag.path[-1]: labels[name] for name, flag in self._flags.items() if name in labels}
        return {"prompt": labels["prompts"], **inside, **labels}

    def config_of(self, raw: Sequence[Any], **fixed: Any) -> Any:
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
        # A form sends every field; what stands at its default gives way to a preset.
        defaults = {name: flag.default for name, flag in self._flags.items()}
        chosen = {name: value for name, value in values.items() if value != defaults.get(name, _UNSET)}
        return assemble(self._config, chosen | fixed)

    def filled(self, config: Mapping[str, Any]) -> list[Any]:
        """What the fields show for the config of a run's record; a field that is not in it shows what is fresh."""
        return [self._filled(field, config) for field in self.fields]

    def _filled(self, field: Field, config: Mapping[str, Any]) -> Any:
        value: Any = config
        flag = self._flags.get(field.name)
        for name in flag.path if flag else (field.name,):
            if value is None and flag:  # a nested config that was left at its defaults
                return field.show(flag.default)
            if not isinstance(value, Mapping) or name not in value:
                return field.fresh()
            value = value[name]
        return field.show(value)
