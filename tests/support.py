"""Which pipelines can be measured, perturbed, enhanced and edited: tried on tiny random ones, as a table of the docs.

`python -m tests.support` writes the table into docs/own-model.md; `tests/tasks/test_support.py` compares.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ieadapt.attention import find_sites, intercept
from ieadapt.errors import IEAdaptError
from ieadapt.interventions import Uniform
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.method import edit
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from ieadapt.tasks.generate import generate
from ieadapt.tasks.measure.method import measure
from tests.families import tiny_pipeline
from tests.tiny import FAMILIES, call_arguments, from_inputs

PAGE = Path(__file__).parents[1] / "docs" / "own-model.md"
BEGIN, END = "<!-- support -->", "<!-- /support -->"
TASKS = ("measure", "perturb", "enhance", "edit")
PROMPT, OTHER = "a red ball", "a blue ball"


@dataclasses.dataclass(frozen=True)
class Row:
    """One pipeline of the table: its class, what it is given, and per task "yes" or why not."""

    pipeline: str
    given: str
    cells: tuple[str, ...]


def row_of(name: str) -> Row:
    """Try every task on the pipeline of that name, a family or a case of `tests.tiny.from_inputs`."""
    if name in FAMILIES:
        pipe, call = tiny_pipeline(name), {}
        size = {key: value for key, value in call_arguments(name).items() if key in ("height", "width", "num_frames")}
    else:
        pipe, call, size = from_inputs.pipeline(name), from_inputs.inputs(name), dict(from_inputs.CASES[name].size)
    config = GenerationConfig(num_inference_steps=4, **size, call=call)
    case = from_inputs.CASES.get(name)
    given, form = (", ".join(case.call), case.form) if case else ("", "")
    cells = tuple(_tried(lambda task=task: _TRIES[task](pipe, config)) for task in TASKS)
    return Row(type(pipe).__name__ + (f" ({form})" if form else ""), given or "–", cells)


def _tried(act: Callable[[], Any]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            act()
        except IEAdaptError as error:
            problem, *rest = str(error).split("; ")
            refused = problem.startswith("the pipeline refuses")  # its own words and a remedy come after that
            parts = [problem, *(part for part in rest if refused and not part.startswith("in "))]
            return "; ".join(parts).split(" and ")[0]
    return "yes"


def _measure(pipe: Any, config: GenerationConfig) -> None:
    measure(pipe, PROMPT, config)


def _perturb(pipe: Any, config: GenerationConfig) -> None:
    sites = [site for site in find_sites(pipe) if site.kind != "cross"]
    plain = generate(pipe, PROMPT, config)
    with intercept(pipe, Uniform(), sites):
        assert not torch.equal(plain, generate(pipe, PROMPT, config))


def _enhance(pipe: Any, config: GenerationConfig) -> None:
    sites = next(site.name for site in find_sites(pipe) if site.kind != "cross")
    plain = generate(pipe, PROMPT, config)
    with enhancement(pipe, EnhanceConfig(sites=sites, scale=2.0, start=0.0)):
        assert not torch.equal(plain, generate(pipe, PROMPT, config))


def _edit(pipe: Any, config: GenerationConfig) -> None:
    size = config.num_frames, config.height, config.width
    clip = torch.rand((size[0], 3, *size[1:]), generator=torch.Generator().manual_seed(0))
    result = edit(
        pipe, clip, OTHER, source_prompt=PROMPT, config=EditConfig(inject="all", words="none"), generation=config
    )
    assert torch.isfinite(result.edited).all()


_TRIES: dict[str, Callable[[Any, GenerationConfig], None]] = dict(
    zip(TASKS, (_measure, _perturb, _enhance, _edit), strict=True)
)


def names() -> list[str]:
    """All pipelines of the table."""
    return [*FAMILIES, *from_inputs.CASES]


def table(rows: list[Row]) -> str:
    """The rows as Markdown, each reason once below."""
    reasons = list(dict.fromkeys(cell for row in rows for cell in row.cells if cell != "yes"))
    lines = [f"| pipeline | given | {' | '.join(TASKS)} |", "| --- " * (2 + len(TASKS)) + "|"]
    for row in rows:
        cells = (cell if cell == "yes" else f"no ({reasons.index(cell) + 1})" for cell in row.cells)
        lines.append(f"| {row.pipeline} | {row.given} | {' | '.join(cells)} |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, start=1)]
    return "\n".join([*lines, "", *notes])


def written() -> str:
    """The table that the page holds."""
    text = PAGE.read_text()
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()


if __name__ == "__main__":
    text = PAGE.read_text()
    fresh = table([row_of(name) for name in names()])
    PAGE.write_text(f"{text[: text.index(BEGIN) + len(BEGIN)]}\n{fresh}\n{text[text.index(END) :]}")
