"""`ieadapt enhance`."""

from __future__ import annotations

from typing import Annotated

import typer

from ieadapt.cli.console import print_json, print_table, shown_stages
from ieadapt.cli.options import Json, Out, Overwrite, takes
from ieadapt.runs.folder import default_folder, read_run
from ieadapt.runs.pipelines import spoken_folder
from ieadapt.tasks.enhance.run import EnhanceRun, run_enhance


@takes(EnhanceRun)
def command(
    asked: EnhanceRun,
    *,
    out: Out = None,
    overwrite: Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the enhance run in that folder")] = False,
    as_json: Json = False,
) -> None:
    """Both start from the same noise. The run folder gets the videos, strips of their frames and a report.

    Every finished pair is kept at once: stop the run and go on with `--resume`. `--preset` takes a method of the
    literature; flags given beside it win.

    Example: `ieadapt enhance shapes --prompt "a big red ball moving right over bricks" --profile runs/profile`
    """
    folder = out or default_folder("enhance")
    with shown_stages() as stages:
        chosen = run_enhance(asked, folder, overwrite=overwrite, resume=resume, stages=stages)
    record = read_run(folder)
    videos = [name for name in record["files"] if name.endswith(".mp4")]
    if as_json:
        keys = ("sites", "seeds", "kept", "cost", "seconds_per_video")
        print_json({"folder": str(folder), "videos": videos, **{key: record[key] for key in keys}})
        return
    print(f"attention sites that were changed: {len(chosen)}")
    print_table(("#", "kind", "site"), [[str(site.order), site.kind, site.name] for site in chosen], numeric=(0,))
    print()
    if record["kept"]:
        print(f"kept from the earlier run: {record['kept']} of {len(record['seeds'])} pairs")
    print("\n".join(f"video: {spoken_folder(folder / name)}" for name in videos if "side-by-side" in name))
    print(f"report: {spoken_folder(folder / 'report.html')}")
