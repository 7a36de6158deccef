"""`ieadapt measure`."""

from __future__ import annotations

from ieadapt.cli.console import print_json, print_table, shown_stages
from ieadapt.cli.options import Json, Out, Overwrite, takes
from ieadapt.runs.folder import default_folder
from ieadapt.runs.pipelines import spoken_folder
from ieadapt.tasks.measure.run import MeasureRun, describe_profile, profile_table, run_measure


@takes(MeasureRun)
def command(asked: MeasureRun, *, out: Out = None, overwrite: Overwrite = False, as_json: Json = False) -> None:
    """The run folder gets the profile (parquet and JSON), the plot and a report; `ieadapt enhance --profile` reads it.

    Example: `ieadapt measure shapes --prompt "a big red ball moving right over bricks" --steps 8 --out runs/profile`
    """
    folder = out or default_folder("measure")
    with shown_stages() as stages:
        profile = run_measure(asked, folder, overwrite=overwrite, stages=stages)
    if as_json:
        print_json({"folder": str(folder), "sites": profile.by_site().to_dicts()})
        return
    table = profile_table(profile)
    print_table(table.headings, table.rows, table.numeric)
    print()
    print("\n".join(describe_profile(profile)))
    print(f"report: {spoken_folder(folder / 'report.html')}")
