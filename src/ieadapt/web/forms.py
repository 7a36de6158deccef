"""Forms: one field per flag of a run's config, common ones in sight, the rest in an accordion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from ieadapt.errors import UsageError
from ieadapt.runs.flags import assemble, flags
from ieadapt.web.fields import Field, flag_field
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


_UNSET = object()


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
        self._defaults = {flag.name: flag.default for flag in flags(config)}
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

    def component(self, name: str) -> Any:
        """What is seen of a field."""
        return next(field.component for field in self.fields if field.name == name)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the fields, by each name that an error may give a field: of its flag, and in the config."""
        labels = {field.name: str(field.component.label) for field in self.fields}
        inside = {path[-1]: labels[name] for name, path in self._paths.items() if name in labels}
        return {"prompt": labels["prompts"], **inside, **labels}

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
        # A form sends every field; what stands at its default gives way to a preset.
        given = {name: value for name, value in values.items() if value != self._defaults.get(name, _UNSET)}
        return assemble(self.config, given | fixed)

    def filled(self, config: Mapping[str, Any]) -> list[Any]:
        """What the fields show for the config of a run's record; a field that it does not say shows what is fresh."""
        return [self._shown(field, config) for field in self.fields]

    def _shown(self, field: Field, config: Mapping[str, Any]) -> Any:
        value: Any = config
        for name in self._paths.get(field.name, (field.name,)):
            if not isinstance(value, Mapping) or name not in value:
                return field.fresh()
            value = value[name]
        return field.show(value)
