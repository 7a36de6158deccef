"""`ieadapt compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from ieadapt.cli.console import shown_stages
from ieadapt.cli.evaluate import PromptsFile, show
from ieadapt.cli.options import Json, Out, Overwrite, takes
from ieadapt.runs.folder import default_folder
from ieadapt.tasks.evaluate.run import EvaluateConfig, run_evaluation

First = Annotated[str, typer.Argument(metavar="A", help="videos to compare with: a folder, or a run (RUN:PART)")]
Second = Annotated[str, typer.Argument(metavar="B", help="the videos that are compared with those, of the same names")]


@takes(EvaluateConfig, has_prompts=False)
def command(
    asked: EvaluateConfig,
    *,
    first: First,
    second: Second,
    prompts: PromptsFile = None,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Videos are paired by name. Per metric: both means, and the mean difference B - A with its 95 % interval.

    Example: `ieadapt compare runs/enhanced:plain runs/enhanced:enhanced --out runs/comparison`
    """
    folder = out or default_folder("compare")
    with shown_stages() as stages:
        found = run_evaluation(
            second, folder, reference=first, prompts=prompts, config=asked, overwrite=overwrite, stages=stages
        )
    show(found, folder, as_json=as_json)
