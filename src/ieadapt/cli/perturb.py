"""`ieadapt perturb`."""

from __future__ import annotations

import dataclasses

from ieadapt.cli.console import print_json, print_table, shown_stages
from ieadapt.cli.options import Json, Out, Overwrite, takes
from ieadapt.runs.folder import default_folder
from ieadapt.runs.pipelines import spoken_folder
from ieadapt.tasks.perturb.config import PerturbRun
from ieadapt.tasks.perturb.report import describe_perturbed, measures_table
from ieadapt.tasks.perturb.run import run_perturb


@takes(PerturbRun)
def command(asked: PerturbRun, *, out: Out = None, overwrite: Overwrite = False, as_json: Json = False) -> None:
    """Both start from the same noise. The run folder gets the videos side by side, how far they moved, and a report.

    `ieadapt study` does this for every layer in turn and measures it; this shows one choice of layers.

    Example: `ieadapt perturb shapes --prompt "a big red ball moving right over bricks" --perturbation identity
    --sites temporal --steps 8 --out runs/perturbed`
    """
    folder = out or default_folder("perturb")
    with shown_stages() as stages:
        result = run_perturb(asked, folder, overwrite=overwrite, stages=stages)
    if as_json:
        videos = [dataclasses.asdict(each) for each in result.videos]
        print_json({"folder": str(folder), "sites": [site.name for site in result.sites], "videos": videos})
        return
    print("\n".join(describe_perturbed(asked, result)), end="\n\n")
    table = measures_table(result.videos)
    print_table(table.headings, table.rows, table.numeric)
    print()
    print("\n".join(f"video: {spoken_folder(folder / f'{each.name}-side-by-side.mp4')}" for each in result.videos))
    print(f"report: {spoken_folder(folder / 'report.html')}")
